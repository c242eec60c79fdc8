"""A verifiable job that carries more from segment to segment than can be handed to auditors is given back, not committed to."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from clusterai.ledger.core import events
from clusterai.ledger.core.lease_events import AuditParameters
from clusterai.node.core.handing import too_much
from clusterai.protocol.jobs import Broken, Done, Progress
from tests.rooms.node.lendingbed import CONFIG, Bed

MIB = 1024**2


@pytest.mark.parametrize(("size", "why"), [(300 * MIB, ""), (300 * MIB + 1, "segment 3 begins with 300 MiB")])
def test_what_the_line_hands_over_in_an_auditors_time_may_be_carried(size: int, why: str) -> None:
    """To the byte."""
    said = too_much(3, size, 10 * MIB, 60)
    assert said.startswith(why)
    assert bool(said) == bool(why)
    assert not said or said.endswith("carry less from segment to segment, or take class: unverified")


GROWS = """
import os, sys
segment = int(os.environ["CLUSTERAI_SEGMENT"])
open("kept", "wb").write(bytes(1 << 20) * segment)
sys.exit(0 if segment == 6 else 75)
"""


def played(folder: Path, check: str, audit_s: int, **inputs: str) -> tuple[Done | Broken, int]:
    """A job that keeps a MiB more with each of six segments, on a line of 1 MiB a second; how it ended, and segments done."""

    async def test() -> tuple[Done | Broken, int]:
        bed = Bed(folder, config=msgspec.structs.replace(CONFIG, handed_bytes_s=MIB))
        rules = AuditParameters(700_000, 990_000, 200_000, 200_000, audit_s, 20, 20, 20, 1, 1)
        bed.chain(events.AuditParametersSet(rules))
        root = bed.root(main_py=GROWS, **inputs)
        segments = 1 if check == "unverified" else 6
        bed.start(bed.spec("python main.py", inputs=(root,), segments=segments, check=check))
        over = await bed.over()
        await bed.lending.close()
        return over, max((it.segment for it in bed.seen if isinstance(it, Progress)), default=0)

    return asyncio.run(test())


def test_it_ends_at_the_segment_that_carries_too_much(tmp_path: Path) -> None:
    """Half of six seconds are three MiB: with the fourth MiB behind it the fifth segment couldn't be handed over, and the sixth isn't run."""
    over, segments = played(tmp_path, "pinned", 6)
    assert isinstance(over, Broken)
    assert (over.code, segments) == ("refused", 4)
    assert over.detail.startswith("segment 4 begins with 3")


def test_what_the_network_gives_auditors_time_for_is_committed_to(tmp_path: Path) -> None:
    """The same job on the same line, where an auditor has twenty seconds."""
    over, segments = played(tmp_path, "pinned", 20)
    assert isinstance(over, Done)
    assert segments == 6


def test_inputs_count_as_what_a_segment_begins_with(tmp_path: Path) -> None:
    """Each auditor needs them."""
    over, _ = played(tmp_path, "pinned", 6, data="x" * (4 * MIB))
    assert isinstance(over, Broken)
    assert over.detail.startswith("segment 1 begins with 4")


def test_what_nobody_audits_may_be_of_any_size(tmp_path: Path) -> None:
    """An unverified job's states are shown to nobody."""
    over, _ = played(tmp_path, "unverified", 3, data="x" * (4 * MIB))
    assert isinstance(over, Done)
