"""A market in virtual time: leases are ordered, worked on, drawn, audited, disputed and closed, on the contracts' twins.

    order ──work_s──> commit ──next epoch──> draw ──> audit, second audit, dispute, referees ──window──> close
                                               └── not drawn ──────────────────────────────────window──> close

Nothing is decided here that the contracts decide: calls go in, and what their events say is what happens next. What the
market adds is the cost of work, and whether the players do what they are asked to.
"""

import heapq
import random
from collections.abc import Callable, Collection, Iterable

import msgspec

from clusterai.audit.adversary.core import work
from clusterai.audit.adversary.core.books import Books
from clusterai.audit.adversary.core.people import Lease, Operator, named
from clusterai.audit.adversary.core.scenario import Scenario
from clusterai.audit.adversary.core.strategies import STRATEGIES, Case, Honest, Options
from clusterai.audit.core.segments import Commitment
from clusterai.ledger.core import calls
from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.events import (
    AuditContested,
    AuditorDrawn,
    AuditResolved,
    Event,
    LeaseClosed,
    LeaseDrawn,
    LeaseOpened,
    RefereesDrawn,
    Slashed,
)
from clusterai.ledger.core.twin import BlockContext, Refused, TwinChain
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import (
    CloseReason,
    DeterminismClass,
    Terms,
    sealed_result,
    trap_digest,
    trap_nonce,
)
from clusterai.protocol.money import WEI_PER_TOKEN

PROVIDER, VALIDATOR = 1, 4
BEGIN_S = 1_700_000_000
CATALOGUE = 64
"""Different jobs on offer; equal specifications have equal results, which are computed once."""
CHEAP = 100
"""A self-dealer's leases cost one hundredth."""
PURSE_PRICES = 1_000
_MOST = 2**256 - 1
_Step = Callable[[Lease], None]


class Outcome(msgspec.Struct, frozen=True):
    """What one market came to; money in base units.

    Attributes:
        profits: of each operator, by group.
        worked, rerun: cost of leased work that was done, and of audits and referees.
        reasons: how many leases closed how.
        false_slashes: identities slashed whose operator never did wrong.
        fell: wrong leases and seconds until convictions, by group.
        cancelled, victims: leases that groups cancelled, and what their providers made of them.
        leases, calls: how many.
        digest: of everything that happened; equal markets have equal ones.
    """

    profits: tuple[tuple[int, ...], ...]
    worked: int
    rerun: int
    reasons: dict[str, int]
    false_slashes: int
    fell: tuple[tuple[tuple[int, int], ...], ...]
    slashed: tuple[int, ...]
    cancelled: tuple[int, ...]
    victims: tuple[int, ...]
    leases: int
    calls: int
    digest: str


class Market:
    """One run.

    Args:
        honest: groups that play honestly, with the same purses: what profits are compared with.
    """

    def __init__(self, scenario: Scenario, seed: int, honest: Collection[int] = ()) -> None:
        self._terms = scenario.market
        self._scenario = scenario
        self._honest = honest
        self._dice = random.Random(seed)  # noqa: S311 - a seeded generator is the point of it
        self._seed = keccak(b"market" + seed.to_bytes(8))
        self.now_s = BEGIN_S
        self._block = 0
        self._queue: list[tuple[int, int, _Step, Lease]] = []
        self._starts: list[tuple[int, int, Operator]] = []
        self._order = 0
        self._price = round(self._terms.price_tokens * WEI_PER_TOKEN)
        self._treasury = named("treasury")
        at = Addresses(**{field: named(field) for field in Addresses.__struct_fields__})
        self.chain = TwinChain(31415, at, self._treasury, scenario.rules.rules())
        self.books = Books(self.chain, self._treasury)
        self._trace = keccak(self._seed)
        self._owner: dict[Address, Operator] = {}
        self.operators: list[Operator] = []
        self._validators: list[Address] = []
        self._open: dict[Digest, Lease] = {}
        self._specs = [Digest(keccak(self._seed + bytes([n]))) for n in range(CATALOGUE)]
        self._worked = self._rerun = self._false = self._count = self._calls = 0
        self._reasons: dict[str, int] = {}
        self._planter = Operator(-1, Honest(Options()), providers=[named("planter")])
        self._populate()

    # --- who is there ---

    def _populate(self) -> None:
        terms, at = self._terms, self.chain.world.addresses
        self._do(calls.Approve(at.leases, _MOST), self._treasury)
        stake = round(terms.validator_stake_tokens * WEI_PER_TOKEN)
        seats = [named(f"seat {n}") for n in range(terms.validators)]
        free = iter(seats)
        for number, group in enumerate(self._scenario.groups):
            kind = STRATEGIES[group.strategy]
            player = (Honest if number in self._honest else kind)(group)
            ring = [next(free) for _ in range(round(group.corrupt * terms.validators))]
            made = [Operator(number, player) for _ in range(group.operators)]
            for n, operator in enumerate(made):
                name = f"{number} {n}"
                if kind.role == "auditor":
                    operator.auditors.append(next(free))
                    continue
                if kind.role == "requester":
                    operator.requesters.append(self._purse(f"requester {name}"))
                own = terms.stake if group.stake is None else group.stake
                identities = player.identities if kind.role == "provider" else 1
                wei = round(own * self._price) // identities
                for one in range(identities):
                    operator.providers.append(self._provider(f"provider {name} {one}", wei, terms.history))
            if ring:
                # A ring has one purse: it is its first operator's.
                made[0].auditors.extend(ring)
            self.operators.extend(made)
        for seat in free:
            self.operators.append(Operator(-1, Honest(Options()), auditors=[seat]))
        for seat in seats:
            self._validator(seat, stake)
        self._provider("planter", round(terms.stake * self._price), 0)
        for operator in self.operators:
            for who in (*operator.providers, *operator.auditors, *operator.requesters):
                self._owner[who] = operator
            operator.began_with = self._wealth(operator)
        self._owner[self._planter.providers[0]] = self._planter
        self.chain.finalize()

    def _purse(self, name: str) -> Address:
        who = named(name)
        self._do(calls.Transfer(who, PURSE_PRICES * self._price), self._treasury)
        self._do(calls.Approve(self.chain.world.addresses.leases, _MOST), who)
        return who

    def _provider(self, name: str, stake: int, history: int) -> Address:
        who, at = named(name), self.chain.world.addresses
        self._do(calls.Transfer(who, stake + 10 * self._price), self._treasury)
        self._do(calls.Approve(at.registry, _MOST), who)
        self._do(calls.Approve(at.leases, _MOST), who)
        self._do(calls.Register(PROVIDER, ZERO_DIGEST), who)
        if stake:
            self._do(calls.Bond(stake), who)
        if history:
            self.chain.world.store.put(("valid_in_a_row", who), history)
        return who

    def _validator(self, who: Address, stake: int) -> None:
        at = self.chain.world.addresses
        self._do(calls.Transfer(who, 10 * stake), self._treasury)
        for spender in (at.registry, at.audits, at.disputes):
            self._do(calls.Approve(spender, _MOST), who)
        self._do(calls.Register(VALIDATOR, ZERO_DIGEST), who)
        self._do(calls.Bond(stake), who)
        self._do(calls.Enlist(), who)
        self._validators.append(who)

    def _wealth(self, operator: Operator) -> int:
        total = 0
        # A griefer's provider is its victim, with a purse of its own.
        own = operator.requesters or operator.providers
        for who in (*own, *operator.auditors):
            participant = self.chain.registry.participant(who)
            total += self.chain.token.balance(who) + participant.stake + participant.unbonding
            if not participant.barred:
                total += self.chain.leases.vested(who).amount
        return total

    @property
    def planter(self) -> Address:
        """Who lends itself to traps."""
        return self._planter.providers[0]

    # --- time ---

    def run(self) -> Outcome:
        """Until every lease is closed.

        Raises:
            NotConserved: money appeared or vanished.
        """
        for operator in self.operators:
            if operator.providers:
                self._later_start(BEGIN_S + 1 + self._dice.randrange(self._terms.work_s), operator)
        while self._starts or self._queue:
            if not self._queue or (self._starts and self._starts[0][:2] < self._queue[0][:2]):
                self.now_s, _, operator = heapq.heappop(self._starts)
                self._start(operator)
            else:
                self.now_s, _, step, lease = heapq.heappop(self._queue)
                if not lease.is_closed:
                    step(lease)
            self.chain.finalize()
        assert not self._open, "every lease was closed"
        self.books.audit()
        return self._outcome()

    def _later(self, time_s: int, step: _Step, lease: Lease) -> None:
        self._order += 1
        heapq.heappush(self._queue, (time_s, self._order, step, lease))

    def _later_start(self, time_s: int, operator: Operator) -> None:
        self._order += 1
        heapq.heappush(self._starts, (time_s, self._order, operator))

    def _do(self, call: calls.Call, sender: Address) -> tuple[Event, ...]:
        found = self._try(call, sender)
        assert not isinstance(found, Refused), f"{call}: {found.reason}"
        return found

    def _try(self, call: calls.Call, sender: Address) -> tuple[Event, ...] | Refused:
        self._block += 1
        self._calls += 1
        block = BlockContext(self._block, self.now_s, keccak(self._seed + self._block.to_bytes(8)))
        found = self.chain.execute(call, sender, block)
        if not isinstance(found, Refused):
            self.books.book(found)
        return found

    # --- a lease ---

    def _start(self, operator: Operator) -> None:
        able = [it for it in operator.providers if not self.chain.registry.participant(it).barred]
        if operator.leases >= self._terms.leases or not able:
            return
        nth, operator.leases = operator.leases, operator.leases + 1
        mine = operator.player.deals_itself(nth)
        price = self._price // CHEAP if mine else self._price
        provider = able[nth % len(able)]
        requester = provider if mine else operator.requesters[0] if operator.requesters else self._treasury
        lease = self._order_from(operator, nth, provider, requester, price, None)
        self._do(calls.AcceptLease(lease.id), provider)
        after = operator.player.cancels(nth) if operator.requesters else None
        if after is None:
            self._later(self.now_s + self._terms.work_s, self._commit, lease)
        else:
            self._later(self.now_s + int(after * self._terms.work_s), self._cancel, lease)
        if self._scenario.traps and self._dice.random() < self._scenario.traps:
            self._plant()

    def _order_from(
        self,
        operator: Operator,
        nth: int,
        provider: Address,
        requester: Address,
        price: int,
        secret: Digest | None,
    ) -> Lease:
        self._count += 1
        spec = self._dice.choice(self._specs)
        terms = Terms(
            requester=requester,
            provider=provider,
            spec=spec,
            resources=ZERO_DIGEST,
            input=ZERO_DIGEST,
            expected=ZERO_DIGEST,
            determinism=DeterminismClass.PINNED,
            segments=self._terms.segments,
            compensation_wei=price,
            audit_fee_wei=round(price * self._terms.audit_fee),
            start_by_s=self.now_s,
            deadline_s=self.now_s + 2 * self._terms.work_s,
            nonce=Digest(self._count.to_bytes(32)) if secret is None else trap_nonce(secret),
        )
        # The chain names the lease: computing its id a second time would be a seventh of all time.
        (lease_id,) = (
            it.lease for it in self._do(calls.OpenLease(terms), requester) if isinstance(it, LeaseOpened)
        )
        cost = round(price * self._terms.cost)
        lease = Lease(lease_id, operator, nth, provider, requester, terms, cost, spec, secret)
        self._open[lease_id] = lease
        return lease

    def _commit(self, lease: Lease) -> None:
        operator, segments = lease.operator, self._terms.segments
        if self.chain.registry.participant(lease.provider).barred:
            self._close(lease)
            return self._next_of(operator)
        made_up = operator.player.skips(lease.nth, segments, self._dice)
        if made_up:
            commitment = work.skipped(lease.spec, segments, made_up)
            lease.is_wrong = True
            operator.wrong += 1
            lease.wrong_nth = operator.wrong
        else:
            commitment = work.done(lease.spec, segments)
        cost = lease.cost * (segments - len(made_up)) // segments
        operator.spent += 0 if operator.requesters else cost
        self._worked += cost
        self._committed(lease, commitment)
        return self._next_of(operator)

    def _next_of(self, operator: Operator) -> None:
        self._later_start(self.now_s + self._terms.pause_s, operator)

    def _committed(self, lease: Lease, commitment: Commitment) -> None:
        lease.commitment, lease.committed_s = commitment, self.now_s
        amount = lease.terms.compensation_wei
        states = commitment.states
        call = calls.CommitLease(
            lease.id, commitment.root, commitment.segments, states[-1], work.UNITS, amount
        )
        self._do(call, lease.provider)
        epoch_s = self.chain.world.rules.epoch_s
        self._later((self.now_s // epoch_s + 1) * epoch_s, self._draw, lease)

    def _cancel(self, lease: Lease) -> None:
        done = lease.cost * (self.now_s - (lease.terms.start_by_s)) // self._terms.work_s
        before = self.chain.token.balance(lease.provider)
        self._after(lease, self._do(calls.CancelLease(lease.id), lease.requester))
        lease.operator.cancelled += 1
        lease.operator.victims += self.chain.token.balance(lease.provider) - before - done
        self._next_of(lease.operator)

    def _plant(self) -> None:
        """A lease between the market's own people, whose states are bait."""
        secret = Digest(keccak(b"bait" + self._seed + self._count.to_bytes(8)))
        provider = self._planter.providers[0]
        lease = self._order_from(self._planter, 0, provider, self._treasury, self._price, secret)
        self._do(calls.AcceptLease(lease.id), provider)
        self._later(self.now_s + self._terms.work_s, self._commit_bait, lease)

    def _commit_bait(self, lease: Lease) -> None:
        assert lease.secret is not None
        segments = self._terms.segments
        states = [trap_digest(lease.secret, n) for n in range(segments + 1)]
        self._committed(lease, Commitment(states, [work.UNITS] * segments))

    # --- its audit ---

    def _draw(self, lease: Lease) -> None:
        if self.chain.registry.participant(lease.provider).barred:
            return self._close(lease)
        if self.chain.audits.audit(lease.id).round >= self.chain.court.rounds():
            self._do(calls.Tick(), self._treasury)
        return self._after(lease, self._do(calls.DrawLease(lease.id), self._treasury))

    def _after(self, lease: Lease, events: Iterable[Event]) -> None:
        """What the chain said happens next."""
        for event in events:
            match event:
                case LeaseDrawn(segment=segment):
                    lease.segment = segment
                case AuditorDrawn(auditor=auditor, commit_by_s=by_s):
                    lease.auditor, lease.by_s = auditor, by_s
                    self._later(self.now_s + self._terms.work_s // self._terms.segments, self._seal, lease)
                case AuditResolved(rest_until_s=rest_s):
                    window_s = self.chain.world.rules.window_s
                    self._later(max(lease.committed_s + window_s, rest_s, self.now_s) + 1, self._close, lease)
                case AuditContested(dispute_by_s=by_s):
                    lease.by_s = by_s
                    lease.accusers = [
                        it for it, said in lease.results.items() if said != self._claimed(lease)
                    ]
                    self._later(self.now_s, self._dispute, lease)
                case RefereesDrawn(level=level, referees=referees):
                    lease.accusers = list(dict.fromkeys(referees)) if level < 2 else list(self._validators)
                    self._later(self.now_s, self._judge, lease)
                case Slashed(owner=owner):
                    self._note_slashed(lease, owner)
                case LeaseClosed(lease=closed, reason=reason):
                    self._note_closed(closed, CloseReason(reason))
                case _:
                    pass

    def _claimed(self, lease: Lease) -> Digest:
        assert lease.commitment is not None
        return lease.commitment.states[lease.segment]

    def _case(self, lease: Lease, who: Address) -> Case:
        operator = self._owner[who]
        commitment = lease.commitment
        assert commitment is not None

        def rerun() -> Digest:
            cost = lease.cost // commitment.segments
            operator.spent += cost
            self._rerun += cost
            return work.run(commitment.states[lease.segment - 1], lease.segment)

        ring = lease.operator is operator or (operator.group >= 0 and operator.group == lease.operator.group)
        return Case(rerun=rerun, leaked=self._claimed(lease), accomplice=ring, random=self._dice)

    def _salt(self, lease: Lease, who: Address) -> Digest:
        return Digest(keccak(b"salt" + lease.id + who))

    def _seal(self, lease: Lease) -> None:
        if self.chain.registry.participant(lease.provider).barred:
            return self._close(lease)
        auditor, provider = lease.auditor, lease.operator.player
        player = self._owner[auditor].player
        if not provider.serves(lease.is_wrong):
            return self._withheld(lease)
        result = player.seals(self._case(lease, auditor))
        if result is None:
            return self._later(lease.by_s + 1, self._expire, lease)
        seal = sealed_result(result, auditor, lease.id, self._salt(lease, auditor))
        if isinstance(self._try(calls.CommitAudit(lease.id, seal), auditor), Refused):
            # Its purse doesn't hold another bond.
            return self._later(lease.by_s + 1, self._expire, lease)
        if not lease.opened:
            if not provider.opens(lease.is_wrong):
                return self._later(self.chain.audits.audit(lease.id).by_s + 1, self._expire, lease)
            lease.opened = True
            self._do(self._opening(lease), lease.provider)
        if not player.reveals(self._case(lease, auditor)):
            return self._later(self.chain.audits.audit(lease.id).by_s + 1, self._expire, lease)
        lease.results[auditor] = result
        reveal = calls.RevealAudit(lease.id, result, self._salt(lease, auditor))
        events = self._do(reveal, auditor)
        if lease.secret is not None:
            events = self._do(calls.SpringTrap(lease.terms, lease.secret), self._treasury)
        return self._after(lease, events)

    def _opening(self, lease: Lease) -> calls.OpenSegment:
        assert lease.commitment is not None
        before, after = (lease.commitment.open(n) for n in (lease.segment - 1, lease.segment))
        return calls.OpenSegment(
            lease.id, before.state, before.units, after.state, after.units, before.proof, after.proof
        )

    def _withheld(self, lease: Lease) -> None:
        """The drawn auditor says so, and then all who would say so too."""
        for who in (lease.auditor, *(it for it in self._validators if it != lease.auditor)):
            case = self._case(lease, who)
            if case.accomplice:
                continue
            found = self._try(calls.ReportWithheld(lease.id), who)
            if not isinstance(found, Refused):
                self._after(lease, found)
            if lease.is_closed:
                return
        self._later(self.chain.audits.audit(lease.id).by_s + 1, self._expire, lease)

    def _expire(self, lease: Lease) -> None:
        self._after(lease, self._do(calls.ExpireAudit(lease.id), self._treasury))

    # --- its dispute ---

    def _dispute(self, lease: Lease) -> None:
        for who in lease.accusers:
            if self._owner[who].player.accuses(self._case(lease, who)):
                found = self._try(calls.StartDispute(lease.id), who)
                if not isinstance(found, Refused):
                    return self._after(lease, found)
                # The first accuser didn't: from half of the time on it is the second's turn.
                if self.now_s <= lease.by_s - self.chain.world.rules.audits.dispute_s // 2:
                    return self._later(
                        lease.by_s - self.chain.world.rules.audits.dispute_s // 2 + 1, self._dispute, lease
                    )
        return self._later(lease.by_s + 1, self._expire, lease)

    def _judge(self, lease: Lease) -> None:
        """A committee commits, then reveals; all its members do, or aren't able to."""
        sealed: list[tuple[Address, Digest]] = []
        for who in lease.accusers:
            result = self._owner[who].player.judges(self._case(lease, who))
            seal = sealed_result(result, who, lease.id, self._salt(lease, who))
            if not isinstance(self._try(calls.CommitReferee(lease.id, seal), who), Refused):
                sealed.append((who, result))
        for who, result in sealed:
            found = self._try(calls.RevealReferee(lease.id, result, self._salt(lease, who)), who)
            if not isinstance(found, Refused):
                self._after(lease, found)

    # --- its end ---

    def _close(self, lease: Lease) -> None:
        self._after(lease, self._do(calls.CloseLease(lease.id), self._treasury))

    def _note_slashed(self, lease: Lease, owner: Address) -> None:
        operator = self._owner[owner]
        operator.slashed += 1
        if operator.wrong == 0:
            self._false += 1
        operator.fell = [*operator.fell, (lease.wrong_nth, self.now_s - lease.committed_s)]

    def _note_closed(self, lease_id: Digest, reason: CloseReason) -> None:
        lease = self._open.pop(lease_id)
        lease.is_closed = True
        self._reasons[reason.name] = self._reasons.get(reason.name, 0) + 1
        self._trace = keccak(self._trace + lease_id + bytes([reason]) + self.now_s.to_bytes(5))
        if reason is not CloseReason.COMPLETED or lease.operator is self._planter:
            return
        operator = lease.operator
        if lease.is_wrong:
            gain = self._scenario.groups[operator.group].gain
            operator.gained += round(gain * lease.terms.compensation_wei)
        if operator.requesters:
            operator.gained += round(self._terms.value * lease.terms.compensation_wei)

    def _outcome(self) -> Outcome:
        groups = range(len(self._scenario.groups))
        of = [[it for it in self.operators if it.group == group] for group in groups]
        profits = tuple(
            tuple(self._wealth(it) - it.began_with - it.spent + it.gained for it in group) for group in of
        )
        return Outcome(
            profits=profits,
            worked=self._worked,
            rerun=self._rerun,
            reasons=dict(sorted(self._reasons.items())),
            false_slashes=self._false,
            fell=tuple(tuple(it for operator in group for it in operator.fell) for group in of),
            slashed=tuple(sum(it.slashed for it in group) for group in of),
            cancelled=tuple(sum(it.cancelled for it in group) for group in of),
            victims=tuple(sum(it.victims for it in group) for group in of),
            leases=self._count,
            calls=self._calls,
            digest=keccak(self._trace + repr(profits).encode()).hex(),
        )
