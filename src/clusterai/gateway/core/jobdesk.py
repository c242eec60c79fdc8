"""The gateway's desk for jobs: leases in its own name, on an account's credit, until each task has a result or a reason.

    Ask ─> OpenTab: credit ─> Placed ─> OpenLease ─> StartLease … accepted ─> Done ─> committed ─> Fetch ─> closed ─> Charged
        │            └ refused: the job is closed                  └ LeaseRefused: CancelLease, another provider
        └ nobody can take it now: waiting (retry_until_placed) or refused before anything began

Of a lease's money the gateway is the requester: it escrows its own tokens, holds as much of the account's credit, and charges what
the chain shows that the lease has cost. What was refunded on chain is not charged; so the account pays for work that was paid for.

A lease is named before it is opened (its id follows from its terms), so a crash in between opens it once: `Placed` is durable,
and `OpenLease` is asked for again under the same key until the chain shows the lease or refuses it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

from clusterai.gateway.core import jobdelivery
from clusterai.gateway.core.jobbait import Planting
from clusterai.gateway.core.jobdelivery import Delivering
from clusterai.gateway.core.jobplacing import KIND, Placing
from clusterai.gateway.core.jobretention import doomed
from clusterai.gateway.core.jobstate import (
    FAILED,
    Accepted,
    Answer,
    Ask,
    Came,
    Cancel,
    Cancelled,
    Closed,
    DeskRecord,
    DeskTerms,
    Fetch,
    Fetched,
    Forgotten,
    GaveUp,
    Held,
    Here,
    Job,
    Note,
    Over,
    Paid,
    Placed,
    Planted,
    Pruned,
    Slot,
    Uprooted,
)
from clusterai.gateway.core.tabs import ChargeTab, CloseTab, ItemPaid, OpenTab, TabIs
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Approve, Mined, Reverted, Submit
from clusterai.ledger.core.lease_calls import CancelLease, CloseLease, OpenLease
from clusterai.market.core.directory import Directory
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.jobs import Broken, Done, LeaseRefused, Lends, Logged, Progress, StartLease
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import CloseReason, Terms
from clusterai.runtime.core.asking import Asking
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.sdk.jobshapes import TaskState
from clusterai.work.batch.spec import JobSpec, decode_array

UNANSWERED_S = 60.0
"""After which a question to this very process is put again."""
START_EVERY_S = 3.0
UNLIMITED_WEI = 2**63 - 1
MOST_JOBS = 10_000
PRUNE_EVERY_S = 60.0


class JobDesk:
    """One gateway. See the module's docstring."""

    RECORDS = DeskRecord

    def __init__(self, terms: DeskTerms, directory: Directory, rows: Callable[[Address], int]) -> None:
        """
        Args:
            rows: audits in a row of a provider that matched, as the chain says.
        """
        self.terms = terms
        self.directory = directory
        self.jobs: dict[Digest, Job] = {}
        self.placing = Placing(terms, directory, rows)
        self.delivering = Delivering(terms, directory)
        self.planting = Planting(terms)
        self._by_lease: dict[Digest, tuple[Job, Slot]] = {}
        self._asking = Asking()
        self._approved = False
        self._is_live = False
        """the chain's past has been read: what is asked of it now is asked of its present"""
        self._pending: dict[Digest, str] = {}
        self._unpaid: dict[Digest, ChargeTab] = {}
        """leases that were closed, and whose cost no tab has taken yet"""
        self._effects: list[Any] = []
        self._now_s = 0.0
        self._pruned_s = 0.0

    # --- the machine ---

    def restore(self, records: Iterable[DeskRecord]) -> None:
        for record in records:
            self._apply(record)

    def snapshot(self) -> list[msgspec.Struct]:
        """All records of all jobs: a job has a few dozen, and each attempt's matters to the next."""
        return [*(record for job in self.jobs.values() for record in job.history), *self.planting.snapshot()]

    def step(self, event: Any, now_s: float) -> list[Any]:
        self._effects = []
        self._now_s = now_s
        match event:
            case Ask():
                self._submitted(event)
            case Cancel(job_id):
                self._cancel(job_id)
            case TabIs(job_id, ok):
                self._reserved(job_id, ok)
            case ItemPaid(_, lease):
                if lease in self._unpaid:
                    self._save(Paid(lease))
            case Fetched():
                self._fetched(event)
            case Received(sender, frame):
                self._heard(sender, frame)
            case Linked(peer):
                self.placing.linked[peer] = None
            case Unlinked(peer):
                self.placing.unlinked(peer)
            case Mined(key) | Reverted(key):
                self._answered(event, key)
            case Started():
                self._is_live = True
            case Tick():
                self._prune()
            case _:
                self._told(event)
        if self._is_live and (
            not isinstance(event, (Received, Linked, Unlinked))
            or isinstance(
                event.frame if isinstance(event, Received) else None, (Done, Broken, LeaseRefused, Lends)
            )
        ):
            for lease, charge in self._unpaid.items():
                self._ask(f"charge:{lease.hex()}", charge)
            for lease, call in self.delivering.expired():
                self._submit(f"lease-expire-demand:{lease.hex()}", call)
            for job in list(self.jobs.values()):
                if not job.ended:
                    self._advance(job)
            self._plant()
        effects, self._effects = self._effects, []
        return effects

    def _save(self, record: DeskRecord) -> None:
        self._apply(record)
        self._effects.append(Save(record))

    def _apply(self, record: DeskRecord) -> None:
        if isinstance(record, Pruned):
            self._forget(Digest(record.job))
            return
        if isinstance(record, Planted | Uprooted):
            self.planting.apply(record)
            return
        self._change(record)
        if isinstance(record, Accepted | Held | Placed | Cancelled | GaveUp | Over):
            job = self.jobs[Digest(record.job)]
        else:
            job = self._by_lease[Digest(record.lease)][0]
        job.history.append(record)

    def _change(self, record: DeskRecord) -> None:
        match record:
            case Accepted(job_id, account, raw, wishes, at_s, held):
                array = decode_array(raw)
                slots = [
                    Slot(task, replica) for task in range(len(array)) for replica in range(wishes.replicas)
                ]
                name = Digest(job_id)
                self.jobs[name] = Job(name, Digest(account), array, raw, wishes, at_s, held, slots)
            case Held(job_id):
                self.jobs[Digest(job_id)].reserved = True
            case Placed(job_id, number, terms):
                job = self.jobs[Digest(job_id)]
                old = job.slots[number]
                lease = terms.lease_id(self.terms.leases)
                slot = Slot(
                    old.task,
                    old.replica,
                    terms,
                    lease,
                    old.attempt + 1,
                    old.failures,
                    old.refused_by,
                )
                job.slots[number] = slot
                self._by_lease[lease] = (job, slot)
            case Came(lease):
                self._by_lease[Digest(lease)][1].came = record
            case Here(lease):
                self._by_lease[Digest(lease)][1].here = True
            case Closed(lease, reason):
                slot = self._by_lease[Digest(lease)][1]
                slot.closed = record
                if reason in FAILED:
                    slot.failures += 1
                if slot.terms is not None and reason != CloseReason.COMPLETED:
                    slot.refused_by.append(Address(slot.terms.provider))
                whole = (
                    slot.terms.compensation_wei + slot.terms.audit_fee_wei if slot.terms is not None else 0
                )
                job = self._by_lease[Digest(lease)][0]
                self._unpaid[Digest(lease)] = ChargeTab(job.id, Digest(lease), whole - record.refunded_wei)
            case Paid(lease):
                self._unpaid.pop(Digest(lease), None)
            case Cancelled(job_id):
                self.jobs[Digest(job_id)].cancelled = True
            case GaveUp(job_id, number, why):
                self.jobs[Digest(job_id)].slots[number].over = why
            case Over(job_id, at_s):
                self.jobs[Digest(job_id)].ended_s = at_s
            case Pruned() | Planted() | Uprooted():
                pass

    def _forget(self, job_id: Digest) -> None:
        job = self.jobs.pop(job_id)
        for lease in self._leases(job):
            self._by_lease.pop(lease, None)
            self.planting.forget(lease)

    def _leases(self, job: Job) -> list[Digest]:
        """All that it ever had."""
        return [it.terms.lease_id(self.terms.leases) for it in job.history if isinstance(it, Placed)]

    def _prune(self) -> None:
        """Now and then, what nobody's money hangs on and nobody needs to see any more."""
        if self._now_s < self._pruned_s + PRUNE_EVERY_S:
            return
        self._pruned_s = self._now_s
        unpaid = {charge.tab for charge in self._unpaid.values()}
        unpaid |= {job.id for job, slot in self._by_lease.values() if self._has_bait_out(slot)}
        terms = self.terms
        for job in doomed(self.jobs.values(), unpaid, self._now_s, terms.keep_s, terms.most_ended):
            leases = tuple(self._leases(job))
            self._save(Pruned(job.id))
            self._effects.append(Forgotten(job.id, leases))

    # --- bait ---

    def _plant(self) -> None:
        """What is due beside leases of jobs, and what bait needs."""
        linked = self.placing.linked.__contains__
        for planted in self.planting.ready(self._chain_s, linked):
            self._save(planted)
        for wanted in [*self.planting.wants(self._chain_s, self._now_s, linked)]:
            match wanted:
                case Send():
                    self._effects.append(wanted)
                case Uprooted():
                    self._save(wanted)
                case (_, OpenLease()) if not self._approved:
                    self._submit("lease-approve", Approve(self.terms.at, UNLIMITED_WEI))
                case (key, call):
                    self._submit(key, call)

    def _has_bait_out(self, slot: Slot) -> bool:
        return slot.lease is not None and self.planting.hangs_on(slot.lease)

    def order_of(self, lease: Digest) -> tuple[Address, JobSpec] | None:
        """Whose a lease is, and what it is for: a job's, or bait."""
        if (plant := self.planting.plants.get(lease)) is not None:
            return Address(plant.planted.terms.provider), plant.spec
        if (found := self._by_lease.get(lease)) is None or found[1].terms is None:
            return None
        return Address(found[1].terms.provider), found[0].array.task(found[1].task)

    # --- what is asked ---

    def under_way(self, provider: Address) -> list[Digest]:
        """Leases of a provider's that were accepted and aren't over."""
        return [
            lease
            for lease, (_, slot) in self._by_lease.items()
            if slot.accepted
            and slot.closed is None
            and slot.terms is not None
            and slot.terms.provider == provider
        ]

    def slot_of(self, lease: Digest) -> tuple[Job, Slot] | None:
        """The job and the slot that a lease is for, also one that was replaced."""
        return self._by_lease.get(lease)

    def _submitted(self, asked: Ask) -> None:
        job_id = Digest(keccak(asked.account + asked.nonce + keccak(asked.array)))
        if job_id in self.jobs:
            self._effects.append(Answer(asked.name, job_id, "", None))
            return
        try:
            array = decode_array(asked.array)
        except Malformed as error:
            self._effects.append(Answer(asked.name, None, f"job: {error}", None))
            return
        if sum(1 for job in self.jobs.values() if not job.ended) >= MOST_JOBS:
            self._effects.append(Answer(asked.name, None, "this gateway has too many open jobs", None))
            return
        found = self.placing.plan(array, asked.wishes)
        if not found.placed and not asked.wishes.retry_until_placed:
            self._effects.append(Answer(asked.name, None, "not-placed", found))
            return
        held = self.placing.dearest(array, asked.wishes, found)
        if held is None:
            self._effects.append(
                Answer(
                    asked.name, None, "max_price is needed to wait for a provider: it is what is held", found
                )
            )
            return
        self._save(Accepted(job_id, asked.account, asked.array, asked.wishes, int(self._now_s), held))
        self._pending[job_id] = asked.name
        self._effects.append(OpenTab(job_id, asked.account, held))

    def _reserved(self, job_id: Digest, ok: bool) -> None:
        job = self.jobs.get(job_id)
        name = self._pending.pop(job_id, None)
        if job is None or job.reserved:
            return
        if ok:
            self._save(Held(job_id))
        else:
            self._save(Cancelled(job_id))
            for number, slot in enumerate(job.slots):
                if slot.over is None:
                    self._save(GaveUp(job_id, number, "the account's credit doesn't cover it"))
        if name is not None:
            refusal = "" if ok else "insufficient_credit"
            self._effects.append(Answer(name, job_id if ok else None, refusal, None))

    def _cancel(self, job_id: Digest) -> None:
        job = self.jobs.get(job_id)
        if job is not None and not job.cancelled:
            self._save(Cancelled(job_id))

    # --- what is to be done ---

    def _advance(self, job: Job) -> None:
        if not job.reserved:
            if all(slot.over is not None for slot in job.slots):
                self._end(job)
            else:
                # Also of one that was cancelled meanwhile: the tab may be open, and only then it can be closed.
                self._ask(f"tab:{job.id.hex()}", OpenTab(job.id, job.account, job.held_wei))
            return
        free: list[int] = []
        for number, slot in enumerate(job.slots):
            if slot.over is not None:
                continue
            if slot.closed is not None:
                self._after(job, number, slot)
                slot = job.slots[number]
            if slot.over is None and (slot.lease is None or slot.closed is not None):
                if job.cancelled:
                    self._save(GaveUp(job.id, number, "cancelled"))
                elif not (slot.closed is not None and slot.closed.reason == CloseReason.COMPLETED):
                    free.append(number)
            elif slot.over is None:
                self._tend(job, slot)
        if free:
            self._place(job, free)
        self._maybe_end(job)

    def _after(self, job: Job, number: int, slot: Slot) -> None:
        """Its lease is closed: is that a result, or is it tried again?"""
        assert slot.closed is not None
        reason = CloseReason(slot.closed.reason)
        if reason is CloseReason.COMPLETED:
            if self.delivering.is_lost(slot):
                self._save(GaveUp(job.id, number, "it was paid, and its outputs never came"))
            elif slot.came is not None and not slot.here:
                self._fetch(slot)
            return
        if job.cancelled or reason is CloseReason.CANCELLED:
            self._save(GaveUp(job.id, number, "cancelled"))
        elif reason in FAILED and slot.failures > job.wishes.retries:
            why = slot.came.detail if slot.came is not None and slot.came.detail else reason.name
            self._save(GaveUp(job.id, number, why))

    def _place(self, job: Job, free: Sequence[int]) -> None:
        offers = self.placing.known_offers()
        for number in free:
            terms = self.placing.terms(job, number, offers, int(self._now_s))
            if terms is None:
                if not job.wishes.retry_until_placed and job.slots[number].attempt:
                    self._save(GaveUp(job.id, number, "no other provider can take it"))
                continue
            if terms.compensation_wei + terms.audit_fee_wei > job.held_wei // len(job.slots):
                continue
            self._save(Placed(job.id, number, terms))
            job.slots[number].unasked = True
            self._note(job, job.slots[number], "placed")
            self._tend(job, job.slots[number])

    def _tend(self, job: Job, slot: Slot) -> None:
        """A slot whose lease is under way: what does the chain, or its provider, have to be told?"""
        assert slot.terms is not None
        assert slot.lease is not None
        if slot.closed is not None:
            return
        terms, lease = slot.terms, slot.lease
        if not slot.opened:
            if self._chain_s > terms.start_by_s or (job.cancelled and slot.unasked):
                # The chain opens it no more: nothing to cancel, nothing to pay. Else nobody can say so sooner, for an opening
                # may be on its way, from a process before this one even.
                why = CloseReason.CANCELLED_BEFORE_START if job.cancelled else CloseReason.NOT_ACCEPTED
                self._save(Closed(lease, why, 0, terms.compensation_wei + terms.audit_fee_wei))
            elif not self._approved:
                self._submit("lease-approve", Approve(self.terms.at, UNLIMITED_WEI))
            elif not job.cancelled:
                slot.unasked = False
                self._submit(f"lease-open:{lease.hex()}", OpenLease(terms))
            return
        refused = slot.came is not None and slot.came.refused and not slot.accepted
        if (job.cancelled or refused) and not slot.committed:
            # One that accepts what it refused is bound to it, and isn't paid for being cancelled.
            self._submit(f"lease-cancel:{lease.hex()}", CancelLease(lease, even_accepted=job.cancelled))
        elif (
            not slot.accepted
            and self._now_s >= slot.start_s
            and Address(terms.provider) in self.placing.linked
        ):
            slot.start_s = self._now_s + START_EVERY_S
            spec = job.array.task(slot.task)
            self._effects.append(
                Send(Address(terms.provider), StartLease(KIND, terms, spec.canonical(), None))
            )
        elif slot.committed and not slot.here:
            self._fetch(slot)
        if self._is_due(slot, terms):
            self._submit(f"lease-close:{lease.hex()}", CloseLease(lease))

    def _fetch(self, slot: Slot) -> None:
        assert slot.lease is not None, "what is committed is a lease"
        name = slot.lease.hex()
        for wanted in self.delivering.due(slot.lease, slot, self.placing.linked, self._now_s):
            match wanted:
                case Fetch():
                    self._ask(f"fetch:{name}", wanted)
                case Approve():
                    self._submit("lease-approve-demand", wanted)
                case _:
                    self._submit(f"lease-demand:{name}", wanted)

    def _is_due(self, slot: Slot, terms: Terms) -> bool:
        """Whether time has closed it, though nobody has said so on chain yet."""
        if not slot.accepted:
            return self._chain_s > terms.start_by_s
        if not slot.committed:
            return self._chain_s > terms.deadline_s
        # What isn't here isn't urgent: a provider that has handed it over closes by itself.
        patient = slot.here or self._chain_s > slot.committed_s + 2 * self.terms.window_s
        # Unverified work has no audit to wait for, and is never called verified.
        return (slot.verified or not terms.determinism) and patient

    def _maybe_end(self, job: Job) -> None:
        over = all(
            slot.over is not None
            or (
                slot.closed is not None
                and slot.closed.reason == CloseReason.COMPLETED
                and (slot.here or slot.came is None)
            )
            for slot in job.slots
        )
        if over and not job.ended and not any(it.tab == job.id for it in self._unpaid.values()):
            self._end(job)

    def _end(self, job: Job) -> None:
        """Its tab is told in every process anew: the one before may have died behind the record."""
        job.ended = True
        if job.ended_s is None:
            self._save(Over(job.id, int(self._now_s)))
            self._effects.append(Note(job.id, "end"))
        self._effects.append(CloseTab(job.id))

    # --- what providers say ---

    def _heard(self, sender: Address, frame: Any) -> None:
        if isinstance(frame, Lends):
            self.placing.lends(sender, frame)
            return
        if isinstance(frame, LeaseRefused):
            self.planting.heard(sender, frame)
        known = self._by_lease.get(Digest(getattr(frame, "lease", ZERO_DIGEST)))
        if known is None:
            return
        job, slot = known
        if slot.terms is None or slot.terms.provider != sender or slot.closed is not None:
            return
        match frame:
            case Progress(_, segment, segments, units):
                if segment > slot.segment and segment <= slot.terms.segments:
                    slot.segment, slot.units = segment, units
                    self._note(job, slot, None, kind="progress", segments=segments)
            case Logged(lease, start, is_error, total, data):
                stream = "stderr" if is_error else "stdout"
                self._effects.append(
                    Note(
                        job.id,
                        "log",
                        slot.task,
                        slot.replica,
                        stream=stream,
                        data=data,
                        start=start,
                        total=total,
                        lease=Digest(lease),
                    )
                )
            case Done(lease, output, _, _, exit_code, detail):
                if slot.came is None:
                    self._save(Came(lease, output, exit_code, detail))
            case Broken(lease, code, detail) | LeaseRefused(lease, code, detail):
                if slot.came is None:
                    refused = isinstance(frame, LeaseRefused)
                    self._save(Came(lease, b"", -1, f"{code}: {detail}", refused))
            case _:
                pass

    def _fetched(self, done: Fetched) -> None:
        known = self._by_lease.get(done.lease)
        if known is None or known[1].here:
            return
        job, slot = known
        if done.verdict == "here":
            self._save(Here(done.lease))
            self._note(job, slot, slot.state)
            return
        self._asking.answered(f"fetch:{done.lease.hex()}", self._now_s)
        if jobdelivery.heard(slot, done):
            self._note(job, slot, slot.state, text=done.why)

    # --- the chain ---

    @property
    def _chain_s(self) -> int:
        return self.directory.time_s

    def _answered(self, event: Mined | Reverted, key: str) -> None:
        self._asking.answered(key, self._now_s)
        if key == "lease-approve" and isinstance(event, Mined):
            self._approved = True
        elif key == "lease-approve-demand" and isinstance(event, Mined):
            self.delivering.approved()

    def _told(self, event: Any) -> None:
        self.directory.apply(event)
        if isinstance(event, events.DeliveryDemanded | events.DemandEnded):
            self.delivering.follow(event)
        elif isinstance(event, events.AuditParametersSet | events.RolledBack):
            self.placing.follow(event, self.directory.block + 1)
        lease = Digest(getattr(event, "lease", ZERO_DIGEST))
        if (uprooted := self.planting.follow(event, self._chain_s)) is not None:
            self._save(uprooted)
            self._asking.forget(lease.hex())
        known = self._by_lease.get(lease)
        if known is None:
            return
        job, slot = known
        before = slot.state
        match event:
            case events.LeaseOpened():
                slot.opened = True
            case events.LeaseAccepted():
                slot.accepted, slot.accepted_s = True, self._chain_s
            case events.LeaseCommitted(_, _, segments, output, units):
                slot.committed, slot.segment, slot.units = True, segments, units
                slot.output, slot.last, slot.committed_s = output, event.last, self._chain_s
                if slot.terms is not None:
                    least_ppm = self.placing.bait_ppm(slot.terms, segments)
                    self.planting.committed(slot, job.array.task(slot.task), least_ppm)
                if slot.came is None or slot.came.output != output:
                    # What was committed counts, whatever was said.
                    self._save(Came(lease, output, 0, ""))
            case events.DeliveryDemanded():
                slot.demanded = True
                self._note(job, slot, slot.state, text="the panel is asked for its outputs")
            case events.AuditResolved():
                slot.verified = True
            case events.LeaseClosed(_, reason, paid, refunded):
                slot.closed_s = self._chain_s
                self.delivering.closed(lease)
                self._lease_closed(job, slot, reason, paid, refunded)
            case _:
                pass
        if slot.state != before:
            self._note(job, slot, slot.state)

    def _lease_closed(self, job: Job, slot: Slot, reason: int, paid: int, refunded: int) -> None:
        if slot.closed is not None or slot.terms is None or slot.lease is None:
            return
        self._save(Closed(slot.lease, reason, paid, refunded))
        self._effects.append(self._unpaid[slot.lease])
        self._asking.forget(slot.lease.hex())

    # --- helpers ---

    def _note(
        self,
        job: Job,
        slot: Slot,
        state: TaskState | None,
        kind: Literal["state", "progress"] = "state",
        segments: int = 0,
        text: str = "",
    ) -> None:
        of = segments or (slot.terms.segments if slot.terms is not None else 0)
        self._effects.append(
            Note(job.id, kind, slot.task, slot.replica, state, slot.segment, of, slot.units, text=text)
        )

    def _submit(self, key: str, call: Any) -> None:
        self._ask(key, Submit(key, call))

    def _ask(self, key: str, effect: Any) -> None:
        again_s = float("inf") if isinstance(effect, Submit) else UNANSWERED_S
        if self._asking.due(key, self._now_s, again_s):
            self._effects.append(effect)
