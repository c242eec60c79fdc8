"""Reservations: a plan is held before it is shown, so that a plan shown is a plan placed.

    Hold ──> Save(HoldMade), Holding ──Confirm──> Save(HoldConfirmed), Booked ──its end──> Save(HoldEnded), Freed
      │                          └──Release, or its time is over──> Save(HoldEnded), Freed; one machine's: Save(SeatReturned), Freed
      └──> Refused: taken, changed, gone, too_many, other

All machines of a plan or none. A machine is in at most one hold or booking at any time, so of two renters who race for the last
one, one is refused. A hold binds the offers as they were planned: at `Hold` each must still stand unchanged, and what its operator
says afterwards changes neither price nor hold. It ends no later than the offers it holds.

Holding costs nothing, so a renter has a bounded number of machines on hold, for a bounded time.

One book speaks for the machines that it alone hands out. Where several gateways do, each machine keeps such a book for itself.
"""

import heapq
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.place import Plan
from clusterai.market.core.placement.request import MOST_NODES
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import U40, AddressBytes, DigestBytes, Wei
from clusterai.runtime.machine import Save, Started, Tick

HOLD_S = 60
"""How long a person may look at a plan."""
MOST_HELD = 2 * MOST_NODES
"""Machines that one renter may have on hold, bookings not counted."""


class _Record(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    pass


class Seat(_Record, frozen=True):
    """A machine at the price that was shown."""

    node: AddressBytes
    operator: AddressBytes
    price_wei: Wei
    offer: DigestBytes


class HoldMade(_Record, frozen=True):
    hold: DigestBytes
    renter: AddressBytes
    seats: Annotated[tuple[Seat, ...], Meta(min_length=1, max_length=MOST_NODES)]
    until_s: U40


class HoldConfirmed(_Record, frozen=True):
    hold: DigestBytes
    until_s: U40


class HoldEnded(_Record, frozen=True):
    hold: DigestBytes


class SeatReturned(_Record, frozen=True):
    """One machine of several is given back; the others stay booked."""

    hold: DigestBytes
    node: AddressBytes


BookRecord = HoldMade | HoldConfirmed | HoldEnded | SeatReturned


# --- events ---


class Hold(msgspec.Struct, frozen=True):
    """Hold a plan's machines for a renter who is about to see it. `hold` names it for good."""

    hold: Digest
    renter: Address
    seats: tuple[Seat, ...]


class Confirm(msgspec.Struct, frozen=True):
    """The renter takes the plan; it is rented until `until_s`."""

    hold: Digest
    until_s: int


class Release(msgspec.Struct, frozen=True):
    """The renter doesn't want it, or gives it back early: all of it, or the one machine that is named."""

    hold: Digest
    node: Address | None = None


# --- effects ---


class Holding(msgspec.Struct, frozen=True):
    hold: Digest
    until_s: int


class Refused(msgspec.Struct, frozen=True):
    """`taken`: another has the machine. `changed`: its offer isn't the one that was planned. `gone`: it isn't offered, or the
    hold is over. `too_many`: this renter holds enough. `other`: the name stands for another hold."""

    hold: Digest
    reason: Literal["taken", "changed", "gone", "too_many", "other"]
    node: Address | None = None


class Booked(msgspec.Struct, frozen=True):
    hold: Digest
    seats: tuple[Seat, ...]
    until_s: int


class Freed(msgspec.Struct, frozen=True):
    hold: Digest
    nodes: tuple[Address, ...]
    why: Literal["expired", "ended", "released"]


class _State(msgspec.Struct):
    renter: Address
    seats: tuple[Seat, ...]
    until_s: int
    booked: bool = False


def seats_of(plan: Plan) -> tuple[Seat, ...]:
    return tuple(
        Seat(
            it.node,
            it.operator,
            it.price_wei if plan.seat_wei is None else plan.seat_wei,
            canonical.digest(it),
        )
        for it in plan.offers
    )


class Book:
    """A machine as in `runtime/machine.py`. It marks what it took in the index, so that nobody plans with it."""

    RECORDS = BookRecord

    def __init__(self, index: Index) -> None:
        self._index = index
        self._holds: dict[Digest, _State] = {}
        self._holder: dict[Address, Digest] = {}
        self._held: dict[Address, int] = {}
        """machines on hold, by renter"""
        self._ends: list[tuple[int, Digest]] = []
        """a heap; an entry that isn't its hold's end any more is passed over"""

    # --- machine ---

    def restore(self, records: Iterable[BookRecord]) -> None:
        for record in records:
            self._apply(record)

    def snapshot(self) -> Sequence[BookRecord]:
        made: list[BookRecord] = []
        for hold, state in self._holds.items():
            made.append(HoldMade(hold, state.renter, state.seats, state.until_s))
            if state.booked:
                made.append(HoldConfirmed(hold, state.until_s))
        return made

    def step(self, event: Hold | Confirm | Release | Started | Tick, now_s: float) -> list[msgspec.Struct]:
        effects = self._expire(now_s)
        match event:
            case Hold():
                effects += self._hold(event, now_s)
            case Confirm(hold, until_s):
                effects += self._confirm(hold, until_s, now_s)
            case Release(hold, node):
                effects += self._release(hold, node)
            case Started() | Tick():
                pass
        return effects

    # --- answers ---

    def holder(self, node: Address) -> Digest | None:
        """Which hold or booking has it; whether that is over is known after the next step."""
        return self._holder.get(node)

    def booked(self, hold: Digest) -> Booked | Holding | None:
        """How it stands, whichever of the two it is; None once it is over."""
        state = self._holds.get(hold)
        if state is None:
            return None
        if state.booked:
            return Booked(hold, state.seats, state.until_s)
        return Holding(hold, state.until_s)

    def bookings(self) -> tuple[Digest, ...]:
        """All that are booked, in the order in which they were held."""
        return tuple(hold for hold, state in self._holds.items() if state.booked)

    def seats(self, hold: Digest) -> tuple[Seat, ...]:
        """The machines of a hold or booking; none once it is over."""
        state = self._holds.get(hold)
        return () if state is None else state.seats

    def renter(self, hold: Digest) -> Address | None:
        state = self._holds.get(hold)
        return None if state is None else state.renter

    def held_by(self, renter: Address) -> int:
        """Machines on hold, not yet booked."""
        return self._held.get(renter, 0)

    # --- rules ---

    def _hold(self, event: Hold, now_s: float) -> list[msgspec.Struct]:
        known = self._holds.get(event.hold)
        if known is not None:
            same = known.renter == event.renter and known.seats == event.seats and not known.booked
            return [Holding(event.hold, known.until_s) if same else Refused(event.hold, "other")]
        if not 1 <= len(event.seats) <= MOST_NODES:
            return [Refused(event.hold, "too_many")]
        if self.held_by(event.renter) + len(event.seats) > MOST_HELD:
            return [Refused(event.hold, "too_many")]
        until_s = int(now_s) + HOLD_S
        for at, seat in enumerate(event.seats):
            node = Address(seat.node)
            row = self._index.row(node)
            if node in self._holder or any(seat.node == it.node for it in event.seats[:at]):
                return [Refused(event.hold, "taken", node)]
            if row is None:
                return [Refused(event.hold, "gone", node)]
            offer = self._index.offer(row)
            if not offer.issued_s <= now_s < offer.expires_s:
                return [Refused(event.hold, "gone", node)]
            # More than its price is what a group's one price may be.
            fair = max(offer.price_wei, seat.price_wei)
            if Seat(offer.node, offer.operator, fair, canonical.digest(offer)) != seat:
                return [Refused(event.hold, "changed", node)]
            until_s = min(until_s, offer.expires_s)
        record = HoldMade(event.hold, event.renter, event.seats, until_s)
        self._apply(record)
        return [Save(record), Holding(event.hold, until_s)]

    def _confirm(self, hold: Digest, until_s: int, now_s: float) -> list[msgspec.Struct]:
        state = self._holds.get(hold)
        if state is None or until_s <= now_s:
            return [Refused(hold, "gone")]
        if state.booked and until_s <= state.until_s:
            # Asked twice. Later ends extend; nothing is shortened, that is what `Release` is for.
            return [Booked(hold, state.seats, state.until_s)]
        record = HoldConfirmed(hold, until_s)
        self._apply(record)
        return [Save(record), Booked(hold, state.seats, until_s)]

    def _release(self, hold: Digest, node: Address | None) -> list[msgspec.Struct]:
        seats = self.seats(hold)
        if node is None or [seat.node for seat in seats] == [node]:
            return self._end(hold, "released") if seats else []
        if not any(seat.node == node for seat in seats):
            return []
        record = SeatReturned(hold, node)
        self._apply(record)
        return [Save(record), Freed(hold, (node,), "released")]

    def _expire(self, now_s: float) -> list[msgspec.Struct]:
        effects: list[msgspec.Struct] = []
        while self._ends and self._ends[0][0] <= now_s:
            until_s, hold = heapq.heappop(self._ends)
            state = self._holds.get(hold)
            if state is not None and state.until_s == until_s:
                effects += self._end(hold, "ended" if state.booked else "expired")
        return effects

    def _end(self, hold: Digest, why: Literal["expired", "ended", "released"]) -> list[msgspec.Struct]:
        nodes = tuple(Address(seat.node) for seat in self._holds[hold].seats)
        record = HoldEnded(hold)
        self._apply(record)
        return [Save(record), Freed(hold, nodes, why)]

    def _apply(self, record: BookRecord) -> None:
        match record:
            case HoldMade(hold, renter, seats, until_s):
                nodes = tuple(Address(seat.node) for seat in seats)
                assert not any(node in self._holder for node in nodes), "a machine is in one hold at a time"
                self._holds[Digest(hold)] = _State(Address(renter), seats, until_s)
                self._holder.update(dict.fromkeys(nodes, Digest(hold)))
                self._count(Address(renter), len(seats))
                heapq.heappush(self._ends, (until_s, Digest(hold)))
                self._index.take(nodes)
            case HoldConfirmed(hold, until_s):
                state = self._holds[Digest(hold)]
                if not state.booked:
                    self._count(state.renter, -len(state.seats))
                state.booked, state.until_s = True, until_s
                heapq.heappush(self._ends, (until_s, Digest(hold)))
            case SeatReturned(hold, node):
                state = self._holds[Digest(hold)]
                state.seats = tuple(seat for seat in state.seats if seat.node != node)
                if not state.booked:
                    self._count(state.renter, -1)
                del self._holder[Address(node)]
                self._index.give_back((Address(node),))
            case HoldEnded(hold):
                state = self._holds.pop(Digest(hold))
                if not state.booked:
                    self._count(state.renter, -len(state.seats))
                nodes = tuple(Address(seat.node) for seat in state.seats)
                for node in nodes:
                    del self._holder[node]
                self._index.give_back(nodes)

    def _count(self, renter: Address, more: int) -> None:
        held = self._held.get(renter, 0) + more
        if held:
            self._held[renter] = held
        else:
            self._held.pop(renter, None)
