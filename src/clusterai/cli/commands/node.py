"""`clusterai node doctor`: can this machine provide, and if not, what to do about it."""

from pathlib import Path
from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure


def join(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Provide: check this machine, list and explain the nodes of a network.", no_args_is_help=True
    )
    group.command()(doctor)
    group.command(name="list")(list_nodes)
    group.command()(explain)
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


def explain(
    node: Annotated[str, typer.Argument(metavar="ID", help="A provider's address, or how it begins.")],
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Explain a node's standing: why it gets work or not, each factor with what would raise it."""
    from clusterai.cli.reach import gateway
    from clusterai.protocol.money import show as money

    with gateway(data) as client:
        found = [it for it in client.nodes() if it.provider.lower().startswith(node.lower())]
    if len(found) != 1:
        why = f"{len(found)} nodes begin so" if found else "no node of this network begins so"
        raise Failure(f"which node is {node}?", why, "clusterai node list", Exit.NOT_FOUND)
    (it,) = found
    if json:
        say.emit(it)
        return
    say.tell(f"{it.provider}  {it.state}")
    say.tell(
        f"stake {money(it.stake_wei)} x quality {it.quality:.2f} (ranks and routes; never lowers an audit rate)"
    )
    for line in it.explained:
        say.tell(f"  {line.value:.2f}  {line.name:<13} {line.found} [dim]({line.source})[/]")
        if line.cure:
            say.tell(f"        {'':<13} → {line.cure}")
