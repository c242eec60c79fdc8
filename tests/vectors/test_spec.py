"""The specification's text against the code: what it names exists, and what exists is named."""

import re
from pathlib import Path

import pytest

from clusterai.audit.core.opening import MAX_PART_BYTES, MAX_PARTS, MAX_REQUEST_BYTES, PART_BYTES
from clusterai.audit.core.recount import STALE_AFTER_S, Code
from clusterai.audit.core.sequential import BOUND_MILLI, FLOOR_MILLI
from clusterai.protocol import statements
from clusterai.protocol.canonical import MAX_FRAME_BYTES
from clusterai.protocol.eip712 import type_hash
from clusterai.protocol.messages import MAX_RECEIPTS_PER_EPOCH, Frame, Relayed
from clusterai.validator.core.memory import MOST_HEARD
from tests.vectors.test_vectors import load

SPEC = Path(__file__).parents[2] / "docs" / "spec"


def text(chapter: str) -> str:
    return (SPEC / chapter).read_text()


@pytest.mark.parametrize("frame", [*Frame.__args__, *Relayed.__args__], ids=lambda kind: kind.__name__)
def test_every_frame_is_specified_with_its_fields(frame: type) -> None:
    """A row of chapter 3 names the frame and its fields in their order."""
    rows = [line for line in text("03-frames.md").splitlines() if line.startswith(f"| `{frame.__name__}`")]
    assert len(rows) == 1
    fields = ", ".join(frame.__struct_fields__)  # type: ignore[attr-defined]
    assert f"| {fields} |" in rows[0]


def test_every_type_is_specified() -> None:
    """The EIP-712 types of chapter 2 are those that are signed."""
    written = re.findall(r"^(\w+)(\([\w ,]+\))$", text("02-statements.md"), re.MULTILINE)
    hashes = {name: type_hash(name + fields) for name, fields in written}
    kinds = [getattr(statements, name) for name in hashes]
    assert hashes == {kind.__name__: kind.TYPE for kind in kinds}
    assert {kind.__name__ for kind in statements.Statement.__args__} | {"ChannelConfig"} == set(hashes)


def test_every_fault_is_specified() -> None:
    """The table of faults in chapter 5 is the list of codes."""
    named = re.findall(r"^\| `(\w+)` \| (?:the list|a receipt)", text("05-audit.md"), re.MULTILINE)
    assert sorted(named) == sorted(Code)


def test_numbers_are_those_of_the_code() -> None:
    """Limits and bounds that the text states."""
    audit = text("05-audit.md")
    for number in (
        MAX_RECEIPTS_PER_EPOCH,
        MAX_PARTS,
        MOST_HEARD,
        MAX_PART_BYTES,
        PART_BYTES,
        MAX_REQUEST_BYTES,
        STALE_AFTER_S,
        2 * STALE_AFTER_S,
    ):
        assert f"{number:,}" in audit
    assert f"{BOUND_MILLI / 1000}" in audit
    assert f"{FLOOR_MILLI / 1000}" in audit
    assert f"{MAX_FRAME_BYTES:,}" in text("01-encoding.md")


def test_quoted_vectors_are_in_the_files() -> None:
    """Hex in the text stands in the vectors."""
    vectors = "".join(str(load(name)) for name in ("statements", "frames", "merkle", "draw", "segments"))
    for chapter in sorted(SPEC.glob("*.md")):
        for quoted in re.findall(r"0x[0-9a-f]{64,}", chapter.read_text()):
            assert quoted in vectors, f"{chapter.name}: {quoted}"


def test_links_between_chapters_hold() -> None:
    """No link of the specification or of the explanation beside it leads nowhere."""
    pages = [*SPEC.glob("*.md"), SPEC.parent / "explanation" / "proof-of-compute.md"]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
