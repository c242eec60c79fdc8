"""The engine port as daemons see it, whatever the kind of work: requests in, a stream of tokens out.

An engine serves one model. What a token is, its kind of work says: a word's piece, a number of a vector. A kind's own
check may ask its engines for more than this (see `work.inference.engine`).
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

from clusterai.work.request import FinishReason, Usage


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
