"""What the gaps of an answer weigh: the log of how much likelier they are under fraud than under honest work.

Two frauds are weighed beside honest work, by the shares of gaps that the card's calibration gives for each:

    other weights   every token comes from a model nearly ours: many small gaps
    edits           one token in `EDITED_EVERY` was put in by hand, all others are honest: one large gap

An answer's weight is that of a mixture of both. A mixture of likelihoods is one, so Ville's bound holds for it as for each
(a sum of weights would be wrong). Other weights alone were no match for an edit: each honest token spoke against it.
"""

import math

from clusterai.models.core.card import Calibration

EDITED_EVERY = 256
"""Of the second fraud: answers twice as long or short cost it half a nat."""

EDITS = 0.75
"""The second fraud's part in the mixture. What both pay for it: 0.3 nats an answer for edits, 1.4 for other weights."""

IMPOSSIBLE_MILLI = 30_000
"""Weight of what can't be an error of arithmetic: from the sequential test's floor to conviction is 27,632."""

GENERIC = Calibration(
    edges_e4=(0, 200, 1_000, 3_000, 6_000, 10_000, 20_000, 40_000),
    honest_ppb=(900_000_000, 60_000_000, 50_000_000, 40_000_000, 2_000_000, 100_000, 10_000, 3_000, 3_000),
    fraud_ppm=(780_000, 5_000, 15_000, 30_000, 40_000, 30_000, 50_000, 20_000, 10_000),
    edited_ppm=(1, 60_000, 60_000, 60_000, 60_000, 60_000, 60_000, 100_000, 540_000),
    honest_tokens=0,
    source="generic: twice the gaps seen between bf16 and f32 on small models; run scripts/calibrate.py for better",
)
"""For a model whose card has no calibration yet: more tokens are needed to convict, none fewer to stay innocent."""


def weights(calibration: Calibration) -> tuple[list[float], list[float]]:
    """The log-likelihood ratio of each bin, in nats: other weights against honest work, and edits against it.

    Both are made to rise with the bin: a provider whose arithmetic is closer to ours than the calibrated worst can only do better.
    """
    other: list[float] = []
    edits: list[float] = []
    rate = 1 / EDITED_EVERY
    shares = zip(calibration.honest_ppb, calibration.fraud_ppm, calibration.edited_ppm, strict=True)
    for honest, fraud, edited in shares:
        other.append(max([math.log(1000 * fraud / honest), *other[-1:]]))
        edits.append(max([math.log1p(rate * (1000 * edited / honest - 1)), *edits[-1:]]))
    return other, edits


class Scales:
    """Weighs one answer, a gap at a time."""

    def __init__(self, calibration: Calibration) -> None:
        self._edges = [edge / 10_000 for edge in calibration.edges_e4]
        self._weights = weights(calibration)
        self._other = 0.0
        self._edits = 0.0
        self._tokens = 0
        self._impossible = 0

    def add(self, gap: float) -> None:
        self._tokens += 1
        if math.isinf(gap):
            # No arithmetic explains it: that isn't weighed, it convicts.
            self._impossible += 1
            return
        at = sum(gap > edge for edge in self._edges)
        self._other += self._weights[0][at]
        self._edits += self._weights[1][at]

    @property
    def milli(self) -> int:
        """The weight so far, in thousandths of a nat."""
        if not self._tokens:
            return 0
        high, low = max(self._other, self._edits), min(self._other, self._edits)
        parts = (EDITS, 1 - EDITS) if self._edits >= self._other else (1 - EDITS, EDITS)
        mixed = high + math.log(parts[0] + parts[1] * math.exp(low - high))
        if self._impossible:
            return round(1000 * max(mixed, 0)) + IMPOSSIBLE_MILLI * self._impossible
        return round(1000 * mixed)
