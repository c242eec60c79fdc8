"""Clients: they ask, read, walk away, and ask again when the gateway died or nobody could do it."""

from random import Random
from typing import TYPE_CHECKING, Literal

import msgspec
from blake3 import blake3

from clusterai.gateway.core.errands import Ask, Done, Failed
from clusterai.protocol.ids import Digest
from clusterai.runtime.simulator.timeline import SECOND_US
from clusterai.work.inference import KIND, Generation, Sampling
from tests.simulation.world import engine

if TYPE_CHECKING:
    from tests.simulation.world.gateways import Gateway
    from tests.simulation.world.world import World

RETRY_US = (SECOND_US, 5 * SECOND_US)

State = Literal["planned", "asked", "waiting", "done", "abandoned"]


class Request(msgspec.Struct, eq=False):
    """What a client wants, and how it goes.

    Attributes:
        tokens: what the client has read.
        errand: of the present try.
        walks_us: how long after asking the client walks away; 0 is never.
    """

    number: int
    generation: Generation
    streamed: bool
    walks_us: int
    state: State = "planned"
    errand: int = -1
    tries: int = 0
    tokens: list[int] = msgspec.field(default_factory=list)
    done: Done | None = None
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
        return Request(number, generation, random.random() < 0.5, walks_us)

    def want(self, generation: Generation, in_s: float) -> None:
        """One request more, so many seconds from now."""
        request = Request(len(self.requests), generation, streamed=False, walks_us=0)
        self.requests.append(request)
        self.world.simulation.timeline.after(1 + int(in_s * SECOND_US), self._ask, request)

    def _ask(self, request: Request) -> None:
        if request.state in ("done", "abandoned", "asked"):
            return
        if self.gateway.process.machine is None:
            self._later(request)
            return
        errand = request.errand = self.world.next_errand()
        request.state = "asked"
        request.tries += 1
        request.tokens.clear()
        nonce = blake3(b"%d %d" % (self.world.seed, errand)).digest()
        ask = Ask(
            errand=errand,
            account=self.account,
            kind=KIND,
            model=engine.MODEL,
            request=request.generation,
            nonce=nonce,
            streamed=request.streamed,
        )
        self.gateway.ask(errand, self, request, ask, self._random.randint(100, 20_000))
        if request.walks_us:
            self.world.simulation.timeline.after(request.walks_us, self._walk, request, errand)

    def _walk(self, request: Request, errand: int) -> None:
        if request.state == "asked" and request.errand == errand:
            request.state = "abandoned"
            self.gateway.abandon(errand)

    def _later(self, request: Request) -> None:
        request.state = "waiting"
        self.world.simulation.timeline.after(self._random.randint(*RETRY_US), self._ask, request)

    # --- what the gateway does ---

    def delivered(self, request: Request, tokens: tuple[int, ...]) -> None:
        request.tokens.extend(tokens)

    def restarted(self, request: Request) -> None:
        request.tokens.clear()

    def done(self, request: Request, done: Done) -> None:
        request.state = "done"
        request.done = done

    def failed(self, request: Request, failed: Failed) -> None:
        request.failures.append(failed.code)
        self._later(request)

    def lost(self, request: Request, errand: int) -> None:
        """The connection broke."""
        if request.errand == errand and request.state == "asked":
            request.failures.append("connection lost")
            self._later(request)
