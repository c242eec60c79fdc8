"""`clusterai top`: a network, live."""

from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.reach import gateway


def join(app: typer.Typer) -> None:
    app.command()(top)


def top(
    data: options.Data = None,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.2, help="Time between looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    json: options.Json = False,
) -> None:
    """Watch a network: nodes, money, audits and what just happened. Ctrl-C ends it; one picture where no terminal is."""
    from clusterai.cli import live

    with gateway(data) as client:
        if json:
            say.emit(live.look(client))
        elif once or not say.person(stream=say.stdout()):
            say.console().print(live.draw(live.look(client), say.console().height))
        else:
            live.watch(client, every)
