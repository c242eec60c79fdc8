"""What the auditor hears, asks for and remembers, beyond frames and chain events.

Check ──> Checked | CheckFailed        an engine draws the answer's tokens again
Keep, Forget                           evidence files, encrypted until their epoch is resolved
Noted                                  for logs, metrics and people; decides nothing
"""

from typing import Literal

import msgspec

from clusterai.audit.core.evidence import Bundle
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Transcript
from clusterai.protocol.statements import Clearance, Verdict
from clusterai.work.kind import Findings


class Check(msgspec.Struct, frozen=True, tag=True):
    """Effect: draw this answer again. `leaf` comes back with the outcome: a commitment may be reorganised away. `lot` says which
    part of it, where a part is enough."""

    provider: Address
    epoch: int
    index: int
    leaf: Digest
    transcript: Transcript
    lot: Digest


class Checked(msgspec.Struct, frozen=True, tag=True):
    """Event."""

    provider: Address
    epoch: int
    index: int
    leaf: Digest
    findings: Findings


class CheckFailed(msgspec.Struct, frozen=True, tag=True):
    """Event: our own fault, never the provider's. `final`: no engine here will ever do it (an unknown model)."""

    provider: Address
    epoch: int
    index: int
    leaf: Digest
    reason: str
    final: bool


class Overheard(msgspec.Struct, frozen=True, tag=True):
    """Event: a verdict with its signature, seen anywhere: in a vote's transaction, mined or failed, or handed over."""

    verdict: Verdict
    signature: bytes


class Keep(msgspec.Struct, frozen=True, tag=True):
    """Effect: store an evidence file under its digest."""

    evidence: Digest
    epoch: int
    bundle: Bundle


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Effect: the epoch is resolved; delete its transcripts, except those in `evidence`."""

    provider: Address
    epoch: int
    evidence: tuple[Digest, ...]


NoteKind = Literal[
    "opened",
    "unproven",
    "checked",
    "check_failed",
    "accused",
    "cleared",
    "challenged",
    "disputed_vote",
    "equivocation",
    "refused_by_chain",
]


class Noted(msgspec.Struct, frozen=True, tag=True):
    """Effect: something worth a line in the log; may be repeated after a restart.

    "disputed_vote": another validator's vote that this one could not reproduce; `detail` says why.
    """

    kind: NoteKind
    provider: Address
    epoch: int
    index: int
    detail: str
    evidence: Digest | None = None


class _Record(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Counted(_Record, frozen=True):
    """Record: the orders of a proven list, so that none counts in another epoch."""

    provider: Address
    epoch: int
    orders: tuple[Digest, ...]


class Found(_Record, frozen=True):
    """Record: a check's outcome. `path` places it where only the chain's answer did."""

    provider: Address
    epoch: int
    root: Digest
    index: int
    leaf: Digest
    model: Digest
    evidence: Digest
    path: tuple[Digest, ...]
    findings: Findings


class Weighed(_Record, frozen=True):
    """Record: findings of `indices` (all so far of this root) went into the sequential test: its states after, and
    the receipts that speak for fraud while it is convinced."""

    provider: Address
    epoch: int
    root: Digest
    states: tuple[tuple[Digest, int], ...]
    indices: tuple[int, ...]
    suspects: tuple[int, ...]


class Accused(_Record, frozen=True):
    """Record: this verdict may be signed; no other on the same receipt, ever."""

    verdict: Verdict
    path: tuple[Digest, ...]


class Cleared(_Record, frozen=True):
    """Record: this clearance may be signed."""

    clearance: Clearance


class Heard(_Record, frozen=True):
    """Record: another validator signed this; the first on its receipt, or one that contradicts the first."""

    validator: Address
    verdict: Verdict
    signature: bytes


class Standing(_Record, frozen=True):
    """Record, in snapshots: the sequential test's state for a provider's model."""

    provider: Address
    model: Digest
    weight_milli: int


Record = Counted | Found | Weighed | Accused | Cleared | Heard | Standing


def describe(found: Found) -> str:
    """A check's outcome for people."""
    it = found.findings
    gap = "impossible" if it.largest_gap_milli < 0 else f"{it.largest_gap_milli / 1000:.3f}"
    return (
        f"{it.matches} of {it.tokens} tokens drawn again, largest gap {gap}, "
        f"weight {it.weight_milli / 1000:+.2f} nats"
    )
