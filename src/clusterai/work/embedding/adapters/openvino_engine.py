"""Embeddings on OpenVINO: a BERT encoder, mean of the last states, length 1.

    submit ──> waiting ──(a worker takes up to BATCH texts, of several requests)──> compute in a thread ──> streams

Texts of one batch are of similar length, since short ones are padded to the longest; padding is masked, so a vector doesn't
depend on its neighbours beyond the last bits.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence

import msgspec
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from clusterai.models.store import ModelStore, Progress, StoredModel
from clusterai.work.embedding.adapters.bert import BertConfig, bert_graph, read_safetensors
from clusterai.work.embedding.core.judge import quantised
from clusterai.work.embedding.engine import Busy, EngineFailed, Finish, Stats, TokenEvent, Unfit, unfit
from clusterai.work.embedding.spec import Embedding
from clusterai.work.request import Usage
from clusterai.work.streams import QueueStream

BATCH = 16
"""Texts in one call; more gain nothing on a CPU, and short texts would wait for long ones."""
MOST_WAITING = 128
"""Texts that wait: about 1 s of work on a core of one's own. A gateway takes a longer silence for death."""
RATE_S = 5.0


class OpenVinoEmbedder:
    """See the port, `work.embedding.engine.Engine`. One infer request: calls beyond it would share the same cores."""

    def __init__(
        self,
        model: StoredModel,
        *,
        weights: StoredModel | None = None,
        threads: int = 1,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        served = weights or model
        config = msgspec.json.decode(served.paths["config.json"].read_bytes(), type=BertConfig)
        tensors = read_safetensors(served.paths["model.safetensors"])
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = ov.Core().compile_model(bert_graph(config, tensors), "CPU", settings)
        self._request = compiled.create_infer_request()
        self.model = bytes(model.address)
        self.size = config.hidden_size
        self.context = min(
            model.card.context or config.max_position_embeddings, config.max_position_embeddings
        )
        self.vocabulary = len(tensors["embeddings.word_embeddings.weight"])
        self._lock = threading.Lock()
        self._most_waiting = most_waiting
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._done: deque[tuple[float, int]] = deque()
        self._closed = False

    def submit(self, request: Embedding, /) -> QueueStream:
        if self._closed:
            raise EngineFailed("the engine is closed")
        if (why := unfit(self, request)) is not None:
            raise Unfit(why)
        queued = sum(len(job.request.texts) for job in self._waiting)
        if queued + len(request.texts) > self._most_waiting:
            raise Busy(queued, 0.5)
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work(), name="embedder")
        job = _Job(request)
        job.stream = QueueStream(lambda: self._cancel(job))
        self._waiting.append(job)
        self._wake.set()
        return job.stream

    async def embed(self, texts: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        found = np.zeros((len(texts), self.size), np.float32)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            try:
                found[chosen] = await asyncio.to_thread(self._compute, [texts[at] for at in chosen])
            except RuntimeError as error:
                raise EngineFailed(str(error)) from error
        return found

    def stats(self) -> Stats:
        since_s = time.monotonic() - RATE_S
        tokens = sum(tokens for at_s, tokens in self._done if at_s >= since_s)
        return Stats(len(self._waiting), len(self._running), tokens / RATE_S, 0, 0)

    async def close(self) -> None:
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        self._fail([*self._running, *self._waiting], "the engine was closed")

    # --- the worker ---

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            jobs = self._running = self._next()
            texts = [text for job in jobs for text in job.request.texts]
            try:
                rows = quantised(await self.embed(texts))
            except EngineFailed as error:
                self._closed = True
                self._fail([*jobs, *self._waiting], str(error))
                return
            tokens, start = sum(map(len, texts)), 0
            for job in jobs:
                end = start + len(job.request.texts)
                job.finish(rows[start:end])
                start = end
            self._running = []
            self._done.append((time.monotonic(), tokens))
            while self._done[0][0] < time.monotonic() - RATE_S:
                self._done.popleft()

    def _next(self) -> list["_Job"]:
        """The oldest request, and those behind it that fit into its batch."""
        jobs = [self._waiting.popleft()]
        texts = len(jobs[0].request.texts)
        while self._waiting and texts + len(self._waiting[0].request.texts) <= BATCH:
            jobs.append(self._waiting.popleft())
            texts += len(jobs[-1].request.texts)
        return jobs

    def _cancel(self, job: "_Job") -> None:
        """What waits never runs; what runs is about to be done."""
        if job in self._waiting:
            self._waiting.remove(job)
            job.stream.put(Finish("cancelled", Usage(0, 0, 0)))

    def _fail(self, jobs: list["_Job"], why: str) -> None:
        self._running = []
        self._waiting.clear()
        for job in jobs:
            job.stream.put(EngineFailed(why))

    def _compute(self, batch: list[tuple[int, ...]]) -> NDArray[np.float32]:
        longest = max(map(len, batch))
        ids = np.zeros((len(batch), longest), np.int64)
        mask = np.zeros((len(batch), longest), np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        with self._lock:
            self._request.set_tensor("ids", ov.Tensor(ids))
            self._request.set_tensor("mask", ov.Tensor(mask))
            self._request.infer()
            return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)


class _Job:
    """One request on its way."""

    __slots__ = ("request", "stream")

    def __init__(self, request: Embedding) -> None:
        self.request = request
        self.stream: QueueStream

    def finish(self, rows: NDArray[np.int64]) -> None:
        for token in rows.ravel().tolist():
            self.stream.put(TokenEvent(token))
        self.stream.put(Finish("stop", Usage(sum(map(len, self.request.texts)), 0, rows.size)))


def load_engine(
    store: ModelStore,
    model: StoredModel,
    *,
    weights: StoredModel | None = None,
    slots: int = 32,
    queue: int = 128,
    cache_bytes: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> OpenVinoEmbedder:
    """An engine for `model`; half a second. Its queue is counted in texts, and it keeps no cache.

    Raises:
        Altered: the weights on disk aren't the model's.
        ValueError: the files are no BERT that is understood.
    """
    store.verify(weights or model, progress)
    if progress:
        progress("compiling the model", 0.6)
    engine = OpenVinoEmbedder(model, weights=weights, threads=threads)
    if progress:
        progress("ready", 1.0)
    return engine
