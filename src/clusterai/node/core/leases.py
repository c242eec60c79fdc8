"""The lease book's vocabulary: what it hears, what it asks for, and what it writes down.

Work ──> Start ──> Produced ──> Keep ──> Kept ──> Save(Made) ──> Send(Finished) ──> Pay
          │                                                                          │ Save(Vouched)
          └──> Broke ──> Send(Refused)                                               └──> Dispute ──> Save(Disputed)

epoch over ──> Save(Committing) ──> Submit(CommitEpoch) ──> audits: Open, Prepare ──> window over ──> Save(Forgot), Forget
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from clusterai.ledger.core import claims
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import MAX_RECEIPTS_PER_EPOCH, Answer, AskEpoch, ModelOffer, Transcript
from clusterai.protocol.statements import (
    U32,
    U40,
    DigestBytes,
    Order,
    Receipt,
    SignatureBytes,
    Wei,
)


class Terms(msgspec.Struct, frozen=True):
    """Who this provider is, on which network, and what it risks.

    Attributes:
        me: the owner's address.
        keys: hot keys of ours, and the owner: who may be named as a channel's receiver authorizer.
        credit_wei: receipts of one channel that may be unpaid (or were disputed since its last payment) before more
            work is refused. The most that a gateway can take without paying, besides what runs.
        queue: orders taken beyond the engines' slots.
        most_ahead_s: orders that expire later than this are refused; for so long a receipt's order is remembered.
        confirmations: blocks that must stand above a challenge before it is answered.
    """

    me: Address
    keys: tuple[Address, ...]
    token: Address
    network: Domain
    channels: Domain
    epoch_s: int
    window_s: int
    sign: Callable[[Digest], bytes]
    recover: Callable[[Digest, bytes], Address]
    credit_wei: int = 1_000_000_000
    queue: int = 32
    most_ahead_s: int = 7200
    least_claim_wei: int = 1
    confirmations: int = 0


# --- events ---


class Serving(msgspec.Struct, frozen=True):
    """The engines are ready for these offers; none while an engine starts or restarts.

    `begun`: models of which an order is a piece of work that was taken on before: it goes on while nothing new is taken.
    """

    offers: tuple[ModelOffer, ...]
    begun: tuple[Digest, ...] = ()


class Produced(msgspec.Struct, frozen=True):
    """An order's work ended by itself or was stopped; `cached_units` is only told, not charged by."""

    order: Digest
    answer: Answer
    cached_units: int = 0


class Broke(msgspec.Struct, frozen=True):
    """An order's work can't be done: busy, bad_request, engine_failed."""

    order: Digest
    code: str
    detail: str
    retry_after_ms: int = 0


class Kept(msgspec.Struct, frozen=True):
    """The transcript of an order is durable."""

    order: Digest


class Prepared(msgspec.Struct, frozen=True):
    """The parts that answer a challenge; none where what is demanded doesn't exist or doesn't fit."""

    epoch: int
    index: int
    validator: Address
    parts: tuple[bytes, ...]


class Drain(msgspec.Struct, frozen=True):
    """Take no more work; what runs may end."""


class Paused(msgspec.Struct, frozen=True):
    """Take no new work, for this reason, until another of these says none; what runs goes on."""

    why: str = ""


# --- effects ---


class Start(msgspec.Struct, frozen=True):
    """Do this and report `Produced` or `Broke`; tokens stream to `gateway` meanwhile."""

    order: Digest
    gateway: Address
    model: Digest
    kind: str
    request: Any


class Stop(msgspec.Struct, frozen=True):
    """End an order's work at once. With `report`, `Produced` follows with what there is; else nothing does."""

    order: Digest
    report: bool


class Keep(msgspec.Struct, frozen=True):
    """Make a transcript durable, encrypted under its epoch's key; `Kept` follows."""

    epoch: int
    order: Digest
    transcript: Transcript


class Forget(msgspec.Struct, frozen=True):
    """Destroy the key and the transcripts of an epoch: nobody can ask for them any more."""

    epoch: int


class OpenEpoch(msgspec.Struct, frozen=True):
    """Show a validator an epoch: all its receipts, and the drawn ones' transcripts, sealed; sent through `gateway`."""

    gateway: Address
    ask: AskEpoch
    receipts: tuple[Receipt, ...]
    signatures: tuple[bytes, ...]
    drawn: tuple[tuple[int, Digest], ...]


class Prepare(msgspec.Struct, frozen=True):
    """Pack the on-chain answer to a validator's challenge; `Prepared` follows. `order` is None for the epoch's list."""

    epoch: int
    index: int
    validator: Address
    receipts: tuple[Receipt, ...]
    order: Digest | None
    seal_to: bytes | None


class Noted(msgspec.Struct, frozen=True):
    """For people and metrics: something happened that nobody else is told."""

    what: str
    detail: str
    peer: Address | None = None


# --- records ---


class _Record(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    pass


class Made(_Record, frozen=True):
    """A receipt that we signed. `answered`: its gateway paid or disputed it, so it needn't be sent again."""

    receipt: Receipt
    signature: SignatureBytes
    channel_id: DigestBytes
    reason: Annotated[str, Meta(max_length=16)]
    cached_units: U32
    expires_s: U40
    answered: bool = False
    disputed: bool = False
    cut_wei: Wei = 0
    """price of tokens that were sent after the answer was over, as its gateway says; it counts as disputed"""


class Answered(_Record, frozen=True):
    """The gateway paid this order."""

    order: DigestBytes


class Disputed(_Record, frozen=True):
    """The gateway refuses to pay; not committed, unless that was done already."""

    order: DigestBytes


class Committing(_Record, frozen=True):
    """The receipts of an epoch in commitment order: fixed before the chain hears of them."""

    epoch: U40
    orders: Annotated[tuple[DigestBytes, ...], Meta(max_length=MAX_RECEIPTS_PER_EPOCH)]


class Forgot(_Record, frozen=True):
    """Nothing of this epoch and those before can be asked for any more."""

    epoch: U40


class Spent(_Record, frozen=True):
    """Snapshot: an order that had a receipt in a forgotten epoch and hasn't expired; it must not be done again."""

    order: DigestBytes
    expires_s: U40


class Carried(_Record, frozen=True):
    """Snapshot: what receipts of forgotten epochs add up to on a channel."""

    channel_id: DigestBytes
    amount_wei: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


Record = (
    Carried | Made | Answered | Disputed | Committing | Forgot | Spent | claims.ChannelMet | claims.Vouched
)


class Running(msgspec.Struct):
    """An order in work; not durable, for nothing is owed before its receipt."""

    order: Order
    signature: bytes
    kind: str
    request: bytes
    value: Any
    cancelled: bool = False
    most: int | None = None
    """tokens with which the answer was over, as its gateway says"""
    keeping: Made | None = None
    """the receipt, while its transcript becomes durable"""
