"""A group at one price for all: bidders don't depend on bids, winners are paid alike, truth pays."""

from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.market.core.placement.answer import Answered, answer
from clusterai.market.core.placement.book import Book, Hold, Holding, Refused, seats_of
from clusterai.market.core.placement.place import NoPlan, Plan
from clusterai.market.core.placement.request import Need, Part, Request, single
from clusterai.market.core.placement.sale import BIDDERS_EACH, bidders, buy
from clusterai.protocol.ids import Digest
from clusterai.runtime.machine import Save
from tests.rooms.market.machines import NOW, TOKEN, index_of, machine, name

RENTER = name(99)
PRICES = st.lists(st.integers(1, 9), min_size=4, max_size=14)


def request(nodes: int = 3, most: float = 100.0, **changes: object) -> Request:
    fields: dict[str, object] = {"parts": single(nodes), "most_price_wei": int(most * TOKEN), "us_wei": 1_000}
    return Request(**(fields | changes))  # pyright: ignore[reportArgumentType]


def test_all_are_paid_the_lowest_price_that_lost():
    """Three machines of the cheapest operators, each at what the fourth asks."""
    index = index_of(*(machine(number, price=number) for number in range(1, 7)))
    plan = buy(index, request(), None, NOW)
    assert isinstance(plan, Plan)
    assert plan.nodes == (name(1), name(2), name(3))
    assert (plan.seat_wei, plan.price_wei) == (4 * TOKEN, 12 * TOKEN)
    assert plan.pairs == 3


def test_without_a_loser_the_reserve_is_paid():
    """An equal share of the most that the group may cost; above it nobody bids."""
    index = index_of(*(machine(number, price=number) for number in range(1, 4)))
    plan = buy(index, request(3, 30), None, NOW)
    assert isinstance(plan, Plan)
    assert plan.seat_wei == 10 * TOKEN
    assert isinstance(buy(index, request(3, 6), None, NOW), NoPlan)


def test_an_operator_sells_one_machine_to_a_group():
    """Its others neither win nor set the price."""
    mine = [machine(number, price=1, operator=name(1_000)) for number in range(1, 5)]
    index = index_of(*mine, machine(8, price=2), machine(9, price=7))
    plan = buy(index, request(2), None, NOW)
    assert isinstance(plan, Plan)
    assert {it.operator for it in plan.offers} == {name(1_000), name(10_008)}
    assert plan.seat_wei == 7 * TOKEN


@settings(max_examples=40, deadline=None)
@given(prices=PRICES, others=PRICES, nodes=st.integers(2, 3))
def test_who_may_bid_does_not_depend_on_bids(prices: list[int], others: list[int], nodes: int):
    """The same machines at other prices have the same bidders."""

    def asked(from_: list[int]) -> list[bytes]:
        index = index_of(
            *(machine(at, 7_000 * (at % 5), from_[at % len(from_)]) for at in range(1, 4 * BIDDERS_EACH))
        )
        return [index.offer(int(row)).node for row in bidders(index, request(nodes), None, NOW)]

    found = asked(prices)
    assert found == asked(others)
    assert len(found) <= BIDDERS_EACH * nodes


@settings(max_examples=40, deadline=None)
@given(costs=PRICES, me=st.integers(0, 3), lie=st.integers(1, 12), nodes=st.integers(2, 3))
def test_asking_ones_true_cost_is_best(costs: list[int], me: int, lie: int, nodes: int):
    """Whoever asks more or less than its cost gains nothing, whatever the others ask; winners never get less than they asked."""

    def gain(ask: int) -> int:
        asks = [ask if at == me else cost for at, cost in enumerate(costs)]
        index = index_of(*(machine(at + 1, 1_000 * at, price) for at, price in enumerate(asks)))
        plan = buy(index, request(nodes), None, NOW)
        assert isinstance(plan, Plan)
        assert plan.seat_wei is not None
        assert all(it.price_wei <= plan.seat_wei for it in plan.offers)
        return plan.seat_wei - costs[me] * TOKEN if name(me + 1) in plan.nodes else 0

    assert gain(lie) <= gain(costs[me])


def test_a_limit_on_distances_is_kept():
    """Far machines don't bid, however cheap; without enough near ones there is no sale."""
    near = [machine(number, 1_000 * number, 5) for number in range(1, 5)]
    index = index_of(*near, *(machine(number, 500_000 + number, 1) for number in range(10, 12)))
    plan = buy(index, request(3, most_rtt_us=20_000), None, NOW)
    assert isinstance(plan, Plan)
    assert set(plan.nodes) <= {it.node for it in near}
    assert plan.diameter_us <= 20_000
    assert isinstance(buy(index, request(5, most_rtt_us=20_000), None, NOW), NoPlan)


def test_machines_whose_place_nobody_measured_are_bought_blindly():
    """All that suit bid then, and the answer says that distances aren't known."""
    index = index_of(
        *(machine(number, price=number, coordinate=None, measurements=()) for number in range(1, 6))
    )
    found = answer(index, request(), None, NOW, one_price=True)
    assert isinstance(found, Answered)
    assert (found.is_blind, found.plan.seat_wei, found.tolls) == (True, 4 * TOKEN, ())


def test_it_needs_a_reserve_and_one_kind():
    """Told in words."""
    index = index_of(*(machine(number) for number in range(1, 5)))
    mixed = (Part(1, Need()), Part(2, Need(cpu_milli=1)))
    for wrong in (request(most_price_wei=None), request(parts=mixed)):
        found = buy(index, wrong, None, NOW)
        assert isinstance(found, NoPlan)
        assert "one price" in found.faults[0]


def test_the_book_holds_a_machine_at_more_than_it_asks_never_at_less():
    """The one price stands in the seats; a seat below the offer's price is refused as changed."""
    index = index_of(*(machine(number, price=number) for number in range(1, 7)))
    plan = buy(index, request(), None, NOW)
    assert isinstance(plan, Plan)
    seats = seats_of(plan)
    assert {it.price_wei for it in seats} == {4 * TOKEN}
    book = Book(index)
    saved, held = book.step(Hold(Digest(bytes(32)), RENTER, seats), NOW)
    assert isinstance(saved, Save)
    assert isinstance(held, Holding)
    cheap = index.offer(index.row(name(5)) or 0)
    low = Plan(((cheap,),), 0, 0, 0, 0, 0, 1, cheap.price_wei - 1)
    (refused,) = book.step(Hold(Digest(b"2" * 32), RENTER, seats_of(low)), NOW)
    assert isinstance(refused, Refused)
    assert refused.reason == "changed"
