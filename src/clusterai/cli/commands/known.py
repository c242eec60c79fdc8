"""`clusterai data known`: whose vaults and data sets this identity's names mean."""

from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.identity import IdentityFile


def known(
    forget: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Let this name mean whoever has it when it is used next. Do that when you know why it changed hands.",
            show_default=False,
        ),
    ] = None,
    identity: IdentityFile = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List whose data each name means: the owner under whom it was met first, on each network."""
    from clusterai.cli.names import Names, known_at

    names = Names(known_at(identity))
    if forget is not None and not names.forget(forget.lower()):
        raise Failure(f"no name {forget} is known", next="clusterai data known", code=Exit.NOT_FOUND)
    found = names.all()
    if json:
        say.emit({"known": found})
        return
    say.table(("name", "owner", "network"), [(it.name, it.owner, it.network) for it in found])
