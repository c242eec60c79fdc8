"""How far one wish of a request has to give way until there is a plan: limits by what the best plan without them needs,
thresholds by halving, with everything else kept.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from clusterai.market.core.placement.place import Plan
from clusterai.market.core.placement.request import MOST_US_WEI, Part, Request
from clusterai.protocol.money import show as money
from clusterai.protocol.units import counted

MOST_TRIES = 8
"""Halvings of one threshold."""

Change = Callable[[Request], Request]
Place = Callable[[Request], Plan | None]


class Eased(msgspec.Struct, frozen=True):
    """As little of one wish given up as was found to be enough: in words, with the plan, and as a change of the request."""

    words: str
    plan: Plan
    change: Change


# --- what can be dropped ---


def _replace(request: Request, **changes: Any) -> Request:
    return msgspec.structs.replace(request, **changes)


def _needs(request: Request, **changes: Any) -> Request:
    """Of all parts at once."""
    parts = tuple(Part(it.nodes, msgspec.structs.replace(it.need, **changes)) for it in request.parts)
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


def given_up(request: Request) -> list[tuple[str, Change]]:
    """`drops`, and GPUs at all: another kind is one thing to give up, none is another."""
    wishes = list(drops(request))
    if any(it.need.gpus for it in request.parts):
        wishes.append(("gpus", lambda it: _needs(it, gpu="", gpus=0)))
    return wishes


def fewer_gpus(request: Request) -> Request:
    """One of the same kind of each machine that was to have several."""
    parts = tuple(
        Part(it.nodes, msgspec.structs.replace(it.need, gpus=min(1, it.need.gpus))) for it in request.parts
    )
    return _replace(request, parts=parts)


def resized(request: Request, nodes: int) -> Request:
    (part,) = request.parts
    return _replace(request, parts=(Part(nodes, part.need),))


def without(name: str, change: Change, request: Request) -> Request:
    """The request without this wish, by the measure that finds how little of it has to be given up."""
    free = change(request)
    if name == "round trip":
        return _replace(free, us_wei=MOST_US_WEI)
    if name == "price":
        return _replace(free, us_wei=0, ppm_wei=0)
    return free


# --- the least that has to be given up ---


def least(name: str, request: Request, plan: Plan, attempt: Place) -> Eased:
    """How far `name` has to give way; `plan` is one of the request without it."""
    match name:
        case "round trip":
            more = (plan.diameter_us - (request.most_rtt_us or 0)) / 1_000
            return _limited(f"{more:.1f} ms more round trip", plan, most_rtt_us=plan.diameter_us)
        case "price":
            more_wei = plan.price_wei - (request.most_price_wei or 0)
            return _limited(f"{money(more_wei)} more an hour", plan, most_price_wei=plan.price_wei)
        case "per operator":
            return _operators(request, plan, attempt)
        case "near" | "link":
            return _nearest(request, plan, attempt, "near_us" if name == "near" else "most_link_us")
        case "region":
            where = tuple(sorted({it.region for it in plan.offers}))
            words = f"machines in {', '.join(it or 'no named region' for it in where)}"
            return _limited(words, plan, regions=where if all(where) else ())
        case "attested":
            return _limited("take operators of whom nobody attests that", plan, attested=())
        case "duration":
            return _longest(request, plan, attempt)
        case "hardware":
            kinds = ", ".join(sorted({it.hardware or "unnamed" for it in plan.offers}))
            return _needing(f"hardware {kinds}", plan, hardware="")
        case "gpu" | "gpus":
            kinds = ", ".join(sorted({it.gpu or "none" for it in plan.offers}))
            free: dict[str, Any] = {"gpu": ""} if name == "gpu" else {"gpu": "", "gpus": 0}
            return _needing(f"GPU {kinds}", plan, **free)
        case "measured":
            return _needing("take what operators claim", plan, measured=0)
        case _:
            return _threshold(name, request, plan, attempt)


def _limited(words: str, plan: Plan, **changes: Any) -> Eased:
    return Eased(words, plan, lambda it: _replace(it, **changes))


def _needing(words: str, plan: Plan, **changes: Any) -> Eased:
    return Eased(words, plan, lambda it: _needs(it, **changes))


def _operators(request: Request, plan: Plan, attempt: Place) -> Eased:
    limit = request.most_per_operator or 0
    for most in range(limit + 1, request.nodes):
        tried = attempt(_replace(request, most_per_operator=most))
        if tried is not None:
            words = f"{counted(most, 'machine')} of one operator instead of {limit}"
            return _limited(words, tried, most_per_operator=most)
    return _limited(f"all machines of one operator instead of {limit}", plan, most_per_operator=None)


_THRESHOLDS: dict[str, tuple[str, float, str]] = {
    "gpu count": ("gpus", 1, "GPU{} of each machine"),
    "cpu": ("cpu_milli", 1_000, "core{}"),
    "memory": ("memory_bytes", 2**30, "GiB of memory"),
    "disk": ("disk_bytes", 2**30, "GiB of disk"),
    "bandwidth": ("bandwidth_kbps", 1_000, "Mbit/s"),
    "reliability": ("reliability_ppm", 10_000, "% reliability"),
}


def _threshold(name: str, request: Request, plan: Plan, attempt: Place) -> Eased:
    """Halve towards the highest value at which a plan is found; what is said is what the plan really has."""
    field, unit, words = _THRESHOLDS[name]
    asked = max(getattr(it.need, field) for it in request.parts)

    def lowered(of: Request, value: int) -> Request:
        return _replace(
            of,
            parts=tuple(
                Part(
                    it.nodes, msgspec.structs.replace(it.need, **{field: min(getattr(it.need, field), value)})
                )
                for it in of.parts
            ),
        )

    low = min(getattr(it, field) for it in plan.offers)
    high = asked
    for _ in range(MOST_TRIES):
        middle = (low + high + 1) // 2
        if not low < middle < high:
            break
        tried = attempt(lowered(request, middle))
        if tried is None:
            high = middle
        else:
            plan = tried
            low = min(getattr(it, field) for it in plan.offers)
            if low >= high:
                break
    has = min(getattr(it, field) for it in plan.offers)
    told = f"{has / unit:g} {words.format('s' * (has != unit))} instead of {asked / unit:g}"
    return Eased(told, plan, lambda it: lowered(it, has))


def _longest(request: Request, plan: Plan, attempt: Place) -> Eased:
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
    has_s = min(it.longest_s for it in plan.offers)
    hours = f"{has_s / 3_600:.4g} hour{'s' * (has_s != 3_600)}"
    return _limited(f"{hours} instead of {request.duration_s / 3_600:.4g}", plan, duration_s=has_s)


def _nearest(request: Request, plan: Plan, attempt: Place, field: str) -> Eased:
    """The least of doubled and then halved distances at which a plan is found; `plan` is one from anywhere."""
    limit = getattr(request, field) or 1
    reach, found = limit, None
    for _ in range(MOST_TRIES):
        reach *= 2
        found = attempt(_replace(request, **{field: reach}))
        if found is not None:
            break
    if found is None:
        return _limited("any distance", plan, **{field: None})
    low = reach // 2
    for _ in range(MOST_TRIES):
        middle = (low + reach) // 2
        tried = attempt(_replace(request, **{field: middle}))
        if tried is None:
            low = middle
        else:
            found, reach = tried, middle
    return _limited(f"{(reach - limit) / 1_000:.1f} ms further away", found, **{field: reach})
