"""Court.sol: commitments, the draw, challenges, verdicts."""

from typing import Protocol

import msgspec

from clusterai.ledger.core.calls import Parameters
from clusterai.ledger.core.events import (
    AnswerPart,
    ChallengeAnswered,
    Challenged,
    Convicted,
    EpochCleared,
    EpochCommitted,
    Equivocated,
    ParametersSet,
    Voted,
)
from clusterai.ledger.core.twin.beacon import Beacon
from clusterai.ledger.core.twin.channels import Channels
from clusterai.ledger.core.twin.registry import PROVIDER, VALIDATOR, Registry
from clusterai.ledger.core.twin.state import Transaction, World, checked, require
from clusterai.ledger.core.twin.token import Token
from clusterai.protocol import merkle
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import EPOCH_LIST, Clearance, Outcome, Verdict, signing_digest

MAX_SEALED_BYTES = 24_576
MAX_PARTS = 64
MAX_RECEIPTS = 8_192
MAX_BOUNTY_BPS = 5_000
MAX_CHALLENGE_BOND_WEI = 1_000 * WEI_PER_TOKEN
VETERAN_AT = 10
_MILLION = 10**6


class Commitment(msgspec.Struct, frozen=True):
    """`round` numbers the beacon that draws; `rate_ppm` is fixed with the commitment."""

    root: Digest = ZERO_DIGEST
    total: int = 0
    count: int = 0
    at_s: int = 0
    round: int = 0
    rate_ppm: int = 0


class Challenge(msgspec.Struct, frozen=True):
    """`parts` is bound by the answer's first part, 0 before it; `received` has a bit for each that came."""

    payer: Address = ZERO_ADDRESS
    deadline_s: int = 0
    finish_s: int = 0
    parts: int = 0
    answered: bool = False
    bond: int = 0
    received: int = 0

    @property
    def closes_s(self) -> int:
        """The last second in which a part counts; 0 where nothing was demanded."""
        return self.finish_s if self.parts else self.deadline_s


class Tally(msgspec.Struct, frozen=True):
    weight: int = 0
    total: int = 0
    finder: Address = ZERO_ADDRESS


_UNCOMMITTED = Commitment()
_UNCHALLENGED = Challenge()
_NO_TALLY = Tally()


def is_drawn(beacon: Digest, provider: Address, epoch: int, root: Digest, index: int, rate_ppm: int) -> bool:
    """keccak(beacon ‖ provider ‖ epoch ‖ root ‖ index) < rate * 2^256 / 10^6."""
    lot = keccak(beacon + provider + epoch.to_bytes(8) + root + index.to_bytes(4))
    return int.from_bytes(lot) * _MILLION < rate_ppm << 256


class Rates(Protocol):
    """What audit rate deters: Audits, which is wired after the Court."""

    def least_rate(self, stake: int, price: int) -> int: ...


class Court:
    rates: Rates

    def __init__(
        self, world: World, token: Token, registry: Registry, channels: Channels, beacon: Beacon
    ) -> None:
        self._world = world
        self._store = world.store
        self._rules = world.rules
        self._token = token
        self._registry = registry
        self._channels = channels
        self._beacon = beacon
        self._here = world.addresses.court

    # --- public: governance ---

    def set_parameters(self, tx: Transaction, given: Parameters) -> None:
        require(tx.sender == self._world.governor, "OwnableUnauthorizedAccount")
        in_bounds = (
            0 < given.audit_rate_ppm <= _MILLION
            and given.bounty_bps <= MAX_BOUNTY_BPS
            and 0 < given.answer_s <= self._rules.window_s // 6
            and given.challenge_bond_wei <= MAX_CHALLENGE_BOND_WEI
        )
        require(in_bounds, "ParameterOutOfRange")
        self._store.put(("parameters",), given)
        tx.emit(ParametersSet(*msgspec.structs.astuple(given)))

    # --- public: providers ---

    def commit_epoch(self, tx: Transaction, epoch: int, root: Digest, count: int, total: int) -> None:
        provider = self._registry.owner_of(tx.sender)
        _, roles = self._registry.standing(tx.sender)
        require(provider != ZERO_ADDRESS and roles & PROVIDER != 0, "NotProvider")
        require(not self.convicted(provider), "AlreadyConvicted")
        current = self.epoch(tx.now_s)
        require(epoch < current, "EpochNotOver")
        require(epoch >= self.committed_until(provider), "EpochBefore")
        require(count != 0, "EmptyEpoch")
        require(count <= MAX_RECEIPTS, "TooManyReceipts")
        number = self._beacon.next(tx)
        self._store.put(("committed_until", provider), epoch + 1)
        self._store.put(("committed_total", provider), checked(self.committed_total(provider) + total))
        rate_ppm = self.rate_of(provider, count, total)
        commitment = Commitment(root, total, count, tx.now_s, number, rate_ppm)
        self._store.put(("commitment", provider, epoch), commitment)
        tx.emit(EpochCommitted(provider, epoch, root, count, total, number, rate_ppm))

    def answer_challenge(
        self, tx: Transaction, provider: Address, epoch: int, index: int, part: int, parts: int, sealed: bytes
    ) -> None:
        require(self._registry.owner_of(tx.sender) == provider, "NotProvider")
        require(len(sealed) <= MAX_SEALED_BYTES, "AnswerTooLong")
        challenge = self.challenge_of(provider, epoch, index)
        require(challenge.closes_s != 0, "NotChallenged")
        require(not challenge.answered, "AlreadyAnswered")
        require(tx.now_s <= challenge.closes_s, "AnswerTooLate")
        require(parts <= MAX_PARTS if challenge.parts == 0 else parts == challenge.parts, "WrongParts")
        require(part < parts, "WrongParts")
        require(not challenge.received >> part & 1, "AlreadyReceived")
        received = challenge.received | 1 << part
        complete = received == (1 << parts) - 1
        place = ("challenge", provider, epoch, index)
        self._store.put(
            place,
            msgspec.structs.replace(
                challenge,
                parts=parts,
                received=received,
                answered=complete,
                bond=0 if complete else challenge.bond,
            ),
        )
        tx.emit(AnswerPart(provider, epoch, index, part, parts, sealed))
        if not complete:
            return
        tx.emit(ChallengeAnswered(provider, epoch, index))
        if challenge.bond:
            self._token.move(tx, self._here, provider, challenge.bond)

    # --- public: anyone ---

    def vote(self, tx: Transaction, verdict: Verdict, proof: tuple[Digest, ...], signature: bytes) -> None:
        provider = Address(verdict.provider)
        commitment = self._judgeable(tx, provider, verdict.epoch)
        if verdict.outcome == Outcome.FRAUD:
            if verdict.index != EPOCH_LIST:
                self._require_drawn_leaf(commitment, verdict, proof)
        else:
            require(verdict.outcome == Outcome.WITHHELD, "UnknownOutcome")
            self._require_unanswered(tx, verdict)
        digest = signing_digest(verdict, self._world.court_domain)
        validator, stake = self._voter(provider, digest, signature)
        self._cast_once(("ballot", validator, provider, verdict.epoch, verdict.index))
        tx.emit(
            Voted(
                validator, provider, verdict.epoch, verdict.index, verdict.outcome, Digest(verdict.evidence)
            )
        )
        reached, finder = self._count(digest, provider, validator, stake)
        if reached:
            self._convict(tx, verdict, finder)

    def clear(self, tx: Transaction, clearance: Clearance, signature: bytes) -> None:
        provider = Address(clearance.provider)
        commitment = self._judgeable(tx, provider, clearance.epoch)
        require(clearance.root == commitment.root, "WrongRoot")
        self._beacon.beacon(commitment.round)
        require(not self.cleared(provider, clearance.epoch), "AlreadyCleared")
        digest = signing_digest(clearance, self._world.court_domain)
        validator, stake = self._voter(provider, digest, signature)
        self._cast_once(("clearing", validator, provider, clearance.epoch))
        reached, _ = self._count(digest, provider, validator, stake)
        if not reached:
            return
        self._store.put(("cleared", provider, clearance.epoch), True)
        valid = self.valid_in_a_row(provider) + clearance.audited
        self._store.put(("valid_receipts", provider), valid)
        tx.emit(
            EpochCleared(
                provider,
                clearance.epoch,
                Digest(clearance.root),
                clearance.audited,
                Digest(clearance.evidence),
            )
        )

    def challenge(self, tx: Transaction, provider: Address, epoch: int, index: int) -> None:
        validator = self._registry.owner_of(tx.sender)
        require(self._registry.validator_stake(validator) != 0, "NotValidator")
        commitment = self._judgeable(tx, provider, epoch)
        if index != EPOCH_LIST:
            self._require_drawn(commitment, provider, epoch, index)
        earlier = self.challenge_of(provider, epoch, index)
        require(earlier.deadline_s == 0 or earlier.answered, "AlreadyChallenged")
        answer_s = self.parameters().answer_s
        require(tx.now_s + 3 * answer_s <= commitment.at_s + self._rules.window_s, "AfterWindow")
        deadline_s, finish_s = tx.now_s + answer_s, tx.now_s + 2 * answer_s
        bond = self.parameters().challenge_bond_wei
        fresh = Challenge(tx.sender, deadline_s, finish_s, bond=bond)
        self._store.put(("challenge", provider, epoch, index), fresh)
        tx.emit(Challenged(validator, provider, epoch, index, deadline_s, finish_s))
        if bond:
            self._token.pull(tx, self._here, tx.sender, self._here, bond)

    def recover_bond(self, tx: Transaction, provider: Address, epoch: int, index: int) -> None:
        challenge = self.challenge_of(provider, epoch, index)
        require(challenge.bond != 0, "NotChallenged")
        require(tx.now_s > challenge.closes_s, "AnswerPending")
        self._store.put(("challenge", provider, epoch, index), msgspec.structs.replace(challenge, bond=0))
        self._token.move(tx, self._here, challenge.payer, challenge.bond)

    def equivocation(
        self,
        tx: Transaction,
        first: Verdict,
        first_signature: bytes,
        second: Verdict,
        second_signature: bytes,
    ) -> None:
        same = (first.provider, first.epoch, first.index) == (second.provider, second.epoch, second.index)
        require(same and (first.outcome, first.leaf) != (second.outcome, second.leaf), "NotContradictory")
        key = self._signer(signing_digest(first, self._world.court_domain), first_signature)
        validator, roles = self._registry.standing(key)
        require(roles & VALIDATOR != 0, "NotValidator")
        key = self._signer(signing_digest(second, self._world.court_domain), second_signature)
        other, _ = self._registry.standing(key)
        require(other == validator, "NotValidator")
        require(not self.equivocated(validator), "AlreadySlashed")
        self._store.put(("equivocated", validator), True)
        tx.emit(Equivocated(validator, Address(first.provider), first.epoch, first.index))
        self._registry.slash(tx, validator, tx.sender, self.parameters().bounty_bps)

    # --- for Leases and Vaults ---

    def convict_by_lease(
        self, tx: Transaction, provider: Address, finder: Address, outcome: Outcome, lease: Digest
    ) -> None:
        if not self.convicted(provider):
            self._punish(tx, provider, self.epoch(tx.now_s), EPOCH_LIST, int(outcome), lease, finder)

    # --- views ---

    def parameters(self) -> Parameters:
        rules = self._rules
        at_first = Parameters(
            rules.audit_rate_ppm, rules.bounty_bps, rules.answer_s, rules.challenge_bond_wei
        )
        return self._store.get(("parameters",), at_first)

    def epoch(self, now_s: int) -> int:
        return now_s // self._rules.epoch_s

    def commitment(self, provider: Address, epoch: int) -> Commitment:
        return self._store.get(("commitment", provider, epoch), _UNCOMMITTED)

    def committed_until(self, provider: Address) -> int:
        return self._store.get(("committed_until", provider), 0)

    def valid_in_a_row(self, provider: Address) -> int:
        return self._store.get(("valid_receipts", provider), 0)

    def rate_of(self, provider: Address, count: int, total: int) -> int:
        newcomer = VETERAN_AT * _MILLION // (self.valid_in_a_row(provider) + count)
        stake = self._registry.participant(provider).stake // 2
        least = self.rates.least_rate(stake, total) if total else 0
        return min(_MILLION, max(self.parameters().audit_rate_ppm, newcomer, least))

    def committed_total(self, provider: Address) -> int:
        return self._store.get(("committed_total", provider), 0)

    def convicted(self, provider: Address) -> bool:
        return self._store.get(("convicted", provider), False)

    def cleared(self, provider: Address, epoch: int) -> bool:
        return self._store.get(("cleared", provider, epoch), False)

    def equivocated(self, validator: Address) -> bool:
        return self._store.get(("equivocated", validator), False)

    def challenge_of(self, provider: Address, epoch: int, index: int) -> Challenge:
        return self._store.get(("challenge", provider, epoch, index), _UNCHALLENGED)

    def tally(self, digest: Digest) -> Tally:
        return self._store.get(("tally", digest), _NO_TALLY)

    def beacon_of(self, provider: Address, epoch: int) -> Digest | None:
        """The beacon that draws from a commitment; None until it is recorded."""
        commitment = self.commitment(provider, epoch)
        if commitment.at_s == 0 or not self._beacon.is_recorded(commitment.round):
            return None
        return self._beacon.beacon(commitment.round)

    def drawn(self, provider: Address, epoch: int, index: int) -> bool | None:
        """Whether a receipt is audited; None while the beacon is pending."""
        beacon = self.beacon_of(provider, epoch)
        if beacon is None:
            return None
        commitment = self.commitment(provider, epoch)
        return is_drawn(beacon, provider, epoch, commitment.root, index, commitment.rate_ppm)

    # --- internal ---

    def _convict(self, tx: Transaction, verdict: Verdict, finder: Address) -> None:
        provider, evidence = Address(verdict.provider), Digest(verdict.evidence)
        self._punish(tx, provider, verdict.epoch, verdict.index, verdict.outcome, evidence, finder)

    def _punish(
        self,
        tx: Transaction,
        provider: Address,
        epoch: int,
        index: int,
        outcome: int,
        evidence: Digest,
        finder: Address,
    ) -> None:
        self._store.put(("convicted", provider), True)
        slashed = self._registry.slash(tx, provider, finder, self.parameters().bounty_bps)
        self._channels.bar(tx, provider)
        tx.emit(Convicted(provider, epoch, index, outcome, evidence, slashed))

    def _count(self, digest: Digest, judged: Address, validator: Address, stake: int) -> tuple[bool, Address]:
        before = self.tally(digest)
        finder = validator if before.finder == ZERO_ADDRESS else before.finder
        total = self._registry.total_validator_stake() - self._registry.validator_stake(judged)
        tally = Tally(checked(before.weight + stake), max(before.total, total), finder)
        self._store.put(("tally", digest), tally)
        return tally.weight * 3 >= tally.total * 2, finder

    def _cast_once(self, ballot: tuple[str | bytes | int, ...]) -> None:
        require(not self._store.get(ballot, False), "AlreadyVoted")
        self._store.put(ballot, True)

    def _signer(self, digest: Digest, signature: bytes) -> Address:
        try:
            return self._world.recover(digest, signature)
        except BadSignature:
            return ZERO_ADDRESS

    def _voter(self, judged: Address, digest: Digest, signature: bytes) -> tuple[Address, int]:
        validator = self._registry.owner_of(self._signer(digest, signature))
        stake = self._registry.validator_stake(validator)
        require(stake != 0 and validator != judged, "NotValidator")
        return validator, stake

    def _judgeable(self, tx: Transaction, provider: Address, epoch: int) -> Commitment:
        commitment = self.commitment(provider, epoch)
        require(commitment.at_s != 0, "NotCommitted")
        require(tx.now_s <= commitment.at_s + self._rules.window_s, "AfterWindow")
        require(not self.convicted(provider), "AlreadyConvicted")
        return commitment

    def _require_drawn_leaf(
        self, commitment: Commitment, verdict: Verdict, proof: tuple[Digest, ...]
    ) -> None:
        placed = merkle.verify(commitment.root, Digest(verdict.leaf), verdict.index, commitment.count, proof)
        require(placed, "NotInCommitment")
        self._require_drawn(commitment, Address(verdict.provider), verdict.epoch, verdict.index)

    def _require_drawn(self, commitment: Commitment, provider: Address, epoch: int, index: int) -> None:
        require(index < commitment.count, "NotInCommitment")
        beacon = self._beacon.beacon(commitment.round)
        require(is_drawn(beacon, provider, epoch, commitment.root, index, commitment.rate_ppm), "NotDrawn")

    def _require_unanswered(self, tx: Transaction, verdict: Verdict) -> None:
        challenge = self.challenge_of(Address(verdict.provider), verdict.epoch, verdict.index)
        require(challenge.closes_s != 0, "NotChallenged")
        require(not challenge.answered, "AlreadyAnswered")
        require(tx.now_s > challenge.closes_s, "AnswerPending")
