"""Stake that others put behind a validator: what it counts for, who loses it, who earns by it, and who tries to cheat."""

from typing import Any

import pytest

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Slashed, Transferred
from clusterai.ledger.core.stake_events import DelegatedSlashed, RewardShared, StakeUndelegated
from clusterai.ledger.core.twin import Refused
from clusterai.ledger.core.twin.delegations import MAX_PENDING
from clusterai.ledger.core.twin.panel import SEATS
from clusterai.protocol.ids import ZERO_DIGEST, Address
from clusterai.protocol.statements import EPOCH_LIST, Verdict
from tests.contracts.cast import (
    AT,
    DEPLOYER,
    EVERYONE,
    HOTS,
    OWNERS,
    PAYER,
    PROVIDER,
    RULES,
    STRANGER,
    VALIDATOR,
    judged,
    key,
)
from tests.contracts.leasecast import LeasePair, job
from tests.contracts.stakecast import DELAY_S, VALIDATORS, StakePair, at, told


@pytest.fixture
def pair() -> StakePair:
    pair = StakePair()
    pair.populate()
    return pair


# --- what it counts for ---


def test_delegated_stake_votes_up_to_three_times_the_own(pair: StakePair) -> None:
    """What is behind a validator counts at once in its vote, the sum of votes and its seat; more than fits is refused."""
    pair.delegate("payer", "vow", 45_000)
    pair.delegate("stranger", "vow", 15_000)
    assert pair.votes("vow") == 80_000 == pair.seats()[at("vow")]
    assert pair.twin.registry.total_validator_stake() == 160_000
    assert pair.refused(calls.DelegateStake(at("vow"), 1), STRANGER) == "NoRoom"
    pair.check()


def test_of_what_the_owner_takes_out_three_times_as_much_stops_counting(pair: StakePair) -> None:
    """An owner that lowers its own stake lowers what counts behind it, and at zero nothing votes."""
    pair.delegate("payer", "vow", 60_000)
    pair.expect(calls.Unbond(15_000), OWNERS["vow"])
    assert pair.votes("vow") == 20_000 == pair.seats()[at("vow")]
    pair.expect(calls.Unbond(5_000), OWNERS["vow"])
    assert pair.votes("vow") == 0 == pair.seats()[at("vow")]
    pair.expect(calls.Bond(20_000), OWNERS["vow"])
    assert pair.votes("vow") == 80_000
    pair.check()


def test_only_validators_in_good_standing_are_delegated_to(pair: StakePair) -> None:
    """Providers, gateways, strangers and those who were slashed are refused, and so is who validates and provides."""
    for name in ("ann", "gate", "stranger"):
        assert pair.refused(calls.DelegateStake(at(name), 1), PAYER) == "NotValidator"
    both = key("both")
    pair.expect(calls.Register(PROVIDER | VALIDATOR, ZERO_DIGEST), both)
    assert pair.refused(calls.DelegateStake(both.address, 1), PAYER) == "ProvidesToo"
    pair.equivocate("vow", STRANGER)
    assert pair.refused(calls.DelegateStake(at("vow"), 1), PAYER) == "ValidatorBarred"


def test_only_delegations_and_the_registry_tell_each_other(pair: StakePair) -> None:
    """Nobody else says what is behind a validator, what it has itself, or burns it."""
    for contract, function, arguments, error in (
        ("Registry", "setDelegated", (at("vow"), 10**6), "OnlyDelegations"),
        ("Delegations", "noteOwn", (at("vow"), 10**6), "OnlyRegistry"),
        ("Delegations", "slashDelegated", (at("vow"),), "OnlyRegistry"),
    ):
        found = pair.bytecode.transact(contract, function, PAYER.address, pair.block(), *arguments)
        assert found == Refused(error)


# --- leaving ---


def test_undelegated_stake_waits_and_each_undelegation_has_its_own_clock(pair: StakePair) -> None:
    """A later undelegation neither shortens nor lengthens an earlier one, whoever's it is."""
    before = pair.balance("payer")
    pair.delegate("payer", "val", 9_000)
    pair.delegate("stranger", "val", 9_000)
    pair.undelegate("payer", "val", 4_000)
    assert pair.votes("val") == 64_000
    pair.advance(DELAY_S - 1)
    assert pair.refused(calls.WithdrawStake(at("val")), PAYER) == "NothingReady"
    pair.undelegate("payer", "val", 5_000)
    pair.undelegate("stranger", "val", 9_000)
    pair.advance(1)
    pair.expect(calls.WithdrawStake(at("val")), PAYER)
    assert pair.balance("payer") == before - 5_000
    assert pair.refused(calls.WithdrawStake(at("val")), STRANGER) == "NothingReady"
    pair.advance(DELAY_S)
    pair.expect(calls.WithdrawStake(at("val")), PAYER)
    assert pair.balance("payer") == before
    pair.check()


def test_undelegations_that_wait_are_bounded_and_lock_nobody_else(pair: StakePair) -> None:
    """The ninth has to wait for the first; others' are not concerned."""
    pair.delegate("payer", "val", 100)
    pair.delegate("stranger", "val", 100)
    for _ in range(MAX_PENDING):
        pair.undelegate("payer", "val", 1)
    assert pair.refused(calls.UndelegateStake(at("val"), 1), PAYER) == "TooManyPending"
    pair.undelegate("stranger", "val", 100)
    pair.advance(DELAY_S)
    pair.expect(calls.WithdrawStake(at("val")), PAYER)
    pair.undelegate("payer", "val", 92)
    pair.check()


def test_exit_before_the_verdict_is_too_slow(pair: StakePair) -> None:
    """A delegator that leaves at sight of a crime still loses everything to a verdict within the delay."""
    pair.delegate("payer", "vow", 30_000)
    supply = pair.twin.token.supply()
    pair.undelegate("payer", "vow", 30_000)
    pair.expect(calls.Unbond(20_000), OWNERS["vow"])
    pair.advance(DELAY_S - 1)
    events = pair.equivocate("vow", STRANGER)
    assert told(events, DelegatedSlashed).amount == 30_000
    assert pair.twin.token.supply() == supply - 30_000 - 10_000
    pair.advance(2 * DELAY_S)
    assert pair.refused(calls.WithdrawStake(at("vow")), PAYER) == "StakeLost"
    assert pair.refused(calls.UndelegateStake(at("vow"), 1), PAYER) == "StakeLost"
    pair.check()
    pair.compare()


def test_stake_that_is_ready_but_was_not_withdrawn_is_lost_too(pair: StakePair) -> None:
    """As with the validator's own: at risk until it is withdrawn."""
    pair.delegate("payer", "vow", 30_000)
    pair.undelegate("payer", "vow", 30_000)
    pair.advance(DELAY_S)
    assert told(pair.equivocate("vow", STRANGER), DelegatedSlashed).amount == 30_000


def test_slash_leaves_no_weight_and_takes_no_earnings(pair: StakePair) -> None:
    """A slashed validator weighs nothing with all that was behind it; what its delegators earned before stays theirs."""
    pair.delegate("payer", "vow", 60_000)
    pair.to_period(2)
    pair.reward("vow", 8_000)
    pair.equivocate("vow", STRANGER)
    assert pair.votes("vow") == 0 == pair.seats()[at("vow")]
    assert pair.twin.registry.total_validator_stake() == 80_000
    assert pair.position("vow", "payer").stake == 0
    before = pair.balance("payer")
    pair.expect(calls.ClaimReward(at("vow")), PAYER)
    assert pair.balance("payer") == before + 6_000
    assert pair.pool("vow").unclaimed == 0
    pair.reward("vow", 500)
    assert pair.earned("vow", "payer") == 0, "nobody is behind it any more"
    pair.check()


# --- the bounty ---


def test_reporting_oneself_with_other_peoples_stake_costs(pair: StakePair) -> None:
    """A validator with three quarters of foreign stake gets back half of its own at most, whatever lies behind it."""
    pair.delegate("payer", "vow", 60_000)
    before = pair.balance("vow") + pair.balance("stranger")
    events = pair.equivocate("vow", STRANGER)
    found = told(events, Slashed)
    assert (found.amount, found.bounty, found.burned) == (20_000, 10_000, 10_000)
    assert told(events, DelegatedSlashed).amount == 60_000
    assert pair.balance("vow") + pair.balance("stranger") == before + 10_000, "20,000 at stake became 10,000"


def test_bounty_is_shared_with_those_behind_the_finder(pair: StakePair) -> None:
    """A validator that finds another's contradiction shares the bounty as it shares fees."""
    pair.delegate("payer", "val", 50_000)
    pair.to_period(2)
    before = pair.balance("val")
    events = pair.equivocate("vow", HOTS["val"])
    assert told(events, RewardShared) == RewardShared(at("val"), 10_000, 5_000)
    assert pair.balance("val") == before + 5_000
    assert pair.earned("val", "payer") == 5_000
    pair.check()


# --- rewards ---


def test_audit_fee_of_a_lease_is_shared() -> None:
    """What Leases pays to the auditor whose result stood goes to those behind it, too."""
    leases = LeasePair()
    leases.populate()
    for name in VALIDATORS:
        leases.expect(calls.DelegateStake(at(name), 10_000), STRANGER)
    leases.advance(2 * DELAY_S)
    one = job(leases)
    name = leases.audited(one)
    leases.advance(RULES.window_s + 100)
    own = leases.twin.registry.participant(at(name)).stake
    before = leases.twin.token.balance(at(name))
    events = leases.expect(calls.CloseLease(one.lease), DEPLOYER)
    shared = told(events, RewardShared).shared
    assert told(events, RewardShared) == RewardShared(at(name), 101, 101 * 10_000 // (own + 10_000))
    assert leases.twin.token.balance(at(name)) == before + 101 - shared
    assert leases.twin.delegations.position(at(name), STRANGER.address, leases.now_s).earned in (
        shared,
        shared - 1,
    )


def test_reward_is_shared_by_stake_and_every_unit_is_somewhere(pair: StakePair) -> None:
    """The validator's part at once, the delegators' to be claimed; what rounding leaves stays visible."""
    pair.delegate("payer", "vow", 10_000)
    pair.delegate("stranger", "vow", 7_000)
    pair.to_period(2)
    before = pair.balance("vow")
    shared = told(pair.reward("vow", 10_001), RewardShared).shared
    assert shared == 10_001 * 17 // 37
    assert pair.balance("vow") == before + 10_001 - shared
    earned = [pair.earned("vow", who) for who in ("payer", "stranger")]
    assert earned == [shared * 10 // 17, shared * 7 // 17]
    for who in ("payer", "stranger"):
        pair.expect(calls.ClaimReward(at("vow")), EVERYONE[who])
    assert pair.pool("vow").unclaimed == shared - sum(earned) == 1
    assert pair.refused(calls.ClaimReward(at("vow")), PAYER) == "NothingEarned"
    pair.check()


def test_gas_of_a_reward_is_the_same_for_one_delegator_and_twenty(pair: StakePair) -> None:
    """Nobody can make paying a validator dear by delegating dust to it."""

    def cost(validator: str) -> int:
        pair.reward(validator, 1_000)
        pair.reward(validator, 1_000)
        return pair.bytecode.gas_used

    crowd = [key(f"crowd {n}") for n in range(20)]
    for who in crowd:
        pair.expect(calls.Transfer(who.address, 10), DEPLOYER)
        pair.expect(calls.Approve(AT.delegations, 10), who)
        pair.expect(calls.DelegateStake(at("val"), 10), who)
    pair.delegate("payer", "vic", 200)
    pair.to_period(2)
    assert abs(cost("val") - cost("vic")) < 100


def test_flash_delegation_before_a_reward_earns_nothing(pair: StakePair) -> None:
    """Who delegates at sight of a reward, up to a whole period before it, takes nothing of it from anybody."""
    pair.delegate("payer", "vow", 10_000)
    pair.to_period(2)
    expected = 3_000 * 10 // 30
    pair.delegate("stranger", "vow", 50_000)
    pair.advance(2 * DELAY_S - 1)
    before = pair.balance("vow")
    assert told(pair.reward("vow", 3_000), RewardShared).shared == expected
    assert (pair.earned("vow", "payer"), pair.earned("vow", "stranger")) == (expected, 0)
    assert pair.balance("vow") == before + 3_000 - expected
    pair.undelegate("stranger", "vow", 50_000)
    assert pair.position("vow", "payer").active == 10_000, "the newcomer's stake left, nobody else's"
    pair.advance(1)
    pair.reward("vow", 3_000)
    assert (pair.earned("vow", "payer"), pair.earned("vow", "stranger")) == (2 * expected, 0)


def test_validators_own_flash_bond_moves_no_share(pair: StakePair) -> None:
    """Stake that an owner bonds at sight of a reward doesn't count in dividing it; nor does taking it out and in again."""
    pair.delegate("payer", "vow", 60_000)
    pair.to_period(2)
    pair.expect(calls.Bond(200_000), OWNERS["vow"])
    pair.advance(2 * DELAY_S - 1)
    assert told(pair.reward("vow", 8_000), RewardShared).shared == 6_000
    pair.expect(calls.Unbond(215_000), OWNERS["vow"])
    pair.expect(calls.Bond(15_000), OWNERS["vow"])
    assert told(pair.reward("vow", 6_500), RewardShared).shared == 6_000, "60,000 of 65,000"


def test_owner_that_takes_its_stake_out_leaves_rewards_to_the_others(pair: StakePair) -> None:
    """Unbonding everything before a bounty doesn't keep it from those who are behind."""
    pair.delegate("payer", "vow", 60_000)
    pair.to_period(2)
    pair.expect(calls.Unbond(20_000), OWNERS["vow"])
    assert told(pair.reward("vow", 8_000), RewardShared).shared == 8_000


def test_stake_that_leaves_keeps_what_it_earned(pair: StakePair) -> None:
    """Earnings wait for their owner, and stake on its way out earns no more."""
    pair.delegate("payer", "vow", 20_000)
    pair.to_period(2)
    pair.reward("vow", 1_000)
    pair.undelegate("payer", "vow", 20_000)
    pair.reward("vow", 1_000)
    pair.advance(5 * DELAY_S)
    assert pair.earned("vow", "payer") == 500


def test_fresh_stake_leaves_first(pair: StakePair) -> None:
    """Adding and taking back the same amount leaves what earns as it was."""
    pair.delegate("payer", "vow", 20_000)
    pair.to_period(2)
    pair.delegate("payer", "vow", 5_000)
    pair.undelegate("payer", "vow", 5_000)
    assert pair.position("vow", "payer").active == 20_000
    pair.undelegate("payer", "vow", 1_000)
    assert pair.position("vow", "payer").active == 19_000


# --- commission ---


def test_commission_is_announced_a_delay_ahead_and_bounded(pair: StakePair) -> None:
    """Raised overnight it isn't: the old one holds for the delay, in which a delegator that minds has left."""
    pair.delegate("payer", "vow", 20_000)
    pair.to_period(2)
    assert pair.refused(calls.AnnounceCommission(5_001), OWNERS["vow"]) == "CommissionTooHigh"
    assert pair.refused(calls.AnnounceCommission(100), HOTS["vow"]) == "NotValidator"
    assert pair.refused(calls.AnnounceCommission(100), OWNERS["ann"]) == "NotValidator"
    pair.expect(calls.AnnounceCommission(5_000), OWNERS["vow"])
    pair.advance(DELAY_S - 1)
    assert told(pair.reward("vow", 2_000), RewardShared).shared == 1_000
    pair.advance(1)
    assert told(pair.reward("vow", 2_000), RewardShared).shared == 500


def test_commission_announced_again_begins_its_notice_anew(pair: StakePair) -> None:
    """No rate comes into force with less than the whole delay since it was announced; until then the last one holds."""
    pair.delegate("payer", "vow", 20_000)
    pair.to_period(2)
    pair.expect(calls.AnnounceCommission(1_000), OWNERS["vow"])
    pair.advance(DELAY_S - 1)
    pair.expect(calls.AnnounceCommission(3_000), OWNERS["vow"])
    pair.advance(DELAY_S - 1)
    assert pair.pool("vow").commission(pair.now_s) == 0
    pair.advance(1)
    pair.expect(calls.AnnounceCommission(0), OWNERS["vow"])
    assert pair.pool("vow").commission(pair.now_s) == 3_000
    pair.compare()


# --- the panel ---


def test_pushing_another_off_its_seat_and_leaving_moves_no_draw_of_the_past(pair: StakePair) -> None:
    """A small validator with a moment's foreign stake takes the lightest seat; draws on what was committed before don't see
    it, the tokens are locked for the delay, and the one that it pushed off takes its seat back with a call."""
    crowd = [key(f"seat {n}") for n in range(SEATS - 3)]
    small, victim = key("small"), crowd[0]
    for who, stake in (*((one, 5_000) for one in crowd), (small, 2_000)):
        pair.expect(calls.Transfer(who.address, stake), DEPLOYER)
        pair.expect(calls.Approve(AT.registry, stake), who)
        pair.expect(calls.Register(VALIDATOR, ZERO_DIGEST), who)
        pair.expect(calls.Bond(stake), who)
        if who is not small:
            pair.expect(calls.Enlist(), who)
    pair.advance(1)
    committed_s = pair.now_s
    past = [draw(pair, lot, committed_s) for lot in range(40)]
    assert pair.refused(calls.Enlist(), small) == "PanelFull"

    pair.expect(calls.DelegateStake(small.address, 6_000), PAYER)
    pair.expect(calls.Enlist(), small)
    assert victim.address not in pair.seats()
    assert pair.seats()[small.address] == 8_000
    left = pair.expect(calls.UndelegateStake(small.address, 6_000), PAYER)
    assert pair.seats()[small.address] == 2_000, "its seat weighs what it can lose"
    assert [draw(pair, lot, committed_s) for lot in range(40)] == past
    assert told(left, StakeUndelegated).ready_s == pair.now_s + DELAY_S
    assert pair.refused(calls.WithdrawStake(small.address), PAYER) == "NothingReady"

    pair.expect(calls.Enlist(), victim)
    assert pair.seats()[victim.address] == 5_000
    assert small.address not in pair.seats()
    pair.advance(1)
    assert all(draw(pair, lot, pair.now_s) != small.address for lot in range(40))
    pair.check()


def test_delegated_stake_is_behind_one_validator_at_a_time(pair: StakePair) -> None:
    """What was lent to one validator's vote can't be lent to a second one's within the same window."""
    pair.expect(calls.Transfer(STRANGER.address, pair.balance("payer") - 90_000), PAYER)
    pair.delegate("payer", "val", 90_000)
    pair.undelegate("payer", "val", 90_000)
    pair.advance(RULES.window_s)
    assert pair.refused(calls.WithdrawStake(at("val")), PAYER) == "NothingReady"
    assert pair.refused(calls.DelegateStake(at("vic"), 90_000), PAYER) == "ERC20InsufficientBalance"


def draw(pair: StakePair, lot: int, time_s: int) -> Address:
    """Whom a lot falls on, of the panel before a time; by the contract and the twin alike."""
    lot *= 2**240 // 41
    found = pair.twin.panel.pick(lot, time_s, ())
    raw: Any = pair.bytecode.read("Panel", "pick", lot, time_s, [])
    assert bytes.fromhex(raw[2:]) == found
    return found


def test_nothing_moves_but_what_the_events_say(pair: StakePair) -> None:
    """A reward to a validator that nobody is behind, or to somebody else, is a transfer and nothing more."""
    for who in ("val", "stranger"):
        events = pair.reward(who, 77)
        assert events == (Transferred(DEPLOYER.address, at(who), 77),)


def test_stake_that_voted_and_left_still_counts_in_what_two_thirds_are_of(pair: StakePair) -> None:
    """Two fifths of the weight can't become two thirds by voting, leaving, and having a crumb vote behind them."""
    crumb = key("crumb")
    pair.expect(calls.Transfer(crumb.address, 1), DEPLOYER)
    pair.expect(calls.Approve(AT.registry, 1), crumb)
    pair.expect(calls.Register(VALIDATOR, ZERO_DIGEST), crumb)
    pair.expect(calls.Bond(1), crumb)
    pair.delegate("payer", "vic", 20_000)
    pair.advance(RULES.epoch_s)
    epoch = pair.now_s // RULES.epoch_s - 1
    pair.expect(calls.CommitEpoch(epoch, ZERO_DIGEST, 1, 1), HOTS["ann"])
    verdict = Verdict(at("ann"), epoch, EPOCH_LIST, ZERO_DIGEST, 2, ZERO_DIGEST)
    pair.expect(calls.Vote(verdict, (), judged(verdict, HOTS["vic"])), STRANGER)
    pair.undelegate("payer", "vic", 20_000)
    pair.expect(calls.Unbond(30_000), OWNERS["vic"])
    pair.expect(calls.Vote(verdict, (), judged(verdict, crumb)), STRANGER)
    assert not pair.twin.court.convicted(at("ann")), "50,001 of 120,001 spoke"
    pair.expect(calls.Vote(verdict, (), judged(verdict, HOTS["val"])), STRANGER)
    assert pair.twin.court.convicted(at("ann"))
