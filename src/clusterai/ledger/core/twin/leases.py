"""Leases.sol: work paid from escrow."""

from typing import TYPE_CHECKING

import msgspec

from clusterai.ledger.core.events import (
    LeaseAccepted,
    LeaseClosed,
    LeaseCommitted,
    LeaseOpened,
    PayVested,
    VestedReleased,
)
from clusterai.ledger.core.twin.court import Court
from clusterai.ledger.core.twin.registry import PROVIDER, Registry
from clusterai.ledger.core.twin.state import Transaction, World, require
from clusterai.ledger.core.twin.token import Token
from clusterai.protocol import merkle
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import MAX_SEGMENTS, CloseReason, Terms, earned_wei, leases_domain, unit_cap
from clusterai.protocol.statements import Outcome

if TYPE_CHECKING:
    from clusterai.ledger.core.twin.audits import Audits
    from clusterai.ledger.core.twin.deliveries import Deliveries

OPEN, ACCEPTED, COMMITTED, CLOSED = 1, 2, 3, 4
CANCEL_BPS = 1_000
VESTED_BPS = 1_000
VESTED_STAKE = 50


class Lease(msgspec.Struct, frozen=True):
    requester: Address = ZERO_ADDRESS
    start_by_s: int = 0
    state: int = 0
    determinism: int = 0
    segments: int = 0
    provider: Address = ZERO_ADDRESS
    deadline_s: int = 0
    accepted_s: int = 0
    payer: Address = ZERO_ADDRESS
    committed_s: int = 0
    compensation: int = 0
    audit_fee: int = 0
    amount: int = 0
    units: int = 0
    cap: int = 0
    spec: Digest = ZERO_DIGEST
    expected: Digest = ZERO_DIGEST
    root: Digest = ZERO_DIGEST


class Vested(msgspec.Struct, frozen=True):
    amount: int = 0
    price: int = 0


_NO_LEASE = Lease()
_NOTHING = Vested()
_replace = msgspec.structs.replace


class Leases:
    """`audits` and `deliveries` are set right behind the construction: they name each other."""

    audits: "Audits"
    deliveries: "Deliveries"

    def __init__(self, world: World, chain_id: int, token: Token, registry: Registry, court: Court) -> None:
        self._store = world.store
        self._token = token
        self._registry = registry
        self._court = court
        self._here = world.addresses.leases
        self._window_s = world.rules.window_s
        self.domain = leases_domain(chain_id, self._here)

    # --- public: requesters ---

    def open_lease(self, tx: Transaction, terms: Terms) -> None:
        requester, provider = Address(terms.requester), Address(terms.provider)
        require(self._is_party(tx, requester), "NotRequester")
        require(terms.determinism <= 2, "TermsOutOfRange")
        require(0 < terms.segments <= MAX_SEGMENTS, "TermsOutOfRange")
        require(terms.units != 0, "TermsOutOfRange")
        require(terms.compensation_wei != 0, "TermsOutOfRange")
        require(terms.start_by_s >= tx.now_s, "TermsOutOfRange")
        require(terms.deadline_s > terms.start_by_s, "TermsOutOfRange")
        lease_id = terms.lease_id(self.domain)
        require(self.lease(lease_id).state == 0, "AlreadyOpened")
        lease = Lease(
            requester=requester,
            start_by_s=terms.start_by_s,
            state=OPEN,
            determinism=terms.determinism,
            segments=terms.segments,
            provider=provider,
            deadline_s=terms.deadline_s,
            payer=tx.sender,
            compensation=terms.compensation_wei,
            audit_fee=terms.audit_fee_wei,
            units=terms.units,
            cap=unit_cap(terms.units, terms.segments),
            spec=Digest(terms.spec),
            expected=Digest(terms.expected),
        )
        self._put(lease_id, lease)
        tx.emit(LeaseOpened(lease_id, requester, provider, terms))
        self._token.pull(tx, self._here, tx.sender, self._here, lease.compensation + lease.audit_fee)

    def cancel_lease(self, tx: Transaction, lease_id: Digest, even_accepted: bool) -> None:
        lease = self.lease(lease_id)
        require(self._is_party(tx, lease.requester), "NotRequester")
        require(not self._barred(lease.provider), "ProviderBarred")
        if lease.state == OPEN:
            return self._close(tx, lease_id, CloseReason.CANCELLED_BEFORE_START, 0)
        require(even_accepted and lease.state == ACCEPTED, "WrongState")
        require(tx.now_s <= lease.deadline_s, "AfterDeadline")
        base = lease.compensation * CANCEL_BPS // 10_000
        elapsed, span = tx.now_s - lease.accepted_s, lease.deadline_s - lease.accepted_s
        due = base + (lease.compensation - base) * elapsed // span
        return self._close(tx, lease_id, CloseReason.CANCELLED, due)

    # --- public: providers ---

    def accept_lease(self, tx: Transaction, lease_id: Digest) -> None:
        lease = self._provided(tx, lease_id)
        require(lease.state == OPEN, "WrongState")
        require(tx.now_s <= lease.start_by_s, "AfterDeadline")
        self._put(lease_id, _replace(lease, state=ACCEPTED, accepted_s=tx.now_s))
        tx.emit(LeaseAccepted(lease_id))

    def commit_lease(
        self,
        tx: Transaction,
        lease_id: Digest,
        root: Digest,
        segments: int,
        output: Digest,
        units: int,
        amount: int,
        last: Digest,
        proof: tuple[Digest, ...],
    ) -> None:
        lease = self._provided(tx, lease_id)
        require(lease.state == ACCEPTED, "WrongState")
        require(tx.now_s <= lease.deadline_s, "AfterDeadline")
        require(0 < segments <= lease.segments, "SegmentsOutOfRange")
        some = units != 0 or lease.determinism == 0
        require(units <= min(lease.units, segments * lease.cap) and some, "UnitsOutOfRange")
        require(amount <= earned_wei(lease.compensation, units, lease.units), "ExceedsCompensation")
        value = Digest(keccak(segments.to_bytes(4) + last + units.to_bytes(8)))
        require(merkle.verify(root, value, segments, segments + 1, proof), "NotInCommitment")
        if lease.expected not in (ZERO_DIGEST, output):
            tx.emit(LeaseCommitted(lease_id, root, segments, output, units, amount, 0, last))
            return self._close(tx, lease_id, CloseReason.OUTPUT_DIFFERS, 0)
        made = _replace(
            lease,
            state=COMMITTED,
            committed_s=tx.now_s,
            root=root,
            segments=segments,
            units=units,
            amount=amount,
        )
        self._put(lease_id, made)
        self._store.put(("leases_committed", lease.provider), self.committed(lease.provider) + 1)
        if lease.determinism:
            long = self._store.get(("lease_line", lease.provider), 0)
            self._store.put(("lease_in_line", lease.provider, long), lease_id)
            self._store.put(("lease_line", lease.provider), long + 1)
        number = self.audits.enter(tx, lease_id, lease.provider, lease.compensation, lease.determinism)
        tx.emit(LeaseCommitted(lease_id, root, segments, output, units, amount, number, last))
        return None

    def give_up_lease(self, tx: Transaction, lease_id: Digest) -> None:
        lease = self._provided(tx, lease_id)
        require(lease.state in (OPEN, ACCEPTED), "WrongState")
        self._close(tx, lease_id, CloseReason.GAVE_UP, 0)

    # --- public: anyone ---

    def close_lease(self, tx: Transaction, lease_id: Digest) -> None:
        lease = self.lease(lease_id)
        require(lease.state in (OPEN, ACCEPTED, COMMITTED), "WrongState")
        if self._barred(lease.provider):
            return self._close(tx, lease_id, CloseReason.PROVIDER_CONVICTED, 0)
        if lease.state == OPEN:
            require(tx.now_s > lease.start_by_s, "TooEarly")
            return self._close(tx, lease_id, CloseReason.NOT_ACCEPTED, 0)
        if lease.state == ACCEPTED:
            require(tx.now_s > lease.deadline_s, "TooEarly")
            return self._close(tx, lease_id, CloseReason.DEADLINE_MISSED, 0)
        require(tx.now_s > lease.committed_s + self._window_s, "TooEarly")
        require(self.audits.is_payable(lease_id, tx.now_s), "AuditPending")
        require(not self.deliveries.is_demanded(lease_id), "DeliveryPending")
        if lease.determinism:
            self._take_turn(lease_id, lease.provider)
        return self._close(tx, lease_id, CloseReason.COMPLETED, lease.amount)

    def release_vested(self, tx: Transaction, provider: Address) -> None:
        kept = self.vested(provider)
        require(kept.amount != 0, "NothingVested")
        self._store.put(("vested", provider), _NOTHING)
        participant = self._registry.participant(provider)
        tx.emit(VestedReleased(provider, kept.amount, participant.barred))
        if participant.barred:
            return self._token.destroy(tx, self._here, kept.amount)
        require(participant.stake >= kept.price * VESTED_STAKE, "InsufficientStake")
        return self._token.move(tx, self._here, provider, kept.amount)

    # --- for Audits and Deliveries ---

    def convict(self, tx: Transaction, lease_id: Digest, finder: Address, reason: CloseReason) -> None:
        provider = self._in_commitment(lease_id)
        self._close(tx, lease_id, reason, 0)
        outcome = Outcome.FRAUD if reason == CloseReason.FRAUD else Outcome.WITHHELD
        self._court.convict_by_lease(tx, provider, finder, outcome, lease_id)

    def close_trap(self, tx: Transaction, lease_id: Digest, lazy: Address) -> None:
        self._in_commitment(lease_id)
        self._close(tx, lease_id, CloseReason.CANCELLED, 0)
        if lazy != ZERO_ADDRESS:
            self._court.convict_by_lease(tx, lazy, ZERO_ADDRESS, Outcome.FRAUD, lease_id)

    # --- views ---

    def lease(self, lease_id: Digest) -> Lease:
        return self._store.get(("lease", lease_id), _NO_LEASE)

    def committed(self, provider: Address) -> int:
        return self._store.get(("leases_committed", provider), 0)

    def vested(self, provider: Address) -> Vested:
        return self._store.get(("vested", provider), _NOTHING)

    # --- internal ---

    def _take_turn(self, lease_id: Digest, provider: Address) -> None:
        """Paid in the order of commitments."""
        at: int = self._store.get(("lease_served", provider), 0)
        while (first := self._store.get(("lease_in_line", provider, at), ZERO_DIGEST)) != lease_id:
            require(self.lease(first).state == CLOSED, "NotInTurn")
            at += 1
        self._store.put(("lease_served", provider), at + 1)

    def _close(self, tx: Transaction, lease_id: Digest, reason: CloseReason, paid: int) -> None:
        lease = self.lease(lease_id)
        self._put(lease_id, _replace(lease, state=CLOSED))
        earners: list[Address] = []
        if lease.state == COMMITTED:
            self._store.put(("leases_committed", lease.provider), self.committed(lease.provider) - 1)
        kept = self._vesting(tx, lease_id, lease, paid) if reason == CloseReason.COMPLETED else 0
        if lease.state == COMMITTED:
            earners = self.audits.finish(tx, lease_id, reason == CloseReason.COMPLETED)
        if reason in (CloseReason.OUTPUT_DIFFERS, CloseReason.DEADLINE_MISSED):
            self.audits.missed(lease.provider)
        fee = lease.audit_fee if earners else 0
        refunded = lease.compensation + lease.audit_fee - paid - fee
        tx.emit(LeaseClosed(lease_id, int(reason), paid, refunded))
        if fee:
            half = fee // 2 if len(earners) == 2 else 0
            self._registry.delegations.pay_reward(tx, self._here, earners[0], fee - half)
            if half:
                self._registry.delegations.pay_reward(tx, self._here, earners[1], half)
        if paid != kept:
            self._token.move(tx, self._here, lease.provider, paid - kept)
        if refunded:
            self._token.move(tx, self._here, lease.payer, refunded)

    def _vesting(self, tx: Transaction, lease_id: Digest, lease: Lease, paid: int) -> int:
        if self._registry.participant(lease.provider).stake >= lease.compensation * VESTED_STAKE:
            return 0
        kept = paid * VESTED_BPS // 10_000
        if kept == 0:
            return 0
        before = self.vested(lease.provider)
        grown = Vested(before.amount + kept, max(before.price, lease.compensation))
        self._store.put(("vested", lease.provider), grown)
        tx.emit(PayVested(lease.provider, lease_id, kept))
        return kept

    def _put(self, lease_id: Digest, lease: Lease) -> None:
        self._store.put(("lease", lease_id), lease)

    def _provided(self, tx: Transaction, lease_id: Digest) -> Lease:
        lease = self.lease(lease_id)
        provider = self._registry.owner_of(tx.sender)
        require(provider != ZERO_ADDRESS and provider == lease.provider, "NotProvider")
        participant = self._registry.participant(provider)
        require(participant.roles & PROVIDER != 0, "NotProvider")
        require(not participant.barred, "ProviderBarred")
        return lease

    def _in_commitment(self, lease_id: Digest) -> Address:
        lease = self.lease(lease_id)
        require(lease.state == COMMITTED, "WrongState")
        return lease.provider

    def _is_party(self, tx: Transaction, owner: Address) -> bool:
        return tx.sender == owner or (owner != ZERO_ADDRESS and self._registry.owner_of(tx.sender) == owner)

    def _barred(self, owner: Address) -> bool:
        return self._registry.participant(owner).barred
