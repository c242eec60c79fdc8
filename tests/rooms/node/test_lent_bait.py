"""A node that lends itself to a trap, with its real sandbox: what it commits to, when, and when it calls the rest off."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.ledger.core import events
from clusterai.ledger.core.lease_calls import CommitLease, OpenSegment, SpringTrap
from clusterai.protocol.ids import ZERO_ADDRESS, Digest
from clusterai.protocol.jobs import Bait
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import is_bait, trap_digest
from clusterai.sandbox.adapters.wasm import sample
from clusterai.work.batch.spec import Image, JobSpec, Resources
from tests.rooms.node.lendingbed import Bed

SECRET = Digest(keccak(b"bait of a node"))
SEGMENTS, RUN_S = 9, 30


def sieve(bed: Bed) -> JobSpec:
    return JobSpec(
        name="sieve",
        check="wasm",
        image=Image("wasm", bed.content.put(sample("sieve"))),
        argv=("8",),
        fuel=10**9,
        segments=20,
        resources=Resources(memory_bytes=64 << 20, disk_bytes=16 << 20, time_s=60),
    )


def calls_of(bed: Bed, kind: type) -> list[Any]:
    return [call for call in bed.calls if isinstance(call, kind)]


async def planted(folder: Path) -> tuple[Bed, Digest]:
    """Committed, after as long as work would have taken."""
    bed = Bed(folder)
    lease = bed.start(sieve(bed), Bait(SECRET, SEGMENTS, RUN_S))
    await bed.done()
    bed.chain()
    assert not calls_of(bed, CommitLease), "it is there, and isn't told yet"
    bed.chain(after_s=RUN_S)
    bed.commit(lease)
    return bed, lease


@pytest.mark.parametrize("ends", [True, False])
def test_a_drawn_segment_is_shown_or_called_off(tmp_path: Path, ends: bool) -> None:
    """What ends in bait can be served and opened, and is sprung behind the reveal; of the rest nothing is shown."""

    async def test() -> None:
        bed, lease = await planted(tmp_path)
        segment = next(n for n in range(2, SEGMENTS + 1) if is_bait(SECRET, n, SEGMENTS) == ends)
        bed.chain(events.LeaseDrawn(lease, Digest(bytes(32)), True, segment))
        assert len(calls_of(bed, SpringTrap)) == (not ends)
        if ends:
            book = bed.lending.book.leases[lease]
            assert book.done is not None
            assert book.done.states[segment] == trap_digest(SECRET, segment)
            state = Digest(book.done.states[segment - 1])
            assert state in bed.lending.jobs.volumes.of(lease)
            bed.chain(events.AuditCommitted(lease, ZERO_ADDRESS, Digest(bytes(32)), 0))
            assert len(calls_of(bed, OpenSegment)) == 1
            bed.chain(events.AuditRevealed(lease, ZERO_ADDRESS, Digest(bytes(32)), matches=False))
        (call,) = calls_of(bed, SpringTrap)
        assert call.secret == SECRET
        assert msgspec.structs.asdict(call.terms)["nonce"] == keccak(b"clusterai trap" + SECRET)
        await bed.lending.close()

    asyncio.run(test())
