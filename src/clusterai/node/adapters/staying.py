"""The half of a node that lends the machine whole: its book of the stay, the stay itself, and the stay as an engine of intervals.

    gateways ── frames ──> StayBook ── Raise, Join, Lower ──> Stay (walls, mesh, Ray, sentinel)
                              └─ Lend, Withdraw ──> Engines: an interval's order ──> beats ──> tokens

One thing at a time is done to a stay: raised, meshed, lowered, in that order, each by its own task. Ray comes up beside that: while it
waits for its head, the way there may change, and the stay may be over.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog

from clusterai.mesh import Member
from clusterai.node.adapters.countersigned import Countersigned
from clusterai.node.adapters.engines import Engines, Loaded
from clusterai.node.config import RentalsConfig
from clusterai.node.core import staybook
from clusterai.node.core.staybook import Fell, Join, Joined, Lend, Lower, Raise, Raised, StayBook, StayTerms
from clusterai.node.core.staybook import Path as TellPath
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import ModelOffer, Transcript
from clusterai.protocol.rentals import (
    AskStayLog,
    JoinStay,
    RentFrame,
    StayHears,
    StayLogged,
    StayTold,
    head_of,
)
from clusterai.protocol.signing import Key
from clusterai.runtime.machine import Linked, Received, Send, Tick, Unlinked
from clusterai.work.cluster.adapters.cards import Cards
from clusterai.work.cluster.adapters.stay import MOST_LOG, Stay, StayFailed, StaySettings, sweep
from clusterai.work.cluster.core.heartbeats import Beat, Cell, tokens_of
from clusterai.work.cluster.price import recount
from clusterai.work.cluster.spec import IMAGES, ClusterSpec, Interval, decode_interval
from clusterai.work.engine import EngineFailed, Finish, Stats, TokenEvent, Unfit
from clusterai.work.request import Usage

TICK_S = 1.0
LOOK_TICKS = 2
LOWERED_S = 30.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("node.staying")


class Told(Protocol):
    """How a stay's machine stands; see `work.cluster.adapters.stay.Reading`."""

    @property
    def links(self) -> tuple[int, ...]: ...
    @property
    def values(self) -> tuple[bytes, ...]: ...
    @property
    def tenant_ms(self) -> int: ...
    @property
    def foreign(self) -> int: ...


class Stays(Protocol):
    """A stay as this room uses it; `work.cluster.adapters.stay.Stay` is one, tests have another."""

    key: bytes
    gone: "asyncio.Future[str]"

    async def join(self, head: int, token: bytes) -> Mapping[str, int]: ...
    async def remesh(self, members: tuple[Member, ...], relay: Mapping[int, tuple[str, int]]) -> None: ...
    async def seen_outside(self, place: int, endpoint: tuple[str, int]) -> None: ...
    async def beat(self, seed: bytes) -> Told: ...
    def log(self, start: int) -> tuple[int, bytes]: ...
    def news(self) -> Sequence[tuple[str, str]]: ...
    def silent(self) -> Mapping[int, float]: ...
    async def freeze(self) -> None: ...
    async def thaw(self) -> None: ...
    async def close(self) -> None: ...


Opens = Callable[[Digest, int, ClusterSpec, Path], Awaitable[Stays]]
"""(lease, place, spec, folder) to a stay; awaited. Raises `StayFailed`."""


class Staying:
    """One node's stay, if any.

    Args:
        opens: makes a stay.
        vacancy: hears whether the machine may be offered, which is also whether other work may be taken on it.
        keep: takes what a gateway countersigned.
    """

    def __init__(
        self,
        terms: StayTerms,
        folder: Path,
        engines: Engines,
        opens: Opens,
        send: Callable[[Address, Any], object],
        vacancy: Callable[[bool], None],
        keep: Callable[[staybook.Signed], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.book = StayBook(terms)
        self._folder = folder
        self._engines, self._opens, self._send, self._vacancy = engines, opens, send, vacancy
        self._keep, self._clock = keep, clock
        self._stay: Stays | None = None
        self._doing: asyncio.Task[None] | None = None
        self._joining: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- in ---

    def hear(self, event: Any) -> bool:
        """Take an event; whether it was of no concern to anyone else."""
        match event:
            case Received(_, frame):
                if not isinstance(frame, RentFrame):
                    return False
                if isinstance(frame, AskStayLog):
                    self._log(event.sender, frame)
                else:
                    self.tell(event)
                return True
            case Linked() | Unlinked():
                self.tell(event)
            case _:
                pass
        return False

    def _log(self, gateway: Address, asked: AskStayLog) -> None:
        mine = self.book.stay
        if self._stay is None or mine is None or mine.gateway != gateway:
            return
        if (mine.lease, mine.generation) == (asked.lease, asked.generation):
            total, data = self._stay.log(asked.start)
            # A piece is at most 64 KiB of what is kept: where it begins doesn't follow from its length.
            start = min(total, max(asked.start, total - MOST_LOG))
            self._send(gateway, StayLogged(asked.lease, asked.generation, start, total, data))

    def tell(self, event: Any) -> None:
        for effect in self.book.step(event, self._clock()):
            self._perform(effect)

    def came(self, transcript: Transcript) -> None:
        """Of this work a receipt is made: if it was an interval, that is where the next begins."""
        if transcript.kind != "cluster":
            return
        interval = decode_interval(transcript.request)
        head = head_of(transcript.order.request, transcript.answer.digest())
        tenths = recount(interval, transcript.answer.tokens)[1]
        self.tell(staybook.Came(Digest(interval.model), interval.before, head, tenths))

    async def run(self) -> None:
        """Tick until cancelled, and then leave nothing behind. What a daemon that was killed left goes first."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await sweep(self._folder)
        ticks = 0
        try:
            while True:
                await asyncio.sleep(TICK_S)
                self.tell(Tick())
                if (ticks := ticks + 1) % LOOK_TICKS == 0:
                    self.look()
        finally:
            await self._close()

    def look(self) -> None:
        """Tell the gateway what its renter should know, and whom the machine hears in the mesh."""
        mine = self.book.stay
        if self._stay is None or mine is None:
            return
        for code, words in self._stay.news():
            self._send(mine.gateway, StayTold(mine.lease, mine.generation, code, words[:2_000]))
        silent = tuple((place, int(it * 1000)) for place, it in sorted(self._stay.silent().items()))
        if silent and mine.phase == "ready":
            self._send(mine.gateway, StayHears(mine.lease, mine.generation, silent))

    # --- out ---

    def _perform(self, effect: Any) -> None:
        match effect:
            case Send(to, frame):
                self._send(to, frame)
            case Raise():
                self._next(self._raise(effect))
            case Join(generation, frame):
                self._next(self._mesh(generation, frame))
            case TellPath(frame):
                if self._stay is not None:
                    self._spawn(self._stay.seen_outside(frame.place, (frame.host, frame.port)))
            case staybook.Still(paused):
                if self._stay is not None:
                    self._spawn(self._stay.freeze() if paused else self._stay.thaw())
            case Lower():
                self._next(self._close())
            case Lend(model, gateway, unit_wei):
                assert self._stay is not None, "what is lent stands"
                engine = StayEngine(
                    model,
                    self._stay,
                    lambda: self.tell(staybook.Worked(model)),
                    partial(self.book.follows, model),
                )
                offer = ModelOffer(model, "cluster", 0, unit_wei, 1)
                self._engines.lend(model.hex(), Loaded(engine, offer, gateway))
            case staybook.Withdraw(model):
                self._engines.withdraw(model.hex())
            case staybook.Signed():
                self._keep(effect)
            case staybook.Vacant(vacant):
                self._vacancy(vacant)
            case _:
                raise AssertionError(f"nobody performs {effect!r}")

    def _next(self, work: Any) -> None:
        """Behind what is being done now."""
        before = self._doing

        async def turn() -> None:
            if before is not None:
                await asyncio.wait([before])
            await work

        self._doing = self._spawn(turn())

    def _spawn(self, work: Any) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("stay_failed", why=str(error) or type(error).__name__)

    async def _raise(self, effect: Raise) -> None:
        place = effect.lease, effect.generation
        try:
            stay = await self._opens(effect.lease, effect.place, effect.spec, self._folder)
        except StayFailed as error:
            self.tell(Fell(*place, error.code, error.detail))
            return
        self._stay = stay
        log.info("stay_raised", lease=effect.lease.hex(), place=effect.place)
        stay.gone.add_done_callback(partial(self._died, effect))
        self.tell(Raised(*place, stay.key))

    def _died(self, effect: Raise, gone: "asyncio.Future[str]") -> None:
        if not gone.cancelled():
            self.tell(Fell(effect.lease, effect.generation, "died", gone.result()))

    async def _mesh(self, generation: int, frame: JoinStay) -> None:
        stay, place = self._stay, (Digest(frame.lease), generation)
        if stay is None:
            return
        members = tuple(Member(it.place, it.key) for it in frame.members)
        relay = await _resolved({it.place: it.relay for it in frame.members if it.relay is not None})
        began = time.monotonic()
        try:
            await stay.remesh(members, relay)
        except StayFailed as error:
            self.tell(Fell(*place, error.code, error.detail))
            return
        if self._joining is None:
            mesh_ms = int((time.monotonic() - began) * 1000)
            self._joining = self._spawn(self._join(stay, place, frame, mesh_ms))
        elif self._joining.done():
            self.tell(Joined(*place, ()))

    async def _join(self, stay: Stays, place: tuple[Digest, int], frame: JoinStay, mesh_ms: int) -> None:
        try:
            steps = await stay.join(frame.head, frame.token)
        except StayFailed as error:
            self.tell(Fell(*place, error.code, error.detail))
            return
        self.tell(Joined(*place, (("mesh", mesh_ms), *steps.items())))

    async def _close(self) -> None:
        stay, self._stay = self._stay, None
        joining, self._joining = self._joining, None
        if joining is not None and not joining.done():
            # Its head may never answer; whoever has the machine next doesn't wait for that.
            joining.cancel()
            await asyncio.wait([joining])
        if stay is not None:
            stay.gone.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOWERED_S):
                    await stay.close()
            log.info("stay_lowered")


async def _resolved(relay: Mapping[int, tuple[str, int]]) -> dict[int, tuple[str, int]]:
    """WireGuard wants addresses; a gateway may be known by its name. What isn't found is left out: the direct way may be."""
    found: dict[int, tuple[str, int]] = {}
    loop = asyncio.get_running_loop()
    for place, (host, port) in relay.items():
        with contextlib.suppress(OSError, UnicodeError):
            known = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            found[place] = (str(known[0][4][0]), port)
    return found


def renting(
    config: RentalsConfig,
    folder: Path,
    key: Key,
    domain: Domain,
    engines: Engines,
    send: Callable[[Address, Any], object],
    busy: Callable[[], str | None],
    vacancy: Callable[[bool], None],
    by_gateway: Callable[[Digest, bytes, Address], bool],
) -> Staying:
    """As configured, with real stays.

    Args:
        busy: why the machine can't be had whole now.
        by_gateway: as in `StayTerms`.
    """
    settings = StaySettings(
        ray=config.home,
        cores=tuple(sorted(os.sched_getaffinity(0)))[: max(1, config.cpu_milli // 1000)],
        allowed=frozenset(config.allowed),
        cards=Cards(config.cards, config.gpus) if config.gpus else None,
    )

    def fits(spec: ClusterSpec) -> str | None:
        if spec.image not in IMAGES:
            return f"there is no image {spec.image}"
        for name, asked, lent in (
            ("thousandths of a core", spec.cpu_milli, config.cpu_milli),
            ("bytes of memory", spec.memory_bytes, config.memory_bytes),
            ("bytes of disk", spec.disk_bytes, config.disk_bytes),
            ("GPUs", spec.gpus, config.gpus),
        ):
            if asked > lent:
                return f"{asked} {name} are asked for, {lent} are lent"
        return busy()

    async def opens(lease: Digest, place: int, spec: ClusterSpec, within: Path) -> Stays:
        return await Stay.open(lease, place, spec, within, settings)

    terms = StayTerms(key.address, domain, config.hour_wei, fits, config.longest_s, key.sign, by_gateway)
    return Staying(terms, folder, engines, opens, send, vacancy, Countersigned(folder.parent).keep)


class StayEngine:
    """A stay's intervals, as the engine port has it: one at a time, its tokens are heartbeats."""

    def __init__(
        self, model: Digest, stay: Stays, worked: Callable[[], None], follows: Callable[[bytes], bool]
    ) -> None:
        self.model: bytes = model
        self._stay, self._worked, self._follows = stay, worked, follows
        self._running: _Beats | None = None

    def submit(self, interval: Interval, /) -> "_Beats":
        """
        Raises:
            Unfit: one is running, or it doesn't hang on what this stay did.
            EngineFailed: the stay is gone.
        """
        if self._stay.gone.done():
            raise EngineFailed("this stay is over")
        if self._running is not None and not self._running.over:
            raise Unfit("an interval of this stay is running: one follows the other")
        if not self._follows(interval.before):
            raise Unfit("this interval goes on from heartbeats that this stay never gave")
        self._worked()
        self._running = _Beats(self._stay, interval)
        return self._running

    def stats(self) -> Stats:
        running = int(self._running is not None and not self._running.over)
        return Stats(0, running, 0.0, 0, 0)

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()


class _Beats:
    """One interval's heartbeats."""

    def __init__(self, stay: Stays, interval: Interval) -> None:
        self._stay, self._interval = stay, interval
        self._cancelled = asyncio.Event()
        self.over = False

    def cancel(self) -> None:
        self._cancelled.set()

    def __aiter__(self) -> AsyncIterator[TokenEvent | Finish]:
        return self._events()

    async def _events(self) -> AsyncIterator[TokenEvent | Finish]:
        asked, count = self._interval, 0
        try:
            began = await self._beat()
            loop = asyncio.get_running_loop()
            since_s = loop.time()
            links = (0,) * asked.cores
            for at in range(1, asked.beats + 1):
                if await self._waited(since_s + asked.seconds * at / asked.beats - loop.time()):
                    self.over = True
                    yield Finish("cancelled", Usage(0, 0, count))
                    return
                told = await self._beat()
                cells = tuple(
                    Cell(now - before, value)
                    for now, before, value in zip(told.links, links, told.values, strict=True)
                )
                links = told.links
                elapsed_ms = round((loop.time() - since_s) * 1000)
                beat = Beat(elapsed_ms, told.tenant_ms - began.tenant_ms, told.foreign, cells)
                for token in tokens_of(beat):
                    count += 1
                    yield TokenEvent(token)
            self.over = True
            yield Finish("stop", Usage(0, 0, count))
        finally:
            self.over = True

    async def _beat(self) -> Told:
        if self._stay.gone.done():
            raise EngineFailed("this stay is over")
        try:
            told = await self._stay.beat(self._interval.seed)
        except StayFailed as error:
            raise EngineFailed(str(error)) from None
        if len(told.links) != self._interval.cores:
            raise EngineFailed(f"{len(told.links)} cores are lent, {self._interval.cores} were asked for")
        return told

    async def _waited(self, seconds: float) -> bool:
        """Whether it was cancelled meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._cancelled.wait()
        return self._cancelled.is_set()
