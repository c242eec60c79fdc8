"""The group auction: nobody gains by misreporting, and more bids never raise the price."""

from hypothesis import given
from hypothesis import strategies as st

from clusterai.market.core.placement.auction import Bid, Sale, TooFew, sell
from tests.rooms.market.machines import name

RESERVE = 100
prices = st.lists(st.integers(0, 120), min_size=1, max_size=12)


def bids(costs: list[int]) -> list[Bid]:
    return [Bid(name(number), name(1_000 + number), cost) for number, cost in enumerate(costs)]


def gain(asked: list[Bid], who: int, cost: int, nodes: int) -> int:
    sale = sell(asked, nodes, RESERVE)
    won = isinstance(sale, Sale) and any(it.node == name(who) for it in sale.winners)
    return sale.price_wei - cost if won and isinstance(sale, Sale) else 0


@given(prices, st.integers(1, 5), st.data())
def test_nobody_gains_by_misreporting(costs: list[int], nodes: int, data: st.DataObject) -> None:
    """Whatever the others bid, a machine's true cost is its best bid."""
    who = data.draw(st.integers(0, len(costs) - 1))
    lie = data.draw(st.integers(0, 120))
    honest = bids(costs)
    lying = [*honest]
    lying[who] = Bid(name(who), name(1_000 + who), lie)
    assert gain(lying, who, costs[who], nodes) <= gain(honest, who, costs[who], nodes)


@given(prices, st.integers(1, 5))
def test_all_winners_are_paid_the_same_and_none_less_than_it_asked(costs: list[int], nodes: int) -> None:
    """The price is no more than the reserve, no less than any winner's bid, and losers bid no less than it."""
    sale = sell(bids(costs), nodes, RESERVE)
    willing = [cost for cost in costs if cost <= RESERVE]
    if isinstance(sale, TooFew):
        assert len(willing) < nodes
        assert sale.bidders == len(willing)
        return
    assert len(sale.winners) == nodes
    assert max(it.price_wei for it in sale.winners) <= sale.price_wei <= RESERVE
    assert all(cost >= sale.price_wei for cost in sorted(willing)[nodes:])


@given(prices, prices, st.integers(1, 5))
def test_more_bids_never_raise_the_price(costs: list[int], more: list[int], nodes: int) -> None:
    """Names without end that bid only lower what is paid."""
    few, many = (sell(bids(it), nodes, RESERVE) for it in (costs, costs + more))
    if isinstance(few, Sale):
        assert isinstance(many, Sale)
        assert many.price_wei <= few.price_wei


def test_of_one_operator_one_bid_counts() -> None:
    """A second machine of the winner doesn't set what the first is paid."""
    one = [Bid(name(1), name(9), 10), Bid(name(2), name(9), 90)]
    assert sell([*one, Bid(name(3), name(8), 40)], 1, RESERVE) == Sale((one[0],), 40)
    assert sell(one, 1, RESERVE) == Sale((one[0],), RESERVE)
    assert sell(one, 2, RESERVE) == TooFew(1)
