"""Jobs and their audits as clients are told of them; the shapes are `sdk.jobshapes`."""

from typing import Any, cast

from clusterai.gateway.adapters.jobs.leasing import Happened, Leasing
from clusterai.gateway.core import jobstate
from clusterai.gateway.core.jobstate import Slot
from clusterai.ledger.core import events
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, checksummed, hex0x
from clusterai.protocol.leases import CloseReason, DemandOutcome, DisputeReason
from clusterai.sdk.jobshapes import Deed, Job, JobAudit, LeaseAudit, Step, Task, TaskState

_ORDER: tuple[TaskState, ...] = ("waiting", "placed", "running", "committed", "verified", "closed")


def job(it: jobstate.Job) -> Job:
    tasks = [_task(it, slot) for slot in it.slots]
    return Job(
        id=hex0x(it.id),
        name=it.array.job.name,
        check=it.array.job.check,
        state=_ORDER[min(_ORDER.index(task.state) for task in tasks)],
        created_s=it.at_s,
        tasks=tasks,
        held_wei=0 if it.ended else it.held_wei,
        deadline_s=it.wishes.deadline_s,
        numbers={"held_wei": "measured"},
    )


def _task(job: jobstate.Job, slot: Slot) -> Task:
    terms, closed, came = slot.terms, slot.closed, slot.came
    reason = None if closed is None else CloseReason(closed.reason).name
    if slot.over and closed is None:
        # No lease of it was ever open, so no event says it; it ended for one of the same reasons.
        never = CloseReason.CANCELLED_BEFORE_START if job.cancelled else CloseReason.NOT_ACCEPTED
        reason = never.name
    settled = "settled" if closed is not None else "claimed"
    return Task(
        task=slot.task,
        replica=slot.replica,
        spec=hex0x(job.array.task(slot.task).digest()),
        state=slot.state,
        lease="" if slot.lease is None else hex0x(slot.lease),
        provider="" if terms is None else checksummed(Address(terms.provider)),
        attempt=slot.attempt,
        segment=slot.segment,
        segments=job.array.job.segments if terms is None else terms.segments,
        units=slot.units,
        total_wei=0 if terms is None else terms.compensation_wei,
        audit_fee_wei=0 if terms is None else terms.audit_fee_wei,
        paid_wei=0 if closed is None else closed.paid_wei,
        refunded_wei=0 if closed is None else closed.refunded_wei,
        output=hex0x(came.output) if came is not None and came.output and slot.here else "",
        exit_code=None if came is None or not came.output or came.exit_code < 0 else came.exit_code,
        reason=reason,
        why=slot.over or ("" if came is None else came.detail),
        numbers={"units": "claimed", "paid_wei": settled, "refunded_wei": settled},
    )


def audit(leasing: Leasing, it: jobstate.Job) -> JobAudit:
    found: list[LeaseAudit] = []
    for record in it.history:
        if isinstance(record, jobstate.Placed):
            lease = record.terms.lease_id(leasing.desk.terms.leases)
            slot = it.slots[record.slot]
            found.append(
                _lease(leasing, lease, it.array.job.check, slot.task, slot.replica, record.terms.provider)
            )
    return JobAudit(job=hex0x(it.id), leases=found)


def _lease(
    leasing: Leasing, lease: Digest, check: str, task: int, replica: int, provider: bytes
) -> LeaseAudit:
    told = leasing.chain.get(lease, [])
    found: dict[str, Any] = {"verdict": "unverified" if check == "unverified" else "pending"}
    segments = 0
    steps: list[Step] = []
    for happened in told:
        event: Any = happened.event
        match event:
            case events.LeaseCommitted(_, root, segments, output, _, _, round_number):
                found["root"], found["output"] = hex0x(root), hex0x(output)
                beacon = leasing.beacon(round_number)
                found["beacon"] = "" if beacon == ZERO_DIGEST else hex0x(beacon)
            case events.LeaseDrawn(_, _, audited, segment):
                found["audited"] = audited
                found["segment"] = segment if audited else 0
                if not audited:
                    found["verdict"] = "not drawn"
            case events.AuditMatched():
                found["verdict"] = "matched"
            case events.AuditContested():
                # Whether the second auditor agreed with the provider decides nothing.
                found["verdict"] = "pending"
            case events.DisputeEnded(_, winner, reason):
                upheld = winner == provider and reason != DisputeReason.UNDECIDED
                found["verdict"] = "matched" if upheld else "pending"
            case events.AuditResolved() if found["verdict"] == "pending":
                found["verdict"] = "unverified"
            case events.LeaseClosed(_, reason):
                name = CloseReason(reason).name
                found["reason"] = name
                found["verdict"] = {"FRAUD": "fraud", "WITHHELD": "withheld"}.get(name, found["verdict"])
                if "root" not in found:
                    # Nothing was claimed, so there is nothing to find out.
                    found["verdict"] = "nothing claimed"
            case _:
                pass
        what = _DEEDS.get(cast("type", type(event)))
        if what is not None:
            steps.append(_step(what, happened))
    return LeaseAudit(
        lease=hex0x(lease),
        task=task,
        replica=replica,
        provider=checksummed(Address(provider)),
        check=check,
        segments=segments,
        rate_ppm=leasing.rates.get(lease, 0),
        steps=steps,
        numbers={"segments": "settled"},
        **found,
    )


_DEEDS: dict[type, Deed] = {
    events.LeaseOpened: "opened",
    events.LeaseAccepted: "accepted",
    events.LeaseCommitted: "committed",
    events.LeaseDrawn: "drawn",
    events.AuditorDrawn: "auditor_drawn",
    events.AuditCommitted: "auditor_committed",
    events.SegmentShown: "segment_opened",
    events.AuditRevealed: "auditor_revealed",
    events.AuditMatched: "matched",
    events.AuditContested: "mismatched",
    events.AuditorSilent: "auditor_silent",
    events.WithheldReported: "withheld",
    events.DeliveryDemanded: "demanded",
    events.UndeliveredReported: "undelivered",
    events.DemandEnded: "demand_ended",
    events.DisputeOpened: "disputed",
    events.TraceAsserted: "trace",
    events.RangeSelected: "selected",
    events.RefereesDrawn: "referees_drawn",
    events.RefereeCommitted: "referee_committed",
    events.RefereesSealed: "referees_sealed",
    events.RefereeRevealed: "referee_revealed",
    events.DisputeEnded: "dispute_ended",
    events.Slashed: "slashed",
    events.LeaseClosed: "closed",
}


def _step(what: Deed, happened: Happened) -> Step:
    event = happened.event
    detail: dict[str, Any] = {}
    by = ""
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name in ("lease", "terms"):
            continue
        if name in (
            "auditor",
            "accuser",
            "referee",
            "member",
            "winner",
            "provider",
            "requester",
            "owner",
        ) and isinstance(value, bytes):
            by = by or checksummed(Address(value))
            continue
        if isinstance(value, tuple):
            detail[name] = [hex0x(one) for one in cast("tuple[bytes, ...]", value)]
            continue
        detail[name] = hex0x(value) if isinstance(value, bytes) else value
    if what == "closed":
        detail["reason"] = CloseReason(detail["reason"]).name
    elif what == "dispute_ended":
        detail["reason"] = DisputeReason(detail["reason"]).name
    elif what == "demand_ended":
        detail["outcome"] = DemandOutcome(detail["outcome"]).name
    return Step(what=what, at_s=happened.at_s, block=happened.block, by=by, detail=detail)
