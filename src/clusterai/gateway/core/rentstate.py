"""The rent desk's vocabulary: what it hears, what it asks for, what it writes down, and how a rental stands."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from clusterai.audit.core.timelock import Evidence
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.offers import MOST_RENTED_S
from clusterai.protocol.rentals import MOST_MEMBERS, MOST_SPEC_BYTES, stay_model
from clusterai.protocol.statements import U32, U40, U63, AddressBytes, DigestBytes, SignatureBytes, Wei

MOST_NODES = MOST_MEMBERS - 1


class Close(StrEnum):
    """Why a rental ended: the whole list."""

    RELEASED = "released"
    """Its renter gave it back."""
    OVER = "over"
    """The booked time is."""
    NO_CREDIT = "no_credit"
    """The account couldn't pay the next interval, and didn't for `PAUSE_S`."""
    NEVER_READY = "never_ready"
    """Its machines didn't come up together; nothing was charged."""
    NOT_REPLACED = "not_replaced"
    """The head was lost, and no machine could be had in its place."""


class Seat(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A machine that was booked.

    Attributes:
        node: its hot key, as the renter was shown.
        operator: its owner, by whom links are known.
        links_per_s_milli: of the sentinel, as a validator measured it; 0 where none did.
        longest_s: its owner lets nobody book it for longer ahead.
    """

    node: AddressBytes
    operator: AddressBytes
    price_wei: Wei
    links_per_s_milli: U63
    hold: DigestBytes
    longest_s: U40 = MOST_RENTED_S


class _Record(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Rented(_Record, frozen=True):
    """`secret`: seeds and the token follow from it. `wish`: what a replacement has to be, as the marketplace reads it."""

    lease: DigestBytes
    account: DigestBytes
    spec: Annotated[bytes, Meta(max_length=MOST_SPEC_BYTES)]
    wish: Annotated[bytes, Meta(max_length=65_536)]
    seats: Annotated[tuple[Seat, ...], Meta(min_length=1, max_length=MOST_NODES)]
    until_s: U40
    at_s: U40
    secret: DigestBytes


class Seated(_Record, frozen=True):
    """A machine took another's place."""

    lease: DigestBytes
    place: U32
    generation: U32
    seat: Seat


class Keyed(_Record, frozen=True):
    """Its machine's key for the mesh."""

    lease: DigestBytes
    place: U32
    generation: U32
    key: DigestBytes
    signature: SignatureBytes


class RenterKeyed(_Record, frozen=True):
    lease: DigestBytes
    key: DigestBytes


class Began(_Record, frozen=True):
    """All machines were ready: it is paid from now on."""

    lease: DigestBytes
    at_s: U40


class Passed(_Record, frozen=True):
    """An interval was done and charged. `head`: of its stay's heartbeats, this interval's included."""

    lease: DigestBytes
    place: U32
    generation: U32
    number: U32
    units: U32
    amount_wei: Wei
    # As journals have it that were written when only the newest answer was known.
    head: DigestBytes = msgspec.field(name="answer")
    evidence: Evidence


class Recounted(_Record, frozen=True):
    """What its receipts come to in all: a gateway that was killed may have charged an interval that it didn't count here.

    Attributes:
        units: proven, by place.
    """

    lease: DigestBytes
    intervals: U63
    paid_wei: Wei
    units: Annotated[tuple[tuple[U32, U63], ...], Meta(max_length=MOST_NODES)]


class Extended(_Record, frozen=True):
    lease: DigestBytes
    until_s: U40


class Ended(_Record, frozen=True):
    lease: DigestBytes
    why: Close
    detail: Annotated[str, Meta(max_length=1_000)]
    at_s: U40


class Dropped(_Record, frozen=True):
    """Ended long ago: not listed any more."""

    lease: DigestBytes


RentRecord = Rented | Seated | Keyed | RenterKeyed | Began | Passed | Recounted | Extended | Ended | Dropped


# --- events ---


class Rent(msgspec.Struct, frozen=True):
    """These seats are booked for this account: make a cluster of them."""

    rented: Rented


class Meet(msgspec.Struct, frozen=True):
    """The renter's own end of the mesh has this key."""

    lease: Digest
    key: bytes


class Extend(msgspec.Struct, frozen=True):
    lease: Digest
    until_s: int


class Release(msgspec.Struct, frozen=True):
    lease: Digest


class RelayOpened(msgspec.Struct, frozen=True):
    """By sender's place, where it sends what is for a receiver's place."""

    lease: Digest
    ports: dict[int, dict[int, tuple[str, int]]]


class Outside(msgspec.Struct, frozen=True):
    """Where this member's packets come from."""

    lease: Digest
    place: int
    endpoint: tuple[str, int]


class Found(msgspec.Struct, frozen=True):
    """A machine for this place is booked."""

    lease: Digest
    place: int
    seat: Seat


class NotFound(msgspec.Struct, frozen=True):
    lease: Digest
    place: int
    why: str


class Beaten(msgspec.Struct, frozen=True):
    """More of an interval's answer came, `passed_s` after its order by a clock that nobody sets."""

    errand: int
    tokens: tuple[int, ...]
    passed_s: float


class Done(msgspec.Struct, frozen=True):
    """An interval is over, checked and charged; without `amount_wei` its receipt never came."""

    errand: int
    head: Digest
    tokens: tuple[int, ...]
    amount_wei: int | None


class Counted(msgspec.Struct, frozen=True):
    """All receipts of a rental, counted when this gateway starts. `units`: proven, by place."""

    lease: Digest
    intervals: int
    paid_wei: int
    units: dict[int, int]


class Failed(msgspec.Struct, frozen=True):
    """An interval is over and wasn't charged. `code`: as in `errands.Failed`."""

    errand: int
    code: str
    detail: str


class Credit(msgspec.Struct, frozen=True):
    lease: Digest
    left_wei: int


# --- effects ---


class OpenRelay(msgspec.Struct, frozen=True):
    """Ports for these members, in place of any before; `RelayOpened` comes back."""

    lease: Digest
    members: tuple[tuple[int, bytes], ...]


class CloseRelay(msgspec.Struct, frozen=True):
    lease: Digest


class Order(msgspec.Struct, frozen=True):
    """Order this interval of this stay; `errand` names it, and its receipt is kept under `lease`."""

    errand: int
    account: Digest
    model: Digest
    interval: Any
    lease: Digest


class Abandon(msgspec.Struct, frozen=True):
    """Nobody wants the rest of that interval. `keep`: of what came of it so many tokens are paid; None for all."""

    errand: int
    keep: int | None = None


class FindAnother(msgspec.Struct, frozen=True):
    """A machine for a place whose own is lost, no dearer than that; `Found` or `NotFound` comes back."""

    lease: Digest
    place: int
    wish: bytes
    most_wei: int
    but: tuple[Address, ...]
    until_s: int


class Free(msgspec.Struct, frozen=True):
    """This machine isn't needed any more; others that were booked with it stay."""

    hold: Digest
    node: Address


class Extension(msgspec.Struct, frozen=True):
    """Book the same machines for longer."""

    hold: Digest
    until_s: int


class AskCredit(msgspec.Struct, frozen=True):
    """What is left on this account? `Credit` comes back."""

    lease: Digest
    account: Digest


class Noted(msgspec.Struct, frozen=True):
    """Worth a line in the log, and in what the renter is told."""

    lease: Digest
    what: Literal[
        "ready",
        "lost",
        "replaced",
        "refused",
        "unpaid",
        "stolen",
        "clock",
        "parted",
        "ended",
        "runway",
        "resumed",
        "memory",
        "cards",
    ]
    detail: str


# --- state ---

StayPhase = Literal["opening", "opened", "ready", "lost"]


class Stay(msgspec.Struct):
    """One place of a rental and the machine that has it now.

    Attributes:
        opened_s: when it was asked to open; it is given up if it isn't ready in time.
        errand: the interval that is under way.
        tried: of intervals; seeds follow from it, so that none is used twice.
        failures: intervals in a row that failed.
        told: how often it said something to its renter.
        ordered_s: when the interval that is under way was ordered.
        heard_s: of other places, when it last heard them, by its own word; `said_s`: when it said so.
        is_parted: it and the head don't hear each other, and its time doesn't count; `unearned_s` were paid before that was known.
    """

    place: int
    generation: int
    seat: Seat
    phase: StayPhase = "opening"
    key: bytes = b""
    signature: bytes = b""
    opened_s: float = 0.0
    asked_s: float = -1e9
    lost_s: float = 0.0
    unlinked_s: float | None = None
    steps: tuple[tuple[str, int], ...] = ()
    ready_s: float | None = None
    errand: int | None = None
    ordered_s: float = 0.0
    tokens: list[int] = []
    heard_s: dict[int, float] = {}
    said_s: float | None = None
    is_parted: bool = False
    unearned_s: float = 0.0
    tried: int = 0
    failures: int = 0
    told: int = 0
    again_s: float = 0.0
    head: bytes = bytes(32)
    tenths: int = 0
    """proven by the heartbeats up to `head`"""
    evidence: Evidence = Evidence()

    def model(self, lease: Digest) -> Digest:
        return stay_model(lease, self.place, self.generation)


class Rental(msgspec.Struct):
    rented: Rented
    until_s: int
    stays: dict[int, Stay]
    began_s: int | None = None
    renter_key: bytes = b""
    ended: Ended | None = None
    ports: dict[int, dict[int, tuple[str, int]]] = {}
    outside: dict[int, tuple[str, int]] = {}
    units: dict[int, int] = {}
    paid_wei: int = 0
    intervals: int = 0
    """that were paid"""
    unpaid_s: float | None = None
    """since when the account can't pay, and the machines stand still"""
    credit_s: float = 0.0
    """when it is asked again what is left"""
    is_short: bool = False
    """its renter was told that the money ends soon"""
    seeking: dict[int, float] = {}
    """places without a machine, and when one is sought again"""
    gone: dict[Address, float] = {}
    """machines that failed here, and when: they aren't asked again soon"""
    parted: dict[int, tuple[bytes, float]] = {}
    """by place, the last machine that was exchanged because it and the head didn't hear each other, and when"""
    notes: list[tuple[int, str, str]] = []

    @property
    def lease(self) -> Digest:
        return Digest(self.rented.lease)

    @property
    def account(self) -> Digest:
        return Digest(self.rented.account)

    @property
    def renter_place(self) -> int:
        return len(self.rented.seats)

    @property
    def is_complete(self) -> bool:
        return all(stay.phase == "ready" for stay in self.stays.values())
