"""What those get who accuse falsely or carelessly: a ring on the panel, two auditors together, an accuser that is wrong itself."""

from typing import TypeVar

import pytest

from clusterai.audit.core.rate import misjudged
from clusterai.ledger.core import calls
from clusterai.ledger.core.events import DisputeEnded, Event, LeaseClosed, RefereesDrawn, Slashed
from clusterai.ledger.core.twin.disputes import REVEALING
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import CloseReason, DisputeReason
from clusterai.protocol.signing import Key
from tests.contracts.cast import DEPLOYER, HOTS, OWNERS, RULES, STRANGER
from tests.contracts.disputecast import REFEREES, DisputePair, traces, wrong_from
from tests.contracts.leasecast import WRONG, Job, job

E = TypeVar("E")
ANN = OWNERS["ann"].address
BOND, AUDIT_BOND = RULES.disputes.bond_wei, RULES.audits.bond_wei
RING = (*(key.address for key in list(REFEREES.values())[:2]), OWNERS["vow"].address)
"""With vic, who accuses: of those who judge it has 100,000 of 310,000 at stake."""


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
    return sum(map(pair.twin.token.balance, {owner, who.address}))


# --- committees ---


def seats(pair: DisputePair, seed: bytes, level: int, count: int) -> int:
    """How many of a committee's seats the ring has, as the twin draws them."""
    excluded = (ANN, OWNERS["gate"].address, OWNERS["vic"].address)
    lots = (int.from_bytes(keccak(seed + bytes((3, level, seat)))) for seat in range(count))
    return sum(pair.twin.panel.pick(lot, pair.now_s, excluded) in RING for lot in lots)


def test_a_third_of_the_panel_does_not_convict_the_honest(pair: DisputePair) -> None:
    """In 4,000 disputes that a ring starts and judges it never has its way; the exact chance is below one in ten thousand."""
    began = [seats(pair, keccak(b"dispute" + n.to_bytes(4)), 0, 15) for n in range(4_000)]
    undecided = [n for n, ring in enumerate(began) if 5 < ring < 13]
    second = [seats(pair, keccak(b"dispute" + n.to_bytes(4)), 1, 45) for n in undecided]
    assert max(began) < 13
    assert max(second) < 30
    assert 0.25 < len(undecided) / 4_000 < 0.45
    convicts, acquits = misjudged(0.3)
    assert convicts < 1e-5
    assert acquits < 0.005
    assert misjudged(100 / 310)[0] < 1e-4


def chosen(weights: dict[Address, int], wanted: int) -> frozenset[Address]:
    """Some who have so many seats together."""
    found: dict[int, frozenset[Address]] = {0: frozenset()}
    for who, weight in weights.items():
        found |= {sum_ + weight: group | {who} for sum_, group in found.items() if sum_ + weight not in found}
    return found.get(wanted, frozenset())


def committee_with(pair: DisputePair, wanted: int, cheats: bool) -> tuple[Job, Digest, frozenset[Address]]:
    """A dispute whose first committee has a part with so many seats; what is claimed, and who these are."""
    for n in range(20):
        one = job(pair, f"{wanted} of fifteen {n}", metered=1, cheats=cheats)
        accuser, _ = pair.contested(one, one.honest.result(1) if cheats else WRONG)
        pair.expect(calls.StartDispute(one.lease), accuser)
        weights = {who: pair.twin.disputes.voice(one.lease, 0, who).weight for who in pair.committee(one)}
        if group := chosen(weights, wanted):
            return one, pair.dispute(one).game.claimed, group
    pytest.fail("no committee could be parted so")


@pytest.mark.parametrize(("against", "level"), [(13, None), (12, 1), (6, 1)])
def test_six_sevenths_of_the_first_committee_convict(
    pair: DisputePair, against: int, level: int | None
) -> None:
    """Thirteen of fifteen seats do; twelve don't, nor do nine acquit: 45 seats look again."""
    one, claimed, group = committee_with(pair, against, cheats=False)
    events = pair.judge(one, lambda who: WRONG if who in group else claimed)
    if pair.dispute(one).stage == REVEALING:
        events += pair.expire(one)
    if level is None:
        assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    else:
        assert [event.level for event in events if isinstance(event, RefereesDrawn)] == [level]
    pair.check([one])


def test_two_thirds_acquit_at_once(pair: DisputePair) -> None:
    """Ten seats say what the provider claimed: that is enough, whatever five others say."""
    one, claimed, group = committee_with(pair, 10, cheats=False)
    events = pair.judge(one, lambda who: claimed if who in group else WRONG)
    assert only(events, DisputeEnded) == DisputeEnded(one.lease, ANN, DisputeReason.REFEREES)
    pair.check([one])


# --- what false accusers pay, and careless ones don't get ---


def test_two_auditors_who_lie_together_pay_the_provider(pair: DisputePair) -> None:
    """They agree on a result that nothing gives: both bonds and the accuser's are the provider's, and it is paid."""
    one = job(pair, metered=300)
    before = money(pair, HOTS["ann"])
    accuser, second = pair.contested(one, WRONG)
    funds = money(pair, accuser), money(pair, second)
    pair.expect(calls.StartDispute(one.lease), accuser)
    truth, claimed, steps = traces(pair, one)
    pair.play(one, accuser, truth, wrong_from(truth, 200, WRONG, steps))
    high = pair.dispute(one).game.high
    pair.judge(one, lambda _: claimed if high == steps else truth(high))
    assert money(pair, HOTS["ann"]) == before + 2 * AUDIT_BOND + BOND
    assert (money(pair, accuser), money(pair, second)) == (funds[0] - BOND, funds[1])
    pair.advance(RULES.window_s + 1)
    closed = only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed)
    assert (closed.paid, closed.refunded) == (900, 201)
    pair.check([one])


@pytest.mark.parametrize("steps", [1, 1_000])
def test_an_accuser_that_is_wrong_itself_gets_no_bounty(pair: DisputePair, steps: int) -> None:
    """The provider is convicted, its stake burnt to the last unit; the accuser has its bonds back, and no fee is paid."""
    one = job(pair, cheats=True, metered=steps)
    start = money(pair, HOTS["vic"]), pair.twin.token.supply()
    accuser, second = pair.contested(one, WRONG, WRONG)
    before = money(pair, accuser) + AUDIT_BOND, money(pair, second) + AUDIT_BOND
    pair.expect(calls.StartDispute(one.lease), accuser)
    truth, claimed, _ = traces(pair, one)
    first = (steps + 1) // 2
    pair.play(one, accuser, wrong_from(truth, first, claimed, steps), wrong_from(truth, first, WRONG, steps))
    events = pair.judge(one, lambda _: truth(first))
    slashed, closed = only(events, Slashed), only(events, LeaseClosed)
    assert (slashed.owner, slashed.amount, slashed.bounty) == (ANN, 10_000, 0)
    assert slashed.finder == ZERO_ADDRESS
    assert (closed.reason, closed.paid, closed.refunded) == (CloseReason.FRAUD, 0, 1_101)
    assert (money(pair, accuser), money(pair, second)) == before
    assert pair.twin.token.supply() == start[1] - 10_000
    pair.check([one])


def test_bonds_grow_with_the_stake_that_could_be_shared_out(pair: DisputePair) -> None:
    """A hundredth of what the provider has at stake, unbonding or not, once that is more than the least bond."""
    pair.expect(calls.Bond(90_000), OWNERS["ann"])
    pair.expect(calls.Unbond(40_000), OWNERS["ann"])
    one = job(pair, metered=1)
    accuser, second = pair.contested(one, WRONG)
    assert [pair.twin.audits.opinion(one.lease, turn).bond for turn in (0, 1)] == [1_000, 1_000]
    before, funds = money(pair, HOTS["ann"]), money(pair, accuser)
    pair.expect(calls.StartDispute(one.lease), accuser)
    assert pair.dispute(one).bond == 1_000
    assert money(pair, accuser) == funds - 1_000
    claimed = pair.dispute(one).game.claimed
    pair.judge(one, lambda _: claimed)
    assert money(pair, HOTS["ann"]) == before + 3_000
    assert second != accuser
    pair.check([one])


def test_a_provider_that_is_silent_pays_whoever_accused_it(pair: DisputePair) -> None:
    """Nobody said what was right: the bounty is the accuser's."""
    one = job(pair, cheats=True, metered=1_000)
    accuser, _ = pair.contested(one, WRONG)
    pair.expect(calls.StartDispute(one.lease), accuser)
    events = pair.expire(one)
    assert only(events, Slashed).bounty == 5_000
    assert pair.refused(calls.ExpireDispute(one.lease), DEPLOYER) == "WrongStage"
    pair.check([one])
