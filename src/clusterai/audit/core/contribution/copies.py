"""Rows that somebody had before: copies, exact or nearly, earn nothing for who came second, and held-out rows for nobody.

"Before" is the order in which contributors committed to their data on chain. Two rows are copies if they lie within the study's radius,
whatever their labels: a copier who flips labels doesn't escape by it.

Noise beyond the radius still leaves each row the nearest of the one that it came from, and that one its nearest: nearly all rows of a noisy
copy pair up so with the original's, where sets of independent rows pair up as held-out rows do. A set that pairs up like
a copy is void as far as it pairs. What remains to a copier is measured in docs/explanation/contribution.md.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clusterai.audit.core.contribution.whole import Ints, Rows, squares

Mask = NDArray[np.bool_]

LEAST_ROWS = 50
COPY_SHARE, COPY_MORE = 0.85, 0.25
"""Share of rows that pair up, and how much more than of held-out rows. On digits, sets of 140: copies with noise of up to 0.6 of the spread
0.95 to 1.0, independent rows 0.37 to 0.46, of one class alone 0.35 to 0.43; where the earlier set is three times as large, 0.69."""


def originals(parts: Sequence[Rows], held_out: Rows, radius_steps: int) -> list[Mask]:
    """For each contributor, in the order of their commitments, which rows are his own.

    Args:
        radius_steps: distance, in steps of one feature, up to which two rows are the same. 0: exact copies alone.
    """
    most = radius_steps * radius_steps
    seen = held_out.features
    found: list[Mask] = []
    kept: list[Ints] = []
    for part in parts:
        own = ~_near(part.features, seen, most)
        own[own] = _first_of_each(part.features[own], most)
        # Against each of those before, and against all of them: a copy may be put together from several.
        for before in (*kept, np.concatenate(kept)) if len(kept) > 1 else kept:
            own[own] = ~derived(part.features[own], before, held_out.features)
        found.append(own)
        kept.append(part.features[own])
        seen = np.concatenate([seen, kept[-1]])
    return found


def radius_of(held_out: Rows, per_mille: int = 5) -> int:
    """A radius within which hardly any two independent rows lie: of so many held-out rows in a thousand, another one does.

    Honest rows are void as often by chance, times how many more rows are contributed than held out. It is 0, exact copies alone, where
    independent rows often are equal.
    """
    nearest: list[int] = []
    for start, distances in squares(held_out.features, held_out.features):
        distances[np.arange(len(distances)), start + np.arange(len(distances))] = np.iinfo(np.int64).max
        nearest += distances.min(axis=1).tolist()
    if len(nearest) < 2:
        return 0
    return max(0, math.isqrt(sorted(nearest)[len(nearest) * per_mille // 1000]) - 1)


def derived(rows: Ints, before: Ints, held_out: Ints) -> Mask:
    """Which rows are noisy copies of an earlier contributor's: none, unless nearly all pair up with his and held-out rows don't.

    Where he has several times as many rows, everything pairs up with him, held-out rows too; then this can't tell, and says none.
    """
    none = np.zeros(len(rows), np.bool_)
    count = min(len(rows), len(held_out))
    if count < LEAST_ROWS or len(before) < LEAST_ROWS:
        return none
    share = _paired(rows[:count], before).mean()
    usual = _paired(held_out[:count], before).mean()
    return _paired(rows, before) if share >= COPY_SHARE and share - usual >= COPY_MORE else none


def _paired(rows: Ints, others: Ints) -> Mask:
    """Which rows are the nearest to their own nearest of the others."""
    to = np.empty(len(rows), np.int64)
    back = np.full(len(others), -1)
    best = np.full(len(others), np.iinfo(np.int64).max)
    for start, distances in squares(rows, others):
        to[start : start + len(distances)] = distances.argmin(axis=1)
        nearest = distances.argmin(axis=0)
        least = distances[nearest, np.arange(len(others))]
        closer = least < best
        back[closer], best[closer] = nearest[closer] + start, least[closer]
    return back[to] == np.arange(len(rows))


def _near(rows: Ints, others: Ints, most: int) -> Mask:
    """Which rows lie that close to one of the others."""
    found = np.zeros(len(rows), np.bool_)
    if len(others):
        for start, distances in squares(rows, others):
            found[start : start + len(distances)] = distances.min(axis=1) <= most
    return found


def _first_of_each(rows: Ints, most: int) -> Mask:
    """Which rows aren't that close to an earlier one of the same contributor."""
    found = np.ones(len(rows), np.bool_)
    for start, distances in squares(rows, rows):
        before = np.tri(len(distances), len(rows), start - 1, dtype=np.bool_)
        found[start : start + len(distances)] = ~((distances <= most) & before).any(axis=1)
    return found
