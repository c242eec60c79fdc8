"""Random histories of delegated stake: twin and bytecode agree, nothing is lost, and rewards go to who was there."""

from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Bonded, Event, Unbonding
from clusterai.ledger.core.stake_events import (
    CommissionAnnounced,
    DelegatedSlashed,
    RewardClaimed,
    RewardShared,
    StakeDelegated,
    StakeUndelegated,
)
from clusterai.ledger.core.twin import Refused
from clusterai.protocol.ids import Address
from clusterai.protocol.signing import Key
from tests.contracts.cast import EVERYONE, HOTS, OWNERS, START_S
from tests.contracts.stakecast import DELAY_S, DELEGATORS, VALIDATORS, StakePair, at, contradiction
from tests.contracts.test_twins_equal_bytecode import run

validators = st.sampled_from(VALIDATORS)
anybody = st.sampled_from((*VALIDATORS, *VALIDATORS, "ann", "stranger"))
delegators = st.sampled_from((*DELEGATORS, "val"))
amounts = st.one_of(
    st.integers(0, 200_000), st.sampled_from((1, 7, 10_000, 60_000)), st.integers(0, 2**128 - 1)
)

waits = st.sampled_from((0, 0, 1, DELAY_S, 2 * DELAY_S))
PAIRS = [(who, validator) for who in (*DELEGATORS, "val") for validator in VALIDATORS]


class Shares:
    """A second bookkeeping, which knows no sums per unit: each delegation with its time, each reward divided exactly."""

    def __init__(self) -> None:
        self.lots: dict[Address, dict[Address, list[tuple[int, int]]]] = {}
        self.own: dict[Address, list[tuple[int, int]]] = {}
        self.commissions: dict[Address, list[tuple[int, int]]] = {}
        self.owed: dict[tuple[Address, Address], Fraction] = {}

    def note(self, event: Event, now_s: int) -> None:
        match event:
            case StakeDelegated(validator, who, amount, _):
                self.lots.setdefault(validator, {}).setdefault(who, []).append((now_s, amount))
            case StakeUndelegated(validator, who, amount, _, _):
                lots = self.lots[validator][who]
                while amount:
                    since_s, last = lots.pop()
                    if last > amount:
                        lots.append((since_s, last - amount))
                    amount -= min(last, amount)
            case DelegatedSlashed(validator):
                self.lots[validator] = {}
            case RewardClaimed(validator, who, amount):
                self.owed[validator, who] -= amount
            case Bonded(owner, _, stake):
                self.own.setdefault(owner, []).append((now_s, stake))
            case Unbonding(owner, amount, _):
                self.own[owner].append((now_s, self.own[owner][-1][1] - amount))
            case CommissionAnnounced(validator, bps, from_s):
                known = self.commissions.get(validator, [])
                self.commissions[validator] = [*(one for one in known if one[0] <= now_s), (from_s, bps)]
            case RewardShared(validator, amount, shared):
                self._divide(validator, amount, shared, now_s)
            case _:
                pass

    def _own(self, validator: Address, now_s: int) -> int:
        """The least since the present period's predecessor began."""
        begins_s = (now_s // DELAY_S - 1) * DELAY_S
        before = [stake for at_s, stake in self.own[validator] if at_s < begins_s]
        since = [stake for at_s, stake in self.own[validator] if at_s >= begins_s]
        return min([before[-1] if before else 0, *since])

    def _divide(self, validator: Address, amount: int, shared: int, now_s: int) -> None:
        earns = {
            who: sum(amount for since_s, amount in lots if ripe(since_s, now_s))
            for who, lots in self.lots[validator].items()
        }
        all_ = sum(earns.values())
        commission = [0, *(bps for from_s, bps in self.commissions.get(validator, []) if from_s <= now_s)][-1]
        part = Fraction(amount * all_, all_ + self._own(validator, now_s)) * Fraction(
            10_000 - commission, 10_000
        )
        assert -1 < shared - part < 1
        for who, stake in earns.items():
            part = Fraction(shared * stake, all_)
            self.owed[validator, who] = self.owed.get((validator, who), Fraction(0)) + part


def ripe(since_s: int, now_s: int) -> bool:
    """A whole period has passed."""
    return now_s // DELAY_S - since_s // DELAY_S >= 2


class DelegationHistories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pair = StakePair()
        self.shares = Shares()
        self.steps = 0

    @initialize(age_s=st.sampled_from((0, DELAY_S, 2 * DELAY_S)))
    def begin(self, age_s: int) -> None:
        self.pair.populate()
        for name in VALIDATORS:
            stake = self.pair.twin.registry.participant(at(name)).stake
            self.shares.own[at(name)] = [(START_S, stake)]
        for turn, who in enumerate(DELEGATORS):
            for validator in (VALIDATORS[turn % 3], VALIDATORS[(turn + 1) % 3]):
                self.do(calls.DelegateStake(at(validator), 9_000 + 7 * turn), EVERYONE[who])
        self.pair.advance(age_s)

    def do(self, call: calls.Call, sender: Key) -> tuple[Event, ...] | Refused:
        outcome = self.pair.do(call, sender)
        self.steps += 1
        if not isinstance(outcome, Refused):
            for event in outcome:
                self.shares.note(event, self.pair.now_s)
        return outcome

    # --- what happens ---

    @rule(seconds=st.sampled_from((1, 59, DELAY_S - 1, DELAY_S, DELAY_S + 1, 2 * DELAY_S, 5 * DELAY_S)))
    def time_passes(self, seconds: int) -> None:
        self.pair.advance(seconds)

    @rule(who=delegators, validator=anybody, amount=amounts)
    def delegate(self, who: str, validator: str, amount: int) -> None:
        self.do(calls.DelegateStake(at(validator), amount), EVERYONE[who])

    @rule(data=st.data(), quarters=st.sampled_from((1, 1, 2, 3, 4, 5)))
    def undelegate(self, data: st.DataObject, quarters: int) -> None:
        there = [(who, one) for who, one in PAIRS if self.pair.position(one, who).stake]
        who, validator = data.draw(st.sampled_from(there or PAIRS))
        amount = -(-self.pair.position(validator, who).stake * quarters // 4)
        self.do(calls.UndelegateStake(at(validator), amount), EVERYONE[who])

    @rule(data=st.data(), wait_s=waits)
    def withdraw(self, data: st.DataObject, wait_s: int) -> None:
        self.pair.advance(wait_s)
        there = [(who, one) for who, one in PAIRS if self.pair.twin.delegations.pending(at(one), at(who))]
        who, validator = data.draw(st.sampled_from(there or PAIRS))
        self.do(calls.WithdrawStake(at(validator)), EVERYONE[who])

    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        there = [(who, one) for who, one in PAIRS if self.pair.earned(one, who)]
        who, validator = data.draw(st.sampled_from(there or PAIRS))
        self.do(calls.ClaimReward(at(validator)), EVERYONE[who])

    @rule(
        validator=anybody,
        amount=st.one_of(st.integers(0, 5_000), st.integers(3, 999), st.just(2**128 - 1)),
        wait_s=waits,
    )
    def reward(self, validator: str, amount: int, wait_s: int) -> None:
        self.pair.advance(wait_s)
        self.do(calls.PayReward(at(validator), amount), EVERYONE["payer"])

    @rule(who=anybody, bps=st.sampled_from((0, 500, 5_000, 5_001)))
    def commission(self, who: str, bps: int) -> None:
        self.do(calls.AnnounceCommission(bps), EVERYONE[who])

    @rule(validator=validators, amount=st.integers(0, 60_000), out=st.booleans(), takes=st.booleans())
    def own_stake(self, validator: str, amount: int, out: bool, takes: bool) -> None:
        call = calls.Withdraw() if takes else calls.Unbond(amount) if out else calls.Bond(amount)
        self.do(call, OWNERS[validator])

    @rule(validator=validators, enlists=st.booleans())
    def seats(self, validator: str, enlists: bool) -> None:
        self.do(calls.Enlist() if enlists else calls.Weigh(at(validator)), HOTS[validator])

    @precondition(lambda self: self.steps % 7 == 0)
    @rule(validator=validators, finder=delegators)
    def equivocation(self, validator: str, finder: str) -> None:
        self.do(contradiction(validator), EVERYONE[finder])

    # --- what always holds ---

    @invariant()
    def nothing_is_missing_and_nothing_counts_twice(self) -> None:
        self.pair.check()

    @invariant()
    def rewards_are_those_of_who_was_there(self) -> None:
        """Short of the exact share by less than a unit a step, and never above it."""
        for validator in VALIDATORS:
            for who in EVERYONE:
                exact = self.shares.owed.get((at(validator), at(who)), Fraction(0))
                short = exact - self.pair.earned(validator, who)
                assert -Fraction(self.steps, 2**40) <= short <= self.steps + 1

    def teardown(self) -> None:
        self.pair.compare()


def test_twin_and_bytecode_of_delegations_agree_over_random_histories() -> None:
    """Outcomes, events and state are equal; stakes, rewards and votes add up to the unit at each step."""
    run(DelegationHistories, examples=60, steps=60)
