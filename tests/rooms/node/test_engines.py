"""The engines' keeper: streams, stops, and what happens when an engine breaks."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from clusterai.models.store import Progress
from clusterai.node.adapters.engines import LEAST_MILLI, Engines, Loaded
from clusterai.node.config import ModelConfig
from clusterai.node.core.leases import Broke, Produced, Serving, Start, Stop
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import ModelOffer, Tokens
from clusterai.work.engine import Busy, Engine, EngineFailed, Finish, Stats, TokenEvent, Unfit
from clusterai.work.inference import Generation
from clusterai.work.request import Usage
from clusterai.work.streams import QueueStream

MODEL = b"m" * 32
GATEWAY = Address(b"G" * 20)
ORDER = Digest(b"o" * 32)
PATIENCE_S = 120


class ScriptedEngine:
    """Streams what the test puts; submits may be refused."""

    def __init__(self) -> None:
        self.model, self.context, self.vocabulary = MODEL, 100, 1000
        self.streams: list[QueueStream] = []
        self.cancelled = 0
        self.closed = False
        self.refuse: Exception | None = None

    def submit(self, generation: Generation) -> QueueStream:
        if self.refuse is not None:
            raise self.refuse

        def cancel() -> None:
            self.cancelled += 1

        self.streams.append(QueueStream(cancel))
        return self.streams[-1]

    def stats(self) -> Stats:
        return Stats(1, 2, 3.0, 4, 5)

    async def close(self) -> None:
        self.closed = True


class Room:
    """Keeper, scripted engines, and what was reported and sent."""

    def __init__(self) -> None:
        self.engines: list[ScriptedEngine] = []
        self.reports: list[Any] = []
        self.frames: list[Tokens] = []
        self.loads = 0
        self.fail_loads = 0
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        config = ModelConfig(name="scripted")
        self.keeper = Engines((config,), self, self._report, self._load)

    def _load(self, config: ModelConfig, progress: Progress) -> Loaded:
        self.loads += 1
        progress("loading", 0.5)
        if self.fail_loads:
            self.fail_loads -= 1
            raise RuntimeError("no memory")
        self.engines.append(ScriptedEngine())
        return Loaded(cast("Engine", self.engines[-1]), ModelOffer(MODEL, config.name, 1, 2, 3))

    def _report(self, event: Any) -> None:
        self.reports.append(event)
        self._changed.set()

    def send(self, gateway: Address, frame: Any) -> bool:
        self.frames.append(frame)
        self._changed.set()
        return True

    async def drained(self, gateway: Address) -> None:
        pass

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def reports_to_be(self, count: int) -> None:
        await self.until(lambda: len(self.reports) >= count)

    def start(self, order: Digest = ORDER) -> None:
        self.keeper.start(Start(order, GATEWAY, Digest(MODEL), "inference", Generation(MODEL, (1,))))


def run(test: Callable[[Room], Any]) -> None:
    async def within() -> None:
        room = Room()
        running = asyncio.create_task(room.keeper.run())
        try:
            await room.reports_to_be(1)
            await test(room)
        finally:
            running.cancel()
            await asyncio.wait([running], timeout=PATIENCE_S)
        assert all(engine.closed for engine in room.engines)

    asyncio.run(within())


def test_tokens_of_one_step_leave_in_one_frame() -> None:
    """Bursts are batched, positions run on, logprobs are thousandths, and the end reports all tokens."""

    async def test(room: Room) -> None:
        room.start()
        stream = room.engines[0].streams[0]
        for token in (5, 6):
            stream.put(TokenEvent(token, -0.5, ((token, -0.5), (9, float("-inf")))))
        await room.until(lambda: len(room.frames) == 1)
        stream.put(TokenEvent(7, 0.0, ((7, -0.0004), (8, -7.25))))
        stream.put(Finish("stop", Usage(1, 1, 3)))
        await room.reports_to_be(2)
        assert room.frames == [
            Tokens(
                ORDER, 0, (5, 6), (-500, -500), (((5, -500), (9, LEAST_MILLI)), ((6, -500), (9, LEAST_MILLI)))
            ),
            Tokens(ORDER, 2, (7,), (0,), (((7, 0), (8, -7250)),)),
        ]
        produced = room.reports[1]
        assert isinstance(produced, Produced)
        assert (produced.answer.tokens, produced.answer.reason, produced.cached_units) == (
            (5, 6, 7),
            "stop",
            1,
        )

    run(test)


def test_without_logprobs_none_are_sent() -> None:
    """What wasn't asked for costs no bytes."""

    async def test(room: Room) -> None:
        room.start()
        room.engines[0].streams[0].put(TokenEvent(5))
        await room.until(lambda: bool(room.frames))
        assert room.frames == [Tokens(ORDER, 0, (5,), (), ())]

    run(test)


def test_refusals_of_the_engine_are_said_by_name() -> None:
    """Busy with its time, unfit with its reason."""

    async def test(room: Room) -> None:
        room.engines[0].refuse = Busy(3, 1.5)
        room.start()
        room.engines[0].refuse = Unfit("lower max_tokens")
        room.start()
        busy, unfit = room.reports[1:]
        assert (busy.code, busy.retry_after_ms) == ("busy", 1500)
        assert (unfit.code, unfit.detail) == ("bad_request", "lower max_tokens")

    run(test)


def test_stopping_frees_the_engine_at_once() -> None:
    """A report is still made when it is wanted, and none when nobody waits for it."""

    async def test(room: Room) -> None:
        room.start()
        other = Digest(b"p" * 32)
        room.start(other)
        wanted, unwanted = room.engines[0].streams
        wanted.put(TokenEvent(5))
        room.keeper.stop(Stop(ORDER, report=True))
        room.keeper.stop(Stop(other, report=False))
        room.keeper.stop(Stop(Digest(bytes(32)), report=True))
        assert room.engines[0].cancelled == 2
        unwanted.put(Finish("cancelled", Usage(1, 0, 0)))
        wanted.put(Finish("cancelled", Usage(1, 0, 1)))
        await room.reports_to_be(2)
        assert [it.order for it in room.reports[1:]] == [ORDER]
        assert room.reports[1].answer.tokens == (5,)

    run(test)


def test_a_broken_engine_is_started_again() -> None:
    """What ran on it is reported broken, offers are withdrawn meanwhile, and come back with the new engine."""

    async def test(room: Room) -> None:
        room.start()
        room.start(Digest(b"p" * 32))
        for stream in room.engines[0].streams:
            stream.put(EngineFailed("out of memory"))
        await room.until(lambda: len(room.engines) == 2 and isinstance(room.reports[-1], Serving))
        assert [type(report).__name__ for report in room.reports] == [
            "Serving",
            "Broke",
            "Broke",
            "Serving",
            "Serving",
        ]
        assert {report.code for report in room.reports[1:3]} == {"engine_failed"}
        assert room.reports[3].offers == ()
        assert room.reports[4].offers == room.reports[0].offers
        assert room.engines[0].closed
        room.start()
        room.engines[1].streams[0].put(Finish("stop", Usage(1, 0, 0)))
        await room.until(lambda: isinstance(room.reports[-1], Produced))

    run(test)


def test_while_no_engine_serves_orders_are_broken() -> None:
    """An order that crosses a crash isn't left waiting."""

    async def test(room: Room) -> None:
        room.fail_loads = 1
        room.engines[0].refuse = EngineFailed("closed")
        room.start()
        await room.until(lambda: isinstance(room.reports[-1], Serving) and not room.reports[-1].offers)
        room.start()
        assert [it.code for it in room.reports if isinstance(it, Broke)] == ["engine_failed"] * 2
        await room.until(lambda: isinstance(room.reports[-1], Serving) and bool(room.reports[-1].offers))
        assert room.loads == 3

    run(test)
