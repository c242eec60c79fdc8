"""`clusterai jobs [show|logs|fetch|cancel]`, `clusterai job verify`: what became of jobs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.reach import gateway

if TYPE_CHECKING:
    from clusterai.sdk.jobs import Jobs

WHOLE = 66
SHORTEST = 4
JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, or how it begins.", show_default=False)]


def join(app: typer.Typer) -> None:
    group = typer.Typer(help="List and steer jobs.", invoke_without_command=True)
    group.callback()(list_jobs)
    group.command()(show)
    group.command()(logs)
    group.command()(fetch)
    group.command()(cancel)
    app.add_typer(group, name="jobs")
    one = typer.Typer(help="Look behind one job.", no_args_is_help=True)
    one.command()(verify)
    app.add_typer(one, name="job")


def list_jobs(
    ctx: typer.Context,
    data: options.Data = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, newest first.")] = 20,
    page: Annotated[
        str, typer.Option(metavar="NEXT", help="Go on behind the list that said this.", show_default=False)
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="All that the gateway still knows.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List this account's jobs, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    from clusterai.cli.jobs import show as told
    from clusterai.sdk.jobs import Jobs

    with gateway(data) as client:
        if every:
            found, rest = [*Jobs(client).all()], ""
        else:
            listed = Jobs(client).list(limit, page)
            found, rest = listed.jobs, listed.next
    if json:
        say.emit({"jobs": found, "next": rest})
        return
    told.listed(found)
    if rest:
        say.tell(f"older ones: clusterai jobs --page {rest}, or --all")


def _whole(jobs: "Jobs", text: str) -> str:
    """The id that somebody means by how it begins, as a list shows it.

    Raises:
        Failure: none begins so, or several do.
    """
    begin = text.lower().rstrip("…")
    if len(begin) == WHOLE:
        return begin
    found = [job.id for job in jobs.all() if job.id.startswith(begin)] if len(begin) >= SHORTEST else []
    if len(found) != 1:
        why = f"{len(found) or 'no'} jobs begin with {text}" if len(begin) >= SHORTEST else f"{text} is no id"
        raise Failure(why, next="clusterai jobs", code=Exit.NOT_FOUND)
    return found[0]


def show(
    job_id: JobId, data: options.Data = None, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Show one job: where each task is, what it cost, and why it ended."""
    from clusterai.cli.jobs import show as told
    from clusterai.sdk.jobs import Jobs

    with gateway(data, lists="clusterai jobs") as client:
        jobs = Jobs(client)
        job = jobs.show(_whole(jobs, job_id))
    if json:
        say.emit(job)
    else:
        told.receipt(job)


def logs(
    job_id: JobId,
    after: Annotated[int, typer.Option(min=0, help="Only events after this number.")] = 0,
    data: options.Data = None,
    quiet: options.Quiet = False,
) -> int:
    """Print a job's logs as they come, until nothing of it runs any more."""
    from clusterai.cli.jobs.follow import follow
    from clusterai.sdk.jobs import Jobs

    with gateway(data, lists="clusterai jobs") as client:
        jobs = Jobs(client)
        job = jobs.show(_whole(jobs, job_id))
        try:
            follow(jobs, job, quiet_logs=False, after=after)
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
    return Exit.OK


def fetch(
    job_id: JobId,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to. Default: NAME-ID here.", show_default=False
        ),
    ] = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fetch a job's outputs, each file checked against its address."""
    from clusterai.cli.commands.run import fetch as fetch_all
    from clusterai.cli.jobs.wanted import cache
    from clusterai.sandbox import BlobStore
    from clusterai.sdk.jobs import Jobs

    with gateway(data, lists="clusterai jobs") as client:
        jobs = Jobs(client)
        job = jobs.show(_whole(jobs, job_id))
        found = fetch_all(jobs, job, BlobStore(cache() / "content"), output)
    if json:
        say.emit({"outputs": found})
    elif not found:
        reasons = sorted({task.reason for task in job.tasks if task.reason})
        say.tell(f"no outputs: closed, {', '.join(reasons)}" if job.state == "closed" else "no outputs yet")
    else:
        for place in found.values():
            say.tell(place)


def cancel(
    job_id: JobId,
    yes: options.Yes = False,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """End a job. Before a provider began it costs nothing; after that the time that it took."""
    from clusterai.cli.jobs import show as told
    from clusterai.sdk.jobs import Jobs

    with gateway(data, lists="clusterai jobs") as client:
        jobs = Jobs(client)
        job = jobs.show(_whole(jobs, job_id))
        options.confirm(f"End job {job.id[:18]}… ({job.name}, {job.state})?", yes)
        job = jobs.cancel(job.id)
    if json:
        say.emit(job)
        return
    told.receipt(job)
    if job.state != "closed":
        say.say(
            f"\nit ends when its lease is closed on chain, in seconds:  clusterai jobs show {job.id[:18]}"
        )


def verify(
    job_id: JobId, data: options.Data = None, json: options.Json = False, quiet: options.Quiet = False
) -> int:
    """Show a job's whole audit: commitment, beacon, draw, segment, auditor, result, and every move of a dispute."""
    from clusterai.cli.jobs import show as told
    from clusterai.sdk.jobs import Jobs

    with gateway(data, lists="clusterai jobs") as client:
        jobs = Jobs(client)
        found = jobs.audit(_whole(jobs, job_id))
    if json:
        say.emit(found)
    else:
        told.audit(found)
    return Exit.UNTRUE if any(lease.verdict in ("fraud", "withheld") for lease in found.leases) else Exit.OK
