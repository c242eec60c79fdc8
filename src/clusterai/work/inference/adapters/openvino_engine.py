"""The engine on OpenVINO: continuous batching in a thread of its own.

The loop's thread owns model, scheduler and cache. Orders reach it through an inbox, events leave once per step: one call into
the event loop for all streams together.

    asyncio                         engine's thread
    submit, cancel, score --inbox-->  plan -> compute -> draw
    streams <----events of a step---  (again, or wait for the inbox)
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Tokens
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clusterai.models.core.card import Calibration
from clusterai.models.core.text import Vocabulary
from clusterai.work.inference.adapters.paged import PRECISION, PagedModel
from clusterai.work.inference.core.blocks import BLOCK, BlockPool
from clusterai.work.inference.core.ending import Ending
from clusterai.work.inference.core.grammar import BadSchema, Grammar, GrammarMaker
from clusterai.work.inference.core.sampler import Context, draw, logprobs
from clusterai.work.inference.core.schedule import Part, Scheduler, Sequence
from clusterai.work.inference.core.weight import GENERIC
from clusterai.work.inference.engine import Busy, EngineFailed, Finish, Stats, TokenEvent, Unfit
from clusterai.work.inference.spec import FinishReason, Generation, Usage
from clusterai.work.streams import QueueStream

Event = TokenEvent | Finish | EngineFailed
Rows = NDArray[np.float32]

RATE_WINDOW_S = 5.0
SCORE_AHEAD = 2
"""Chunks of logits that may wait to be read; then the scoring pauses."""

SCORE_SLICE = 16
"""Rows that are handed on at once."""


class _Job:
    """A generation in work. Used by the engine's thread alone, after it was made."""

    def __init__(
        self,
        generation: Generation,
        sequence: Sequence,
        ending: Ending,
        grammar: Grammar | None,
        put: QueueStream,
    ) -> None:
        self.generation = generation
        self.sequence = sequence
        self.stream = put
        self.drawn = 0
        self._ending = ending
        self._grammar = grammar
        self._context = Context(generation.sampling, generation.prompt, generation.so_far)
        self._input = len(generation.prompt) + len(generation.so_far)

    def take(self, row: Rows) -> tuple[TokenEvent, FinishReason | None]:
        """Draw the next token from its logits."""
        generation = self.generation
        position = len(generation.so_far) + self.drawn
        allowed = None if self._grammar is None else self._grammar.allowed(len(row))
        token = draw(row, generation.sampling, position, self._context, allowed).token
        said = logprobs(row, token, generation.logprobs) if generation.logprobs >= 0 else (None, ())
        reason = self._ending.push(token)
        self._context.push(token)
        if self._grammar is not None and reason is None:
            self._grammar.push(token)
        self.sequence.tokens.append(token)
        self.drawn += 1
        return TokenEvent(token, *said), reason

    def finish(self, reason: FinishReason) -> Finish:
        cached = min(self.sequence.cached, self._input)
        return Finish(reason, Usage(self._input, cached, self.drawn))


class _Scoring:
    """An audit's prefill in work."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.chunks: asyncio.Queue[Rows | EngineFailed] = asyncio.Queue()
        self.unread = 0


class _Reading:
    """An audit's rows, as they are taken.

    Args:
        left: rows still to come.
        taken, cancel: tell the engine that a chunk was taken, or that no more are wanted.
    """

    def __init__(
        self, job: _Scoring, left: int, taken: Callable[[], None], cancel: Callable[[], None]
    ) -> None:
        self._job = job
        self._left = left
        self._taken = taken
        self._cancel = cancel
        self._chunk: Rows = np.empty((0, 0), np.float32)

    def __aiter__(self) -> AsyncIterator[Rows]:
        return self

    async def __anext__(self) -> Rows:
        # Whoever judges these takes up to a millisecond a row: let others use the event loop between.
        await asyncio.sleep(0)
        if not len(self._chunk):
            if self._left <= 0:
                raise StopAsyncIteration
            rows = await self._job.chunks.get()
            if isinstance(rows, EngineFailed):
                raise rows
            self._left -= len(rows)
            self._taken()
            self._chunk = rows
        some, self._chunk = self._chunk[:SCORE_SLICE], self._chunk[SCORE_SLICE:]
        return some

    async def aclose(self) -> None:
        self._cancel()


class OpenVinoEngine:
    """One model in one thread.

    Args:
        folder: the converted model.
        model: the content address that it is served under.
        vocabulary: the tokens' bytes and the end tokens.
        context: the model's own limit.
        slots: answers in work at once. More share the weights' trip through the memory: 32 give 6 times one's rate.
        queue: answers waiting; then `Busy`.
        cache_bytes, threads, precision: see `PagedModel`.
        grammars: makes a grammar from a JSON schema; without it, schemas are refused.
        calibration: the audit's constants, from the model's card.
    """

    def __init__(
        self,
        folder: Path,
        model: bytes,
        vocabulary: Vocabulary,
        *,
        context: int,
        slots: int = 32,
        queue: int = 128,
        cache_bytes: int = 512 << 20,
        threads: int = 1,
        precision: str = PRECISION,
        grammars: GrammarMaker | None = None,
        calibration: Calibration = GENERIC,
    ) -> None:
        self._paged = PagedModel(folder, cache_bytes=cache_bytes, threads=threads, precision=precision)
        self.model = model
        self.context = context
        self._capacity = (self._paged.blocks - 1) * BLOCK
        self.vocabulary = self._paged.vocabulary
        self.words = vocabulary
        self.calibration = calibration
        self._most = slots + queue
        self._grammars = grammars
        self._pool = BlockPool(self._paged.blocks)
        self._scheduler = Scheduler(self._pool, slots=slots)
        self._jobs: dict[int, _Job | _Scoring] = {}
        self._next = 0
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._running = 0
        self._rate: deque[tuple[float, int]] = deque()
        self._outbox: list[tuple[_Job | _Scoring, Event | Rows]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, generation: Generation) -> QueueStream:
        if generation.model != self.model:
            raise Unfit("this engine serves another model; route the request by its model address")
        size = len(generation.prompt) + len(generation.so_far)
        most = len(generation.prompt) + generation.max_tokens
        self._fits(size, min(most, self.context), max(*generation.prompt, *generation.so_far, 0))
        if len(self._jobs) >= self._most:
            raise Busy(self.stats().queued, self._retry_after_s())
        try:
            grammar = self.grammar(generation)
        except BadSchema as error:
            raise Unfit(str(error)) from None
        ending = Ending(generation, self.words, self.context)
        self._start()
        sequence = Sequence(self._number(), generation.prompt, generation.so_far)
        stream = QueueStream(lambda: self._tell(lambda: self._cancel(sequence)))
        job = _Job(generation, sequence, ending, grammar, stream)
        self._jobs[sequence.number] = job
        self._tell(lambda: self._scheduler.add(sequence))
        return stream

    def score(self, prompt: Tokens[int], answer: Tokens[int], skip: int = 0) -> "_Reading":
        size = len(prompt) + len(answer)
        self._fits(size - 1, size, max(*prompt, *answer, 0))
        self._start()
        sequence = Sequence(self._number(), prompt, answer[:-1], rows_from=len(prompt) + skip - 1)
        job = _Scoring(sequence)
        self._jobs[sequence.number] = job
        self._tell(lambda: self._scheduler.add(sequence))
        return _Reading(
            job,
            len(answer) - skip,
            taken=lambda: self._tell(lambda: self._resume(job)),
            cancel=lambda: self._tell(lambda: self._cancel(sequence)),
        )

    def stats(self) -> Stats:
        """Numbers of other threads are read without a lock: a moment old, never torn."""
        now_s = time.monotonic()
        drawn = sum(count for at_s, count in list(self._rate) if now_s - at_s < RATE_WINDOW_S)
        running = self._running
        queued = max(0, len(self._jobs) - running)
        return Stats(queued, running, drawn / RATE_WINDOW_S, self._pool.available, self._pool.size)

    async def close(self) -> None:
        thread = self._thread
        if thread is None:
            return
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(thread.join)
        self._thread = None

    def grammar(self, generation: Generation) -> Grammar | None:
        schema = generation.sampling.schema
        if schema is None:
            return None
        if self._grammars is None:
            raise BadSchema("this engine can't follow a schema; leave response_format out")
        grammar = self._grammars(schema)
        try:
            for token in generation.so_far:
                grammar.push(token)
        except ValueError as error:
            raise BadSchema(f"the tokens so far don't follow the schema: {error}") from None
        return grammar

    def _fits(self, size: int, most: int, greatest: int) -> None:
        if size >= self.context:
            raise Unfit(f"the prompt has {size} tokens and the context {self.context}; shorten the prompt")
        if most > self._capacity:
            raise Unfit(f"{most} tokens don't fit this engine's cache of {self._capacity}; lower max_tokens")
        if greatest >= self.vocabulary:
            raise Unfit(
                f"token {greatest} is past the model's {self.vocabulary}; tokenize with the model's tokenizer"
            )

    def _retry_after_s(self) -> float:
        """How long until a queue's place is free, by the tokens that the running answers may still take."""
        rate = max(1.0, self.stats().tokens_per_s)
        left = [
            job.generation.max_tokens - job.drawn
            for job in list(self._jobs.values())
            if isinstance(job, _Job)
        ]
        return min(30.0, max(0.5, min(left, default=1) * max(1, self._running) / rate))

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _start(self) -> None:
        if self._closing:
            raise EngineFailed("the engine is closed; ask another provider")
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
            self._thread.start()

    def _tell(self, order: Callable[[], None]) -> None:
        with self._wake:
            self._inbox.append(order)
            self._wake.notify()

    # From here on, the engine's thread.

    def _work(self) -> None:
        try:
            while self._read_inbox():
                parts = self._scheduler.plan()
                if parts:
                    self._step(parts)
                self._count()
                self._flush()
                if not parts:
                    self._sleep()
        except BaseException as error:
            self._fail(f"the engine broke: {error}; resume the answer elsewhere")
            raise
        self._fail("the engine was closed; resume the answer elsewhere")

    def _read_inbox(self) -> bool:
        while self._inbox:
            self._inbox.popleft()()
        return not self._closing

    def _sleep(self) -> None:
        with self._wake:
            while not self._inbox and not self._closing:
                self._wake.wait()

    def _step(self, parts: list[Part]) -> None:
        wanted: list[int] = []
        takers: list[tuple[_Job | _Scoring, int]] = []
        row = 0
        for part in parts:
            rows = _rows(part)
            if rows:
                wanted += [row + at - part.start for at in rows]
                job = self._jobs[part.sequence.number]
                before = takers.pop()[1] if takers and takers[-1][0] is job else 0
                takers.append((job, before + len(rows)))
            row += part.end - part.start
        for block, copy in self._scheduler.take_copies():
            self._paged.copy(block, copy)
        logits = self._paged.compute(parts, wanted or [0])
        for part in parts:
            self._scheduler.computed(part)
        at, drawn = 0, 0
        for job, count in takers:
            if isinstance(job, _Scoring):
                self._give(job, logits[at : at + count].copy())
            else:
                event, reason = job.take(logits[at])
                drawn += 1
                self._outbox.append((job, event))
                if reason is not None:
                    self._end(job, reason)
            at += count
        if drawn:
            self._rate.append((time.monotonic(), drawn))

    def _give(self, job: _Scoring, rows: Rows) -> None:
        self._outbox.append((job, rows))
        job.unread += 1
        job.sequence.paused = job.unread >= SCORE_AHEAD
        if job.sequence.ready:
            self._forget(job)

    def _resume(self, job: _Scoring) -> None:
        job.unread -= 1
        job.sequence.paused = job.unread >= SCORE_AHEAD

    def _cancel(self, sequence: Sequence) -> None:
        job = self._jobs.get(sequence.number)
        if isinstance(job, _Job):
            self._end(job, "cancelled")
        elif job is not None:
            self._forget(job)

    def _end(self, job: _Job, reason: FinishReason) -> None:
        self._outbox.append((job, job.finish(reason)))
        self._forget(job)

    def _forget(self, job: _Job | _Scoring) -> None:
        self._scheduler.remove(job.sequence)
        self._jobs.pop(job.sequence.number, None)

    def _count(self) -> None:
        self._running = len(self._scheduler.running)
        horizon_s = time.monotonic() - RATE_WINDOW_S
        while self._rate and self._rate[0][0] < horizon_s:
            self._rate.popleft()

    def _fail(self, why: str) -> None:
        for job in list(self._jobs.values()):
            self._outbox.append((job, EngineFailed(why)))
        self._jobs.clear()
        self._closing = True
        self._flush()

    def _flush(self) -> None:
        if not self._outbox:
            return
        events, self._outbox = self._outbox, []
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(_deliver, events)


def _rows(part: Part) -> range:
    """Indices of the part's tokens whose logits are wanted."""
    sequence = part.sequence
    first = len(sequence.tokens) - 1 if sequence.rows_from is None else sequence.rows_from
    return range(max(part.start, first), part.end)


def _deliver(events: list[tuple[_Job | _Scoring, Event | Rows]]) -> None:
    for job, event in events:
        if isinstance(job, _Scoring):
            if not isinstance(event, TokenEvent | Finish):
                job.chunks.put_nowait(event)
        elif isinstance(event, TokenEvent | Finish | EngineFailed):
            job.stream.put(event)
