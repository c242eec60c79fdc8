"""Leases among the cast: terms, work that was done or pretended, audits, and who would decide a dispute."""

from typing import Any

import msgspec
from eth_hash.auto import keccak

from clusterai.audit.core.segments import Commitment
from clusterai.ledger.core import calls
from clusterai.ledger.core.events import AuditorDrawn, Event, LeaseOpened
from clusterai.ledger.core.lease_calls import Shown
from clusterai.ledger.core.twin import Refused
from clusterai.ledger.core.twin.audits import AWAITS_COMMIT, Accusation
from clusterai.ledger.core.twin.state import UINT256_MAX, Revert, Transaction
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.leases import (
    Terms,
    hidden_state,
    leases_domain,
    sealed_result,
    segment_result,
    trap_digest,
    trap_nonce,
)
from clusterai.protocol.signing import Key
from tests.contracts.bytecode import CHAIN_ID, BytecodeChain
from tests.contracts.cast import AT, DEPLOYER, EVERYONE, HOTS, KEYS, OWNERS, PLAN, RULES, Differ, Pair

DISPUTES = AT.disputes
"""Tests of audits alone speak in its name, on a chain where it doesn't stand; those of disputes have it play."""
DOMAIN = leases_domain(CHAIN_ID, AT.leases)
AUDITORS = ("val", "vic", "vow")
SALT = Digest(b"\x5a" * 32)
WRONG = Digest(b"\xee" * 32)


def digest(text: str) -> Digest:
    return Digest(keccak(text.encode()))


class Job(msgspec.Struct, frozen=True):
    """A lease, and what its provider commits to: `states` are right, unless it cheats or baits."""

    terms: Terms
    requester: str
    provider: str
    work: Commitment
    honest: Commitment
    secret: Digest = ZERO_DIGEST

    @property
    def lease(self) -> Digest:
        return self.terms.lease_id(DOMAIN)

    def segment(self, pair: "LeasePair") -> int:
        return pair.twin.audits.audit(self.lease).segment

    def right(self, pair: "LeasePair") -> Digest:
        """What whoever ran the drawn segment comes to, from what is committed to before it."""
        segment, meters = self.segment(pair), self.honest.meters
        units = meters[segment] - meters[segment - 1]
        return segment_result(self.honest.states[segment], self.work.meters[segment - 1] + units)

    def claimed(self, pair: "LeasePair") -> Digest:
        """What its provider says that it comes to."""
        return self.work.result(self.segment(pair))


def job(
    pair: "LeasePair",
    name: str = "job",
    requester: str = "gate",
    provider: str = "ann",
    segments: int = 4,
    cheats: bool = False,
    trap: bool = False,
    metered: int = 0,
    **changes: Any,
) -> Job:
    """A lease of `segments` with distinct states; a cheat's are all wrong, a trap's all bait; each of `metered` units."""
    secret = digest(name + " secret")
    right = [digest(f"{name} {index}") for index in range(segments + 1)]
    states = right
    if cheats:
        states = [digest(f"{name} wrong {index}") for index in range(segments + 1)]
    if trap:
        states = [right[0], *(trap_digest(secret, index) for index in range(1, segments + 1))]
    units = (metered or 7,) * segments
    fields: dict[str, Any] = {
        "requester": OWNERS[requester].address if requester in OWNERS else EVERYONE[requester].address,
        "provider": OWNERS[provider].address,
        "spec": digest(name),
        "resources": ZERO_DIGEST,
        "input": ZERO_DIGEST,
        "expected": ZERO_DIGEST,
        "determinism": 1,
        "segments": segments,
        "units": sum(units),
        "compensation_wei": 1_000,
        "audit_fee_wei": 101,
        "start_by_s": pair.now_s + 20,
        "deadline_s": pair.now_s + 100,
        "nonce": trap_nonce(secret) if trap else secret,
    }
    terms = Terms(**{**fields, **changes})
    return Job(terms, requester, provider, Commitment(states, units), Commitment(right, units), secret)


def hot(name: str) -> Key:
    return HOTS.get(name, EVERYONE[name])


class LeasePair(Pair):
    """Chains on which everyone may pay for leases and audits, without the contract for disputes."""

    plan = msgspec.structs.replace(
        PLAN, creations=tuple(one for one in PLAN.creations if one.name != "Disputes")
    )

    def __init__(self) -> None:
        super().__init__()
        if self.plan is not PLAN:
            self.bytecode = BytecodeChain(self.plan)

    def populate(self) -> None:
        super().populate()
        for who in EVERYONE.values():
            for spender in (AT.leases, AT.audits, AT.deliveries):
                self.expect(calls.Approve(spender, UINT256_MAX), who)
        for name in AUDITORS:
            self.expect(calls.Enlist(), HOTS[name])
        self.advance(1)

    # --- one lease, step by step ---

    def opened(self, one: Job) -> Job:
        events = self.expect(calls.OpenLease(one.terms), hot(one.requester))
        assert any(isinstance(event, LeaseOpened) and event.lease == one.lease for event in events)
        return one

    def accepted(self, one: Job) -> Job:
        self.opened(one)
        self.expect(calls.AcceptLease(one.lease), hot(one.provider))
        return one

    def committed(self, one: Job, amount: int = 900) -> Job:
        self.accepted(one)
        self.advance(8)
        self.expect(commit(one, amount), hot(one.provider))
        return one

    def drawn(self, one: Job) -> tuple[Event, ...]:
        self.advance(RULES.epoch_s)
        self.expect(calls.Tick(), DEPLOYER)
        return self.expect(calls.DrawLease(one.lease), DEPLOYER)

    def audited(self, one: Job, result: Digest | None = None) -> str:
        """Commitment, draw, and an auditor that comes to `result` (else to what is right); returns who."""
        self.committed(one)
        self.drawn(one)
        return self.answered(one, result)

    def answered(self, one: Job, result: Digest | None = None) -> str:
        """The auditor whose turn it is commits and reveals; the provider opens if it didn't."""
        name = self.auditor(one)
        found = one.right(self) if result is None else result
        shown = self.twin.audits.audit(one.lease).shown
        self.expect(sealed(one, name, found), hot(name))
        if not shown:
            self.expect(opening(self, one), hot(one.provider))
        self.expect(calls.RevealAudit(one.lease, found, SALT), hot(name))
        return name

    def auditor(self, one: Job) -> str:
        """Whose turn it is."""
        audit = self.twin.audits.audit(one.lease)
        assert audit.state == AWAITS_COMMIT, f"nobody's turn: {audit}"
        return name_of(audit.auditor)

    # --- what Disputes will ask ---

    def begin_dispute(self, lease: Digest, accuser: Address) -> Accusation | Refused:
        mark, found = self.twin.mark(), None
        try:
            found = self.twin.audits.begin_dispute(Transaction(DISPUTES, self.block()), lease, accuser)
            outcome: tuple[Event, ...] | Refused = ()
        except Revert as revert:
            self.twin.rollback(mark)
            outcome = Refused(revert.reason)
        theirs = self.bytecode.transact("Audits", "beginDispute", DISPUTES, self.block(), lease, accuser)
        if theirs != outcome:
            raise Differ(f"beginDispute: twin {outcome}, bytecode {theirs}")
        self.number += 1
        if found is None:
            assert isinstance(outcome, Refused)
            return outcome
        return found

    def end_dispute(self, lease: Digest, guilty: bool, confirmed: bool = True) -> tuple[Event, ...]:
        tx = Transaction(DISPUTES, self.block())
        self.twin.audits.end_dispute(tx, lease, guilty, confirmed)
        theirs = self.bytecode.transact(
            "Audits", "endDispute", DISPUTES, self.block(), lease, guilty, confirmed
        )
        if theirs != tuple(tx.events):
            raise Differ(f"endDispute: twin {tx.events}, bytecode {theirs}")
        self.number += 1
        return tuple(tx.events)

    # --- views ---

    def compare_leases(self, leases: tuple[Digest, ...]) -> None:
        """Every view of Panel, Leases and Audits equals the twin's."""
        read, twin = self.bytecode.read, self.twin
        self.bytecode.enter(self.block())
        for lease in leases:
            assert _raw(read("Leases", "leaseOf", lease)) == msgspec.structs.astuple(twin.leases.lease(lease))
            assert _raw(read("Audits", "auditOf", lease)) == msgspec.structs.astuple(twin.audits.audit(lease))
            opinions = tuple(msgspec.structs.astuple(twin.audits.opinion(lease, turn)) for turn in (0, 1))
            assert tuple(map(_raw, read("Audits", "opinionsOf", lease))) == opinions
            assert read("Audits", "payable_", lease) == twin.audits.is_payable(lease, self.now_s)
            assert read("Audits", "withheldWeight", lease) == twin.audits.withheld_weight(lease)
            demand = msgspec.structs.astuple(twin.deliveries.demand(lease))
            assert _raw(read("Deliveries", "demandOf", lease)) == demand
            for name in AUDITORS:
                member = OWNERS[name].address
                said = read("Deliveries", "reported", lease, member)
                assert said == twin.deliveries.reported(lease, member)
        for address in KEYS:
            assert read("Leases", "committed", address) == twin.leases.committed(address)
            assert read("Leases", "holdsStake", address) == (twin.leases.committed(address) > 0)
            assert read("Leases", "vested", address) == msgspec.structs.astuple(twin.leases.vested(address))
            assert read("Audits", "validInARow", address) == twin.audits.valid_in_a_row(address)
            assert read("Audits", "bondAgainst", address, 500) == twin.audits.bond_against(address, 500)
            for price in (1, 1_000, 10**9):
                assert read("Audits", "rateOf", address, price) == twin.audits.rate_of(address, price)
        assert read("Panel", "seatsTaken") == twin.panel.taken()
        for seat in range(twin.panel.taken()):
            assert _raw(read("Panel", "seatAt", seat)) == twin.panel.seat_at(seat)
        for contract in (AT.leases, AT.audits, AT.deliveries):
            assert read("Token", "balanceOf", contract) == twin.token.balance(contract)


def commit(one: Job, amount: int = 900, output: Digest = ZERO_DIGEST) -> calls.CommitLease:
    work = one.work
    last = work.open(work.segments)
    return calls.CommitLease(
        one.lease, work.root, work.segments, output, last.units, amount, hidden_state(last.state), last.proof
    )


def opening(pair: "LeasePair", one: Job, segment: int = 0) -> calls.OpenSegment:
    """What the provider shows of the drawn segment, or of another."""
    audit = pair.twin.audits.audit(one.lease)
    shown, other = one.work.show(segment or audit.segment, audit.seed)
    return calls.OpenSegment(one.lease, tuple(Shown(it.state, it.units, it.proof) for it in shown), other)


def sealed(one: Job, auditor: str, result: Digest) -> calls.CommitAudit:
    return calls.CommitAudit(one.lease, sealed_result(result, OWNERS[auditor].address, one.lease, SALT))


def name_of(address: Address) -> str:
    return next(name for name, key in OWNERS.items() if key.address == address)


def drawn_auditors(events: tuple[Event, ...]) -> list[str]:
    return [name_of(event.auditor) for event in events if isinstance(event, AuditorDrawn)]


def _raw(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """eth_abi gives addresses as hex text."""
    return tuple(bytes.fromhex(one[2:]) if isinstance(one, str) else one for one in values)
