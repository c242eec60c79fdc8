"""The program `clusterai`: commands by noun and verb, and what happens when one fails.

Modules of commands import typer and this room's light modules only; what costs time to import is imported by the
function that needs it, so that `clusterai --help` answers within 0.2 s.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clusterai.cli import say, settings
from clusterai.cli.commands import (
    account,
    anonymise,
    audit,
    data,
    demo,
    infer,
    jobs,
    model,
    network,
    node,
    offers,
    query,
    receipt,
    rent,
    sim,
    stake,
    top,
    train,
    vault,
    version,
)
from clusterai.cli.commands import run as run_job
from clusterai.cli.failure import Exit, Failure

app = typer.Typer(
    name="clusterai",
    help="One AI cloud out of machines that belong to people who don't trust each other.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (
    network,
    run_job,
    jobs,
    receipt,
    audit,
    node,
    offers,
    rent,
    infer,
    train,
    query,
    data,
    account,
    stake,
    model,
    vault,
    sim,
    top,
    demo,
    anonymise,
    version,
):
    part.join(app)


@app.callback()
def root(
    ctx: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=version.show)
    ] = False,
) -> None:
    group = ctx.command
    assert isinstance(group, TyperGroup), "the root has commands"
    ctx.default_map = settings.load(_names(group))


def _names(group: TyperGroup) -> dict[str, Any]:
    return {
        name: _names(command) if isinstance(command, TyperGroup) else {}
        for name, command in group.commands.items()
    }


def main() -> None:
    """Exit codes are `failure.Exit`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    try:
        code = app(arguments, standalone_mode=False)
    except Failure as failure:
        say.complain("\n".join(failure.lines()))
        return failure.code
    except typer.Abort:
        say.complain("stopped; nothing was changed")
        return Exit.INTERRUPTED
    except typer.TyperException as error:
        # A wrong command line; typer keeps the class that can show itself to itself.
        show = getattr(error, "show", None)
        show() if show else say.complain(f"error: {error}")
        return int(getattr(error, "exit_code", Exit.USAGE))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`head`) had enough.
        sys.stdout = None
        return Exit.OK
    return code if isinstance(code, int) else Exit.OK
