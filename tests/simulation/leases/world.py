"""Leases in virtual time: real books and auditors over the contracts' twins, with crashes between any two effects.

One second a turn: machines tick, what they submitted is mined into a block, its events and the frames of the turn before are
delivered. A process that crashes loses what wasn't saved, reads the chain from its first block, and goes on.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from clusterai.audit.core.segments import Opening, is_opened
from clusterai.gateway.core import jobstate
from clusterai.gateway.core.book import Book
from clusterai.gateway.core.jobdesk import JobDesk
from clusterai.gateway.core.jobstate import DeskTerms
from clusterai.gateway.core.tabs import ChargeTab, CloseTab, OpenTab, TabCharged
from clusterai.ledger.artifacts import load
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.rules import LOCAL, AuditRules, DeliveryRules, DisputeRules, Rules
from clusterai.ledger.core.twin import BlockContext, Refused, TwinChain
from clusterai.market.core.directory import Directory
from clusterai.node.core import jobdefence, joblease, jobshowing
from clusterai.node.core.jobbook import JobBook
from clusterai.node.core.joblease import JobTerms, Performed
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.jobs import (
    AskContent,
    Bait,
    ContentMissing,
    LeaseRefused,
    Lends,
    Segment,
    SegmentServed,
    StartLease,
)
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import (
    CloseReason,
    Terms,
    earned_wei,
    hidden_state,
    is_bait,
    leases_domain,
    segment_result,
    trap_digest,
    trap_nonce,
)
from clusterai.protocol.messages import Relay
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import network_domain
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick
from clusterai.validator.core import jobcase
from clusterai.validator.core.jobauditor import AuditSettings, JobAuditor
from clusterai.validator.core.jobcase import Began, Reran, Rerun, Retrace, Retraced
from clusterai.validator.core.jobdelivery import Collect, Collected, Drop, Pass
from clusterai.validator.core.passing import Hand
from clusterai.work.batch.core.plan import Offer
from clusterai.work.batch.core.prices import billable_wei
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import JobArray, JobSpec, decode_spec
from clusterai.work.leased import LeasedKind

CHAIN_ID = 31415
RULES = msgspec.structs.replace(
    LOCAL,
    audits=AuditRules(bond_wei=500),
    disputes=DisputeRules(bond_wei=700),
    deliveries=DeliveryRules(bond_wei=300),
)
PROVIDER, GATEWAY, VALIDATOR = 1, 2, 4
STAKE = 100_000
FUNDS = 10_000_000
SEGMENTS = 4
CREDIT = 1_000_000
UNITS = 700
"""of fuel, and so steps of a dispute, in a segment"""
MOST = 2**256 - 1


def key(name: str) -> Key:
    return Key(keccak(name.encode()))


DEPLOYER = key("deployer")
PLAN = local_plan(load, DEPLOYER.address, RULES)
AT = PLAN.addresses
LEASES = leases_domain(CHAIN_ID, AT.leases)
NETWORK = network_domain(CHAIN_ID, AT.registry)


# --- the work: a chain of hashes ---


def state(spec: bytes, segment: int) -> Digest:
    """The right state of a job after so many segments."""
    return Digest(keccak(b"state" + spec + segment.to_bytes(4)))


def honest(spec: bytes) -> list[Digest]:
    return [state(spec, segment) for segment in range(SEGMENTS + 1)]


def skipper(spec: bytes) -> list[Digest]:
    """Does nothing and makes all states up but the first, which everyone knows."""
    return [state(spec, 0), *(Digest(keccak(b"made up" + bytes([n]))) for n in range(SEGMENTS))]


def inside(start: bytes, end: Digest, point: int) -> Digest:
    """The state so many units into a segment, as somebody who came from `start` to `end` has it."""
    if point in (0, UNITS):
        return end if point else Digest(start)
    return Digest(keccak(b"inside" + start + end + point.to_bytes(4)))


KIND = LeasedKind(
    name="hashes",
    decode=lambda raw: raw,
    differs=lambda spec, terms: None if terms.spec == keccak(spec) else "another spec",
    billable_wei=lambda spec, compensation, units: earned_wei(compensation, units, SEGMENTS * UNITS),
)


def _differs(spec: JobSpec, terms: Terms) -> str | None:
    return None if terms.spec == spec.digest() else "another spec"


BATCH = LeasedKind(name="batch", decode=decode_spec, differs=_differs, billable_wei=billable_wei)


class Process:
    """One machine with its journal; `hear` steps it and hands its effects to the world, unless it dies between two."""

    def __init__(self, world: "World", name: str, make: Callable[[], Any]) -> None:
        self.world = world
        self.name = name
        self.owner = key(name).address
        self.hot = key(name + " hot")
        self._make = make
        self.journal: list[bytes] = []
        self.machine: Any = make()
        self.crashes = 0

    def hear(self, event: Any) -> None:
        for effect in self.machine.step(event, self.world.now_s):
            if self.world.dies():
                self.restart()
                return
            if isinstance(effect, Save):
                self.journal.append(canonical.encode(effect.record))
            else:
                self.world.perform(self, effect)

    def restart(self) -> None:
        self.crashes += 1
        self.machine = self._make()
        decoder = msgspec.msgpack.Decoder(self.machine.RECORDS)
        self.machine.restore(decoder.decode(record) for record in self.journal)
        for event in self.world.history:
            # What happened while it read the chain is not acted on twice: submits it had made stand under their keys.
            for effect in self.machine.step(event, self.world.now_s):
                if isinstance(effect, Save):
                    self.journal.append(canonical.encode(effect.record))
                else:
                    self.world.perform(self, effect)
        self.hear(Started())
        self.world.link(self)


class World:
    """A gateway that leases, providers that perform, validators that audit."""

    def __init__(
        self,
        seed: int,
        providers: dict[str, Callable[[bytes], list[Digest]]],
        validators: tuple[str, ...] = ("val", "vic", "vow"),
        crash: float = 0.0,
        loss: float = 0.0,
        serves: Callable[[str], bool] = lambda _: True,
        shows: Callable[[str], bool] = lambda _: True,
        feeds: Callable[[str, str], bool] = lambda source, to: True,
        passes: Callable[[str, bytes], bytes | None] = lambda member, shown: shown,
        takes_s: int = 0,
        hands: Callable[[str, str], bool] = lambda provider, to: True,
        lists: Callable[[list[Digest]], Digest] = lambda states: states[-1],
        computes: Callable[[str, bytes, int], Digest] = lambda _, spec, segment: state(spec, segment),
        rules: Rules = RULES,
        desk: bool = False,
        within: Callable[[bytes, Digest, int], Digest] = inside,
        breaks: Callable[[str], bool] = lambda _: False,
        copies: Callable[[str], bool] = lambda _: False,
        lets: Callable[[str, Any], bool] = lambda name, call: True,
        bait_ppm: int = 0,
        takes_bait: bool = True,
    ) -> None:
        """
        Args:
            serves: whether this provider serves states to be run from.
            shows: whether this validator is served any.
            feeds: whether a provider or a member that shows this validator how a segment begins hands over what that names as well.
            passes: what this member of the panel shows another one of what it was served.
            takes_s: what running a segment again takes a validator.
            within: the state so many units into a segment, as somebody who came from its start to its end has it.
            breaks: whether this one's machine fails at running a segment again.
            copies: whether this auditor says what its provider claims, instead of running what it was served.
            lets: whether this one's call is heard of.
        """
        self.random = random.Random(seed)
        self.now_s = 1_700_000_010.0
        self.block = 0
        self.chain = TwinChain(CHAIN_ID, AT, DEPLOYER.address, rules)
        self.history: list[Any] = []
        self.crash, self.loss = crash, loss
        self._hands, self._lists = hands, lists
        """whether a provider hands its outputs to somebody; what it commits to as their listing: the last state's own is right"""
        self._shows, self._feeds, self._passes = shows, feeds, passes
        self._takes_s = takes_s
        self._running: list[tuple[float, Process, Any]] = []
        self._serves, self._computes, self._performs = serves, computes, providers
        self._within, self._breaks = within, breaks
        self._copies, self._lets, self._takes_bait = copies, lets, takes_bait
        self._calls: deque[tuple[Process | None, str, Any, Address]] = deque()
        self._frames: deque[tuple[Process, Any]] = deque()
        self._later: deque[tuple[Process, Any]] = deque()
        self.specs: dict[Digest, bytes] = {}
        self.terms: dict[Digest, Terms] = {}
        self.baits: dict[Digest, Bait] = {}
        self.refusals: list[LeaseRefused] = []
        self.closed: dict[Digest, events.LeaseClosed] = {}
        self.slashed: list[Address] = []
        self._refused: set[Digest] = set()
        self.gateway = key("gate")
        self.till = Book(self.gateway.address, lambda config: ZERO_DIGEST, RULES.window_s)
        """where the accounts' money is; its journal never fails here"""
        self.till.account(ZERO_DIGEST).funded_wei = CREDIT
        self.charged: dict[tuple[Digest, Digest], int] = {}
        self.answers: list[tuple[Digest | None, str]] = []
        self.ended: set[Digest] = set()
        self.desk: Process | None = None
        self._names = {key(name).address: name for name in ("gate", *providers, *validators)}
        self._populate([*providers], validators)
        self.books = {name: self._book(name) for name in providers}
        self.auditors = {name: self._auditor(name) for name in validators}
        if desk:
            terms = DeskTerms(
                self.gateway.address,
                LEASES,
                AT.leases,
                RULES.window_s,
                deliveries=AT.deliveries,
                bait_ppm=bait_ppm,
                bait_spread_s=5,
                bait_key=b"bait %d" % seed,
            )
            self.desk = Process(self, "gate", lambda: JobDesk(terms, Directory(), lambda _: 0))
        self._told = len(self.history)
        for process in self.processes:
            for event in self.history:
                process.hear(event)
            process.hear(Started())
            self.link(process)

    @property
    def processes(self) -> list[Process]:
        desk = [self.desk] if self.desk is not None else []
        return [*self.books.values(), *self.auditors.values(), *desk]

    def link(self, process: Process) -> None:
        """Everyone is linked to the gateway; providers tell it what they lend."""
        if process is not self.desk:
            process.hear(Linked(self.gateway.address))
            return
        for auditor in self.auditors.values():
            process.hear(Linked(auditor.owner))
        for book in self.books.values():
            process.hear(Linked(book.owner))
            offer = canonical.encode(Offer(provider="", bases=(("python", b"\x07" * 32),)))
            process.hear(Received(book.owner, Lends("batch", offer, 0, 0)))

    def _book(self, name: str) -> Process:
        terms = JobTerms(
            me=key(name).address,
            leases=LEASES,
            network=NETWORK,
            window_s=RULES.window_s,
            recover=recover,
            fits=lambda kind, spec, terms, running: None,
            takes_bait=self._takes_bait,
        )
        return Process(self, name, lambda: JobBook(terms, Directory(), {"hashes": KIND, "batch": BATCH}))

    def _auditor(self, name: str) -> Process:
        hot = key(name + " hot")
        settings = AuditSettings(
            me=key(name).address,
            at=AT.audits,
            network=NETWORK,
            seal_to=bytes(32),
            sign=hot.sign,
            secret_salt=lambda lease: Digest(keccak(hot.secret() + lease)),
            recover=recover,
            disputes=AT.disputes,
        )
        return Process(self, name, lambda: JobAuditor(settings, Directory()))

    # --- the chain ---

    def _populate(self, providers: list[str], validators: tuple[str, ...]) -> None:
        roles = {
            "gate": GATEWAY,
            **dict.fromkeys(providers, PROVIDER),
            **dict.fromkeys(validators, VALIDATOR),
        }
        for name, role in roles.items():
            owner, hot = key(name), key(name + " hot")
            for who in (owner, hot):
                self.must(calls.Transfer(who.address, FUNDS), DEPLOYER.address)
                for spender in (AT.registry, AT.leases, AT.audits):
                    self.must(calls.Approve(spender, MOST), who.address)
            self.must(calls.Register(role, ZERO_DIGEST), owner.address)
            self.must(calls.delegate(owner.address, hot.address, hot.sign, NETWORK), owner.address)
            if role != GATEWAY:
                self.must(calls.Bond(STAKE), owner.address)
        self._close_block()

    def must(self, call: Any, sender: Address) -> None:
        found = self.execute(call, sender)
        assert not isinstance(found, Refused), f"{call}: {found.reason}"

    def execute(self, call: Any, sender: Address) -> Any:
        context = BlockContext(self.block, int(self.now_s), keccak(b"beacon" + self.block.to_bytes(8)))
        found = self.chain.execute(call, sender, context)
        if not isinstance(found, Refused):
            for event in found:
                self.history.append(event)
                self._note(event)
        return found

    def _note(self, event: Any) -> None:
        match event:
            case events.LeaseClosed(lease):
                assert lease not in self.closed, "a lease is closed once"
                self.closed[lease] = event
            case events.Slashed(owner):
                self.slashed.append(owner)
            case _:
                pass

    def _close_block(self) -> list[Any]:
        self.history.append(events.Block(self.block, int(self.now_s)))
        self.block += 1
        return self.history

    # --- what machines want ---

    def dies(self) -> bool:
        return self.random.random() < self.crash

    def perform(self, process: Process, effect: Any) -> None:
        match effect:
            case Submit(name, call) if not self._lets(process.name, call):
                self._later.append((process, Reverted(name, "nobody heard of it")))
            case Submit(name, call):
                if not any(it[0] is process and it[1] == name for it in self._calls):
                    self._calls.append((process, name, call, process.hot.address))
            case Send(_, Relay(_, to, body)):
                if self.random.random() >= self.loss:
                    for other in self.processes:
                        if other.owner == to:
                            relay = Relay(process.owner, other.owner, body)
                            self._frames.append((other, Received(self.gateway.address, relay)))
            case Send(to, StartLease() as frame):
                if self.random.random() >= self.loss:
                    for book in self.books.values():
                        if book.owner == to:
                            self._frames.append((book, Received(process.owner, frame)))
            case Send(_, ContentMissing(lease)):
                assert self.desk is not None
                self._later.append((self.desk, jobstate.Fetched(Digest(lease), "missing", "not here")))
            case Send(_, frame):
                if isinstance(frame, LeaseRefused):
                    self._refused.add(Digest(frame.lease))
                    self.refusals.append(frame)
                if self.desk is not None and self.random.random() >= self.loss:
                    self._frames.append((self.desk, Received(process.owner, frame)))
            case joblease.Perform(lease, _, _, spec, _, Bait() as bait):
                raw = spec if isinstance(spec, bytes) else spec.canonical()
                each = UNITS if isinstance(spec, bytes) else 1
                states = self._bait(raw, bait)
                done = Performed(lease, states, (each,) * bait.segments, states[-1], 0, "")
                self._later.append((process, done))
            case joblease.Perform(lease, _, _, spec):
                raw = spec if isinstance(spec, bytes) else spec.canonical()
                count = SEGMENTS if isinstance(spec, bytes) else spec.segments
                states = self._performs[process.name](raw)[: count + 1]
                each = UNITS if isinstance(spec, bytes) else 1
                done = Performed(lease, tuple(states), (each,) * count, self._lists(states), 0, "")
                self._later.append((process, done))
            case jobshowing.Serve(_, ask, units, proof):
                self._serve(process, ask, units, proof)
            case jobdefence.Retrace(lease, _, raw, segment, start, _, points):
                end = self._performs[process.name](raw)[segment]
                found = tuple(self._within(start, end, point) for point in points)
                if self._breaks(process.name):
                    found = None
                self._later.append((process, jobdefence.Retraced(lease, points, found)))
            case Retrace(wanted, _, points):
                starved = Retraced(wanted.lease, points, None, "it didn't come")
                done = self._retrace(process, wanted, points) if self._fed(process, wanted) else starved
                self._run(process, wanted, done)
            case Rerun():
                starved = Reran(effect.lease, effect.segment, None, "it didn't come")
                done = self._rerun(process, effect) if self._fed(process, effect) else starved
                self._run(process, effect, done)
            case Hand(gateway, ask, sealed):
                if (shown := self._passes(process.name, sealed)) is not None:
                    body = canonical.encode(SegmentServed(ask.lease, ask.segment, shown))
                    self.perform(process, Send(gateway, Relay(ZERO_ADDRESS, ask.validator, body)))
            case OpenTab() | ChargeTab() | CloseTab():
                record, answer = self.till.tabs.asked(effect, self.till)
                if record is not None:
                    self.till.apply(record)
                if isinstance(record, TabCharged):
                    self.charged[Digest(record.tab), Digest(record.item)] = record.cost_wei
                if answer is not None:
                    self._later.append((process, answer))
            case jobstate.Fetch():
                self._fetch(process, effect)
            case Collect():
                self._later.append((process, self._collect(process, effect)))
            case Pass(_, ask):
                assert self.desk is not None
                self._later.append((self.desk, jobstate.Fetched(Digest(ask.lease))))
            case jobstate.Answer(_, job, refusal):
                self.answers.append((job, refusal))
            case jobstate.Note(job, kind):
                if kind == "end":
                    self.ended.add(job)
            case jobstate.Forgotten() | joblease.Discard() | joblease.Halt() | jobcase.Told() | Drop():
                pass
            case _:
                raise AssertionError(f"nobody performs {effect!r}")

    def _fed(self, process: Process, wanted: Rerun) -> bool:
        return self._feeds(self._name(wanted.source), process.name)

    def _run(self, process: Process, wanted: Rerun, done: Reran | Retraced) -> None:
        if not self._fed(process, wanted):
            self._running.append((self.now_s + 10, process, done))
            return
        self._later.append((process, Began(wanted.lease)))
        if self._takes_s:
            self._running.append((self.now_s + self._takes_s, process, done))
        else:
            self._later.append((process, done))

    @staticmethod
    def _bait(raw: bytes, bait: Bait) -> tuple[Digest, ...]:
        """The job's own beginning, bait, and between bait something to run."""
        secret = Digest(bait.secret)
        return (
            state(raw, 0),
            *(
                trap_digest(secret, n)
                if is_bait(secret, n, bait.segments)
                else Digest(keccak(b"lure" + secret + n.to_bytes(4)))
                for n in range(1, bait.segments + 1)
            ),
        )

    def _name(self, owner: bytes) -> str:
        return self._names[Address(owner)]

    def _fetch(self, process: Process, wanted: jobstate.Fetch) -> None:
        """From the provider, or from a member that has it."""
        lease, source = wanted.lease, self._name(wanted.source)
        if source in self.auditors:
            ask = AskContent(lease, wanted.output, 0)
            self._frames.append((self.auditors[source], Received(self.gateway.address, ask)))
        elif not self._hands(source, "gate"):
            self._later.append((process, jobstate.Fetched(lease, "missing", "it isn't there")))
        elif hidden_state(wanted.output) != wanted.last:
            self._later.append((process, jobstate.Fetched(lease, "differs", "another listing")))
        else:
            self._later.append((process, jobstate.Fetched(lease)))

    def _collect(self, process: Process, wanted: Collect) -> Collected:
        served = canonical.decode(wanted.sealed, Segment)
        assert hidden_state(Digest(served.state)) == wanted.last
        if not self._hands(self._name(wanted.provider), process.name):
            return Collected(wanted.lease, "missing", "it isn't there")
        verdict = "had" if hidden_state(wanted.output) == wanted.last else "differs"
        return Collected(wanted.lease, verdict, "", served.spec)

    def _serve(self, process: Process, ask: Any, units: int, proof: tuple[Digest, ...]) -> None:
        if not self._serves(process.name) or not self._shows(self._name(ask.validator)):
            return
        lease = process.machine.leases[Digest(ask.lease)]
        before = lease.done.states[ask.segment - 1]
        start = joblease.committed(lease.done).open(0)
        sealed = canonical.encode(Segment(lease.raw, start.state, start.proof, before, units, proof))
        body = canonical.encode(SegmentServed(ask.lease, ask.segment, sealed))
        self.perform(process, Send(self.gateway.address, Relay(ZERO_ADDRESS, Address(ask.validator), body)))

    def _rerun(self, process: Process, wanted: Rerun) -> Reran:
        served = canonical.decode(wanted.sealed, Segment)
        end, why = self._ends(process, wanted)
        if self._copies(process.name):
            done = self.books[self._name(wanted.provider)].machine.leases[wanted.lease].done
            units = sum(done.units[: wanted.segment])
            leaked = segment_result(done.states[wanted.segment], units)
            return Reran(wanted.lease, wanted.segment, leaked, "")
        each = UNITS if wanted.lease in self.specs else 1
        result = None if end is None else segment_result(end, served.units + each)
        return Reran(wanted.lease, wanted.segment, result, why)

    def _retrace(self, process: Process, wanted: Rerun, points: tuple[int, ...]) -> Retraced:
        start = canonical.decode(wanted.sealed, Segment).state
        (end, why), result = self._ends(process, wanted), self._rerun(process, wanted).result
        broke = self._breaks(process.name)
        if end is None or result is None or broke:
            return Retraced(wanted.lease, points, None, why, broke)
        found = tuple(result if point == UNITS else self._within(start, end, point) for point in points)
        return Retraced(wanted.lease, points, found, "")

    def _ends(self, process: Process, wanted: Rerun) -> tuple[Digest | None, str]:
        """The state behind the segment, as this auditor has it."""
        served = canonical.decode(wanted.sealed, Segment)
        opening = Opening(
            wanted.segment - 1, Digest(served.state), served.units, tuple(Digest(it) for it in served.proof)
        )
        if not is_opened(wanted.root, wanted.segments, opening):
            return None, "not the committed state"
        # A hash chain: from a made-up state one comes to a state that nobody else comes to either.
        if served.state == state(served.spec, wanted.segment - 1):
            return self._computes(process.name, served.spec, wanted.segment), ""
        return Digest(keccak(b"from nowhere" + served.state)), ""

    # --- time ---

    def lease(self, provider: str, name: str = "job", **changes: Any) -> Digest:
        """The gateway opens a lease and sends the work until the chain shows that it was accepted or closed."""
        spec = name.encode()
        terms = Terms(
            requester=self.gateway.address,
            provider=key(provider).address,
            spec=keccak(spec),
            resources=ZERO_DIGEST,
            input=ZERO_DIGEST,
            expected=ZERO_DIGEST,
            determinism=1,
            segments=SEGMENTS,
            units=SEGMENTS * UNITS,
            compensation_wei=2_800,
            audit_fee_wei=100,
            start_by_s=int(self.now_s) + 30,
            deadline_s=int(self.now_s) + 200,
            nonce=Digest(keccak(b"nonce" + spec)),
        )
        terms = msgspec.structs.replace(terms, **changes)
        self.must(calls.OpenLease(terms), key("gate hot").address)
        lease = terms.lease_id(LEASES)
        self.specs[lease], self.terms[lease] = spec, terms
        return lease

    def plant(self, provider: str, name: str = "bait", told: bytes = b"", **changes: Any) -> Digest:
        """The gateway opens a lease as bait, and tells its provider the secret, or another one."""
        secret = Digest(keccak(b"secret" + name.encode()))
        lease = self.lease(provider, name, nonce=trap_nonce(secret), **changes)
        self.baits[lease] = Bait(told or secret, SEGMENTS, 20)
        return lease

    def turn(self) -> None:
        """One second."""
        self.now_s += 1
        frames, self._frames = self._frames, deque()
        over = [(process, done) for at_s, process, done in self._running if at_s <= self.now_s]
        self._running = [one for one in self._running if one[0] > self.now_s]
        self._later += over
        later, self._later = self._later, deque()
        for lease, terms in self.terms.items():
            book = next((it for it in self.books.values() if it.owner == terms.provider), None)
            if book is not None and lease not in self.closed and self.random.random() >= self.loss:
                start = StartLease("hashes", terms, self.specs[lease], self.baits.get(lease))
                frames.append((book, Received(self.gateway.address, start)))
        for process, event in (*frames, *later):
            process.hear(event)
        for process in self.processes:
            process.hear(Tick())
        self._mine()

    def _mine(self) -> None:
        outcomes: list[tuple[Process, Any]] = []
        submitted, self._calls = self._calls, deque()
        for process, name, call, sender in submitted:
            found = self.execute(call, sender)
            assert process is not None
            if isinstance(found, Refused):
                outcomes.append((process, Reverted(name, found.reason)))
            else:
                outcomes.append((process, Mined(name, ZERO_DIGEST, self.block)))
        for lease, terms in self.terms.items():
            if lease not in self.closed and self.now_s > terms.deadline_s + 200:
                self.execute(calls.CloseLease(lease), key("gate hot").address)
        self._close_block()
        new, self._told = self.history[self._told :], len(self.history)
        for process in self.processes:
            at = process.crashes
            for event in new:
                if process.crashes == at:
                    process.hear(event)
        for process, outcome in outcomes:
            process.hear(outcome)

    def submit(self, array: JobArray, wishes: Wishes | None = None, nonce: bytes = b"n") -> None:
        """Somebody asks the desk for a job."""
        assert self.desk is not None
        wanted = wishes or Wishes()
        self.desk.hear(jobstate.Ask("http", ZERO_DIGEST, array.canonical(), wanted, Digest(keccak(nonce))))

    def settle(self, seconds: int = 900) -> "World":
        """Until every job of the desk has ended."""
        for _ in range(seconds):
            self.turn()
            if self.desk is None:
                continue
            desk = self.desk.machine
            if all(job.ended for job in desk.jobs.values()) and not desk.planting.is_out:
                break
        return self

    def run(self, seconds: int = 600) -> "World":
        """Until all leases are closed, at most so long."""
        for _ in range(seconds):
            self.turn()
            if self.terms and all(lease in self.closed for lease in self.terms):
                break
        return self

    def reason(self, lease: Digest) -> CloseReason:
        return CloseReason(self.closed[lease].reason)

    @property
    def credit(self) -> int:
        """What the account that asks for jobs may still spend."""
        return self.till.credit_wei(ZERO_DIGEST)

    def balance(self, who: Address) -> int:
        return self.chain.token.balance(who)
