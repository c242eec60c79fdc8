"""`clusterai demo cheat`, `demo restore`: what happens to a provider that serves other weights than it is paid for."""

from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say

if TYPE_CHECKING:
    from clusterai.cli.local.folder import DataFolder


def join(app: typer.Typer) -> None:
    group = typer.Typer(help="See the network defend itself.", no_args_is_help=True)
    group.command()(cheat)
    group.command()(restore)
    app.add_typer(group, name="demo")


def cheat(
    data: options.Data = None,
    node: Annotated[
        str | None, typer.Option(help="Which node cheats. Default: the last honest one.", show_default=False)
    ] = None,
    job: Annotated[
        bool,
        typer.Option(
            "--job", help="It lies about a job, not about a model. Takes 3 validators: up --validators 4."
        ),
    ] = False,
    how: Annotated[str, typer.Option(help="How its weights are altered: q4_0, q3 or noise.")] = "q3",
    deadline: Annotated[int, typer.Option(metavar="SECONDS", min=10, help="Give up after so long.")] = 180,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    dry_run: options.DryRun = False,
) -> int:
    """Swap the weights of one local provider for altered ones, send it work, and watch it be caught.

    With --job it claims a wrong result of a job instead, and defends that in a dispute. Its stake is slashed, its unsettled pay forfeited, the requester refunded. Exit code 6: it wasn't caught in time.
    """
    from clusterai.cli.local import cheating

    folder = options.folder(data)
    if job:
        return _lie(folder, node, deadline, yes, json, dry_run)
    plan = cheating.choose(folder, node, how)
    if dry_run:
        say.say(
            f"would make {plan.node} serve {plan.altered} as {plan.model}, and send it work until it is convicted"
        )
        return 0
    if not json:
        say.say(f"[bold]{plan.node}[/] will lose its stake, for good, on this local chain.")
    options.confirm("Go on?", yes or json)
    return cheating.run(folder, plan, deadline, json)


def _lie(folder: "DataFolder", node: str | None, deadline: int, yes: bool, json: bool, dry_run: bool) -> int:
    from clusterai.cli.local import lying

    plan = lying.choose(folder, node)
    if dry_run:
        say.say(f"would make {plan.node} claim a wrong result of a job, and watch it lose the dispute")
        return 0
    if not json:
        say.say(f"[bold]{plan.node}[/] will lose its stake, for good, on this local chain.")
    options.confirm("Go on?", yes or json)
    return lying.run(folder, plan, deadline, json)


def restore(
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    yes: options.Yes = False,
) -> None:
    """Give convicted nodes honest weights again, and new identities: the old ones stay barred."""
    from clusterai.cli.local import cheating

    restored = cheating.restore(options.folder(data))
    if json:
        say.emit({"restored": restored})
    elif restored:
        say.tell(f"{', '.join(restored)} serve again, under new identities with new stakes")
    else:
        say.tell("no node cheats or is barred")
