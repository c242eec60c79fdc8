"""Disputes.sol: who is right about a segment, by bisection down to one step, which referees run."""

import msgspec

from clusterai.ledger.core.events import (
    DisputeEnded,
    DisputeOpened,
    RangeSelected,
    RefereeCommitted,
    RefereeRevealed,
    RefereesDrawn,
    RefereesSealed,
    TraceAsserted,
)
from clusterai.ledger.core.twin.audits import Audits
from clusterai.ledger.core.twin.leases import CLOSED, Leases
from clusterai.ledger.core.twin.panel import Panel
from clusterai.ledger.core.twin.registry import Registry
from clusterai.ledger.core.twin.state import Revert, Transaction, World, require
from clusterai.ledger.core.twin.token import Token
from clusterai.protocol import bisection
from clusterai.protocol.bisection import MAX_STEPS, WrongMove
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import DeterminismClass, DisputeReason, sealed_result

NONE, ASSERTING, SELECTING, SEALING, REVEALING, ENDED = range(6)
PANEL_LEVEL = 2
_NO_GAME = bisection.Dispute(0, 0, ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST)


class Dispute(msgspec.Struct, frozen=True):
    stage: int = NONE
    level: int = 0
    lenient: bool = False
    by_s: int = 0
    run_s: int = 0
    bond: int = 0
    provider: Address = ZERO_ADDRESS
    accuser: Address = ZERO_ADDRESS
    payer: Address = ZERO_ADDRESS
    game: bisection.Dispute = _NO_GAME
    total: int = 0
    sealed: int = 0
    heard: int = 0


class Voice(msgspec.Struct, frozen=True):
    weight: int = 0
    sealed_it: bool = False
    sealed: Digest = ZERO_DIGEST


_NO_DISPUTE = Dispute()
_NO_VOICE = Voice()
_replace = msgspec.structs.replace


class Disputes:
    def __init__(
        self, world: World, token: Token, registry: Registry, panel: Panel, leases: Leases, audits: Audits
    ) -> None:
        self._store = world.store
        self._token = token
        self._registry = registry
        self._panel = panel
        self._leases = leases
        self._audits = audits
        self._here = world.addresses.disputes
        self._rules = world.rules.disputes
        self._dispute_s = world.rules.audits.dispute_s

    # --- public: the two parties ---

    def start_dispute(self, tx: Transaction, lease_id: Digest) -> None:
        self._in(lease_id, NONE)
        accuser = self._registry.owner_of(tx.sender)
        accusation = self._audits.begin_dispute(tx, lease_id, accuser)
        if self._audits.opinion(lease_id, 0).auditor != accuser:
            until_s = self._audits.audit(lease_id).by_s - self._dispute_s // 2
            require(tx.now_s > until_s, "FirstAccuserFirst")
        lease = self._leases.lease(lease_id)
        metered = lease.determinism == DeterminismClass.WASM and 0 < accusation.units <= MAX_STEPS
        steps = accusation.units if metered else 1
        run_s = 2 * (lease.committed_s - lease.accepted_s) // lease.segments
        run_s = max(run_s, tx.now_s - lease.committed_s)
        by_s = tx.now_s + self._rules.move_s + run_s
        dispute = Dispute(
            stage=ASSERTING,
            by_s=by_s,
            run_s=run_s,
            provider=accusation.provider,
            accuser=accuser,
            payer=tx.sender,
            bond=self._audits.bond_against(accusation.provider, self._rules.bond_wei),
            game=bisection.opened(steps, accusation.start, accusation.claimed, accusation.result),
        )
        self._put(lease_id, dispute)
        tx.emit(
            DisputeOpened(
                lease_id,
                accuser,
                accusation.provider,
                steps,
                accusation.start,
                accusation.claimed,
                accusation.result,
                by_s,
            )
        )
        if dispute.bond:
            self._token.pull(tx, self._here, tx.sender, self._here, dispute.bond)
        if dispute.game.is_leaf:
            self._draw(tx, lease_id, dispute, 0)

    def assert_trace(self, tx: Transaction, lease_id: Digest, inner: tuple[Digest, ...]) -> None:
        dispute = self._moving(tx, lease_id, ASSERTING)
        require(self._registry.owner_of(tx.sender) == dispute.provider, "NotYourMove")
        try:
            game = bisection.asserted(dispute.game, inner)
        except WrongMove:
            raise Revert("WrongMove") from None
        by_s = self._move_by_s(tx, dispute)
        self._put(lease_id, _replace(dispute, game=game, stage=SELECTING, by_s=by_s))
        tx.emit(TraceAsserted(lease_id, inner, by_s))

    def select_range(
        self, tx: Transaction, lease_id: Digest, part: int, denied: Digest, inner: tuple[Digest, ...]
    ) -> None:
        dispute = self._moving(tx, lease_id, SELECTING)
        require(self._registry.owner_of(tx.sender) == dispute.accuser, "NotYourMove")
        require(inner == dispute.game.asserted, "NotAsserted")
        try:
            game = bisection.selected(dispute.game, part, denied)
        except WrongMove:
            raise Revert("WrongMove") from None
        by_s = self._move_by_s(tx, dispute)
        dispute = _replace(dispute, game=game, stage=ASSERTING, by_s=by_s)
        self._put(lease_id, dispute)
        tx.emit(RangeSelected(lease_id, game.low, game.high, game.start, game.claimed, denied, by_s))
        if game.is_leaf:
            self._draw(tx, lease_id, dispute, 0)

    # --- public: referees ---

    def commit_referee(self, tx: Transaction, lease_id: Digest, sealed: Digest) -> None:
        dispute = self._moving(tx, lease_id, SEALING)
        referee, level = self._registry.owner_of(tx.sender), dispute.level
        voice = self.voice(lease_id, level, referee)
        require(not voice.sealed_it, "AlreadySealed")
        weight = voice.weight
        if level == PANEL_LEVEL:
            time_s = self._leases.lease(lease_id).committed_s
            weight, _ = self._panel.shares(
                referee, time_s, self._excluded(lease_id, dispute, dispute.lenient)
            )
        require(weight != 0, "NotReferee")
        self._store.put(("voice", lease_id, level, referee), Voice(weight, True, sealed))
        dispute = _replace(dispute, sealed=dispute.sealed + weight)
        self._put(lease_id, dispute)
        tx.emit(RefereeCommitted(lease_id, level, referee, sealed))
        if dispute.sealed == dispute.total:
            self._reveal(tx, lease_id, dispute)

    def reveal_referee(self, tx: Transaction, lease_id: Digest, result: Digest, salt: Digest) -> None:
        dispute = self._moving(tx, lease_id, REVEALING)
        referee, level = self._registry.owner_of(tx.sender), dispute.level
        voice = self.voice(lease_id, level, referee)
        require(voice.sealed != ZERO_DIGEST, "NotReferee")
        require(sealed_result(result, referee, lease_id, salt) == voice.sealed, "NotSealed")
        self._store.put(("voice", lease_id, level, referee), _replace(voice, sealed=ZERO_DIGEST))
        dispute = _replace(dispute, heard=dispute.heard + voice.weight)
        self._put(lease_id, dispute)
        weight = self.said(lease_id, level, result) + voice.weight
        self._store.put(("said", lease_id, level, result), weight)
        tx.emit(RefereeRevealed(lease_id, level, referee, result))
        denied = dispute.game.denied
        guilty = result == ZERO_DIGEST or result != dispute.game.claimed
        if guilty and level == PANEL_LEVEL:
            beside = denied if result == ZERO_DIGEST else ZERO_DIGEST
            weight += self.said(lease_id, level, beside) if beside != result else 0
        needed, of = (6, 7) if guilty and level == 0 else (2, 3)
        if weight * of >= dispute.total * needed and (result != ZERO_DIGEST or level == PANEL_LEVEL):
            confirmed = self.said(lease_id, level, denied) * 3 > dispute.total
            self._end(tx, lease_id, dispute, guilty, DisputeReason.REFEREES, confirmed)
        elif dispute.heard == dispute.sealed:
            self._draw(tx, lease_id, dispute, level + 1)

    # --- public: anyone ---

    def expire_dispute(self, tx: Transaction, lease_id: Digest) -> None:
        dispute = self.dispute(lease_id)
        require(ASSERTING <= dispute.stage <= REVEALING, "WrongStage")
        if self._is_closed(lease_id):
            return self._end(tx, lease_id, dispute, False, DisputeReason.MOOT)
        require(tx.now_s > dispute.by_s, "NotExpired")
        if dispute.stage in (ASSERTING, SELECTING):
            guilty = dispute.stage == ASSERTING
            return self._end(tx, lease_id, dispute, guilty, DisputeReason.TIMEOUT, confirmed=True)
        if dispute.stage == SEALING and dispute.sealed * 3 >= dispute.total * 2:
            return self._reveal(tx, lease_id, dispute)
        return self._draw(tx, lease_id, dispute, dispute.level + 1)

    # --- views ---

    def dispute(self, lease_id: Digest) -> Dispute:
        return self._store.get(("dispute", lease_id), _NO_DISPUTE)

    def voice(self, lease_id: Digest, level: int, referee: Address) -> Voice:
        return self._store.get(("voice", lease_id, level, referee), _NO_VOICE)

    def said(self, lease_id: Digest, level: int, result: Digest) -> int:
        return self._store.get(("said", lease_id, level, result), 0)

    # --- internal ---

    def _draw(self, tx: Transaction, lease_id: Digest, dispute: Dispute, level: int) -> None:
        if level > PANEL_LEVEL:
            return self._end(tx, lease_id, dispute, False, DisputeReason.UNDECIDED)
        time_s, lenient = self._leases.lease(lease_id).committed_s, dispute.lenient
        excluded = self._excluded(lease_id, dispute, lenient)
        _, total = self._panel.shares(ZERO_ADDRESS, time_s, excluded)
        if total == 0 and not lenient:
            lenient = True
            excluded = self._excluded(lease_id, dispute, lenient)
            _, total = self._panel.shares(ZERO_ADDRESS, time_s, excluded)
        if total == 0:
            dispute = _replace(dispute, lenient=lenient)
            return self._end(tx, lease_id, dispute, False, DisputeReason.UNDECIDED)
        referees: tuple[Address, ...] = ()
        if level < PANEL_LEVEL:
            total = self._rules.committee * (1 if level == 0 else 3)
            seed = self._audits.audit(lease_id).seed
            lots = (int.from_bytes(keccak(seed + bytes((3, level, seat)))) for seat in range(total))
            referees = tuple(self._panel.pick(lot, time_s, excluded) for lot in lots)
        for referee in referees:
            voice = self.voice(lease_id, level, referee)
            self._store.put(("voice", lease_id, level, referee), _replace(voice, weight=voice.weight + 1))
        by_s = tx.now_s + self._rules.seal_s + dispute.run_s
        drawn = _replace(
            dispute, stage=SEALING, level=level, lenient=lenient, by_s=by_s, total=total, sealed=0, heard=0
        )
        self._put(lease_id, drawn)
        tx.emit(RefereesDrawn(lease_id, level, referees, total, by_s))
        return None

    def _reveal(self, tx: Transaction, lease_id: Digest, dispute: Dispute) -> None:
        by_s = tx.now_s + self._rules.reveal_s
        self._put(lease_id, _replace(dispute, stage=REVEALING, by_s=by_s))
        tx.emit(RefereesSealed(lease_id, dispute.level, by_s))

    def _end(
        self,
        tx: Transaction,
        lease_id: Digest,
        dispute: Dispute,
        guilty: bool,
        reason: DisputeReason,
        confirmed: bool = False,
    ) -> None:
        self._put(lease_id, _replace(dispute, stage=ENDED))
        closed = reason is DisputeReason.MOOT or self._is_closed(lease_id)
        reason = DisputeReason.MOOT if closed else reason
        winner = ZERO_ADDRESS if closed else dispute.accuser if guilty else dispute.provider
        tx.emit(DisputeEnded(lease_id, winner, int(reason)))
        lost = not guilty and reason in (DisputeReason.REFEREES, DisputeReason.TIMEOUT)
        if dispute.bond:
            to = dispute.provider if lost else dispute.payer
            self._token.move(tx, self._here, to, dispute.bond)
        if not closed:
            self._audits.end_dispute(tx, lease_id, guilty, confirmed if guilty else lost)

    def _excluded(self, lease_id: Digest, dispute: Dispute, lenient: bool) -> list[Address]:
        requester = self._leases.lease(lease_id).requester
        excluded = [dispute.provider, requester, dispute.accuser]
        first = self._audits.opinion(lease_id, 0).auditor == dispute.accuser
        other = self._audits.opinion(lease_id, 1 if first else 0)
        if other.revealed and not lenient:
            excluded.append(other.auditor)
        return excluded

    def _is_closed(self, lease_id: Digest) -> bool:
        return self._leases.lease(lease_id).state == CLOSED

    def _move_by_s(self, tx: Transaction, dispute: Dispute) -> int:
        return tx.now_s + self._rules.move_s + dispute.run_s

    def _put(self, lease_id: Digest, dispute: Dispute) -> None:
        self._store.put(("dispute", lease_id), dispute)

    def _in(self, lease_id: Digest, stage: int) -> Dispute:
        dispute = self.dispute(lease_id)
        require(dispute.stage == stage, "WrongStage")
        return dispute

    def _moving(self, tx: Transaction, lease_id: Digest, stage: int) -> Dispute:
        dispute = self._in(lease_id, stage)
        require(tx.now_s <= dispute.by_s, "TooLate")
        return dispute
