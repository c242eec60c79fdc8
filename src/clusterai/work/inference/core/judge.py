"""What an answer's tokens say about who made them: draw each again, and weigh how far off it is (see `weight`).

What no arithmetic explains (a token that the grammar forbids, an answer cut short) is not weighed: it convicts.
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
from clusterai.work.inference.core.weight import IMPOSSIBLE_MILLI, Scales
from clusterai.work.inference.spec import Generation
from clusterai.work.kind import Findings


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
        self._scales = Scales(calibration)
        self._grammar = grammar
        self._context = Context(generation.sampling, generation.prompt, generation.so_far)
        self._matches = 0
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
            self._matches += off <= 0
            self._scales.add(off)
            self._context.push(token)
            if self._grammar is not None and off < math.inf and at < len(self._answer) - 1:
                self._grammar.push(token)

    def findings(self) -> Findings:
        far = -1 if math.isinf(self._largest) else min(2**40, math.ceil(self._largest * 1000))
        return Findings(len(self.gaps), self._matches, self._scales.milli, far)
