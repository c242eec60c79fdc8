"""What to believe of group sums when some members poison theirs.

Members are drawn into groups by a beacon; each group's sum is masked and opened by itself, so that the server sees group means
and nothing smaller. A mean of clipped updates is no longer than the clip: a group whose mean is longer holds a member
that broke its bound, and is left out whole. What is left is combined by a rule that tolerates a minority of bad
*groups*. With a share p of poisoners and groups of m, a share 1 - (1 - p)^m of groups is touched: at p = 10 % groups of
6 still leave a majority clean, at 30 % groups of 1 only. Beyond that only an update of one's own (`trusted`: what the
requester computes on a few rows that it holds itself) says which side is the poisoned one.

What is bounded: a poisoner moves its group's mean by at most (bound + what the others would have summed to) and, through
the median of mostly clean groups, the result by at most the spread of clean groups' means. What is not: poison inside the norm bound, in the
direction that honest updates spread anyway, such as a backdoor in honest-looking data.
"""

import math
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]
Rule = Literal["mean", "median", "trimmed", "krum"]


class TooFewGroups(ValueError):
    """{groups} groups are left within the bound; {rule} needs {least}. Draw smaller groups, or exclude suspects."""

    def __init__(self, groups: int, rule: str, least: int) -> None:
        super().__init__(
            f"{groups} groups are left within the bound; {rule} needs {least}. Draw smaller groups, or exclude suspects"
        )


class Combined(msgspec.Struct, frozen=True):
    """The update to apply, and which groups looked bad."""

    update: Reals
    beyond: tuple[int, ...]
    """Groups whose mean is longer than the bound: proof that some member broke it, not which."""
    apart: tuple[int, ...]
    """Groups within the bound but far from the rest: evidence, not proof."""

    @property
    def bad(self) -> tuple[int, ...]:
        return tuple(sorted((*self.beyond, *self.apart)))


def clean_share(poisoners: float, size: int) -> float:
    """Share of groups without a poisoner."""
    return float((1.0 - poisoners) ** size)


def largest_group(poisoners: float) -> int:
    """The largest groups of which a majority stays clean; at least 1."""
    if poisoners <= 0:
        return 1_000_000
    return max(1, math.ceil(math.log(0.5) / math.log1p(-poisoners)) - 1)


def median(means: Reals) -> Reals:
    """Per coordinate. Tolerates fewer than half the groups. Source: Yin et al. 2018, arXiv:1803.01498."""
    return np.median(means, axis=0)


def trimmed_mean(means: Reals, trim: int) -> Reals:
    """Per coordinate, without the `trim` least and greatest. Source: Yin et al. 2018."""
    ordered = np.sort(means, axis=0)
    return ordered[trim : len(means) - trim].mean(axis=0)


def krum(means: Reals, bad: int) -> Reals:
    """The mean of the len - bad groups that lie closest to their len - bad - 2 nearest.

    Source: Blanchard et al. 2017, multi-Krum, over groups.
    """
    squares = np.sum((means[:, None, :] - means[None, :, :]) ** 2, axis=2)
    nearest = np.sort(squares, axis=1)[:, 1 : len(means) - bad - 1]
    chosen = np.argsort(nearest.sum(axis=1), kind="stable")[: len(means) - bad]
    return means[chosen].mean(axis=0)


def combine(
    means: Reals,
    bound: float,
    rule: Rule = "median",
    trim: float = 0.25,
    far: float = 4.0,
    trusted: Reals | None = None,
) -> Combined:
    """Groups' means into one update.

    Args:
        means: (groups, parameters).
        bound: the L2 norm that each member's update was clipped to.
        trim: share of groups cut at each end (trimmed) or thought bad (krum).
        far: how many times the median distance from the coordinate-wise median is apart.
        trusted: an update from rows of one's own. Groups whose mean points against it are apart, and don't count. (After Cao et
            al. 2021, FLTrust. Asking for more than a right angle was tried: it excluded honest members whose rows are unlike
            the requester's.)

    Raises:
        TooFewGroups: nothing, or too little for the rule, is within the bound.
    """
    finite = np.isfinite(means).all(axis=1)
    norms = np.linalg.norm(np.where(np.isfinite(means), means, 0.0), axis=1)
    within = np.flatnonzero(finite & (norms <= bound * (1 + 1e-6)))
    beyond = tuple(i for i in range(len(means)) if i not in set(within.tolist()))
    kept: Reals = means[within]
    if len(kept) >= 3:
        doubted = _off_course(kept, trusted) if trusted is not None else _far_out(kept, far)
    else:
        doubted = np.zeros(len(kept), np.bool_)
    apart = tuple(int(i) for i in within[doubted])
    if trusted is not None:
        kept = kept[~doubted]
    least = 1 if rule == "mean" else 3
    if len(kept) < least:
        raise TooFewGroups(len(kept), rule, least)
    cut = int(trim * len(kept))
    match rule:
        case "mean":
            update: Reals = kept.mean(axis=0)
        case "median":
            update = median(kept)
        case "trimmed":
            update = trimmed_mean(kept, cut)
        case "krum":
            update = krum(kept, min(cut, len(kept) - 3))
    return Combined(update, beyond, apart)


def _far_out(means: Reals, far: float) -> npt.NDArray[np.bool_]:
    distances = np.linalg.norm(means - median(means), axis=1)
    usual = float(np.median(distances))
    return distances > far * usual if usual > 0 else distances > 0


def _off_course(means: Reals, trusted: Reals) -> npt.NDArray[np.bool_]:
    return means @ trusted < 0
