"""`clusterai run`: a job file, a module or a command becomes a job: plan, question, logs, outputs, receipt."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.reach import gateway

if TYPE_CHECKING:
    from clusterai.cli.jobs.wanted import Wanted
    from clusterai.sandbox import BlobStore
    from clusterai.sdk.jobs import Jobs
    from clusterai.sdk.jobshapes import Job, JobRequest, Plan
    from clusterai.work.batch.adapters.gather import Gathered

SERVERS = 500
"""A status from here on says nothing of what was asked."""

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="JOB…",
        help="job.yaml (ours, SkyPilot's, dstack's or Akash's), module.wasm with arguments, or -- and a command.",
        show_default=False,
    ),
]


def join(app: typer.Typer) -> None:
    app.command()(run)


def run(
    words: Words = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run it in the sandbox on this machine: try it here first.")
    ] = False,
    dry_run: options.DryRun = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Submit it, print its id, and don't wait.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until every lease is closed: drawn or not, audited, and paid."),
    ] = False,
    yes: options.Yes = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where outputs go. Default: NAME-ID here.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The job's name.", show_default=False)
    ] = None,
    check: Annotated[
        str | None,
        typer.Option("--class", metavar="CLASS", help="wasm, pinned or unverified.", show_default=False),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="A base, tar:0x…, or NAME@sha256:….", show_default=False),
    ] = None,
    workdir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Laid into the work folder. Default for a command: this folder.",
            show_default=False,
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="A variable; no secrets.", show_default=False),
    ] = None,
    cpus: Annotated[
        str | None, typer.Option(metavar="N", help="Cores, such as 2 or 500m.", show_default=False)
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Such as 512MB.", show_default=False)
    ] = None,
    disk: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of the work folder.", show_default=False)
    ] = None,
    longest: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="TIME",
            help="The longest that it may run; the price is for it.",
            show_default=False,
        ),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="GPU", help="Such as H100:2.", show_default=False)
    ] = None,
    segments: Annotated[
        int | None, typer.Option(min=1, help="The most segments it makes.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Its chance; drawn where not given.", show_default=False)
    ] = None,
    max_price: Annotated[
        str | None,
        typer.Option(metavar="CLAI", help="The most for one lease, auditor included.", show_default=False),
    ] = None,
    max_hourly: Annotated[
        str | None, typer.Option(metavar="CLAI", help="The most for an hour of it.", show_default=False)
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Done within this time, such as 2h.", show_default=False),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, max=16, help="So many providers do the same.", show_default=False)
    ] = None,
    retry: Annotated[
        int | None,
        typer.Option(
            "--retry", min=0, max=10, help="Try again so often when a provider fails.", show_default=False
        ),
    ] = None,
    retry_until_placed: Annotated[
        bool, typer.Option("--retry-until-placed", help="Wait for a provider instead of giving up.")
    ] = False,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Run a job: show the plan, ask, follow it, fetch and verify its outputs, print the receipt.

    `clusterai run job.yaml --dry-run` shows who could run it, for how much, how it would be verified, and what stands in the way.
    `clusterai run --local job.yaml` runs it here, and tells whether it is deterministic.
    """
    import msgspec

    from clusterai.cli.jobs import show, wanted
    from clusterai.cli.jobs.begun import Begun
    from clusterai.sandbox import BlobStore
    from clusterai.sdk import ApiError

    flags = wanted.Flags(
        name=name,
        check=check,
        image=image,
        workdir=workdir,
        env=tuple(env or ()),
        cpus=cpus,
        memory=memory,
        disk=disk,
        time=longest,
        gpu=gpu,
        segments=segments,
        seed=seed,
        max_price=max_price,
        max_hourly=max_hourly,
        deadline=deadline,
        replicas=replicas,
        retries=retry,
        retry_until_placed=retry_until_placed,
    )
    asked = wanted.read(words or [], flags)
    cache = wanted.cache()
    gathered = wanted.gathered(asked, cache / "content")
    store = BlobStore(cache / "content")
    if local:
        return _here(asked, gathered, store, cache, output, dry_run, json)
    with gateway(data) as client:
        from clusterai.sdk.jobs import Jobs

        jobs = Jobs(client)
        request = _request(asked, gathered)
        with Begun(
            cache / "begun", client.base_url, gathered.array, request, asked.request.seed is None
        ) as begun:
            array = begun.taken_up(gathered.array)
            gathered = msgspec.structs.replace(gathered, array=array)
            request = _request(asked, gathered)
            plan = jobs.plan(request)
            if dry_run and json:
                say.emit(show.plan_as_json(plan, asked.request.unhonoured, gathered.skipped))
            elif not json:
                replicas = asked.request.wishes.replicas
                show.job(array, replicas, asked.request.unhonoured, gathered.skipped, asked.source)
                show.plan(plan, array.job)
            if dry_run:
                return Exit.OK if plan.placed else Exit.FAILED
            if begun.before is not None and begun.before.job:
                _tell_before(jobs, begun.before.job)
            _ask(request, plan, yes)
            _upload(jobs, gathered, store)
            begun.note(array)
            try:
                job = jobs.submit(request, "0x" + array.digest().hex())
            except ApiError as error:
                if error.status < SERVERS:
                    begun.forget()
                raise
            begun.note(array, job.id)
            if not plan.placed:
                say.say("it waits at the gateway for a provider, whether or not this terminal stays open")
            if detach:
                return _detached(job, json)
            code = _followed(jobs, job, store, output, json, wait)
            if code != Exit.INTERRUPTED:
                begun.forget()
            return code


def _request(asked: "Wanted", gathered: "Gathered") -> "JobRequest":
    from clusterai.sdk.jobshapes import JobRequest, packed

    wishes = asked.request.wishes
    return JobRequest(
        job=packed(gathered.array.canonical()),
        max_price_wei=wishes.max_price_wei,
        max_hourly_wei=wishes.max_hourly_wei,
        deadline_s=wishes.deadline_s,
        replicas=wishes.replicas,
        retries=wishes.retries,
        retry_until_placed=wishes.retry_until_placed,
    )


def _tell_before(jobs: "Jobs", job_id: str) -> None:
    """A run like this one ended before it had its outputs: what became of its job."""
    from clusterai.cli.jobs.follow import has_results
    from clusterai.sdk import ApiError

    try:
        job = jobs.show(job_id)
    except ApiError:
        return
    if not has_results(job):
        say.say(f"the same job is on its way already ({job.state}):  clusterai jobs logs {job_id}")
    elif any(task.output for task in job.tasks):
        say.say(f"the same job was done before; its outputs:  clusterai jobs fetch {job_id}")


def _ask(request: "JobRequest", plan: "Plan", yes: bool) -> None:
    """Raises: Failure, nobody can take it and nobody wants to wait."""
    from clusterai.protocol.money import show as money

    if plan.placed:
        options.confirm(f"Run it for at most {money(plan.total_wei + plan.audit_fee_wei)}?", yes)
        return
    if request.retry_until_placed:
        # The gateway waits, so that closing this terminal doesn't end the waiting.
        cap = (
            f"{money(request.max_price_wei)} a lease"
            if request.max_price_wei
            else "whatever it asks (no --max-price)"
        )
        options.confirm(f"Nobody can take it now. Wait for a provider, at {cap}?", yes)
        return
    reasons = "; ".join(f"{it.code}: {it.why}" for it in plan.reasons)
    cure = "--retry-until-placed waits for a provider"
    if plan.relaxation is not None:
        cure = f"with {', '.join(plan.relaxation.changes)} it could be; or --retry-until-placed"
    raise Failure("nobody can take this job now", reasons, cure)


def _upload(jobs: "Jobs", gathered: "Gathered", store: "BlobStore") -> None:
    from clusterai.cli.jobs import carry
    from clusterai.cli.jobs.follow import Bar
    from clusterai.work.batch.adapters.gather import contents

    wanted = contents(gathered.array, store)
    with Bar("sending inputs", sum(size for _, size in wanted), "bytes") as bar:
        carry.upload(jobs, wanted, store, bar.advance)


def _detached(job: "Job", json: bool) -> int:
    if json:
        say.emit(job)
    else:
        say.tell(job.id)
        say.say(f"follow it:  clusterai jobs logs {job.id}")
    return Exit.OK


def _followed(
    jobs: "Jobs", job: "Job", store: "BlobStore", output: Path | None, json: bool, wait: bool
) -> int:
    from clusterai.cli.jobs import follow, show
    from clusterai.sdk import ApiError, Unreachable

    say.say(f"job {job.id}")
    try:
        follow.follow(jobs, job, json, until_closed=wait)
        job = jobs.show(job.id)
        fetched = fetch(jobs, job, store, output)
    except KeyboardInterrupt:
        say.say(
            f"\nit goes on without you:  clusterai jobs logs {job.id}\nend it:  clusterai jobs cancel {job.id}"
        )
        return Exit.INTERRUPTED
    except (Unreachable, ApiError):
        say.say(f"\nit goes on without you; when the gateway is well:  clusterai jobs fetch {job.id}")
        raise
    if json:
        say.emit({"job": job, "outputs": fetched})
    else:
        say.tell()
        show.receipt(job)
        for place in fetched.values():
            say.tell(f"outputs in {place}, each file checked against its address")
        say.say(f"\nhow it is verified:  clusterai job verify {job.id}")
    return Exit.OK if job.tasks and all(task.exit_code == 0 for task in job.tasks) else Exit.FAILED


def fetch(jobs: "Jobs", job: "Job", store: "BlobStore", output: Path | None) -> dict[str, str]:
    """All outputs that are there: task to folder. Of replicas the first one's; that they are equal is checked.

    Raises:
        Failure: exit code 6, content or replicas that differ.
    """
    from clusterai.cli.jobs import carry
    from clusterai.cli.jobs.follow import Bar

    found: dict[str, str] = {}
    chosen: dict[int, str] = {}
    for task in job.tasks:
        if not task.output:
            continue
        if chosen.setdefault(task.task, task.output) != task.output and job.check != "unverified":
            raise Failure(
                f"replicas of task {task.task} have different outputs",
                f"{chosen[task.task]} and {task.output}",
                f"clusterai job verify {job.id}",
                Exit.UNTRUE,
            )
    base = output or Path(f"{job.name}-{job.id.removeprefix('0x')[:8]}")
    many = len({task.task for task in job.tasks}) > 1
    with Bar("fetching outputs", len(chosen)) as bar:
        for task, listing in chosen.items():
            tree = carry.download(jobs, listing, store, lambda _: None)
            target = base / f"{task:04}" if many else base
            carry.write(tree, store, target)
            found[str(task)] = str(target)
            bar.advance(1)
    return found


def _here(
    asked: "Wanted",
    gathered: "Gathered",
    store: "BlobStore",
    cache: Path,
    output: Path | None,
    dry_run: bool,
    json: bool,
) -> int:
    from clusterai.cli.jobs import here, show

    array = gathered.array
    plan = here.plan_here(array)
    if dry_run and json:
        say.emit(show.plan_as_json(plan, asked.request.unhonoured, gathered.skipped))
    elif not json and (dry_run or asked.request.unhonoured or gathered.skipped):
        show.job(array, 1, asked.request.unhonoured, gathered.skipped, asked.source)
        show.promise(plan.verification)
        say.tell()
    if dry_run and plan.placed:
        return Exit.OK
    if not plan.placed:
        raise here.refuse(plan)
    target = output or Path(f"{array.job.name}-local")
    ran = here.run(array, store, cache, target, json)
    if json:
        tasks: list[Any] = ran
        say.emit({"job": "0x" + array.digest().hex(), "tasks": tasks})
    elif len(ran) == 1:
        say.tell()
        here.tell(array.job, ran[0])
    else:
        rows = [(it.task, it.ended, it.why, it.audit.verdict if it.audit else "-", it.folder) for it in ran]
        say.table(("#task", "ended", "why", "audit", "outputs"), rows)
    return here.code(ran)
