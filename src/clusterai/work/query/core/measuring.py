"""What a plan's measures are on a table, exactly and in whole numbers, and how much of it one person can move.

    rows ─ filter ─ at most `unit_rows` of each person, drawn ─ groups ─ clip to declared bounds ─ sums of integers

Everything that a person's presence can change stands in `reach`: the noise is calibrated to it and to nothing that was computed from data.
"""

from fractions import Fraction

import msgspec
import numpy as np
from numpy.typing import NDArray

from clusterai.work.query.core.plan import Bins, Measure, Moment, People, Plan, Rank, Rows, Whole, width
from clusterai.work.query.core.stream import Stream
from clusterai.work.query.core.table import Codes, Flags, Table, bins_of

STEPS = 1 << 20
"""Steps from the middle of a column's range to its end: sums are of whole steps, a rounding of a millionth of the range at most."""
MOST_ROWS = 1 << 30
"""Then sums of steps are whole numbers that a float of 64 bits holds."""

Ints = NDArray[np.int64]


class Reach(msgspec.Struct, frozen=True):
    """The most that adding or removing one person with all its rows changes a measure, over all groups.

    Attributes:
        l1: sum of the absolute changes.
        l2_squared: sum of their squares.
    """

    l1: int
    l2_squared: int


def reach(plan: Plan, measure: Measure) -> Reach:
    rows = plan.unit_rows
    match measure:
        case People():
            touched = min(rows, plan.groups)
            return Reach(touched, touched)
        case Rows() | Bins():
            return Reach(rows, rows * rows)
        case Moment() | Whole():
            return Reach(rows * STEPS, (rows * STEPS) ** 2)
        case Rank(share=share):
            most = rows * max(share.numerator, share.denominator - share.numerator)
            return Reach(most, most * most)


def drawn_rows(table: Table, plan: Plan, stream: Stream) -> Flags:
    """Rows that count: those that the filter keeps, at most `unit_rows` of each person.

    Which of a person's rows are kept is drawn evenly and depends on no other person's.
    """
    kept = table.kept(plan.where)
    if not plan.unit:
        return kept
    at = np.flatnonzero(kept)
    units = table.units(plan.unit)[at]
    order = np.lexsort((stream.words(table.rows)[at], units))
    first = np.flatnonzero(np.r_[True, np.diff(units[order]) != 0]) if len(at) else np.zeros(0, np.int64)
    place = np.arange(len(at)) - np.repeat(first, np.diff(np.r_[first, len(at)]))
    found = np.zeros(table.rows, np.bool_)
    found[at[order[place < plan.unit_rows]]] = True
    return found


def measured(table: Table, plan: Plan, stream: Stream) -> list[Ints]:
    """Each measure's exact values by group, flat; of a `Rank`, the utilities of its points instead, a row for each group."""
    assert table.rows <= MOST_ROWS
    groups = table.groups(plan.keys)
    taken = drawn_rows(table, plan, stream) & (groups >= 0)
    return [_measure(table, plan, measure, taken, groups) for measure in plan.measures]


def _measure(table: Table, plan: Plan, measure: Measure, taken: Flags, groups: Codes) -> Ints:
    if isinstance(measure, People):
        pairs = np.unique(np.stack([groups[taken], table.units(plan.unit)[taken]]), axis=1)
        return _sums(pairs[0], plan.groups)
    values = np.zeros(0)
    if measure.column:
        values, there = table.numbers(measure.column)
        taken = taken & there
        values = values[taken]
    groups = groups[taken]
    match measure:
        case Rows():
            return _sums(groups, plan.groups)
        case Bins():
            at = bins_of(values, float(measure.low), float(measure.high), measure.bins)
            return _sums(groups * measure.bins + at, plan.groups * width(measure))
        case Whole():
            steps = _steps(np.clip(values, float(measure.low), float(measure.high)), measure.span)
        case Moment():
            half = float(measure.half)
            away = np.clip(values - float(measure.centre), -half, half)
            steps = _steps(away if measure.power == 1 else away * away - float(measure.offset), measure.span)
        case Rank():
            return _utilities(
                np.clip(values, float(measure.low), float(measure.high)), groups, plan.groups, measure
            )
    return _sums(groups, plan.groups, steps)


def _steps(values: NDArray[np.float64], span: Fraction) -> NDArray[np.float64]:
    return np.clip(np.rint(values / float(span) * STEPS), -STEPS, STEPS)


def _sums(at: Codes, count: int, weights: NDArray[np.float64] | None = None) -> Ints:
    return np.bincount(at, weights, minlength=count).astype(np.int64)


def points_of(rank: Rank) -> NDArray[np.float64]:
    """Values between which a quantile is drawn."""
    return np.linspace(float(rank.low), float(rank.high), rank.points)


def _utilities(values: NDArray[np.float64], groups: Codes, count: int, rank: Rank) -> Ints:
    """Less the further a point is from having the right shares of the rows below and above it."""
    below_weight = rank.share.denominator - rank.share.numerator
    above_weight = rank.share.numerator
    points = points_of(rank)
    found = np.zeros((count, rank.points), np.int64)
    order = np.lexsort((values, groups))
    ends = np.searchsorted(groups[order], np.arange(count + 1))
    for group in range(count):
        own = values[order[ends[group] : ends[group + 1]]]
        below = np.searchsorted(own, points, "left")
        above = len(own) - np.searchsorted(own, points, "right")
        found[group] = -np.abs(below_weight * below - above_weight * above)
    return found
