"""What each member of a federated run added, though only sums over random groups were seen: least squares over all rounds' groups.

    worth of a group in a round  =  mean over its members of (s pull + push)  +  what it is off by

where s is how much that round's groups were worth in the middle, `pull` what a member adds in that measure, and `push` what it adds whatever
the round. What a group is worth must be linear in its members' updates, as the training room's slopes are (`work.training.core.worth`): then parts
of a group's members don't depend on who else was drawn, the parts of all add up, and a member has what its own update is worth and not
what its neighbours' are. The error is the regression's: how badly any such parts explain what was seen.

A member is paid for what lies above nothing by more than `SURE` errors. So who adds nothing has nothing, but for a few in a hundred by chance, and those
a few hundredths of a share; so has who adds less than so few rounds can show.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from clusterai.audit.core.contribution.neighbours import UNIT

SURE = 3.0
"""Standard errors above 0."""
SCALE = 1 << 20
"""Steps of a worth's unit that a score can tell."""
MOST_SCORE = 1 << 62
RIDGE = 0.3
"""Pushes towards 0: a few rounds tell them badly from pulls."""

Reals = NDArray[np.float64]


class Seen(msgspec.Struct, frozen=True):
    """One round: members of each group, by their numbers, and what the group's sum was worth."""

    groups: tuple[tuple[int, ...], ...]
    worths: tuple[float, ...]


class Added(msgspec.Struct, frozen=True):
    """What a member added over all rounds that it took part in, and the standard error of that."""

    value: float
    error: float

    @property
    def score(self) -> int:
        """In 2^-20 of the worth's unit, so that the last bits of two machines' arithmetic change nothing."""
        if not self.value > SURE * self.error:
            return 0
        return min(MOST_SCORE, round(self.value * SCALE) * (UNIT // SCALE))


def added(rounds: Sequence[Seen], members: int) -> list[Added] | None:
    """For members 0, 1, …; None where too few groups were seen to tell: fewer than three for two members."""
    rounds = [it for it in rounds if it.groups]
    seen = sum(len(it.groups) for it in rounds)
    if 2 * seen < 3 * members or not members:
        return None
    sizes = np.array([np.mean(np.abs(it.worths)) for it in rounds])
    usual = float(np.median(sizes))
    if not usual > 0:
        return [Added(0.0, 0.0)] * members
    sizes = np.maximum(sizes, 1e-6 * usual)
    both = seen >= 3 * members
    rows, right = _equations(rounds, sizes, usual, members)
    rows = rows if both else rows[:, :members]
    kept = np.full(rows.shape[1], 1e-9)
    kept[members:] = RIDGE
    normal = rows.T @ rows + np.diag(kept)
    inverse: Reals = np.linalg.inv(normal).astype(np.float64)
    found = inverse @ (rows.T @ right)
    left = right - rows @ found
    freedom = max(1.0, len(right) - float(np.trace(inverse @ rows.T @ rows)))
    spread = inverse * float(left @ left) / freedom
    sums = np.zeros((members, rows.shape[1]))
    for size, it in zip(sizes, rounds, strict=True):
        there = sorted({who for group in it.groups for who in group})
        sums[there, there] += size
        if both:
            sums[there, [members + who for who in there]] += usual
    errors = np.sqrt(np.maximum(0.0, np.einsum("ij,jk,ik->i", sums, spread, sums)))
    return [Added(float(value), float(error)) for value, error in zip(sums @ found, errors, strict=True)]


def _equations(rounds: Sequence[Seen], sizes: Reals, usual: float, members: int) -> tuple[Reals, Reals]:
    """One for each group; those of rounds that were worth much are off by more, and weigh less."""
    rows: list[Reals] = []
    right: list[float] = []
    for size, it in zip(sizes, rounds, strict=True):
        weight = 1 / np.sqrt(size * usual)
        for group, worth in zip(it.groups, it.worths, strict=True):
            row = np.zeros(2 * members)
            row[list(group)] = size / len(group)
            row[[members + who for who in group]] = usual / len(group)
            rows.append(row * weight)
            right.append(worth * weight)
    return np.array(rows), np.array(right)
