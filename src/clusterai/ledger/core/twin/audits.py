"""Audits.sol: whether a lease is audited, at which segment, by whom, and what came of it."""

import msgspec

from clusterai.ledger.core.events import (
    AuditCommitted,
    AuditContested,
    AuditMatched,
    AuditorDrawn,
    AuditorSilent,
    AuditResolved,
    AuditRevealed,
    LeaseDrawn,
    SegmentShown,
    TrapSprung,
    WithheldReported,
)
from clusterai.ledger.core.lease_calls import Shown
from clusterai.ledger.core.twin.beacon import Beacon
from clusterai.ledger.core.twin.leases import Lease, Leases
from clusterai.ledger.core.twin.panel import Panel
from clusterai.ledger.core.twin.registry import Registry
from clusterai.ledger.core.twin.state import Transaction, World, require
from clusterai.ledger.core.twin.token import Token
from clusterai.protocol import merkle
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import (
    CloseReason,
    Terms,
    hidden_state,
    sealed_result,
    segment_result,
    trap_digest,
    trap_nonce,
)

ENTERED, AWAITS_COMMIT, AWAITS_OPENING, AWAITS_REVEAL, CONTESTED, DISPUTED, RESOLVED, FINISHED = range(1, 9)
MAX_ATTEMPTS = 8
VETERAN_AT = 10
_MILLION = 10**6


class Audit(msgspec.Struct, frozen=True):
    state: int = 0
    attempt: int = 0
    second: bool = False
    shown: bool = False
    rate_ppm: int = 0
    round: int = 0
    segment: int = 0
    by_s: int = 0
    units: int = 0
    auditor: Address = ZERO_ADDRESS
    meter: int = 0
    reporter: Address = ZERO_ADDRESS
    seed: Digest = ZERO_DIGEST
    sealed: Digest = ZERO_DIGEST
    start: Digest = ZERO_DIGEST
    claimed: Digest = ZERO_DIGEST


class Opinion(msgspec.Struct, frozen=True):
    auditor: Address = ZERO_ADDRESS
    bond: int = 0
    payer: Address = ZERO_ADDRESS
    revealed: bool = False
    earns: bool = False
    result: Digest = ZERO_DIGEST


class Accusation(msgspec.Struct, frozen=True):
    """What a dispute is about: `units` steps lead from `start` to `claimed` or `result`."""

    provider: Address
    units: int
    start: Digest
    claimed: Digest
    result: Digest


_NO_AUDIT = Audit()
_NO_OPINION = Opinion()
_replace = msgspec.structs.replace


class Audits:
    def __init__(
        self,
        world: World,
        token: Token,
        registry: Registry,
        beacon: Beacon,
        panel: Panel,
        leases: Leases,
    ) -> None:
        self._store = world.store
        self._token = token
        self._registry = registry
        self._beacon = beacon
        self._panel = panel
        self._leases = leases
        self._here = world.addresses.audits
        self._rules = world.rules.audits

    # --- for Leases ---

    def enter(
        self, tx: Transaction, lease_id: Digest, provider: Address, compensation: int, determinism: int
    ) -> int:
        if determinism == 0:
            self._put(lease_id, Audit(state=RESOLVED))
            return 0
        number = self._beacon.next(tx)
        rate_ppm = self.rate_of(provider, compensation)
        self._put(lease_id, Audit(state=ENTERED, round=number, rate_ppm=rate_ppm))
        return number

    def finish(self, tx: Transaction, lease_id: Digest, completed: bool) -> list[Address]:
        """Who earned the fee."""
        self._put(lease_id, _replace(self.audit(lease_id), state=FINISHED))
        earners: list[Address] = []
        for turn in (0, 1):
            opinion = self.opinion(lease_id, turn)
            if opinion.earns:
                earners.append(opinion.auditor)
            self._give_back(tx, lease_id, turn, opinion.payer)
        if completed and earners:
            provider = self._leases.lease(lease_id).provider
            self._store.put(("valid_in_a_row", provider), self.valid_in_a_row(provider) + 1)
        return earners

    def missed(self, provider: Address) -> None:
        self._store.put(("valid_in_a_row", provider), 0)

    # --- public: the audit ---

    def draw_lease(self, tx: Transaction, lease_id: Digest) -> None:
        audit = self._in(lease_id, ENTERED)
        lease = self._leases.lease(lease_id)
        seed = Digest(keccak(self._beacon.beacon(audit.round) + lease.spec + lease.root + lease_id))
        audited = int.from_bytes(seed) * _MILLION >> 256 < audit.rate_ppm
        segment = 1 + int.from_bytes(keccak(seed + b"\x01")) % lease.segments
        audit = _replace(audit, seed=seed, segment=segment)
        tx.emit(LeaseDrawn(lease_id, seed, audited, segment))
        if audited:
            self._next(tx, lease_id, audit, lease)
        else:
            self._resolve(tx, lease_id, audit, 0)

    def commit_audit(self, tx: Transaction, lease_id: Digest, sealed: Digest) -> None:
        audit = self._mine(tx, lease_id, AWAITS_COMMIT)
        turn = int(audit.second)
        bond = self.bond_against(self._leases.lease(lease_id).provider, self._rules.bond_wei)
        before = self.opinion(lease_id, turn)
        self._put_opinion(lease_id, turn, _replace(before, auditor=audit.auditor, bond=bond, payer=tx.sender))
        state = AWAITS_REVEAL if audit.shown else AWAITS_OPENING
        by_s = tx.now_s + (self._rules.reveal_s if audit.shown else self._rules.open_s)
        self._put(lease_id, _replace(audit, sealed=sealed, state=state, by_s=by_s))
        tx.emit(AuditCommitted(lease_id, audit.auditor, sealed, by_s))
        if bond:
            self._token.pull(tx, self._here, tx.sender, self._here, bond)

    def open_segment(self, tx: Transaction, lease_id: Digest, shown: tuple[Shown, ...], other: int) -> None:
        audit = self._in(lease_id, AWAITS_OPENING)
        require(tx.now_s <= audit.by_s, "TooLate")
        lease = self._leases.lease(lease_id)
        require(self._registry.owner_of(tx.sender) == lease.provider, "NotYourAudit")
        same = other == audit.segment
        require(len(shown) == (2 if same else 4), "NotInCommitment")
        before, after = shown[0], shown[1]
        sound = _is_sound(lease, audit.segment, before, after)
        sound = (same or _is_sound(lease, other, shown[2], shown[3])) and sound
        point = int.from_bytes(keccak(audit.seed + b"\x04")) % lease.units
        require(shown[-2].units <= point < shown[-1].units, "NotInCommitment")
        if not sound:
            turn = int(audit.second)
            self._put_opinion(lease_id, turn, _replace(self.opinion(lease_id, turn), earns=True))
            self._leases.convict(tx, lease_id, audit.auditor, CloseReason.FRAUD)
            return
        by_s = tx.now_s + self._rules.reveal_s
        self._put(
            lease_id,
            _replace(
                audit,
                start=before.state,
                claimed=segment_result(after.state, after.units),
                units=after.units - before.units,
                meter=after.units,
                shown=True,
                state=AWAITS_REVEAL,
                by_s=by_s,
            ),
        )
        tx.emit(
            SegmentShown(lease_id, audit.segment, before.state, after.state, before.units, after.units, by_s)
        )

    def reveal_audit(self, tx: Transaction, lease_id: Digest, result: Digest, salt: Digest) -> None:
        audit = self._mine(tx, lease_id, AWAITS_REVEAL)
        require(sealed_result(result, audit.auditor, lease_id, salt) == audit.sealed, "NotSealed")
        turn, matches = int(audit.second), result == audit.claimed
        opinion = _replace(self.opinion(lease_id, turn), result=result, revealed=True)
        self._put_opinion(lease_id, turn, opinion)
        tx.emit(AuditRevealed(lease_id, audit.auditor, result, matches))
        if matches:
            tx.emit(AuditMatched(lease_id, audit.auditor))
        if audit.second:
            self._contest(tx, lease_id, audit)
        elif matches:
            self._put_opinion(lease_id, turn, _replace(opinion, earns=True))
            self._resolve(tx, lease_id, audit, self._rules.reveal_s)
        else:
            again = _replace(audit, second=True, attempt=audit.attempt + 1)
            self._next(tx, lease_id, again, self._leases.lease(lease_id))

    def report_withheld(self, tx: Transaction, lease_id: Digest) -> None:
        audit = self._in(lease_id, AWAITS_COMMIT)
        require(tx.now_s <= audit.by_s, "TooLate")
        owner = self._registry.owner_of(tx.sender)
        lease = self._leases.lease(lease_id)
        require(owner not in (lease.provider, lease.requester), "NotYourAudit")
        require(not self.reported(lease_id, owner), "AlreadyReported")
        if owner == audit.auditor:
            by_s = tx.now_s + self._rules.commit_s + _run_s(lease)
            audit = _replace(audit, by_s=max(audit.by_s, by_s))
        else:
            require(self.reported(lease_id, audit.auditor), "NotYourAudit")
        own, total = self._panel.shares(owner, lease.committed_s, (lease.provider, lease.requester))
        require(own != 0, "NotYourAudit")
        self._store.put(("reported", lease_id, owner), True)
        if audit.reporter == ZERO_ADDRESS:
            audit = _replace(audit, reporter=owner)
        self._put(lease_id, audit)
        weight = self.withheld_weight(lease_id) + own
        self._store.put(("withheld_weight", lease_id), weight)
        tx.emit(WithheldReported(lease_id, owner, weight, total, audit.by_s))
        if weight * 3 >= total * 2:
            self._leases.convict(tx, lease_id, audit.reporter, CloseReason.WITHHELD)

    def expire_audit(self, tx: Transaction, lease_id: Digest) -> None:
        audit = self.audit(lease_id)
        require(AWAITS_COMMIT <= audit.state <= CONTESTED, "WrongAuditState")
        require(tx.now_s > audit.by_s, "NotExpired")
        turn = int(audit.second)
        if audit.state == AWAITS_OPENING:
            self._put_opinion(lease_id, turn, _replace(self.opinion(lease_id, turn), earns=True))
            return self._leases.convict(tx, lease_id, audit.auditor, CloseReason.WITHHELD)
        lease = self._leases.lease(lease_id)
        if audit.state == CONTESTED:
            self._answer_for(tx, lease_id, audit, lease.provider)
            return self._resolve(tx, lease_id, audit, 0)
        if audit.state == AWAITS_REVEAL:
            self._give_back(tx, lease_id, turn, lease.provider)
        if not self.reported(lease_id, audit.auditor):
            tx.emit(AuditorSilent(lease_id, audit.auditor))
        return self._next(tx, lease_id, _replace(audit, attempt=audit.attempt + 1), lease)

    def spring_trap(self, tx: Transaction, terms: Terms, secret: Digest) -> None:
        require(terms.nonce == trap_nonce(secret), "NotTrap")
        lease_id = terms.lease_id(self._leases.domain)
        audit = self.audit(lease_id)
        require(audit.state != FINISHED, "WrongAuditState")
        bait = segment_result(trap_digest(secret, audit.segment), audit.meter)
        is_bait = self.opinion(lease_id, 0).revealed and audit.claimed == bait
        require(is_bait or self._registry.owner_of(tx.sender) == terms.provider, "NotTrap")
        payer, lazy = self._leases.lease(lease_id).payer, ZERO_ADDRESS
        for turn in (0, 1):
            opinion = self.opinion(lease_id, turn)
            if not opinion.revealed:
                continue
            self._put_opinion(lease_id, turn, _replace(opinion, earns=opinion.result != bait))
            if opinion.result == bait:
                lazy = opinion.auditor
                self._give_back(tx, lease_id, turn, payer)
        tx.emit(TrapSprung(lease_id, lazy))
        self._leases.close_trap(tx, lease_id, lazy)

    # --- for Disputes ---

    def begin_dispute(self, tx: Transaction, lease_id: Digest, accuser: Address) -> Accusation:
        audit = self._in(lease_id, CONTESTED)
        require(tx.now_s <= audit.by_s, "TooLate")
        turn = 0 if self.opinion(lease_id, 0).auditor == accuser else 1
        opinion = self.opinion(lease_id, turn)
        differs = opinion.revealed and opinion.result != audit.claimed
        require(opinion.auditor == accuser and differs, "NotYourAudit")
        self._put(lease_id, _replace(audit, state=DISPUTED, auditor=accuser))
        lease = self._leases.lease(lease_id)
        return Accusation(
            provider=lease.provider,
            units=audit.units,
            start=audit.start,
            claimed=audit.claimed,
            result=opinion.result,
        )

    def end_dispute(self, tx: Transaction, lease_id: Digest, guilty: bool, confirmed: bool) -> None:
        audit = self.audit(lease_id)
        if audit.state != DISPUTED:
            return
        if not guilty:
            if confirmed:
                self._answer_for(tx, lease_id, audit, self._leases.lease(lease_id).provider)
            self._resolve(tx, lease_id, audit, 0)
            return
        if not confirmed:
            self._leases.convict(tx, lease_id, ZERO_ADDRESS, CloseReason.FRAUD)
            return
        turn = 0 if self.opinion(lease_id, 0).auditor == audit.auditor else 1
        right = _replace(self.opinion(lease_id, turn), earns=True)
        self._put_opinion(lease_id, turn, right)
        other = self.opinion(lease_id, 1 - turn)
        if other.revealed and other.result == right.result:
            self._put_opinion(lease_id, 1 - turn, _replace(other, earns=True))
        elif other.revealed:
            self._give_back(tx, lease_id, 1 - turn, right.payer)
        self._leases.convict(tx, lease_id, audit.auditor, CloseReason.FRAUD)

    # --- views ---

    def audit(self, lease_id: Digest) -> Audit:
        return self._store.get(("audit", lease_id), _NO_AUDIT)

    def opinion(self, lease_id: Digest, turn: int) -> Opinion:
        return self._store.get(("opinion", lease_id, turn), _NO_OPINION)

    def reported(self, lease_id: Digest, auditor: Address) -> bool:
        return self._store.get(("reported", lease_id, auditor), False)

    def withheld_weight(self, lease_id: Digest) -> int:
        return self._store.get(("withheld_weight", lease_id), 0)

    def valid_in_a_row(self, provider: Address) -> int:
        return self._store.get(("valid_in_a_row", provider), 0)

    def is_payable(self, lease_id: Digest, now_s: int) -> bool:
        audit = self.audit(lease_id)
        return audit.state == RESOLVED and now_s > audit.by_s

    def least_rate(self, stake: int, price: int) -> int:
        rules = self._rules
        detected = rules.sensitivity_ppm * (_MILLION - rules.corrupt_ppm) * (price + stake)
        saved = (_MILLION + rules.margin_ppm) * rules.saving_ppm * price * _MILLION
        return -(-saved // detected)

    def rate_of(self, provider: Address, compensation: int) -> int:
        newcomer = VETERAN_AT * _MILLION // (self.valid_in_a_row(provider) + 1)
        least = self.least_rate(self._registry.participant(provider).stake, compensation)
        return min(_MILLION, max(least, newcomer))

    def bond_against(self, provider: Address, least: int) -> int:
        participant = self._registry.participant(provider)
        at_risk = participant.stake + participant.unbonding
        return max(least, at_risk * self._rules.bond_ppm // _MILLION)

    # --- internal ---

    def _next(self, tx: Transaction, lease_id: Digest, audit: Audit, lease: Lease) -> None:
        auditor = ZERO_ADDRESS
        if audit.attempt < MAX_ATTEMPTS:
            lot = int.from_bytes(keccak(audit.seed + b"\x02" + audit.attempt.to_bytes(1)))
            excluded = [lease.provider, lease.requester]
            if audit.second:
                excluded.append(self.opinion(lease_id, 0).auditor)
            auditor = self._panel.pick(lot, lease.committed_s, excluded)
        if auditor == ZERO_ADDRESS:
            if audit.second:
                self._contest(tx, lease_id, audit)
            else:
                self._resolve(tx, lease_id, audit, 0)
            return
        most_s = self._rules.commit_s + 4 * (lease.deadline_s - lease.accepted_s) // lease.segments
        by_s = tx.now_s + min(self._rules.commit_s << audit.attempt, most_s) + _run_s(lease)
        self._put(lease_id, _replace(audit, state=AWAITS_COMMIT, auditor=auditor, by_s=by_s))
        rest_s = self._rules.open_s + self._rules.reveal_s
        tx.emit(AuditorDrawn(lease_id, audit.attempt, auditor, by_s, by_s + rest_s))

    def _contest(self, tx: Transaction, lease_id: Digest, audit: Audit) -> None:
        by_s = tx.now_s + self._rules.dispute_s
        self._put(lease_id, _replace(audit, state=CONTESTED, by_s=by_s))
        tx.emit(AuditContested(lease_id, self.opinion(lease_id, 0).auditor, by_s))

    def _resolve(self, tx: Transaction, lease_id: Digest, audit: Audit, rest_s: int) -> None:
        by_s = tx.now_s + rest_s if rest_s else 0
        self._put(lease_id, _replace(audit, state=RESOLVED, by_s=by_s))
        tx.emit(AuditResolved(lease_id, by_s))

    def _answer_for(self, tx: Transaction, lease_id: Digest, audit: Audit, provider: Address) -> None:
        for turn in (0, 1):
            opinion = self.opinion(lease_id, turn)
            if opinion.revealed and opinion.result == audit.claimed:
                self._put_opinion(lease_id, turn, _replace(opinion, earns=True))
            elif opinion.revealed:
                self._give_back(tx, lease_id, turn, provider)

    def _give_back(self, tx: Transaction, lease_id: Digest, turn: int, to: Address) -> None:
        opinion = self.opinion(lease_id, turn)
        if opinion.bond:
            self._put_opinion(lease_id, turn, _replace(opinion, bond=0))
            self._token.move(tx, self._here, to, opinion.bond)

    def _put(self, lease_id: Digest, audit: Audit) -> None:
        self._store.put(("audit", lease_id), audit)

    def _put_opinion(self, lease_id: Digest, turn: int, opinion: Opinion) -> None:
        self._store.put(("opinion", lease_id, turn), opinion)

    def _in(self, lease_id: Digest, state: int) -> Audit:
        audit = self.audit(lease_id)
        require(audit.state == state, "WrongAuditState")
        return audit

    def _mine(self, tx: Transaction, lease_id: Digest, state: int) -> Audit:
        audit = self._in(lease_id, state)
        require(tx.now_s <= audit.by_s, "TooLate")
        require(self._registry.owner_of(tx.sender) == audit.auditor, "NotYourAudit")
        return audit


def _run_s(lease: Lease) -> int:
    """For a segment: twice what the provider had for one on the average."""
    return 2 * (lease.committed_s - lease.accepted_s) // lease.segments


def _is_sound(lease: Lease, segment: int, before: Shown, after: Shown) -> bool:
    """Whether its meter can be right; both ends have to be what was committed to."""
    require(segment != 0, "NotInCommitment")
    for index, shown in ((segment - 1, before), (segment, after)):
        value = Digest(keccak(index.to_bytes(4) + hidden_state(shown.state) + shown.units.to_bytes(8)))
        held = merkle.verify(lease.root, value, index, lease.segments + 1, shown.proof)
        require(held, "NotInCommitment")
    return 0 <= after.units - before.units <= lease.cap
