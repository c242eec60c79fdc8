"""Draws tokens, and says how far a claimed token is from being the one drawn.

Order of the distortions: penalties, bias, grammar, temperature, top-k, top-p, min-p; then the noise, and the largest
wins. `draw` is what a provider does; `gap` is what an audit does with its own logits, which differ from the provider's
in the last bits. An honest token's gap is the noise of the arithmetic; a forged one's is the size of a logit.
"""

import math
from collections.abc import Callable, Iterable
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from clusterai.work.inference.core import noise
from clusterai.work.inference.spec import MILLION, Sampling

Row = NDArray[np.float32]

NEAR = 8.0
"""First look at tokens within e^-8 of the likeliest; the rest is asked only whether it can still win."""

FORBIDDEN = np.float32(-1e30)
"""Logit of what the grammar forbids: never wins, and unlike an infinity it can be subtracted."""


class Draw(msgspec.Struct, frozen=True):
    """A drawn token and its score (scaled logit plus noise)."""

    token: int
    score: float


class Context:
    """What penalties look at: the tokens before the one to be drawn."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int] = (), answer: Iterable[int] = ()) -> None:
        self._sampling = sampling
        self._repeats = sampling.repetition_ppm != MILLION
        self._counts = sampling.presence_ppm != 0 or sampling.frequency_ppm != 0
        self._seen: dict[int, None] = dict.fromkeys(prompt) if self._repeats else {}
        self._times: dict[int, int] = {}
        self._bias = np.array([token for token, _ in sampling.logit_bias], dtype=np.int64)
        self._milli = np.array([milli / 1000 for _, milli in sampling.logit_bias], dtype=np.float32)
        self.plain = not (self._repeats or self._counts or sampling.logit_bias)
        for token in answer:
            self.push(token)

    def push(self, token: int) -> None:
        """The answer has one more token."""
        if self._repeats:
            self._seen[token] = None
        if self._counts:
            self._times[token] = self._times.get(token, 0) + 1

    def distort(self, row: Row) -> Row:
        """Penalties and bias on a copy of `row`; tokens that the model doesn't have are passed over."""
        row = row.copy()
        size = len(row)
        if self._seen:
            seen = _ids(self._seen, size)
            values = row[seen]
            factor = np.float32(self._sampling.repetition_ppm / MILLION)
            row[seen] = np.where(values > 0, values / factor, values * factor)
        if self._times:
            times = {token: count for token, count in self._times.items() if token < size}
            counts = np.fromiter(times.values(), np.float32, len(times))
            frequency = np.float32(self._sampling.frequency_ppm / MILLION)
            presence = np.float32(self._sampling.presence_ppm / MILLION)
            row[_ids(times, size)] -= counts * frequency + presence
        if len(self._bias):
            inside = self._bias < size
            row[self._bias[inside]] += self._milli[inside]
        return row


def draw(
    row: Row,
    sampling: Sampling,
    position: int,
    context: Context | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> Draw:
    """Draw the answer's token at `position` from the model's logits.

    Args:
        row: (vocabulary,) float32; not changed.
        context: needed where penalties or biases are set.
        allowed: (vocabulary,) the grammar's mask; at least one token is allowed.
    """
    row = _distorted(row, context, allowed)
    if sampling.temperature_ppm == 0:
        token = int(row.argmax())
        return Draw(token, float(row[token]))
    key = noise.keys(sampling.seed, position)
    if _filters(sampling):
        field = _field(row, sampling)
        scores = field.scaled + noise.gumbel(noise.bits(key, _spread(len(row))[field.tokens]))
        at = int(scores.argmax())
        return Draw(int(field.tokens[at]), float(scores[at]))
    return _draw_unfiltered(row, sampling, key)


def gap(
    row: Row,
    sampling: Sampling,
    position: int,
    claimed: int,
    context: Context | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> float:
    """By how much the logits would have to be off for `claimed` to be the token drawn; 0 where it is.

    In units of the model's logits. Infinite where grammar or vocabulary forbid the token.
    Where a filter decides (the claimed token just outside of top-p, or the winner just inside), the distance to the
    filter's border counts, for there the same small error of arithmetic flips the draw.
    """
    if not 0 <= claimed < len(row) or (allowed is not None and not allowed[claimed]):
        return math.inf
    row = _distorted(row, context, allowed)
    if sampling.temperature_ppm == 0:
        return float(row.max()) - float(row[claimed])
    key = noise.keys(sampling.seed, position)
    spread = _spread(len(row))
    scale = MILLION / sampling.temperature_ppm
    own_bits = noise.bits(key, spread[claimed : claimed + 1])
    own = float(row[claimed]) * scale + float(noise.gumbel(own_bits)[0])
    if not _filters(sampling):
        return max(0.0, _draw_unfiltered(row, sampling, key).score - own) / scale
    field = _field(row, sampling)
    scores = field.scaled + noise.gumbel(noise.bits(key, spread[field.tokens]))
    return max(_lost(row, sampling, field, scores - own), _outside(row, sampling, field, claimed)) / scale


def logprobs(row: Row, token: int, alternatives: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Natural log probabilities under the model itself, before any distortion: the token's, and of the likeliest."""
    top = float(row.max())
    total = top + math.log(float(np.exp(row - np.float32(top)).sum(dtype=np.float64)))
    if alternatives == 0:
        return float(row[token]) - total, ()
    best = _likeliest(row, alternatives, 1.0)[:alternatives]
    return float(row[token]) - total, tuple((int(i), float(row[i]) - total) for i in best)


class _Field(msgspec.Struct, frozen=True):
    """The tokens that filters leave, likeliest first.

    `slack` is how far each is from being filtered out by top-k or min-p (for top-p see `_Ladder`), and `total` the log of the whole mass (NaN without top-p), in
    scaled logits.
    """

    tokens: NDArray[np.int64]
    scaled: NDArray[np.float64]
    slack: NDArray[np.float64]
    total: float


def _field(row: Row, sampling: Sampling) -> _Field:
    scale = MILLION / sampling.temperature_ppm
    top = float(row.max())
    total = math.nan
    wanted = len(row)
    if sampling.top_k:
        wanted = min(wanted, sampling.top_k)
    if sampling.min_p_ppm:
        floor = top + math.log(sampling.min_p_ppm / MILLION) / scale
        wanted = min(wanted, int(np.count_nonzero(row >= floor)))
    if sampling.top_p_ppm < MILLION:
        tokens, scaled, total = _top_p(row, sampling.top_p_ppm / MILLION, wanted, scale, top)
    else:
        tokens = _likeliest(row, wanted + 1, scale)
        scaled = row[tokens].astype(np.float64) * scale
    kept = min(wanted, len(tokens))
    slack = np.full(kept, math.inf)
    if sampling.top_k and kept == sampling.top_k and len(tokens) > kept:
        slack = np.minimum(slack, scaled[:kept] - scaled[kept])
    if sampling.min_p_ppm:
        slack = np.minimum(
            slack,
            scaled[:kept] - (top * scale + math.log(sampling.min_p_ppm / MILLION)),
        )
    if sampling.top_p_ppm < MILLION:
        share = np.exp(scaled[:kept] - total)
        before = np.concatenate(([0.0], np.cumsum(share)[:-1]))
        border = sampling.top_p_ppm / MILLION
        inside = before < border
        inside[0] = True
        kept = int(np.count_nonzero(inside))
    return _Field(tokens[:kept], scaled[:kept], slack[:kept], total)


def _top_p(
    row: Row, border: float, wanted: int, scale: float, top: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Likeliest tokens, enough to hold mass `border` or to be `wanted` + 1, and the log of the whole mass."""
    weights = np.exp((row - np.float32(top)) * np.float32(scale))
    whole = float(weights.sum(dtype=np.float64))
    near = _near(
        row, top, scale, lambda near: len(near) > wanted or float(weights[near].sum()) >= border * whole
    )
    tokens = near[np.argsort(-row[near], kind="stable")][: wanted + 1]
    return tokens, row[tokens].astype(np.float64) * scale, top * scale + math.log(whole)


def _outside(row: Row, sampling: Sampling, field: _Field, claimed: int) -> float:
    """How far `claimed` is outside of the filters; 0 inside."""
    if claimed in field.tokens:
        return 0.0
    scale = MILLION / sampling.temperature_ppm
    own = float(row[claimed]) * scale
    far = 0.0
    if sampling.top_k and len(field.tokens) == sampling.top_k:
        far = float(field.scaled[-1]) - own
    if sampling.min_p_ppm:
        far = max(far, float(field.scaled[0]) + math.log(sampling.min_p_ppm / MILLION) - own)
    if sampling.top_p_ppm < MILLION:
        far = max(far, _Ladder(row, sampling, field.total).up(own))
    return far


def _lost(row: Row, sampling: Sampling, field: _Field, over: NDArray[np.float64]) -> float:
    """By how much a token of the field is better than the claimed one, or by how much less it would not be in the field."""
    lost = 0.0
    ladder: _Ladder | None = None
    for at in np.argsort(-over):
        if over[at] <= lost:
            break
        reach = min(float(over[at]), float(field.slack[at]))
        if sampling.top_p_ppm < MILLION:
            ladder = ladder or _Ladder(row, sampling, field.total)
            reach = min(reach, ladder.down(int(at)))
        lost = max(lost, reach)
    return lost


class _Ladder:
    """All tokens from the likeliest down: how far one of them is from top-p's border, in scaled logits.

    At a near tie two tokens change places, and the mass before each changes by that of a whole token. So a token is moved
    to every place, and there the mass before it is brought to the border; the larger of both errors counts, and the place
    where that is least.
    """

    def __init__(self, row: Row, sampling: Sampling, total: float) -> None:
        self._scaled = -np.sort(-row).astype(np.float64) * (MILLION / sampling.temperature_ppm)
        self._shares = np.exp(self._scaled - total)
        self._through = np.cumsum(self._shares)
        self._border = float(_log_odds(sampling.top_p_ppm / MILLION))

    def down(self, at: int) -> float:
        """Until the token at this place, inside, is outside. The likeliest is never outside."""
        first = max(1, at)
        before = self._through[first:] - self._shares[at]
        falls = self._scaled[at] - self._scaled[first:]
        odds = np.maximum(0, self._border - _log_odds(before))
        return float(np.maximum(falls, odds).min(initial=math.inf))

    def up(self, own: float) -> float:
        """Until a token of this scaled logit, outside, is inside."""
        places = max(1, int(np.searchsorted(-self._scaled, -own)) + 1)
        rises = np.maximum(0, self._scaled[:places] - own)
        odds = np.maximum(0, _log_odds(np.concatenate(([0.0], self._through[: places - 1]))) - self._border)
        odds[0] = 0
        return float(np.maximum(rises, odds[: len(rises)]).min())


def _draw_unfiltered(row: Row, sampling: Sampling, key: tuple[np.uint32, np.uint32]) -> Draw:
    """The exact winner over the whole vocabulary, computing exact noise for the few that can win.

    A token below the near ones wins only with noise above `best - edge`. That is a threshold on its integer bits, so
    that the many are compared as integers, and no logarithm is taken of them.
    """
    scale = MILLION / sampling.temperature_ppm
    spread = _spread(len(row))
    top = float(row.max())
    edge = top * scale - NEAR
    near = np.flatnonzero(row >= edge / scale)
    scores = row[near].astype(np.float64) * scale + noise.gumbel(noise.bits(key, spread[near]))
    at = int(scores.argmax())
    token, best = int(near[at]), float(scores[at])
    least = noise.least_bits(best - edge)
    if least < 2**32:
        lucky = np.flatnonzero(noise.bits(key, spread) >= np.uint32(least))
        if len(lucky):
            scores = row[lucky].astype(np.float64) * scale + noise.gumbel(noise.bits(key, spread[lucky]))
            at = int(scores.argmax())
            if scores[at] > best:
                token, best = int(lucky[at]), float(scores[at])
    return Draw(token, best)


def _distorted(row: Row, context: Context | None, allowed: NDArray[np.bool_] | None) -> Row:
    if context is not None and not context.plain:
        row = context.distort(row)
    if allowed is not None:
        row = np.where(allowed[: len(row)], row, FORBIDDEN)
    return row


def _likeliest(row: Row, count: int, scale: float) -> NDArray[np.int64]:
    """The `count` likeliest tokens in order; found by thresholds, ten times faster than a partition."""
    count = min(count, len(row))
    top = float(row.max())
    near = _near(row, top, scale, lambda near: len(near) >= count)
    return near[np.argsort(-row[near], kind="stable")][:count]


def _near(
    row: Row, top: float, scale: float, enough: Callable[[NDArray[np.int64]], bool]
) -> NDArray[np.int64]:
    """Tokens down from the likeliest, until there are enough; looked for ever further below."""
    depth = 2.0
    while True:
        near = np.flatnonzero(row >= top - depth / scale)
        if len(near) == len(row) or enough(near):
            return near
        depth = depth * 1.4 if depth < 64 else math.inf


def _filters(sampling: Sampling) -> bool:
    return sampling.top_k > 0 or sampling.top_p_ppm < MILLION or sampling.min_p_ppm > 0


def _log_odds(share: NDArray[np.float64] | float) -> NDArray[np.float64]:
    inside = np.clip(share, 1e-12, 1 - 1e-12)
    return np.log(inside) - np.log1p(-inside)


def _ids(tokens: Iterable[int], size: int) -> NDArray[np.int64]:
    return np.array([token for token in tokens if token < size], dtype=np.int64)


@lru_cache(maxsize=8)
def _spread(size: int) -> NDArray[np.uint32]:
    return noise.spread(size)
