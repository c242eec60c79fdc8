"""The hook for constrained decoding: what may come next, given what came."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class BadSchema(ValueError):
    """The JSON schema can't be followed; the message says which part. Change it, or leave response_format out."""


class Grammar(Protocol):
    """State of one answer."""

    def allowed(self, size: int) -> NDArray[np.bool_]:
        """(size,) which tokens may come next; at least one, and an end token once the text is complete."""
        ...

    def push(self, token: int) -> None:
        """The answer has one more token, an allowed one.

        Raises:
            ValueError: the grammar forbids it: an honest provider couldn't have drawn it.
        """
        ...


GrammarMaker = Callable[[str], Grammar]
"""Makes the grammar of a JSON schema, for one model's vocabulary. Raises `BadSchema`."""
