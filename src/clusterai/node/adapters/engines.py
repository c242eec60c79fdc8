"""Runs the engines: loads them, streams what they draw, and starts a broken one again.

    load (in a thread) ──> Serving ──> streams ──EngineFailed──> Broke for each, Serving without it ──(backoff)──> load

Tokens go from the engine to the link directly: they are data. All events of one engine step reach the loop in one call, so
each order's tokens of a step leave in one frame.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
import structlog

from clusterai.models.store import Altered, ModelStore, NoSuchModel, Progress
from clusterai.node.config import ModelConfig
from clusterai.node.core.leases import Broke, Produced, Serving, Start, Stop
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Answer, ModelOffer, Tokens
from clusterai.work.engine import Busy, Engine, EngineFailed, Finish, Stream, TokenEvent, Unfit
from clusterai.work.loading import find, load_engine

FIRST_BACKOFF_S, MOST_BACKOFF_S = 0.5, 30.0
LEAST_MILLI = -(2**31)
MOST_TOKENS_A_FRAME = 4096

log: structlog.stdlib.BoundLogger = structlog.get_logger("node.engines")


class Outlet(Protocol):
    """Where tokens go: a link."""

    def send(self, gateway: Address, frame: Any) -> bool: ...

    async def drained(self, gateway: Address) -> None: ...


class Loaded(msgspec.Struct):
    """An engine that serves, and what it is offered at."""

    engine: Engine
    offer: ModelOffer
    only: Address | None = None
    """the one gateway that may order; for work that it began"""


Load = Callable[[ModelConfig, Progress], Loaded]
"""Makes an engine; blocks for seconds, so it runs in a thread.

Raises: NoSuchModel, Altered or anything that a broken engine raises."""


class Engines:
    """All engines of a node, and the orders in work.

    Args:
        report: hears `Serving`, `Produced` and `Broke`.
        load: see `Load`; tests hand in engines that break.
    """

    def __init__(
        self,
        models: tuple[ModelConfig, ...],
        outlet: Outlet,
        report: Callable[[Any], None],
        load: Load,
    ) -> None:
        self._models = models
        self._outlet = outlet
        self._report = report
        self._load = load
        self._loaded: dict[str, Loaded] = {}
        self._loading = asyncio.Lock()
        self._broken: dict[str, asyncio.Event] = {}
        self._streams: dict[Digest, Stream] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self.doing: dict[str, str] = {}
        """model to what is done with it, for people"""
        self.tokens = 0

    async def run(self) -> None:
        """Load, serve, load again what breaks, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for model in self._models:
                    tasks.create_task(self._keep(model), name=f"engine {model.name}")
                # What is lent needs the group also where there are no models.
                await asyncio.Event().wait()
        finally:
            for loaded in self._loaded.values():
                await loaded.engine.close()

    @property
    def ready(self) -> bool:
        return bool(self._loaded)

    def load_now(self) -> tuple[int, int]:
        """(running, queued) over all engines."""
        stats = [loaded.engine.stats() for loaded in self._loaded.values()]
        return sum(it.running for it in stats), sum(it.queued for it in stats)

    def loaded(self) -> dict[str, Loaded]:
        return dict(self._loaded)

    # --- one engine ---

    async def _keep(self, model: ModelConfig) -> None:
        backoff_s = FIRST_BACKOFF_S
        broken = self._broken[model.name] = asyncio.Event()

        def progress(doing: str, part: float) -> None:
            self.doing[model.name] = f"{doing} {part:.0%}"

        while True:
            broken.clear()
            try:
                # In the order of the configuration: the first model serves soonest when it has the cores to itself.
                async with self._loading:
                    loaded = await asyncio.to_thread(self._load, model, progress)
            except (NoSuchModel, Altered):
                raise  # nothing that waiting would mend: the node ends, and says why
            except Exception as error:  # an engine may break in ways of its own, and is started again
                self.doing[model.name] = f"broken: {error}"
                log.error("engine_load_failed", model=model.name, error=str(error), retry_s=backoff_s)
            else:
                self._serve(model.name, loaded)
                since = asyncio.get_running_loop().time()
                await broken.wait()
                self._withdraw(model.name)
                await loaded.engine.close()
                if asyncio.get_running_loop().time() - since > MOST_BACKOFF_S:
                    backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MOST_BACKOFF_S)

    def _serve(self, name: str, loaded: Loaded) -> None:
        self._loaded[name] = loaded
        self.doing[name] = "ready"
        log.info("engine_ready", model=name, address="0x" + loaded.engine.model.hex())
        self._tell()

    def _withdraw(self, name: str) -> None:
        del self._loaded[name]
        self.doing[name] = "broken: starting again"
        log.error("engine_broke", model=name)
        self._tell()

    def _tell(self) -> None:
        loaded = self._loaded.values()
        begun = tuple(Digest(it.engine.model) for it in loaded if it.only is not None)
        self._report(Serving(tuple(it.offer for it in loaded), begun))

    # --- engines that come and go with a piece of work ---

    def lend(self, name: str, loaded: Loaded) -> None:
        """Take orders for it until `withdraw`; whoever lends it closes it."""
        self._broken[name] = asyncio.Event()
        self._serve(name, loaded)

    def withdraw(self, name: str) -> None:
        if self._loaded.pop(name, None) is not None:
            del self._broken[name], self.doing[name]
            self._tell()

    # --- orders ---

    def start(self, start: Start) -> None:
        """Begin an order; at once `Broke` where it can't be."""
        name = next(
            (
                it
                for it, loaded in self._loaded.items()
                if loaded.engine.model == start.model and loaded.only in (None, start.gateway)
            ),
            None,
        )
        if name is None:
            self._report(Broke(start.order, "engine_failed", "the engine is starting again", 1000))
            return
        try:
            stream = self._loaded[name].engine.submit(start.request)
        except Busy as error:
            self._report(Broke(start.order, "busy", str(error), int(error.retry_after_s * 1000)))
        except Unfit as error:
            self._report(Broke(start.order, "bad_request", str(error)))
        except EngineFailed as error:
            self._broken[name].set()
            self._report(Broke(start.order, "engine_failed", str(error), 1000))
        else:
            self._streams[start.order] = stream
            assert self._tasks is not None, "orders come after `run`"
            self._tasks.create_task(self._stream(name, start.order, start.gateway, stream))

    def stop(self, stop: Stop) -> None:
        """Free the engine now. With `report`, the stream's own end tells what was produced."""
        stream = self._streams.get(stop.order) if stop.report else self._streams.pop(stop.order, None)
        if stream is not None:
            stream.cancel()

    async def _stream(self, name: str, order: Digest, gateway: Address, stream: Stream) -> None:
        sender = _Sender(self._outlet, gateway, order)
        try:
            async for event in stream:
                if self._streams.get(order) is not stream:
                    return  # stopped: nobody waits for it
                if isinstance(event, Finish):
                    sender.flush()
                    self._report(
                        Produced(order, Answer(tuple(sender.tokens), event.reason), event.usage.cached_tokens)
                    )
                    return
                self.tokens += 1
                sender.add(event)
                if sender.behind:
                    await self._outlet.drained(gateway)
                    sender.behind = False
        except EngineFailed as error:
            if name in self._broken:
                self._broken[name].set()
            if self._streams.get(order) is stream:
                self._report(Broke(order, "engine_failed", str(error), 1000))
        finally:
            if self._streams.get(order) is stream:
                del self._streams[order]


class _Sender:
    """Collects an order's events of one engine step and sends them as one frame."""

    def __init__(self, outlet: Outlet, gateway: Address, order: Digest) -> None:
        self._outlet = outlet
        self._gateway = gateway
        self._order = order
        self._loop = asyncio.get_running_loop()
        self._fresh: list[TokenEvent] = []
        self.tokens: list[int] = []
        self.behind = False

    def add(self, event: TokenEvent) -> None:
        # What this step still holds is added before the loop comes round to `flush`.
        if not self._fresh:
            self._loop.call_soon(self.flush)
        self._fresh.append(event)
        self.tokens.append(event.token)
        if len(self._fresh) == MOST_TOKENS_A_FRAME:
            self.flush()

    def flush(self) -> None:
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return
        said = fresh[0].logprob is not None
        frame = Tokens(
            self._order,
            len(self.tokens) - len(fresh),
            tuple(event.token for event in fresh),
            tuple(_milli(event.logprob or 0.0) for event in fresh) if said else (),
            tuple(tuple((token, _milli(value)) for token, value in event.top) for event in fresh)
            if said
            else (),
        )
        self._outlet.send(self._gateway, frame)
        self.behind = True


def _milli(logprob: float) -> int:
    """Thousandths of a nat; minus infinity, for what can't be, is the least number there is."""
    return max(LEAST_MILLI, round(logprob * 1000)) if logprob > -1e6 else LEAST_MILLI


def loader(models_folder: Path, weights: Mapping[str, str] = MappingProxyType({})) -> Load:
    """Engines as configured, of models that are verified before they are loaded.

    Args:
        weights: what else is served under a model's address, by the model's name. That is fraud, and nothing that a node can be
            configured with comes here: the demonstration's villain does.
    """

    def load(config: ModelConfig, progress: Progress) -> Loaded:
        store = ModelStore(models_folder)
        model = find(store, config.name)
        try:
            engine = load_engine(
                store,
                model,
                weights=find(store, weights[config.name]) if config.name in weights else None,
                slots=config.slots,
                queue=config.queue,
                cache_bytes=config.cache_mb << 20,
                threads=config.threads,
                progress=progress,
                pause_s=config.pause_ms / 1000,
            )
        except ImportError as error:
            raise NoSuchModel(
                f"{config.name} needs an engine that isn't installed ({error}): pip install 'clusterai[node]'"
            ) from None
        return Loaded(engine, _offer(config, model.address, model.card.input_wei, model.card.output_wei))

    return load


def _offer(config: ModelConfig, model: bytes, input_wei: int, output_wei: int) -> ModelOffer:
    return ModelOffer(
        model,
        config.name,
        input_wei if config.input_wei is None else config.input_wei,
        output_wei if config.output_wei is None else config.output_wei,
        config.slots,
    )
