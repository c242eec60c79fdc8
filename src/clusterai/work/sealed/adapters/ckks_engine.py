"""Sealed inference as an engine: one request after another in a thread, milliseconds each.

submit ──> waiting ──(the worker)──> evaluate in a thread ──> packed bytes ──> stream
"""

import asyncio
import contextlib
import time
from collections import deque

from clusterai.models.store import ModelStore, Progress, StoredModel
from clusterai.work.packed import tokens_of
from clusterai.work.request import Usage
from clusterai.work.sealed.adapters.ckks import Scheme, Transparent
from clusterai.work.sealed.core.layout import weight_polynomials
from clusterai.work.sealed.core.model import read_shape, read_weights
from clusterai.work.sealed.engine import Busy, EngineFailed, Finish, Stats, TokenEvent, Unfit, unfit
from clusterai.work.sealed.price import units
from clusterai.work.sealed.spec import Sealed
from clusterai.work.streams import QueueStream

SHAPE, WEIGHTS = "shape.json", "weights.json"
"""Roles of a model's files."""
MOST_WAITING = 32
"""About a second of work; a gateway takes a longer silence for death."""
RATE_S = 5.0


class CkksEngine:
    """See the port, `work.sealed.engine.Engine`.

    Args:
        weights: evaluate these under the model's address: what a cheat does.
    """

    def __init__(
        self, model: StoredModel, *, weights: StoredModel | None = None, most_waiting: int = MOST_WAITING
    ) -> None:
        served = weights or model
        shape = read_shape(served.paths[SHAPE].read_bytes())
        matrix = read_weights(served.paths[WEIGHTS].read_bytes(), shape)
        self.model = bytes(model.address)
        self.layout = shape.layout()
        self._scheme = Scheme(shape.ring)
        self._weights = [
            [self._scheme.encoded(polynomial) for polynomial in group]
            for group in weight_polynomials(self.layout, matrix)
        ]
        self._most_waiting = most_waiting
        self._waiting: deque[tuple[Sealed, QueueStream]] = deque()
        self._running: QueueStream | None = None
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._done: deque[tuple[float, int]] = deque()
        self._closed = False

    def submit(self, request: Sealed, /) -> QueueStream:
        if self._closed:
            raise EngineFailed("the engine is closed")
        if (why := unfit(self, request)) is not None:
            raise Unfit(why)
        if len(self._waiting) >= self._most_waiting:
            raise Busy(len(self._waiting), 0.5)
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work(), name="sealed inference")

        def cancel() -> None:
            """What waits never runs; what runs is about to be done."""
            if (request, stream) in self._waiting:
                self._waiting.remove((request, stream))
                stream.put(Finish("cancelled", Usage(0, 0, 0)))

        stream = QueueStream(cancel)
        self._waiting.append((request, stream))
        self._wake.set()
        return stream

    async def evaluate(self, request: Sealed) -> bytes:
        if (why := unfit(self, request)) is not None:
            raise Unfit(why)
        return await asyncio.to_thread(self._evaluate, request)

    def stats(self) -> Stats:
        since_s = time.monotonic() - RATE_S
        made = sum(tokens for at_s, tokens in self._done if at_s >= since_s)
        return Stats(len(self._waiting), int(self._running is not None), made / RATE_S, 0, 0)

    async def close(self) -> None:
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        left = [stream for _, stream in self._waiting] + ([self._running] if self._running else [])
        self._waiting.clear()
        for stream in left:
            stream.put(EngineFailed("the engine was closed"))

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            request, stream = self._waiting.popleft()
            self._running = stream
            try:
                tokens = tokens_of(await self.evaluate(request))
            except Unfit:
                # Shows only when it is computed. Nothing is owed for it, and the engine is whole: a failure of the engine would have it
                # loaded again, and a stranger could keep it from everybody else so.
                stream.put(Finish("cancelled", Usage(0, 0, 0)))
            except (RuntimeError, ValueError, MemoryError) as error:
                self._closed = True
                for left in (stream, *(it for _, it in self._waiting)):
                    left.put(EngineFailed(str(error)))
                self._waiting.clear()
                self._running = None
                return
            else:
                for token in tokens:
                    stream.put(TokenEvent(token))
                taken, made = units(request)
                stream.put(Finish("stop", Usage(taken, 0, made)))
                self._note(len(tokens))
            self._running = None

    def _note(self, tokens: int) -> None:
        self._done.append((time.monotonic(), tokens))
        while self._done[0][0] < time.monotonic() - RATE_S:
            self._done.popleft()

    def _evaluate(self, request: Sealed) -> bytes:
        loaded = [self._scheme.loaded(it) for it in request.ciphertexts]
        try:
            return b"".join(self._scheme.product_sum(loaded, group) for group in self._weights)
        except Transparent as error:
            raise Unfit(str(error)) from None


def load_engine(
    store: ModelStore,
    model: StoredModel,
    *,
    weights: StoredModel | None = None,
    slots: int = 32,
    queue: int = MOST_WAITING,
    cache_bytes: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> CkksEngine:
    """An engine for `model`; a tenth of a second. It keeps no cache and computes in one thread.

    Raises:
        Altered: the weights on disk aren't the model's.
        ImportError: TenSEAL isn't installed.
        ValueError: the files are no model for sealed inputs.
    """
    store.verify(weights or model, progress)
    engine = CkksEngine(model, weights=weights, most_waiting=min(queue, MOST_WAITING))
    if progress:
        progress("ready", 1.0)
    return engine
