"""The embedding port: texts to vectors of one length, for `/v1/embeddings`, routing and search."""

from collections.abc import Sequence
from typing import Protocol


class Embedder(Protocol):
    """One loaded embedding model.

    Attributes:
        model: its content address.
        size: length of a vector.
        context: tokens of a text beyond this are cut off.
    """

    model: bytes
    size: int
    context: int

    def count(self, text: str) -> int:
        """How many tokens of the text are used, at most `context`: what is charged."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 for each text, in order."""
        ...

    async def close(self) -> None: ...
