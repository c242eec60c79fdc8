"""`clusterai audit replay ID`, `clusterai audit list`: the truth of a receipt, checked again on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit
from clusterai.cli.reach import gateway

if TYPE_CHECKING:
    from clusterai.cli.replay import Replayed

LONGEST_LINE = 60
VERDICTS = {
    "right": "[bold green]right: this receipt is what it says[/]",
    "wrong": "[bold red]wrong: this receipt isn't what it says[/]",
    "suspicious": "[bold yellow]suspicious: its tokens speak for fraud, and one receipt is too little to convict[/]",
    "unchecked": "[bold yellow]unchecked: its tokens weren't drawn again[/]",
}


def join(app: typer.Typer) -> None:
    group = typer.Typer(help="Check what was done, again.", no_args_is_help=True)
    group.command()(replay)
    group.command(name="list")(list_audits)
    app.add_typer(group, name="audit")


def replay(
    receipt_id: Annotated[
        str,
        typer.Argument(
            metavar="ID|FILE", help="A receipt's id, or a validator's verdict file.", show_default=False
        ),
    ],
    data: options.Data = None,
    network: options.Network = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show every token with its gap.")] = False,
) -> int:
    """Check a receipt on this machine: signatures, digests, usage, and every token drawn again.

    A receipt of this account by its id; any other by the file that a validator keeps behind its verdict. Exit
    code 6: something is wrong with it.
    """
    from clusterai.cli import replay as replays
    from clusterai.cli.local.progress import Progress

    manifest = network or options.folder(data).manifest
    with Progress() as progress:
        if receipt_id.endswith(".json"):
            done = replays.replay_file(Path(receipt_id), manifest, progress)
        else:
            with gateway(data) as client:
                transcript = client.transcript(receipt_id)
            done = replays.replay_transcript(transcript, manifest, progress)
    if json:
        say.emit({**done.report.plain(), "texts": done.texts})
    else:
        _print(done, tokens)
    return Exit.OK if done.report.outcome == "right" else Exit.UNTRUE


def _print(done: "Replayed", tokens: bool) -> None:
    report = done.report
    say.tell(f"receipt 0x{report.receipt_id.hex()}")
    marks = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]?[/]"}
    for step in report.steps:
        say.tell(f"  {marks[step.right]} {step.name:<20} {step.detail}")
    if tokens:
        unit = "drawn differently here"
        say.table(
            ("#position", "token", "#gap", ""),
            [
                (at, repr(text)[1:-1][:LONGEST_LINE], f"{gap:.4f}", "" if gap <= 0 else unit)
                for at, (text, gap) in enumerate(zip(done.texts, report.gaps, strict=False))
            ],
        )
    say.tell(VERDICTS[report.outcome])


def list_audits(
    data: options.Data = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, newest first.")] = 20,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List what validators found, epoch by epoch, newest first."""
    with gateway(data) as client:
        audits = client.audits(limit)
    if json:
        say.emit(audits)
        return
    say.table(
        ("provider", "#epoch", "state", "#receipts", "#audited", "#block"),
        [
            (
                it.provider[:12],
                it.epoch,
                it.state,
                it.detail.get("count", "-"),
                it.detail.get("audited", "-"),
                it.block,
            )
            for it in audits.epochs
        ],
    )
