"""The engine port of embedding: beyond what daemons need, the vectors themselves, for the audit."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clusterai.work.embedding.spec import Embedding
from clusterai.work.engine import Busy, EngineFailed, Finish, Stats, Stream, TokenEvent, Unfit


class Engine(Protocol):
    """One loaded embedding model.

    Attributes:
        model: its content address.
        size: length of a vector.
        context: tokens of a text beyond this can't be embedded.
        vocabulary: token ids are below this.
    """

    model: bytes
    size: int
    context: int
    vocabulary: int

    def submit(self, request: Embedding, /) -> Stream:
        """Queue a request; called in the event loop's thread. Its tokens come all at once, before `Finish`.

        Raises:
            Busy: too many texts wait.
            Unfit: another model or size of vector, a text beyond the context, a token that the model hasn't got.
        """
        ...

    async def embed(self, texts: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        """(texts, size): a vector of length 1 for each text.

        Raises:
            EngineFailed: it broke.
        """
        ...

    def stats(self) -> Stats: ...

    async def close(self) -> None: ...


__all__ = ["Busy", "Engine", "EngineFailed", "Finish", "Stats", "Stream", "TokenEvent", "Unfit", "unfit"]


def unfit(engine: Engine, request: Embedding) -> str | None:
    """Why this engine can't ever do the request; None where it can."""
    if request.model != engine.model:
        return f"this engine serves model 0x{engine.model.hex()}; ask another provider"
    if request.size != engine.size:
        return f"vectors of this model have {engine.size} numbers, not {request.size}"
    longest = max(map(len, request.texts))
    if longest > engine.context:
        return f"a text has {longest} tokens and this model takes {engine.context}: shorten or split it"
    if max(map(max, request.texts)) >= engine.vocabulary:
        return f"token ids of this model are 0 to {engine.vocabulary - 1}"
    return None
