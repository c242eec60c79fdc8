"""Who claims more units than it did: each way is found by its draw, and who did less than was agreed is paid and left alone."""

from typing import Any, TypeVar

import msgspec
import pytest

from clusterai.audit.core.segments import Commitment
from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Event, LeaseClosed, Slashed
from clusterai.protocol.leases import CloseReason, earned_wei, sealed_result
from clusterai.protocol.signing import Key
from tests.contracts.cast import HOTS, OWNERS, RULES, STRANGER
from tests.contracts.disputecast import SIGNERS, DisputePair, traces
from tests.contracts.leasecast import SALT, Job, commit, digest, hot, job, opening

E = TypeVar("E")
ANN = OWNERS["ann"].address
LUMP = (7, 7, 7, 49)
"""Of 70 units and four segments: the last claims more than the 18 that any may have."""


@pytest.fixture
def pair() -> DisputePair:
    made = DisputePair()
    made.populate()
    return made


def only(events: tuple[Event, ...], kind: type[E]) -> E:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def inflated(
    pair: DisputePair, units: tuple[int, ...], name: str = "job", most: int = 0, **changes: Any
) -> Job:
    """A lease whose work is right, at 7 units a segment, and whose meter says something else."""
    one = job(pair, name, units=most or sum(units), **changes)
    return msgspec.structs.replace(one, work=Commitment(one.honest.states, units))


def drawn(pair: DisputePair, one: Job) -> tuple[int, int]:
    """Its segments: that which is run again, and that in which the drawn unit lies."""
    pair.committed(one, earned_wei(1_000, one.work.meters[-1], one.terms.units))
    pair.drawn(one)
    audit = pair.twin.audits.audit(one.lease)
    return audit.segment, one.work.show(audit.segment, audit.seed)[1]


def sealed(pair: DisputePair, one: Job) -> Key:
    """The auditor whose turn it is has run the segment, and says so sealed."""
    auditor = pair.twin.audits.audit(one.lease).auditor
    seal = sealed_result(one.right(pair), auditor, one.lease, SALT)
    pair.expect(calls.CommitAudit(one.lease, seal), SIGNERS[auditor])
    return SIGNERS[auditor]


def test_a_meter_that_is_wrong_everywhere_is_found_by_any_draw(pair: DisputePair) -> None:
    """Twice the units in each segment, within the cap: whoever runs one again comes to another result, and wins."""
    one = inflated(pair, (14,) * 4)
    drawn(pair, one)
    accuser = pair.says(one, one.right(pair))
    pair.says(one, one.right(pair))
    assert pair.twin.audits.opinion(one.lease, 0).result != one.claimed(pair)
    pair.expect(calls.StartDispute(one.lease), accuser)
    truth, claimed, steps = traces(pair, one)
    assert steps == 14
    pair.play(one, accuser, lambda point: claimed if point == steps else truth(point), truth)
    assert pair.dispute(one).game.high == steps
    events = pair.judge(one, lambda _: truth(steps))
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    assert only(events, Slashed).owner == ANN
    pair.check([one])


def test_a_lump_of_units_convicts_by_arithmetic(pair: DisputePair) -> None:
    """Where the drawn unit lies in it, its two meters are enough: no second auditor, no dispute."""
    met: list[Job] = []
    for n in range(40):
        one = inflated(pair, LUMP, f"lump {n}")
        met.append(one)
        segment, other = drawn(pair, one)
        if segment == 4 or other != 4:
            continue
        auditor = sealed(pair, one)
        events = pair.expect(opening(pair, one), hot(one.provider))
        closed, slashed = only(events, LeaseClosed), only(events, Slashed)
        assert (closed.reason, closed.paid, closed.refunded) == (CloseReason.FRAUD, 0, 1_000)
        assert slashed.finder == pair.twin.registry.owner_of(auditor.address)
        break
    else:
        pytest.fail("the lump, seven tenths of all units, was never drawn")
    for earlier in met[:-1]:
        pair.expect(calls.CloseLease(earlier.lease), STRANGER)
    pair.check(met)


@pytest.mark.parametrize("units", [(14, 0), (15, -1)])
def test_a_meter_that_can_not_be_right_convicts_whatever_is_drawn(
    pair: DisputePair, units: tuple[int, ...]
) -> None:
    """Of two segments one has more than its cap and holds all units: it is looked at in every audit, one way or the other."""
    one = inflated(pair, units, segments=2, most=14)
    segment, other = drawn(pair, one)
    assert 1 in (segment, other) or units[segment - 1] < 0
    auditor = sealed(pair, one)
    events = pair.expect(opening(pair, one), HOTS["ann"])
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    owner = pair.twin.registry.owner_of(auditor.address)
    assert only(events, Slashed).finder == owner
    pair.check([one])


@pytest.mark.parametrize("units", [(7, 7, 7, 14), (7, 14, 7, 7)])
def test_units_within_the_cap_are_found_where_they_are_drawn(
    pair: DisputePair, units: tuple[int, ...]
) -> None:
    """In one segment of four: the audit of that one differs, of the others it doesn't, as with a wrong state."""
    found: set[bool] = set()
    for n in range(30):
        one = inflated(pair, units, f"one segment {n}", most=56)
        segment, _ = drawn(pair, one)
        differs = units[segment - 1] != 7
        assert (one.right(pair) != one.claimed(pair)) == differs
        found.add(differs)
        pair.says(one, one.right(pair))
        state = pair.twin.audits.audit(one.lease)
        assert state.second == differs
        if found == {True, False}:
            break
    assert found == {True, False}


def test_segments_that_were_not_done_have_no_states(pair: DisputePair) -> None:
    """Two of four processes ran, and four are claimed: the states of the others are made up, and a drawn one is found."""
    one = job(pair, determinism=2, metered=1)
    right = one.honest.states
    made_up = Commitment([*right[:3], digest("made up 3"), digest("made up 4")], (1,) * 4)
    one = msgspec.structs.replace(one, work=made_up)
    segment, _ = drawn(pair, one)
    assert (one.right(pair) != one.claimed(pair)) == (segment > 2)


def test_two_processes_can_not_claim_four_units(pair: DisputePair) -> None:
    """A process is one unit: more of them in fewer segments aren't even taken, and in as many one of them is a lump."""
    one = job(pair, determinism=2, metered=1)
    few = Commitment(one.honest.states[:3], (2, 2))
    pair.accepted(one)
    few_call = commit(msgspec.structs.replace(one, work=few), 900)
    assert pair.refused(few_call, HOTS["ann"]) == "UnitsOutOfRange"
    lumped = msgspec.structs.replace(one, work=Commitment(one.honest.states, (0, 2, 0, 2)))
    pair.expect(commit(lumped, 900), HOTS["ann"])
    pair.drawn(lumped)
    sealed(pair, lumped)
    events = pair.expect(opening(pair, lumped), HOTS["ann"])
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    pair.check([lumped])


@pytest.mark.parametrize(("done", "paid"), [(1, 475), (2, 650), (4, 1_000)])
def test_who_finishes_early_is_paid_its_share_and_never_accused(
    pair: DisputePair, done: int, paid: int
) -> None:
    """The job ended after some of its segments: base and share, an audit that matches whatever it draws, a fee that is earned."""
    one = job(pair)
    early = Commitment(one.honest.states[: done + 1], (7,) * done)
    one = msgspec.structs.replace(one, work=early, honest=early)
    pair.accepted(one)
    assert pair.refused(commit(one, paid + 1), HOTS["ann"]) == "ExceedsCompensation"
    pair.expect(commit(one, paid), HOTS["ann"])
    pair.drawn(one)
    auditor = pair.twin.audits.audit(one.lease).auditor
    pair.says(one, one.right(pair))
    assert not pair.twin.audits.audit(one.lease).second
    pair.advance(RULES.window_s + 1)
    before = pair.twin.token.balance(auditor)
    closed = only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed)
    assert (closed.reason, closed.paid, closed.refunded) == (CloseReason.COMPLETED, paid, 1_000 - paid)
    assert pair.twin.token.balance(auditor) >= before + 101
    pair.check([one])
