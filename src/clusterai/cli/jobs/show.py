"""Plans, jobs and audits as people read them."""

import time
from collections.abc import Sequence
from typing import Any

from clusterai.cli import say
from clusterai.protocol.money import show as money
from clusterai.protocol.units import show_duration, show_size
from clusterai.sdk.jobshapes import Job, JobAudit, Plan, Task, Verification
from clusterai.work.batch.core.prices import least_wei
from clusterai.work.batch.core.request import Unhonoured
from clusterai.work.batch.spec import JobArray, JobSpec

MEANING = {
    "waiting": "no provider has it yet",
    "placed": "its lease is open on chain",
    "running": "its provider is at work",
    "committed": "it is done, and its digests are on chain; the beacon decides what is run again",
    "verified": "nothing was found within the window",
    "closed": "it is over",
}


def plan_as_json(plan: Plan, unhonoured: Sequence[Unhonoured], skipped: Sequence[str]) -> dict[str, Any]:
    return {"plan": plan, "unhonoured": list(unhonoured), "skipped": list(skipped)}


def job(
    array: JobArray, replicas: int, unhonoured: Sequence[Unhonoured], skipped: Sequence[str], source: str
) -> None:
    """What will be run; what of it is left out comes before what it costs."""
    spec = array.job
    wants = spec.resources
    size = [
        f"{wants.cpu_milli / 1000:g} core{'s' if wants.cpu_milli != 1000 else ''}",
        show_size(wants.memory_bytes),
        f"{show_size(wants.disk_bytes)} disk",
        show_duration(wants.time_s),
    ]
    if wants.gpus:
        size.append(f"{wants.gpus} x {wants.gpu or 'GPU'}")
    many = f", {len(array)} tasks" if len(array) > 1 else ""
    many += f", {replicas} replicas" if replicas > 1 else ""
    say.tell(f"[bold]{spec.name}[/bold]  {spec.check}{many}  ({', '.join(size)})")
    if unhonoured:
        say.tell(f"\nnot as {source} says:")
        say.table(("#line", "what", "why"), [(it.line, it.what, it.why) for it in unhonoured])
    if skipped:
        shown = ", ".join(skipped[:8]) + (f" and {len(skipped) - 8} more" if len(skipped) > 8 else "")
        say.tell(f"\nfiles left out: {shown}")


def promise(found: Verification) -> None:
    say.tell(f"\nverified   {found.promise}")
    for limit in found.limits:
        say.tell(f"           {limit}")


def plan(plan: Plan, spec: JobSpec) -> None:
    """Who could run it and who won't, how it is verified, what it costs."""
    if plan.candidates:
        say.tell()
        say.table(
            (
                "provider",
                "#an hour",
                "#at most",
                "#auditor",
                "#done in",
                "#queue",
                "#at stake",
                "#run again",
                "#a cheat gains",
            ),
            [
                (
                    it.provider if len(it.provider) < 16 else it.provider[:14] + "…",
                    money(it.hourly_wei),
                    money(it.total_wei),
                    money(it.audit_fee_wei),
                    show_duration(it.eta_s),
                    it.queue,
                    money(it.stake_wei),
                    f"{it.audit_rate_ppm / 10_000:.3g} %" if spec.check != "unverified" else "-",
                    money(it.cheat_gain_wei) if spec.check != "unverified" else "-",
                )
                for it in plan.candidates[:10]
            ],
        )
    if plan.refused:
        say.tell("\nwon't run it:")
        say.table(
            ("provider", "reason", "why"),
            [
                (refusing.provider[:14] + "…" if at == 0 else "", reason.code, reason.why)
                for refusing in plan.refused[:10]
                for at, reason in enumerate(refusing.reasons)
            ],
        )
    promise(plan.verification)
    if plan.placed:
        say.tell(
            f"in all     {money(plan.total_wei)} at most and {money(least_wei(plan.total_wei))} at least for {plan.leases} lease{'s' if plan.leases > 1 else ''}, "
            f"and {money(plan.audit_fee_wei)} set aside for auditors ({plan.numbers.get('total_wei', 'claimed')}); "
            f"done in {show_duration(plan.eta_s)} at most"
        )
        return
    say.tell("[red]can't be placed[/red]: " + "; ".join(f"{it.code} ({it.why})" for it in plan.reasons))
    if plan.relaxation is not None:
        changes = ", ".join(plan.relaxation.changes)
        say.tell(
            f"could be   with {changes}: {plan.relaxation.provider[:14]}… for {money(plan.relaxation.total_wei)}"
        )


def state(task: Task) -> str:
    if task.reason is not None:
        return f"closed: {task.reason}"
    return f"{task.state} {task.segment}/{task.segments}" if task.state == "running" else task.state


def listed(found: Sequence[Job]) -> None:
    say.table(
        ("job", "name", "class", "state", "#tasks", "#paid", "when"),
        [
            (
                it.id[:18],
                it.name,
                it.check,
                state(it.tasks[0]) if len(it.tasks) == 1 else it.state,
                len(it.tasks),
                money(sum(task.paid_wei for task in it.tasks)),
                _when(it.created_s),
            )
            for it in found
        ],
    )


def receipt(job: Job) -> None:
    """What a job did and cost: its receipt."""
    label = job.numbers.get
    paid, back = sum(it.paid_wei for it in job.tasks), sum(it.refunded_wei for it in job.tasks)
    rows: list[tuple[str, object]] = [
        ("job", job.id),
        ("name", f"{job.name}  ({job.check})"),
        ("state", f"{job.state}: {_meaning(job)}"),
        ("begun", _when(job.created_s)),
        ("paid", f"{money(paid)} ({label('paid_wei', 'settled')})"),
    ]
    if back:
        rows.append(("refunded", f"{money(back)} ({label('refunded_wei', 'settled')})"))
    if job.held_wei:
        rows.append(("set aside", f"{money(job.held_wei)} ({label('held_wei', 'claimed')})"))
    if job.deadline_s is not None:
        rows.append(("deadline", _when(job.deadline_s)))
    if len(job.tasks) == 1:
        rows += task_rows(job.tasks[0], job.check)
        say.pairs(rows)
        return
    say.pairs(rows)
    say.tell()
    say.table(
        ("#task", "#replica", "state", "provider", "#code", "#paid", "lease", "outputs"),
        [
            (
                it.task,
                it.replica,
                state(it),
                it.provider[:14],
                "" if it.exit_code is None else it.exit_code,
                money(it.paid_wei),
                it.lease[:14],
                it.output[:14],
            )
            for it in job.tasks
        ],
    )


def _meaning(job: Job) -> str:
    if job.check == "unverified" and job.state in ("committed", "verified"):
        return "it is done; nobody can tell whether it was done right"
    return MEANING[job.state]


def task_rows(task: Task, check: str) -> list[tuple[str, object]]:
    fuel = f"; {task.units} fuel" if check == "wasm" and task.units else ""
    found: list[tuple[str, object]] = [
        ("work digest", task.spec),
        ("provider", task.provider or "none yet"),
        ("lease", task.lease or "none yet"),
        ("segments", f"{task.segment} of {task.segments}{fuel}"),
        (
            "price",
            (
                f"{money(task.total_wei)} at most, {money(least_wei(task.total_wei))} at least once it is done, "
                f"{money(task.audit_fee_wei)} set aside for an auditor"
            ),
        ),
    ]
    if task.exit_code is not None:
        found.append(("exit code", task.exit_code))
    if task.output:
        found.append(("outputs", task.output))
    if task.reason is not None or task.why:
        why = "" if task.reason and task.why.upper() == task.reason else task.why
        found.append(("closed" if task.reason else "ended", f"{task.reason or ''} {why}".strip()))
    return found


def audit(found: JobAudit) -> None:
    """The whole story of each lease, in the order of the chain."""
    for at, lease in enumerate(found.leases):
        if at:
            say.tell()
        drawn = (
            f"segment {lease.segment}"
            if lease.audited
            else "nothing"
            if lease.audited is False or lease.reason
            else "not known yet"
        )
        known = lease.root or not lease.reason
        say.pairs(
            [
                ("lease", lease.lease),
                ("task", f"{lease.task}, replica {lease.replica}"),
                ("provider", lease.provider),
                ("class", f"{lease.check}, {lease.segments} segments"),
                ("commitment", lease.root or ("none yet" if known else "none")),
                ("beacon", lease.beacon or ("not known yet" if known else "not needed")),
                ("drawn", f"{drawn} (with probability {lease.rate_ppm / 10_000:.3g} %)" if known else drawn),
                ("verdict", lease.verdict),
                *([("closed", lease.reason)] if lease.reason else []),
            ]
        )
        if lease.steps:
            say.table(
                ("when", "#block", "what", "by", "detail"),
                [
                    (_when(it.at_s), it.block, it.what.replace("_", " "), it.by[:14], _detail(it.detail))
                    for it in lease.steps
                ],
            )


def _detail(detail: dict[str, Any]) -> str:
    return " ".join(f"{name}={str(value)[:18]}" for name, value in detail.items())


def _when(at_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))
