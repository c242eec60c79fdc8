"""The picture that `clusterai top` draws, from what a gateway tells."""

import time

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clusterai.cli import say
from clusterai.protocol.money import show as money
from clusterai.sdk import Client, Event, Node, Status, Unreachable

MOST_EVENTS = 200
HEAD_LINES = 12
BAD = {"Convicted", "Slashed", "Barred", "Challenged", "Equivocated"}
DULL = {"BeaconRecorded", "Funded", "Deposited"}


class Picture(msgspec.Struct, frozen=True):
    status: Status
    nodes: list[Node]
    events: list[Event]


def look(client: Client) -> Picture:
    return Picture(client.status(), client.nodes(), client.recent()[-MOST_EVENTS:])


def watch(client: Client, every_s: float) -> None:
    """Until Ctrl-C; a gateway that is away is said to be, and asked again."""
    with Live(console=say.console(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                picture = draw(look(client), say.console().height)
            except Unreachable as error:
                picture = Text(f"{error}; asking again", style="red")
            live.update(picture, refresh=True)
            time.sleep(every_s)


def draw(picture: Picture, height: int) -> RenderableType:
    status = picture.status
    head = Text.assemble(
        ("clusterai ", "bold"),
        f"epoch {status.epoch}  block {status.block}  ",
        f"{status.providers_linked} nodes linked  {status.errands} answers running  ",
        f"charged {money(status.charged_wei)}  refunded {money(status.refunded_wei)}",
        (f"  {status.reason}", "red") if status.reason else "",
    )
    nodes = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for column in (
        "node",
        "state",
        "stake",
        "run",
        "queue",
        "answers",
        "first token",
        "owed + paid",
        "cleared epochs",
    ):
        nodes.add_column(column, justify="left" if column in ("node", "state") else "right", no_wrap=True)
    for one in picture.nodes:
        nodes.add_row(
            one.provider[:14],
            Text(one.state, style="green" if one.state == "ready" else "red"),
            money(one.stake_wei),
            str(one.running),
            str(one.queued),
            str(one.orders_here),
            f"{one.first_token_s * 1000:.0f} ms" if one.first_token_s else "-",
            money(one.channel.vouchered_wei) if one.channel else "-",
            str(one.cleared_epochs),
        )
    room = max(5, height - HEAD_LINES - len(picture.nodes))
    happened = Table(box=None, pad_edge=False, show_header=False, expand=True)
    happened.add_column(style="dim", no_wrap=True)
    happened.add_column(no_wrap=True)
    happened.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for event in [it for it in picture.events if it.kind not in DULL][-room:]:
        style = "red" if event.kind in BAD else "green" if event.kind == "EpochCleared" else ""
        happened.add_row(
            time.strftime("%H:%M:%S", time.localtime(event.at_s)), Text(event.kind, style=style), told(event)
        )
    return Group(head, Text(), nodes, Text(), happened)


def told(event: Event) -> str:
    """One event in a line."""
    detail = event.detail
    who = str(detail.get("provider") or detail.get("owner") or detail.get("receiver") or "")[:12]
    match event.kind:
        case "receipt":
            return f"{who} {detail['input_units']} + {detail['output_units']} tokens, {money(int(detail['price_wei']))}"
        case "EpochCommitted":
            return f"{who} epoch {detail['epoch']}: {detail['count']} receipts, {money(int(detail['total']))}"
        case "EpochCleared":
            return f"{who} epoch {detail['epoch']}: {detail['audited']} drawn receipts were right"
        case "Convicted":
            return f"{who} epoch {detail['epoch']}: fraud, {money(int(detail['slashed']))} slashed"
        case "refund":
            return f"{money(int(detail['amount_wei']))} back from {who}"
        case _:
            return " ".join(f"{name}={str(value)[:14]}" for name, value in detail.items())
