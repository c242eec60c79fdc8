"""Where a lease's money goes, whichever way it ends; each test is one story."""

import msgspec
import pytest

from clusterai.audit.core.segments import Commitment
from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Event, LeaseClosed, LeaseCommitted, PayVested, VestedReleased
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.protocol.leases import CloseReason, hidden_state
from tests.contracts.cast import AT, DEPLOYER, HOTS, OWNERS, PAYER, RULES, STRANGER
from tests.contracts.leasecast import LeasePair, commit, digest, hot, job, sealed


@pytest.fixture
def pair() -> LeasePair:
    made = LeasePair()
    made.populate()
    return made


def closed(events: tuple[Event, ...]) -> tuple[int, int, int]:
    (found,) = [event for event in events if isinstance(event, LeaseClosed)]
    return found.reason, found.paid, found.refunded


def test_only_the_requesters_keys_open_in_its_name(pair: LeasePair) -> None:
    """A stranger can't; a hot key and the owner can; one set of terms once."""
    one = job(pair)
    assert pair.refused(calls.OpenLease(one.terms), STRANGER) == "NotRequester"
    pair.expect(calls.OpenLease(one.terms), OWNERS["gate"])
    assert pair.refused(calls.OpenLease(one.terms), HOTS["gate"]) == "AlreadyOpened"
    pair.opened(job(pair, "by hot key"))
    pair.opened(job(pair, "by nobody in the Registry", requester="payer"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"determinism": 3},
        {"segments": 0},
        {"segments": 2**20 + 1},
        {"units": 0},
        {"compensation_wei": 0},
        {"start_by_s": 1_699_999_999},
        {"deadline_s": 1_700_000_001},
    ],
    ids=str,
)
def test_terms_out_of_range_are_refused(pair: LeasePair, wrong: dict[str, int]) -> None:
    """Classes, segments, money and times stay within what the contract can carry out."""
    one = job(pair)
    terms = msgspec.structs.replace(one.terms, **wrong)
    assert pair.refused(calls.OpenLease(terms), HOTS["gate"]) == "TermsOutOfRange"


def test_money_must_be_there(pair: LeasePair) -> None:
    """Compensation and fee are pulled at once, or nothing is opened."""
    one = job(pair, compensation_wei=2**62, audit_fee_wei=2**62)
    assert pair.refused(calls.OpenLease(one.terms), HOTS["gate"]) == "ERC20InsufficientBalance"


def test_cancelled_before_start_costs_nothing(pair: LeasePair) -> None:
    """All of it goes back to the key that paid."""
    before = pair.twin.token.balance(HOTS["gate"].address)
    one = pair.opened(job(pair))
    assert pair.refused(calls.CancelLease(one.lease), STRANGER) == "NotRequester"
    end = closed(pair.expect(calls.CancelLease(one.lease, False), OWNERS["gate"]))
    assert end == (CloseReason.CANCELLED_BEFORE_START, 0, 1_101)
    assert pair.twin.token.balance(HOTS["gate"].address) == before
    assert pair.refused(calls.AcceptLease(one.lease), HOTS["ann"]) == "WrongState"


def test_cancelling_costs_a_tenth_and_the_time_that_passed(pair: LeasePair) -> None:
    """At once a tenth, half way 55 %, at the deadline everything; then it is missed instead."""
    for passed, paid in ((0, 100), (50, 550), (100, 1_000)):
        one = job(pair, f"after {passed}", deadline_s=pair.now_s + 100)
        pair.accepted(one)
        pair.advance(passed)
        assert pair.refused(calls.CancelLease(one.lease, False), HOTS["gate"]) == "WrongState"
        end = closed(pair.expect(calls.CancelLease(one.lease), HOTS["gate"]))
        assert end == (CloseReason.CANCELLED, paid, 1_101 - paid)
    one = pair.accepted(job(pair, "late"))
    pair.advance(101)
    assert pair.refused(calls.CancelLease(one.lease), HOTS["gate"]) == "AfterDeadline"
    assert closed(pair.expect(calls.CloseLease(one.lease), STRANGER)) == (
        CloseReason.DEADLINE_MISSED,
        0,
        1_101,
    )


def test_not_accepted_in_time(pair: LeasePair) -> None:
    """Accepting ends at startBy, closing begins behind it."""
    one = pair.opened(job(pair))
    assert pair.refused(calls.AcceptLease(one.lease), HOTS["bob"]) == "NotProvider"
    assert pair.refused(calls.CloseLease(one.lease), STRANGER) == "TooEarly"
    pair.advance(21)
    assert pair.refused(calls.AcceptLease(one.lease), HOTS["ann"]) == "AfterDeadline"
    assert closed(pair.expect(calls.CloseLease(one.lease), STRANGER)) == (CloseReason.NOT_ACCEPTED, 0, 1_101)


def test_giving_up_is_possible_until_the_commitment(pair: LeasePair) -> None:
    """Before it everything goes back; after it neither side gets out."""
    for one in (pair.opened(job(pair, "open")), pair.accepted(job(pair, "accepted"))):
        assert pair.refused(calls.GiveUpLease(one.lease), HOTS["gate"]) == "NotProvider"
        assert closed(pair.expect(calls.GiveUpLease(one.lease), HOTS["ann"])) == (
            CloseReason.GAVE_UP,
            0,
            1_101,
        )
    one = pair.committed(job(pair, "committed"))
    assert pair.refused(calls.GiveUpLease(one.lease), HOTS["ann"]) == "WrongState"
    assert pair.refused(calls.CancelLease(one.lease), HOTS["gate"]) == "WrongState"
    assert pair.refused(commit(one), HOTS["ann"]) == "WrongState"


def test_commitments_keep_to_the_terms(pair: LeasePair) -> None:
    """Not before acceptance, not late, not more money or segments than agreed, not for another's lease."""
    one = pair.opened(job(pair))
    assert pair.refused(commit(one), HOTS["ann"]) == "WrongState"
    pair.expect(calls.AcceptLease(one.lease), HOTS["ann"])
    assert pair.refused(commit(one), HOTS["bob"]) == "NotProvider"
    assert pair.refused(commit(one, amount=1_001), HOTS["ann"]) == "ExceedsCompensation"
    for segments in (0, 5):
        wrong = msgspec.structs.replace(commit(one), segments=segments)
        assert pair.refused(wrong, HOTS["ann"]) == "SegmentsOutOfRange"
    pair.advance(101)
    assert pair.refused(commit(one), HOTS["ann"]) == "AfterDeadline"


def test_other_output_than_expected_is_refunded(pair: LeasePair) -> None:
    """And ends the provider's row of valid results; the expected one goes its way."""
    right = pair.accepted(job(pair, "right", expected=digest("42")))
    pair.expect(commit(right, output=digest("42")), HOTS["ann"])
    wrong = pair.accepted(job(pair, "wrong", expected=digest("42")))
    end = closed(pair.expect(commit(wrong, output=digest("41")), HOTS["ann"]))
    assert end == (CloseReason.OUTPUT_DIFFERS, 0, 1_101)
    assert pair.refused(calls.DrawLease(wrong.lease), STRANGER) == "WrongAuditState"


def test_unverified_lease_is_paid_by_time_alone(pair: LeasePair) -> None:
    """Nothing is drawn, nobody is asked, and the fee comes back."""
    one = pair.committed(job(pair, determinism=0))
    assert pair.refused(calls.DrawLease(one.lease), STRANGER) == "WrongAuditState"
    pair.advance(RULES.window_s)
    assert pair.refused(calls.CloseLease(one.lease), STRANGER) == "TooEarly"
    pair.advance(1)
    assert closed(pair.expect(calls.CloseLease(one.lease), STRANGER)) == (CloseReason.COMPLETED, 900, 201)


def test_fewer_units_cost_the_base_and_their_share(pair: LeasePair) -> None:
    """Of a lease over 42 units 28 are committed to: 300 of 1,000 for the machine and 467 for them, rounded up, and no more."""
    one = job(pair, segments=4, units=42)
    longer = msgspec.structs.replace(one, terms=msgspec.structs.replace(one.terms, segments=6))
    pair.accepted(longer)
    assert pair.refused(commit(longer, amount=768), HOTS["ann"]) == "ExceedsCompensation"
    events = pair.expect(commit(longer, amount=767), HOTS["ann"])
    (made,) = [event for event in events if isinstance(event, LeaseCommitted)]
    assert (made.units, made.last) == (28, hidden_state(one.work.states[-1]))


def test_units_are_those_of_the_committed_tree(pair: LeasePair) -> None:
    """The proof holds one meter and one state; nor can there be more units than agreed, in all or for so many segments."""
    one = pair.accepted(job(pair))
    for changes in (
        {"units": 27},
        {"last": hidden_state(one.work.states[3])},
        {"last": one.work.states[-1]},
        {"proof": ()},
        {"root": digest("another")},
        {"segments": 3, "units": 21},
    ):
        assert (
            pair.refused(msgspec.structs.replace(commit(one, 300), **changes), HOTS["ann"])
            == "NotInCommitment"
        )
    for changes in ({"units": 29}, {"units": 0}, {"segments": 3}):
        assert (
            pair.refused(msgspec.structs.replace(commit(one, 300), **changes), HOTS["ann"])
            == "UnitsOutOfRange"
        )
    pair.expect(commit(one), HOTS["ann"])


def test_unverified_work_may_be_nothing_and_costs_the_base(pair: LeasePair) -> None:
    """Nobody can say what was done: the machine was set aside, and that is paid."""
    nothing = Commitment([digest("before"), digest("after")], (0,))
    one = msgspec.structs.replace(job(pair, determinism=0), work=nothing)
    pair.accepted(one)
    assert pair.refused(commit(one, amount=301), HOTS["ann"]) == "ExceedsCompensation"
    pair.expect(commit(one, amount=300), HOTS["ann"])


def test_lease_that_nobody_drew_is_not_paid(pair: LeasePair) -> None:
    """The window alone is not enough; the beacon of the commitment's own epoch draws nothing."""
    one = pair.committed(job(pair))
    pair.expect(calls.Tick(), DEPLOYER)
    assert pair.refused(calls.DrawLease(one.lease), STRANGER) == "BeaconPending"
    pair.advance(RULES.window_s + 1)
    assert pair.refused(calls.CloseLease(one.lease), STRANGER) == "AuditPending"


def test_newcomers_tenth_vests_until_its_stake_suffices(pair: LeasePair) -> None:
    """Fifty times the highest price at stake releases it; a convict's is burnt."""
    for name in ("one", "two"):
        one = pair.committed(job(pair, name, determinism=0))
        pair.advance(RULES.window_s + 1)
        events = pair.expect(calls.CloseLease(one.lease), STRANGER)
        assert [event.amount for event in events if isinstance(event, PayVested)] == [90]
    ann = OWNERS["ann"].address
    assert pair.refused(calls.ReleaseVested(ann), STRANGER) == "InsufficientStake"
    pair.expect(calls.Bond(40_000), OWNERS["ann"])
    before = pair.twin.token.balance(ann)
    pair.expect(calls.ReleaseVested(ann), STRANGER)
    assert pair.twin.token.balance(ann) == before + 180
    assert pair.refused(calls.ReleaseVested(ann), STRANGER) == "NothingVested"
    one = pair.committed(job(pair, "with stake", determinism=0))
    pair.advance(RULES.window_s + 1)
    pair.expect(calls.CloseLease(one.lease), STRANGER)
    assert pair.refused(calls.ReleaseVested(ann), STRANGER) == "NothingVested"


def test_convicts_vested_pay_is_burnt(pair: LeasePair) -> None:
    """What a newcomer had not yet secured goes with its stake."""
    one = pair.committed(job(pair, determinism=0))
    pair.advance(RULES.window_s + 1)
    pair.expect(calls.CloseLease(one.lease), STRANGER)
    fraud = job(pair, "fraud", cheats=True)
    accuser = pair.audited(fraud)
    pair.answered(fraud)
    pair.begin_dispute(fraud.lease, OWNERS[accuser].address)
    pair.end_dispute(fraud.lease, guilty=True)
    supply = pair.twin.token.supply()
    events = pair.expect(calls.ReleaseVested(OWNERS["ann"].address), STRANGER)
    assert [event.burned for event in events if isinstance(event, VestedReleased)] == [True]
    assert pair.twin.token.supply() == supply - 90
    assert pair.twin.token.balance(AT.leases) == 0


def test_stake_stays_while_a_commitment_is_open(pair: LeasePair) -> None:
    """Unbonding before the commitment ends doesn't save a cheat: withdrawing waits until every lease is closed."""
    one = pair.committed(job(pair, determinism=0))
    pair.expect(calls.Unbond(10_000), OWNERS["ann"])
    pair.advance(RULES.unbond_delay_s)
    assert pair.refused(calls.Withdraw(), OWNERS["ann"]) == "LeaseOpen"
    pair.expect(calls.CloseLease(one.lease), OWNERS["ann"])
    pair.expect(calls.Withdraw(), OWNERS["ann"])


def test_id_and_root_of_nothing_are_nobodys(pair: LeasePair) -> None:
    """Calls on a lease that doesn't exist are refused, each by its first check."""
    for call, reason in (
        (calls.AcceptLease(ZERO_DIGEST), "NotProvider"),
        (calls.GiveUpLease(ZERO_DIGEST), "NotProvider"),
        (calls.CancelLease(ZERO_DIGEST), "NotRequester"),
        (calls.CloseLease(ZERO_DIGEST), "WrongState"),
        (calls.DrawLease(ZERO_DIGEST), "WrongAuditState"),
        (calls.ReportWithheld(ZERO_DIGEST), "WrongAuditState"),
        (calls.ExpireAudit(ZERO_DIGEST), "WrongAuditState"),
        (calls.Enlist(), "NotValidator"),
    ):
        assert pair.refused(call, PAYER) == reason


def test_verifiable_leases_are_paid_in_the_order_of_their_commitments(pair: LeasePair) -> None:
    """What wasn't drawn isn't paid while the audit of an earlier lease drags on; an unverified one waits for nobody."""
    first, second = pair.committed(job(pair, "first")), pair.committed(job(pair, "second"))
    free = pair.committed(job(pair, "free", determinism=0))
    pair.drawn(first)
    pair.drawn(second)
    pair.answered(second)
    pair.advance(RULES.window_s + RULES.audits.reveal_s + 1)
    assert pair.refused(calls.CloseLease(second.lease), STRANGER) == "NotInTurn"
    pair.expect(calls.CloseLease(free.lease), STRANGER)
    pair.expect(calls.ExpireAudit(first.lease), STRANGER)
    pair.answered(first)
    pair.advance(RULES.audits.reveal_s + 1)
    assert pair.refused(calls.CloseLease(second.lease), STRANGER) == "NotInTurn"
    pair.expect(calls.CloseLease(first.lease), STRANGER)
    assert closed(pair.expect(calls.CloseLease(second.lease), STRANGER))[0] == CloseReason.COMPLETED


def test_a_conviction_takes_what_stood_behind_it_in_line(pair: LeasePair) -> None:
    """A cheat commits to several leases at once: those behind the one that convicts it are refunded, not paid."""
    caught, behind = pair.committed(job(pair, "caught")), pair.committed(job(pair, "behind"))
    pair.drawn(caught)
    pair.drawn(behind)
    pair.answered(behind)
    name = pair.auditor(caught)
    pair.expect(sealed(caught, name, caught.right(pair)), hot(name))
    pair.advance(RULES.window_s + RULES.audits.open_s + 1)
    assert pair.refused(calls.CloseLease(behind.lease), STRANGER) == "NotInTurn"
    pair.expect(calls.ExpireAudit(caught.lease), STRANGER)
    assert closed(pair.expect(calls.CloseLease(behind.lease), STRANGER)) == (
        CloseReason.PROVIDER_CONVICTED,
        0,
        behind.terms.compensation_wei,
    )
