"""`clusterai audit replay ID`, `clusterai audit list`: the truth of a receipt, checked again on this machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.commands.receipt import ReceiptId
from clusterai.cli.failure import Exit
from clusterai.cli.reach import gateway

if TYPE_CHECKING:
    from clusterai.cli.replay import Report

LONGEST_LINE = 60


def join(app: typer.Typer) -> None:
    group = typer.Typer(help="Check what was done, again.", no_args_is_help=True)
    group.command()(replay)
    group.command(name="list")(list_audits)
    app.add_typer(group, name="audit")


def replay(
    receipt_id: ReceiptId,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show every token with its gap.")] = False,
) -> int:
    """Check one of this account's receipts on this machine: signatures, digests, usage, and every token drawn again.

    Exit code 6: something is wrong with it.
    """
    from clusterai.cli import replay as replays

    folder = options.folder(data)
    with gateway(data) as client:
        transcript = client.transcript(receipt_id)
    with replays.progress() as progress:
        report = replays.replay(transcript, folder.manifest, progress)
    if json:
        say.emit(report)
    else:
        _print(report, tokens)
    return Exit.OK if report.right else Exit.UNTRUE


def _print(report: "Report", tokens: bool) -> None:
    say.tell(f"receipt {report.id}")
    for step in report.steps:
        mark = "[green]✓[/]" if step.right else "[red]✗[/]"
        say.tell(f"  {mark} {step.name}" + (f": {step.detail}" if step.detail else ""))
    if tokens:
        say.table(
            ("#position", "token", "#gap", ""),
            [
                (
                    at,
                    repr(one.text)[1:-1][:LONGEST_LINE],
                    f"{one.gap:.4f}",
                    "" if one.gap <= 0 else "drawn differently here",
                )
                for at, one in enumerate(report.tokens)
            ],
        )
    colour = "green" if report.right else "red"
    say.tell(f"[bold {colour}]{report.verdict}[/]")


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
