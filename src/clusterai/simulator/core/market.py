"""A market in virtual time: customers order, providers work, auditors check, on the real machines and the contracts' twins.

    order: JobDesk ──> JobBook: accept, work_s, commit ──beacon──> JobAuditor: draw, audit, dispute, judge ──> close

Nothing is decided here that machines or contracts decide. What the market adds is who there is, what work costs, when
something is ordered, and what everybody has in the end.
"""

import random
from collections.abc import Collection
from itertools import accumulate

import msgspec

from clusterai.gateway.core.jobstate import Ask, Cancel
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.twin import BlockContext, Refused, TwinChain
from clusterai.node.core.joblease import Performed
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.jobs import Bait
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import CloseReason
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.simulator.core import work
from clusterai.simulator.core.books import Books
from clusterai.simulator.core.network import Network
from clusterai.simulator.core.people import Lease, Operator, named
from clusterai.simulator.core.players import Auditor, Customer, Node
from clusterai.simulator.core.scenario import Scenario
from clusterai.simulator.core.strategies import STRATEGIES, BeaconBriber, Honest, Options
from clusterai.work.batch.core.plan import Offer
from clusterai.work.batch.core.prices import GIGA, Tariff
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import Image, JobArray, JobSpec, Resources

BEGIN_S = 1_700_000_010
CATALOGUE = 16
"""Different jobs on offer; equal specifications have equal results, which are computed once."""
CHEAP = 100
"""A self-dealer's leases cost one hundredth."""
_MOST = 2**256 - 1


class Outcome(msgspec.Struct, frozen=True):
    """What one market came to; money in base units.

    Attributes:
        profits: of each operator, by group.
        worked, rerun: cost of leased work that was done, and of audits, disputes and referees.
        reasons: how many leases closed how.
        accusations: disputes that were opened about leases on which nobody had cheated.
        false_slashes: identities slashed whose operator never did wrong.
        fell: wrong leases and seconds until convictions, by group.
        drawn: wrong leases that were audited, by group.
        slashed: identities, by group.
        shared: what of fees fell to those who have stake behind auditors.
        cancelled, victims: leases that groups cancelled, and what their providers made of them.
        leases, calls, steps: how many; steps are of machines.
        digest: of everything that happened; equal markets have equal ones.
    """

    profits: tuple[tuple[int, ...], ...]
    worked: int
    rerun: int
    reasons: dict[str, int]
    accusations: int
    false_slashes: int
    fell: tuple[tuple[tuple[int, int], ...], ...]
    drawn: tuple[int, ...]
    slashed: tuple[int, ...]
    shared: int
    cancelled: tuple[int, ...]
    victims: tuple[int, ...]
    leases: int
    calls: int
    steps: int
    digest: str


class Market:
    """One run.

    Args:
        honest: groups that play honestly, with the same purses: what profits are compared with.
    """

    def __init__(self, scenario: Scenario, seed: int, honest: Collection[int] = ()) -> None:
        self._terms = terms = scenario.market
        self._scenario = scenario
        self._honest = honest
        self.dice = random.Random(seed)  # noqa: S311 - a seeded generator is the point of it
        self._seed = keccak(b"market" + seed.to_bytes(8))
        self.steps = terms.steps
        self.used = max(1, round(terms.steps * terms.used))
        self.segment_s = max(1, terms.work_s // terms.segments)
        self._filled = min(1.0, terms.slack / terms.uneven)
        self._weights = _weights(terms.segments, terms.uneven)
        self._price = round(terms.price_tokens * WEI_PER_TOKEN)
        self._treasury, self.relay, self.delegators = named("treasury"), named("relay"), named("delegators")
        at = Addresses(**{field: named(field) for field in Addresses.__struct_fields__})
        self.chain = TwinChain(31415, at, self._treasury, scenario.rules.rules())
        self.books = Books(self.chain, self._treasury)
        self.network = Network(self.chain, self.books, BEGIN_S, self._watch, self._beacon)
        self._trace = keccak(self._seed)
        self._owner: dict[Address, Operator] = {}
        self.operators: list[Operator] = []
        self._seated: list[events.Event] = []
        """what the chain said as validators took their seats"""
        self._specs = [self._spec(n) for n in range(CATALOGUE)]
        self._arrays = [JobArray(spec).canonical() for spec in self._specs]
        self._offers = {price: self._offer(price) for price in (self._price, self._price // CHEAP)}
        self.worked = self.rerun = 0
        self._false = self._count = self._accusations = 0
        self._reasons: dict[str, int] = {}
        self._convicted: Lease | None = None
        self._bribers: set[int] = set()
        self._drawn_epoch = -1
        self._lazy: set[Address] = set()
        self._populate()

    # --- what is traded ---

    def _spec(self, seed: int) -> JobSpec:
        terms = self._terms
        return JobSpec(
            name="hashes",
            check="wasm",
            image=Image("wasm", keccak(b"module")),
            resources=Resources(time_s=terms.work_s),
            seed=seed,
            segments=terms.segments,
            fuel=terms.segments * terms.steps,
        )

    def _offer(self, price: int) -> bytes:
        tariff = Tariff(giga_fuel_wei=price * GIGA // (self._terms.segments * self._terms.steps))
        return canonical.encode(Offer(provider="", tariff=tariff))

    # --- who is there ---

    def _populate(self) -> None:
        terms, net = self._terms, self.network
        self._must(calls.Approve(self.chain.world.addresses.leases, _MOST), self._treasury)
        self._must(calls.Approve(self.chain.world.addresses.delegations, _MOST), self.delegators)
        self._must(calls.Register(Role.GATEWAY, ZERO_DIGEST), self.relay)
        stake = round(terms.validator_stake_tokens * WEI_PER_TOKEN)
        seats = [named(f"seat {n}") for n in range(terms.validators)]
        free = iter(seats)
        for number, group in enumerate(self._scenario.groups):
            kind = STRATEGIES[group.strategy]
            strategy = (Honest if number in self._honest else kind)(group)
            if isinstance(strategy, BeaconBriber):
                self._bribers.add(number)
            ring = [next(free) for _ in range(round(group.corrupt * terms.validators))]
            made = [Operator(number, strategy) for _ in range(group.operators)]
            for n, operator in enumerate(made):
                name = f"{number} {n}"
                if kind.role == "auditor":
                    operator.auditors.append(next(free))
                    continue
                own = terms.stake if group.stake is None else group.stake
                identities = strategy.identities if kind.role == "provider" else 1
                wei = round(own * self._price) // identities
                for one in range(identities):
                    operator.providers.append(
                        self._provider(f"provider {name} {one}", operator, wei, terms.history)
                    )
                operator.customer = self._customer(f"customer {name}", operator, self._price)
                if kind.role == "requester":
                    operator.requesters.append(operator.customer.address)
                elif kind.deals_itself is not Honest.deals_itself:
                    operator.own = self._customer(f"own {name}", operator, self._price // CHEAP)
                    operator.requesters.append(operator.own.address)
            if ring:
                # A ring has one purse: it is its first operator's.
                made[0].auditors.extend(ring)
            self.operators.extend(made)
        for seat in free:
            self.operators.append(Operator(-1, Honest(Options()), auditors=[seat]))
        for operator in self.operators:
            for who in operator.auditors:
                self._owner[who] = operator
        for seat in seats:
            self._validator(seat, self._owner[seat], stake)
        for operator in self.operators:
            for who in (*operator.providers, *operator.auditors, *operator.requesters):
                self._owner[who] = operator
            operator.began_with = self._wealth(operator)
        net.settled()

    def _must(self, call: calls.Call, sender: Address) -> tuple[events.Event, ...]:
        return self.network.must(call, sender)

    def _customer(self, name: str, operator: Operator, price: int) -> Customer:
        who = named(name)
        purse = 2 * self._terms.leases * price
        self._must(calls.Transfer(who, purse), self._treasury)
        self._must(calls.Approve(self.chain.world.addresses.leases, _MOST), who)
        nodes = [(self._node(it), self._offers[price]) for it in operator.providers]
        customer = self.network.players[who] = Customer(self, who, operator, nodes)
        return customer

    def _node(self, who: Address) -> Node:
        player = self.network.players[who]
        assert isinstance(player, Node)
        return player

    def _provider(self, name: str, operator: Operator, stake: int, history: int) -> Address:
        who = named(name)
        self._must(calls.Transfer(who, stake), self._treasury)
        self._must(calls.Approve(self.chain.world.addresses.registry, _MOST), who)
        self._must(calls.Register(Role.PROVIDER, ZERO_DIGEST), who)
        if stake:
            self._must(calls.Bond(stake), who)
        if history:
            self.chain.world.store.put(("valid_in_a_row", who), history)
        self.network.players[who] = Node(self, who, operator)
        return who

    def _validator(self, who: Address, operator: Operator, stake: int) -> None:
        at = self.chain.world.addresses
        self._must(calls.Transfer(who, 10 * stake), self._treasury)
        for spender in (at.registry, at.audits, at.disputes):
            self._must(calls.Approve(spender, _MOST), who)
        self._must(calls.Register(Role.VALIDATOR, ZERO_DIGEST), who)
        self._must(calls.Bond(stake), who)
        if lent := round(self._terms.delegated * stake):
            if self._terms.commission:
                self._must(calls.AnnounceCommission(round(10_000 * self._terms.commission)), who)
            self._must(calls.Transfer(self.delegators, lent), self._treasury)
            self._must(calls.DelegateStake(who, lent), self.delegators)
        player = self.network.players[who] = Auditor(self, who, operator)
        for event in self._seated:
            player.hear(event)
        self.network.auditors.append(player)
        seated = self._must(calls.Enlist(), who)
        self._seated += seated
        for event in seated:
            for auditor in self.network.auditors:
                auditor.hear(event)

    def _wealth(self, operator: Operator) -> int:
        total = 0
        # A griefer's provider is its victim, with a purse of its own.
        is_requester = operator.customer is not None and operator.customer.address in operator.requesters
        own = operator.requesters if is_requester else (*operator.providers, *operator.requesters)
        for who in (*own, *operator.auditors):
            participant = self.chain.registry.participant(who)
            total += self.chain.token.balance(who) + participant.stake + participant.unbonding
            if not participant.barred:
                total += self.chain.leases.vested(who).amount
        return total

    def operator_of(self, who: Address) -> Operator:
        return self._owner[who]

    def are_friends(self, one: Operator, other: Operator) -> bool:
        return one is other or (one.group >= 0 and one.group == other.group)

    def is_ally(self, operator: Operator, lease: Lease) -> bool:
        accuser = self.chain.disputes.dispute(lease.id).accuser
        return accuser in self._owner and self.are_friends(operator, self._owner[accuser])

    @property
    def bait_ppm(self) -> int:
        return round(self._scenario.traps * 1_000_000)

    @property
    def bait_key(self) -> bytes:
        return keccak(b"bait" + self._seed)

    # --- a run ---

    def run(self) -> Outcome:
        """Until every lease is closed.

        Raises:
            NotConserved: money appeared or vanished.
        """
        for operator in self.operators:
            if operator.providers:
                spread_s = self._terms.spread_s or self._terms.work_s
                begin_s = BEGIN_S + 1 + self.dice.randrange(spread_s)
                for _ in range(self._terms.parallel):
                    self.network.at(begin_s, self._order, operator)
        self.network.run()
        assert not self.network.leases, "every lease was closed"
        self.books.audit()
        return self._outcome()

    def _order(self, operator: Operator) -> None:
        if operator.leases >= self._terms.leases:
            return
        nth, operator.leases = operator.leases, operator.leases + 1
        mine = operator.own is not None and operator.strategy.deals_itself(nth)
        customer = operator.own if mine else operator.customer
        assert customer is not None
        self._count += 1
        array = self.dice.choice(self._arrays)
        customer.hear(Ask("", ZERO_DIGEST, array, Wishes(), Digest(self._count.to_bytes(32))))

    def work_on(self, node: Node, lease: Lease, raw: bytes, bait: Bait | None) -> None:
        """A provider's performer: what comes of it, when, and at what cost."""
        operator, segments = node.operator, self._terms.segments
        used = (self.used,) * segments
        units, takes_s, cost = used, self._terms.work_s, lease.cost
        if bait is not None:
            # Its first segment is run, and with that it is there; the book waits until work would be.
            lease.states, takes_s, cost = work.baited(raw, bait), self.segment_s, self.cost_of(lease, (1,))
            for late_s in (bait.run_s, bait.run_s + 2):
                self.network.wake(node, self.network.now_s + late_s)
        else:
            made_up = operator.strategy.skips(lease.nth, segments, self.dice)
            lease.states = work.skipped(raw, segments, made_up) if made_up else work.done(raw, segments)
            units = operator.strategy.meters(used, self.steps)
            lease.is_wrong = bool(made_up) or units != used or not operator.strategy.hands_over()
            takes_s = 1 if operator.strategy.hurries() else takes_s
            cost = self.cost_of(lease, [j for j in range(1, segments + 1) if j not in made_up])
        lease.meters = tuple(accumulate(units, initial=0))
        done = Performed(lease.id, lease.states, units, lease.states[-1], 0, "")
        self.network.at(self.network.now_s + takes_s, self._performed, node, lease, done, cost)

    def cost_of(self, lease: Lease, segments: Collection[int]) -> int:
        """What running these segments (from 1) of a lease costs."""
        return lease.cost * sum(self._weights[j - 1] for j in segments) // sum(self._weights)

    def _performed(self, node: Node, lease: Lease, done: Performed, cost: int) -> None:
        if lease.is_closed:
            return
        if not (
            node.operator.customer is not None and node.operator.customer.address in node.operator.requesters
        ):
            node.operator.spent += cost
        self.worked += cost
        if lease.is_wrong:
            node.operator.wrong += 1
            lease.wrong_nth = node.operator.wrong
        node.hear(done)

    # --- what the chain says ---

    def _watch(self, event: events.Event) -> None:
        match event:
            case events.LeaseOpened():
                self._opened(event)
            case events.LeaseAccepted(lease_id):
                self._accepted(self.network.leases[lease_id])
            case events.LeaseCommitted(lease_id):
                lease = self.network.leases[lease_id]
                lease.committed_s = self.network.now_s
                self._next_of(lease)
            case events.LeaseDrawn(lease_id, _, _, segment):
                lease = self.network.leases[lease_id]
                lease.segment = segment
                lease.operator.drawn += lease.is_wrong and event.audited
            case events.TrapSprung(_, lazy):
                self._lazy.add(lazy)
            case events.DisputeOpened(lease_id):
                self._accusations += not self.network.leases[lease_id].is_wrong
            case events.BeaconRecorded():
                self._drawn_epoch = self.network.now_s // self.chain.world.rules.epoch_s
            case events.Slashed(owner):
                self._note_slashed(owner)
            case events.LeaseClosed(lease_id, reason, paid):
                self._note_closed(self.network.leases[lease_id], CloseReason(reason), paid)
            case _:
                pass

    def _opened(self, event: events.LeaseOpened) -> None:
        node = self._node(event.provider)
        operator = node.operator
        customer = self.network.players.get(event.requester)
        is_bait = isinstance(customer, Customer) and customer.has_planted(event.lease)
        nth, operator.opened = operator.opened, operator.opened + (not is_bait)
        node.open += 1
        lease = self.network.leases[event.lease] = Lease(
            event.lease,
            event.terms,
            operator,
            nth,
            round(event.terms.compensation_wei * self._terms.cost * self.used / self.steps * self._filled),
            node,
            customer if isinstance(customer, Customer) else None,
        )
        lease.is_bait = is_bait

    def _accepted(self, lease: Lease) -> None:
        lease.accepted_s = self.network.now_s
        customer = lease.customer
        if customer is None or not customer.operator.requesters or lease.is_bait:
            return
        after = customer.operator.strategy.cancels(lease.nth)
        if after is not None:
            found = customer.machine.slot_of(lease.id)
            at_s = self.network.now_s + int(after * self._terms.work_s)
            self.network.at(at_s, customer.hear, Cancel(found[0].id))

    def _next_of(self, lease: Lease) -> None:
        if lease.customer is not None and not lease.is_bait:
            self.network.at(self.network.now_s + self._terms.pause_s, self._order, lease.operator)

    # --- a beacon for which somebody pays ---

    def _beacon(self, block: int, epoch: int) -> bytes:
        """A block's randomness. Where a beacon is recorded from it, a briber may have had two to choose from."""
        drawn = keccak(self._seed + block.to_bytes(8))
        if not self._bribers or epoch == self._drawn_epoch:
            return drawn
        for group in self._bribers:
            lot = int.from_bytes(keccak(b"bribe" + self._seed + epoch.to_bytes(8) + bytes([group]))[:8])
            if lot % self._scenario.groups[group].bribed == 0:
                drawn = min(drawn, keccak(drawn), key=lambda it: self._caught(group, block, it))
        return drawn

    def _caught(self, group: int, block: int, randomness: bytes) -> int:
        """How many of a group's wrong leases this randomness would have audited where they are wrong: the chain is asked."""
        context = BlockContext(block, self.network.now_s, randomness)
        mark, caught = self.chain.mark(), 0
        self.chain.execute(calls.Tick(), self._treasury, context)
        for lease in self.network.leases.values():
            if lease.operator.group == group and lease.is_wrong and lease.committed_s and not lease.segment:
                found = self.chain.execute(calls.DrawLease(lease.id), self._treasury, context)
                if not isinstance(found, Refused):
                    caught += any(isinstance(it, events.LeaseDrawn) and it.audited for it in found)
        self.chain.rollback(mark)
        return caught

    # --- its end ---

    def _note_slashed(self, owner: Address) -> None:
        operator, lease = self._owner[owner], self._convicted
        assert lease is not None, "a conviction closes a lease first"
        operator.slashed += 1
        if owner in self._lazy:
            # A digest convicts it, so nobody else can fall in.
            self._false += type(operator.strategy) is Honest
            return
        self._false += operator.wrong == 0
        operator.fell = [*operator.fell, (lease.wrong_nth, self.network.now_s - lease.committed_s)]

    def _note_closed(self, lease: Lease, reason: CloseReason, paid: int) -> None:
        lease.node.open -= 1
        self._convicted = lease
        self._reasons[reason.name] = self._reasons.get(reason.name, 0) + 1
        now_s = self.network.now_s
        self._trace = keccak(self._trace + lease.id + bytes([reason]) + now_s.to_bytes(5))
        if not lease.committed_s and lease.customer is not None:
            self._next_of(lease)
        if lease.is_bait:
            return
        if reason is CloseReason.CANCELLED and lease.customer is not None:
            operator = lease.customer.operator
            operator.cancelled += 1
            done = lease.cost * min(now_s - lease.accepted_s, self._terms.work_s) // self._terms.work_s
            operator.victims += paid - done
        if reason is not CloseReason.COMPLETED or lease.customer is None:
            return
        operator = lease.operator
        if lease.is_wrong:
            gain = self._scenario.groups[operator.group].gain
            operator.gained += round(gain * lease.terms.compensation_wei)
        if lease.customer.address in operator.requesters and lease.customer is operator.customer:
            operator.gained += round(self._terms.value * lease.terms.compensation_wei)

    def _outcome(self) -> Outcome:
        groups = range(len(self._scenario.groups))
        of: list[list[Operator]] = [[] for _ in groups]
        for it in self.operators:
            if it.group >= 0:
                of[it.group].append(it)
        profits = tuple(
            tuple(self._wealth(it) - it.began_with - it.spent + it.gained for it in group) for group in of
        )
        return Outcome(
            profits=profits,
            worked=self.worked,
            rerun=self.rerun,
            reasons=dict(sorted(self._reasons.items())),
            accusations=self._accusations,
            false_slashes=self._false,
            fell=tuple(tuple(it for operator in group for it in operator.fell) for group in of),
            drawn=tuple(sum(it.drawn for it in group) for group in of),
            slashed=tuple(sum(it.slashed for it in group) for group in of),
            shared=self.books.shared,
            cancelled=tuple(sum(it.cancelled for it in group) for group in of),
            victims=tuple(sum(it.victims for it in group) for group in of),
            leases=self._count,
            calls=self.network.calls,
            steps=self.network.steps,
            digest=keccak(self._trace + repr(profits).encode()).hex(),
        )


def _weights(segments: int, uneven: float) -> tuple[int, ...]:
    """What each segment costs, beside the others."""
    heavy = work.heavy(segments)
    rest = max(0.0, segments - uneven * len(heavy)) / max(1, segments - len(heavy))
    return tuple(round(10**6 * (uneven if j in heavy else rest)) for j in range(1, segments + 1))
