"""What audits of leases do to cheats, to lazy and false auditors, and to those who fall silent; each test is one story."""

from typing import TypeVar

import msgspec
import pytest
from eth_hash.auto import keccak

from clusterai.audit.core import segments
from clusterai.ledger.core import calls
from clusterai.ledger.core.events import (
    AuditContested,
    AuditorSilent,
    AuditParametersSet,
    AuditResolved,
    Convicted,
    Event,
    LeaseClosed,
    LeaseDrawn,
    Slashed,
    TrapSprung,
    WithheldReported,
)
from clusterai.ledger.core.lease_events import AuditParameters
from clusterai.ledger.core.twin import Refused
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Digest
from clusterai.protocol.leases import CloseReason
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import EPOCH_LIST, Verdict
from tests.contracts.cast import AT, DEPLOYER, HOTS, OWNERS, PAYER, RULES, STRANGER, judged
from tests.contracts.leasecast import (
    AUDITORS,
    DISPUTES,
    SALT,
    WRONG,
    Job,
    LeasePair,
    drawn_auditors,
    hot,
    job,
    name_of,
    opening,
    sealed,
)

E = TypeVar("E")
BOND = RULES.audits.bond_wei


@pytest.fixture
def pair() -> LeasePair:
    made = LeasePair()
    made.populate()
    return made


def only(events: tuple[Event, ...], kind: type[E]) -> E:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def money(pair: LeasePair, name: str) -> int:
    """Of both keys."""
    return pair.twin.token.balance(OWNERS[name].address) + pair.twin.token.balance(HOTS[name].address)


def test_matched_audit_pays_provider_and_auditor(pair: LeasePair) -> None:
    """The auditor's bond comes back and it earns the fee; a newcomer's tenth vests; the rest is the requester's again."""
    one = job(pair)
    before = money(pair, "gate")
    auditor = pair.audited(one)
    theirs, mine = money(pair, auditor), money(pair, "ann")
    assert pair.refused(calls.CloseLease(one.lease), DEPLOYER) == "TooEarly"
    pair.advance(RULES.window_s)
    closed = only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed)
    assert (closed.reason, closed.paid, closed.refunded) == (CloseReason.COMPLETED, 900, 100)
    assert money(pair, auditor) == theirs + BOND + 101
    assert money(pair, "ann") == mine + 810
    assert money(pair, "gate") == before - 900 - 101
    assert pair.twin.audits.valid_in_a_row(OWNERS["ann"].address) == 1
    assert pair.refused(calls.CloseLease(one.lease), DEPLOYER) == "WrongState"
    pair.compare_leases((one.lease,))


def test_draw_is_what_anyone_computes(pair: LeasePair) -> None:
    """`audit/core/segments.py` comes to the contract's seed, segment, rate and auditors of every attempt."""
    pair.expect(calls.Bond(40_000), OWNERS["ann"])
    one = pair.committed(job(pair))
    audit = pair.twin.audits.audit(one.lease)
    rules = RULES.audits
    shares = segments.RateRules(rules.saving_ppm, rules.sensitivity_ppm, rules.corrupt_ppm, rules.margin_ppm)
    assert audit.rate_ppm == segments.rate_ppm(shares, 50_000, 1_000, 0)
    events = pair.drawn(one)
    beacon = pair.twin.beacon.beacon(audit.round)
    drawn = segments.draw(beacon, Digest(one.terms.spec), one.work.root, one.lease, 4, audit.rate_ppm)
    found = only(events, LeaseDrawn)
    assert (found.seed, found.audited, found.segment) == (drawn.seed, drawn.audited, drawn.segment)
    seats = [
        segments.Seat(*sitting)
        for sitting in pair.twin.panel.before(pair.twin.leases.lease(one.lease).committed_s)
    ]
    picked = drawn_auditors(events)
    while len(picked) < 4:
        pair.advance(200)
        picked += drawn_auditors(pair.expect(calls.ExpireAudit(one.lease), DEPLOYER))
    for attempt, name in enumerate(picked):
        assert segments.pick(segments.auditor_lot(drawn.seed, attempt), seats, ()) == OWNERS[name].address


def test_nobody_changes_a_draw_after_the_beacon(pair: LeasePair) -> None:
    """Stake bonded, weighed and enlisted behind the commitment, in its second even, counts for later leases only."""
    one = pair.committed(job(pair))
    twin = pair.twin
    frozen = twin.panel.before(twin.leases.lease(one.lease).committed_s)
    pair.expect(calls.Register(4, ZERO_DIGEST), PAYER)
    pair.expect(calls.Bond(900_000), PAYER)
    pair.expect(calls.Enlist(), PAYER)
    pair.expect(calls.Bond(7), OWNERS["vow"])
    pair.expect(calls.Weigh(OWNERS["vow"].address), STRANGER)
    pair.expect(calls.Unbond(50_000), OWNERS["val"])
    pair.expect(calls.Weigh(OWNERS["val"].address), STRANGER)
    assert [seat for seat in twin.panel.before(twin.leases.lease(one.lease).committed_s) if seat[1]] == frozen
    audit = twin.audits.audit(one.lease)
    events = pair.drawn(one)
    seats = [segments.Seat(*sitting) for sitting in frozen]
    seed = twin.audits.audit(one.lease).seed
    assert audit.seed == ZERO_DIGEST
    assert drawn_auditors(events) == [
        name_of(segments.pick(segments.auditor_lot(seed, 0), seats, ()) or ZERO_ADDRESS)
    ]


def test_panel_is_full_and_the_lightest_seat_yields_to_more_stake() -> None:
    """Of 65 validators the one with the least stake has no seat; equal stake pushes nobody out."""
    pair = LeasePair()
    keys = [Key(keccak(b"auditor %d" % n)) for n in range(66)]
    for n, key in enumerate(keys):
        pair.expect(calls.Transfer(key.address, 1_000), DEPLOYER)
        pair.expect(calls.Approve(AT.registry, 1_000), key)
        pair.expect(calls.Register(4, ZERO_DIGEST), key)
        pair.expect(calls.Bond(100 + n % 65), key)
    for key in keys[:64]:
        pair.expect(calls.Enlist(), key)
    gas = pair.bytecode.gas_used
    assert pair.refused(calls.Enlist(), keys[65]) == "PanelFull"
    pair.expect(calls.Enlist(), keys[64])
    assert pair.twin.panel.seat_at(0) == (keys[64].address, 164)
    assert pair.expect(calls.Weigh(keys[0].address), STRANGER) == ()
    pair.expect(calls.Bond(500), keys[0])
    pair.expect(calls.Enlist(), keys[0])
    assert pair.twin.panel.seat_at(1) == (keys[0].address, 600)
    assert gas < 200_000
    pair.compare_leases(())


def test_cheat_is_contested_disputed_and_loses_everything(pair: LeasePair) -> None:
    """Two auditors differ, the first disputes and is right: all stake slashed, every open lease refunded, the fee halved
    between the two, and both bonds back."""
    other, waiting = job(pair, "other"), job(pair, "waiting")
    pair.committed(other)
    pair.opened(waiting)
    one = job(pair, "fraud", cheats=True)
    funds = {name: money(pair, name) for name in AUDITORS}
    first = pair.audited(one)
    second = pair.answered(one)
    assert first != second
    assert pair.begin_dispute(one.lease, OWNERS["ann"].address) == Refused("NotYourAudit")
    accusation = pair.begin_dispute(one.lease, OWNERS[first].address)
    assert not isinstance(accusation, Refused)
    segment = one.segment(pair)
    assert (accusation.start, accusation.claimed) == (one.work.states[segment - 1], one.claimed(pair))
    assert (accusation.result, accusation.units) == (one.right(pair), 7)
    events = pair.end_dispute(one.lease, guilty=True)
    assert only(events, Slashed).amount == 10_000
    assert only(events, Convicted).evidence == one.lease
    assert only(events, LeaseClosed).reason == CloseReason.FRAUD
    bounty = only(events, Slashed).bounty
    assert money(pair, first) == funds[first] + 51 + bounty
    assert money(pair, second) == funds[second] + 50
    for lease in (other.lease, waiting.lease):
        closed = only(pair.expect(calls.CloseLease(lease), STRANGER), LeaseClosed)
        assert (closed.reason, closed.paid, closed.refunded) == (CloseReason.PROVIDER_CONVICTED, 0, 1_101)
    assert (
        pair.refused(calls.AcceptLease(pair.opened(job(pair, "again")).lease), HOTS["ann"])
        == "ProviderBarred"
    )
    assert pair.twin.channels.barred(OWNERS["ann"].address)


def test_court_conviction_forfeits_open_leases(pair: LeasePair) -> None:
    """A provider convicted for an epoch's receipts loses its leases too, one whose audit had matched included."""
    one = job(pair)
    auditor = pair.audited(one)
    funds = money(pair, auditor)
    epoch = pair.now_s // RULES.epoch_s
    pair.advance(RULES.epoch_s)
    pair.expect(calls.CommitEpoch(epoch, ZERO_DIGEST, 1, 0), HOTS["ann"])
    verdict = Verdict(OWNERS["ann"].address, epoch, EPOCH_LIST, ZERO_DIGEST, 2, ZERO_DIGEST)
    for voter in ("val", "vic"):
        pair.expect(calls.Vote(verdict, (), judged(verdict, HOTS[voter])), DEPLOYER)
    assert pair.refused(calls.CancelLease(one.lease), HOTS["gate"]) == "ProviderBarred"
    closed = only(pair.expect(calls.CloseLease(one.lease), HOTS["gate"]), LeaseClosed)
    assert (closed.reason, closed.paid, closed.refunded) == (CloseReason.PROVIDER_CONVICTED, 0, 1_000)
    assert money(pair, auditor) in range(funds + BOND + 101, funds + BOND + 101 + 5_001)


def test_false_accuser_loses_bond_and_fee(pair: LeasePair) -> None:
    """The second auditor agrees with the provider, nobody disputes: the fee is the second's, the bond the provider's."""
    one = job(pair)
    funds = {name: money(pair, name) for name in AUDITORS}
    first = pair.audited(one, result=WRONG)
    second = pair.answered(one)
    before = money(pair, "ann")
    assert pair.refused(calls.ExpireAudit(one.lease), STRANGER) == "NotExpired"
    pair.advance(RULES.audits.dispute_s + 1)
    assert pair.begin_dispute(one.lease, OWNERS[first].address) == Refused("TooLate")
    pair.expect(calls.ExpireAudit(one.lease), STRANGER)
    assert money(pair, "ann") == before + BOND
    pair.advance(RULES.window_s)
    pair.expect(calls.CloseLease(one.lease), STRANGER)
    assert money(pair, first) == funds[first] - BOND
    assert money(pair, second) == funds[second] + 101


def test_lost_dispute_pays_the_provider(pair: LeasePair) -> None:
    """The accuser goes on and is wrong: its bond goes to the provider, and the lease is paid."""
    one = job(pair)
    first = pair.audited(one, result=WRONG)
    second = pair.answered(one)
    assert pair.begin_dispute(one.lease, OWNERS[second].address) == Refused("NotYourAudit")
    assert not isinstance(pair.begin_dispute(one.lease, OWNERS[first].address), Refused)
    before = money(pair, "ann")
    pair.end_dispute(one.lease, guilty=False)
    assert money(pair, "ann") == before + BOND
    pair.advance(RULES.window_s)
    assert only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed).paid == 900


def test_colluding_second_auditor_does_not_save_a_cheat(pair: LeasePair) -> None:
    """One honest auditor suffices: it disputes, wins, and gets the colluder's bond."""
    one = job(pair, cheats=True)
    first = pair.audited(one)
    second = pair.answered(one, result=one.claimed(pair))
    funds, theirs = money(pair, first), money(pair, second)
    assert not isinstance(pair.begin_dispute(one.lease, OWNERS[first].address), Refused)
    bounty = only(pair.end_dispute(one.lease, guilty=True), Slashed).bounty
    assert money(pair, first) == funds + 2 * BOND + 101 + bounty
    assert money(pair, second) == theirs


def test_dispute_of_a_lease_closed_meanwhile_ends_quietly(pair: LeasePair) -> None:
    """Convicted for another lease while one is disputed: the end of the dispute changes nothing any more."""
    leases: list[Job] = []
    for name in ("one", "two"):
        each = job(pair, name, cheats=True)
        leases.append(each)
        pair.audited(each)
        pair.answered(each)
        accuser = pair.twin.audits.opinion(each.lease, 0).auditor
        assert not isinstance(pair.begin_dispute(each.lease, accuser), Refused)
    one, two = leases
    pair.end_dispute(one.lease, guilty=True)
    pair.expect(calls.CloseLease(two.lease), STRANGER)
    assert pair.end_dispute(two.lease, guilty=True) == ()
    assert pair.end_dispute(two.lease, guilty=False) == ()
    assert pair.twin.token.balance(AT.audits) == 0


def test_only_disputes_begins_and_ends_disputes(pair: LeasePair) -> None:
    """And only Leases enters, finishes and misses; only Audits convicts and closes traps; only Leases tells the Court."""
    lease, ann = ZERO_DIGEST, OWNERS["ann"].address
    for contract, function, arguments, reason in (
        ("Audits", "beginDispute", (lease, ann), "OnlyDisputes"),
        ("Audits", "endDispute", (lease, True, True), "OnlyDisputes"),
        ("Audits", "enter", (lease, ann, 1, 1), "OnlyLeases"),
        ("Audits", "finish", (lease, True), "OnlyLeases"),
        ("Audits", "missed", (ann,), "OnlyLeases"),
        ("Leases", "convict", (lease, ann, 8), "OnlyAudits"),
        ("Leases", "closeTrap", (lease, bytes(20)), "OnlyAudits"),
        ("Court", "convictByLease", (ann, ann, 2, lease), "OnlyLeases"),
    ):
        outcome = pair.bytecode.transact(contract, function, STRANGER.address, pair.block(), *arguments)
        assert outcome == Refused(reason), function
    assert pair.begin_dispute(lease, ann) == Refused("WrongAuditState")
    assert pair.bytecode.transact("Audits", "endDispute", DISPUTES, pair.block(), lease, True, True) == ()


def test_two_thirds_of_the_panel_convict_who_serves_nothing(pair: LeasePair) -> None:
    """The drawn auditor reports, then the others may; the first reporter gets the bounty."""
    one = pair.committed(job(pair))
    (first,) = drawn_auditors(pair.drawn(one))
    others = [name for name in AUDITORS if name != first]
    assert pair.refused(calls.ReportWithheld(one.lease), HOTS[others[0]]) == "NotYourAudit"
    report = only(pair.expect(calls.ReportWithheld(one.lease), HOTS[first]), WithheldReported)
    assert report.total == 100_000
    assert pair.refused(calls.ReportWithheld(one.lease), HOTS[first]) == "AlreadyReported"
    assert pair.refused(calls.ReportWithheld(one.lease), STRANGER) == "NotYourAudit"
    assert pair.refused(calls.ReportWithheld(one.lease), HOTS["ann"]) == "NotYourAudit"
    events: tuple[Event, ...] = ()
    for name in others:
        if pair.twin.leases.lease(one.lease).state == 3:
            events = pair.expect(calls.ReportWithheld(one.lease), HOTS[name])
    assert only(events, LeaseClosed).reason == CloseReason.WITHHELD
    assert only(events, Slashed).finder == OWNERS[first].address
    assert only(events, Convicted).outcome == 3


def test_one_report_alone_only_passes_the_audit_on(pair: LeasePair) -> None:
    """Others were served: after the reports' time another auditor is drawn, and the reporter is not called silent."""
    one = pair.committed(job(pair))
    (first,) = drawn_auditors(pair.drawn(one))
    report = only(pair.expect(calls.ReportWithheld(one.lease), HOTS[first]), WithheldReported)
    run_s = 2 * 8 // 4
    assert report.report_by_s == pair.now_s + RULES.audits.commit_s + run_s, (
        "time to have it of others, and to run it"
    )
    pair.advance(RULES.audits.commit_s + run_s + 1)
    assert (
        pair.refused(calls.ReportWithheld(one.lease), HOTS["vow" if first != "vow" else "val"]) == "TooLate"
    )
    events = pair.expect(calls.ExpireAudit(one.lease), DEPLOYER)
    assert not [event for event in events if isinstance(event, AuditorSilent)]
    pair.answered(one)
    pair.advance(RULES.window_s)
    assert only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed).paid == 900


def test_segment_that_is_not_opened_is_withheld(pair: LeasePair) -> None:
    """The clock convicts: the auditor has bond, fee and bounty. Openings of other places or states are refused."""
    one = pair.committed(job(pair))
    pair.drawn(one)
    name = pair.auditor(one)
    funds, segment = money(pair, name), one.segment(pair)
    assert pair.refused(opening(pair, one, segment), HOTS["ann"]) == "WrongAuditState"
    pair.expect(sealed(one, name, WRONG), HOTS[name])
    assert pair.refused(opening(pair, one, segment), HOTS["bob"]) == "NotYourAudit"
    assert pair.refused(opening(pair, one, 1 + segment % 4), HOTS["ann"]) == "NotInCommitment"
    lying = opening(pair, one, segment)
    change = msgspec.structs.replace
    for at, shown in enumerate(lying.shown):
        for wrong in (
            change(shown, state=WRONG),
            change(shown, units=99),
            change(shown, proof=lying.shown[at ^ 1].proof),
            change(shown, proof=(*shown.proof, ZERO_DIGEST)),
        ):
            several = (*lying.shown[:at], wrong, *lying.shown[at + 1 :])
            assert pair.refused(change(lying, shown=several), HOTS["ann"]) == "NotInCommitment"
    for other in (0, lying.other % 4 + 1, 5):
        assert pair.refused(change(lying, other=other), HOTS["ann"]) == "NotInCommitment"
    pair.advance(RULES.audits.open_s + 1)
    assert pair.refused(lying, HOTS["ann"]) == "TooLate"
    events = pair.expect(calls.ExpireAudit(one.lease), STRANGER)
    assert only(events, LeaseClosed).reason == CloseReason.WITHHELD
    assert money(pair, name) == funds + 101 + only(events, Slashed).bounty


def test_auditor_who_commits_and_falls_silent_pays_the_provider(pair: LeasePair) -> None:
    """No reveal in time: the bond is the provider's, and another auditor is drawn."""
    one = pair.committed(job(pair))
    pair.drawn(one)
    name = pair.auditor(one)
    pair.expect(sealed(one, name, WRONG), HOTS[name])
    pair.expect(opening(pair, one, one.segment(pair)), HOTS["ann"])
    assert pair.refused(calls.RevealAudit(one.lease, WRONG, ZERO_DIGEST), HOTS[name]) == "NotSealed"
    assert pair.refused(calls.RevealAudit(one.lease, WRONG, SALT), HOTS["ann"]) == "NotYourAudit"
    pair.advance(RULES.audits.reveal_s + 1)
    assert pair.refused(calls.RevealAudit(one.lease, WRONG, SALT), HOTS[name]) == "TooLate"
    before = money(pair, "ann")
    events = pair.expect(calls.ExpireAudit(one.lease), STRANGER)
    assert only(events, AuditorSilent).auditor == OWNERS[name].address
    assert money(pair, "ann") == before + BOND


def test_audit_lapses_when_nobody_ever_comes(pair: LeasePair) -> None:
    """After eight silent auditors the pay goes its way: it can't wait for ever; the fee comes back. Each has twice the time of
    the one before, up to four times what the terms allow for a segment: a provider that commits at once is audited all the same, and
    one that committed to a loop without end is waited for until it is one."""
    one = pair.committed(job(pair))
    pair.drawn(one)
    silent, given = 0, list[int]()
    events: tuple[Event, ...] = ()
    while (audit := pair.twin.audits.audit(one.lease)).state == 2:
        given.append(audit.by_s - pair.now_s)
        pair.advance(given[-1] + 1)
        events = pair.expect(calls.ExpireAudit(one.lease), STRANGER)
        silent += 1
    assert silent == 8
    lease, begin_s = pair.twin.leases.lease(one.lease), RULES.audits.commit_s
    most_s = begin_s + 4 * (lease.deadline_s - lease.accepted_s) // lease.segments
    run_s = 2 * (lease.committed_s - lease.accepted_s) // lease.segments
    assert given == [min(begin_s << attempt, most_s) + run_s for attempt in range(8)]
    assert given[-1] > given[0]
    assert only(events, AuditResolved).rest_until_s == 0
    closed = only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed)
    assert (closed.paid, closed.refunded) == (900, 201)
    assert pair.twin.audits.valid_in_a_row(OWNERS["ann"].address) == 0


def test_without_second_auditor_the_first_may_dispute_at_once() -> None:
    """A panel of one: what differs is contested with nobody else to ask."""
    pair = LeasePair()
    super(LeasePair, pair).populate()
    for who in (HOTS["gate"], HOTS["val"]):
        for spender in (AT.leases, AT.audits):
            pair.expect(calls.Approve(spender, 10**9), who)
    pair.expect(calls.Enlist(), HOTS["val"])
    pair.advance(1)
    one = job(pair, cheats=True)
    pair.committed(one)
    pair.drawn(one)
    found = one.right(pair)
    pair.expect(sealed(one, "val", found), HOTS["val"])
    pair.expect(opening(pair, one, one.segment(pair)), HOTS["ann"])
    events = pair.expect(calls.RevealAudit(one.lease, found, SALT), HOTS["val"])
    assert only(events, AuditContested).accuser == OWNERS["val"].address
    assert not isinstance(pair.begin_dispute(one.lease, OWNERS["val"].address), Refused)


def test_without_a_panel_nothing_is_audited() -> None:
    """Nobody can be drawn: the commitment stands, and no fee is paid."""
    pair = LeasePair()
    super(LeasePair, pair).populate()
    pair.expect(calls.Approve(AT.leases, 10**9), HOTS["gate"])
    one = pair.committed(job(pair))
    assert only(pair.drawn(one), AuditResolved).rest_until_s == 0


def test_parties_never_audit_themselves(pair: LeasePair) -> None:
    """A requester with most of the stake, and a provider that validates too, are drawn for other leases only."""
    for n in range(6):
        one = job(pair, f"of val {n}", requester="val")
        pair.committed(one)
        assert "val" not in drawn_auditors(pair.drawn(one))
        pair.answered(one)


def test_lazy_auditor_falls_into_the_trap(pair: LeasePair) -> None:
    """It revealed what the provider had told it: no fee, its bond is the planter's, and its stake is burnt."""
    one = job(pair, trap=True)
    before = money(pair, "gate")
    pair.committed(one)
    pair.drawn(one)
    lazy = pair.answered(one, result=one.claimed(pair))
    assert pair.refused(calls.SpringTrap(one.terms, ZERO_DIGEST), HOTS["gate"]) == "NotTrap"
    events = pair.expect(calls.SpringTrap(one.terms, one.secret), HOTS["gate"])
    assert only(events, TrapSprung).lazy == OWNERS[lazy].address
    closed = only(events, LeaseClosed)
    assert (closed.reason, closed.paid, closed.refunded) == (CloseReason.CANCELLED, 0, 1_101)
    assert money(pair, "gate") == before + BOND
    slashed = only(events, Slashed)
    assert (slashed.owner, slashed.bounty, slashed.finder) == (OWNERS[lazy].address, 0, ZERO_ADDRESS)
    assert not pair.twin.court.convicted(OWNERS["ann"].address)
    assert pair.refused(calls.SpringTrap(one.terms, one.secret), HOTS["gate"]) == "WrongAuditState"


def test_diligent_auditor_earns_its_fee_from_a_trap(pair: LeasePair) -> None:
    """It differs from the bait, so it worked; the trap is sprung before anyone disputes."""
    one = job(pair, trap=True)
    funds = {name: money(pair, name) for name in AUDITORS}
    auditor = pair.audited(one)
    events = pair.expect(calls.SpringTrap(one.terms, one.secret), HOTS["gate"])
    assert only(events, TrapSprung).lazy == ZERO_ADDRESS
    assert money(pair, auditor) == funds[auditor] + 101


def test_cheat_can_not_call_its_fraud_a_trap(pair: LeasePair) -> None:
    """Bait in a lease whose terms don't hold the secret is fraud like any other."""
    planted = job(pair, trap=True)
    one = msgspec.structs.replace(planted, terms=msgspec.structs.replace(planted.terms, nonce=SALT))
    pair.audited(one)
    assert pair.refused(calls.SpringTrap(one.terms, one.secret), HOTS["ann"]) == "NotTrap"
    assert pair.refused(calls.SpringTrap(planted.terms, one.secret), HOTS["ann"]) == "WrongState"


def test_what_is_no_bait_only_its_provider_springs(pair: LeasePair) -> None:
    """Bait that can't be run is called off by who planted nothing of it; a requester that calls work a trap pays for it."""
    one = pair.committed(job(pair, trap=True))
    pair.drawn(one)
    spring = calls.SpringTrap(one.terms, one.secret)
    for who in (HOTS["gate"], OWNERS["gate"], STRANGER):
        assert pair.refused(spring, who) == "NotTrap"
    events = pair.expect(spring, HOTS["ann"])
    closed = only(events, LeaseClosed)
    assert only(events, TrapSprung).lazy == ZERO_ADDRESS
    assert (closed.reason, closed.paid, closed.refunded) == (CloseReason.CANCELLED, 0, 1_101)
    work = job(pair, "work", nonce=one.terms.nonce)
    pair.audited(work)
    assert pair.refused(calls.SpringTrap(work.terms, one.secret), HOTS["gate"]) == "NotTrap"
    assert pair.twin.audits.valid_in_a_row(OWNERS["ann"].address) == 0


def test_trap_is_sprung_before_the_lease_can_be_closed(pair: LeasePair) -> None:
    """An audit that matched late rests: its auditor can't close the lease in the next block and be gone."""
    one = pair.committed(job(pair, trap=True))
    pair.advance(RULES.window_s)
    pair.drawn(one)
    pair.answered(one, result=one.claimed(pair))
    assert pair.refused(calls.CloseLease(one.lease), STRANGER) == "AuditPending"
    pair.advance(RULES.audits.reveal_s + 1)
    pair.expect(calls.CloseLease(one.lease), hot("val"))


def test_veterans_with_stake_are_audited_at_the_least_rate(pair: LeasePair) -> None:
    """Ten valid results in a row bring the rate below one, many to what deters; undrawn leases pay without an auditor."""
    pair.expect(calls.Bond(90_000), OWNERS["ann"])
    undrawn = 0
    for n in range(40):
        one = pair.committed(job(pair, f"veteran {n}", audit_fee_wei=10))
        if only(pair.drawn(one), LeaseDrawn).audited:
            pair.answered(one)
        else:
            undrawn += 1
        pair.advance(RULES.window_s)
        closed = only(pair.expect(calls.CloseLease(one.lease), STRANGER), LeaseClosed)
        assert closed.reason == CloseReason.COMPLETED
    valid = pair.twin.audits.valid_in_a_row(OWNERS["ann"].address)
    assert valid == 40 - undrawn
    assert undrawn > 0
    assert pair.twin.audits.rate_of(OWNERS["ann"].address, 1_000) == max(10_502, 10_000_000 // (valid + 1))
    assert pair.twin.leases.vested(OWNERS["ann"].address).amount == 0


GOOD = (700_000, 990_000, 200_000, 200_000, 30, 20, 10, 20, 500, 10_000)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 0),
        (0, 1_000_001),
        (1, 0),
        (2, 1_000_000),
        (3, 1_000_001),
        (4, 0),
        (5, 0),
        (6, 604_801),
        (7, 0),
        (8, 10**12 + 1),
        (9, 100_001),
    ],
)
def test_governor_keeps_audit_parameters_in_bounds(pair: LeasePair, at: int, value: int) -> None:
    """Audits can't be stopped, nor outrun, nor made unaffordable; only the governor changes how they are done."""
    bad = tuple(value if index == at else one for index, one in enumerate(GOOD))
    send, block = pair.bytecode.transact, pair.block()
    assert send("Audits", "setParameters", DEPLOYER.address, block, bad) == Refused("ParameterOutOfRange")
    stranger = send("Audits", "setParameters", STRANGER.address, block, GOOD)
    assert stranger == Refused("OwnableUnauthorizedAccount")
    told = (AuditParametersSet(AuditParameters(*GOOD)),)
    assert send("Audits", "setParameters", DEPLOYER.address, block, GOOD) == told
    assert pair.bytecode.read("Audits", "parameters") == GOOD


def test_rate_is_kept_with_the_commitment(pair: LeasePair) -> None:
    """What the governor changes later draws later commitments only."""
    one = pair.committed(job(pair))
    before = pair.bytecode.read("Audits", "auditOf", one.lease)[4]
    changed = (1, *GOOD[1:])
    told = pair.bytecode.transact("Audits", "setParameters", DEPLOYER.address, pair.block(), changed)
    assert told == (AuditParametersSet(AuditParameters(*changed)),)
    assert pair.bytecode.read("Audits", "auditOf", one.lease)[4] == before == 1_000_000
