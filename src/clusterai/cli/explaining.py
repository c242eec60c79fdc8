"""`clusterai node explain` of one's own node: why it gets no work, from the machine outwards, each line with what would change it.

    the daemon ─ its pauses ─ chain ─ links ─ models │ the gateway's view: state ─ place by price and wait ─ standing ─ jobs

What comes first rules out what comes behind it. `findings` is pure: what the node and its gateway say of it comes in.
"""

import time
from pathlib import Path
from typing import Literal

import msgspec

from clusterai.cli.say import nth
from clusterai.node.adapters.carding import read_card
from clusterai.node.adapters.watch import Status
from clusterai.node.adapters.willing import hours
from clusterai.node.config import Config
from clusterai.node.core.willing import Hours
from clusterai.node.doctor import running
from clusterai.protocol.cards import lines
from clusterai.protocol.money import show as money
from clusterai.sdk.shapes import LendingRank, Rank, RankedNode


class Finding(msgspec.Struct, frozen=True):
    """`stops`: no work at all until it is changed. `limits`: less than there could be. `good`: not the cause."""

    name: str
    state: Literal["stops", "limits", "good"]
    found: str
    cure: str = ""


def explained(config: Config, node: RankedNode | None, why_no_node: str) -> list[Finding]:
    """Of a node that may run or not, now."""
    card = read_card(config.data)
    measured = None if card is None else sum(it.kind == "measured" for it in lines(card))
    found = findings(config, running(config), node, why_no_node, hours(config), time.time(), measured)
    return found + [it for vault in config.vaults for it in _vault(Path(vault.folder).expanduser())]


def _vault(folder: Path) -> list[Finding]:
    from clusterai.cli.explainvaults import (
        reasons,
    )  # only where there are vaults: the room takes a second to import

    return [Finding(it.name, it.state, it.found, it.cure) for it in reasons(folder)]


def findings(
    config: Config,
    status: Status | None,
    node: RankedNode | None,
    why_no_node: str,
    schedule: Hours | None,
    now_s: float,
    measured: int | None = None,
) -> list[Finding]:
    """
    Args:
        measured: how many fields of its card a validator measured; None: it has no card.
        status: what the daemon says of itself; None: it doesn't run.
        node: what its gateway says of it; None for `why_no_node`.
    """
    if status is None:
        return [
            Finding(
                "daemon", "stops", "it doesn't run", "clusterai node join, or start the service that runs it"
            )
        ]
    found = [Finding("daemon", "good", f"process {status.pid}, {status.phase}")]
    if status.phase == "draining":
        found.append(
            Finding("draining", "stops", "it is being stopped", "clusterai node join starts it again")
        )
    found += _willing(status, schedule, now_s)
    found += _machine(config, status)
    found.append(_hardware(config, status, measured))
    if node is None:
        found.append(Finding("gateway", "limits", why_no_node, "--gateway URL names another"))
        return found
    found.append(_state(node))
    for rank in node.ranks:
        found += _rank(rank)
    found += _standing(node)
    found.append(_jobs(config, node.jobs))
    return found


# --- this machine ---


def _willing(status: Status, hours: Hours | None, now_s: float) -> list[Finding]:
    found: list[Finding] = []
    for pause in status.pauses:
        when = ""
        if pause.cause == "hours" and hours is not None and (change_s := hours.change_s(now_s)) is not None:
            when = f"; they begin in {(change_s - now_s) / 3600:.1f} h"
        found.append(Finding("paused", "stops", pause.said + when, pause.cure))
    if not found and hours is not None and (change_s := hours.change_s(now_s)) is not None:
        left = f"within its hours, for another {(change_s - now_s) / 3600:.1f} h"
        found.append(Finding("hours", "good", f"{left}: {hours}"))
    return found or [Finding("willing", "good", "it takes work at any hour")]


def _machine(config: Config, status: Status) -> list[Finding]:
    found: list[Finding] = []
    if status.barred:
        found.append(
            Finding("chain", "stops", "convicted and barred for good", "join with another --owner-key")
        )
    elif not status.registered:
        found.append(
            Finding(
                "chain",
                "stops",
                "the key of this machine doesn't act for its owner on chain",
                "clusterai node join; it sends what is missing",
            )
        )
    elif status.chain_trouble:
        found.append(
            Finding("chain", "limits", status.chain_trouble, "claims wait for it; is its address right?")
        )
    else:
        found.append(Finding("chain", "good", f"registered; block {status.chain_block}"))
    linked = [it for it in status.links if it.up]
    severe = "limits" if linked else "stops"
    found += [
        Finding("link", severe, f"{it.url}: {it.why}", "clusterai node doctor says more")
        for it in status.links
        if not it.up
    ]
    for it in linked:
        took = "" if it.round_trip_ms is None else f", {it.round_trip_ms:.1f} ms"
        found.append(Finding("link", "good", f"{it.url}{took}"))
    ready = [it for it in status.models if it.state == "ready"]
    severe, cure = "limits" if ready else "stops", "it is being loaded, or the node's log says why it isn't"
    found += [
        Finding(f"model {it.name}", severe, it.state, cure) for it in status.models if it.state != "ready"
    ]
    found.append(_credit(config, status))
    slots = sum(model.slots for model in config.models)
    if status.running >= slots + config.queue:
        found.append(
            Finding(
                "queue",
                "stops",
                f"{status.running} orders run or wait, and {slots} slots + {config.queue} is the most",
                "raise `queue` or `slots`, or wait",
            )
        )
    else:
        found.append(Finding("queue", "good", f"{status.running} orders of at most {slots} + {config.queue}"))
    return found


def _hardware(config: Config, status: Status, measured: int | None) -> Finding:
    """Answers are routed by the wait that the gateway measured; who rents a whole machine chooses by its card."""
    speed = ", ".join(f"{it.name} {it.tokens_per_s:.0f} tokens/s" for it in status.models if it.tokens_per_s)
    said = f"lately {speed}, by its own count; " if speed else ""
    if measured:
        return Finding("hardware", "good", f"{said}{measured} fields of its card are measured")
    found = f"{said}no validator has measured it yet"
    if config.rentals is None:
        return Finding("hardware", "good", found)
    return Finding(
        "hardware",
        "limits",
        f"{found}: all on its card is claimed, and renters can ask for what is measured",
        "stay linked: validators are drawn, and come by themselves; clusterai node card shows it",
    )


def _credit(config: Config, status: Status) -> Finding:
    share = status.owed_wei / config.credit_wei if config.credit_wei else float(status.owed_wei > 0)
    said = f"gateways owe {money(status.owed_wei)} without a voucher, {share:.0%} of `credit_wei`"
    if share < 1:
        return Finding("credit", "good", said)
    return Finding(
        "credit",
        "limits",
        said,
        f"orders of who owes wait; `credit_wei` above {status.owed_wei} would let them in",
    )


# --- the gateway's view ---


def _state(node: RankedNode) -> Finding:
    if node.state == "ready":
        return Finding("gateway", "good", "it gives this node work")
    cure = "paused or draining nodes get nothing" if node.state.startswith("paused") else "it ends by itself"
    if not node.linked:
        cure = "clusterai node doctor finds what cuts the link"
    return Finding("gateway", "stops", node.state, cure)


def _rank(it: Rank) -> list[Finding]:
    name = f"price {it.name}"
    found: list[Finding] = []
    if it.obstacle and "no new work" not in it.obstacle:
        found.append(Finding(name, "stops", it.obstacle, "answers that succeed end it"))
    where = f"{nth(it.place)} of {it.of}: {it.share:.0%} of the requests while all are as busy as now"
    if it.place == 1:
        found.append(Finding(name, "good", where))
    else:
        found.append(
            Finding(
                name,
                "limits",
                f"{where}; it asks {it.price_wei} wei",
                _cheaper(it),
            )
        )
    if it.quickest_s is not None and it.wait_s > 1.5 * it.quickest_s:
        found.append(
            Finding(
                f"latency {it.name}",
                "limits",
                f"{it.wait_s * 1000:.0f} ms to the first token are expected, the quickest offer's are {it.quickest_s * 1000:.0f} ms",
                f"{it.wait_s / it.quickest_s:.1f} x as quick would count as {it.wait_s / it.quickest_s:.1f} x as cheap:"
                " fewer slots, more threads, or a faster machine",
            )
        )
    mine, every = it.answers_an_hour, it.all_answers_an_hour
    demand = f"{every:.0f} answers in the last hour at this gateway, {mine:.0f} of them here"
    if every < 1:
        found.append(
            Finding(
                f"demand {it.name}",
                "limits",
                "nobody asked for it in the last hour",
                "serve a model that is asked for",
            )
        )
    else:
        found.append(Finding(f"demand {it.name}", "good", demand))
    return found


def _cheaper(it: Rank) -> str:
    places = ((it.next_price_wei, it.place - 1), (it.first_price_wei, 1))
    wanted = {price: place for price, place in places if price is not None}
    steps = [
        f"at {price / it.price_wei:.3g} x your price ({price} wei) you would be {nth(place)}"
        for price, place in wanted.items()
    ]
    if steps:
        return "; ".join(steps)
    return f"no price makes up for the wait and the standing; the cheapest offer asks {it.cheapest_wei} wei"


def _standing(node: RankedNode) -> list[Finding]:
    doubt = 2 - node.quality
    best = f"counts as {doubt:.2f} x as dear as the best standing would"
    found = [
        Finding(
            "standing",
            "good" if node.quality > 0.75 else "limits",
            f"quality {node.quality:.2f}: {best}",
            "" if node.quality > 0.75 else f"at quality 1 your price would weigh {1 / doubt:.2f} x as much",
        )
    ]
    found += [
        Finding(f"  {line.name}", "limits", f"{line.value:.2f}: {line.found}", line.cure)
        for line in node.explained
        if line.value < 0.999
    ]
    found.append(
        Finding("stake", "good", money(node.stake_wei))
        if node.stake_wei
        else Finding("stake", "stops", "nothing is bonded", "clusterai node join --stake 1000")
    )
    return found


def _jobs(config: Config, lent: LendingRank | None) -> Finding:
    if config.jobs is None:
        return Finding(
            "jobs", "limits", "nothing is lent to jobs", "`jobs = {}` in the configuration lends it"
        )
    if lent is None:
        return Finding(
            "jobs",
            "limits",
            "the gateway hears of nothing that is lent",
            "clusterai node doctor: rows `jobs: …`",
        )
    said = f"{nth(lent.place)} of {lent.of} by the price of a core's hour; runs {', '.join(lent.checks) or 'nothing'}"
    missing = {"wasm", "pinned"} - set(lent.checks)
    if missing:
        cure = f"it can't run {', '.join(sorted(missing))} jobs: clusterai node doctor, rows `jobs: …`"
        return Finding("jobs", "limits", said, cure)
    if lent.next_wei is None:
        return Finding("jobs", "good", said)
    at = f"`core_hour_wei` {lent.next_wei - 1 if lent.next_wei else 0}, {lent.next_wei / lent.core_hour_wei:.2f} x yours"
    return Finding("jobs", "limits", said, f"{at}, would be a place better; the cheapest able one is taken")
