"""A lease: work paid from escrow, not by the request; and every way in which one can end.

    open ──accept──> accepted ──commit──> committed ──draw, audit, window──> closed
      └─ cancel, give up, startBy    └─ cancel, give up, deadline                └─ a conviction, at any time

What the contract `Leases` knows of the work is digests; the kind of work defines what they digest. The lease's id is
the EIP-712 digest of its terms, so that two machines that were shown the same terms name the same lease before it is
on chain, and terms of one network can't be opened on another.

Why a digest of state has to cover what the meter counted: an audit compares states. A kind whose meter could run
ahead of its state (fuel that the state doesn't hold) could be overcharged without a mismatch. And a result is state and
meter together (`segment_result`), because pay follows the meter.
"""

from enum import IntEnum
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol.eip712 import Domain, struct_hash, type_hash, typed_digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.statements import AddressBytes, DigestBytes, Wei

MAX_SEGMENTS = 2**20
"""Most segments of a lease: an opening's proof stays at 20 digests."""

BASE_BPS = 3_000
"""Of the compensation in ten-thousandths, whatever the meter shows: see `earned_wei`."""

_TRAP = b"clusterai trap"


class DeterminismClass(IntEnum):
    """What an audit may expect of a second run."""

    UNVERIFIED = 0
    """nothing: not drawn, and labelled and priced so"""
    WASM = 1
    """the same bits on every machine; the meter is fuel"""
    PINNED = 2
    """the same bits with the same pinned image, seed, clock and environment"""


class CloseReason(IntEnum):
    """Why a lease ended: a closed list, the same numbers in `Leases.sol`."""

    COMPLETED = 1
    CANCELLED_BEFORE_START = 2
    CANCELLED = 3
    NOT_ACCEPTED = 4
    DEADLINE_MISSED = 5
    GAVE_UP = 6
    OUTPUT_DIFFERS = 7
    FRAUD = 8
    WITHHELD = 9
    PROVIDER_CONVICTED = 10


class DisputeReason(IntEnum):
    """How a dispute ended: a closed list, the same numbers in `Disputes.sol`."""

    REFEREES = 1
    """two thirds of a committee said the same"""
    TIMEOUT = 2
    """who had to move didn't"""
    UNDECIDED = 3
    """not even two thirds of the panel said the same: the provider's claim stands, the accuser has its bond back"""
    MOOT = 4
    """the lease was closed meanwhile"""


class DemandOutcome(IntEnum):
    """How a demand for delivery ended: a closed list, the same numbers in `Deliveries.sol`."""

    UNDELIVERED = 1
    """two thirds of the panel could not have it either: the provider is convicted, the bond goes back"""
    DELIVERED = 2
    """fewer said so in time: the bond is the provider's"""
    MOOT = 3
    """the lease was closed meanwhile"""


class Terms(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a requester asks and pays for. Parties are owners, not hot keys.

    Attributes:
        spec: digest of the canonical specification of the work (J).
        resources: digest of what the provider has to set aside.
        input: Merkle root or digest of the input.
        expected: digest that the output must have; zero where nobody knows it beforehand.
        determinism: a `DeterminismClass`.
        segments: most segments that the provider may cut the work into.
        units: what the meter shows if all of the work was done; the pay goes by it (`earned_wei`).
        compensation_wei: the most that the work may cost.
        audit_fee_wei: for the auditor, if there is one; else it comes back.
        start_by_s: accepted until then, or not at all.
        deadline_s: committed until then, or not at all.
        nonce: makes equal terms different leases; the digest of a secret where the lease is a trap (`trap_nonce`).
    """

    requester: AddressBytes
    provider: AddressBytes
    spec: DigestBytes
    resources: DigestBytes
    input: DigestBytes
    expected: DigestBytes
    determinism: Annotated[int, Meta(ge=0, le=2)]
    segments: Annotated[int, Meta(ge=1, le=MAX_SEGMENTS)]
    units: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    compensation_wei: Wei
    audit_fee_wei: Wei
    start_by_s: Annotated[int, Meta(ge=0, le=2**40 - 1)]
    deadline_s: Annotated[int, Meta(ge=0, le=2**40 - 1)]
    nonce: DigestBytes

    TYPE = type_hash(
        "Terms(address requester,address provider,bytes32 spec,bytes32 resources,bytes32 input,bytes32 expected,"
        "uint8 class,uint32 segments,uint64 units,uint128 compensation,uint128 auditFee,uint40 startBy,"
        "uint40 deadline,bytes32 nonce)"
    )

    def struct(self) -> Digest:
        return struct_hash(self.TYPE, *msgspec.structs.astuple(self))

    def lease_id(self, leases: Domain) -> Digest:
        return _lease_id(self, leases)


@lru_cache(maxsize=256)
def _lease_id(terms: Terms, leases: Domain) -> Digest:
    """Each machine that a lease passes names it several times."""
    return typed_digest(leases.separator(), terms.struct())


def earned_wei(compensation_wei: int, units: int, of: int) -> int:
    """The most that so many of the agreed units may cost, rounded up: three tenths for the machine that was set aside,
    and their share of the rest."""
    parts = BASE_BPS * of + (10_000 - BASE_BPS) * units
    return -(-compensation_wei * parts // (10_000 * of))


def unit_cap(units: int, segments: int) -> int:
    """The most units of one segment, of a lease over so many units and segments."""
    return -(-units // segments)


def leases_domain(chain_id: int, leases: Address) -> Domain:
    return Domain("ClusterAI Leases", "1", chain_id, leases)


def hidden_state(state: Digest) -> Digest:
    """How a state stands in a commitment: whoever has the state knows it by this, and nobody learns the state from it."""
    return Digest(keccak(state))


def segment_result(state: Digest, units: int) -> Digest:
    """What a segment comes to, as the provider claims it and auditors and referees say it: the state behind it, and all
    units that were metered up to there. A sum beyond the meter's 64 bits is nobody's: it wraps, below what was before."""
    return Digest(keccak(state + (units % 2**64).to_bytes(8)))


def sealed_result(result: Digest, auditor: Address, lease: Digest, salt: Digest) -> Digest:
    """What an auditor commits to before anyone sees `result`: bound to it and to the lease, so that nobody can copy."""
    return Digest(keccak(result + auditor + lease + salt))


def trap_nonce(secret: Digest) -> Digest:
    """The nonce of a planted lease: to an auditor it looks like any other."""
    return Digest(keccak(_TRAP + secret))


def is_bait(secret: Digest, index: int, segments: int) -> bool:
    """Whether a planted lease has bait after segment `index`, else a state that can be run on from.

    Every other state is bait, and the secret says which: no auditor knows of any segment that it is harmless, and each that ends
    in bait begins with something to run.
    """
    return index > 0 and (segments == 1 or (index + secret[-1]) % 2 == 1)


def trap_digest(secret: Digest, index: int) -> Digest:
    """What a planted lease shows as the state after segment `index`. No run of anything digests to it, so an auditor
    who reveals a result of it copied instead of working, and a planter can't make an honest auditor look lazy."""
    return Digest(keccak(_TRAP + secret + index.to_bytes(4)))
