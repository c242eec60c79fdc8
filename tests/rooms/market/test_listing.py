"""The list of offers: by price and id, every page behind the last, whatever stands in it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.listing import Place, page
from clusterai.market.core.placement.request import Need, Request, single
from tests.rooms.market.machines import NOW, index_of, machine, name

ALL = Request(parts=single(1), us_wei=0)


def listed(index: Index, limit: int, request: Request = ALL) -> list[bytes]:
    """Of all pages."""
    found: list[bytes] = []
    after: Place | None = None
    while True:
        it = page(index, request, NOW, limit, after)
        assert len(it.offers) <= limit
        found += [offer.node for offer, _ in it.offers]
        if it.next is None:
            return found
        assert it.offers, "a page with a next isn't empty"
        after = it.next


@settings(max_examples=60, deadline=None)
@given(prices=st.lists(st.integers(0, 4), min_size=1, max_size=40), limit=st.integers(1, 7))
def test_pages_are_one_list_cut_into_pieces(prices: list[int], limit: int) -> None:
    """Each machine once, by price and then by id, however many are equal and however small a page is."""
    # Ids that agree in their first eight bytes, and ids that don't.
    nodes = [name(number if number % 2 else number << 120) for number in range(1, len(prices) + 1)]
    index = index_of(*(machine(1, price=price, node=node) for node, price in zip(nodes, prices, strict=True)))
    expected = sorted(zip(prices, nodes, strict=True))
    assert listed(index, limit) == [node for _, node in expected]


def test_what_is_taken_over_or_unfit_is_not_listed() -> None:
    """And it is counted apart."""
    index = index_of(*(machine(number, cpu_milli=1_000 * number) for number in range(1, 6)))
    index.put(machine(6, expires_s=NOW), NOW)
    index.take((name(5),))
    found = page(index, Request(parts=single(1, Need(cpu_milli=3_000)), us_wei=0), NOW, 10)
    assert [offer.node for offer, _ in found.offers] == [name(3), name(4)]
    assert (found.suitable, found.standing, found.taken) == (2, 5, 1)


def test_near_is_by_the_links_own_pings() -> None:
    """Who wasn't pinged isn't near; who left and came back is pinged anew."""
    index = index_of(*(machine(number) for number in range(3)))
    index.heard(name(0), 5_000)
    index.heard(name(1), 5_001)
    near = Request(parts=single(1), us_wei=0, most_link_us=5_000)
    assert listed(index, 10, near) == [name(0)]
    assert page(index, near, NOW, 10).offers[0][1] == 5_000
    index.put(machine(0, price=2.0), NOW)
    assert listed(index, 10, near) == [name(0)]
    index.remove(name(0))
    index.put(machine(0), NOW)
    assert listed(index, 10, near) == []
