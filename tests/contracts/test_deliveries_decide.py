"""Demands for delivery: who gets the bond and the lease's money; each test is one story on the bytecode and its twin."""

from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import (
    Convicted,
    DeliveryDemanded,
    DemandEnded,
    Event,
    LeaseClosed,
    Slashed,
    UndeliveredReported,
)
from clusterai.ledger.core.twin import Refused
from clusterai.ledger.core.twin.deliveries import OPEN
from clusterai.ledger.core.twin.leases import CLOSED
from clusterai.protocol.ids import ZERO_ADDRESS, Address
from clusterai.protocol.leases import CloseReason, DemandOutcome
from clusterai.protocol.signing import Key
from tests.contracts.cast import AT, DEPLOYER, EVERYONE, HOTS, KEYS, OWNERS, RULES, STRANGER
from tests.contracts.leasecast import AUDITORS, Job, LeasePair, job

E = TypeVar("E")
BOND, DELIVER_S = RULES.deliveries.bond_wei, RULES.deliveries.deliver_s
ANN = OWNERS["ann"].address
GATE = HOTS["gate"]


@pytest.fixture
def pair() -> LeasePair:
    made = LeasePair()
    made.populate()
    return made


def only(events: tuple[Event, ...], kind: type[E]) -> E:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def balance(pair: LeasePair, who: Key) -> int:
    return pair.twin.token.balance(who.address)


def committed(pair: LeasePair, determinism: int = 0) -> Job:
    return pair.committed(job(pair, determinism=determinism))


def demanded(pair: LeasePair, one: Job) -> Job:
    pair.expect(calls.DemandDelivery(one.lease), GATE)
    return one


def check(pair: LeasePair, one: Job) -> None:
    """All views are equal, and Deliveries holds the bonds of open demands alone."""
    pair.compare_leases((one.lease,))
    held = BOND if pair.twin.deliveries.is_demanded(one.lease) else 0
    assert pair.twin.token.balance(AT.deliveries) == held


@pytest.mark.parametrize("determinism", [0, 1, 2])
def test_two_thirds_convict_and_everything_goes_back(pair: LeasePair, determinism: int) -> None:
    """In every class: the requester has its money and its bond, the provider's stake is burnt, nobody gets a bounty."""
    money = balance(pair, GATE)
    one = demanded(pair, committed(pair, determinism))
    events = pair.expect(calls.ReportUndelivered(one.lease), HOTS["val"])
    assert only(events, UndeliveredReported).weight == 50_000
    events = pair.expect(calls.ReportUndelivered(one.lease), HOTS["vic"])
    assert only(events, DemandEnded).outcome == DemandOutcome.UNDELIVERED
    assert only(events, LeaseClosed) == LeaseClosed(one.lease, CloseReason.WITHHELD, 0, 1_101)
    slashed = only(events, Slashed)
    assert (slashed.owner, slashed.bounty, slashed.burned) == (ANN, 0, slashed.amount)
    assert slashed.finder == ZERO_ADDRESS
    assert only(events, Convicted).provider == ANN
    assert balance(pair, GATE) == money
    assert pair.refused(calls.ReportUndelivered(one.lease), HOTS["vow"]) == "WrongStage"
    assert pair.refused(calls.ExpireDemand(one.lease), STRANGER) == "WrongStage"
    check(pair, one)


def test_who_was_served_and_demands_loses_the_bond(pair: LeasePair) -> None:
    """Fewer than two thirds by the deadline: the bond is the provider's, and the lease is paid."""
    one = demanded(pair, committed(pair))
    before = balance(pair, OWNERS["ann"])
    pair.expect(calls.ReportUndelivered(one.lease), HOTS["vow"])
    pair.expect(calls.ReportUndelivered(one.lease), HOTS["vic"])
    pair.advance(DELIVER_S)
    assert pair.refused(calls.ExpireDemand(one.lease), STRANGER) == "NotExpired"
    pair.advance(1)
    assert pair.refused(calls.ReportUndelivered(one.lease), HOTS["val"]) == "TooLate"
    events = pair.expect(calls.ExpireDemand(one.lease), STRANGER)
    assert only(events, DemandEnded).outcome == DemandOutcome.DELIVERED
    assert balance(pair, OWNERS["ann"]) == before + BOND
    pair.advance(RULES.window_s)
    assert only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed).paid == 900
    check(pair, one)


def test_a_lease_is_not_paid_while_a_demand_is_open(pair: LeasePair) -> None:
    """Demanded in the window's last second, it is closed only once the demand has ended."""
    one = committed(pair)
    pair.advance(RULES.window_s)
    demanded(pair, one)
    pair.advance(DELIVER_S)
    assert pair.refused(calls.CloseLease(one.lease), STRANGER) == "DeliveryPending"
    assert pair.twin.registry.participant(ANN).stake
    pair.advance(1)
    pair.expect(calls.ExpireDemand(one.lease), STRANGER)
    assert only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed).paid == 900


def test_when_and_by_whom_it_is_demanded(pair: LeasePair) -> None:
    """By the requester's keys alone, between the commitment and the window's end, once."""
    one = pair.accepted(job(pair, determinism=0))
    assert pair.refused(calls.DemandDelivery(one.lease), GATE) == "NotCommitted"
    other = pair.committed(job(pair, "other", determinism=0))
    for who in (HOTS["ann"], OWNERS["ann"], HOTS["val"], STRANGER):
        assert pair.refused(calls.DemandDelivery(other.lease), who) == "NotRequester"
    assert pair.refused(calls.ExpireDemand(other.lease), STRANGER) == "WrongStage"
    assert pair.refused(calls.ReportUndelivered(other.lease), HOTS["val"]) == "WrongStage"
    pair.advance(RULES.window_s + 1)
    assert pair.refused(calls.DemandDelivery(other.lease), GATE) == "TooLate"
    third = pair.committed(job(pair, "third", determinism=0))
    event = only(pair.expect(calls.DemandDelivery(third.lease), OWNERS["gate"]), DeliveryDemanded)
    assert event == DeliveryDemanded(third.lease, OWNERS["gate"].address, ANN, pair.now_s + DELIVER_S)
    assert pair.refused(calls.DemandDelivery(third.lease), GATE) == "WrongStage"
    pair.advance(DELIVER_S + 1)
    pair.expect(calls.ExpireDemand(third.lease), STRANGER)
    assert pair.refused(calls.DemandDelivery(third.lease), GATE) == "WrongStage"
    check(pair, third)


def test_who_may_report(pair: LeasePair) -> None:
    """Who had a seat before the commitment, once; neither party, nobody who came later."""
    one = demanded(pair, committed(pair))
    for who in (STRANGER, HOTS["ann"], HOTS["bob"], GATE):
        assert pair.refused(calls.ReportUndelivered(one.lease), who) == "NotMember"
    pair.expect(calls.ReportUndelivered(one.lease), HOTS["val"])
    assert pair.refused(calls.ReportUndelivered(one.lease), OWNERS["val"]) == "AlreadyReported"
    asked = pair.committed(job(pair, "by val", requester="val", determinism=0))
    pair.expect(calls.DemandDelivery(asked.lease), HOTS["val"])
    assert pair.refused(calls.ReportUndelivered(asked.lease), HOTS["val"]) == "NotMember"
    # Of 50,000 that are left 33,334 decide.
    pair.expect(calls.ReportUndelivered(asked.lease), HOTS["vic"])
    events = pair.expect(calls.ReportUndelivered(asked.lease), HOTS["vow"])
    assert only(events, LeaseClosed).reason == CloseReason.WITHHELD


def test_a_demand_about_a_closed_lease_is_moot(pair: LeasePair) -> None:
    """The provider is convicted for something else: the bond goes back at once, and nobody reports any more."""
    first, second = demanded(pair, committed(pair)), pair.committed(job(pair, "second", determinism=0))
    demanded(pair, second)
    for name in ("val", "vic"):
        pair.expect(calls.ReportUndelivered(first.lease), HOTS[name])
    pair.expect(calls.ReportUndelivered(second.lease), HOTS["val"])
    pair.expect(calls.CloseLease(second.lease), STRANGER)
    assert pair.refused(calls.ReportUndelivered(second.lease), HOTS["vic"]) == "NotCommitted"
    before = balance(pair, GATE)
    events = pair.expect(calls.ExpireDemand(second.lease), STRANGER)
    assert only(events, DemandEnded).outcome == DemandOutcome.MOOT
    assert balance(pair, GATE) == before + BOND
    check(pair, second)


def test_an_audit_goes_on_beside_a_demand(pair: LeasePair) -> None:
    """A lease that matched waits for its demand; one that is found to be withheld gives the audit's fee to whom it is due."""
    one = demanded(pair, committed(pair, 1))
    events = pair.drawn(one)
    assert not isinstance(events, Refused)
    if pair.twin.audits.audit(one.lease).state == 2:
        pair.answered(one)
    for name in ("val", "vic"):
        pair.expect(calls.ReportUndelivered(one.lease), HOTS[name])
    assert pair.twin.leases.lease(one.lease).state == CLOSED
    assert not any(pair.twin.audits.opinion(one.lease, turn).bond for turn in (0, 1))
    check(pair, one)


@settings(
    max_examples=60, deadline=None, suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large)
)
@given(st.data())
def test_twins_and_bytecode_agree_over_random_demands(data: st.DataObject) -> None:
    """Whatever anybody calls in any order, outcomes, events, state and money are equal, and each lease can be closed."""
    pair = LeasePair()
    pair.populate()
    one = committed(pair, data.draw(st.sampled_from((0, 1))))
    senders = st.sampled_from(sorted(EVERYONE))
    for _ in range(data.draw(st.integers(1, 25))):
        pair.advance(data.draw(st.sampled_from((0, 0, 1, 5, 16, 31, 61))))
        what = data.draw(st.integers(0, 6))
        sender = EVERYONE[data.draw(senders)]
        match what:
            case 0:
                pair.do(calls.DemandDelivery(one.lease), data.draw(st.sampled_from((GATE, GATE, sender))))
            case 1 | 2:
                member = HOTS[data.draw(st.sampled_from(AUDITORS))]
                pair.do(calls.ReportUndelivered(one.lease), data.draw(st.sampled_from((member, sender))))
            case 3:
                pair.do(calls.ExpireDemand(one.lease), sender)
            case 4:
                pair.do(calls.CloseLease(one.lease), sender)
            case 5:
                pair.do(calls.Tick(), DEPLOYER)
                pair.do(calls.DrawLease(one.lease), sender)
            case _:
                pair.do(calls.ExpireAudit(one.lease), sender)
        check(pair, one)
    for _ in range(20):
        pair.advance(
            600
        )  # an auditor is waited for up to four shares of the terms' time, and eight are drawn
        for call in (
            calls.Tick(),
            calls.DrawLease(one.lease),
            calls.ExpireAudit(one.lease),
            calls.ExpireDemand(one.lease),
            calls.CloseLease(one.lease),
        ):
            pair.do(call, DEPLOYER)
    assert pair.twin.leases.lease(one.lease).state == CLOSED
    assert pair.twin.deliveries.demand(one.lease).stage != OPEN
    assert sum(map(pair.twin.token.balance, (*KEYS, *places()))) == pair.twin.token.supply()
    check(pair, one)


def places() -> tuple[Address, ...]:
    return (AT.registry, AT.channels, AT.court, AT.credit, AT.leases, AT.audits, AT.deliveries)
