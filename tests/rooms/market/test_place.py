"""Placement: the group that is chosen keeps to what was asked, is the best or nearly, and the same for equal inputs."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.market.core.placement.choose import choose
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.offers import Coordinate, Offer
from clusterai.market.core.placement.place import NoPlan, Plan, place
from clusterai.market.core.placement.problem import Problem
from clusterai.market.core.placement.request import MOST_NODES, Need, Part, Request, single
from clusterai.market.core.placement.roundtrips import LIFE_S, RoundTrips
from clusterai.protocol.ids import Address
from tests.rooms.market.machines import CITY_US, NOW, TOKEN, index_of, machine, name, world_offers


def placed(index: Index, request: Request, trips: RoundTrips | None = None) -> Plan:
    plan = place(index, request, trips, NOW)
    assert isinstance(plan, Plan), plan
    return plan


def numbers(plan: Plan) -> list[int]:
    return sorted(int.from_bytes(node) for node in plan.nodes)


def two_cities() -> Index:
    """Four machines in a dear city, four in a cheap one, 100 ms apart."""
    dear = [machine(number, at_us=number * 1_000, price=2.0) for number in range(1, 5)]
    cheap = [machine(number, at_us=CITY_US + number * 1_000, price=1.0) for number in range(5, 9)]
    return index_of(*dear, *cheap)


def test_a_group_stands_in_one_city() -> None:
    """Where closeness is worth something, the cheaper city wins and none is mixed in."""
    plan = placed(two_cities(), Request(parts=single(3), us_wei=1_000_000))
    assert numbers(plan) == [5, 6, 7]
    assert (plan.price_wei, plan.diameter_us) == (3 * TOKEN, 2_000)


def test_without_worth_of_closeness_the_cheapest_win() -> None:
    """Machines without a coordinate count then too."""
    index = index_of(
        machine(1, price=3.0), machine(2, price=1.0, coordinate=None), machine(3, at_us=10**6, price=2.0)
    )
    assert numbers(placed(index, Request(parts=single(2), us_wei=0))) == [2, 3]


def test_a_machine_that_nobody_located_is_in_no_close_group() -> None:
    """A claimed coordinate is no coordinate."""
    index = index_of(machine(1), machine(2), machine(3, price=0.1, measurements=()))
    assert numbers(placed(index, Request(parts=single(2)))) == [1, 2]


def test_unreliable_machines_are_dearer_than_they_say() -> None:
    """At 100 of the smallest unit for each millionth, 10 % unreliability outweighs a price lower by 0.005."""
    index = index_of(machine(1, price=1.0), machine(2, price=0.995, reliability_ppm=900_000))
    assert numbers(placed(index, Request(parts=single(1), ppm_wei=100))) == [1]
    assert numbers(placed(index, Request(parts=single(1), ppm_wei=0))) == [2]


def test_an_operator_with_many_machines_holds_no_more_than_allowed() -> None:
    """Ten of one stake owner in a close and cheap rack, and still only so many of it."""
    sybil = [machine(number, at_us=number, price=0.1, operator=name(777)) for number in range(1, 11)]
    others = [machine(number, at_us=CITY_US + 1_000 * number, price=1.0) for number in range(20, 26)]
    index = index_of(*sybil, *others)
    for most in (1, 2, 3):
        plan = placed(index, Request(parts=single(4), most_per_operator=most))
        assert sum(offer.operator == name(777) for offer in plan.offers) <= most
    assert numbers(placed(index, Request(parts=single(4)))) == [1, 2, 3, 4]


def test_limits_hold() -> None:
    """Diameter and price are never exceeded; what can't be had isn't given."""
    index = two_cities()
    assert numbers(placed(index, Request(parts=single(3), us_wei=0, most_rtt_us=2_500))) == [5, 6, 7]
    assert isinstance(place(index, Request(parts=single(5), most_rtt_us=5_000), None, NOW), NoPlan)
    assert isinstance(place(index, Request(parts=single(3), most_price_wei=3 * TOKEN - 1), None, NOW), NoPlan)
    assert placed(index, Request(parts=single(3), most_price_wei=3 * TOKEN)).price_wei == 3 * TOKEN


def test_a_group_is_near_the_renter() -> None:
    """`near` is a round trip to each machine, whatever lies cheaper further away."""
    request = Request(parts=single(2), near=Coordinate(0, 0, 0, 500), near_us=4_000)
    assert numbers(placed(two_cities(), request)) == [1, 2]


def test_what_was_measured_counts_more_than_what_was_predicted() -> None:
    """A delay that somebody measured moves a machine out of the group; a plan says how many pairs were measured."""
    index = index_of(*(machine(number, at_us=number * 100) for number in range(1, 5)))
    request = Request(parts=single(3), us_wei=1_000_000)
    assert numbers(placed(index, request)) == [1, 2, 3]
    trips = RoundTrips()
    trips.record(name(1), name(2), 90_000, NOW)
    trips.record(name(2), name(3), 250, NOW)
    plan = placed(index, request, trips)
    assert numbers(plan) == [2, 3, 4]
    assert (plan.pairs_measured, plan.pairs) == (1, 3)


def test_of_two_who_measure_each_other_the_later_is_believed() -> None:
    """A machine that denies delay is contradicted by the other side; what is old counts for nothing."""
    trips = RoundTrips()
    trips.record(name(1), name(2), 100, NOW)
    trips.record(name(2), name(1), 40_000, NOW)
    assert trips.between(name(1), name(2), NOW) == trips.between(name(2), name(1), NOW) == 40_000
    trips.record(name(2), name(1), 30_000, NOW + 1)
    trips.record(name(2), name(1), 50_000, NOW + 2)
    assert trips.between(name(1), name(2), NOW + 2) == 30_000
    assert trips.between(name(1), name(2), NOW + 2 + LIFE_S) is None
    trips.forget(name(2))
    assert trips.between(name(1), name(2), NOW) is None


def test_a_mixed_group_has_each_part_served() -> None:
    """One head without a GPU's price, and two workers with GPUs, all close."""
    heads = [machine(number, at_us=number * 500, price=0.1) for number in range(1, 4)]
    workers = [machine(number, at_us=number * 500, price=2.0, gpu="h100", gpus=1) for number in range(4, 8)]
    request = Request(
        parts=(Part(1, Need()), Part(2, Need(gpu="h100", gpus=1))), most_per_operator=1, us_wei=1_000
    )
    plan = placed(index_of(*heads, *workers), request)
    assert [[offer.gpus for offer in part] for part in plan.parts] == [[0], [1, 1]]
    assert numbers(plan) == [3, 4, 5]


@pytest.mark.parametrize(
    "request_",
    [
        Request(parts=()),
        Request(parts=single(0)),
        Request(parts=single(MOST_NODES + 1)),
        Request(parts=single(1), near_us=5),
        Request(parts=single(1), us_wei=-1),
        Request(parts=single(2), most_rtt_us=0),
    ],
)
def test_a_request_without_sense_is_told_so(request_: Request) -> None:
    """Nothing is placed, and the fault is said in words."""
    plan = place(two_cities(), request_, None, NOW)
    assert isinstance(plan, NoPlan)
    assert plan.faults


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 12), st.sampled_from([None, 1, 2]))
def test_equal_inputs_have_equal_plans_whatever_came_first(
    shuffle: random.Random, nodes: int, most: int | None
) -> None:
    """The order in which offers came, and others that came and went between, change nothing."""
    offers = list(world_offers(500, 7))
    request = Request(parts=single(nodes), most_per_operator=most, us_wei=20_000)
    straight = placed(index_of(*offers), request)
    shuffle.shuffle(offers)
    index = Index()
    for number, offer in enumerate(offers):
        index.put(machine(number + 1), NOW)
        index.put(offer, NOW)
        index.remove(name(number + 1))
    assert placed(index, request) == straight


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to nine candidates: few enough to try all groups."""
    size = draw(st.integers(3, 9))
    integers = st.integers(0, 50)
    price = np.array(draw(st.lists(integers, min_size=size, max_size=size)), np.int64)
    rtt = np.zeros((size, size), np.int64)
    for i, j in itertools.combinations(range(size), 2):
        rtt[i, j] = rtt[j, i] = draw(integers)
    operator = np.array(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), np.int64)
    return Problem(
        price,
        price,
        rtt,
        operator,
        (draw(st.integers(1, min(4, size))),),
        np.ones((1, size), bool),
        draw(st.integers(0, 5)),
        draw(st.sampled_from([None, 1, 2])),
        draw(st.sampled_from([None, 20, 40])),
        draw(st.sampled_from([None, 40, 80])),
    )


@settings(max_examples=100, deadline=None)
@given(problems())
def test_what_is_chosen_keeps_to_everything_and_costs_what_it_says(problem: Problem) -> None:
    """No group that is given breaks a limit, and none costs less than the best of all groups."""
    group = choose(problem)
    every = [
        problem.group([list(it)]) for it in itertools.combinations(range(len(problem.price)), problem.nodes)
    ]
    permitted = [it for it in every if problem.permits(it)]
    if group is None:
        return
    assert problem.permits(group)
    assert group.cost >= min(it.cost for it in permitted)


def test_on_small_random_problems_it_is_nearly_always_the_best() -> None:
    """Of 100 at most 2 aren't optimal, and placed are all that can be."""
    generator = np.random.default_rng(1)
    worse = missed = 0
    for _ in range(100):
        x = generator.uniform(0, 100, (9, 2))
        rtt = np.rint(np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))).astype(np.int64)
        price = generator.integers(0, 60, 9)
        problem = Problem(
            price, price, rtt, generator.integers(0, 4, 9), (4,), np.ones((1, 9), bool), 1, 2, 90, 170
        )
        every = [problem.group([list(it)]) for it in itertools.combinations(range(9), 4)]
        best = min((it.cost for it in every if problem.permits(it)), default=None)
        group = choose(problem)
        missed += best is not None and group is None
        worse += best is not None and group is not None and group.cost > best
    assert worse <= 2
    assert missed == 0


def test_the_cheapest_and_the_nearest_are_beaten() -> None:
    """In a made-up world the group costs less than the k cheapest and than the k nearest to any machine."""
    offers = world_offers(500, 7)
    request = Request(parts=single(6), us_wei=20_000, ppm_wei=0)
    plan = placed(index_of(*offers), request)
    cheapest = sorted(offers, key=lambda it: it.price_wei)[:6]
    assert plan.cost_wei < cost(cheapest, request)
    for centre in offers[:20]:
        nearest = sorted(offers, key=lambda it: between(it, centre))[:6]
        assert plan.cost_wei <= cost(nearest, request)


def between(one: Offer, other: Offer) -> float:
    here, there = one.coordinate, other.coordinate
    assert here is not None
    assert there is not None
    if one.node == other.node:
        return 0.0
    flat = (here.x_us - there.x_us) ** 2 + (here.y_us - there.y_us) ** 2 + (here.z_us - there.z_us) ** 2
    return flat**0.5 + here.height_us + there.height_us


def cost(group: list[Offer], request: Request) -> float:
    diameter = max(between(one, other) for one, other in itertools.combinations(group, 2))
    return sum(it.price_wei for it in group) + request.us_wei * diameter


def test_nobody_is_twice_in_a_group() -> None:
    """Also in mixed groups whose parts may be served by the same machines."""
    request = Request(parts=(Part(2, Need()), Part(2, Need(cpu_milli=4_000))))
    nodes: tuple[Address, ...] = placed(two_cities(), request).nodes
    assert len(set(nodes)) == 4
