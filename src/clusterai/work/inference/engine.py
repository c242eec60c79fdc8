"""The engine port: everything above it is the same for OpenVINO on a laptop and vLLM on a GPU.

An engine serves one model. It takes generations into a bounded queue, decodes many at once and streams tokens;
a token is a function of weights, prompt and seed alone, whatever else shares its batch. For the audit it
also gives the logits of a finished answer in one prefill.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clusterai.models.core.card import Calibration
from clusterai.models.core.text import Vocabulary
from clusterai.work.engine import Busy, EngineFailed, Finish, Stats, Stream, TokenEvent, Unfit
from clusterai.work.inference.core.grammar import Grammar
from clusterai.work.inference.spec import Generation


class Rows(Protocol):
    """The logits of a finished answer, in chunks (rows, vocabulary), as the engine computes them."""

    def __aiter__(self) -> AsyncIterator[NDArray[np.float32]]: ...

    def aclose(self) -> Awaitable[None]:
        """Whether read to the end or not: compute no more of them."""
        ...


class Engine(Protocol):
    """One loaded model.

    Attributes:
        model: its content address.
        context: the most tokens that prompt and answer may have together.
        vocabulary: rows of logits are this wide.
        words: the bytes of each token, and which tokens end an answer.
        calibration: the audit's constants for this model.
    """

    model: bytes
    context: int
    vocabulary: int
    words: Vocabulary
    calibration: Calibration

    def grammar(self, generation: Generation) -> Grammar | None:
        """The grammar of the generation's schema, with `so_far` read; None without a schema.

        Raises:
            BadSchema: it can't be followed, or `so_far` doesn't.
        """
        ...

    def submit(self, generation: Generation) -> Stream:
        """Queue a generation; called in the event loop's thread.

        Raises:
            Busy: the queue is full.
            Unfit: another model, more tokens than the context, a schema that can't be followed.
        """
        ...

    def score(self, prompt: Sequence[int], answer: Sequence[int], skip: int = 0) -> Rows:
        """The logits that predict answer[skip:], in chunks of rows, from one prefill of prompt and answer.

        Row i of all chunks together predicts answer[skip + i]; there are len(answer) - skip rows. Chunks bound
        the memory: a row of 49,152 logits takes 192 KiB. The engine begins at once, and is ahead of who takes them by
        two chunks at most. Close what is returned.

        Raises:
            Unfit: more tokens than the context or the cache.
        """
        ...

    def stats(self) -> Stats: ...

    async def close(self) -> None:
        """Stop; streams that still run raise `EngineFailed`."""
        ...


__all__ = ["Busy", "Engine", "EngineFailed", "Finish", "Rows", "Stats", "Stream", "TokenEvent", "Unfit"]
