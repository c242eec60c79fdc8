"""Why a group can't be placed and what would make it possible; and of a plan, what each thing that was asked costs.

Nothing here is guessed: a relaxation is reported only with the plan that it gave when it was tried. Of each constraint the
least relaxation is looked for (`relax.py`), with everything else kept. They are ranked by what their plans cost the renter by
the renter's own measure; fewer machines come last, since that is another wish.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

import msgspec

from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.place import Plan, place
from clusterai.market.core.placement.relax import (
    Change,
    Place,
    drops,
    fewer_gpus,
    given_up,
    least,
    resized,
    without,
)
from clusterai.market.core.placement.request import Request
from clusterai.market.core.placement.roundtrips import RoundTrips
from clusterai.protocol.offers import MILLION
from clusterai.protocol.units import counted

MOST_EASED = 3
"""Where two wishes have to give way: of so many pairs, the cheapest, it is worked out by how much."""


class Narrowing(msgspec.Struct, frozen=True):
    """Of all offers, how many satisfy one thing that is asked, by itself."""

    constraint: str
    offers: int


class Relaxation(msgspec.Struct, frozen=True):
    """What to give up, in words, and the plan that it gives."""

    constraints: tuple[str, ...]
    text: str
    plan: Plan
    cost_wei: int
    """by the renter's measure, so that relaxations can be compared"""


class WhyNot(msgspec.Struct, frozen=True):
    """Attributes:
    suitable: machines that satisfy all that is asked of each by itself.
    narrowings: in the order in which they are asked, for the first part that has too few, or the first of all.
    failing: each of these is enough to give up; if empty, no single one is.
    relaxations: the cheapest first.
    """

    suitable: int
    narrowings: tuple[Narrowing, ...]
    failing: tuple[str, ...]
    relaxations: tuple[Relaxation, ...]


class Toll(msgspec.Struct, frozen=True):
    """What a constraint costs in the plan that is shown: the same request without it, placed by the same measure."""

    constraint: str
    price_wei: int
    price_without_wei: int
    diameter_us: int
    diameter_without_us: int
    saved_wei: int
    """by the renter's measure; zero if it costs nothing"""


def why_not(index: Index, request: Request, trips: RoundTrips | None, now_s: float) -> WhyNot:
    """For a request that can't be placed; of one that can, the relaxations are improvements."""

    def attempt(relaxed: Request) -> Plan | None:
        plan = place(index, relaxed, trips, now_s)
        return plan if isinstance(plan, Plan) else None

    part = next(
        (it for it in request.parts if int(index.able(it.need, request, now_s).sum()) < it.nodes),
        request.parts[0],
    )
    alive = index.columns.alive
    narrowings = tuple(
        Narrowing(name, int((mask & alive).sum())) for name, mask in index.masks(part.need, request, now_s)
    )
    found = [
        Relaxation((name,), text, plan, cost_of(index, request, plan))
        for name, text, plan in _single(request, attempt)
    ]
    failing = tuple(it.constraints[0] for it in found if it.constraints[0] != "nodes")
    if not failing:
        found += _pairs(index, request, attempt, fewer=not found)
    found.sort(key=lambda it: ("nodes" in it.constraints, len(it.constraints), it.cost_wei, it.constraints))
    return WhyNot(int(index.able(part.need, request, now_s).sum()), narrowings, failing, tuple(found))


def tolls(
    index: Index, request: Request, plan: Plan, trips: RoundTrips | None, now_s: float
) -> tuple[Toll, ...]:
    """For each thing that is asked: price and diameter with and without it, the dearest first."""
    found: list[Toll] = []
    mine = cost_of(index, request, plan)
    for name, change in drops(request):
        other = place(index, change(request), trips, now_s)
        if isinstance(other, Plan):
            saved = max(0, mine - cost_of(index, request, other))
            same = saved == 0
            found.append(
                Toll(
                    name,
                    plan.price_wei,
                    plan.price_wei if same else other.price_wei,
                    plan.diameter_us,
                    plan.diameter_us if same else other.diameter_us,
                    saved,
                )
            )
    return tuple(sorted(found, key=lambda it: (-it.saved_wei, it.constraint)))


def cost_of(index: Index, request: Request, plan: Plan) -> int:
    """By the renter's measure, whatever measure found the plan."""
    rows = [row for node in plan.nodes if (row := index.row(node)) is not None]
    unreliable = int((MILLION - index.columns.reliability[rows]).sum())
    return plan.price_wei + request.us_wei * plan.diameter_us + request.ppm_wei * unreliable


# --- what would help ---


def _single(request: Request, attempt: Place) -> Iterator[tuple[str, str, Plan]]:
    wishes = given_up(request)
    if any(it.need.gpus > 1 for it in request.parts):
        wishes.append(("gpu count", fewer_gpus))
    for name, change in wishes:
        plan = attempt(without(name, change, request))
        if plan is not None:
            eased = least(name, request, plan, attempt)
            yield name, eased.words, eased.plan
    if request.nodes > 1 and len(request.parts) == 1:
        fewer = _most(lambda nodes: attempt(resized(request, nodes)), 1, request.nodes - 1)
        if fewer is not None:
            yield "nodes", _instead(fewer, request), fewer


def _instead(fewer: Plan, request: Request) -> str:
    return f"{counted(len(fewer.nodes), 'machine')} instead of {request.nodes}"


def _most(attempt: Callable[[int], Plan | None], low: int, high: int) -> Plan | None:
    """The plan of the largest number in low ... high that has one, if more is never easier."""
    best: Plan | None = None
    while low <= high:
        middle = (low + high + 1) // 2
        plan = attempt(middle)
        if plan is None:
            high = middle - 1
        else:
            best, low = plan, middle + 1
    return best


def _pairs(index: Index, request: Request, attempt: Place, *, fewer: bool) -> list[Relaxation]:
    """Where no single constraint is enough: two; or `fewer` machines without one. The cheapest say by how much."""
    wishes = given_up(request)
    found: list[tuple[Relaxation, Callable[[Plan], tuple[str, Plan]]]] = []

    def add(names: tuple[str, ...], words: str, plan: Plan, ease: Callable[[Plan], tuple[str, Plan]]) -> None:
        found.append((Relaxation(names, words, plan, cost_of(index, request, plan)), ease))

    for one, other in combinations(wishes, 2):
        plan = attempt(other[1](one[1](request)))
        if plan is not None:
            ease = _both(request, one, other, attempt)
            add((one[0], other[0]), f"neither {one[0]} nor {other[0]}", plan, ease)
    if fewer and request.nodes > 1 and len(request.parts) == 1:
        for name, change in wishes:
            free = change(request)
            plan = _most(lambda nodes, free=free: attempt(resized(free, nodes)), 1, request.nodes - 1)
            if plan is not None:
                ease = _and_fewer(request, name, attempt)
                add((name, "nodes"), f"{_instead(plan, request)}, and no {name}", plan, ease)
    found.sort(key=lambda it: ("nodes" in it[0].constraints, it[0].cost_wei, it[0].constraints))
    eased: list[Relaxation] = []
    for way, ease in found[:MOST_EASED]:
        words, plan = ease(way.plan)
        eased.append(Relaxation(way.constraints, words, plan, cost_of(index, request, plan)))
    return eased + [way for way, _ in found[MOST_EASED:]]


def _both(
    request: Request, one: tuple[str, Change], other: tuple[str, Change], attempt: Place
) -> Callable[[Plan], tuple[str, Plan]]:
    """First the one as little as can be while the other is given up whole, then the other as little as that leaves."""

    def ease(plan: Plan) -> tuple[str, Plan]:
        rest = other[1](request)
        first = least(one[0], rest, attempt(without(*one, rest)) or plan, attempt)
        kept = first.change(request)
        free = attempt(without(*other, kept)) or first.plan
        second = least(other[0], kept, free, attempt)
        return f"{first.words}, and {second.words}", second.plan

    return ease


def _and_fewer(request: Request, name: str, attempt: Place) -> Callable[[Plan], tuple[str, Plan]]:
    def ease(plan: Plan) -> tuple[str, Plan]:
        eased = least(name, resized(request, len(plan.nodes)), plan, attempt)
        return f"{_instead(plan, request)}, and {eased.words}", eased.plan

    return ease
