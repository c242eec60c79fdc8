"""What each row is worth to a classifier of nearest neighbours: exact Shapley values, in closed form.

The game: a set of rows is worth the share of the right label among the K rows nearest to a held-out one, and an empty set what guessing is
worth, one by the number of classes. So a row that says nothing has the value 0 in the mean, a wrong one less.

Values belong to rows and add up, so an owner who splits his rows among ten names gets what he got under one.

Sources: Jia et al. 2019, arXiv:1908.08619 (closed form); Wang and Jia 2023, arXiv:2304.04258 (this game, with the guess).
"""

import numpy as np
from numpy.typing import NDArray

from clusterai.audit.core.contribution.whole import Ints, Rows, squares
from clusterai.protocol.keccak import keccak

UNIT = 1 << 40
"""Of a value: 2^40 is one held-out row told right instead of never."""


def row_values(rows: Rows, held_out: Rows, classes: int, neighbours: int, beacon: bytes) -> Ints:
    """(held-out rows, rows): each row's value at each held-out row, in units.

    The values at one held-out row add up to what all rows together are worth there, less the guess, but for rounding.

    Args:
        neighbours: K.
        beacon: breaks ties between rows at the same distance, so that nobody can place his rows to win them.
    """
    count = len(rows)
    found = np.zeros((len(held_out), count), np.int64)
    if not count:
        return found
    most = min(neighbours, count)
    ties = _ties(rows, beacon)
    falls = _falls(count, most)
    for start, distances in squares(held_out.features, rows.features):
        order = np.argsort((distances << 18) + ties, axis=1)
        right = (rows.labels[order] == held_out.labels[start : start + len(order), None]).astype(np.int64)
        np.put_along_axis(found[start : start + len(order)], order, _values(right, classes, most, falls), 1)
    return found


def _values(right: Ints, classes: int, most: int, falls: Ints) -> Ints:
    """Of rows in the order of their distance; `right` is 1 where a row has the held-out row's label."""
    count = right.shape[1]
    found = np.empty_like(right)
    last = right[:, -1]
    found[:, -1] = (last * classes - 1) * UNIT // (count * classes)
    if count > 1:
        others = right[:, :-1].sum(axis=1)
        more = round(UNIT * (sum(1 / it for it in range(1, most + 1)) - 1))
        found[:, -1] += (last * (count - 1) - others) * more // (count * (count - 1))
        steps = (right[:, :-1] - right[:, 1:]) * falls
        found[:, :-1] = steps[:, ::-1].cumsum(axis=1)[:, ::-1] + found[:, -1:]
    return found


def _falls(count: int, most: int) -> Ints:
    """By how much the value falls from place i to i + 1 where the first is right and the second isn't."""
    place = np.arange(1, count, dtype=np.float64)
    harmonic = sum(1 / it for it in range(1, most + 1))
    inner = harmonic + (np.minimum(place, most) * (count - 1) / place - most) / most
    return np.rint(UNIT * inner / max(1, count - 1)).astype(np.int64)


def _ties(rows: Rows, beacon: bytes) -> Ints:
    """A place for each row among those at the same distance, which nobody knew when the rows were committed to."""
    lots: NDArray[np.uint64] = np.frombuffer(
        b"".join(keccak(beacon + at.to_bytes(8, "big"))[:8] for at in range(len(rows))), ">u8"
    ).astype(np.uint64)
    found = np.empty(len(rows), np.int64)
    found[np.argsort(lots, kind="stable")] = np.arange(len(rows))
    return found
