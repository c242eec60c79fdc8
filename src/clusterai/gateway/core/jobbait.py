"""The gateway's part in traps: beside some of its leases it plants another for which nothing is run, and springs what was copied.

    LeaseCommitted, of a job ── a lot of the key ──> a while later: Planted ─> OpenLease ─> StartLease with bait ─> … as any lease
                                                                                    AuditRevealed ─> SpringTrap ─> Uprooted

Bait is a copy of a module's lease that was committed: the same provider, price, size and time, with another seed. So it shows the
requester's work to nobody anew but auditors who are drawn, and an auditor who isn't told can't tell it from a job of many tasks.
The provider is told, and one that tells auditors lets them through; but an auditor can't know which provider will.

It is the gateway's own money: no account is charged for it. What isn't drawn is paid for like work, what is drawn comes back but
for the auditor's fee, and who copied leaves its bond here. The lot is a function of a key, so that the chain's past, read again after a
crash, plants nothing twice and nothing else.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from clusterai.gateway.core.jobstate import DeskTerms, Planted, Slot, Uprooted
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Call
from clusterai.ledger.core.lease_calls import CancelLease, CloseLease, OpenLease, SpringTrap
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.jobs import Bait, LeaseRefused, StartLease
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import CloseReason, DeterminismClass, Terms, is_bait, trap_nonce
from clusterai.runtime.machine import Send
from clusterai.work.batch.spec import JobSpec, decode_spec

MILLION = 1_000_000
LATE_S = 600
"""What should have been planted so long ago isn't: the gateway was away."""
START_BY_S = 60
START_EVERY_S = 3.0
OTHER_SEEDS = 16


class Plant(msgspec.Struct):
    """One planted lease, as far as the chain has shown it."""

    lease: Digest
    planted: Planted
    spec: JobSpec
    opened: bool = False
    accepted: bool = False
    refused: bool = False
    committed_s: int = 0
    segments: int = 0
    segment: int = 0
    """the drawn one, 0 for none"""
    revealed: bool = False
    resolved: bool = False
    lazy: bool = False
    start_s: float = 0.0
    closed: Uprooted | None = None

    @property
    def is_due(self) -> bool:
        """What was revealed can be sprung: it differs from the bait, or is it."""
        secret = Digest(self.planted.bait.secret)
        return self.revealed and is_bait(secret, self.segment, self.segments)


class Tally(msgspec.Struct, frozen=True):
    """Of all bait that is known here.

    Attributes:
        cost_wei: what it cost the gateway; bonds of who fell in aren't taken off.
    """

    planted: int = 0
    open: int = 0
    drawn: int = 0
    caught: int = 0
    cost_wei: int = 0


class Wanted(msgspec.Struct):
    """A lease of a job that gets bait beside it."""

    beside: Digest
    terms: Terms
    spec: JobSpec
    segments: int
    run_s: int
    due_s: int


class Planting:
    """All bait of one gateway."""

    def __init__(self, terms: DeskTerms) -> None:
        self.plants: dict[Digest, Plant] = {}
        self._terms = terms
        self._beside: dict[Digest, Digest] = {}
        self._wanted: dict[Digest, Wanted] = {}

    # --- its records ---

    def apply(self, record: Planted | Uprooted) -> None:
        match record:
            case Planted(beside, terms, spec):
                lease = terms.lease_id(self._terms.leases)
                self.plants[lease] = Plant(lease, record, decode_spec(spec))
                self._beside[Digest(beside)] = lease
            case Uprooted(lease):
                self.plants[Digest(lease)].closed = record

    def snapshot(self) -> Iterator[Planted | Uprooted]:
        for plant in self.plants.values():
            yield plant.planted
            if plant.closed is not None:
                yield plant.closed

    def forget(self, beside: Digest) -> None:
        """The lease that it was planted beside is no longer known, so nothing would plant it again."""
        lease = self._beside.get(beside)
        if lease is not None and self.plants[lease].closed is not None:
            del self.plants[lease], self._beside[beside]

    def hangs_on(self, beside: Digest) -> bool:
        """Whether bait beside a lease is still out."""
        lease = self._beside.get(beside)
        return beside in self._wanted or (lease is not None and self.plants[lease].closed is None)

    @property
    def is_out(self) -> bool:
        """Whether there is any, or will be."""
        return bool(self._wanted) or any(it.closed is None for it in self.plants.values())

    def tally(self) -> Tally:
        plants = self.plants.values()
        return Tally(
            planted=len(plants),
            open=sum(it.closed is None for it in plants),
            drawn=sum(it.segment > 0 for it in plants),
            caught=sum(it.lazy for it in plants),
            cost_wei=sum(_cost_wei(it) for it in plants),
        )

    # --- where it is planted ---

    def committed(self, slot: Slot, spec: JobSpec, least_ppm: int) -> None:
        """A provider committed to a job's lease: is bait to be beside it, and when?

        Args:
            least_ppm: what the weakest auditor needs in order to be deterred, see `segments.bait_ppm`.
        """
        terms, lease = slot.terms, slot.lease
        if terms is None or lease is None or lease in self._beside or not slot.accepted_s:
            return
        if terms.determinism != DeterminismClass.WASM or terms.expected != ZERO_DIGEST:
            return
        share = self._terms.bait_ppm and max(self._terms.bait_ppm, least_ppm)
        if self._lot(b"lot", lease) % MILLION >= share:
            return
        due_s = slot.committed_s + self._lot(b"when", lease) % (self._terms.bait_spread_s + 1)
        run_s = slot.committed_s - slot.accepted_s
        self._wanted[lease] = Wanted(lease, terms, spec, slot.segment, run_s, due_s)

    def ready(self, chain_s: int, is_able: Callable[[Address], bool]) -> Iterator[Planted]:
        """What is planted now."""
        for beside, wanted in [*self._wanted.items()]:
            if chain_s < wanted.due_s:
                continue
            del self._wanted[beside]
            if chain_s <= wanted.due_s + LATE_S and is_able(Address(wanted.terms.provider)):
                yield self._planted(wanted, chain_s)

    def _planted(self, wanted: Wanted, chain_s: int) -> Planted:
        secret = Digest(keccak(self._terms.bait_key + b"secret" + wanted.beside))
        other = 1 + self._lot(b"seed", wanted.beside) % OTHER_SEEDS
        seed = wanted.spec.seed + other if wanted.spec.seed < 2**32 else wanted.spec.seed - other
        spec = msgspec.structs.replace(wanted.spec, seed=seed)
        start_by_s = chain_s + START_BY_S
        terms = msgspec.structs.replace(
            wanted.terms,
            spec=spec.digest(),
            start_by_s=start_by_s,
            deadline_s=start_by_s + wanted.terms.deadline_s - wanted.terms.start_by_s,
            nonce=trap_nonce(secret),
        )
        return Planted(wanted.beside, terms, spec.canonical(), Bait(secret, wanted.segments, wanted.run_s))

    def _lot(self, what: bytes, lease: Digest) -> int:
        return int.from_bytes(keccak(self._terms.bait_key + what + lease)[:8])

    # --- what the chain and providers say ---

    def follow(self, event: Any, chain_s: int) -> Uprooted | None:
        """Take an event; what it closed."""
        plant = self.plants.get(Digest(getattr(event, "lease", ZERO_DIGEST)))
        if plant is None:
            return None
        match event:
            case events.LeaseOpened():
                plant.opened = True
            case events.LeaseAccepted():
                plant.accepted = True
            case events.LeaseCommitted():
                plant.committed_s, plant.segments = chain_s, event.segments
            case events.LeaseDrawn():
                plant.segment = event.segment if event.audited else 0
            case events.AuditRevealed():
                plant.revealed = True
            case events.AuditResolved():
                plant.resolved = True
            case events.TrapSprung():
                plant.lazy = any(event.lazy)
            case events.LeaseClosed(lease, reason, paid, refunded) if plant.closed is None:
                return Uprooted(lease, reason, paid, refunded)
            case _:
                pass
        return None

    def heard(self, sender: Address, frame: LeaseRefused) -> None:
        plant = self.plants.get(Digest(frame.lease))
        if plant is not None and plant.planted.terms.provider == sender:
            plant.refused = True

    # --- what is to be done ---

    def wants(
        self, chain_s: int, now_s: float, linked: Callable[[Address], bool]
    ) -> Iterator[tuple[str, Call] | Send | Uprooted]:
        """Calls by their keys, frames, and what is over without the chain's saying so."""
        for plant in self.plants.values():
            if plant.closed is None:
                yield from self._tend(plant, chain_s, now_s, linked)

    def _tend(
        self, plant: Plant, chain_s: int, now_s: float, linked: Callable[[Address], bool]
    ) -> Iterator[tuple[str, Call] | Send | Uprooted]:
        lease, terms, bait = plant.lease, plant.planted.terms, plant.planted.bait
        name, provider = lease.hex(), Address(terms.provider)
        if not plant.opened:
            if chain_s > terms.start_by_s:
                whole = terms.compensation_wei + terms.audit_fee_wei
                yield Uprooted(lease, CloseReason.NOT_ACCEPTED, 0, whole)
            else:
                yield f"lease-open:{name}", OpenLease(terms)
        elif not plant.accepted and plant.refused:
            yield f"lease-cancel:{name}", CancelLease(lease, even_accepted=False)
        elif not plant.accepted and now_s >= plant.start_s and linked(provider):
            plant.start_s = now_s + START_EVERY_S
            yield Send(provider, StartLease("batch", terms, plant.planted.spec, bait))
        elif plant.is_due:
            yield f"lease-spring:{name}", SpringTrap(terms, Digest(bait.secret))
        elif self._is_over(plant, terms, chain_s):
            yield f"lease-close:{name}", CloseLease(lease)

    def _is_over(self, plant: Plant, terms: Terms, chain_s: int) -> bool:
        """Whether time has closed it, though its provider hasn't said so."""
        if not plant.committed_s:
            return chain_s > (terms.deadline_s if plant.accepted else terms.start_by_s)
        return plant.resolved and chain_s > plant.committed_s + 2 * self._terms.window_s


def _cost_wei(plant: Plant) -> int:
    if plant.closed is None:
        return 0
    terms = plant.planted.terms
    return terms.compensation_wei + terms.audit_fee_wei - plant.closed.refunded_wei
