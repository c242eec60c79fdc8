"""What the front desk and the Meter say to each other: errands, and how they go."""

from typing import Any, Literal, Protocol

import msgspec

from clusterai.gateway.core.moneystate import Channel, Charged, Refund
from clusterai.market.core.routing import Preference
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import ModelOffer, Transcript
from clusterai.protocol.statements import Order
from clusterai.work.kind import Kind


class Ending(Protocol):
    """Follows one answer to its end."""

    def push(self, token: int, /) -> str | None:
        """Why the answer is over after `token`: "stop" or "length"; None to go on."""
        ...


class Terms(msgspec.Struct, frozen=True):
    """The gateway's own limits; each may be set in its configuration.

    Attributes:
        channel_target_wei: what a channel is filled up to.
        channel_low_wei: headroom below which it is filled up.
        withdraw_delay_s: how long a provider can still claim after we ask for our deposit back; the contract's least.
        first_token_s: silence before the first token after which a provider counts as dead ...
        per_input_unit_s: ... plus this for each unit of input, since a long prompt takes long to read.
        gap_s: the same between tokens; with a tick each half second, a stall is noticed within 5 s.
        failures: providers that may fail with one errand before it fails itself.
        absent_s: how long to wait for a provider of a model that nobody linked serves.
        most_waiting: errands that wait for a free provider; more are turned away at once.
        order_s: how long an order may be begun.
        cancel_s: how long a cancelled order may take to send its receipt.
        least_payout_wei: the least that is paid back; the gateway pays for the transaction.
        payouts_an_hour: withdrawals of one account, for the same reason.
        bear_wei: what the gateway bears in a day of requests that failed when parts of them were made; beyond it, who
            asked pays for those parts.
    """

    channel_target_wei: int = 20 * 10**9
    channel_low_wei: int = 5 * 10**9
    withdraw_delay_s: int = 900
    first_token_s: float = 4.0
    per_input_unit_s: float = 0.01
    gap_s: float = 4.0
    failures: int = 8
    absent_s: float = 2.0
    most_waiting: int = 1000
    order_s: int = 600
    cancel_s: float = 10.0
    least_payout_wei: int = 10_000
    payouts_an_hour: int = 5
    bear_wei: int = 10**9


class Ask(msgspec.Struct, frozen=True):
    """Event: an account wants one answer.

    Attributes:
        errand: the desk's name for it, never used twice in one process.
        request: decoded request of `kind`.
        nonce: 32 fresh random bytes.
        tag: what the charge will be remembered by, such as the digest of an idempotency key.
        streamed: whether the client reads tokens as they come; what it read can't be taken back.
        patience_s: how long to wait for somebody who can do it.
        call: the name of the request that this errand is a part of; by itself where it has only one.
        rest: what the other parts ask for, in order, as the first of them says it: all must be affordable before any
            begins, and nothing is charged unless all are done.
    """

    errand: int
    account: Digest
    kind: Kind
    model: Digest
    request: Any
    nonce: bytes
    tag: bytes = b""
    preference: Preference = Preference()
    streamed: bool = False
    patience_s: float = 10.0
    call: int | None = None
    rest: tuple[Any, ...] = ()


class Abandon(msgspec.Struct, frozen=True):
    """Event: nobody waits for this request any more, though it isn't done.

    `shown`: the errands that ended and reached its client, when something failed: they are charged, and nothing else. None
    when the client left: it pays for all that is made.
    `keep`: of a call of one part, so many tokens are worth something to anybody; for what came after them nobody owes anything.
    """

    call: int
    shown: tuple[int, ...] | None = None
    keep: int | None = None


class Deliver(msgspec.Struct, frozen=True):
    """Effect: the next tokens of an errand, in order and without gaps, whoever made them."""

    errand: int
    tokens: tuple[int, ...]
    logprobs_milli: tuple[int, ...]
    top: tuple[tuple[tuple[int, int], ...], ...]


class Restarted(msgspec.Struct, frozen=True):
    """Effect: forget what was delivered of this errand; it begins again elsewhere. Never for streamed ones."""

    errand: int


class Done(msgspec.Struct, frozen=True):
    """Effect: the errand is over, checked and charged. Without `charged` it was free: its receipt never came."""

    errand: int
    reason: str
    charged: Charged | None
    transcript: Transcript | None
    cached_units: int
    abandoned: bool


class Failed(msgspec.Struct, frozen=True):
    """Effect: the errand is over and nothing was charged.

    `code`: absent, unwanted, suspended, busy, unfunded (see `routing.NoPick`), insufficient_credit, bad_receipt,
    provider_lost, or what the provider refused with. `partial`: the client has already seen tokens.
    """

    errand: int
    code: str
    detail: str
    retry_after_s: float
    partial: bool


class Settled(msgspec.Struct, frozen=True):
    """Effect: what a failed request of several parts is charged after all."""

    call: int
    charged_wei: int


class Refunded(msgspec.Struct, frozen=True):
    """Effect, for those who watch: a conviction gave money back to an account, or the gateway bears a charge."""

    refund: Refund


class Call(msgspec.Struct, eq=False):
    """All parts of one request, while who pays for them isn't settled or some of them run.

    Attributes:
        open: the errands that aren't over.
        orders: charges that wait, by errand.
        reserved_wei: held for parts that weren't asked yet, in order.
        payer: of whatever its parts still cost; empty until it is abandoned.
    """

    name: int
    account: Digest
    parts: int
    open: "dict[int, Errand]" = msgspec.field(default_factory=dict)
    over: int = 0
    failed: bool = False
    orders: dict[int, Digest] = msgspec.field(default_factory=dict)
    reserved_wei: list[int] = msgspec.field(default_factory=list)
    payer: Literal["", "account", "gateway"] = ""


class Errand(msgspec.Struct, eq=False):
    """One answer on its way. `request` is for what is still missing; `reserved_wei` is held for it while nobody works on it."""

    ask: Ask
    call: Call
    asked_s: float
    ends_s: float
    request: Any = None
    tries: int = 0
    failures: int = 0
    abandoned: bool = False
    order: "Open | None" = None
    reserved_wei: int = 0
    ending: Ending | None = None
    over: str | None = None
    """why the answer is over, as its tokens show"""
    so_far: list[int] = msgspec.field(default_factory=list)
    refusals: dict[Address, tuple[str, str]] = msgspec.field(default_factory=dict)
    """providers that won't do it, with code and detail"""

    def __post_init__(self) -> None:
        if self.request is None:
            self.request = self.ask.request


class Open(msgspec.Struct, eq=False):
    """An order that a provider works on. `request` is bytes, `value` the same decoded."""

    order: Order
    digest: Digest
    signature: bytes
    offer: ModelOffer
    request: bytes
    value: Any
    errand: Errand
    channel: Channel
    started_s: float
    due_s: float
    first_s: float | None = None
    cut: bool = False
    """it ran past the answer's end: what it sends now is not looked at"""
    tokens: list[int] = msgspec.field(default_factory=list)

    @property
    def provider(self) -> Address:
        return Address(self.order.provider)
