"""`clusterai node earnings` as a table: states across, days down."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from clusterai.cli import say
from clusterai.cli.failure import Exit, Failure
from clusterai.node.adapters.earnings import Report
from clusterai.node.core.earnings import DAY_S, STATES, Earned, Kind, State, by_state
from clusterai.protocol.money import show as money

_SINCE = re.compile(r"([0-9]{1,4})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}
KINDS: tuple[Kind, ...] = ("answers", "jobs", "copies")


def first_day(since: str | None, now_s: float) -> int | None:
    """The first day that is shown; None for all.

    Raises:
        Failure: it isn't a time span.
    """
    if since is None:
        return None
    found = _SINCE.fullmatch(since)
    if found is None:
        raise Failure(f"--since {since} is no time span", next="such as 7d, 24h or 4w", code=Exit.USAGE)
    return int(now_s - 3600 * int(found[1]) * _HOURS[found[2]]) // DAY_S


def date(day: int | None) -> str:
    return "undated" if day is None else datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()


def chosen(report: Report, since: int | None) -> list[Earned]:
    """What has no day is still on its way, and shown."""
    return [it for it in report.earned if since is None or it.day is None or it.day >= since]


def as_json(report: Report, since: int | None) -> dict[str, Any]:
    found = chosen(report, since)
    return {
        "since": None if since is None else date(since),
        "earned": [
            {"day": None if it.day is None else date(it.day), **_plain(it)}
            for it in sorted(found, key=_order)
        ],
        "by_kind": {kind: by_state(found, kind) for kind in KINDS},
        "all_time": {kind: by_state(report.earned, kind) for kind in KINDS},
        "gas_wei": {date(day): wei for day, wei in report.gas.items() if since is None or day >= since},
        "barred": report.books.barred,
    }


class OfMachine(msgspec.Struct, frozen=True):
    """What one of an owner's machines earned. `here`: by its own books, else as far as the chain knows."""

    number: int
    account: str
    here: bool
    report: Report


def together_json(owner: str, found: list[OfMachine], since: int | None) -> dict[str, Any]:
    return {
        "owner": owner,
        "since": None if since is None else date(since),
        "machines": [
            {"machine": it.number, "account": it.account, "here": it.here, **as_json(it.report, since)}
            for it in found
        ],
        "together": by_state([one for it in found for one in chosen(it.report, since)]),
    }


def tell_together(owner: str, found: list[OfMachine], since: int | None) -> None:
    """One line for each machine, and their sum."""
    whole = [one for it in found for one in chosen(it.report, since)]
    states: list[State] = [state for state in STATES if any(it.state == state for it in whole)]
    rows: list[tuple[object, ...]] = []
    for it in found:
        sums = by_state(chosen(it.report, since))
        rows.append((it.number, it.account, *(_shown(sums[state]) for state in states)))
    sums = by_state(whole)
    rows.append(("together", "", *(_shown(sums[state]) for state in states)))
    say.tell(f"machines of {owner}" + ("" if since is None else f", since {date(since)}"))
    say.table(("#machine", "account", *(f"#{state}" for state in states)), rows)
    if any(not it.here for it in found):
        say.tell(
            "of machines elsewhere, what isn't on the chain yet is told by clusterai node earnings there"
        )
    for it in found:
        if it.report.books.barred:
            say.tell(f"[red]machine {it.number} was convicted[/]: what wasn't settled before is forfeited")


def tell(report: Report, since: int | None) -> None:
    found = sorted(chosen(report, since), key=_order)
    if not found:
        say.tell("nothing was earned" + ("" if since is None else f" since {date(since)}"))
    else:
        states: list[State] = [state for state in STATES if any(it.state == state for it in found)]
        rows: list[tuple[object, ...]] = []
        for key in dict.fromkeys((it.day, it.kind) for it in found):
            sums = by_state([it for it in found if (it.day, it.kind) == key])
            rows.append((date(key[0]), key[1], *(_shown(sums[state]) for state in states)))
        sums = by_state(found)
        rows.append(("together", "", *(_shown(sums[state]) for state in states)))
        say.table(("day (UTC)", "work", *(f"#{state}" for state in states)), rows)
    gas = sum(wei for day, wei in report.gas.items() if since is None or day >= since)
    if report.gas:
        say.tell(f"gas: {gas / 1e18:.6f} of the chain's coin")
    if report.books.barred:
        say.tell("[red]convicted[/]: what wasn't settled before is forfeited")


def _plain(it: Earned) -> dict[str, Any]:
    return {"kind": it.kind, "state": it.state, "amount_wei": it.amount_wei}


def _order(it: Earned) -> tuple[int, str, int]:
    return (-1 if it.day is None else it.day, it.kind, STATES.index(it.state))


def _shown(wei: int) -> str:
    return money(wei) if wei else "-"
