"""Rows that somebody had before: copies, exact or nearly, earn nothing for who came second, and held-out rows for nobody.

"Before" is the order in which contributors committed to their data on chain. Two rows are copies if they lie within the study's radius,
whatever their labels: a copier who flips labels doesn't escape by it. Noise beyond the radius makes rows of their own, whose worth
falls as the noise grows; see the measurements in docs/explanation/contribution.md.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clusterai.audit.core.contribution.whole import Ints, Rows, squares

Mask = NDArray[np.bool_]


def originals(parts: Sequence[Rows], held_out: Rows, radius_steps: int) -> list[Mask]:
    """For each contributor, in the order of their commitments, which rows are his own.

    Args:
        radius_steps: distance, in steps of one feature, up to which two rows are the same. 0: exact copies alone.
    """
    most = radius_steps * radius_steps
    seen = held_out.features
    found: list[Mask] = []
    for part in parts:
        own = ~_near(part.features, seen, most)
        own[own] = _first_of_each(part.features[own], most)
        found.append(own)
        seen = np.concatenate([seen, part.features[own]])
    return found


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
