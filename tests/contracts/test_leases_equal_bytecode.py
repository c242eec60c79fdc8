"""Long random histories of leases on the bytecode and on the twins: equal outcomes and state, money conserved, and each
payment at its time."""

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clusterai.audit.core.segments import Commitment
from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Event, LeaseAccepted, LeaseClosed, LeaseCommitted, LeaseDrawn
from clusterai.ledger.core.twin import Refused
from clusterai.ledger.core.twin.audits import (
    AWAITS_COMMIT,
    AWAITS_OPENING,
    AWAITS_REVEAL,
    CONTESTED,
    DISPUTED,
    ENTERED,
    RESOLVED,
)
from clusterai.ledger.core.twin.leases import ACCEPTED, CLOSED, COMMITTED, OPEN
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.leases import CloseReason
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import EPOCH_LIST, Verdict
from tests.contracts.cast import AT, DEPLOYER, EVERYONE, HOTS, KEYS, OWNERS, RULES, consented, judged
from tests.contracts.leasecast import (
    AUDITORS,
    SALT,
    WRONG,
    Job,
    LeasePair,
    commit,
    digest,
    hot,
    job,
    name_of,
    opening,
    sealed,
)
from tests.contracts.test_twins_equal_bytecode import run

names = st.sampled_from(sorted(EVERYONE))
owners = st.sampled_from(sorted(OWNERS))
providers = st.sampled_from(("ann", "bob"))
requesters = st.sampled_from(("gate", "gate", "payer", "ann", "val"))
auditors = st.sampled_from(AUDITORS)
twists = st.one_of(st.just(0), st.just(1), st.integers(0, 11))
"""Below 2: what honest participants do next; above, something else."""


class LeaseHistories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pair = LeasePair()
        self.jobs: list[Job] = []
        self.closed: dict[Digest, int] = {}
        self.accepted_s: dict[Digest, int] = {}
        self.committed_s: dict[Digest, int] = {}
        self.money = 0

    @initialize()
    def begin(self) -> None:
        self.pair.populate()
        self.money = self.pair.twin.token.supply()

    # --- what happens ---

    def do(self, call: calls.Call, sender: Key) -> tuple[Event, ...] | Refused:
        twin = self.pair.twin
        resolved = {
            one.lease: twin.audits.is_payable(one.lease, self.pair.now_s)
            and not twin.registry.participant(OWNERS[one.provider].address).barred
            for one in self.jobs[-12:]
        }
        outcome = self.pair.do(call, sender)
        for event in () if isinstance(outcome, Refused) else outcome:
            match event:
                case LeaseAccepted(lease):
                    assert lease not in self.closed
                    self.accepted_s[lease] = self.pair.now_s
                case LeaseCommitted(lease):
                    assert lease in self.accepted_s
                    assert lease not in self.closed
                    self.committed_s[lease] = self.pair.now_s
                case LeaseDrawn(lease):
                    assert self.pair.now_s // RULES.epoch_s > self.committed_s[lease] // RULES.epoch_s
                case LeaseClosed(lease, reason, paid, _):
                    assert lease not in self.closed, "closed twice"
                    self.closed[lease] = reason
                    if reason == CloseReason.COMPLETED:
                        assert resolved[lease], "paid with an open audit, or to a convict"
                        assert self.pair.now_s > self.committed_s[lease] + RULES.window_s, "paid too early"
                    else:
                        assert paid == 0 or reason == CloseReason.CANCELLED
                case _:
                    pass
        return outcome

    @rule(seconds=st.sampled_from((1, 5, 9, 10, 11, 15, 20, 21, 31, 61)))
    def time_passes(self, seconds: int) -> None:
        self.pair.advance(seconds)

    @rule(
        requester=requesters,
        provider=providers,
        segments=st.integers(1, 5),
        kind=st.sampled_from(("honest", "honest", "honest", "cheats", "trap", "trap", "lump")),
        determinism=st.sampled_from((1, 2, 1, 2, 1, 0, 3)),
        compensation=st.sampled_from((1, 7, 199, 200, 1_000, 1_000, 0)),
        fee=st.sampled_from((0, 1, 101)),
        expected=st.integers(0, 5),
        sender=st.integers(0, 9),
        turns=st.lists(st.tuples(twists, names), max_size=9),
    )
    def open_lease(
        self,
        requester: str,
        provider: str,
        segments: int,
        kind: str,
        determinism: int,
        compensation: int,
        fee: int,
        expected: int,
        sender: int,
        turns: list[tuple[int, str]],
    ) -> None:
        """A lease, and how far it comes at once."""
        one = job(
            self.pair,
            f"job {len(self.jobs)}",
            requester,
            provider,
            segments,
            cheats=kind == "cheats",
            trap=kind == "trap",
            determinism=determinism,
            compensation_wei=compensation,
            audit_fee_wei=fee,
            expected=digest("expected") if expected == 0 else ZERO_DIGEST,
        )
        if kind == "lump":
            lump = (0,) * (segments - 1) + (7 * segments,)
            one = msgspec.structs.replace(one, work=Commitment(one.honest.states, lump))
        self.do(calls.OpenLease(one.terms), EVERYONE["stranger"] if sender == 9 else hot(requester))
        self.jobs.append(one)
        for twist, who in turns:
            self.step(one, twist, who, compensation)

    @rule(
        back=st.integers(0, 3), twist=twists, who=names, amount=st.integers(0, 1_100), times=st.integers(1, 6)
    )
    def proceed(self, back: int, twist: int, who: str, amount: int, times: int) -> None:
        """Some steps of what would come next for a recent lease; the last of them may be somebody else's."""
        if not self.jobs:
            return
        one = self.jobs[-1 - back % len(self.jobs)]
        for _ in range(times - 1):
            self.step(one, 0, who, min(amount, one.terms.compensation_wei))
        self.step(one, twist, who, amount)

    def step(self, one: Job, twist: int, who: str, amount: int) -> None:
        lease, twin = one.lease, self.pair.twin
        state, audit = twin.leases.lease(lease).state, twin.audits.audit(lease)
        somebody = EVERYONE[who] if twist in (6, 10) else None
        provider = somebody or hot(one.provider)
        if state in (OPEN, ACCEPTED) and twist in (7, 8, 9):
            ends = (calls.CancelLease(lease), calls.GiveUpLease(lease), calls.CloseLease(lease))
            self.pair.advance(101 if twist == 9 else 2)
            self.do(ends[twist - 7], hot(one.requester) if twist == 7 else provider)
        elif state == OPEN:
            self.do(calls.AcceptLease(lease), provider)
        elif state == ACCEPTED:
            self.pair.advance(3)
            output = digest("expected") if twist != 1 else ZERO_DIGEST
            self.do(commit(one, amount, output), provider)
        elif state == COMMITTED and audit.state == ENTERED:
            self.pair.advance(0 if twist == 11 else RULES.epoch_s)
            self.do(calls.Tick(), DEPLOYER)
            self.do(calls.DrawLease(lease), DEPLOYER)
        elif state == COMMITTED and audit.state in (AWAITS_COMMIT, AWAITS_OPENING, AWAITS_REVEAL):
            self.audit(one, twist, somebody)
        elif state == COMMITTED and audit.state == CONTESTED:
            self.contest(one, twist)
        elif state == COMMITTED and audit.state == RESOLVED and twist == 3:
            self.do(calls.SpringTrap(one.terms, one.secret), DEPLOYER)
        elif state == COMMITTED and audit.state == RESOLVED:
            self.pair.advance(RULES.window_s + 1 if twist < 9 else 5)
            self.do(calls.CloseLease(lease), DEPLOYER)
        elif state == COMMITTED and audit.state == DISPUTED and twist > 2:
            self.pair.end_dispute(lease, guilty=twist % 2 == 1, confirmed=twist % 3 == 0)
            self.note_end(one)

    def audit(self, one: Job, twist: int, somebody: Key | None) -> None:
        """The drawn auditor is honest, or lazy (what the provider showed), or wrong; so it is not the name that decides."""
        lease, audit = one.lease, self.pair.twin.audits.audit(one.lease)
        name = name_of(audit.auditor)
        results = [
            [work.result(index) for index in range(work.segments + 1)] for work in (one.honest, one.work)
        ]
        result = WRONG if twist in (4, 7) else results[twist in (3, 5)][audit.segment]
        if audit.state == AWAITS_COMMIT:
            if twist in (2, 9):
                for reporter in (name, *AUDITORS) if twist == 9 else (name,):
                    self.do(calls.ReportWithheld(lease), HOTS[reporter])
                return
            if twist == 8:
                self.pair.advance(40)
                self.do(calls.ExpireAudit(lease), DEPLOYER)
                return
            self.do(sealed(one, name, result), somebody or HOTS[name])
        elif audit.state == AWAITS_OPENING:
            if twist == 8:
                self.pair.advance(11)
                self.do(calls.ExpireAudit(lease), DEPLOYER)
                return
            segment = 1 + audit.segment % one.work.segments if twist == 9 else audit.segment
            self.do(opening(self.pair, one, segment), somebody or hot(one.provider))
        else:
            if twist == 8:
                self.pair.advance(11)
                self.do(calls.ExpireAudit(lease), DEPLOYER)
                return
            for tried in (*results[0], *results[1], WRONG):
                if not isinstance(
                    self.do(calls.RevealAudit(lease, tried, SALT), somebody or HOTS[name]), Refused
                ):
                    return

    def contest(self, one: Job, twist: int) -> None:
        opinions = [self.pair.twin.audits.opinion(one.lease, turn) for turn in (0, 1)]
        if twist < 6:
            begun = self.pair.begin_dispute(one.lease, opinions[twist % 2].auditor)
            if twist < 4 and not isinstance(begun, Refused):
                self.pair.end_dispute(one.lease, guilty=one.work.root != one.honest.root)
                self.note_end(one)
        elif twist < 9:
            self.do(calls.SpringTrap(one.terms, one.secret), DEPLOYER)
        else:
            self.pair.advance(21)
            self.do(calls.ExpireAudit(one.lease), DEPLOYER)

    def note_end(self, one: Job) -> None:
        if self.pair.twin.leases.lease(one.lease).state == CLOSED:
            self.closed[one.lease] = CloseReason.FRAUD

    @rule(back=st.integers(0, 5), kind=st.integers(0, 9), who=names, right=st.booleans())
    def interfere(self, back: int, kind: int, who: str, right: bool) -> None:
        """Any call on any recent lease, by its rightful sender or by anyone."""
        if not self.jobs:
            return
        one = self.jobs[-1 - back % len(self.jobs)]
        lease, sender = one.lease, EVERYONE[who]
        audit = self.pair.twin.audits.audit(lease)
        rightful: dict[int, Key] = {0: hot(one.requester), 1: hot(one.provider), 2: hot(one.provider)}
        any_of: tuple[calls.Call, ...] = (
            calls.CancelLease(lease),
            calls.GiveUpLease(lease),
            calls.AcceptLease(lease),
            calls.CloseLease(lease),
            calls.DrawLease(lease),
            calls.ReportWithheld(lease),
            calls.ExpireAudit(lease),
            calls.SpringTrap(one.terms, one.secret if right else ZERO_DIGEST),
            calls.OpenLease(one.terms),
            opening(self.pair, one, max(1, audit.segment)),
        )
        self.do(any_of[kind], rightful.get(kind, sender) if right else sender)

    @rule(back=st.integers(0, 3))
    def panel_reports(self, back: int) -> None:
        """The drawn auditor and then all others say that nothing is served."""
        if not self.jobs:
            return
        one = self.jobs[-1 - back % len(self.jobs)]
        if self.pair.twin.audits.audit(one.lease).state == AWAITS_COMMIT:
            first = self.pair.auditor(one)
            for name in (*AUDITORS, first, *AUDITORS):
                self.do(calls.ReportWithheld(one.lease), HOTS[name])

    @rule(
        kind=st.integers(0, 6),
        who=owners,
        amount=st.sampled_from((1, 500, 5_000, 40_000, 100_000)),
        other=names,
    )
    def participants_change(self, kind: int, who: str, amount: int, other: str) -> None:
        owner = OWNERS[who]
        any_of: tuple[calls.Call, ...] = (
            calls.Bond(amount),
            calls.Unbond(amount),
            calls.Withdraw(),
            calls.Enlist(),
            calls.Weigh(owner.address),
            calls.ReleaseVested(owner.address),
            calls.Revoke(HOTS[who].address) if amount == 1 else consented(owner, HOTS[who]),
        )
        self.do(any_of[kind], EVERYONE[other] if kind in (4, 5) else owner)

    @rule(who=st.sampled_from(("ann", "bob", "bob")), rare=st.integers(0, 30))
    def convicted_elsewhere(self, who: str, rare: int) -> None:
        """The Court convicts for an epoch; every lease that isn't closed goes back to its requester."""
        if rare != 7:
            return
        epoch = self.pair.now_s // RULES.epoch_s
        self.pair.advance(RULES.epoch_s)
        self.do(calls.CommitEpoch(epoch, ZERO_DIGEST, 1, 0), HOTS[who])
        verdict = Verdict(OWNERS[who].address, epoch, EPOCH_LIST, ZERO_DIGEST, 2, ZERO_DIGEST)
        for voter in ("val", "vic"):
            self.do(calls.Vote(verdict, (), judged(verdict, HOTS[voter])), DEPLOYER)
        for one in self.jobs[-6:]:
            self.do(calls.CloseLease(one.lease), DEPLOYER)

    # --- what always holds ---

    @invariant()
    def money_is_conserved(self) -> None:
        twin = self.pair.twin
        contracts = (AT.registry, AT.channels, AT.court, AT.credit, AT.leases, AT.audits)
        assert sum(map(twin.token.balance, (*KEYS, *contracts))) == twin.token.supply()
        leases = [twin.leases.lease(one.lease) for one in self.jobs]
        escrow = sum(one.compensation + one.audit_fee for one in leases if one.state not in (0, CLOSED))
        vested = sum(twin.leases.vested(owner.address).amount for owner in OWNERS.values())
        assert twin.token.balance(AT.leases) == escrow + vested
        opinions = [twin.audits.opinion(one.lease, turn) for one in self.jobs for turn in (0, 1)]
        assert twin.token.balance(AT.audits) == sum(one.bond for one in opinions)

    @invariant()
    def stake_stays_while_it_can_be_lost(self) -> None:
        twin = self.pair.twin
        leases = [twin.leases.lease(one.lease) for one in self.jobs]
        for name in ("ann", "bob"):
            owner = OWNERS[name].address
            mine = [one for one in leases if one.provider == owner and one.state == COMMITTED]
            assert twin.leases.committed(owner) == len(mine)

    @invariant()
    def what_is_closed_holds_nothing(self) -> None:
        twin = self.pair.twin
        for lease in list(self.closed)[-8:]:
            assert twin.leases.lease(lease).state == CLOSED
            assert not any(twin.audits.opinion(lease, turn).bond for turn in (0, 1))

    def teardown(self) -> None:
        if self.money:
            self.pair.compare()
            self.pair.compare_leases(tuple(one.lease for one in self.jobs))


def test_twins_and_bytecode_agree_over_random_leases() -> None:
    """Outcome, revert name, events and state are equal; escrow, bonds and vesting add up at each step; nothing is paid
    within the window, with an audit open, twice, or to a convict."""
    run(LeaseHistories, examples=60, steps=60)
