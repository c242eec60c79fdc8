"""What every kind of work must be able to say about a request, so that orders and receipts can be judged."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

Answered = tuple[Any, tuple[int, ...], str]
"""A request, the tokens that came for it, and the reason that was stated for their end."""


CheckPart = Callable[[Any, tuple[int, ...], str, bytes], Awaitable["Findings"]]


class Findings(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the check of one answer found, in integers so that it can be journaled and told.

    Attributes:
        tokens: how many were made again.
        matches: how many of them came out the same.
        weight_milli: log-likelihood ratio of fraud against honest work, in thousandths of a nat; positive speaks for
            fraud. Receipts add up, see `audit.core.sequential`.
        largest_gap_milli: the worst token's distance from the right one, in thousandths of the kind's `gap_unit`; -1
            where no arithmetic error explains it (a token that grammar or vocabulary forbid).
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
            nothing is left to do. A kind that can't go on elsewhere has no `resume`: all of it is done again.
        check: (engine, [(request, the answer's tokens, the reason it ended)]) to the findings for each, in order;
            the engine is of the model that the requests name. None for a kind that can't be checked yet, or has `check_part`.
        check_part: (request, the answer's tokens, reason, lot) to the findings of a part that `lot` draws: 32 bytes that follow
            from the beacon, so that every validator does the same part. For kinds that need no engine to be done again.
        judge: the same for one answer, with every token's gap for those who want to see the evidence.
        wrong: (request, tokens, reason) to why that can't be an answer, as far as it shows without an engine: who asked
            doesn't pay for it. None where nothing shows.
        serves: the `kind` on the cards of models that do this work.
            Empty where there are no models: then `judge` takes None for an engine.
        engines: the module whose `load_engine` makes an engine, called as `work.loading` calls it. Its name, since
            engines bring heavy libraries, and a kind must be known without them.
        spell: (engine, tokens) to how each is shown to people.
        gap_unit: what gaps are measured in.
        hosts: the module whose `host(vault)` makes a `work.service.Service` over a vault; for kinds that are done where data lies. Its
            name, for the reason of `engines`. Empty for all others.
        packed: whether answers are bytes (`work.packed`), so that gateways take its orders and hand out its answers unread. All kinds
            with `hosts` are.
        first_s: silence before the answer's first token that is no sign of death, where it is more than the gateway's own patience: kinds
            that compute for long and then say all at once. That the provider is there, its link shows meanwhile.
    """

    name: str
    decode: Callable[[bytes], Any]
    cap_wei: Callable[[Any, int, int], int]
    recount: Callable[[Any, tuple[int, ...]], tuple[int, int]]
    resume: Callable[[Any, tuple[int, ...]], Any] | None = None
    check: Callable[[Any, Sequence[Answered]], Awaitable[list[Findings]]] | None = None
    check_part: CheckPart | None = None
    judge: Callable[[Any, Any, tuple[int, ...], str], Awaitable[tuple[Findings, list[float]]]] | None = None
    wrong: Callable[[Any, tuple[int, ...], str], str | None] | None = None
    serves: str = ""
    engines: str = ""
    spell: Callable[[Any, tuple[int, ...]], list[str]] | None = None
    gap_unit: str = "logits"
    hosts: str = ""
    packed: bool = False
    first_s: float = 0.0
