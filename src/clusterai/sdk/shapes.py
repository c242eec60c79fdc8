"""What a gateway tells, as structs. Fields that a newer gateway adds are passed over; `numbers` says of each number
whether it is measured, claimed or settled. Amounts are in the token's smallest unit, ids and addresses 0x hex."""

from typing import Any, Literal

import msgspec


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    numbers: dict[str, str] = {}


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    provider: str
    balance_wei: int
    vouchered_wei: int
    claimed_wei: int
    final_wei: int
    barred: bool


class Status(_Told, frozen=True, kw_only=True):
    gateway: str
    chain_id: int
    block: int
    chain_time_s: int
    epoch: int
    epoch_s: int
    window_s: int
    providers_linked: int
    errands: int
    accounts: int
    funded_wei: int
    charged_wei: int
    refunded_wei: int
    withdrawn_wei: int = 0
    borne_wei: int = 0
    """parts of requests that failed as a whole: their providers were paid, and no account was charged"""
    registry: str = ""
    """part of what is signed under: see `protocol.withdrawal`"""
    channels: list[Channel] = []
    did: str = ""
    version: str = ""
    since_s: int = 0
    reason: str = ""
    """why it isn't ready; empty when it is"""
    models: dict[str, int] = {}
    """how many providers could take an order for each now"""


class NodeModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    address: str
    input_price_wei: int
    output_price_wei: int
    slots: int


class Factor(msgspec.Struct, frozen=True, kw_only=True):
    """One factor of a node's quality: its value in 0 ... 1, what it rests on, and what would raise it."""

    name: str
    value: float
    found: str
    source: str
    cure: str = ""


class Invitation(_Told, frozen=True, kw_only=True):
    """What a machine must know to join: the gateway's owner, where nodes dial in, and `network.json`."""

    gateway: str
    link: str
    manifest: msgspec.Raw


class Node(_Told, frozen=True, kw_only=True):
    """`state`: ready, or why it gets no work. `quality`: the product of what is `explained`."""

    provider: str
    stake_wei: int
    barred: bool
    linked: bool
    state: str
    channel: Channel | None = None
    models: list[NodeModel] = []
    running: int = 0
    queued: int = 0
    orders_here: int = 0
    first_token_s: float = 0.0
    failures_in_a_row: int = 0
    cleared_epochs: int = 0
    quality: float = 0.0
    explained: list[Factor] = []


class Rank(msgspec.Struct, frozen=True, kw_only=True):
    """Where an offer stands among those of its model; prices are of a unit in and one out, together. `share`: of the
    requests, while all are as busy as now. `next_price_wei`: the most that it may ask to be one place better."""

    model: str
    name: str
    obstacle: str
    place: int
    of: int
    share: float
    price_wei: int
    wait_s: float
    doubt: float
    next_price_wei: int | None = None
    first_price_wei: int | None = None
    cheapest_wei: int | None = None
    quickest_s: float | None = None
    answers_an_hour: float = 0.0
    all_answers_an_hour: float = 0.0


class LendingRank(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider's price of a core's hour stands among all that lend to jobs."""

    core_hour_wei: int
    place: int
    of: int
    cheapest_wei: int
    next_wei: int | None = None
    checks: list[str] = []
    forms: list[str] = []
    least_stake_wei: int = 0
    queue: int = 0


class RankedNode(Node, frozen=True, kw_only=True):
    """One node, with how its offers stand; `jobs` is None where it lends nothing."""

    ranks: list[Rank] = []
    jobs: LendingRank | None = None


class Receipt(_Told, frozen=True, kw_only=True):
    """`state`: paid → committed → verified → settled; or convicted → refunded."""

    id: str
    state: str
    provider: str
    gateway: str
    model: str
    answer: str
    input_units: int
    output_units: int
    price_wei: int
    refunded_wei: int
    epoch: int
    at_s: int
    leaf: str
    signature: str
    order_signature: str
    channel: str
    voucher_wei: int
    epoch_on_chain: dict[str, Any] | None = None
    model_name: str | None = None
    account: str | None = None


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """All that a replay of the audit needs, in the protocol's own bytes (base64)."""

    id: str
    kind: str
    transcript: str
    receipt: str
    receipt_signature: str
    request: str
    tokens: list[int]
    text: str | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    account: str
    scopes: list[str]
    created_s: int
    limits: dict[str, Any] = {}


class NewKey(Key, frozen=True, kw_only=True):
    """`key` is shown this once."""

    key: str


class Account(_Told, frozen=True, kw_only=True):
    account: str
    gateway: str
    credit_wei: int
    held_wei: int
    funded_wei: int
    charged_wei: int
    refunded_wei: int
    withdrawn_wei: int = 0
    tabbed_wei: int = 0
    """what jobs cost, and the most that those which are open may yet cost"""
    keys: list[Key] = []


class Withdrawal(_Told, frozen=True, kw_only=True):
    """Credit on its way back: `paying` until the chain carried it out."""

    id: str
    account: str
    to: str
    amount_wei: int
    state: Literal["paying", "paid"]
    asked_s: int
    reason: str = ""
    """why the chain didn't take it the last time"""
    transaction: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that just happened at a gateway or on its chain."""

    seq: int
    kind: str
    at_s: int
    detail: dict[str, Any]
    block: int | None = None


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """What the chain says of one provider's epoch: committed, cleared or convicted."""

    provider: str
    epoch: int
    state: str
    block: int
    detail: dict[str, Any]


class Audits(msgspec.Struct, frozen=True, kw_only=True):
    epochs: list[Epoch]
    events: list[Event]
