"""The engine port as daemons see it, whatever the kind of work: requests in, a stream of tokens out.

An engine serves one model. What a token is, its kind of work says: a word's piece, a number of a vector. A kind's own
check may ask its engines for more than this (see `work.inference.engine`).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, Protocol

import msgspec

from clusterai.models.store import StoredModel

FinishReason = Literal["stop", "length", "cancelled"]
"""`stop`: it is complete. `length`: a limit ended it. `cancelled`: the client."""


class Busy(Exception):
    """The engine's queue is full ({queued} waiting). Try again in {retry_after_s:.1f} s, or at another provider."""

    def __init__(self, queued: int, retry_after_s: float) -> None:
        super().__init__(
            f"the engine's queue is full ({queued} waiting); try again in {retry_after_s:.1f} s, or elsewhere"
        )
        self.queued = queued
        self.retry_after_s = retry_after_s


class Unfit(ValueError):
    """This engine can't do this request, ever; the message says what to change."""


class EngineFailed(Exception):
    """The engine broke while this ran; nothing is owed for it. It goes on elsewhere."""


class OutOfRange(ValueError):
    """`field` is `value`; make it between `low` and `high`."""

    def __init__(self, field: str, value: object, low: object, high: object) -> None:
        super().__init__(f"{field} is {value!r}; make it between {low} and {high}")
        self.field = field


def within(field: str, value: int, low: int, high: int) -> None:
    """
    Raises:
        OutOfRange: it isn't.
    """
    if not low <= value <= high:
        raise OutOfRange(field, value, low, high)


MOST_TOKENS = 1_048_576


class Usage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one order used, in tokens.

    `prompt_tokens` counts all input; `cached_tokens` of those were already in the engine's cache (said by the
    provider, not proven, and so not a matter of price); `answer_tokens` counts the new tokens, the one that ends the
    answer included.
    """

    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int

    def __post_init__(self) -> None:
        within("prompt_tokens", self.prompt_tokens, 0, MOST_TOKENS)
        within("cached_tokens", self.cached_tokens, 0, self.prompt_tokens)
        within("answer_tokens", self.answer_tokens, 0, MOST_TOKENS)


class TokenEvent(msgspec.Struct, frozen=True):
    """One more token. `logprob` (natural log, undistorted) and `top` are there when they were asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Finish(msgspec.Struct, frozen=True):
    """The last event of a stream."""

    reason: FinishReason
    usage: Usage


class Stats(msgspec.Struct, frozen=True):
    """A moment of an engine; `tokens_per_s` is over the last few seconds."""

    queued: int
    running: int
    tokens_per_s: float
    blocks_free: int
    blocks_total: int


class Stream(Protocol):
    """Events of one request, ending in `Finish`. `EngineFailed` is raised where the engine breaks."""

    def __aiter__(self) -> AsyncIterator[TokenEvent | Finish]: ...

    def cancel(self) -> None:
        """The client went away. Memory is freed at once; the stream ends with `cancelled` and what was used."""
        ...


class Engine(Protocol):
    """One loaded model. `model` is its content address."""

    model: bytes

    def submit(self, generation: Any, /) -> Stream:
        """Queue a request of the engine's kind; called in the event loop's thread.

        Raises:
            Busy: the queue is full.
            Unfit: it can't be done by this engine, ever.
        """
        ...

    def stats(self) -> Stats: ...

    async def close(self) -> None:
        """Stop; streams that still run raise `EngineFailed`."""
        ...


class Means(msgspec.Struct, frozen=True):
    """What a machine gives to one engine.

    Attributes:
        slots: requests in work at once.
        queue: requests that wait beyond those.
        weights: serve these under the model's address: what a cheat does, and the demo shows to be caught.
    """

    slots: int = 32
    queue: int = 128
    cache_bytes: int = 512 << 20
    threads: int = 1
    weights: StoredModel | None = None


class QueueStream:
    """The asyncio end of an engine's stream. Bounded by the request: an engine can't produce more than it allows."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._events: deque[TokenEvent | Finish | EngineFailed] = deque()
        self._wake = asyncio.Event()

    def put(self, event: TokenEvent | Finish | EngineFailed) -> None:
        """Called in the event loop's thread."""
        self._events.append(event)
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[TokenEvent | Finish]:
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, EngineFailed):
                    raise event
                yield event
                if isinstance(event, Finish):
                    return
            self._wake.clear()
            await self._wake.wait()

    def cancel(self) -> None:
        self._cancel()
