"""The vault's vocabulary: what it hears, what it asks for, what it writes down, and how it refuses.

AskedFor ──> Save(Filed) ──> approve, deny, automatic ──> Save(Decided) ──> Issue ──> Confirmed ──> Save(Live)
Spend ──> Save(Spending), Gave(Spent) ──> what is computed ──> Close ──> Save(Closed), Gave(SignedUse) ──> Anchor ──> Anchored
Revoke, Withdrawn ──> Save(Ended) ──> Withdraw, Rekey ──> Rekeyed ──> Save(KeysAt)
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from clusterai.protocol.access import MOST_CODE_BYTES, MOST_PURPOSE_BYTES, State
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import U8, U32, U40, U63, AddressBytes, DigestBytes, SignatureBytes, Wei
from clusterai.protocol.vaults import Grant, SignedRequest, SignedUse, Use
from clusterai.vault.core.policy import Policy

Purpose = Annotated[str, Meta(max_length=MOST_PURPOSE_BYTES)]
Code = Annotated[bytes, Meta(max_length=MOST_CODE_BYTES)]

DenialCode = Literal[
    "unknown",
    "pending",
    "revoked",
    "expired",
    "requester",
    "operation",
    "other_code",
    "spent",
    "budget",
    "delta",
    "price",
    "busy",
    "malformed",
    "signature",
    "replayed",
    "closed",
    "epsilon",
    "expiry",
    "code",
    "dataset",
    "purpose",
    "withheld",
    "cohort",
    "chain",
    "disclosure",
    "anonymise",
    "unreachable",
    "residency",
]


class Denied(Exception):
    """The vault refuses: `code` is of a closed list, `detail` says what is missing or left."""

    def __init__(self, code: DenialCode | str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Terms(msgspec.Struct, frozen=True):
    """Whose vault this is.

    Attributes:
        sign: by the hot key that signs uses.
        policy: as it stands; `PolicySet` changes it.
    """

    dataset: Digest
    owner: Address
    network: Domain
    sign: Callable[[Digest], bytes]
    policy: Policy


class Permit(msgspec.Struct, frozen=True):
    """What a grant allows now.

    Attributes:
        epsilon_micro: of the grant, in all: zero where the owner let it be without noise.
        most_wei: the most that the requester pays for one use.
        milli_epsilon_wei, use_wei: the prices in force when it was granted.
    """

    grant: Digest
    requester: Address
    seal_to: bytes
    operation: int
    code: Digest
    epsilon_micro: int
    epsilon_left_micro: int
    uses_left: int
    expires_s: int
    most_wei: int
    milli_epsilon_wei: int
    use_wei: int
    key_epoch: int

    def price_wei(self, epsilon_micro: int) -> int:
        """Of one use that spends so much."""
        return self.use_wei + -(-epsilon_micro // 1_000) * self.milli_epsilon_wei


class Spent(msgspec.Struct, frozen=True):
    """A spend that is durable. What is left is what was left after it.

    Attributes:
        closed: its use is in the log: whatever was bought by it has been given, or never will be.
    """

    grant: Digest
    order: Digest
    epsilon_micro: int
    delta_pico: int
    grant_left_micro: int
    total_left_micro: int
    closed: bool


# --- events ---


class AskedFor(msgspec.Struct, frozen=True):
    """A request came, its signature not yet checked."""

    signed: SignedRequest
    purpose: str
    code: bytes


class Approve(msgspec.Struct, frozen=True):
    request: Digest
    note: str = ""


class Deny(msgspec.Struct, frozen=True):
    request: Digest
    note: str = ""


class Revoke(msgspec.Struct, frozen=True):
    """`reason` is a `protocol.vaults.Revoked`."""

    grant: Digest
    reason: int


class Confirmed(msgspec.Struct, frozen=True):
    """The chain has the grant."""

    grant: Digest


class Refused(msgspec.Struct, frozen=True):
    """The chain won't have it, for good."""

    grant: Digest
    reason: str


class Withdrawn(msgspec.Struct, frozen=True):
    """The chain says that the grant is revoked, by whomever."""

    grant: Digest
    reason: int


class Anchored(msgspec.Struct, frozen=True):
    """The chain has the first `count` uses, as of then."""

    count: int
    as_of_s: int


class ChainTime(msgspec.Struct, frozen=True):
    """Of the newest block: what is over there is over here, if our own clock is behind."""

    at_s: int


class Rekeyed(msgspec.Struct, frozen=True):
    """All pieces lie under keys of this epoch, and those before are destroyed."""

    epoch: int


class Spend(msgspec.Struct, frozen=True):
    grant: Digest
    order: Digest
    epsilon_micro: int
    delta_pico: int


class Close(msgspec.Struct, frozen=True):
    """`result`: digest of what left the vault; zeros where nothing did."""

    order: Digest
    result: Digest


class PolicySet(msgspec.Struct, frozen=True):
    policy: Policy


class Due(msgspec.Struct, frozen=True):
    """Event: the chain can take this grant now; it was asked for before the chain knew the data set."""

    grant: Digest


class Fixed(msgspec.Struct, frozen=True):
    """The chain has the data set: with this ε in all, whatever the policy says later."""

    budget_micro: int
    serial: int


# --- effects ---


class Gave(msgspec.Struct, frozen=True):
    """What the caller of this step waits for."""

    value: Any


class No(msgspec.Struct, frozen=True):
    """The caller is refused."""

    code: str
    detail: str


class Issue(msgspec.Struct, frozen=True):
    """Put the grant on chain; `Confirmed` or `Refused` comes back."""

    grant: Grant


class Withdraw(msgspec.Struct, frozen=True):
    """Revoke it on chain; `Withdrawn` comes back."""

    grant: Digest
    reason: int


class Anchor(msgspec.Struct, frozen=True):
    """Anchor the log; `Anchored` comes back."""

    count: int
    root: Digest
    total_spent_micro: int
    as_of_s: int


class Rekey(msgspec.Struct, frozen=True):
    """Put all pieces under new keys; `Rekeyed` comes back."""

    epoch: int


# --- records ---


class _Record(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Filed(_Record, frozen=True):
    signed: SignedRequest
    purpose: Purpose
    code: Code
    at_s: U40


class Decided(_Record, frozen=True):
    """`grant` is None where it was denied. Prices are those in force then."""

    request: DigestBytes
    grant: Grant | None
    note: Annotated[str, Meta(max_length=2_000)]
    milli_epsilon_wei: Wei
    use_wei: Wei
    automatic: bool
    at_s: U40


class Live(_Record, frozen=True):
    grant: DigestBytes
    at_s: U40


class Ended(_Record, frozen=True):
    """`reason`: of `protocol.vaults.Revoked`; 0 where the chain wouldn't have it."""

    grant: DigestBytes
    reason: U8
    at_s: U40


class Expired(_Record, frozen=True):
    """Its time was over once: it stays over, whatever a clock says later."""

    grant: DigestBytes
    at_s: U40


class Dropped(_Record, frozen=True):
    """A request that nobody decided in time, or that a compaction left out."""

    request: DigestBytes


class Spending(_Record, frozen=True):
    grant: DigestBytes
    order: DigestBytes
    epsilon_micro: U63
    delta_pico: U63
    at_s: U40


class Closed(_Record, frozen=True):
    use: Use
    signature: SignatureBytes


class KeysAt(_Record, frozen=True):
    epoch: U32


class KeysWanted(_Record, frozen=True):
    epoch: U32


class Limits(_Record, frozen=True):
    policy: Policy


class Budget(_Record, frozen=True):
    """What the chain holds the vault to."""

    micro: U63


Record = (
    Budget
    | Filed
    | Decided
    | Live
    | Ended
    | Expired
    | Dropped
    | Spending
    | Closed
    | KeysAt
    | KeysWanted
    | Limits
)


class Entry(msgspec.Struct, frozen=True):
    """A request and what became of it, as an owner is shown it. Never changed: a new one takes its place."""

    request: Digest
    signed: SignedRequest
    purpose: str
    code: bytes
    asked_s: int
    state: State = "asked"
    decided: Decided | None = None
    grant: Digest | None = None
    ended_reason: int = 0
    spent_micro: int = 0
    uses: int = 0

    @property
    def requester(self) -> Address:
        return Address(self.signed.request.requester)


class UseRow(msgspec.Struct, frozen=True):
    """A use as an owner is shown it: open until it is closed.

    Attributes:
        index: in the log; -1 while it is open.
    """

    order: Digest
    grant: Digest
    requester: AddressBytes
    epsilon_micro: int
    delta_pico: int
    at_s: int
    index: int
    result: Digest | None
    signed: SignedUse | None
