"""A provider of the simulated network: the LeaseBook, an engine that streams, and files that outlive crashes."""

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from clusterai.audit.core.opening import open_list, open_receipt, pack_answer
from clusterai.ledger.core.calls import Submit
from clusterai.market.core.directory import Directory
from clusterai.node.core.leasebook import LeaseBook, Terms
from clusterai.node.core.leases import (
    Forget,
    Keep,
    Kept,
    Noted,
    OpenEpoch,
    Prepare,
    Prepared,
    Produced,
    Serving,
    Start,
    Stop,
)
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.messages import Answer, EpochOpened, ModelOffer, Relay, Tokens, Transcript
from clusterai.runtime.simulator import Process
from clusterai.work.inference import KIND, Generation
from tests.simulation.world import engine
from tests.simulation.world.chain import ADDRESSES
from tests.simulation.world.gateways import NETWORK, VOUCHERS
from tests.simulation.world.parties import Party, recover
from tests.simulation.world.validators import seal

if TYPE_CHECKING:
    from tests.simulation.world.world import World

SLOTS = 4
CREDIT_WEI = 20_000
"""Some ten answers that a gateway may owe."""
CHUNK = 8
"""Tokens of one frame."""


class Stream(msgspec.Struct):
    """An answer on its way; `position` counts what was sent."""

    gateway: Address
    tokens: tuple[int, ...]
    reason: str
    position: int = 0


class Provider:
    """Host of one provider's process.

    Attributes:
        input_wei, output_wei: its prices per token.
        files: kept transcripts by epoch and order; they outlive crashes.
    """

    input_wei = 3
    output_wei = 11

    def __init__(self, world: "World", party: Party) -> None:
        self.world = world
        self.party = party
        self.files: dict[int, dict[Digest, Transcript]] = {}
        self.notes: list[Noted] = []
        self._random = Random(f"{party.name} {world.seed}")
        self._running: dict[Digest, Stream] = {}
        self.process: Process = world.simulation.spawn(party.name, party.address, self.build, self)
        for gateway in world.gateways:
            gateway.host(self, Role.PROVIDER)

    @property
    def directory(self) -> Directory | None:
        return getattr(self.process.machine, "directory", None)

    @property
    def streaming(self) -> bool:
        """Whether an answer is on its way, some of it sent."""
        return any(stream.position for stream in self._running.values())

    def build(self) -> Any:
        party = self.party
        terms = Terms(
            me=party.address,
            keys=(party.hot.address,),
            token=ADDRESSES.token,
            network=NETWORK,
            channels=VOUCHERS,
            epoch_s=self.world.rules.epoch_s,
            window_s=self.world.rules.window_s,
            sign=party.hot.sign,
            recover=recover,
            credit_wei=CREDIT_WEI,
            confirmations=self.world.simulation.faults_drawn.reorganised_blocks,
        )
        return LeaseBook(terms, Directory(), {KIND.name: KIND})

    def answer(self, generation: Generation) -> tuple[tuple[int, ...], str]:
        """The new tokens of an answer, and why it ended; villains answer otherwise."""
        whole, reason = engine.answer(
            generation.model, generation.prompt, generation.sampling.seed, generation.max_tokens
        )
        return whole[len(generation.so_far) :], reason

    # --- host ---

    def started(self) -> None:
        self.world.chain.follow(self.process, writes_down=True)
        self.process.post(self._random.randint(100_000, 2_000_000), self._serving())

    def reprice(self, input_wei: int, output_wei: int) -> None:
        """Ask other prices from now on."""
        self.input_wei, self.output_wei = input_wei, output_wei
        self.process.post(1, self._serving())

    def _serving(self) -> Serving:
        return Serving((ModelOffer(engine.MODEL, "simulated", self.input_wei, self.output_wei, SLOTS),))

    def crashed(self) -> None:
        self._running.clear()

    def perform(self, effect: Any) -> None:
        match effect:
            case Submit(key, call):
                self.world.chain.submit(self.process, self.party.hot.address, key, call)
            case Start(order, gateway, _, _, generation):
                tokens, reason = self.answer(generation)
                self._running[order] = Stream(gateway, tokens, reason)
                self.process.later(self._pause_us(), self._stream, order)
            case Stop(order, report):
                self._stop(order, report)
            case Keep(epoch, order, transcript):
                self.process.later(self._random.randint(100, 20_000), self._keep, epoch, order, transcript)
            case Forget(epoch):
                self.files.pop(epoch, None)
            case OpenEpoch():
                self._open(effect)
            case Prepare():
                self._prepare(effect)
            case Noted():
                self.notes.append(effect)
            case _:
                raise AssertionError(f"a provider doesn't do {effect!r}")

    def _pause_us(self) -> int:
        """Until the next tokens; now and then an engine stalls."""
        if self._random.random() < 0.01:
            return self._random.randint(1_000_000, 6_000_000)
        return self._random.randint(10_000, 200_000)

    # --- streams ---

    def _stream(self, order: Digest) -> None:
        stream = self._running.get(order)
        if stream is None:
            return
        chunk = stream.tokens[stream.position : stream.position + CHUNK]
        frame = Tokens(order, stream.position, chunk, (), ())
        self.world.simulation.send(self.process, stream.gateway, frame)
        stream.position += len(chunk)
        if stream.position < len(stream.tokens):
            self.process.later(self._pause_us(), self._stream, order)
        else:
            del self._running[order]
            self.process.post(1, Produced(order, Answer(stream.tokens, stream.reason)))

    def _stop(self, order: Digest, report: bool) -> None:
        stream = self._running.pop(order, None)
        if stream is not None and report:
            answer = Answer(stream.tokens[: stream.position], "cancelled")
            self.process.post(1, Produced(order, answer))

    # --- files ---

    def _keep(self, epoch: int, order: Digest, transcript: Transcript) -> None:
        self.files.setdefault(epoch, {})[order] = transcript
        self.process.post(1, Kept(order))

    def transcript(self, epoch: int, order: Digest) -> Transcript | None:
        return self.files.get(epoch, {}).get(order)

    def _open(self, effect: OpenEpoch) -> None:
        ask = effect.ask
        sealed: list[tuple[int, bytes]] = []
        for index, order in effect.drawn:
            transcript = self.transcript(ask.epoch, order)
            if transcript is not None:
                sealed.append((index, seal(ask.seal_to, canonical.encode(transcript))))
        opened = EpochOpened(self.party.address, ask.epoch, effect.receipts, effect.signatures, tuple(sealed))
        relay = Relay(self.party.address, ask.validator, canonical.encode(opened))
        self.world.simulation.send(self.process, effect.gateway, relay)

    def _prepare(self, effect: Prepare) -> None:
        sealer = None if effect.seal_to is None else partial(seal, effect.seal_to)
        parts: tuple[bytes, ...] = ()
        if effect.order is None:
            parts = pack_answer(open_list(effect.receipts), sealer)
        elif (transcript := self.transcript(effect.epoch, effect.order)) is not None:
            parts = pack_answer(open_receipt(effect.receipts, effect.index, transcript), sealer)
        prepared = Prepared(effect.epoch, effect.index, effect.validator, parts)
        self.process.post(self._random.randint(100, 50_000), prepared)
