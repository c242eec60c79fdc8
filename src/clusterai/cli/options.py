"""Options that mean the same in every command."""

from pathlib import Path
from typing import Annotated

import typer

from clusterai.cli import say
from clusterai.cli.local.folder import DataFolder
from clusterai.cli.settings import default_data

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="CLUSTERAI_DATA",
        metavar="DIR",
        help="Folder of the network. Default: clusterai/local in your data folder.",
        show_default=False,
    ),
]
Network = Annotated[
    Path | None,
    typer.Option(
        "--network",
        envvar="CLUSTERAI_NETWORK",
        metavar="FILE",
        help="The network's manifest, from somebody else than the gateway: by it the chain is asked whose data this is. Default: that of this "
        "machine's network.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON on stdout.")]


def _hush(on: bool) -> bool:
    say.be_quiet(on)
    return on


Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print the answer alone.", callback=_hush),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask; go on.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def folder(data: Path | None) -> DataFolder:
    return DataFolder(data or default_data())


def confirm(question: str, yes: bool) -> None:
    """Ask, unless told `--yes`.

    Raises:
        typer.Abort: the person said no, or nobody is there to ask.
    """
    if not yes:
        typer.confirm(question, abort=True, err=True)
