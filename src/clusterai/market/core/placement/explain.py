"""Why a group can't be placed and what would make it possible; and of a plan, what each thing that was asked costs.

Nothing here is guessed: a relaxation is reported only with the plan that it gave when it was tried. Of each constraint the
least relaxation is looked for (limits by what the best plan without them needs, thresholds by halving), with everything else
kept. They are ranked by what their plans cost the renter by the renter's own measure; fewer machines come last, since that is
another wish.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import msgspec

from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.place import Plan, place
from clusterai.market.core.placement.request import MOST_US_WEI, Part, Request
from clusterai.market.core.placement.roundtrips import RoundTrips
from clusterai.protocol.money import show as money
from clusterai.protocol.offers import MILLION

MOST_TRIES = 8
"""Halvings of one threshold."""


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


Change = Callable[[Request], Request]
Place = Callable[[Request], Plan | None]


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
        for name, text, plan in _single(index, request, attempt, now_s)
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


# --- what can be dropped ---


def _replace(request: Request, **changes: Any) -> Request:
    return msgspec.structs.replace(request, **changes)


def _needs(request: Request, **changes: Any) -> Request:
    """Of all parts at once."""
    parts = tuple(Part(it.nodes, msgspec.structs.replace(it.need, **changes)) for it in request.parts)
    return _replace(request, parts=parts)


def _fewer_gpus(request: Request) -> Request:
    """One of the same kind of each machine that was to have several."""
    parts = tuple(
        Part(it.nodes, msgspec.structs.replace(it.need, gpus=min(1, it.need.gpus))) for it in request.parts
    )
    return _replace(request, parts=parts)


_NEEDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("hardware", {"hardware": ""}),
    ("cpu", {"cpu_milli": 0}),
    ("memory", {"memory_bytes": 0}),
    ("disk", {"disk_bytes": 0}),
    ("gpu", {"gpu": ""}),
    ("bandwidth", {"bandwidth_kbps": 0}),
    ("reliability", {"reliability_ppm": 0}),
    ("measured", {"measured": 0}),
)


def drops(request: Request) -> Iterator[tuple[str, Change]]:
    """Each constraint that the request has, with the change that takes it away whole."""
    for name, free in _NEEDS:
        if any(getattr(it.need, field) != value for it in request.parts for field, value in free.items()):
            yield name, lambda it, free=free: _needs(it, **free)
    if request.regions:
        yield "region", lambda it: _replace(it, regions=())
    if request.attested:
        yield "attested", lambda it: _replace(it, attested=())
    if request.duration_s:
        yield "duration", lambda it: _replace(it, duration_s=0)
    if request.near_us is not None:
        yield "near", lambda it: _replace(it, near=None, near_us=None)
    if request.most_link_us is not None:
        yield "link", lambda it: _replace(it, most_link_us=None)
    if request.most_per_operator is not None and request.most_per_operator < request.nodes:
        yield "per operator", lambda it: _replace(it, most_per_operator=None)
    if request.most_rtt_us is not None:
        yield "round trip", lambda it: _replace(it, most_rtt_us=None)
    if request.most_price_wei is not None:
        yield "price", lambda it: _replace(it, most_price_wei=None)


# --- the least that has to be given up ---


def _given_up(request: Request) -> list[tuple[str, Change]]:
    """`drops`, and GPUs at all: another kind is one thing to give up, none is another."""
    wishes = list(drops(request))
    if any(it.need.gpus for it in request.parts):
        wishes.append(("gpus", lambda it: _needs(it, gpu="", gpus=0)))
    return wishes


def _single(index: Index, request: Request, attempt: Place, now_s: float) -> Iterator[tuple[str, str, Plan]]:
    wishes = _given_up(request)
    if any(it.need.gpus > 1 for it in request.parts):
        wishes.append(("gpu count", _fewer_gpus))
    for name, change in wishes:
        free = change(request)
        if name == "round trip":
            free = _replace(free, us_wei=MOST_US_WEI)
        elif name == "price":
            free = _replace(free, us_wei=0, ppm_wei=0)
        plan = attempt(free)
        if plan is not None:
            yield name, *_least(name, request, plan, attempt)
    if request.nodes > 1 and len(request.parts) == 1:
        fewer = _most(lambda nodes: attempt(_resize(request, nodes)), 1, request.nodes - 1)
        if fewer is not None:
            yield "nodes", f"{_counted(len(fewer.nodes), 'machine')} instead of {request.nodes}", fewer


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _least(name: str, request: Request, plan: Plan, attempt: Place) -> tuple[str, Plan]:
    """How far `name` has to give way, in words, and the plan that comes of it; `plan` is one without it."""
    operators = len({it.operator for it in plan.offers})
    machines = f"{_counted(len(plan.nodes), 'machine')} of {_counted(operators, 'operator')}"
    match name:
        case "round trip":
            more = (plan.diameter_us - (request.most_rtt_us or 0)) / 1_000
            return f"{more:.1f} ms more round trip: {machines}", plan
        case "price":
            more_wei = plan.price_wei - (request.most_price_wei or 0)
            return f"{money(more_wei)} more an hour: {machines}", plan
        case "per operator":
            least = (request.most_per_operator or 0) + 1
            for most in range(least, request.nodes):
                tried = attempt(_replace(request, most_per_operator=most))
                if tried is not None:
                    return f"{most} machines of one operator instead of {least - 1}", tried
            return f"all machines of one operator instead of {least - 1}", plan
        case "near" | "link":
            field = "near_us" if name == "near" else "most_link_us"
            limit = getattr(request, field) or 1
            tried, reach = _nearest(request, attempt, field, limit) or (plan, None)
            text = "any distance" if reach is None else f"{(reach - limit) / 1_000:.1f} ms further away"
            return f"{text}: {machines}", tried
        case "region":
            where = ", ".join(sorted({it.region for it in plan.offers}))
            return f"machines in {where}", plan
        case "attested":
            return f"take operators of whom nobody attests that: {machines}", plan
        case "duration":
            plan = _longest(request, plan, attempt)
            hours = min(it.longest_s for it in plan.offers) / 3_600
            return f"{hours:.4g} hours instead of {request.duration_s / 3_600:.4g}: {machines}", plan
        case "hardware":
            kinds = ", ".join(sorted({it.hardware for it in plan.offers}))
            return f"hardware {kinds}", plan
        case "gpu" | "gpus":
            kinds = ", ".join(sorted({it.gpu or "none" for it in plan.offers}))
            return f"GPU {kinds}", plan
        case "measured":
            return f"take what operators claim: {machines}", plan
        case _:
            return _threshold(name, request, plan, attempt)


_THRESHOLDS: dict[str, tuple[str, str, float, str]] = {
    "gpu count": ("gpus", "gpus", 1, "GPUs of each machine"),
    "cpu": ("cpu_milli", "cpu_milli", 1_000, "processors"),
    "memory": ("memory_bytes", "memory_bytes", 2**30, "GiB of memory"),
    "disk": ("disk_bytes", "disk_bytes", 2**30, "GiB of disk"),
    "bandwidth": ("bandwidth_kbps", "bandwidth_kbps", 1_000, "Mbit/s"),
    "reliability": ("reliability_ppm", "reliability_ppm", 10_000, "% reliability"),
}


def _threshold(name: str, request: Request, plan: Plan, attempt: Place) -> tuple[str, Plan]:
    """Halve towards the highest value at which a plan is found; what is said is what the plan really has."""
    need, field, unit, words = _THRESHOLDS[name]
    asked = max(getattr(it.need, need) for it in request.parts)

    def lowered(value: int) -> Request:
        return _replace(
            request,
            parts=tuple(
                Part(it.nodes, msgspec.structs.replace(it.need, **{need: min(getattr(it.need, need), value)}))
                for it in request.parts
            ),
        )

    low = min(getattr(it, field) for it in plan.offers)
    high = asked
    for _ in range(MOST_TRIES):
        middle = (low + high + 1) // 2
        if not low < middle < high:
            break
        tried = attempt(lowered(middle))
        if tried is None:
            high = middle
        else:
            plan = tried
            low = min(getattr(it, field) for it in plan.offers)
            if low >= high:
                break
    has = min(getattr(it, field) for it in plan.offers)
    return f"{has / unit:g} {words} instead of {asked / unit:g}", plan


def _longest(request: Request, plan: Plan, attempt: Place) -> Plan:
    """Of the plans that are found the one whose machines can be had for longest; `plan` is one of them."""
    low, high = min(it.longest_s for it in plan.offers), request.duration_s
    for _ in range(MOST_TRIES):
        middle = (low + high + 1) // 2
        if not low < middle < high:
            break
        tried = attempt(_replace(request, duration_s=middle))
        if tried is None:
            high = middle
        else:
            plan, low = tried, min(it.longest_s for it in tried.offers)
    return plan


def _nearest(request: Request, attempt: Place, field: str, limit: int) -> tuple[Plan, int] | None:
    """The least of doubled and then halved distances at which a plan is found."""
    reach = limit
    plan: Plan | None = None
    for _ in range(MOST_TRIES):
        reach *= 2
        plan = attempt(_replace(request, **{field: reach}))
        if plan is not None:
            break
    if plan is None:
        return None
    low = reach // 2
    for _ in range(MOST_TRIES):
        middle = (low + reach) // 2
        tried = attempt(_replace(request, **{field: middle}))
        if tried is None:
            low = middle
        else:
            plan, reach = tried, middle
    return plan, reach


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


def _resize(request: Request, nodes: int) -> Request:
    (part,) = request.parts
    return _replace(request, parts=(Part(nodes, part.need),))


def _pairs(index: Index, request: Request, attempt: Place, *, fewer: bool) -> list[Relaxation]:
    """Where no single constraint is enough: two, taken away whole; or `fewer` machines without one."""
    found: list[Relaxation] = []
    wishes = _given_up(request)
    for (one, first), (other, second) in combinations(wishes, 2):
        plan = attempt(second(first(request)))
        if plan is not None:
            words = f"neither {one} nor {other}"
            found.append(Relaxation((one, other), words, plan, cost_of(index, request, plan)))
    if fewer and request.nodes > 1 and len(request.parts) == 1:
        for name, change in wishes:
            free = change(request)
            plan = _most(lambda nodes, free=free: attempt(_resize(free, nodes)), 1, request.nodes - 1)
            if plan is not None:
                words = f"{_counted(len(plan.nodes), 'machine')} instead of {request.nodes}, and no {name}"
                found.append(Relaxation((name, "nodes"), words, plan, cost_of(index, request, plan)))
    return found
