"""A dispute among the cast: a panel with room for referees, both parties' traces, and what referees say."""

from collections.abc import Callable, Iterable

from eth_hash.auto import keccak

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.twin.disputes import ASSERTING, PANEL_LEVEL, REVEALING, SEALING, SELECTING, Dispute
from clusterai.ledger.core.twin.state import UINT256_MAX
from clusterai.protocol import bisection
from clusterai.protocol.bisection import Trace
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.keccak import keccak as keccak_of
from clusterai.protocol.leases import sealed_result
from clusterai.protocol.signing import Key
from tests.contracts.cast import AT, DEPLOYER, EVERYONE, HOTS, KEYS, OWNERS, PLAN, key
from tests.contracts.leasecast import AUDITORS, SALT, Job, LeasePair, hot, opening

REFEREES = {f"ref{n}": key(f"referee {n}") for n in range(6)}
"""Each 40,000 at stake, each its own hot key, beside val, vic and vow."""
SIGNERS = {OWNERS[name].address: HOTS[name] for name in AUDITORS} | {
    one.address: one for one in REFEREES.values()
}
PEOPLE = {**KEYS, **{one.address: one for one in REFEREES.values()}}
PLACES = (AT.registry, AT.channels, AT.court, AT.credit, AT.leases, AT.audits, AT.deliveries, AT.disputes)


class DisputePair(LeasePair):
    plan = PLAN

    def __init__(self, referees: int = len(REFEREES)) -> None:
        super().__init__()
        self.referees = list(REFEREES.values())[:referees]

    def populate(self) -> None:
        super().populate()
        for who in EVERYONE.values():
            self.expect(calls.Approve(AT.disputes, UINT256_MAX), who)
        for who in self.referees:
            self.expect(calls.Transfer(who.address, 1_000_000), DEPLOYER)
            for spender in (AT.registry, AT.audits, AT.disputes):
                self.expect(calls.Approve(spender, UINT256_MAX), who)
            self.expect(calls.Register(4, ZERO_DIGEST), who)
            self.expect(calls.Bond(40_000), who)
            self.expect(calls.Enlist(), who)
        self.advance(1)

    # --- up to the dispute ---

    def says(self, one: Job, result: Digest) -> Key:
        """The auditor whose turn it is commits to `result` and reveals it."""
        audit = self.twin.audits.audit(one.lease)
        who = SIGNERS[audit.auditor]
        sealed = sealed_result(result, audit.auditor, one.lease, SALT)
        self.expect(calls.CommitAudit(one.lease, sealed), who)
        if not audit.shown:
            self.expect(opening(self, one, audit.segment), hot(one.provider))
        self.expect(calls.RevealAudit(one.lease, result, SALT), who)
        return who

    def contested(self, one: Job, first: Digest, second: Digest | None = None) -> tuple[Key, Key]:
        """Two auditors and what they found; the second the same if nothing else is said."""
        self.committed(one)
        self.drawn(one)
        return self.says(one, first), self.says(one, first if second is None else second)

    # --- the dispute ---

    def dispute(self, one: Job) -> Dispute:
        return self.twin.disputes.dispute(one.lease)

    def step(self, one: Job, accuser: Key, provider: Trace, challenger: Trace) -> tuple[Event, ...]:
        """The next move, as whoever's turn it is ran the segment."""
        found = self.dispute(one)
        if found.stage == ASSERTING:
            inner = bisection.assertion(found.game, provider)
            return self.expect(calls.AssertTrace(one.lease, inner), hot(one.provider))
        assert found.stage == SELECTING
        part, denied = bisection.selection(found.game, challenger)
        # Another auditor may have begun it, where the one that was to was refused.
        accuser = SIGNERS.get(found.accuser, accuser)
        return self.expect(calls.SelectRange(one.lease, part, denied, found.game.asserted), accuser)

    def play(self, one: Job, accuser: Key, provider: Trace, challenger: Trace) -> int:
        """Down to one step; how many rounds it took."""
        moves = 0
        while self.dispute(one).stage in (ASSERTING, SELECTING):
            self.step(one, accuser, provider, challenger)
            moves += 1
        assert self.dispute(one).stage == SEALING
        return moves // 2

    def committee(self, one: Job) -> list[Address]:
        """Who may speak now, each once."""
        found, twin = self.dispute(one), self.twin
        if found.level < PANEL_LEVEL:
            return [who for who in SIGNERS if twin.disputes.voice(one.lease, found.level, who).weight]
        lease = twin.leases.lease(one.lease)
        parties = [found.provider, lease.requester, found.accuser]
        seats = twin.panel.before(lease.committed_s, parties)
        other = [twin.audits.opinion(one.lease, turn) for turn in (0, 1)]
        spoke = {it.auditor for it in other if it.revealed} if not found.lenient else set[Address]()
        return [who for who, weight in seats if weight and who not in spoke]

    def seal(self, one: Job, results: dict[Address, Digest]) -> None:
        for who, result in results.items():
            sealed = sealed_result(result, who, one.lease, SALT)
            self.expect(calls.CommitReferee(one.lease, sealed), SIGNERS[who])

    def judge(self, one: Job, say: Callable[[Address], Digest | None]) -> tuple[Event, ...]:
        """One committee: what each says, or None for silence; up to the decision or the next committee."""
        level = self.dispute(one).level
        results = {who: result for who in self.committee(one) if (result := say(who)) is not None}
        self.seal(one, results)
        events: tuple[Event, ...] = ()
        if self.dispute(one).stage == SEALING:
            events += self.expire(one)
        for who, result in results.items():
            found = self.dispute(one)
            if found.stage == REVEALING and found.level == level:
                events += self.expect(calls.RevealReferee(one.lease, result, SALT), SIGNERS[who])
        return events

    def expire(self, one: Job) -> tuple[Event, ...]:
        """Let the clock run out."""
        self.now_s = max(self.now_s, self.dispute(one).by_s)
        assert self.refused(calls.ExpireDispute(one.lease), DEPLOYER) == "NotExpired"
        self.advance(1)
        return self.expect(calls.ExpireDispute(one.lease), DEPLOYER)

    # --- what always holds ---

    def check(self, jobs: Iterable[Job]) -> None:
        """Every view of Disputes equals the twin's; no token came to be or went but what was burnt, and each bond lies here."""
        read, disputes = self.bytecode.read, self.twin.disputes
        held = 0
        for one in jobs:
            mine = disputes.dispute(one.lease)
            game = mine.game
            found = read("Disputes", "disputeOf", one.lease)
            assert found[:6] == (mine.stage, mine.level, mine.lenient, mine.by_s, mine.run_s, mine.bond)
            found = found[6:]
            assert tuple(bytes.fromhex(it[2:]) for it in (found[0], found[1], found[4])) == (
                mine.provider,
                mine.accuser,
                mine.payer,
            )
            assert (found[2], found[3]) == (game.low, game.high)
            assert found[5:8] == (game.start, game.claimed, game.denied)
            if mine.stage == SELECTING:
                assert found[8] == keccak(b"".join(game.asserted))
            assert found[9:] == (mine.total, mine.sealed, mine.heard)
            for level in range(PANEL_LEVEL + 1):
                for who in SIGNERS:
                    voice = disputes.voice(one.lease, level, who)
                    said = read("Disputes", "voiceOf", one.lease, level, who)
                    assert said == (voice.weight, voice.sealed_it, voice.sealed)
            held += mine.bond if mine.stage in range(1, 5) else 0
        twin = self.twin
        assert twin.token.balance(AT.disputes) == held == read("Token", "balanceOf", AT.disputes)
        assert sum(map(twin.token.balance, (*PEOPLE, *PLACES))) == twin.token.supply()


def true_states(start: Digest, end: Digest, steps: int) -> Trace:
    """What an honest run of the segment goes through, and what it comes to."""

    def at(step: int) -> Digest:
        if step in (0, steps):
            return end if step else start
        return Digest(keccak_of(b"true" + start + step.to_bytes(8)))

    return at


def wrong_from(true: Trace, first: int, end: Digest, steps: int) -> Trace:
    """A run that goes wrong in step `first`, and ends in `end`."""

    def at(step: int) -> Digest:
        if step < first:
            return true(step)
        return end if step == steps else Digest(keccak_of(b"wrong" + end + step.to_bytes(8)))

    return at


def traces(pair: DisputePair, one: Job) -> tuple[Trace, Digest, int]:
    """The truth about the drawn segment; what the provider claims its end is; its steps."""
    segment = one.segment(pair)
    meters = one.work.meters
    steps = meters[segment] - meters[segment - 1] if one.terms.determinism == 1 else 1
    start = one.work.states[segment - 1]
    return true_states(start, one.right(pair), steps), one.claimed(pair), steps
