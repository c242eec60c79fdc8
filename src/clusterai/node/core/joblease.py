"""What a provider's book of leases is told, asks for and keeps: its events, effects and records, and one lease as far as it has come."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from clusterai.audit.core.segments import Commitment
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.jobs import Bait
from clusterai.protocol.leases import Terms

AUDIT_S = 30
"""An auditor's time to begin, until the chain tells another."""


class JobTerms(msgspec.Struct, frozen=True):
    """Who this provider is, and what it takes.

    Attributes:
        me: the owner's address.
        leases: domain of the contract, which makes a lease's id.
        network: domain under which auditors sign what they ask for.
        recover: who signed a digest.
        window_s: after a commitment, before it can be closed.
        confirmations: blocks that must stand above a lease's end before its states go.
        fits: (spec, terms, running leases) to a refusal's code and words, or None. Capacity and price are decided there.
    """

    me: Address
    leases: Domain
    network: Domain
    window_s: int
    recover: Callable[[Digest, bytes], Address]
    fits: Callable[[str, Any, Terms, int], tuple[str, str] | None]
    most: int = 64
    """leases at once, done or not"""
    confirmations: int = 0
    takes_bait: bool = True
    """whether gateways may plant traps for auditors here"""


# --- effects ---


class Perform(msgspec.Struct, frozen=True):
    """Do it, or go on with it from what is on disk; `Progressed`, then `Performed` or `Failed` come back. With `bait` it isn't done:
    what comes back is what to commit to instead."""

    lease: Digest
    gateway: Address
    kind: str
    spec: Any
    terms: Terms
    bait: Bait | None = None
    audit_s: int = AUDIT_S
    """an auditor's time to begin: what a segment begins with has to be handed over in it"""


class Halt(msgspec.Struct, frozen=True):
    """Stop it; nothing comes back."""

    lease: Digest


class Discard(msgspec.Struct, frozen=True):
    """The lease is over for good: its volume's key is destroyed, and the volume with it."""

    lease: Digest
    spec: Any


# --- events ---


class Progressed(msgspec.Struct, frozen=True):
    lease: Digest
    segment: int
    units: int


class Performed(msgspec.Struct, frozen=True, array_like=True):
    """All segments are done. `states` are h_0 ... h_T, and `units` what each segment metered."""

    lease: Digest
    states: tuple[bytes, ...]
    units: tuple[int, ...]
    output: bytes
    exit_code: int
    detail: str


class Failed(msgspec.Struct, frozen=True):
    """It can't be done, by the fault of the job or of this machine; `code` is of the sandbox's closed list."""

    lease: Digest
    code: str
    detail: str


class Drain(msgspec.Struct, frozen=True):
    """Take nothing new."""


class Paused(msgspec.Struct, frozen=True):
    """Take nothing new, for this reason, until another of these says none."""

    why: str = ""


# --- records ---


class Taken(msgspec.Struct, frozen=True, tag=True):
    gateway: bytes
    kind: str
    terms: Terms
    spec: bytes
    bait: Bait | None = None


class Worked(msgspec.Struct, frozen=True, tag=True):
    done: Performed


class GaveUp(msgspec.Struct, frozen=True, tag=True):
    lease: bytes
    code: str
    detail: str


class Ended(msgspec.Struct, frozen=True, tag=True):
    lease: bytes


JobRecord = Taken | Worked | GaveUp | Ended


class Lease(msgspec.Struct):
    """One lease, as far as it has come. What the chain showed isn't journaled: it is read again."""

    id: Digest
    gateway: Address
    kind: str
    terms: Terms
    spec: Any
    raw: bytes
    bait: Bait | None = None
    done: Performed | None = None
    failed: GaveUp | None = None
    opened: bool = False
    accepted: bool = False
    committed_s: int | None = None
    closed: tuple[int, int] | None = None
    """the block that closed it, and its second"""
    to_show: int = 0
    """the drawn segment that an auditor waits for; 0 for none"""
    running: bool = False
    segment: int = 0
    units: int = 0


def committed(done: Performed) -> Commitment:
    """The tree over what was performed, from which root and proofs come."""
    return _commitment(done.states, done.units)


@lru_cache(maxsize=16)
def _commitment(states: tuple[bytes, ...], units: tuple[int, ...]) -> Commitment:
    """Made once for the commitment and for all that is shown of it; three digests a segment."""
    return Commitment([Digest(state) for state in states], units)
