"""Where an offer stands: places and shares are those that routing gives, and the told price is enough and no less than needed."""

from hypothesis import given
from hypothesis import strategies as st

from clusterai.market.core.ranking import Rank, ranks, share
from clusterai.market.core.routing import Pick, Preference, Routing
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Announce, ModelOffer

MODEL = Digest(b"m" * 32)
ANY = Preference()
NOW_S = 100.0


def who(number: int) -> Address:
    return Address(bytes([number]) * 20)


def priced(prices: list[int]) -> Routing:
    table = Routing()
    for number, price in enumerate(prices):
        table.linked(who(number))
        announce(table, number, price)
    return table


def announce(table: Routing, number: int, price: int, *, paused: bool = False) -> None:
    offer = ModelOffer(MODEL, "tiny", price, 0, 4)
    table.announced(who(number), Announce((offer,), 0, 0, paused))


def rank(table: Routing, number: int) -> Rank:
    (found,) = ranks(table, who(number), NOW_S)
    return found


@given(st.sets(st.integers(0, 10_000), min_size=1, max_size=7))
def test_the_share_is_what_routing_gives(prices: set[int]):
    """Over every pair that can be drawn, each provider is chosen as often as its place says."""
    table = priced(list(prices))
    count = len(prices)
    draws = max(1, count * (count - 1))
    chosen = [table.choose(MODEL, ANY, (), lambda _, __: True, draw, NOW_S) for draw in range(draws)]
    for number in range(count):
        got = sum(isinstance(it, Pick) and it.provider == who(number) for it in chosen)
        found = rank(table, number)
        assert found.of == count
        assert abs(got / draws - found.share) < 1e-9


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=7), st.data())
def test_the_told_price_gains_a_place_and_more_does_not(prices: list[int], data: st.DataObject):
    """Asked for at `next_price_wei` the offer is better placed; at `first_price_wei` it is the first."""
    table = priced(prices)
    for number in range(len(prices)):
        table.succeeded(who(number), data.draw(st.floats(0.01, 5.0)))
    number = data.draw(st.integers(0, len(prices) - 1))
    found = rank(table, number)
    for told, most in ((found.next_price_wei, found.place - 1), (found.first_price_wei, 1)):
        if told is None:
            continue
        assert told < found.price_wei
        announce(table, number, told)
        assert rank(table, number).place <= most
        # One more may draw level; two more are too much.
        announce(table, number, told + 2)
        assert rank(table, number).place > most or told + 2 > found.price_wei


def test_who_is_alone_gets_all_and_the_last_gets_nothing():
    """Shares of any number of places add up to one."""
    assert share(1, 1) == 1.0
    assert share(5, 5) == 0.0
    assert abs(sum(share(place, 5) for place in range(1, 6)) - 1) < 1e-12


def test_who_is_paused_is_told_so_and_is_nobodys_rival():
    """A paused offer has its obstacle and the place that it would have; the others are ranked without it."""
    table = priced([10, 20, 30])
    announce(table, 0, 10, paused=True)
    found = rank(table, 0)
    assert (found.place, found.of) == (1, 3)
    assert "no new work" in found.obstacle
    assert (rank(table, 1).place, rank(table, 1).of) == (1, 2)


def test_a_slow_provider_is_told_what_price_makes_up_for_it():
    """With a wait ten times as long, only a tenth of the price would do, and the quickest wait is told."""
    table = priced([1_000, 1_000])
    for _ in range(40):
        table.succeeded(who(0), 2.0)
        table.succeeded(who(1), 0.2)
    found = rank(table, 0)
    assert (found.place, found.of, found.share) == (2, 2, 0.0)
    assert found.first_price_wei is not None
    assert 95 <= found.first_price_wei <= 100
    assert found.quickest_s is not None
    assert found.quickest_s < found.wait_s


def test_answers_are_counted_and_forgotten():
    """What came in the last hour counts, what came long ago doesn't, and others' count beside one's own."""
    table = priced([10, 20])
    for step in range(10):
        table.answered(MODEL, who(step % 2), NOW_S)
    (found,) = ranks(table, who(0), NOW_S)
    assert (found.answers_an_hour, found.all_answers_an_hour) == (5.0, 10.0)
    (later,) = ranks(table, who(0), NOW_S + 10 * 3600)
    assert later.all_answers_an_hour < 0.01


def test_strangers_have_no_rank():
    """Who isn't linked, or offers nothing, isn't ranked."""
    table = priced([10])
    assert ranks(table, who(9), NOW_S) == ()
    table.linked(who(8))
    assert ranks(table, who(8), NOW_S) == ()
