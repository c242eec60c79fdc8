"""Network coordinates: they settle, they predict, and a liar moves others no more than its share of the samples."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clusterai.market.core.placement import coordinates, population
from clusterai.market.core.placement.coordinates import MOST_RTT_US, MOST_STEP_US, Floats, Places
from clusterai.market.core.placement.location import RoundTrip, furthest_km, proven_in, proven_rtt_us
from clusterai.protocol.ids import Address
from tests.rooms.market.machines import name


def settle_on(rtt: Floats, rounds: int, liars: int = 0, seed: int = 1) -> Places:
    """Machines of a matrix measure each other; the last `liars` claim to be far away, sure of it, and answer late."""
    random = np.random.default_rng(seed)
    count = len(rtt)
    places = coordinates.begin(count, random)
    everyone = np.arange(count)
    for _ in range(rounds):
        other = (everyone + random.integers(1, count, count)) % count
        there = places.at(other)
        late = rtt[everyone, other].copy()
        lies = other >= count - liars
        there.x[lies] = random.normal(0.0, 1e6, (int(lies.sum()), coordinates.DIMENSIONS))
        there.error[lies] = 0.0
        late[lies] += 500_000.0
        places = coordinates.update(places, there, late)
    return places


def matrix(count: int = 80, seed: int = 2) -> Floats:
    random = np.random.default_rng(seed)
    x = random.uniform(0, 80_000, (count, 3))
    height = random.uniform(200, 3_000, count)
    rtt = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1)) + height[:, None] + height[None]
    np.fill_diagonal(rtt, 0.0)
    return rtt


def error_of(places: Places, rtt: Floats, honest: int) -> float:
    """Median relative error of the predictions among the honest."""
    i, j = np.triu_indices(honest, 1)
    return float(np.median(np.abs(coordinates.predict(places.at(i), places.at(j)) - rtt[i, j]) / rtt[i, j]))


def test_coordinates_settle_on_a_matrix_that_can_be_embedded() -> None:
    """After 300 samples each, half of all pairs are predicted within 7 %, after 30 they weren't."""
    rtt = matrix()
    assert error_of(settle_on(rtt, 300), rtt, 80) < 0.07 < error_of(settle_on(rtt, 30), rtt, 80)


def test_coordinates_settle_on_the_made_up_world() -> None:
    """With noise, access lines and a round earth, half of all pairs are predicted within 15 %."""
    world = population.world(600, 3)
    places = population.settle(world, 250, 4)
    random = np.random.default_rng(5)
    here, there = random.permutation(600)[:300], random.permutation(600)[:300]
    apart = here != there
    here, there = here[apart], there[apart]
    true = population.round_trips(world, here, there, random)
    assert (
        float(np.median(np.abs(coordinates.predict(places.at(here), places.at(there)) - true) / true)) < 0.15
    )


def test_one_liar_in_twenty_hardly_matters() -> None:
    """Absurd places, claimed certainty and half a second of delay from 5 % leave the rest within 20 %."""
    rtt = matrix()
    assert error_of(settle_on(rtt, 300, liars=4), rtt, 76) < 0.2


def test_the_damage_grows_with_the_share_of_liars_not_with_the_size_of_lies() -> None:
    """A fifth of liars does more than a twentieth, and still half of the pairs are within 50 %."""
    rtt = matrix()
    few, many = (error_of(settle_on(rtt, 300, liars=liars), rtt, 80 - liars) for liars in (4, 16))
    assert few < many < 0.5


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=5, max_size=5),
    st.floats(allow_nan=True, allow_infinity=True),
)
def test_no_sample_moves_a_machine_far(claim: list[float], rtt_us: float) -> None:
    """Whatever a peer claims and however late it answers: one sample is worth at most one bounded step, and stays a number."""
    here = Places(np.array([[1_000.0, 0.0, 0.0]]), np.array([500.0]), np.array([0.1]))
    there = Places(np.array([claim[:3]]), np.array([claim[3]]), np.array([claim[4]]))
    with np.errstate(all="ignore"):
        after = coordinates.update(here, there, np.array([rtt_us]))
    assert np.isfinite(after.x).all()
    assert math.dist(after.x[0], here.x[0]) <= MOST_STEP_US * 1.001
    assert abs(float(after.height[0]) - 500.0) <= MOST_STEP_US * 1.001
    assert after.height[0] > 0
    assert coordinates.LEAST_ERROR <= after.error[0] <= coordinates.MOST_ERROR


def test_places_outside_the_world_are_passed_over() -> None:
    """A place further out than any round trip changes nothing."""
    here = Places(np.array([[1.0, 2.0, 3.0]]), np.array([500.0]), np.array([0.5]))
    there = Places(np.array([[2 * MOST_RTT_US, 0.0, 0.0]]), np.array([1.0]), np.array([0.1]))
    after = coordinates.update(here, there, np.array([10_000.0]))
    assert (after.x == here.x).all()
    assert after.height == here.height


trips = st.lists(
    st.builds(
        RoundTrip,
        st.integers(0, 8).map(name),
        st.integers(0, 5).map(name),
        st.integers(1, 300_000),
        st.just(0),
    ),
    max_size=12,
)


@given(trips, st.integers(0, 3), st.data())
def test_added_delay_only_moves_a_machine_away(
    found: list[RoundTrip], liars: int, data: st.DataObject
) -> None:
    """Whoever answers later proves no more than before: no nearer place, no further region."""
    before = proven_rtt_us(found, liars)
    late = [
        RoundTrip(it.witness, it.operator, it.rtt_us + data.draw(st.integers(0, 10_000)), it.at_s)
        for it in found
    ]
    after = proven_rtt_us(late, liars)
    assert (before is None) == (after is None)
    assert before is None or after is None or before <= after
    regions = {name(number): "eu" if number % 2 else "us" for number in range(9)}
    for region in ("eu", "us"):
        if proven_in(late, regions, region, 20_000, liars):
            assert proven_in(found, regions, region, 20_000, liars)


def test_a_lying_witness_proves_nothing_alone() -> None:
    """One witness, or one operator of many witnesses, that claims an impossible round trip is outvoted."""
    one, two, three = (name(number) for number in (1, 2, 3))
    liar = [RoundTrip(name(90 + number), one, 1, 0) for number in range(5)]
    assert proven_rtt_us(liar, liars=1) is None
    honest = [RoundTrip(two, two, 60_000, 0), RoundTrip(three, three, 70_000, 0)]
    assert proven_rtt_us(liar + honest, liars=1) == 60_000
    regions: dict[Address, str] = {it.witness: "eu" for it in liar} | {two: "eu", three: "eu"}
    assert not proven_in(liar + honest, regions, "eu", 20_000)
    assert furthest_km(60_000) == 6_000
