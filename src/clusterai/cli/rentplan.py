"""Offers and plans of rented machines as people read them: each number with whose word it is and how old that is."""

from collections.abc import Sequence

from clusterai.cli import say
from clusterai.cli.failure import Failure
from clusterai.protocol.money import show as money
from clusterai.protocol.units import counted, show_duration, show_size
from clusterai.sdk.offers import NotPlaced
from clusterai.sdk.offershapes import Machine, RentalPlan, Said, WhyNot

MOST_RELAXATIONS = 3
COLUMNS = (
    "machine",
    "#an hour",
    "#cores",
    "#memory",
    "#disk",
    "GPU",
    "region",
    "#round trip",
    "#reliability",
    "time proven",
    "operator",
    "by whom",
)
LEGEND = "c claimed by its operator   m measured, and how long ago   a assumed, nobody measured it"


def machines(found: Sequence[Machine]) -> None:
    say.table(COLUMNS, [_row(it) for it in found])
    say.tell(f"[dim]{LEGEND}[/]")


def _row(it: Machine) -> tuple[str, ...]:
    gpu = f"{it.gpus.value} x {it.gpu.value or 'GPU'} {_mark(it.gpu)}" if it.gpus.value else "-"
    measurers = {
        said.by[:8] for said in (it.cpu_milli, it.memory_bytes, it.gpu, it.region) if said.says == "measured"
    }
    return (
        it.node[:12],
        money(it.price_wei.value),
        f"{it.cpu_milli.value / 1000:g} {_mark(it.cpu_milli)}",
        f"{show_size(it.memory_bytes.value)} {_mark(it.memory_bytes)}",
        f"{show_size(it.disk_bytes.value)} {_mark(it.disk_bytes)}",
        gpu,
        f"{it.region.value or '-'} {_mark(it.region)}",
        "-"
        if it.round_trip_us is None
        else f"{it.round_trip_us.value / 1000:.1f} ms {_mark(it.round_trip_us)}",
        f"{it.reliability_ppm.value / 10_000:g} % {_mark(it.reliability_ppm)}",
        "no" if it.links_per_s_milli is None else f"yes {_mark(it.links_per_s_milli)}",
        (it.belongs_to or it.operator)[:12],
        ", ".join(sorted(measurers)) or "nobody yet",
    )


def _mark(said: Said) -> str:
    if said.says == "measured":
        return f"[green]m {_age(said.age_s)}[/]"
    return f"[dim]{said.says[0]}[/]"


def _age(age_s: int) -> str:
    """One unit: `now`, `40 s`, `3 h`."""
    if age_s < 1:
        return "now"
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if age_s >= unit:
            return f"{age_s // unit} {name}"
    return f"{age_s} s"


def plan(found: RentalPlan) -> None:
    """The group, what it costs, and what each wish costs."""
    machines(found.machines)
    count = len(found.machines)
    unproven = sum(it.links_per_s_milli is None for it in found.machines)
    say.tell(
        f"\n{counted(count, 'machine')} for {show_duration(found.duration_s)}: [bold]{money(found.price_hour_wei)}[/] an hour, "
        f"{money(found.price_wei)} if every interval is paid; none is billed before all are ready"
    )
    if unproven:
        say.tell(
            f"{unproven} of them nobody measured yet: how much of their time you really get can't be told"
        )
    if found.seat_hour_wei is not None:
        say.tell(
            f"each is paid {money(found.seat_hour_wei)} an hour: the lowest ask that lost, or the reserve"
        )
    if count > 1 and found.diameter_us is None:
        say.tell("how far apart they are isn't known: too few places were measured")
    elif count > 1 and found.diameter_us is not None:
        measured = f"{found.pairs_measured} of {found.pairs} pairs measured, the rest predicted"
        say.tell(f"at most {found.diameter_us / 1000:.1f} ms between any two ({measured})")
    costly = [it for it in found.tolls if it.saved_wei]
    for toll in costly:
        apart = f", {(toll.diameter_us - toll.diameter_without_us) / 1000:+.1f} ms" if count > 1 else ""
        dearer = money(toll.price_hour_wei - toll.without_hour_wei)
        say.tell(f"  [bold]{toll.constraint}[/] costs {dearer} an hour{apart}")
    if len(costly) < len(found.tolls):
        free = ", ".join(it.constraint for it in found.tolls if not it.saved_wei)
        say.tell(f"  costs nothing: {free}")
    if found.hold:
        say.tell(f"held for {show_duration(found.held_s)}")


def ways_out(why: WhyNot) -> list[str]:
    """The cheapest relaxations, one a line."""
    return [
        f"{it.text} ({', '.join(it.constraints)}): {counted(it.nodes, 'machine')} of {counted(it.operators, 'operator')}"
        f" for {money(it.price_hour_wei)} an hour"
        for it in why.relaxations[:MOST_RELAXATIONS]
    ]


def not_placed(error: NotPlaced) -> Failure:
    """As a command fails with it: which wish fails, and the cheapest ways out."""
    why = error.why
    if not why.relaxations:
        counts = ", ".join(f"{it.constraint} {it.offers}" for it in why.narrowings)
        return Failure(
            "no such group stands free now", f"how many machines satisfy each wish alone: {counts}"
        )
    if why.failing:
        cause = f"{', '.join(why.failing)}: giving up one of these is enough"
    elif why.relaxations[-1].constraints == ["nodes"]:
        cause = f"so many machines aren't free: {why.suitable} would suit"
    else:
        cause = "no single wish is enough to give up"
    return Failure("no such group stands free now", cause, "\n        ".join(ways_out(why)))
