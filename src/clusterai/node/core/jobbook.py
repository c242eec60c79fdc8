"""The provider's book of leases: accept, perform, commit to every state, show what is drawn, be paid.

    StartLease ─> Taken ─> Opened on chain? ─> AcceptLease ─> Accepted ─> Perform ─> Performed ─> CommitLease
                   │                                             │                                   │
               LeaseRefused                             Failed: GiveUpLease            AuditCommitted: OpenSegment
                                                                                       window over: CloseLease ─> Closed

A lease is taken only as the chain tells it: the gateway's frame brings the work, the event brings the money. Everything
that the chain has to be told is told again until the chain shows it, by the state that the chain has shown: a lease can be
accepted, committed, shown and closed once, so asking twice does no harm (`Submit` keys are per lease and step).

What was performed is durable before it is committed, and never performed again: two commitments to one lease can't exist, and
two runs that differ would be taken for fraud. States are kept until the lease is closed, its closing can't be undone any more, and
nobody can ask for them: then its volume's key is destroyed (`Discard`).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from clusterai.audit.core.segments import Opening
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.ledger.core.lease_calls import (
    AcceptLease,
    AssertTrace,
    CloseLease,
    CommitLease,
    ExpireDemand,
    GiveUpLease,
    OpenSegment,
    Shown,
    SpringTrap,
)
from clusterai.market.core.directory import Directory
from clusterai.node.core import jobbait
from clusterai.node.core.jobbait import Baits
from clusterai.node.core.jobdefence import Accused, Defence, Retrace, Retraced
from clusterai.node.core.joblease import (
    AUDIT_S,
    Discard,
    Drain,
    Ended,
    Failed,
    GaveUp,
    Halt,
    JobRecord,
    JobTerms,
    Lease,
    Paused,
    Perform,
    Performed,
    Progressed,
    Taken,
    Worked,
    committed,
)
from clusterai.node.core.jobshowing import Showing
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.jobs import (
    Bait,
    Broken,
    Done,
    LeaseRefused,
    Progress,
    StartLease,
)
from clusterai.protocol.leases import earned_wei, hidden_state, is_bait
from clusterai.protocol.messages import Relay
from clusterai.runtime.core.asking import Asking
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.work.leased import LeasedKind

SPARE_S = 5
"""Accepting this late before a lease's last second is a gamble with the chain's clock."""
KEEP_S = 60
"""So long after a lease's end its gateway may still fetch what it hasn't yet."""
DISPUTED_S = 86_400
"""So long at most a dispute keeps the states of a lease that is closed: nobody's money hangs on it any more."""


class JobBook:
    """One provider. See the module's docstring."""

    RECORDS = JobRecord

    def __init__(self, terms: JobTerms, directory: Directory, kinds: Mapping[str, LeasedKind]) -> None:
        self.terms = terms
        self.directory = directory
        self._kinds = kinds
        self.leases: dict[Digest, Lease] = {}
        self._audit_s = AUDIT_S
        self._opened: set[Digest] = set()
        """leases that the chain has opened for us, known or not yet sent by their gateway"""
        self._accepted: set[Digest] = set()
        self._shown: set[Digest] = set()
        self._commits: dict[Digest, int] = {}
        self._showing = Showing(terms.me, terms.network, terms.recover, directory)
        self._rests: dict[Digest, int] = {}
        self._defence = Defence()
        self._baits = Baits()
        self._asking = Asking()
        self._draining = False
        self._paused = ""
        self._is_live = False
        """the chain's past has been read: what is asked of it now is asked of its present"""
        self._effects: list[Any] = []
        self._now_s = 0.0
        self._unpaid_s: float | None = None
        """see `_first_unpaid_s`"""

    # --- the machine ---

    def restore(self, records: Iterable[JobRecord]) -> None:
        for record in records:
            self._apply(record)

    def snapshot(self) -> list[msgspec.Struct]:
        found: list[msgspec.Struct] = []
        for lease in self.leases.values():
            found.append(Taken(lease.gateway, lease.kind, lease.terms, lease.raw, lease.bait))
            if lease.done is not None:
                found.append(Worked(lease.done))
            if lease.failed is not None:
                found.append(lease.failed)
        return found

    def step(self, event: Any, now_s: float) -> list[Any]:
        self._effects = []
        self._now_s = now_s
        self._unpaid_s = None
        match event:
            case Received(sender, StartLease() as frame):
                self._start(sender, frame)
            case Received(gateway, Relay(sender, _, body)):
                self._effects += self._showing.asked(
                    gateway, Address(sender), body, self._shown_of, self._opened_at
                )
            case Progressed(lease_id, segment, units):
                self._progressed(lease_id, segment, units)
            case Performed(lease_id):
                self._performed(lease_id, event)
            case Retraced():
                self._defence.take(event, self.chain_s)
            case Failed(lease_id, code, detail):
                self._failed(lease_id, code, detail)
            case Mined(key) | Reverted(key):
                # Mined: its event is on the way; if it never comes, the block is gone, and the call with it.
                self._asking.answered(key, now_s)
            case Linked(peer):
                self._tell(peer)
            case Drain():
                self._draining = True
            case Paused(why):
                self._paused = why
            case Started():
                self._is_live = True
            case Tick() | Unlinked() | Received():
                pass
            case _:
                self._chain(event)
        if isinstance(event, (Started, Tick, Performed, Retraced, Failed, Received, events.Block)):
            for lease in list(self.leases.values()):
                self._advance(lease)
        effects, self._effects = self._effects, []
        return effects

    def _save(self, record: JobRecord) -> None:
        self._apply(record)
        self._effects.append(Save(record))

    def _apply(self, record: JobRecord) -> None:
        match record:
            case Taken(gateway, kind, terms, raw, bait):
                lease_id = terms.lease_id(self.terms.leases)
                spec = self._kinds[kind].decode(raw)
                self.leases[lease_id] = Lease(lease_id, Address(gateway), kind, terms, spec, raw, bait)
            case Worked(done):
                if (lease := self.leases.get(Digest(done.lease))) is not None:
                    lease.done = done
            case GaveUp(lease_id):
                if (lease := self.leases.get(Digest(lease_id))) is not None:
                    lease.failed = record
            case Ended(lease_id):
                self.leases.pop(Digest(lease_id), None)

    # --- taking a lease ---

    def _start(self, gateway: Address, frame: StartLease) -> None:
        lease_id = frame.terms.lease_id(self.terms.leases)
        known = self.leases.get(lease_id)
        if known is not None:
            if known.gateway == gateway:
                self._report(known)
            return
        refusal = self._refusal(gateway, frame)
        if refusal is not None:
            self._effects.append(Send(gateway, LeaseRefused(lease_id, *refusal)))
            return
        self._save(Taken(gateway, frame.kind, frame.terms, frame.spec, frame.bait))
        lease = self.leases[lease_id]
        # The chain's event may have come before the gateway's frame.
        lease.opened = lease_id in self._opened
        lease.accepted = lease_id in self._accepted
        lease.committed_s = self._commits.get(lease_id)

    def _refusal(self, gateway: Address, frame: StartLease) -> tuple[str, str] | None:
        terms = frame.terms
        if terms.provider != self.terms.me:
            return "spec", "the terms name another provider"
        if terms.requester != gateway:
            return "spec", "only the requester itself can bring its lease"
        kind = self._kinds.get(frame.kind)
        if kind is None:
            return "unknown_kind", f"this provider does no {frame.kind!r}"
        try:
            spec = kind.decode(frame.spec)
        except Malformed as error:
            return "spec", str(error)
        if (why := kind.differs(spec, terms)) is not None:
            return "spec", why
        if frame.bait is not None:
            refused = jobbait.refusal(terms, frame.bait)
            if refused is not None or not self.terms.takes_bait:
                return "bait", refused or "no bait is planted with this provider"
        if self._draining:
            return "shutting_down", "this provider shuts down"
        if self._paused:
            return "paused", self._paused
        if self.chain_s > terms.start_by_s - SPARE_S:
            return (
                "too_late",
                f"it had to be accepted by {terms.start_by_s}, and the chain says {self.chain_s}",
            )
        open_ = [lease for lease in self.leases.values() if lease.closed is None]
        if len(open_) >= self.terms.most:
            return "full", f"{self.terms.most} leases are open here"
        running = sum(1 for lease in open_ if lease.done is None and lease.failed is None)
        return self.terms.fits(frame.kind, spec, terms, running)

    @property
    def chain_s(self) -> int:
        """The chain's time, as its newest block told."""
        return self.directory.time_s

    # --- the chain ---

    def _chain(self, event: Any) -> None:
        self.directory.apply(event)
        match event:
            case events.LeaseOpened(lease_id, _, provider) if provider == self.terms.me:
                self._opened.add(lease_id)
            case events.LeaseAccepted(lease_id) if lease_id in self._opened:
                self._accepted.add(lease_id)
                self._baits.follow(event, self.chain_s)
            case events.AuditRevealed(lease_id) if lease_id in self._opened:
                self._baits.follow(event, self.chain_s)
            case events.LeaseCommitted(lease_id) if lease_id in self._opened:
                self._commits[lease_id] = self.chain_s
            case (
                events.LeaseDrawn(lease_id) | events.DeliveryDemanded(lease_id) | events.DemandEnded(lease_id)
            ) if lease_id in self._opened:
                self._showing.follow(event)
            case events.AuditCommitted(lease_id):
                # What was shown to the first auditor stands for the second.
                if lease_id not in self._shown and (lease := self.leases.get(lease_id)) is not None:
                    lease.to_show = self._showing.drawn.get(lease_id, 0)
            case events.SegmentShown(lease_id) if lease_id in self._opened:
                self._shown.add(lease_id)
                if (lease := self.leases.get(lease_id)) is not None:
                    lease.to_show = 0
            case events.AuditResolved(lease_id, rest_until_s) if lease_id in self._opened:
                self._rests[lease_id] = rest_until_s
            case (
                events.DisputeOpened(lease_id)
                | events.TraceAsserted(lease_id)
                | events.RangeSelected(lease_id)
                | events.RefereesDrawn(lease_id)
                | events.DisputeEnded(lease_id)
            ) if lease_id in self._opened:
                self._defence.follow(event)
            case events.AuditParametersSet(parameters):
                self._audit_s = parameters.commit_s
            case events.LeaseClosed(lease_id):
                self._closed(lease_id)
            case events.RolledBack(number):
                for lease in self.leases.values():
                    if lease.closed is not None and lease.closed[0] > number:
                        lease.closed = None
                return
            case _:
                return
        lease_id = getattr(event, "lease", None)
        if lease_id is not None and (lease := self.leases.get(lease_id)) is not None:
            lease.opened = lease_id in self._opened
            lease.accepted = lease_id in self._accepted
            lease.committed_s = self._commits.get(lease_id)
            self._advance(lease)

    def _closed(self, lease_id: Digest) -> None:
        """It is over on chain; what it holds here goes when that can't be undone and nobody can ask for it."""
        lease = self.leases.get(lease_id)
        if lease is None:
            self._strike(lease_id)
            return
        lease.closed = (self.directory.block + 1, self.chain_s)
        if lease.running:
            lease.running = False
            self._effects.append(Halt(lease_id))
        self._asking.forget(lease_id.hex())

    def _keep_or_drop(self, lease: Lease, closed: tuple[int, int]) -> None:
        """A lease that is closed: defended as long as it is disputed, then forgotten."""
        block, at_s = closed
        disputed = self._defence.is_open(lease.id) and self.chain_s <= at_s + DISPUTED_S
        if disputed and lease.done is not None and lease.bait is None:
            if (move := self._defence.move(lease.id, self.chain_s)) is not None:
                self._defend(lease, lease.done, move)
        elif self.directory.block >= block + self.terms.confirmations and self.chain_s > at_s + KEEP_S:
            self._strike(lease.id)
            self._drop(lease)
            self._asking.forget(lease.id.hex())

    def _strike(self, lease_id: Digest) -> None:
        """Nothing that the chain showed of it matters any more."""
        for known in (self._opened, self._accepted, self._shown):
            known.discard(lease_id)
        for table in (self._commits, self._rests):
            table.pop(lease_id, None)
        self._showing.forget(lease_id)
        self._defence.forget(lease_id)
        self._baits.forget(lease_id)

    # --- doing it ---

    def _advance(self, lease: Lease) -> None:
        """Do what its state calls for and hasn't been done."""
        if not self._is_live:
            return
        if lease.closed is not None:
            self._keep_or_drop(lease, lease.closed)
            return
        if not lease.opened:
            # A gateway that never opened it gets nothing; after its last moment it can't any more.
            if self.chain_s > lease.terms.start_by_s:
                self._drop(lease)
            return
        if lease.failed is not None:
            if lease.committed_s is None:
                self._submit(lease, "give-up", GiveUpLease(lease.id))
            return
        if not lease.accepted:
            if self.chain_s <= lease.terms.start_by_s - SPARE_S:
                self._submit(lease, "accept", AcceptLease(lease.id))
            elif self.chain_s > lease.terms.start_by_s:
                self._submit(lease, "close", CloseLease(lease.id))
            return
        if lease.done is None:
            if self.chain_s > lease.terms.deadline_s:
                self._failed(lease.id, "out_of_time", "the lease's deadline passed")
            elif not lease.running:
                lease.running = True
                self._effects.append(
                    Perform(
                        lease.id,
                        lease.gateway,
                        lease.kind,
                        lease.spec,
                        lease.terms,
                        lease.bait,
                        self._audit_s,
                    )
                )
            return
        if lease.committed_s is None:
            if lease.bait is None or not self._baits.waits(lease.id, lease.bait, self.chain_s):
                self._submit(lease, "commit", self._commitment(lease, lease.done))
        elif lease.bait is not None and self._springs(lease, lease.bait, lease.done):
            # Before anything else: it couldn't be defended.
            self._submit(lease, "spring", SpringTrap(lease.terms, Digest(lease.bait.secret)))
        elif lease.to_show:
            self._submit(lease, "show", self._opening(lease, lease.done))
        elif (move := self._defence.move(lease.id, self.chain_s)) is not None:
            self._defend(lease, lease.done, move)
        elif (by_s := self._showing.demands.get(lease.id)) is not None:
            # The lease isn't closed before the demand has ended, and the bond is ours then.
            if self.chain_s > by_s:
                self._submit(lease, "expire-demand", ExpireDemand(lease.id))
        elif (rest_s := self._rest_s(lease)) is not None and self.chain_s > max(
            rest_s, lease.committed_s + self.terms.window_s
        ):
            self._close_in_turn(lease, lease.committed_s)

    def _springs(self, lease: Lease, bait: Bait, done: Performed) -> bool:
        drawn, demanded = self._showing.drawn.get(lease.id, 0), lease.id in self._showing.demands
        return self._baits.springs(lease.id, bait, drawn, len(done.units), demanded)

    def _close_in_turn(self, lease: Lease, committed_s: int) -> None:
        """What can be audited is paid in the order of the commitments."""
        if not lease.terms.determinism or committed_s <= self._first_unpaid_s():
            self._submit(lease, "close", CloseLease(lease.id))

    def _first_unpaid_s(self) -> float:
        """When the oldest was committed of what can be audited and isn't closed; once a step, however many ask."""
        if self._unpaid_s is None:
            unpaid = (
                it.committed_s
                for it in self.leases.values()
                if it.committed_s is not None and it.closed is None and it.terms.determinism
            )
            self._unpaid_s = min(unpaid, default=math.inf)
        return self._unpaid_s

    def _rest_s(self, lease: Lease) -> int | None:
        """Until when its audit keeps it open; None while that isn't known. Unverified work has none, and no event says so."""
        return self._rests.get(lease.id, None if lease.terms.determinism else 0)

    def _commitment(self, lease: Lease, done: Performed) -> CommitLease:
        commitment = committed(done)
        last = commitment.open(commitment.segments)
        amount = self._amount(lease, done)
        return CommitLease(
            lease.id,
            commitment.root,
            commitment.segments,
            Digest(done.output),
            last.units,
            amount,
            hidden_state(last.state),
            last.proof,
        )

    def _defend(self, lease: Lease, done: Performed, move: Accused | AssertTrace) -> None:
        """Answer in a dispute, once the disputed segment was run again."""
        if isinstance(move, AssertTrace):
            low, high = self._defence.range(lease.id)
            self._submit(lease, f"assert-{low}-{high}", move)
            return
        move.running = True
        segment = self._showing.drawn[lease.id]
        start = Digest(done.states[segment - 1])
        self._effects.append(
            Retrace(lease.id, lease.kind, lease.spec, segment, start, move.steps, move.points)
        )

    def _amount(self, lease: Lease, done: Performed) -> int:
        """What the units cost; the chain pays no more for them."""
        terms, units = lease.terms, sum(done.units)
        billable = self._kinds[lease.kind].billable_wei(lease.spec, terms.compensation_wei, units)
        return min(billable, earned_wei(terms.compensation_wei, units, terms.units))

    def _opening(self, lease: Lease, done: Performed) -> OpenSegment:
        shown, other = committed(done).show(lease.to_show, self._showing.seeds[lease.id])
        return OpenSegment(lease.id, tuple(Shown(it.state, it.units, it.proof) for it in shown), other)

    def _progressed(self, lease_id: Digest, segment: int, units: int) -> None:
        lease = self.leases.get(lease_id)
        if lease is None or not lease.running:
            return
        lease.segment, lease.units = segment, units
        self._effects.append(Send(lease.gateway, Progress(lease_id, segment, lease.terms.segments, units)))

    def _performed(self, lease_id: Digest, done: Performed) -> None:
        lease = self.leases.get(lease_id)
        if lease is None or lease.done is not None or lease.failed is not None:
            return
        lease.running = False
        self._save(Worked(done))
        self._report(lease)

    def _failed(self, lease_id: Digest, code: str, detail: str) -> None:
        lease = self.leases.get(lease_id)
        if lease is None or lease.done is not None or lease.failed is not None:
            return
        if lease.running:
            lease.running = False
            self._effects.append(Halt(lease_id))
        self._save(GaveUp(lease_id, code, detail))
        self._report(lease)

    def _drop(self, lease: Lease) -> None:
        self._save(Ended(lease.id))
        self._effects.append(Discard(lease.id, lease.spec))

    def _shown_of(self, lease_id: Digest) -> tuple[Address, int] | None:
        """Whom a lease is of, and in how many segments it was done; 0 where it isn't."""
        lease = self.leases.get(lease_id)
        if lease is None:
            return None
        segments = 0 if lease.done is None else len(lease.done.units)
        if lease.bait is not None and not is_bait(
            Digest(lease.bait.secret), self._showing.drawn.get(lease_id, 0), segments
        ):
            segments = 0
        return Address(lease.terms.requester), segments

    def _opened_at(self, lease_id: Digest, index: int) -> Opening:
        done = self.leases[lease_id].done
        assert done is not None, "only what is done is shown"
        return committed(done).open(index)

    # --- telling ---

    def _tell(self, gateway: Address) -> None:
        for lease in self.leases.values():
            if lease.gateway == gateway and lease.closed is None:
                self._report(lease)

    def _report(self, lease: Lease) -> None:
        """What its gateway may not have heard."""
        if lease.failed is not None:
            self._effects.append(
                Send(lease.gateway, Broken(lease.id, lease.failed.code, lease.failed.detail))
            )
        elif lease.done is not None:
            done = lease.done
            units = sum(done.units)
            amount = self._amount(lease, done)
            self._effects.append(
                Send(
                    lease.gateway,
                    Done(lease.id, Digest(done.output), units, amount, done.exit_code, done.detail),
                )
            )
        elif lease.segment:
            self._effects.append(
                Send(lease.gateway, Progress(lease.id, lease.segment, lease.terms.segments, lease.units))
            )

    def _submit(self, lease: Lease, what: str, call: Any) -> None:
        key = f"lease-{what}:{lease.id.hex()}"
        if self._asking.due(key, self._now_s):
            self._effects.append(Submit(key, call))
