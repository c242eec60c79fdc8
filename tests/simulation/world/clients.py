"""Clients: they ask, read, walk away, and ask again when the gateway died or nobody could do it."""

from random import Random
from typing import TYPE_CHECKING, Literal

import msgspec
from blake3 import blake3
from msgspec.structs import replace

from clusterai.gateway.core.errands import Ask, Done, Failed
from clusterai.protocol.ids import Digest
from clusterai.runtime.simulator.timeline import SECOND_US
from clusterai.work.inference import KIND, Generation, Sampling, choice_seed
from tests.simulation.world import engine

if TYPE_CHECKING:
    from tests.simulation.world.gateways import Gateway
    from tests.simulation.world.world import World

RETRY_US = (SECOND_US, 5 * SECOND_US)

State = Literal["planned", "asked", "waiting", "done", "abandoned"]


class Request(msgspec.Struct, eq=False):
    """What a client wants, and how it goes.

    Attributes:
        generations: an answer to each is wanted, or none.
        call: the gateway's name for the present try.
        done: the parts of the present try that ended, by errand.
        walks_us: how long after asking the client walks away; 0 is never.
    """

    number: int
    generations: tuple[Generation, ...]
    streamed: bool
    walks_us: int
    state: State = "planned"
    call: int = -1
    tries: int = 0
    done: dict[int, Done] = msgspec.field(default_factory=dict)
    failures: list[str] = msgspec.field(default_factory=list)


class Client:
    """One account at one gateway."""

    def __init__(self, world: "World", name: str, gateway: "Gateway") -> None:
        self.world = world
        self.name = name
        self.gateway = gateway
        self.account = Digest(blake3(name.encode()).digest())
        self._random = Random(f"{name} {world.seed}")
        self.requests = [self._plan(number) for number in range(world.shape.requests)]
        for request in self.requests:
            at_us = 1 + int(self._random.random() * world.shape.busy_s * SECOND_US)
            world.simulation.timeline.after(at_us, self._ask, request)

    @property
    def satisfied(self) -> bool:
        return all(request.state in ("done", "abandoned") for request in self.requests)

    def _plan(self, number: int) -> Request:
        random = self._random
        prompt = tuple(random.randrange(engine.VOCABULARY) for _ in range(random.randint(1, 40)))
        sampling = Sampling(seed=random.getrandbits(64))
        generation = Generation(engine.MODEL, prompt, sampling, max_tokens=random.choice((1, 8, 40, 120)))
        walks_us = int(random.expovariate(1) * 3 * SECOND_US) + 1 if random.random() < 0.1 else 0
        streamed = random.random() < 0.5
        parts = random.randint(2, 4) if random.random() < 0.25 else 1
        seeds = [choice_seed(sampling.seed, part) for part in range(parts)]
        generations = [replace(generation, sampling=Sampling(seed=seed)) for seed in seeds]
        return Request(number, tuple(generations), streamed, walks_us)

    def want(self, generation: Generation, in_s: float) -> None:
        """One request more, so many seconds from now."""
        request = Request(len(self.requests), (generation,), streamed=False, walks_us=0)
        self.requests.append(request)
        self.world.simulation.timeline.after(1 + int(in_s * SECOND_US), self._ask, request)

    def _ask(self, request: Request) -> None:
        if request.state in ("done", "abandoned", "asked"):
            return
        if self.gateway.process.machine is None:
            self._later(request)
            return
        call = request.call = self.world.next_errand()
        request.state = "asked"
        request.tries += 1
        request.done.clear()
        delay_us = self._random.randint(100, 20_000)
        for part, generation in enumerate(request.generations):
            errand = self.world.next_errand()
            ask = Ask(
                errand=errand,
                account=self.account,
                kind=KIND,
                model=engine.MODEL,
                request=generation,
                nonce=blake3(b"%d %d" % (self.world.seed, errand)).digest(),
                tag=errand.to_bytes(8),
                streamed=request.streamed,
                call=call,
                rest=() if part else request.generations[1:],
            )
            self.gateway.ask(errand, self, request, ask, delay_us + part)
        if request.walks_us:
            self.world.simulation.timeline.after(request.walks_us, self._walk, request, call)

    def _walk(self, request: Request, call: int) -> None:
        if request.state == "asked" and request.call == call:
            request.state = "abandoned"
            self.gateway.abandon(request, None)

    def _later(self, request: Request) -> None:
        request.state = "waiting"
        self.world.simulation.timeline.after(self._random.randint(*RETRY_US), self._ask, request)

    # --- what the gateway does ---

    def done(self, request: Request, done: Done) -> None:
        request.done[done.errand] = done
        if len(request.done) == len(request.generations):
            request.state = "done"

    def failed(self, request: Request, failed: Failed) -> None:
        """One part failed, and so all of it; of a stream, those that had ended are the client's."""
        request.failures.append(failed.code)
        self.gateway.abandon(request, tuple(request.done) if request.streamed else ())
        self._later(request)

    def lost(self, request: Request) -> None:
        """The connection broke."""
        if request.state == "asked":
            request.failures.append("connection lost")
            self._later(request)
