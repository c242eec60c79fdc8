"""What an answer's tokens say about who made them: draw each again, and weigh how far off it is.

A gap (see `sampler.gap`) falls into one of a few bins; the card's calibration says how often honest tokens and those of
the mildest fraud fall into each. The log of that ratio is the token's weight of evidence, and an answer's weight is the
sum. Weights rise with the gap, so a provider whose arithmetic is closer to ours than the calibrated worst can only do
better. What no arithmetic explains (a token that the grammar forbids, an answer cut short) is not weighed: it convicts.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clusterai.models.core.card import Calibration
from clusterai.models.core.text import Vocabulary
from clusterai.work.inference.core.ending import why_ended
from clusterai.work.inference.core.grammar import Grammar
from clusterai.work.inference.core.sampler import Context, gap
from clusterai.work.inference.spec import Generation
from clusterai.work.kind import Findings

IMPOSSIBLE_MILLI = 30_000
"""Weight of what can't be an error of arithmetic: from the sequential test's floor to conviction is 27,632."""

GENERIC = Calibration(
    edges_e4=(0, 200, 1_000, 3_000, 6_000, 10_000, 20_000),
    honest_ppm=(900_000, 60_000, 50_000, 40_000, 2_000, 100, 10, 3),
    fraud_ppm=(800_000, 5_000, 15_000, 30_000, 40_000, 30_000, 50_000, 30_000),
    honest_tokens=0,
    source="generic: twice the gaps seen between bf16 and f32 on small models; run scripts/calibrate.py for better",
)
"""For a model whose card has no calibration yet: more tokens are needed to convict, none fewer to stay innocent."""


def weights_milli(calibration: Calibration) -> list[int]:
    """Log-likelihood ratio, fraud against honest, of each bin, in thousandths of a nat; made to rise with the bin."""
    weights: list[int] = []
    for fraud, honest in zip(calibration.fraud_ppm, calibration.honest_ppm, strict=True):
        weight = round(1000 * math.log(fraud / honest))
        weights.append(max([weight, *weights[-1:]]))
    return weights


def forged(
    generation: Generation, answer: Sequence[int], reason: str, words: Vocabulary, context: int
) -> bool:
    """The answer's shape alone is a lie: it ends where nothing ends it, runs past its end, or has no such token.

    `cancelled` is believed: the gateway knows whether it cancelled, and pays or disputes.
    """
    if any(not 0 <= token < len(words) for token in answer):
        return True
    why = why_ended(generation, tuple(answer), words, context)
    return why is None or (reason != "cancelled" and why != reason)


def impossible(tokens: int) -> Findings:
    return Findings(tokens, 0, IMPOSSIBLE_MILLI, -1)


class Judge:
    """Weighs one answer, as its logits come in.

    Args:
        answer: the new tokens, after `generation.so_far`.
        grammar: fresh, with `so_far` already pushed; None without a schema.
    """

    def __init__(
        self, generation: Generation, answer: Sequence[int], calibration: Calibration, grammar: Grammar | None
    ) -> None:
        self._sampling = generation.sampling
        self._first = len(generation.so_far)
        self._answer = answer
        self._edges = [edge / 10_000 for edge in calibration.edges_e4]
        self._weights = weights_milli(calibration)
        self._grammar = grammar
        self._context = Context(generation.sampling, generation.prompt, generation.so_far)
        self._matches = 0
        self._weight = 0
        self._largest = 0.0
        self.gaps: list[float] = []

    def read(self, rows: NDArray[np.float32]) -> None:
        """The logits for the next len(rows) tokens of the answer."""
        for row in rows:
            at = len(self.gaps)
            token = self._answer[at]
            allowed = None if self._grammar is None else self._grammar.allowed(len(row))
            off = gap(row, self._sampling, self._first + at, token, self._context, allowed)
            self.gaps.append(off)
            self._largest = max(self._largest, off)
            self._weigh(off)
            self._context.push(token)
            if self._grammar is not None and off < math.inf and at < len(self._answer) - 1:
                self._grammar.push(token)

    def findings(self) -> Findings:
        far = -1 if math.isinf(self._largest) else min(2**40, math.ceil(self._largest * 1000))
        return Findings(len(self.gaps), self._matches, self._weight, far)

    def _weigh(self, off: float) -> None:
        if math.isinf(off):
            self._weight = max(self._weight, 0) + IMPOSSIBLE_MILLI
            return
        self._matches += off <= 0
        bin_ = sum(off > edge for edge in self._edges)
        self._weight += self._weights[bin_]
