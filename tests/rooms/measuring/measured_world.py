"""Validators, one gateway and nodes on a clock of their own: the real machines of both sides, a played machine behind each node."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, cast

import msgspec
from blake3 import blake3

from clusterai.ledger.core.events import BeaconRecorded, Block, Bonded, Delegated, Enlisted, Registered
from clusterai.market.core.directory import Directory
from clusterai.market.core.placement.assigned import Draws
from clusterai.node.core.proving import Asked, Decline, Exercise, Exercised, Prover
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.measuring import MOST_PART_BYTES, Examine, Measured, Part, Result, Shown, Take
from clusterai.protocol.messages import Relay, Unreachable
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import network_domain
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick
from clusterai.validator.core.measurer import Measurer, MeasurerSettings, Told, Work, Worked
from tests.rooms.measuring.machine_played import PLAN, QUICK, Played

NETWORK = network_domain(31415, Address(bytes(20)))
GATEWAY = Address(b"\x99" * 20)
BEGIN_S = 1_000_000
STAKE = 1_000


def key(number: int) -> Key:
    return Key(number.to_bytes(32))


class Node:
    """An owner with one machine; `owner` and `hot` sign."""

    def __init__(self, number: int, machine: Played) -> None:
        self.owner, self.hot, self.machine = key(1_000 + number), key(2_000 + number), machine
        self.directory = Directory()
        self.draws = Draws(self.directory)
        self.engaged = ""
        self.shown: list[Measured] = []
        self.prover = Prover(
            self.owner.address,
            NETWORK,
            recover,
            lambda hot, validator: self.directory.acts_for(hot, validator, Role.VALIDATOR),
            lambda validator, now_s: self.draws.may_measure(self.owner.address, validator, now_s),
        )


class Validator:
    def __init__(self, number: int, region: str = "eu-de") -> None:
        self.owner, self.hot = key(3_000 + number), key(4_000 + number)
        settings = MeasurerSettings(
            me=self.owner.address,
            network=NETWORK,
            sign=self.hot.sign,
            recover=recover,
            word=lambda data: Digest(blake3(number.to_bytes(4) + data).digest()),
            sentinel=QUICK,
            epoch_s=15,
            plan=PLAN,
            region=region,
        )
        self.measurer = Measurer(settings, Directory())
        self.saved: list[Any] = []
        self.told: list[Told] = []
        self.asked: list[Any] = []
        """what it wants of the chain"""


class World:
    """`run(seconds)` lets time pass; all that happens does so in one order."""

    def __init__(
        self, validators: int, machines: list[Played], delays: Callable[[int], float] | None = None
    ) -> None:
        self.now_s = float(BEGIN_S)
        self.validators = [Validator(at) for at in range(validators)]
        self.nodes = [Node(at, machine) for at, machine in enumerate(machines)]
        self.measured: list[tuple[Address, Measured]] = []
        """what came to the gateway, and from whom"""
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self.linked = {it.owner.address for it in self.nodes}
        self._block = 0
        self.register()
        for validator in self.validators:
            self.perform(validator, validator.measurer.step(Started(), self.now_s))
            self.perform(validator, validator.measurer.step(Linked(GATEWAY), self.now_s))

    def register(self) -> None:
        events: list[Any] = []
        for at, validator in enumerate(self.validators):
            owner = validator.owner.address
            events += [Registered(owner, int(Role.VALIDATOR), ZERO_DIGEST), Bonded(owner, STAKE, STAKE)]
            events += [Delegated(owner, validator.hot.address), Enlisted(at, owner, STAKE)]
        for node in self.nodes:
            owner = node.owner.address
            events += [Registered(owner, int(Role.PROVIDER), ZERO_DIGEST), Bonded(owner, STAKE, STAKE)]
            events += [Delegated(owner, node.hot.address)]
        self.chain(*events)

    def chain(self, *events: Any) -> None:
        """A block with these."""
        self._block += 1
        for event in (*events, Block(self._block, int(self.now_s))):
            for validator in self.validators:
                self.perform(validator, validator.measurer.step(event, self.now_s))
            for node in self.nodes:
                node.directory.apply(event)
                node.draws.apply(event)

    def beacon(self, word: bytes = b"beacon") -> None:
        self.now_s += 1
        self.chain(BeaconRecorded(self._block, Digest(blake3(word).digest())))

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        tick_s = self.now_s
        while tick_s <= end_s:
            self.later(tick_s - self.now_s, self._tick)
            tick_s += 0.5
        while self._agenda and self._agenda[0][0] <= end_s:
            self.now_s, _, act = heapq.heappop(self._agenda)
            act()
        self.now_s = end_s

    def later(self, after_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now_s + after_s, next(self._number), act))

    def _tick(self) -> None:
        for validator in self.validators:
            self.perform(validator, validator.measurer.step(Tick(), self.now_s))

    # --- a validator's effects ---

    def perform(self, validator: Validator, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Send(_, Relay(_, to, body)):
                    self.relay(validator, Address(to), body)
                case Send(_, Measured() as measured):
                    self.measured.append((validator.owner.address, measured))
                case Work(owner, number, work):
                    value = work()
                    self.later(0.01, lambda o=owner, n=number, v=value: self.hear(validator, Worked(o, n, v)))
                case Save(record):
                    validator.saved.append(record)
                case Told():
                    validator.told.append(effect)
                case _:
                    validator.asked.append(effect)

    def hear(self, validator: Validator, event: Any) -> None:
        self.perform(validator, validator.measurer.step(event, self.now_s))

    def relay(self, validator: Validator, to: Address, body: bytes) -> None:
        peer = next((it for it in self.validators if it.owner.address == to), None)
        if peer is not None:
            relayed = Relay(validator.owner.address, to, body)
            self.later(0.01, lambda: self.hear(peer, Received(GATEWAY, relayed)))
            return
        node = next((it for it in self.nodes if it.owner.address == to), None)
        if node is None or to not in self.linked:
            self.later(0.001, lambda: self.hear(validator, Received(GATEWAY, Unreachable(to))))
            return
        heard = canonical.decode(body, cast("type[Examine | Measured]", Examine | Measured))
        if isinstance(heard, Measured):
            node.shown.append(heard)
            return
        for effect in node.prover.step(Asked(GATEWAY, heard, node.engaged), self.now_s):
            match effect:
                case Exercise(_, ask):
                    self.exercise(node, ask)
                case Decline(_, ask, answer):
                    self.reply(node, ask, answer, b"", 0.01)
                case _:
                    raise AssertionError(effect)

    # --- a node's ---

    def exercise(self, node: Node, ask: Examine) -> None:
        result, data, took_s = node.machine.answer(Digest(ask.seed), ask.test)
        self.later(took_s / 2, lambda: self.exercised(node, ask))
        if not isinstance(ask.test, Take) or ask.test.last:
            self.reply(node, ask, result, data, took_s)

    def exercised(self, node: Node, ask: Examine) -> None:
        assert node.prover.step(Exercised(Digest(ask.seed)), self.now_s) == []

    def reply(self, node: Node, ask: Examine, result: Result, data: bytes, took_s: float) -> None:
        results: list[Result] = [result]
        if isinstance(result, Part):
            results = [
                Part(at, len(data), data[at : at + MOST_PART_BYTES])
                for at in range(0, len(data), MOST_PART_BYTES)
            ]
        for one in results:
            body = canonical.encode(
                self.signed(node, Shown(node.owner.address, node.hot.address, ask.seed, one, bytes(65)))
            )
            relayed = Relay(node.owner.address, ask.validator, body)
            validator = next(it for it in self.validators if it.owner.address == ask.validator)
            self.later(took_s, lambda v=validator, r=relayed: self.hear(v, Received(GATEWAY, r)))

    def signed(self, node: Node, shown: Shown) -> Shown:
        return msgspec.structs.replace(shown, signature=node.hot.sign(shown.signing_digest(NETWORK)))
