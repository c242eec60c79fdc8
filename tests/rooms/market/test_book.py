"""Reservations: no machine twice, nothing held for good, and what was shown is what is booked."""

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clusterai.market.core.placement.book import (
    HOLD_S,
    MOST_HELD,
    Book,
    Booked,
    BookRecord,
    Confirm,
    Freed,
    Hold,
    Holding,
    Refused,
    Release,
    Seat,
    seats_of,
)
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.place import NoPlan, Plan, place
from clusterai.market.core.placement.request import Request, single
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.runtime.machine import Save, Started, Tick
from tests.rooms.market.machines import NOW, TOKEN, index_of, machine, name

ANN, BOB = name(501), name(502)


def hold_id(number: int) -> Digest:
    return Digest(number.to_bytes(32))


def seat(number: int, **changes: Any) -> Seat:
    offer = machine(number, **changes)
    return Seat(offer.node, offer.operator, offer.price_wei, canonical.digest(offer))


def three() -> tuple[Index, Book]:
    index = index_of(*(machine(number) for number in range(1, 4)))
    return index, Book(index)


def answer(effects: list[msgspec.Struct]) -> msgspec.Struct:
    return effects[-1]


def test_a_plan_shown_is_a_plan_placed() -> None:
    """Held before it is shown, its machines are in nobody else's plan, and confirming books just them."""
    index, book = three()
    plan = place(index, Request(parts=single(2)), None, NOW)
    assert isinstance(plan, Plan)
    held = book.step(Hold(hold_id(1), ANN, seats_of(plan)), NOW)
    assert answer(held) == Holding(hold_id(1), NOW + HOLD_S)
    other = place(index, Request(parts=single(1)), None, NOW)
    assert isinstance(other, Plan)
    assert set(other.nodes).isdisjoint(plan.nodes)
    assert isinstance(place(index, Request(parts=single(2)), None, NOW), NoPlan)
    booked = answer(book.step(Confirm(hold_id(1), NOW + 3_600), NOW + 30))
    assert booked == Booked(hold_id(1), seats_of(plan), NOW + 3_600)


def test_of_two_renters_who_race_for_the_last_machine_one_is_refused() -> None:
    """Both planned with it; the second to hold is told so and has nothing half held."""
    _, book = three()
    assert isinstance(answer(book.step(Hold(hold_id(1), ANN, (seat(1), seat(2))), NOW)), Holding)
    assert book.step(Hold(hold_id(2), BOB, (seat(3), seat(2))), NOW) == [
        Refused(hold_id(2), "taken", name(2))
    ]
    assert book.holder(name(3)) is None


def test_a_price_raised_after_it_was_shown_changes_nothing() -> None:
    """The hold binds: offered anew dearer, or withdrawn, it is booked at the price that was shown."""
    index, book = three()
    book.step(Hold(hold_id(1), ANN, (seat(1), seat(2))), NOW)
    index.put(machine(1, price=50.0), NOW + 1)
    index.remove(name(2))
    booked = answer(book.step(Confirm(hold_id(1), NOW + 3_600), NOW + 2))
    assert isinstance(booked, Booked)
    assert [it.price_wei for it in booked.seats] == [TOKEN, TOKEN]


def test_a_price_raised_before_the_hold_is_noticed() -> None:
    """A plan made from an older offer isn't shown: it is refused and made anew."""
    index, book = three()
    index.put(machine(1, price=1.01), NOW)
    assert book.step(Hold(hold_id(1), ANN, (seat(1),)), NOW) == [Refused(hold_id(1), "changed", name(1))]
    assert book.step(Hold(hold_id(1), ANN, (seat(9),)), NOW) == [Refused(hold_id(1), "gone", name(9))]


def test_a_hold_ends_with_its_time_and_with_its_offers() -> None:
    """Nothing is held for good, and nothing beyond what the operator is bound by."""
    index = index_of(machine(1), machine(2, expires_s=NOW + 5))
    book = Book(index)
    assert answer(book.step(Hold(hold_id(1), ANN, (seat(1),)), NOW)) == Holding(hold_id(1), NOW + HOLD_S)
    short = answer(book.step(Hold(hold_id(2), ANN, (seat(2, expires_s=NOW + 5),)), NOW))
    assert short == Holding(hold_id(2), NOW + 5)
    assert Freed(hold_id(2), (name(2),), "expired") in book.step(Tick(), NOW + 5)
    assert book.step(Confirm(hold_id(1), NOW + 999), NOW + HOLD_S)[-1] == Refused(hold_id(1), "gone")
    assert book.step(Hold(hold_id(3), ANN, (seat(2, expires_s=NOW + 5),)), NOW + 5) == [
        Refused(hold_id(3), "gone", name(2))
    ]


def test_one_machine_of_several_is_given_back() -> None:
    """The others stay booked; with the last one the booking is over. Of a machine that isn't in it, or once more, nothing comes."""
    index, book = three()
    book.step(Hold(hold_id(1), ANN, (seat(1), seat(2))), NOW)
    assert book.held_by(ANN) == 2
    assert Freed(hold_id(1), (name(2),), "released") in book.step(Release(hold_id(1), name(2)), NOW)
    assert book.held_by(ANN) == 1
    assert book.step(Release(hold_id(1), name(2)), NOW) == []
    assert book.step(Release(hold_id(1), name(3)), NOW) == []
    assert isinstance(answer(book.step(Hold(hold_id(2), BOB, (seat(2),)), NOW)), Holding)
    booked = answer(book.step(Confirm(hold_id(1), NOW + 100), NOW))
    assert booked == Booked(hold_id(1), (seat(1),), NOW + 100)
    again = Book(index_of(*(machine(number) for number in range(1, 4))))
    again.restore(book.snapshot())
    assert again.booked(hold_id(1)) == booked
    assert Freed(hold_id(1), (name(1),), "released") in book.step(Release(hold_id(1), name(1)), NOW)
    assert book.booked(hold_id(1)) is None
    assert isinstance(place(index, Request(parts=single(2)), None, NOW), Plan)


def test_asking_twice_changes_nothing() -> None:
    """Equal holds and confirmations have equal answers and are saved once; another under the same name is refused."""
    _, book = three()
    event = Hold(hold_id(1), ANN, (seat(1),))
    first, second = book.step(event, NOW), book.step(event, NOW + 1)
    assert second == [answer(first)]
    assert book.step(Hold(hold_id(1), BOB, (seat(2),)), NOW) == [Refused(hold_id(1), "other")]
    confirm = Confirm(hold_id(1), NOW + 100)
    assert book.step(confirm, NOW + 2)[-1:] == book.step(confirm, NOW + 3)
    assert answer(book.step(Confirm(hold_id(1), NOW + 200), NOW + 4)) == Booked(
        hold_id(1), (seat(1),), NOW + 200
    )


def test_nobody_holds_the_whole_market() -> None:
    """Holding is free, so it is bounded by renter."""
    index = index_of(*(machine(number) for number in range(1, 302)))
    book = Book(index)
    for number in range(MOST_HELD // 100):
        seats = tuple(seat(100 * number + at) for at in range(1, 101))
        assert isinstance(answer(book.step(Hold(hold_id(number), ANN, seats), NOW)), Holding)
    assert book.step(Hold(hold_id(9), ANN, (seat(301),)), NOW) == [Refused(hold_id(9), "too_many")]
    assert isinstance(answer(book.step(Hold(hold_id(9), BOB, (seat(301),)), NOW)), Holding)


def test_a_machine_twice_in_one_hold_is_refused() -> None:
    """A seat is one machine's."""
    _, book = three()
    assert book.step(Hold(hold_id(1), ANN, (seat(1), seat(1))), NOW) == [
        Refused(hold_id(1), "taken", name(1))
    ]


class NeverTwice(RuleBasedStateMachine):
    """Holds, bookings, releases, time, offers that change, and crashes between: a machine has one holder at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.index = index_of(*(machine(number) for number in range(1, 6)))
        self.book = Book(self.index)
        self.now = NOW
        self.journal: list[BookRecord] = []
        self.promised: dict[Digest, tuple[tuple[Seat, ...], int]] = {}

    def step(self, event: Any) -> msgspec.Struct | None:
        effects = self.book.step(event, self.now)
        for effect in effects:
            if isinstance(effect, Save):
                self.journal.append(msgspec.convert(effect.record, BookRecord))  # type: ignore[arg-type]
            if isinstance(effect, Freed):
                seats, until_s = self.promised.pop(effect.hold)
                left = tuple(it for it in seats if it.node not in effect.nodes)
                if left:
                    self.promised[effect.hold] = (left, until_s)
            if isinstance(effect, Booked):
                self.promised[effect.hold] = (effect.seats, effect.until_s)
        return effects[-1] if effects else None

    @rule(
        number=st.integers(0, 6), nodes=st.lists(st.integers(1, 5), min_size=1, max_size=3), ann=st.booleans()
    )
    def hold(self, number: int, nodes: list[int], ann: bool) -> None:
        seats = tuple(seat(it) for it in nodes)
        said = self.step(Hold(hold_id(number), ANN if ann else BOB, seats))
        if isinstance(said, Holding):
            self.promised[said.hold] = (seats, said.until_s)

    @rule(number=st.integers(0, 6), for_s=st.integers(-5, 300))
    def confirm(self, number: int, for_s: int) -> None:
        known = self.promised.get(hold_id(number))
        said = self.step(Confirm(hold_id(number), self.now + for_s))
        if isinstance(said, Booked):
            assert known is not None
            assert said.seats == known[0]

    @rule(number=st.integers(0, 6))
    def release(self, number: int) -> None:
        self.step(Release(hold_id(number)))

    @rule(number=st.integers(0, 6), node=st.integers(1, 5))
    def release_one(self, number: int, node: int) -> None:
        self.step(Release(hold_id(number), name(node)))

    @rule(for_s=st.integers(1, 90))
    def wait(self, for_s: int) -> None:
        self.now += for_s
        self.step(Tick())

    @rule(number=st.integers(1, 5), price=st.sampled_from([1.0, 2.0]))
    def offer_anew(self, number: int, price: float) -> None:
        self.index.put(machine(number, price=price, expires_s=NOW + 10**6), self.now)
        self.index.put(machine(number, price=price), self.now)

    @rule()
    def crash(self) -> None:
        self.index = index_of(*(machine(number) for number in range(1, 6)))
        self.book = Book(self.index)
        self.book.restore(self.journal)
        again = Book(index_of())
        again.restore(self.book.snapshot())
        assert again.snapshot() == self.book.snapshot()
        self.step(Started())

    @invariant()
    def one_holder_each(self) -> None:
        holders: dict[Address, Digest] = {}
        for hold, (seats, until_s) in self.promised.items():
            assert until_s > self.now or until_s == 0
            for it in seats:
                node = Address(it.node)
                assert node not in holders
                holders[node] = hold
        for number in range(1, 6):
            assert self.book.holder(name(number)) == holders.get(name(number))
            row = self.index.row(name(number))
            assert bool(self.index.columns.taken[row]) == (name(number) in holders)


NeverTwice.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestNeverTwice = NeverTwice.TestCase
