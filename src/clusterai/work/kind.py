"""What every kind of work must be able to say about a request, so that orders and receipts can be judged."""

from collections.abc import Callable
from typing import Any

import msgspec


class Kind(msgspec.Struct, frozen=True):
    """A kind of work, by the functions that differ between kinds.

    Attributes:
        name: what `Work.kind` and `Transcript.kind` carry.
        decode: canonical bytes to request; raises `canonical.Malformed` for a stranger's nonsense.
        cap_wei: (request, input price, output price) to the most that it can cost.
        recount: (request, answer's tokens) to (input units, output units) as an honest receipt states them.
    """

    name: str
    decode: Callable[[bytes], Any]
    cap_wei: Callable[[Any, int, int], int]
    recount: Callable[[Any, tuple[int, ...]], tuple[int, int]]
