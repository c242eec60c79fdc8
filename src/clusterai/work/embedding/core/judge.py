"""What a vector says about who made it: compute it again, and see how far off it is.

Embedding draws nothing, so honest vectors differ by arithmetic alone: the order in which sums are added up, which
threads, batches and padding change. A vector is judged by its worst component and by its angle:

    |difference|  0 ......... SAME ....... DOUBTFUL ............. FOREIGN .......
                  the same    honest        as likely as not      no arithmetic does this: convicts

Measured by `scripts/calibrate_embedding.py` on all-minilm-l6-v2, worst component of each of 60 texts of 3 to 256 tokens,
against one thread and batches of 16:

    1 to 4 threads, alone or batched            at most 2e-7, so at most one step of the fixed point, 3.1e-5
    weights in half precision                   6e-5 .. 1.5e-4   close enough to harm nobody: not called fraud
    weights in bfloat16                         4.4e-4 .. 1.2e-3   doubtful: 5 to 10 vectors convict
    weights in 8 bits                           3.6e-3 .. 2e-2, cosine at most 0.99972: one vector convicts
    a text without its last word                1e-2 in the median

bfloat16 arithmetic, forced on the same engine, gave 6e-4 .. 1.6e-3. Other kinds of processor were not measured.
"""

import math

import numpy as np
from numpy.typing import NDArray

from clusterai.work.embedding.spec import SCALE, ZERO, Embedding
from clusterai.work.kind import Findings

SAME = 1.6 / SCALE
"""The two sides may round to neighbouring steps."""
DOUBTFUL = 2e-4
FOREIGN = 2.5e-3
LEAST_COSINE = 0.9998
HONEST_MILLI, DOUBTFUL_MILLI, FOREIGN_MILLI = -1_000, 3_000, 30_000
"""Weights of one vector. From the sequential test's floor to conviction is 27,632: one foreign vector convicts."""


def quantised(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Vectors in the fixed point of `spec`."""
    return np.rint(np.clip(rows.astype(np.float64), -1, 1) * SCALE).astype(np.int64) + ZERO


def wrong(request: Embedding, answer: tuple[int, ...], reason: str) -> str | None:
    """Why this can't be an answer, as far as it shows without the model.

    `cancelled` is believed: the gateway knows whether it cancelled, and pays or disputes.
    """
    wanted = len(request.texts) * request.size
    if len(answer) > wanted or (len(answer) < wanted and reason != "cancelled"):
        return f"{len(answer)} numbers came, {wanted} were asked for"
    if reason not in ("stop", "cancelled"):
        return f"vectors don't end by {reason[:20]!r}"
    if any(not ZERO - SCALE <= token <= ZERO + SCALE for token in answer):
        return "a number is outside the fixed point's range"
    return None


def impossible(numbers: int) -> Findings:
    return Findings(numbers, 0, FOREIGN_MILLI, -1)


def judge(ours: NDArray[np.float32], answer: tuple[int, ...]) -> tuple[Findings, list[float]]:
    """Findings, and each number's gap in parts of `DOUBTFUL`.

    Args:
        ours: (texts, size), computed here; only the texts that the answer has.
        answer: texts * size numbers.
    """
    theirs = (np.asarray(answer, np.float64).reshape(ours.shape) - ZERO) / SCALE
    exact = ours.astype(np.float64)
    off = np.abs(theirs - exact)
    length = np.linalg.norm(theirs, axis=1) * np.linalg.norm(exact, axis=1)
    cosine = np.sum(theirs * exact, axis=1) / np.maximum(length, 1e-12)
    weight, foreign = 0, 0
    for worst, angle in zip(off.max(axis=1), cosine, strict=True):
        if worst > FOREIGN or angle < LEAST_COSINE:
            foreign += 1
        else:
            weight += HONEST_MILLI if worst <= DOUBTFUL else DOUBTFUL_MILLI
    if foreign:
        # Honest neighbours excuse nothing.
        weight = max(weight, 0) + foreign * FOREIGN_MILLI
    gaps = np.where(off <= SAME, 0.0, off / DOUBTFUL)
    farthest = -1 if foreign else math.ceil(1000 * float(gaps.max(initial=0.0)))
    found = Findings(len(answer), int(np.count_nonzero(gaps == 0.0)), weight, farthest)
    return found, [float(gap) for gap in gaps.ravel()]
