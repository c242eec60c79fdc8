"""Rewards.sol: pots that are shared out by what each participant's data was worth."""

import msgspec

from clusterai.ledger.core.events import (
    OwedTaken,
    PotClosed,
    PotContested,
    PotDecided,
    PotJoined,
    PotOpened,
    PotScored,
    PotVoted,
    ReferralEarned,
    ShareEarned,
)
from clusterai.ledger.core.twin.beacon import Beacon
from clusterai.ledger.core.twin.panel import Panel
from clusterai.ledger.core.twin.registry import Registry
from clusterai.ledger.core.twin.state import Transaction, World, require
from clusterai.ledger.core.twin.token import Token
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.pots import (
    MOST_PARTICIPANTS,
    MOST_REFERRAL_BPS,
    Pot,
    Scores,
    earned_wei,
    referral_wei,
)

NONE, OPEN, SCORED, CONTESTED, DECIDED, CLOSED = range(6)
MAX_STUDY_S = 365 * 86_400
BOND_BPS = 500
GRACE_S = 30 * 86_400


def bond_of(pot: Pot) -> int:
    return pot.amount_wei * BOND_BPS // 10_000


class Stand(msgspec.Struct, frozen=True):
    digest: Digest = ZERO_DIGEST
    contester: Address = ZERO_ADDRESS
    stage: int = NONE
    by_s: int = 0
    since_s: int = 0
    bond: int = 0
    score_bond: int = 0
    round: int = 0
    joined: int = 0
    replaced: bool = False


_NO_POT = Stand()
_replace = msgspec.structs.replace


class Rewards:
    def __init__(self, world: World, token: Token, registry: Registry, panel: Panel, beacon: Beacon) -> None:
        self._store = world.store
        self._token = token
        self._registry = registry
        self._panel = panel
        self._beacon = beacon
        self._here = world.addresses.rewards
        self._window_s = world.rules.window_s

    # --- public ---

    def open_pot(self, tx: Transaction, pot: Pot) -> None:
        require(tx.sender == pot.payer, "NotPayer")
        require(pot.amount_wei != 0, "OutOfRange")
        require(pot.evaluator != ZERO_ADDRESS, "OutOfRange")
        require(tx.now_s <= pot.score_by_s <= tx.now_s + MAX_STUDY_S, "OutOfRange")
        require(pot.join_by_s <= pot.score_by_s, "OutOfRange")
        require(pot.referral_bps <= MOST_REFERRAL_BPS, "OutOfRange")
        require(0 < len(pot.participants) <= MOST_PARTICIPANTS, "OutOfRange")
        require(len(pot.referrers) == len(pot.participants), "OutOfRange")
        scorer = self._registry.owner_of(Address(pot.evaluator))
        last = bytes(20)
        for one, referrer in zip(pot.participants, pot.referrers, strict=True):
            require(one > last and one not in (pot.evaluator, scorer), "OutOfRange")
            require(referrer != one, "OutOfRange")
            last = one
        pot_id = pot.struct()
        require(self.stand(pot_id).stage == NONE, "WrongStage")
        self._put(pot_id, Stand(stage=OPEN, by_s=pot.score_by_s))
        tx.emit(PotOpened(pot_id, Address(pot.payer), Address(pot.evaluator), pot))
        self._token.pull(tx, self._here, tx.sender, self._here, pot.amount_wei)

    def join_pot(self, tx: Transaction, pot: Pot, rows: Digest) -> None:
        pot_id, stand = self._at(pot, OPEN)
        require(tx.now_s <= pot.join_by_s, "TooLate")
        require(rows != ZERO_DIGEST, "OutOfRange")
        who = tx.sender if tx.sender in pot.participants else self._registry.owner_of(tx.sender)
        require(who in pot.participants, "NotEntitled")
        require(self.rows(pot_id, who) == ZERO_DIGEST, "AlreadyJoined")
        self._store.put(("pot_rows", pot_id, who), rows)
        place, number = stand.joined + 1, self._beacon.next(tx)
        self._put(pot_id, _replace(stand, round=number, joined=place))
        tx.emit(PotJoined(pot_id, who, rows, number, place))

    def score_pot(self, tx: Transaction, pot: Pot, evidence: Digest, scores: tuple[int, ...]) -> None:
        pot_id, stand = self._at(pot, OPEN)
        require(tx.sender == pot.evaluator, "NotEvaluator")
        require(tx.now_s <= stand.by_s, "TooLate")
        require(tx.now_s > pot.join_by_s or stand.joined == len(pot.participants), "TooEarly")
        require(len(scores) == len(pot.participants), "OutOfRange")
        digest, by_s = Scores(pot_id, evidence, scores).struct(), tx.now_s + self._window_s
        bond = bond_of(pot)
        scored = _replace(stand, digest=digest, stage=SCORED, by_s=by_s, since_s=tx.now_s, score_bond=bond)
        self._put(pot_id, scored)
        tx.emit(PotScored(pot_id, digest, evidence, by_s, scores))
        if bond:
            self._token.pull(tx, self._here, tx.sender, self._here, bond)

    def contest_pot(self, tx: Transaction, pot: Pot) -> None:
        pot_id = pot.struct()
        stand = self.stand(pot_id)
        until_s = stand.by_s
        if stand.stage == OPEN:
            require(tx.now_s > until_s, "TooEarly")
            stand = _replace(stand, since_s=until_s)
            until_s += self._window_s
        else:
            require(stand.stage == SCORED, "WrongStage")
        require(tx.now_s <= until_s, "TooLate")
        who = self._registry.owner_of(tx.sender)
        if tx.sender not in pot.participants and who not in pot.participants:
            own, _ = self._panel.shares(who, stand.since_s, self._parties(pot))
            require(own != 0, "NotEntitled")
        bond, by_s = bond_of(pot), tx.now_s + self._window_s
        self._put(pot_id, _replace(stand, stage=CONTESTED, by_s=by_s, contester=tx.sender, bond=bond))
        tx.emit(PotContested(pot_id, tx.sender, by_s))
        if bond:
            self._token.pull(tx, self._here, tx.sender, self._here, bond)

    def vote_pot(self, tx: Transaction, pot: Pot, digest: Digest) -> None:
        pot_id, stand = self._at(pot, CONTESTED)
        require(tx.now_s <= stand.by_s, "TooLate")
        member = self._registry.owner_of(tx.sender)
        require(not self.voted(pot_id, member), "AlreadyVoted")
        own, total = self._panel.shares(member, stand.since_s, self._parties(pot))
        require(own != 0, "NotEntitled")
        self._store.put(("pot_voted", pot_id, member), True)
        weight = self.weight(pot_id, digest) + own
        self._store.put(("pot_weight", pot_id, digest), weight)
        tx.emit(PotVoted(pot_id, member, digest, weight, total))
        if weight * 3 < total * 2:
            return
        confirmed = digest == stand.digest
        self._put(pot_id, _replace(stand, stage=DECIDED, replaced=not confirmed, digest=digest))
        self._owe(Address(pot.payer) if confirmed else stand.contester, stand.bond)
        self._owe(Address(pot.evaluator) if confirmed else stand.contester, stand.score_bond)
        tx.emit(PotDecided(pot_id, digest))

    def close_pot(self, tx: Transaction, pot: Pot, evidence: Digest, scores: tuple[int, ...]) -> None:
        pot_id = pot.struct()
        stand = self.stand(pot_id)
        require(stand.stage not in (NONE, CLOSED), "WrongStage")
        digest = stand.digest
        if stand.stage != DECIDED:
            end_s = stand.by_s + self._window_s if stand.stage == OPEN else stand.by_s
            require(tx.now_s > end_s, "TooEarly")
            if stand.stage == CONTESTED:
                self._owe(stand.contester, stand.bond)
            self._owe(Address(pot.evaluator), stand.score_bond)
        elif stand.replaced and tx.now_s > stand.by_s + GRACE_S:
            digest = ZERO_DIGEST
        self._put(pot_id, _replace(stand, stage=CLOSED))
        earned = 0
        if digest != ZERO_DIGEST:
            require(Scores(pot_id, evidence, scores).struct() == digest, "OtherScores")
            require(len(scores) == len(pot.participants), "OutOfRange")
            shares = earned_wei(pot.amount_wei, pot.full, scores)
            for at, share in enumerate(shares):
                one = Address(pot.participants[at])
                if (
                    not share
                    or self.rows(pot_id, one) == ZERO_DIGEST
                    or self._registry.participant(one).barred
                ):
                    continue
                earned += share
                share -= self._refer(tx, pot_id, pot, at, share)
                self._owe(one, share)
                tx.emit(ShareEarned(pot_id, one, share))
        self._owe(Address(pot.payer), pot.amount_wei - earned)
        tx.emit(PotClosed(pot_id, earned, pot.amount_wei - earned))

    def take_owed(self, tx: Transaction, who: Address) -> None:
        amount = self.owed(who)
        require(amount != 0, "NothingOwed")
        self._store.put(("owed", who), 0)
        tx.emit(OwedTaken(who, amount))
        self._token.move(tx, self._here, who, amount)

    # --- views ---

    def stand(self, pot_id: Digest) -> Stand:
        return self._store.get(("pot", pot_id), _NO_POT)

    def owed(self, who: Address) -> int:
        return self._store.get(("owed", who), 0)

    def rows(self, pot_id: Digest, participant: Address) -> Digest:
        return self._store.get(("pot_rows", pot_id, participant), ZERO_DIGEST)

    def weight(self, pot_id: Digest, digest: Digest) -> int:
        return self._store.get(("pot_weight", pot_id, digest), 0)

    def voted(self, pot_id: Digest, member: Address) -> bool:
        return self._store.get(("pot_voted", pot_id, member), False)

    # --- internal ---

    def _refer(self, tx: Transaction, pot_id: Digest, pot: Pot, at: int, share: int) -> int:
        referrer = Address(pot.referrers[at])
        fee = referral_wei(share, pot.referral_bps)
        if referrer == ZERO_ADDRESS or not fee or self._registry.participant(referrer).barred:
            return 0
        self._owe(referrer, fee)
        tx.emit(ReferralEarned(pot_id, referrer, Address(pot.participants[at]), fee))
        return fee

    def _owe(self, who: Address, amount: int) -> None:
        if amount:
            self._store.put(("owed", who), self.owed(who) + amount)

    def _put(self, pot_id: Digest, stand: Stand) -> None:
        self._store.put(("pot", pot_id), stand)

    def _at(self, pot: Pot, stage: int) -> tuple[Digest, Stand]:
        pot_id = pot.struct()
        stand = self.stand(pot_id)
        require(stand.stage == stage, "WrongStage")
        return pot_id, stand

    def _parties(self, pot: Pot) -> tuple[Address, ...]:
        payer, _ = self._registry.standing(Address(pot.payer))
        evaluator, _ = self._registry.standing(Address(pot.evaluator))
        return (*map(Address, pot.participants), payer, evaluator)
