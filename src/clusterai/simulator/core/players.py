"""Machines as they are shipped, each with a performer whose work is a number, and with a strategy around it.

    event ──> machine.step ──> effects ──strategy.lets──> the network, or the performer ──strategy──> what came of it

The performer is what the daemons' adapters are: it does work (at a cost, in virtual time), seals and opens states, fetches
outputs. A machine that has nothing under way is put away and made anew when somebody speaks to it, as a daemon that
was restarted with an empty journal.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from clusterai.audit.core.segments import Opening, is_opened
from clusterai.gateway.core import jobstate
from clusterai.gateway.core.jobdesk import JobDesk
from clusterai.gateway.core.jobstate import DeskTerms
from clusterai.gateway.core.tabs import ChargeTab, CloseTab, ItemPaid, OpenTab, TabIs
from clusterai.ledger.core.calls import Mined, Submit
from clusterai.node.core import jobdefence, joblease, jobshowing
from clusterai.node.core.jobbook import JobBook
from clusterai.node.core.joblease import JobTerms
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.jobs import Lends, Segment, SegmentServed
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import segment_result
from clusterai.protocol.messages import Relay
from clusterai.runtime.machine import Linked, Received, Save, Send, Started
from clusterai.simulator.core import work
from clusterai.simulator.core.people import Lease, Operator
from clusterai.simulator.core.strategies import Case, Outputs
from clusterai.validator.core import jobauditor, jobcase
from clusterai.validator.core.jobauditor import AuditSettings, JobAuditor
from clusterai.validator.core.jobcase import Began, Reran, Rerun, Retrace, Retraced
from clusterai.validator.core.jobdelivery import Collect, Collected, Drop, Pass
from clusterai.validator.core.passing import Hand
from clusterai.work.batch.kind import BATCH

if TYPE_CHECKING:
    from clusterai.simulator.core.market import Market

KINDS = {"batch": msgspec.structs.replace(BATCH, decode=lru_cache(maxsize=256)(BATCH.decode))}
"""Everybody orders from one catalogue: equal bytes need reading once."""


def signed_by(who: Address) -> Callable[[Digest], bytes]:
    """Nobody forges signatures here, so they are cheap: the name of who signed."""
    signature = bytes(who).ljust(65, b"\0")
    return lambda digest: signature


def signer(digest: Digest, signature: bytes) -> Address:
    return Address(signature[:20])


class Player:
    """A machine, its owner, and what it wants of the world."""

    def __init__(self, market: "Market", address: Address, operator: Operator) -> None:
        self.market = market
        self.net = market.network
        self.address = address
        self.operator = operator
        self.machine: Any = None

    def hear(self, event: Any) -> None:
        machine = self.machine
        if machine is None:
            machine = self.machine = self._made()
        self.net.steps += 1
        for effect in machine.step(event, self.net.now_s):
            if isinstance(effect, Save):
                continue
            if isinstance(effect, Submit):
                if self._lets(effect):
                    self.net.submit(self, effect.key, effect.call, self.address)
            elif isinstance(effect, Send):
                self._send(effect)
            else:
                self._perform(effect)
        if self._is_idle():
            self.machine = None

    def _made(self) -> Any:
        """The machine, with what it has to know from before."""
        raise NotImplementedError

    def _is_idle(self) -> bool:
        return False

    def _lets(self, effect: Any) -> bool:
        return self.operator.strategy.lets(effect, False)

    def _send(self, effect: Send) -> None:
        if isinstance(effect.frame, Relay):
            frame = effect.frame
            self.net.send(Address(frame.to), effect.to, Relay(self.address, frame.to, frame.body))
        else:
            self.net.send(effect.to, self.address, effect.frame)

    def _perform(self, effect: Any) -> None:
        raise AssertionError(f"nobody performs {effect!r}")

    def _case(self, lease: Lease, segment: int, start: bytes, steps: int) -> Case:
        """The disputed or audited segment, whose run this player pays; a dispute about it is one about so many steps."""
        market = self.market
        meter = lease.meters[segment - 1]

        def rerun(points: Sequence[int]) -> tuple[Digest, ...]:
            cost = market.cost_of(lease, (segment,))
            self.operator.spent += cost
            market.rerun += cost
            states = work.inside(start, segment, market.used, points)
            return tuple(
                segment_result(state, meter + market.used) if point >= steps else state
                for point, state in zip(points, states, strict=True)
            )

        return Case(
            rerun=rerun,
            leaked=segment_result(lease.states[segment], lease.meters[segment]),
            steps=steps,
            accomplice=market.are_friends(self.operator, lease.operator),
            ally=market.is_ally(self.operator, lease),
            random=market.dice,
        )


class Node(Player):
    """A provider: `JobBook`."""

    def __init__(self, market: "Market", address: Address, operator: Operator) -> None:
        super().__init__(market, address, operator)
        self.open = 0
        """its leases on chain"""

    def _made(self) -> Any:
        terms = JobTerms(
            me=self.address,
            leases=self.market.chain.leases.domain,
            network=self.market.chain.world.network_domain,
            window_s=self.market.chain.world.rules.window_s,
            recover=signer,
            fits=lambda kind, spec, terms, running: None,
        )
        book = JobBook(terms, self.net.directory, KINDS)
        book.step(Started(), self.net.now_s)
        return book

    def _is_idle(self) -> bool:
        return not self.open and not self.machine.leases

    def _lets(self, effect: Any) -> bool:
        about = str(effect.key).rpartition(":")[2]
        lease = self.net.leases.get(Digest(bytes.fromhex(about)))
        return self.operator.strategy.lets(effect, lease is not None and lease.is_wrong)

    def _perform(self, effect: Any) -> None:
        match effect:
            case joblease.Perform(lease):
                record, raw = self.net.leases[lease], self.machine.leases[lease].raw
                self.market.work_on(self, record, raw, effect.bait)
            case jobshowing.Serve(_, ask, units, proof):
                lease = self.net.leases.get(Digest(ask.lease))
                if lease is None:
                    return
                strategy, market = self.operator.strategy, self.market
                is_last = ask.segment > lease.terms.segments
                if not strategy.lets(Outputs(effect) if is_last else effect, lease.is_wrong):
                    return
                friend = market.are_friends(self.operator, market.operator_of(Address(ask.validator)))
                if is_last or not lease.is_wrong or strategy.serves(ask.validator, friend):
                    self._serve(ask, units, proof)
            case jobdefence.Retrace(lease, _, _, segment, start, steps, points):
                record = self.net.leases[lease]
                case = self._case(record, segment, start, steps)
                found = self.operator.strategy.defends(case, points, record.is_wrong)
                if found is not None:
                    done = jobdefence.Retraced(lease, points, found)
                    self.net.at(self.net.now_s + self.market.segment_s, self.hear, done)
            case joblease.Discard() | joblease.Halt():
                pass
            case _:
                super()._perform(effect)

    def _serve(self, ask: Any, units: int, proof: tuple[Digest, ...]) -> None:
        lease = self.machine.leases[Digest(ask.lease)]
        before = lease.done.states[ask.segment - 1]
        start = joblease.committed(lease.done).open(0)
        sealed = canonical.encode(Segment(lease.raw, start.state, start.proof, before, units, proof))
        body = canonical.encode(SegmentServed(ask.lease, ask.segment, sealed))
        self.net.send(Address(ask.validator), self.market.relay, Relay(self.address, ask.validator, body))


class Auditor(Player):
    """A validator with a seat on the panel: `JobAuditor`, for audits, accusations and verdicts."""

    def _made(self) -> Any:
        world = self.market.chain.world
        settings = AuditSettings(
            me=self.address,
            at=world.addresses.audits,
            network=world.network_domain,
            seal_to=bytes(32),
            sign=signed_by(self.address),
            secret_salt=lambda lease: Digest(keccak(b"salt" + self.address + lease)),
            recover=signer,
            disputes=world.addresses.disputes,
        )
        auditor = JobAuditor(settings, self.net.directory)
        auditor.step(Started(), self.net.now_s)
        auditor.step(Linked(self.market.relay), self.net.now_s)
        return auditor

    def hear(self, event: Any) -> None:
        super().hear(event)
        if isinstance(event, Received | Reran | Retraced):
            # These may take a tick to have their effect.
            self.net.wake(self, self.net.now_s + 1)

    def _send(self, effect: Send) -> None:
        super()._send(effect)
        # Whoever isn't answered asks again, and others.
        self.net.wake(self, self.net.now_s + int(jobauditor.ASK_EVERY_S))

    def _perform(self, effect: Any) -> None:
        match effect:
            case Rerun():
                start = self._opened(effect)
                record = self.net.leases[effect.lease]
                case = self._case(record, effect.segment, start, self.market.steps)
                found = self.operator.strategy.finds(case)
                if found is not None:
                    self._later(Reran(effect.lease, effect.segment, found, ""))
            case Retrace(wanted, steps, points):
                start = self._opened(wanted)
                case = self._case(self.net.leases[wanted.lease], wanted.segment, start, steps)
                found = self.operator.strategy.traces(case, points)
                self._later(Retraced(wanted.lease, points, found, ""))
            case Hand(_, ask, sealed):
                friend = self.market.are_friends(self.operator, self.net.leases[Digest(ask.lease)].operator)
                if self.operator.strategy.hands_on(friend):
                    body = canonical.encode(SegmentServed(ask.lease, ask.segment, sealed))
                    relay = Relay(self.address, ask.validator, body)
                    self.net.send(Address(ask.validator), self.market.relay, relay)
            case Collect(lease):
                self.net.at(self.net.now_s + 1, self.hear, Collected(lease, "had", ""))
            case jobcase.Told() | Pass() | Drop():
                pass
            case _:
                super()._perform(effect)

    def _later(self, done: Reran | Retraced) -> None:
        self.net.at(self.net.now_s, self.hear, Began(done.lease))
        self.net.at(self.net.now_s + self.market.segment_s, self.hear, done)

    @staticmethod
    def _opened(wanted: Rerun) -> bytes:
        served = canonical.decode(wanted.sealed, Segment)
        proof = tuple(Digest(it) for it in served.proof)
        opening = Opening(wanted.segment - 1, Digest(served.state), served.units, proof)
        assert is_opened(wanted.root, wanted.segments, opening), "no strategy shows what it didn't commit to"
        return served.state


class Customer(Player):
    """A requester: `JobDesk`, linked to the providers that it orders from."""

    def __init__(
        self, market: "Market", address: Address, operator: Operator, nodes: list[tuple[Node, bytes]]
    ) -> None:
        super().__init__(market, address, operator)
        self.nodes = nodes
        self._has_ended = False
        """a job, so that it may be time to put the machine away"""

    def _made(self) -> Any:
        chain = self.market.chain
        at = chain.world.addresses
        window_s = chain.world.rules.window_s
        terms = DeskTerms(
            self.address,
            chain.leases.domain,
            at.leases,
            window_s,
            deliveries=at.deliveries,
            bait_ppm=self.market.bait_ppm,
            bait_spread_s=0,
            bait_key=self.market.bait_key,
        )
        desk = JobDesk(terms, self.net.directory, chain.audits.valid_in_a_row)
        now_s = self.net.now_s
        desk.step(Started(), now_s)
        desk.step(Mined("lease-approve", ZERO_DIGEST, 0), now_s)
        for node, offer in self.nodes:
            desk.step(Linked(node.address), now_s)
            desk.step(Received(node.address, Lends("batch", offer, 0, 0)), now_s)
        self._has_ended = True
        return desk

    def has_planted(self, lease: Digest) -> bool:
        return self.machine is not None and lease in self.machine.planting.plants

    def _admits(self) -> bool:
        return self.address not in self.operator.requesters or self.operator.strategy.has_it()

    def _is_idle(self) -> bool:
        if not self._has_ended:
            return False
        self._has_ended = False
        return not self.machine.planting.is_out and all(job.ended for job in self.machine.jobs.values())

    def _perform(self, effect: Any) -> None:
        now_s = self.net.now_s
        match effect:
            case OpenTab(tab):
                # Its account has all the credit that it needs: what is asked here is what leases come to.
                self.net.at(now_s + 1, self.hear, TabIs(tab, True, 0))
            case ChargeTab(tab, item):
                self.net.at(now_s + 1, self.hear, ItemPaid(tab, item))
            case jobstate.Fetch(lease, source):
                node = self.net.players[source]
                given = node.operator.strategy.hands_over() and self._admits()
                self.net.at(now_s + 1, self.hear, jobstate.Fetched(lease, "here" if given else "missing"))
                if not given:
                    # It looks again when most of the window is over.
                    window_s = self.market.chain.world.rules.window_s
                    for late_s in (window_s * 2 // 3, window_s * 5 // 6, window_s):
                        self.net.wake(self, now_s + late_s)
            case jobstate.Note(_, kind):
                self._has_ended = self._has_ended or kind == "end"
            case jobstate.Answer(_, job):
                self._has_ended = self._has_ended or job is None
            case CloseTab():
                pass
            case _:
                super()._perform(effect)
