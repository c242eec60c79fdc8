"""The tiny model behind the engine port: no weights, no threads, ten thousand tokens a second."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clusterai.work.inference.core import tiny
from clusterai.work.inference.core.ending import Ending
from clusterai.work.inference.core.grammar import BadSchema, Grammar
from clusterai.work.inference.core.sampler import Context, draw, logprobs
from clusterai.work.inference.core.weight import GENERIC
from clusterai.work.inference.engine import (
    Busy,
    EngineFailed,
    Finish,
    Stats,
    TokenEvent,
    Unfit,
)
from clusterai.work.inference.spec import Generation, Usage
from clusterai.work.streams import QueueStream


class TinyEngine:
    """`slots` answers at once, `queue` more waiting.

    Args:
        pause_s: time per step; 0 is as fast as the machine is, and the bench's stub.
        altered: see `TinyModel`; above 0 this engine cheats.
    """

    def __init__(
        self,
        model: bytes,
        *,
        context: int = 8192,
        slots: int = 64,
        queue: int = 256,
        pause_s: float = 0.0,
        altered: float = 0.0,
    ) -> None:
        self.model = model
        self.context = context
        self.vocabulary = tiny.SIZE
        self.words = tiny.vocabulary()
        self.calibration = GENERIC
        self._tiny = tiny.TinyModel(model, altered)
        self._slots = asyncio.Semaphore(slots)
        self._limit = slots + queue
        self._slot_count = slots
        self._pause_s = pause_s
        self._tasks: dict[asyncio.Task[None], QueueStream] = {}
        self._closed = False

    def grammar(self, generation: Generation) -> Grammar | None:
        if generation.sampling.schema is not None:
            raise BadSchema("the tiny model can't follow a schema; leave response_format out")
        return None

    def submit(self, generation: Generation) -> QueueStream:
        if generation.model != self.model:
            raise Unfit("this engine serves another model; route the request by its model address")
        size = len(generation.prompt) + len(generation.so_far)
        if size >= self.context:
            raise Unfit(f"prompt has {size} tokens, the context {self.context}; shorten the prompt")
        try:
            self.grammar(generation)
        except BadSchema as error:
            raise Unfit(str(error)) from None
        if self._closed:
            raise EngineFailed("the engine is closed; ask another provider")
        if len(self._tasks) >= self._limit:
            raise Busy(self._limit - self._slot_count, 0.1)
        stopping = asyncio.Event()
        stream = QueueStream(stopping.set)
        task = asyncio.get_running_loop().create_task(self._run(generation, stream.put, stopping.is_set))
        self._tasks[task] = stream
        task.add_done_callback(partial(self._tasks.pop))
        return stream

    async def _run(
        self,
        generation: Generation,
        put: Callable[[TokenEvent | Finish], None],
        stopping: Callable[[], bool],
    ) -> None:
        prompt = generation.prompt + generation.so_far
        async with self._slots:
            state = self._tiny.start()
            for token in prompt:
                state = self._tiny.after(state, token)
            penalties = Context(generation.sampling, generation.prompt, generation.so_far)
            ending = Ending(generation, self.words, self.context)
            size, reason = 0, None
            while reason is None:
                await asyncio.sleep(self._pause_s)
                if stopping():
                    reason = "cancelled"
                    break
                row = self._tiny.logits(state)
                token = draw(row, generation.sampling, len(generation.so_far) + size, penalties).token
                size += 1
                said = logprobs(row, token, generation.logprobs) if generation.logprobs >= 0 else (None, ())
                put(TokenEvent(token, *said))
                reason = ending.push(token)
                penalties.push(token)
                state = self._tiny.after(state, token)
            put(Finish(reason, Usage(len(prompt), 0, size)))

    async def score(
        self, prompt: Sequence[int], answer: Sequence[int], skip: int = 0
    ) -> AsyncGenerator[NDArray[np.float32], None]:
        state = self._tiny.start()
        for token in (*prompt, *answer[:skip]):
            state = self._tiny.after(state, token)
        for token in answer[skip:]:
            yield self._tiny.logits(state)[None, :]
            state = self._tiny.after(state, token)

    def stats(self) -> Stats:
        running = min(len(self._tasks), self._slot_count)
        return Stats(
            len(self._tasks) - running,
            running,
            0.0,
            self._limit - len(self._tasks),
            self._limit,
        )

    async def close(self) -> None:
        self._closed = True
        streams = list(self._tasks.items())
        for task, stream in streams:
            task.cancel()
            stream.put(EngineFailed("the engine was closed; resume the answer elsewhere"))
        await asyncio.gather(*(task for task, _ in streams), return_exceptions=True)
