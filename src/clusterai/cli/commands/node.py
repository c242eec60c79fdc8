"""`clusterai node doctor`: can this machine provide, and if not, what to do about it."""

from pathlib import Path
from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit


def join(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Provide: check this machine, list the nodes of a network.", no_args_is_help=True
    )
    group.command()(doctor)
    group.command(name="list")(list_nodes)
    app.add_typer(group, name="node")


def doctor(
    data: options.Data = None,
    model: Annotated[str, typer.Option(help="The model that it should serve.")] = "smollm2-135m",
    config: Annotated[
        Path | None, typer.Option(help="A node's own configuration file.", show_default=False)
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Check whether this machine can provide. Each red row names its cure. Exit code 6: there is a red row."""
    from clusterai.cli import doctor as checks

    rows = checks.examine(options.folder(data), model, config)
    healthy = all(row.state != "red" for row in rows)
    if json:
        say.emit({"healthy": healthy, "rows": rows})
    else:
        colours = {"green": "[green]✓[/]", "yellow": "[yellow]![/]", "red": "[red]✗[/]"}
        for row in rows:
            say.tell(f"{colours[row.state]} {row.name:<22} {row.found}")
            if row.cure:
                say.tell(f"  {'':<22} → {row.cure}")
    return Exit.OK if healthy else Exit.UNTRUE


def list_nodes(data: options.Data = None, json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List the nodes that a gateway knows, and why one gets no work."""
    from clusterai.cli.reach import gateway
    from clusterai.protocol.money import show as money

    with gateway(data) as client:
        nodes = client.nodes()
    if json:
        say.emit({"nodes": nodes})
        return
    say.table(
        ("provider", "state", "stake", "models", "#running", "#answers", "#first token"),
        [
            (
                it.provider,
                it.state,
                money(it.stake_wei),
                ", ".join(one.name for one in it.models) or "-",
                it.running,
                it.orders_here,
                f"{it.first_token_s * 1000:.0f} ms" if it.first_token_s else "-",
            )
            for it in nodes
        ],
    )
