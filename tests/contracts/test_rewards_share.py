"""Pots on chain: who earns what, who contests, and that not a unit is lost; each test is one story on the bytecode and its twin."""

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import PotJoined
from clusterai.ledger.core.twin import Refused
from clusterai.ledger.core.twin.rewards import BOND_BPS, CONTESTED, DECIDED, GRACE_S
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST
from clusterai.protocol.pots import Pot, earned_wei
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import name_digest
from tests.contracts.cast import AT, EVERYONE, HOTS, OWNERS, PAYER, RULES, STRANGER
from tests.contracts.potcast import (
    AMOUNT,
    BOND,
    EVIDENCE,
    NAMES,
    PARTICIPANTS,
    WINDOW_S,
    PotPair,
    digest,
    digest_of,
    pot_of,
)
from tests.contracts.test_twins_equal_bytecode import run
from tests.contracts.vaultcast import VAULTS, Log, grant, signed, terms

GATE = HOTS["gate"]


@pytest.fixture
def pair() -> PotPair:
    made = PotPair()
    made.populate()
    return made


EVALUATOR_BACK = {"gate hot": BOND}
"""What the evaluator put up with its scores."""


def named(amounts: tuple[int, ...]) -> dict[str, int]:
    return {name: amount for name, amount in zip(NAMES, amounts, strict=True) if amount}


# --- shares ---


def test_a_pot_is_shared_by_the_scores(pair: PotPair) -> None:
    """After the window each has its part, the free rider with a score of zero nothing, and the contract is empty once all took it."""
    pot = pair.scored(2, 0, 1)
    call = calls.ClosePot(pot, EVIDENCE, (2, 0, 1))
    pair.advance(WINDOW_S)
    assert pair.refused(call, PAYER) == "TooEarly"
    pair.advance(1)
    assert pair.refused(calls.ClosePot(pot, EVIDENCE, (2, 1, 1)), PAYER) == "OtherScores"
    owed = pair.closed(pot, 2, 0, 1)
    assert owed == {**named((6_671, 0, 3_336)), **EVALUATOR_BACK}, (
        "10,007 in thirds: the larger remainder has the odd unit"
    )
    assert pair.refused(call, PAYER) == "WrongStage"
    for name in owed:
        money = pair.twin.token.balance(EVERYONE[name].address)
        pair.expect(calls.TakeOwed(EVERYONE[name].address), STRANGER)
        assert pair.twin.token.balance(EVERYONE[name].address) == money + owed[name]
        assert pair.refused(calls.TakeOwed(EVERYONE[name].address), STRANGER) == "NothingOwed"
    assert pair.twin.token.balance(AT.rewards) == 0
    pair.compare_pots()


def test_what_nobody_earned_goes_back(pair: PotPair) -> None:
    """Scores below the pot's full value earn their part of it; scores of zero earn nothing at all."""
    part = pair.scored(20, 5, 0, full=100)
    nothing = pair.scored(0, 0, 0, name="other")
    pair.advance(WINDOW_S + 1)
    assert pair.closed(part, 20, 5, 0) == {
        **named((2_001, 500, 0)),
        "payer": AMOUNT - 2_501,
        **EVALUATOR_BACK,
    }
    assert pair.closed(nothing, 0, 0, 0)["payer"] == 2 * AMOUNT - 2_501
    pair.compare_pots()


def test_a_slashed_participant_earns_nothing(pair: PotPair) -> None:
    """A poisoner that lost its stake before the pot was closed has no share; it goes back to the payer."""
    pot = pair.scored(1, 1, 1)
    pair.advance(WINDOW_S + 1)
    slash(pair, "ann")
    owed = pair.closed(pot, 1, 1, 1)
    assert "ann" not in owed
    assert owed["payer"] in (3_335, 3_336)
    assert sum(owed.values()) == AMOUNT + BOND
    pair.compare_pots()


def slash(pair: PotPair, who: str) -> None:
    """It lists a dataset, and signs two uses with one index."""
    hot = HOTS[who]
    pair.expect(calls.ListDataset(name_digest(VAULTS[who]), terms()), hot)
    use = Log(who).use(grant(who, "payer"), 5, pair.now_s)
    other = msgspec.structs.replace(use, result=ZERO_DIGEST)
    pair.expect(calls.ProveEquivocation(use, signed(use, hot), other, signed(other, hot)), PAYER)


@given(
    amount=st.integers(1, 2**63 - 1),
    full=st.integers(0, 2**63 - 1) | st.just(0),
    scores=st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 3), min_size=1, max_size=64).map(tuple),
)
def test_shares_are_exact(amount: int, full: int, scores: tuple[int, ...]) -> None:
    """Nobody is more than a unit from its exact part, zero earns nothing, and the sum is what the scores earned, rounded down."""
    found, total = earned_wei(amount, full, scores), sum(scores)
    if not total:
        assert not any(found)
        return
    whole = max(total, full)
    assert sum(found) == amount * total // whole
    for share, score in zip(found, scores, strict=True):
        assert abs(share - Fraction(amount * score, whole)) < 1
        assert score or not share


@settings(max_examples=25, deadline=None, suppress_health_check=(HealthCheck.too_slow,))
@given(
    amount=st.integers(1, 900_000),
    full=st.integers(0, 2**63 - 1) | st.integers(0, 100),
    scores=st.tuples(*[st.integers(0, 2**63 - 1) | st.integers(0, 9)] * 3),
)
def test_the_contract_shares_as_the_formula_does(
    amount: int, full: int, scores: tuple[int, int, int]
) -> None:
    """Any pot and any scores: what the bytecode owes is what the formula gives, and the rest is the payer's."""
    pair = PotPair()
    pair.populate()
    pot = pair.scored(*scores, amount_wei=amount, full=full)
    pair.advance(WINDOW_S + 1)
    owed, expected = pair.closed(pot, *scores), earned_wei(amount, full, scores)
    refunded = amount - sum(expected)
    bond = {"gate hot": amount * BOND_BPS // 10_000} if amount * BOND_BPS // 10_000 else {}
    assert owed == {**named(expected), **({"payer": refunded} if refunded else {}), **bond}
    pair.compare_pots()


# --- who takes part ---


def test_who_never_joined_earns_nothing(pair: PotPair) -> None:
    """A participant that committed to no rows has no share, whatever it was scored; nobody is waited for longer than was said."""
    pot = pair.joined("ann", "bob", join_by_s=pair.now_s + 30)
    call = calls.ScorePot(pot, EVIDENCE, (1, 1, 1))
    assert pair.refused(call, GATE) == "TooEarly"
    pair.advance(31)
    assert pair.refused(calls.JoinPot(pot, digest("late")), STRANGER) == "TooLate"
    pair.expect(call, GATE)
    pair.advance(WINDOW_S + 1)
    owed = pair.closed(pot, 1, 1, 1)
    assert "stranger" not in owed
    assert owed["payer"] in (3_335, 3_336)
    assert sum(owed.values()) == AMOUNT + BOND
    pair.compare_pots()


def test_joining_is_for_participants_once(pair: PotPair) -> None:
    """An owner's hot key joins for it; not twice, not with nothing, not a stranger, not after the scores; each has its place."""
    pot = pair.opened(participants=tuple(sorted(OWNERS[name].address for name in ("ann", "bob"))))
    assert pair.refused(calls.JoinPot(pot, digest("rows")), STRANGER) == "NotEntitled"
    assert pair.refused(calls.JoinPot(pot, ZERO_DIGEST), HOTS["ann"]) == "OutOfRange"
    places = [
        event.place
        for name in ("bob", "ann")
        for event in pair.expect(calls.JoinPot(pot, digest(name)), HOTS[name])
        if isinstance(event, PotJoined)
    ]
    assert places == [1, 2]
    assert pair.refused(calls.JoinPot(pot, digest("other")), OWNERS["ann"]) == "AlreadyJoined"
    pair.expect(calls.ScorePot(pot, EVIDENCE, (1, 1)), GATE)
    assert pair.refused(calls.JoinPot(pot, digest("other")), HOTS["ann"]) == "WrongStage"
    pair.compare_pots()


def test_a_beacon_from_after_the_last_to_join_breaks_ties(pair: PotPair) -> None:
    """Its round isn't recorded yet when anybody commits to rows."""
    pot = pair.joined("ann")
    pair.advance(RULES.epoch_s)
    pair.expect(calls.JoinPot(pot, digest("bob")), EVERYONE["bob"])
    number = pair.twin.rewards.stand(pot.struct()).round
    assert not pair.twin.beacon.is_recorded(number)
    pair.advance(RULES.epoch_s)
    pair.expect(calls.Tick(), STRANGER)
    assert pair.twin.beacon.is_recorded(number)
    pair.compare_pots()


# --- referrals ---


def by(**brought: str) -> dict[str, Any]:
    """Pot fields: who was brought by whom, for a tenth of the share."""
    referrers = tuple(EVERYONE[brought[name]].address if name in brought else ZERO_ADDRESS for name in NAMES)
    return {"referrers": referrers, "referral_bps": 1_000}


def test_who_brought_a_participant_has_its_part(pair: PotPair) -> None:
    """Out of that participant's share, rounded down; others' shares are untouched; a slashed referrer has nothing."""
    pot, barred = (
        pair.scored(1, 1, 1, name=name, **by(stranger=who)) for name, who in (("a", "vow"), ("b", "bob"))
    )
    pair.advance(WINDOW_S + 1)
    shares = named(earned_wei(AMOUNT, 0, (1, 1, 1)))
    owed, fee = pair.closed(pot, 1, 1, 1), shares["stranger"] // 10
    assert owed == {**shares, "stranger": shares["stranger"] - fee, "vow": fee, **EVALUATOR_BACK}
    slash(pair, "bob")
    after = pair.closed(barred, 1, 1, 1)
    assert after["stranger"] == owed["stranger"] + shares["stranger"]
    assert "bob" not in shares or after["bob"] == owed["bob"]
    pair.compare_pots()


def test_bringing_oneself_earns_nothing(pair: PotPair) -> None:
    """Self-referral under another name moves one's own money: both names have together what one had."""
    plain = pair.scored(5, 3, 1)
    own = pair.scored(5, 3, 1, name="own", **by(stranger="deployer"))
    pair.advance(WINDOW_S + 1)
    first = pair.closed(plain, 5, 3, 1)
    both = pair.closed(own, 5, 3, 1)
    assert both["stranger"] + both["deployer"] == 2 * first["stranger"]
    assert both["ann"] == 2 * first["ann"]
    pair.compare_pots()


# --- contests ---


def test_false_scores_are_replaced_by_the_panel(pair: PotPair) -> None:
    """An evaluator that gives the payer's friend everything is overruled by two thirds of the stake; the contester has both bonds."""
    false, right = (0, 0, 9), (4, 4, 1)
    pot = pair.scored(*false)
    pair.expect(calls.ContestPot(pot), STRANGER)
    assert pair.twin.token.balance(AT.rewards) == AMOUNT + 2 * BOND
    pair.vote(pot, digest_of(pot, right), "val")
    assert pair.twin.rewards.stand(pot.struct()).stage == CONTESTED
    pair.vote(pot, digest_of(pot, right), "vic")
    assert pair.twin.rewards.stand(pot.struct()).stage == DECIDED
    assert pair.refused(calls.VotePot(pot, digest_of(pot, false)), HOTS["vow"]) == "WrongStage"
    assert pair.refused(calls.ClosePot(pot, EVIDENCE, false), PAYER) == "OtherScores"
    expected = named(earned_wei(AMOUNT, 0, right))
    expected["stranger"] += 2 * BOND
    assert pair.closed(pot, *right) == expected
    pair.compare_pots()


def test_a_contest_against_right_scores_costs_its_bond(pair: PotPair) -> None:
    """A free rider that contests its zero delays the pot, and pays for it."""
    pot = pair.scored(*(0 if name == "stranger" else 3 for name in NAMES))
    scores = tuple(0 if name == "stranger" else 3 for name in NAMES)
    pair.expect(calls.ContestPot(pot), STRANGER)
    assert pair.refused(calls.ContestPot(pot), HOTS["ann"]) == "WrongStage"
    pair.vote(pot, digest_of(pot, scores), "val", "vic")
    assert pair.closed(pot, *scores) == {
        **named(earned_wei(AMOUNT, 0, scores)),
        "payer": BOND,
        **EVALUATOR_BACK,
    }
    pair.compare_pots()


def test_a_contest_that_nobody_decides_leaves_the_scores(pair: PotPair) -> None:
    """Less than two thirds decide nothing: the scores stand after the vote's window, and the bond goes back."""
    pot = pair.scored(1, 0, 0)
    pair.expect(calls.ContestPot(pot), HOTS["vow"])
    pair.vote(pot, digest_of(pot, (0, 1, 0)), "val")
    assert pair.refused(calls.VotePot(pot, ZERO_DIGEST), HOTS["val"]) == "AlreadyVoted"
    call = calls.ClosePot(pot, EVIDENCE, (1, 0, 0))
    pair.advance(WINDOW_S)
    assert pair.refused(call, PAYER) == "TooEarly"
    pair.advance(1)
    assert pair.refused(calls.VotePot(pot, ZERO_DIGEST), HOTS["vic"]) == "TooLate"
    assert pair.closed(pot, 1, 0, 0) == {
        "vow hot": BOND,
        **named((AMOUNT, 0, 0)),
        **EVALUATOR_BACK,
    }
    pair.compare_pots()


def test_a_silent_evaluator_keeps_nothing_from_anyone(pair: PotPair) -> None:
    """Without scores a participant has the panel score; if nobody asks it to, the pot goes back."""
    silent, forgotten = pair.joined(), pair.joined(name="other")
    assert pair.refused(calls.ContestPot(silent), HOTS["ann"]) == "TooEarly"
    pair.advance(101)
    assert pair.refused(calls.ScorePot(silent, EVIDENCE, (1, 1, 1)), GATE) == "TooLate"
    pair.expect(calls.ContestPot(silent), HOTS["ann"])
    pair.vote(silent, digest_of(silent, (1, 2, 1)), "val", "vic")
    earned = pair.closed(silent, 1, 2, 1)
    assert earned == {**named(earned_wei(AMOUNT, 0, (1, 2, 1))), "ann hot": BOND}
    pair.advance(WINDOW_S)
    assert pair.refused(calls.ContestPot(forgotten), HOTS["ann"]) == "TooLate"
    assert pair.closed(forgotten)["payer"] == AMOUNT
    pair.compare_pots()


def test_a_panel_that_rejects_all_scores_gives_the_pot_back(pair: PotPair) -> None:
    """Voting for nothing refunds; voting for scores that nobody shows does so after thirty days."""
    rejected, hidden = pair.scored(1, 1, 1), pair.scored(1, 1, 1, name="other")
    for pot in (rejected, hidden):
        pair.expect(calls.ContestPot(pot), STRANGER)
    pair.vote(rejected, ZERO_DIGEST, "val", "vic")
    pair.vote(hidden, digest("nobody knows"), "val", "vic")
    assert pair.closed(rejected) == {"payer": AMOUNT, "stranger": 4 * BOND}
    pair.advance(WINDOW_S + GRACE_S)
    assert pair.refused(calls.ClosePot(hidden, EVIDENCE, ()), PAYER) == "OtherScores"
    pair.advance(1)
    assert pair.closed(hidden)["payer"] == 2 * AMOUNT
    pair.compare_pots()


# --- who may ---


def test_strangers_and_parties_decide_nothing(pair: PotPair) -> None:
    """Only the payer opens, only the evaluator scores, once; who isn't on the panel doesn't vote, nor contest unless it takes part."""
    pot = pot_of(pair.now_s)
    assert pair.refused(calls.OpenPot(pot), STRANGER) == "NotPayer"
    pair.expect(calls.OpenPot(pot), PAYER)
    assert pair.refused(calls.OpenPot(pot), PAYER) == "WrongStage"
    assert pair.refused(calls.ScorePot(pot, EVIDENCE, (1, 1, 1)), PAYER) == "NotEvaluator"
    for name in NAMES:
        pair.expect(calls.JoinPot(pot, digest(name)), EVERYONE[name])
    assert pair.refused(calls.ScorePot(pot, EVIDENCE, (1, 1)), GATE) == "OutOfRange"
    pair.expect(calls.ScorePot(pot, EVIDENCE, (1, 1, 1)), GATE)
    assert pair.refused(calls.ScorePot(pot, EVIDENCE, (1, 1, 1)), GATE) == "WrongStage"
    for who in (PAYER, GATE, EVERYONE["deployer"]):
        assert pair.refused(calls.ContestPot(pot), who) == "NotEntitled"
    assert pair.refused(calls.VotePot(pot, ZERO_DIGEST), HOTS["val"]) == "WrongStage"
    pair.expect(calls.ContestPot(pot), STRANGER)
    for who in (PAYER, GATE, STRANGER, HOTS["ann"]):
        assert pair.refused(calls.VotePot(pot, ZERO_DIGEST), who) == "NotEntitled"


def test_a_member_of_the_panel_that_takes_part_has_no_vote(pair: PotPair) -> None:
    """Its stake counts neither for the scores nor in what two thirds are taken of."""
    parties = tuple(sorted((OWNERS["val"].address, OWNERS["ann"].address)))
    pot = pair.scored(1, 1, participants=parties)
    pair.expect(calls.ContestPot(pot), HOTS["val"])
    assert pair.refused(calls.VotePot(pot, ZERO_DIGEST), HOTS["val"]) == "NotEntitled"
    pair.vote(pot, ZERO_DIGEST, "vic")
    assert pair.twin.rewards.stand(pot.struct()).stage == CONTESTED, "30,000 of 50,000"
    pair.vote(pot, ZERO_DIGEST, "vow")
    assert pair.twin.rewards.stand(pot.struct()).stage == DECIDED


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_wei": 0},
        {"evaluator": ZERO_ADDRESS},
        {"evaluator": PARTICIPANTS[1]},
        {"join_by_s": 2**40 - 1},
        {"referral_bps": 2_001},
        {"referrers": (ZERO_ADDRESS,) * 2},
        {"referrers": (ZERO_ADDRESS, PARTICIPANTS[1], ZERO_ADDRESS)},
        {"score_by_s": 1},
        {"score_by_s": 2**40 - 1},
        {"participants": ()},
        {"participants": (OWNERS["gate"].address,)},
        {"participants": PARTICIPANTS[::-1]},
        {"participants": (PARTICIPANTS[0], PARTICIPANTS[0])},
        {"participants": (ZERO_ADDRESS, PARTICIPANTS[0])},
        {"participants": tuple(bytes([1] * 19 + [n]) for n in range(65))},
    ],
)
def test_pots_out_of_range_are_refused(pair: PotPair, changes: dict[str, Any]) -> None:
    """Empty, without an evaluator or with one that takes part, late, or with participants twice, out of order or too many."""
    assert pair.refused(calls.OpenPot(pot_of(pair.now_s, **changes)), PAYER) == "OutOfRange"


# --- any history ---


class PotHistories(RuleBasedStateMachine):
    """Everyone does everything, at any time: the twin and the bytecode agree, and the contract holds what it owes."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = PotPair()
        self.pots: list[Pot] = []

    @initialize()
    def begin(self) -> None:
        self.pair.populate()
        self.open(0, 0, 3)

    def some(self, which: int) -> Pot:
        return self.pots[which % len(self.pots)]

    def do(self, call: calls.Call, who: Key) -> None:
        self.pair.do(call, who)

    @rule(seconds=st.sampled_from((1, 50, 101, WINDOW_S, WINDOW_S + 1)))
    def time_passes(self, seconds: int) -> None:
        self.pair.advance(seconds)

    @rule(
        amount=st.integers(0, 999),
        full=st.integers(0, 20),
        many=st.integers(0, 3),
        bps=st.sampled_from((0, 700, 2_000)),
    )
    def open(self, amount: int, full: int, many: int, bps: int = 0) -> None:
        pot = pot_of(
            self.pair.now_s,
            f"pot {len(self.pots)}",
            amount_wei=amount,
            full=full,
            participants=PARTICIPANTS[:many],
            referrers=(OWNERS["vow"].address, ZERO_ADDRESS, PARTICIPANTS[0])[:many],
            referral_bps=bps,
            join_by_s=self.pair.now_s + 50,
        )
        if not isinstance(self.pair.do(calls.OpenPot(pot), PAYER), Refused):
            self.pots.append(pot)
        if not self.pots:
            self.open(AMOUNT, full, 3)

    @rule(which=st.integers(0, 2), who=st.sampled_from(("ann", "bob hot", "stranger", "payer")))
    def join(self, which: int, who: str) -> None:
        self.do(calls.JoinPot(self.some(which), digest(who)), EVERYONE[who])

    @rule(which=st.integers(0, 2), scores=st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple))
    def score(self, which: int, scores: tuple[int, ...]) -> None:
        pot = self.some(which)
        self.do(calls.ScorePot(pot, EVIDENCE, (scores * 3)[: len(pot.participants)]), GATE)

    @rule(which=st.integers(0, 2), who=st.sampled_from(("ann hot", "stranger", "vow hot", "payer")))
    def contest(self, which: int, who: str) -> None:
        self.do(calls.ContestPot(self.some(which)), EVERYONE[who])

    @rule(
        which=st.integers(0, 2),
        who=st.sampled_from(("val hot", "vic hot", "vow hot", "ann hot")),
        what=st.integers(0, 2),
    )
    def vote(self, which: int, who: str, what: int) -> None:
        pot = self.some(which)
        standing = self.pair.twin.rewards.stand(pot.struct()).digest
        other = digest_of(pot, (1,) * len(pot.participants))
        self.do(calls.VotePot(pot, (ZERO_DIGEST, standing, other)[what]), EVERYONE[who])

    @rule(which=st.integers(0, 2), scores=st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple))
    def close(self, which: int, scores: tuple[int, ...]) -> None:
        pot = self.some(which)
        for tried in ((scores * 3)[: len(pot.participants)], (1,) * len(pot.participants)):
            self.do(calls.ClosePot(pot, EVIDENCE, tried), STRANGER)

    @rule(who=st.sampled_from(("payer", "ann", "bob", "stranger", "vow hot", "vow", "gate hot")))
    def take(self, who: str) -> None:
        self.do(calls.TakeOwed(EVERYONE[who].address), STRANGER)

    @invariant()
    def holds_what_it_owes(self) -> None:
        if self.pots:
            assert self.pair.twin.token.balance(AT.rewards) == self.pair.held(self.pots)

    def teardown(self) -> None:
        self.pair.compare_pots()


def test_twin_and_bytecode_of_rewards_agree_over_random_histories() -> None:
    """Outcomes, events and state are equal; the contract holds the pots, bonds and debts to the unit at each step."""
    run(PotHistories, examples=40, steps=40)
