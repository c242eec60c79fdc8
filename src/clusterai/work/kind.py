"""What every kind of work must be able to say about a request, so that orders and receipts can be judged."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec


class Findings(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the check of one answer found, in integers so that it can be journaled and told.

    Attributes:
        tokens: how many were drawn again.
        matches: how many of them came out the same.
        weight_milli: log-likelihood ratio of fraud against honest work, in thousandths of a nat; positive speaks for
            fraud. Receipts add up, see `audit.core.sequential`.
        largest_gap_milli: the worst token's distance from being drawn, in thousandths of a logit; -1 where no
            arithmetic error explains it (a token that grammar or vocabulary forbid).
    """

    tokens: int
    matches: int
    weight_milli: int
    largest_gap_milli: int


class Kind(msgspec.Struct, frozen=True):
    """A kind of work, by the functions that differ between kinds.

    Attributes:
        name: what `Work.kind` and `Transcript.kind` carry.
        decode: canonical bytes to request; raises `canonical.Malformed` for a stranger's nonsense.
        cap_wei: (request, input price, output price) to the most that it can cost.
        recount: (request, answer's tokens) to (input units, output units) as an honest receipt states them.
        resume: (request, tokens that it gave before its provider went away) to the request for the rest; None when
            nothing is left to do. A kind that can't go on elsewhere has no `resume`.
        check: (engine, [(request, the answer's tokens, the reason it ended)]) to the findings for each, in order;
            the engine is of the model that the requests name. None for a kind that can't be checked yet.
    """

    name: str
    decode: Callable[[bytes], Any]
    cap_wei: Callable[[Any, int, int], int]
    recount: Callable[[Any, tuple[int, ...]], tuple[int, int]]
    resume: Callable[[Any, tuple[int, ...]], Any] | None = None
    check: Callable[[Any, Sequence[tuple[Any, tuple[int, ...], str]]], Awaitable[list[Findings]]] | None = (
        None
    )
