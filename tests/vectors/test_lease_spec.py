"""Chapter 6 of the specification against the code: numbers, names, reasons."""

from pathlib import Path

from clusterai.audit.core.segments import VETERAN_AT
from clusterai.ledger.artifacts import load
from clusterai.ledger.core.twin.audits import MAX_ATTEMPTS
from clusterai.ledger.core.twin.leases import VESTED_STAKE
from clusterai.ledger.core.twin.panel import SEATS
from clusterai.protocol.eip712 import type_hash
from clusterai.protocol.leases import MAX_SEGMENTS, CloseReason, DeterminismClass, Terms

TEXT = (Path(__file__).parents[2] / "docs" / "spec" / "06-leases.md").read_text()


def test_terms_are_specified() -> None:
    """The type's text is the one that is hashed."""
    (line,) = [line for line in TEXT.splitlines() if line.startswith("Terms(")]
    assert type_hash(line) == Terms.TYPE


def test_every_reason_and_class_is_specified() -> None:
    """By name and number, in their order."""
    rows = [line.split("|")[1:3] for line in TEXT.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [(int(number), name.strip()) for number, name in rows] == [
        (it.value, it.name) for it in CloseReason
    ]
    for it in DeterminismClass:
        assert f"{it.value} {it.name.lower()}" in TEXT


def test_numbers_of_leases_are_those_of_the_code() -> None:
    """Bounds in the text are the constants."""
    for phrase in (
        f"{MAX_SEGMENTS:,} at most",
        f"{VETERAN_AT} / (N + 1)",
        f"({SEATS} at most)",
        f"After {MAX_ATTEMPTS} auditors",
        f"below {VESTED_STAKE} times",
    ):
        assert phrase in TEXT, phrase


def test_functions_of_leases_exist() -> None:
    """What the text calls is in the contracts."""
    names = {
        entry["name"]
        for contract in ("Panel", "Leases", "Audits")
        for entry in load(contract).abi
        if entry["type"] in ("function", "event")
    }
    for name in (
        *("openLease", "acceptLease", "commitLease", "closeLease", "cancelLease", "giveUpLease"),
        *("commitAudit", "reportWithheld", "openSegment", "revealAudit", "expireAudit", "springTrap"),
        *("LeaseCommitted", "AuditCommitted", "SegmentShown", "Enlisted"),
    ):
        assert name in TEXT
        assert name in names
