"""Rentals as people read them: where each machine is, what was proven and paid, how long the money lasts, and why it ended."""

import time
from collections.abc import Sequence
from datetime import datetime

from clusterai.cli import say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.renting.folder import KeeperState
from clusterai.cli.renting.named import short
from clusterai.protocol.money import show as money
from clusterai.protocol.units import counted, show_duration, show_size
from clusterai.sdk.offershapes import LEAST_S
from clusterai.sdk.rentalshapes import Rental, RentedMachine

RUNWAY_S = 600
"""A renter is warned when the account lasts no longer, and the booking does."""
MOST_NOTES = 8
WHY = {
    "released": "released by you",
    "over": "the booked time is over",
    "no_credit": "the account was empty, and wasn't filled in time",
    "never_ready": "its machines didn't come up together; nothing was charged",
    "not_replaced": "its head was lost, and no machine could be had in its place",
}


def listed(found: Sequence[Rental], now_s: float | None = None) -> None:
    if not found:
        say.tell("nothing is rented; what could be: clusterai offers")
        return
    now_s = time.time() if now_s is None else now_s
    rows = [
        (
            short(it),
            it.state if it.state != "ended" else it.why,
            len(it.machines),
            money(it.price_hour_wei),
            money(it.paid_wei),
            _left(it, now_s),
        )
        for it in found
    ]
    say.table(("id", "state", "#machines", "#an hour", "#paid", "#left"), rows)


def _left(it: Rental, now_s: float) -> str:
    if it.state == "ended":
        return "-"
    booked_s = max(0, it.until_s - now_s)
    if it.state == "paused":
        return "no credit"
    if it.runway_s is not None and it.runway_s < min(booked_s, RUNWAY_S):
        return f"{show_duration(it.runway_s)} of credit"
    return show_duration(booked_s)


def rental(it: Rental, keeper: KeeperState | None = None, now_s: float | None = None) -> None:
    """Everything of one."""
    now_s = time.time() if now_s is None else now_s
    rows: list[tuple[str, object]] = [("rental", it.id), ("state", _state(it))]
    if it.state == "ended":
        assert it.ended_s is not None
        rows.append(("ended", f"{_clock(it.ended_s)}: {WHY.get(it.why, it.why)}"))
        if it.detail:
            rows.append(("", it.detail))
    else:
        left_s = max(0, it.until_s - now_s)
        more = (
            f"; {show_duration(it.extendable_s)} more can be booked now" if it.extendable_s >= LEAST_S else ""
        )
        rows.append(("until", f"{_clock(it.until_s)}, in {show_duration(left_s)}{more}"))
        if it.runway_s is not None:
            rows.append(("money lasts", show_duration(it.runway_s)))
    setup = it.setup
    gpus = f", {counted(setup.gpus, 'GPU')}" if setup.gpus else ""
    each = f"{counted(setup.cpu_milli / 1000, 'core')}, {show_size(setup.memory_bytes)} of memory, {show_size(setup.disk_bytes)} of disk{gpus}"
    rows += [
        ("each machine", f"{each}, {setup.image}"),
        ("price", f"{money(it.price_hour_wei)} an hour"),
        ("paid", f"{money(it.paid_wei)} for {_proven(it)}"),
    ]
    if it.state != "ended":
        rows.append(("mesh", _mesh(it, keeper)))
    say.pairs(rows)
    say.tell()
    machines(it)
    if it.notes:
        say.tell()
        for note in it.notes[-MOST_NOTES:]:
            say.tell(
                f"[dim]{_clock(note.at_s)}[/]  {note.what}{': ' if note.detail else ''}{_plain(note.detail)}"
            )
    if (warning := short_runway(it, now_s)) is not None:
        say.say(f"\n[yellow]{warning}[/]")


def machines(it: Rental) -> None:
    rows = [
        (
            machine.place,
            machine.node[:12],
            _phase(it, machine),
            money(machine.price_hour_wei),
            show_duration(machine.proven_s),
            "by its sentinel" if machine.proof == "measured" else "as it passed",
            steps(machine),
        )
        for machine in it.machines
    ]
    say.table(("#place", "machine", "phase", "#an hour", "#proven", "how", "came up in"), rows)


def steps(machine: RentedMachine) -> str:
    """How long each step of coming up took."""
    return ", ".join(f"{name} {show_duration(ms / 1000)}" for name, ms in machine.steps_ms.items()) or "-"


def short_runway(it: Rental, now_s: float) -> str | None:
    """What to do where the money ends soon, and before the booking does."""
    if it.runway_s is None or it.runway_s > RUNWAY_S or it.until_s - now_s <= it.runway_s:
        return None
    if it.state == "paused":
        return "the account is empty: its machines stand still, unpaid, and go on once there is credit (clusterai account fund)"
    return f"the account lasts {show_duration(it.runway_s)} more: clusterai account fund, or clusterai rent release {short(it)}"


def too_long(it: Rental, more_s: int) -> Failure:
    """As `extend` fails before anything is asked of the gateway."""
    whole_s = it.extendable_s // 60 * 60
    if whole_s >= LEAST_S:
        told = f"{show_duration(whole_s)} more can be booked now, not {show_duration(more_s)}"
        cure = f"clusterai rent extend {short(it)} --hours {whole_s // 60}m, and again when some of it has passed"
    else:
        told = "it is booked for as long ahead as can be"
        cure = "ask again when some of it has passed, or rent others: clusterai rent"
    return Failure(
        told, "its machines' owners let them for so long from now, and not longer", cure, Exit.USAGE
    )


def _state(it: Rental) -> str:
    match it.state:
        case "opening":
            return "its machines come up; nothing is charged yet"
        case "paused":
            return "paused: the account is empty, its machines stand still, unpaid, for a quarter of an hour at most"
        case "running" if any(machine.phase != "ready" for machine in it.machines):
            return "running, without a machine that is being replaced"
        case state:
            return state


def _proven(it: Rental) -> str:
    return f"{show_duration(sum(machine.proven_s for machine in it.machines))} of machines"


def _phase(it: Rental, machine: RentedMachine) -> str:
    phase = "-" if it.state == "ended" else machine.phase
    return f"{phase} (the {say.nth(machine.generation + 1)} here)" if machine.generation else phase


def _mesh(it: Rental, keeper: KeeperState | None) -> str:
    if keeper is None:
        return f"not connected from here: clusterai rent connect {short(it)}"
    ways = [way for _, way in sorted(keeper.ways.items())]
    told = ", ".join(f"{ways.count(way)} {way}" for way in ("direct", "relay", "silent") if way in ways)
    return f"{keeper.phase}, {it.address} on {keeper.interface}{f' ({told})' if told else ''}"


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _plain(text: str) -> str:
    """Words of strangers' machines: nothing that steers the terminal or reads as markup."""
    return "".join(letter for letter in text if letter.isprintable()).replace("[", r"\[")
