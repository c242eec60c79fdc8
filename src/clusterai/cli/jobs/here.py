"""`clusterai run --local`: the same job in the same sandbox on this machine, with its commitment and an audit of one segment.

What runs here runs on the network: the same limits, the same folder, the same states. So this is also how to find out whether a
program is deterministic, how many segments it makes, and which digest its outputs have.
"""

import asyncio
import os
import secrets
import sys
from pathlib import Path

import msgspec

from clusterai.cli import say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.jobs import carry
from clusterai.cli.jobs.follow import Bar, print_log
from clusterai.protocol.ids import hex0x
from clusterai.protocol.units import show_duration
from clusterai.sandbox import BlobStore
from clusterai.sdk.jobshapes import Plan
from clusterai.work.batch.adapters.base import host_base
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core.outcome import Ended, Performed
from clusterai.work.batch.core.plan import Offer, plan, verification
from clusterai.work.batch.core.prices import Tariff
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import DAY_S, TIB, Check, JobArray, JobSpec

FREE = Tariff(core_hour_wei=0, memory_gib_hour_wei=0, disk_gib_hour_wei=0, gpu_hour_wei=0, giga_fuel_wei=0)


class Audited(msgspec.Struct, frozen=True):
    segment: int
    verdict: str
    why: str = ""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """One task that ran here."""

    task: int
    spec: str
    ended: Ended
    exit_code: int | None
    why: str
    segments: int
    units: int
    steps: int
    wall_ms: int
    cpu_ms: int
    root: str
    output: str
    outputs: dict[str, int]
    lost: tuple[str, ...]
    audit: Audited | None
    folder: str


def offer(check: Check) -> Offer:
    """This machine, for nothing."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Offer(
        provider="this machine",
        tariff=FREE,
        checks=(check,),
        bases=(("python", host_base().digest()),),
        forms=("wasm", "tar", "oci"),
        cpu_milli=1000 * (os.cpu_count() or 1),
        memory_bytes=memory,
        disk_bytes=TIB,
        processes=32_768,
        most_time_s=30 * DAY_S,
    )


def plan_here(array: JobArray) -> Plan:
    """Whether this machine can; market, deadline and stake don't matter."""
    found = plan(array, Wishes(), [offer(array.job.check)])
    return msgspec.structs.replace(found, verification=verification(array.job, None, 1))


def run(array: JobArray, store: BlobStore, folder: Path, output: Path, as_json: bool) -> list[Ran]:
    """Every task, one after the other."""
    performer = Performer(store, folder)
    found: list[Ran] = []
    for at in range(len(array)):
        spec = array.task(at)
        target = output / f"{at:04}" if array.tasks else output
        found.append(asyncio.run(_one(performer, spec, at, len(array), target, as_json)))
    return found


async def _one(performer: Performer, spec: JobSpec, at: int, tasks: int, target: Path, as_json: bool) -> Ran:
    what = f"{spec.name} {at + 1}/{tasks}" if tasks > 1 else spec.name
    with Bar(what, spec.segments) as bar:
        done = await performer.perform(
            spec,
            self_checks=0,
            on_log=lambda stream, data: print_log(
                data, sys.stdout if stream == "stdout" and not as_json else sys.stderr
            ),
            on_segment=lambda segment, _: bar.at(segment),
        )
        audited = await _audit(performer, spec, done, bar) if done.is_payable else None
    performer.forget(spec)
    if done.output.entries:
        carry.write(done.output, performer.store, target)
    return Ran(
        task=at,
        spec=hex0x(spec.digest()),
        ended=done.ended,
        exit_code=done.exit_code,
        why=done.why,
        segments=len(done.units),
        units=sum(done.units),
        steps=done.steps,
        wall_ms=done.wall_ms,
        cpu_ms=done.cpu_ms,
        root=hex0x(done.commitment().root) if done.is_payable else "",
        output=hex0x(done.output.digest()) if done.output.entries else "",
        outputs={entry.path: entry.size for entry in done.output.entries},
        lost=done.lost,
        audit=audited,
        folder=str(target) if done.output.entries else "",
    )


async def _audit(performer: Performer, spec: JobSpec, done: Performed, bar: Bar) -> Audited | None:
    """What an auditor would do if this segment were drawn."""
    if spec.check == "unverified":
        return None
    claim = done.commitment()
    j = 1 + secrets.randbelow(claim.segments)
    bar.at(bar.done, f"{spec.name}: segment {j} again")
    checked = await performer.check(
        spec, claim.root, claim.segments, claim.open(0), claim.open(j - 1), claim.open(j)
    )
    return Audited(j, checked.verdict, checked.why)


def tell(spec: JobSpec, ran: Ran) -> None:
    """What happened, and what would have been verified of it."""
    rows: list[tuple[str, object]] = [
        ("ended", f"{ran.ended}{f': {ran.why}' if ran.why else ''}"),
        (
            "time",
            f"{show_duration(ran.wall_ms / 1000)}, {show_duration(ran.cpu_ms / 1000)} of processor (measured)",
        ),
    ]
    if spec.check == "wasm":
        rows.append(("meter", f"{ran.units} fuel in {ran.segments} segments"))
    elif ran.segments:
        rows.append(("segments", f"{ran.segments} of {spec.segments}"))
    if ran.root and spec.check != "unverified":
        rows.append(("commitment", ran.root))
    if ran.output:
        files = ", ".join(list(ran.outputs)[:6]) + (
            f" and {len(ran.outputs) - 6} more" if len(ran.outputs) > 6 else ""
        )
        rows += [("outputs", f"{files}  in {ran.folder}"), ("their digest", ran.output)]
    if ran.lost:
        rows.append(("not kept", ", ".join(ran.lost[:6])))
    if ran.audit is not None:
        rows.append(("audit", f"segment {ran.audit.segment} was run again: {_verdict(ran.audit)}"))
    say.pairs(rows)


def _verdict(audited: Audited) -> str:
    if audited.verdict == "matched":
        return "the same state"
    if audited.verdict in ("differs", "units"):
        return (
            "another state, so this program isn't deterministic: seed what is random, and leave times and addresses out of what "
            "it writes, or make it `class: unverified`"
        )
    return f"{audited.verdict}: {audited.why}"


def code(ran: list[Ran]) -> Exit:
    """What a script is told."""
    if any(it.audit is not None and it.audit.verdict in ("differs", "units", "start") for it in ran):
        return Exit.UNTRUE
    return Exit.OK if all(it.ended is Ended.FINISHED for it in ran) else Exit.FAILED


def refuse(found: Plan) -> Failure:
    reasons = "; ".join(reason.why for refusing in found.refused for reason in refusing.reasons)
    return Failure("this machine can't run it", reasons, "ask for less, or leave --local out", Exit.FAILED)
