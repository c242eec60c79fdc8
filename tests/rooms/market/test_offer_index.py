"""The index of offers: what it answers is what a plain list would, whatever came and went."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clusterai.market.core.placement.index import FIRST_ROWS, Index
from clusterai.market.core.placement.offers import (
    MEASUREMENT_LIFE_S,
    NEWCOMER_RELIABILITY_PPM,
    Measurement,
    Offer,
)
from clusterai.market.core.placement.request import Need, Request, single
from clusterai.protocol.ids import Address
from clusterai.protocol.offers import Field
from tests.rooms.market.machines import NOW, WITNESS, index_of, machine, name

needs = st.builds(
    Need,
    hardware=st.sampled_from(["", "x86-64-v3", "arm64", "never offered"]),
    cpu_milli=st.sampled_from([0, 4_000, 16_000]),
    gpu=st.sampled_from(["", "h100"]),
    gpus=st.integers(0, 2),
    reliability_ppm=st.sampled_from([0, 940_000, 960_000]),
    measured=st.sampled_from([0, int(Field.GPU), int(Field.REGION)]),
)
changes = st.fixed_dictionaries(
    {
        "hardware": st.sampled_from(["x86-64-v3", "arm64"]),
        "cpu_milli": st.sampled_from([4_000, 8_000, 16_000]),
        "gpu": st.sampled_from(["", "h100", "l4"]),
        "gpus": st.integers(0, 2),
        "region": st.sampled_from(["eu", "us"]),
        "reliability_ppm": st.sampled_from([900_000, 950_000, 990_000]),
        "expires_s": st.integers(NOW - 5, NOW + 30),
        "measurements": st.sampled_from(
            [(), (Measurement(int(Field.GPU | Field.RELIABILITY), WITNESS, NOW - 9),)]
        ),
    }
)


def suits(offer: Offer, need: Need, request: Request, now_s: float) -> bool:
    """What the masks say, said again for one offer, without arrays."""
    measured = offer.measured(now_s)
    known = measured & Field.RELIABILITY
    reliability = offer.reliability_ppm if known else min(offer.reliability_ppm, NEWCOMER_RELIABILITY_PPM)
    return (
        offer.issued_s <= now_s < offer.expires_s
        and need.hardware in ("", offer.hardware)
        and offer.cpu_milli >= need.cpu_milli
        and (not (need.gpu or need.gpus) or offer.gpus >= max(1, need.gpus))
        and need.gpu in ("", offer.gpu)
        and reliability >= need.reliability_ppm
        and measured & need.measured == need.measured
        and (not request.regions or offer.region in request.regions)
    )


class AgainstAList(RuleBasedStateMachine):
    """Offers come, change, expire, are taken and given back; every answer is compared with a dictionary's."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.offers: dict[Address, Offer] = {}
        self.taken: set[Address] = set()
        self.now = NOW

    @rule(number=st.integers(0, 20), fields=changes)
    def put(self, number: int, fields: dict[str, Any]) -> None:
        offer = machine(number, **fields)
        self.offers[offer.node] = offer
        self.index.put(offer, self.now)

    @rule(number=st.integers(0, 20))
    def remove(self, number: int) -> None:
        assert self.index.remove(name(number)) == (self.offers.pop(name(number), None) is not None)

    @rule(seconds=st.integers(1, 10), sweep=st.booleans())
    def wait(self, seconds: int, sweep: bool) -> None:
        self.now += seconds
        if sweep:
            gone = self.index.sweep(self.now)
            late = {node for node, offer in self.offers.items() if offer.expires_s <= self.now}
            assert set(gone) == late
            for node in late:
                del self.offers[node]

    @rule(number=st.integers(0, 20), take=st.booleans())
    def mark(self, number: int, take: bool) -> None:
        if take:
            self.taken.add(name(number))
            self.index.take((name(number),))
        else:
            self.taken.discard(name(number))
            self.index.give_back((name(number),))

    @rule(need=needs, regions=st.sampled_from([(), ("eu",), ("us", "nowhere")]))
    def ask(self, need: Need, regions: tuple[str, ...]) -> None:
        request = Request(parts=single(1, need), regions=regions)
        found = [
            self.index.offer(int(row)) for row in self.index.rows(self.index.able(need, request, self.now))
        ]
        wanted = sorted(
            (
                offer
                for offer in self.offers.values()
                if suits(offer, need, request, self.now) and offer.node not in self.taken
            ),
            key=lambda offer: offer.node,
        )
        # The made-up ids differ only behind the eight bytes that order rows, so compare as sets here.
        assert {it.node for it in found} == {it.node for it in wanted}
        assert set(found) == set(wanted)

    @invariant()
    def sizes_agree(self) -> None:
        assert len(self.index) == len(self.offers)


AgainstAList.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAgainstAList = AgainstAList.TestCase


def test_rows_of_gone_offers_are_used_again() -> None:
    """Ten thousand offers that come and go need no more rows than stood at once."""
    index = Index()
    for number in range(10_000):
        index.put(machine(number), NOW)
        if number >= 100:
            index.remove(name(number - 100))
    assert len(index.columns.alive) == FIRST_ROWS
    assert len(index) == 100


def test_what_is_taken_stays_taken_when_offered_anew() -> None:
    """Withdrawing and offering again doesn't free a machine that is rented."""
    index = index_of(machine(1))
    index.take((name(1),))
    index.remove(name(1))
    index.put(machine(1, price=0.1), NOW)
    assert not index.able(Need(), Request(parts=single(1)), NOW).any()
    index.give_back((name(1),))
    assert index.able(Need(), Request(parts=single(1)), NOW).any()


def test_a_stale_offer_is_out_before_it_is_swept() -> None:
    """An offer ends at its second, and one from the future hasn't begun."""
    index = index_of(machine(1, expires_s=NOW + 5), machine(2, issued_s=NOW + 60))
    assert index.able(Need(), Request(parts=single(1)), NOW + 4).any()
    assert not index.able(Need(), Request(parts=single(1)), NOW + 5).any()


def test_nobody_measures_itself_and_measurements_fade() -> None:
    """A field counts as measured only by somebody else, not from the future, and for a week."""
    operator = name(10_001)
    self_made = machine(1, measurements=(Measurement(int(Field.GPU), operator, NOW - 5),))
    assert self_made.source(Field.GPU, NOW).kind == "claimed"
    future = machine(1, measurements=(Measurement(int(Field.GPU), WITNESS, NOW + 5),))
    assert future.source(Field.GPU, NOW).kind == "claimed"
    good = machine(1)
    assert good.source(Field.GPU, NOW) == msgspec.structs.replace(
        good.source(Field.GPU, NOW), kind="measured", by=WITNESS, at_s=NOW - 20
    )
    assert good.source(Field.GPU, NOW + MEASUREMENT_LIFE_S).kind == "claimed"
    assert good.price_source.kind == "offered"


@given(st.integers(0, 1_000_000))
def test_reliability_that_nobody_measured_is_a_newcomers_at_best(claimed: int) -> None:
    """A machine that praises itself gains nothing by it."""
    index = index_of(machine(1, reliability_ppm=claimed, measurements=()))
    row = index.row(name(1))
    assert index.columns.reliability[row] <= NEWCOMER_RELIABILITY_PPM


def test_names_that_nobody_has_any_more_take_no_room() -> None:
    """An operator that invents a region for each offer leaves one name behind, not thousands."""
    index = Index()
    for number in range(2_000):
        index.put(machine(1, region=f"r{number}", hardware=f"h{number}", gpu=f"g{number}", gpus=1), NOW)
    asked = Request(parts=single(1), regions=("r1999",))
    assert int(index.able(Need(hardware="h1999", gpu="g1999"), asked, NOW).sum()) == 1
    assert int(index.able(Need(), Request(parts=single(1), regions=("r1998",)), NOW).sum()) == 0
    assert [len(it) for it in (index._regions, index._hardware, index._gpus)] == [1, 1, 1]  # pyright: ignore[reportPrivateUsage]


def test_a_copy_stands_still_while_the_index_goes_on() -> None:
    """What is planned with a copy is what stood when it was made, names and takers included."""
    index = index_of(*(machine(number, region=f"r{number}") for number in range(4)))
    copy = index.copy()
    index.remove(name(0))
    index.put(machine(9, region="new"), NOW)
    index.take((name(1),))
    asked = Request(parts=single(1), regions=("r0", "r1"))
    assert [copy.offer(int(row)).node for row in copy.rows(copy.able(Need(), asked, NOW))] == [
        name(0),
        name(1),
    ]
    assert int(copy.able(Need(), Request(parts=single(1), regions=("new",)), NOW).sum()) == 0
    assert index.rows(index.able(Need(), asked, NOW)).size == 0
