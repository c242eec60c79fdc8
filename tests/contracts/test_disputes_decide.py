"""Who wins a dispute about an audit, and what it costs the other; each test is one story on the bytecode and its twin."""

from typing import TypeVar

import msgspec
import pytest

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import (
    Convicted,
    DisputeEnded,
    DisputeOpened,
    Event,
    LeaseClosed,
    RefereesDrawn,
    Slashed,
)
from clusterai.ledger.core.twin.disputes import ASSERTING, REVEALING, SEALING, SELECTING
from clusterai.protocol.bisection import Trace
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.leases import CloseReason, DisputeReason
from clusterai.protocol.signing import Key
from tests.contracts.cast import DEPLOYER, HOTS, OWNERS, RULES, STRANGER
from tests.contracts.disputecast import SIGNERS, DisputePair, traces, wrong_from
from tests.contracts.leasecast import SALT, WRONG, Job, digest, job

E = TypeVar("E")
BOND, AUDIT_BOND = RULES.disputes.bond_wei, RULES.audits.bond_wei
ANN = OWNERS["ann"].address
NOTHING = digest("no state of this job")


@pytest.fixture
def pair() -> DisputePair:
    made = DisputePair()
    made.populate()
    return made


def only(events: tuple[Event, ...], kind: type[E]) -> E:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def money(pair: DisputePair, who: Key) -> int:
    """Of both keys of its owner."""
    owner = pair.twin.registry.owner_of(who.address)
    keys = {owner, who.address}
    return sum(map(pair.twin.token.balance, keys))


def accused(
    pair: DisputePair, metered: int, cheats: bool, determinism: int = 1
) -> tuple[Job, Key, Trace, Digest]:
    """A lease whose audit is contested and disputed: it, the accuser, the truth, and what the provider claims."""
    one = job(pair, cheats=cheats, metered=metered, determinism=determinism)
    pair.committed(one)
    pair.drawn(one)
    right = one.right(pair)
    first = pair.says(one, right if cheats else WRONG)
    pair.says(one, right)
    pair.expect(calls.StartDispute(one.lease), first)
    truth, claimed, _ = traces(pair, one)
    return one, first, truth, claimed


@pytest.mark.parametrize(("steps", "first", "rounds"), [(2, 1, 1), (1_000, 617, 3), (10**6, 999_983, 5)])
def test_honest_accuser_beats_a_cheat(pair: DisputePair, steps: int, first: int, rounds: int) -> None:
    """Led to the very step at which it went wrong, the provider loses all it has at stake; the bond comes back."""
    one, accuser, truth, claimed = accused(pair, steps, cheats=True)
    funds = money(pair, accuser)
    cheat = wrong_from(truth, first, claimed, steps)
    assert pair.play(one, accuser, cheat, truth) == rounds
    game = pair.dispute(one).game
    assert (game.low, game.high) == (first - 1, first)
    events = pair.judge(one, lambda _: truth(first))
    slashed = only(events, Slashed)
    owner = pair.twin.registry.owner_of(accuser.address)
    assert only(events, Convicted).provider == ANN
    assert (slashed.owner, slashed.amount) == (ANN, 10_000)
    assert slashed.bounty * 2 <= slashed.amount
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    assert only(events, DisputeEnded) == DisputeEnded(one.lease, owner, DisputeReason.REFEREES)
    assert money(pair, accuser) == funds + BOND + AUDIT_BOND + slashed.bounty + 51
    assert pair.twin.registry.participant(ANN).barred
    pair.check([one])


@pytest.mark.parametrize(("steps", "first"), [(2, 2), (1_000, 1), (10**9, 123_456_789)])
def test_honest_provider_beats_a_false_accuser(pair: DisputePair, steps: int, first: int) -> None:
    """The step comes out as the provider said: both bonds are the provider's, and the lease is paid."""
    one, accuser, truth, _ = accused(pair, steps, cheats=False)
    before = money(pair, HOTS["ann"])
    pair.play(one, accuser, truth, wrong_from(truth, first, WRONG, steps))
    events = pair.judge(one, lambda _: truth(first))
    assert only(events, DisputeEnded) == DisputeEnded(one.lease, ANN, DisputeReason.REFEREES)
    assert money(pair, HOTS["ann"]) == before + BOND + AUDIT_BOND
    pair.advance(RULES.window_s)
    assert only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed).paid == 900
    pair.check([one])


@pytest.mark.parametrize("moves", [0, 2, 4])
def test_provider_that_does_not_assert_loses(pair: DisputePair, moves: int) -> None:
    """In whatever round, and whoever was right."""
    one, accuser, truth, claimed = accused(pair, 10_000, cheats=True)
    for _ in range(moves):
        pair.step(one, accuser, wrong_from(truth, 77, claimed, 10_000), truth)
    assert pair.dispute(one).stage == ASSERTING
    events = pair.expire(one)
    assert only(events, DisputeEnded).reason == DisputeReason.TIMEOUT
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    pair.check([one])


@pytest.mark.parametrize("moves", [1, 3])
def test_accuser_that_does_not_select_loses(pair: DisputePair, moves: int) -> None:
    """Its bonds are the provider's, and that of whoever said the same, even if they were right."""
    one, accuser, truth, claimed = accused(pair, 10_000, cheats=True)
    before = money(pair, HOTS["ann"])
    for _ in range(moves):
        pair.step(one, accuser, wrong_from(truth, 77, claimed, 10_000), truth)
    assert pair.dispute(one).stage == SELECTING
    events = pair.expire(one)
    assert only(events, DisputeEnded) == DisputeEnded(one.lease, ANN, DisputeReason.TIMEOUT)
    assert money(pair, HOTS["ann"]) == before + BOND + 2 * AUDIT_BOND
    pair.check([one])


def test_process_has_no_parts(pair: DisputePair) -> None:
    """A pinned process's segment is one step, whatever its meter says: referees run it at once."""
    one, _, truth, _ = accused(pair, 9, cheats=True, determinism=2)
    found = pair.dispute(one)
    assert (found.stage, found.game.low, found.game.high) == (SEALING, 0, 1)
    events = pair.judge(one, lambda _: truth(1))
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    pair.check([one])


def test_meter_without_meaning_is_one_step(pair: DisputePair) -> None:
    """A provider can't escape by a meter that no game can be played on: more than 2^40 units are one step."""
    one, _, _, _ = accused(pair, 2**40 + 1, cheats=True)
    assert pair.dispute(one).game.is_leaf


@pytest.mark.parametrize("guilty", [True, False])
def test_wrong_beginning_is_decided_at_the_first_step(pair: DisputePair, guilty: bool) -> None:
    """An accuser that finds no state of this job says what no run gives, of every state; so do the referees, if it's so."""
    one, accuser, truth, claimed = accused_of_nothing(pair)
    pair.play(one, accuser, wrong_from(truth, 1, claimed, 1_000), lambda _: NOTHING)
    game = pair.dispute(one).game
    assert (game.low, game.high, game.denied) == (0, 1, NOTHING)
    events = pair.judge(one, lambda _: NOTHING if guilty else game.claimed)
    closed = [event.reason for event in events if isinstance(event, LeaseClosed)]
    assert closed == ([CloseReason.FRAUD] if guilty else [])
    pair.check([one])


def accused_of_nothing(pair: DisputePair) -> tuple[Job, Key, Trace, Digest]:
    one = job(pair, cheats=True, metered=1_000)
    accuser, _ = pair.contested(one, NOTHING)
    pair.expect(calls.StartDispute(one.lease), accuser)
    truth, claimed, _ = traces(pair, one)
    return one, accuser, truth, claimed


def test_referees_who_disagree_are_followed_by_more(pair: DisputePair) -> None:
    """No two thirds of fifteen seats, then of 45, then of the panel: undecided, the claim stands, all bonds come back.

    A provider that orders a program from itself which comes to something else on each machine earns no auditor's bond.
    """
    one, accuser, _, claimed = accused(pair, 1, cheats=True)
    funds = money(pair, accuser)
    sizes: list[int] = []
    events: tuple[Event, ...] = ()
    for level in range(3):
        found = pair.dispute(one)
        assert (found.stage, found.level) == (SEALING, level)
        sizes.append(found.total)
        events = pair.judge(one, lambda who: digest(f"each its own: {who.hex()}"))
        if pair.dispute(one).stage == REVEALING:
            events = pair.expire(one)
    assert sizes[:2] == [15, 45]
    assert sizes[2] >= 5 * 40_000
    assert only(events, DisputeEnded) == DisputeEnded(one.lease, ANN, DisputeReason.UNDECIDED)
    assert money(pair, accuser) == funds + BOND
    pair.advance(RULES.window_s)
    assert only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed).paid == 900
    assert money(pair, accuser) == funds + BOND + AUDIT_BOND
    assert claimed == one.claimed(pair)
    pair.check([one])


def test_silent_referees_are_followed_by_more(pair: DisputePair) -> None:
    """A committee of which less than two thirds commit is not heard; the larger one decides."""
    one, _, truth, _ = accused(pair, 1, cheats=True)
    drawn = only(pair.judge(one, lambda _: None), RefereesDrawn)
    assert (drawn.level, len(drawn.referees)) == (1, 45)
    events = pair.judge(one, lambda _: truth(1))
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    pair.check([one])


def test_whole_panel_judges_at_last(pair: DisputePair) -> None:
    """By stake, all who had a seat before the commitment; who came later has no say."""
    one, accuser, truth, _ = accused(pair, 1, cheats=True)
    for _ in range(2):
        pair.judge(one, lambda _: None)
    assert pair.dispute(one).level == 2
    pair.expect(calls.Register(4, ZERO_DIGEST), STRANGER)
    pair.expect(calls.Bond(900_000), STRANGER)
    pair.expect(calls.Enlist(), STRANGER)
    for outsider in (STRANGER, accuser):
        assert pair.refused(calls.CommitReferee(one.lease, ZERO_DIGEST), outsider) == "NotReferee"
    events = pair.judge(one, lambda _: truth(1))
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    pair.check([one])


def test_only_the_panel_convicts_of_serving_nothing(pair: DisputePair) -> None:
    """Committees that weren't served pass it on, so that one broken road convicts nobody."""
    one, _, _, _ = accused(pair, 1, cheats=False)
    for level in range(2):
        assert pair.dispute(one).level == level
        assert only(pair.judge(one, lambda _: ZERO_DIGEST), RefereesDrawn).level == level + 1
    events = pair.judge(one, lambda _: ZERO_DIGEST)
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    pair.check([one])


def halves(pair: DisputePair, one: Job) -> set[Address]:
    """The half of the panel with the least weight, of those who judge at last."""
    seats = sorted(pair.committee(one), key=lambda who: pair.twin.registry.validator_stake(who))
    return set(seats[: len(seats) // 2])


@pytest.mark.parametrize("zero_last", [True, False])
def test_a_cheat_that_serves_one_half_and_starves_the_other_is_convicted(
    pair: DisputePair, zero_last: bool
) -> None:
    """Neither half has two thirds; but nobody of either says what it claimed."""
    one, _, truth, _ = accused(pair, 1, cheats=True)
    for _ in range(2):
        pair.judge(one, lambda _: None)
    starved = halves(pair, one)
    says = {who: ZERO_DIGEST if who in starved else truth(1) for who in pair.committee(one)}
    ordered = sorted(says, key=lambda who: (says[who] == ZERO_DIGEST) == zero_last)
    pair.seal(one, says)
    events: tuple[Event, ...] = ()
    for who in ordered:
        if pair.dispute(one).stage == REVEALING:
            events += pair.expect(calls.RevealReferee(one.lease, says[who], SALT), SIGNERS[who])
    assert only(events, DisputeEnded).reason == DisputeReason.REFEREES
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    pair.check([one])


def test_the_honest_who_reached_a_third_lose_nothing(pair: DisputePair) -> None:
    """Whoever ran it agrees; those who weren't served are no two thirds."""
    one, _, truth, claimed = accused(pair, 1, cheats=False)
    assert truth(1) == claimed
    for _ in range(2):
        pair.judge(one, lambda _: None)
    starved = halves(pair, one)
    events = pair.judge(one, lambda who: ZERO_DIGEST if who in starved else claimed)
    if pair.dispute(one).stage == REVEALING:
        events = pair.expire(one)
    assert only(events, DisputeEnded).winner == ANN
    pair.check([one])


def test_a_claim_of_zero_is_confirmed_by_nobody(pair: DisputePair) -> None:
    """A cheat asserts zeros and serves no referee: their zeros say that nothing was served, not that it was right."""
    one, accuser, truth, _ = accused(pair, 1_000, cheats=True)
    pair.play(one, accuser, lambda _: ZERO_DIGEST, truth)
    assert pair.dispute(one).game.claimed == ZERO_DIGEST
    events: tuple[Event, ...] = ()
    for _ in range(3):
        events = pair.judge(one, lambda _: ZERO_DIGEST)
    assert only(events, DisputeEnded).reason == DisputeReason.REFEREES
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    pair.check([one])


def test_parties_never_judge_and_who_spoke_only_for_want_of_others() -> None:
    """With three validators the third has all seats; with two, the second auditor has them."""
    for idle in ((), ("vow",)):
        pair = DisputePair(0)
        pair.populate()
        for name in idle:
            pair.expect(calls.Unbond(20_000), OWNERS[name])
            pair.advance(1)
        one, accuser, truth, _ = accused(pair, 1, cheats=True)
        spoke = {pair.twin.audits.opinion(one.lease, turn).auditor for turn in (0, 1)}
        (judge,) = pair.committee(one)
        assert (judge in spoke) == bool(idle)
        assert judge != pair.twin.registry.owner_of(accuser.address)
        assert pair.dispute(one).lenient == bool(idle)
        events = pair.judge(one, lambda _, truth=truth: truth(1))
        assert only(events, LeaseClosed).reason == CloseReason.FRAUD
        pair.check([one])


def test_colluder_can_not_start_in_the_first_accusers_place(pair: DisputePair) -> None:
    """A second accuser that means to lose has to wait, so an honest first one is there before it."""
    one = job(pair, cheats=True, metered=100)
    pair.committed(one)
    pair.drawn(one)
    first = pair.says(one, one.right(pair))
    second = pair.says(one, WRONG)
    assert pair.refused(calls.StartDispute(one.lease), second) == "FirstAccuserFirst"
    pair.advance(RULES.audits.dispute_s // 2)
    assert pair.refused(calls.StartDispute(one.lease), second) == "FirstAccuserFirst"
    pair.expect(calls.StartDispute(one.lease), first)
    assert pair.refused(calls.StartDispute(one.lease), second) == "WrongStage"
    pair.check([one])


def test_second_accuser_may_start_where_the_first_does_not(pair: DisputePair) -> None:
    """In the other half of the time."""
    one = job(pair, cheats=True, metered=100)
    _, second = pair.contested(one, one.honest.result(1), WRONG)
    pair.advance(RULES.audits.dispute_s // 2 + 1)
    opened = only(pair.expect(calls.StartDispute(one.lease), second), DisputeOpened)
    assert (opened.steps, opened.denied) == (100, WRONG)
    pair.check([one])


def test_dispute_about_a_closed_lease_is_moot(pair: DisputePair) -> None:
    """The provider was convicted for another lease: the accuser has its bond back, at any time."""
    one, accuser, truth, claimed = accused(pair, 100, cheats=True)
    pair.step(one, accuser, wrong_from(truth, 5, claimed, 100), truth)
    two = job(pair, "two", cheats=True, metered=100)
    # The second lease is audited while the first is disputed, so its clocks must not run out meanwhile.
    other, _ = contested_soon(pair, two, one, accuser, truth, claimed)
    pair.expect(calls.StartDispute(two.lease), other)
    pair.expire(two)
    pair.expect(calls.CloseLease(one.lease), STRANGER)
    funds = money(pair, accuser)
    events = pair.expect(calls.ExpireDispute(one.lease), STRANGER)
    assert only(events, DisputeEnded) == DisputeEnded(one.lease, ZERO_ADDRESS, DisputeReason.MOOT)
    assert money(pair, accuser) == funds + BOND
    pair.check([one, two])


@pytest.mark.parametrize("who", ["gate", "ann"])
def test_a_trap_is_sprung_in_the_midst_of_a_dispute(pair: DisputePair, who: str) -> None:
    """However fast two auditors accuse bait: nobody is convicted, both are paid, and all bonds go back."""
    one = job(pair, trap=True, metered=100)
    accuser, other = pair.contested(one, WRONG)
    before = money(pair, accuser), money(pair, other)
    pair.expect(calls.StartDispute(one.lease), accuser)
    events = pair.expect(calls.SpringTrap(one.terms, one.secret), HOTS[who])
    assert only(events, LeaseClosed).reason == CloseReason.CANCELLED
    ended = only(pair.expect(calls.ExpireDispute(one.lease), STRANGER), DisputeEnded)
    assert ended == DisputeEnded(one.lease, ZERO_ADDRESS, DisputeReason.MOOT)
    assert money(pair, accuser) + money(pair, other) == sum(before) + 2 * AUDIT_BOND + 101
    assert not pair.twin.court.convicted(OWNERS["ann"].address)
    pair.check([one])


def contested_soon(
    pair: DisputePair, two: Job, one: Job, accuser: Key, truth: Trace, claimed: Digest
) -> tuple[Key, Key]:
    """Two is committed and audited; the game about one goes on in between."""
    pair.committed(two)
    pair.step(one, accuser, wrong_from(truth, 5, claimed, 100), truth)
    pair.drawn(two)
    right = two.right(pair)
    return pair.says(two, right), pair.says(two, right)


def test_moves_belong_to_who_makes_them(pair: DisputePair) -> None:
    """No move out of turn, by another, too late, of another length, about other states, or against the rules."""
    one, accuser, truth, claimed = accused(pair, 100, cheats=True)
    lease, cheat = one.lease, wrong_from(truth, 5, claimed, 100)
    inner = tuple(cheat(point) for point in pair.dispute(one).game.points[1:-1])
    told = calls.AssertTrace(lease, inner)
    chosen = calls.SelectRange(lease, 0, truth(6), inner)
    assert pair.refused(calls.StartDispute(lease), accuser) == "WrongStage"
    assert pair.refused(chosen, accuser) == "WrongStage"
    assert pair.refused(told, accuser) == "NotYourMove"
    assert pair.refused(calls.AssertTrace(lease, inner[1:]), HOTS["ann"]) == "WrongMove"
    pair.expect(told, HOTS["ann"])
    assert pair.refused(told, HOTS["ann"]) == "WrongStage"
    assert pair.refused(chosen, HOTS["ann"]) == "NotYourMove"
    replace = msgspec.structs.replace
    assert pair.refused(replace(chosen, inner=inner[::-1]), accuser) == "NotAsserted"
    assert pair.refused(replace(chosen, denied=inner[0]), accuser) == "WrongMove"
    assert pair.refused(replace(chosen, part=16), accuser) == "WrongMove"
    assert pair.refused(replace(chosen, part=15), accuser) == "WrongMove"
    pair.advance(1 + pair.dispute(one).by_s - pair.now_s)
    assert pair.refused(chosen, accuser) == "TooLate"
    pair.check([one])


def test_referees_speak_once_and_as_they_sealed(pair: DisputePair) -> None:
    """Not before all others sealed, not another result, not twice; who wasn't drawn not at all."""
    one, accuser, truth, _ = accused(pair, 1, cheats=True)
    lease = one.lease
    drawn = pair.committee(one)
    assert pair.refused(calls.CommitReferee(lease, WRONG), accuser) == "NotReferee"
    pair.seal(one, dict.fromkeys(drawn[:-1], truth(1)))
    assert pair.refused(calls.CommitReferee(lease, WRONG), SIGNERS[drawn[0]]) == "AlreadySealed"
    assert pair.refused(calls.RevealReferee(lease, truth(1), SALT), SIGNERS[drawn[0]]) == "WrongStage"
    pair.seal(one, {drawn[-1]: WRONG})
    assert pair.refused(calls.RevealReferee(lease, WRONG, SALT), SIGNERS[drawn[0]]) == "NotSealed"
    assert pair.refused(calls.RevealReferee(lease, WRONG, SALT), accuser) == "NotReferee"
    pair.expect(calls.RevealReferee(lease, WRONG, SALT), SIGNERS[drawn[-1]])
    assert pair.refused(calls.RevealReferee(lease, WRONG, SALT), SIGNERS[drawn[-1]]) == "NotReferee"
    assert pair.refused(calls.ExpireDispute(lease), DEPLOYER) == "NotExpired"
    pair.check([one])
