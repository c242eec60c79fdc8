"""Statistics over several vaults out of sums alone: mean, variance, histogram, linear regression.

Each vault adds up its own rows to a short vector; secure aggregation adds the vaults'. Columns are scaled to [-1, 1] by bounds
that are public (the schema's), and values outside are clipped to them, so that no row weighs more than another. About the middle, because sums that
are nearly zero tell as much, and noise in the count of rows moves a mean, a variance or a slope far less. What is
then computed from the sums equals what it would be over all rows in one place, up to the rounding of each vault's sum:
2^-`FRACTION` of a column's range.

    moments     rows; per column: sum of u, sum of u^2
    histogram   rows; per cell: count
    regression  rows; sums of products of all pairs of (1, u_1 … u_k, v)
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from clusterai.protocol.canonical import digest
from clusterai.protocol.ids import Digest

FRACTION = 24
"""Bits after the point of a sum; with 2^32 rows in all it stays below 2^57."""
MAX_ROWS = 2**32
MICRO = 1_000_000

Reals = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Micro = Annotated[int, Meta(ge=-(2**62), le=2**62)]


class _Part(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Range(_Part, frozen=True):
    """A numeric column and its public bounds, in millionths."""

    column: Annotated[str, Meta(min_length=1, max_length=200)]
    low_micro: Micro
    high_micro: Micro

    @property
    def low(self) -> float:
        return self.low_micro / MICRO

    @property
    def span(self) -> float:
        return (self.high_micro - self.low_micro) / MICRO

    @property
    def middle(self) -> float:
        return self.low + self.span / 2

    @property
    def half(self) -> float:
        return self.span / 2

    def scaled(self, values: Any) -> Reals:
        """Into [-1, 1]."""
        return np.clip((np.asarray(values, np.float64) - self.middle) / self.half, -1.0, 1.0)


class Moments(_Part, frozen=True):
    """Rows, mean and variance of columns."""

    columns: Annotated[tuple[Range, ...], Meta(min_length=1, max_length=256)]


class Histogram(_Part, frozen=True):
    """Counts in equal cells between the bounds; what lies outside counts in the outermost."""

    column: Range
    cells: Annotated[int, Meta(ge=1, le=4096)]


class Regression(_Part, frozen=True):
    """Least squares of `target` on `features` with an intercept and a ridge, in millionths, on the scaled columns."""

    features: Annotated[tuple[Range, ...], Meta(min_length=1, max_length=64)]
    target: Range
    ridge_micro: Annotated[int, Meta(ge=0, le=10**12)] = 0


Joint = Moments | Histogram | Regression


class BadRange(ValueError):
    """Column {column}'s bounds are {low} to {high}: the upper must be above the lower."""

    def __init__(self, range_: Range) -> None:
        super().__init__(
            f"column {range_.column}'s bounds are {range_.low} to {range_.low + range_.span}: "
            "the upper must be above the lower"
        )


def ranges(asked: Joint) -> tuple[Range, ...]:
    match asked:
        case Moments(columns):
            return columns
        case Histogram(column):
            return (column,)
        case Regression(features, target):
            return (*features, target)


def check(asked: Joint) -> None:
    """Raises BadRange."""
    for range_ in ranges(asked):
        if range_.span <= 0:
            raise BadRange(range_)


def purpose(asked: Joint) -> Digest:
    """What stands as a round's purpose: members refuse sums of another question."""
    return digest(asked)


def length(asked: Joint) -> int:
    match asked:
        case Moments(columns):
            return 1 + 2 * len(columns)
        case Histogram(_, cells):
            return 1 + cells
        case Regression(features):
            width = len(features) + 2
            return width * (width + 1) // 2


def largest(rows: int) -> int:
    """Magnitude of one integer of a vault of at most `rows` rows."""
    return rows << FRACTION


def sensitivity(asked: Joint, unit_rows: int = 1) -> float:
    """How far one person's coming or going moves a vault's vector, in its integer unit (L2), rounding included.

    Args:
        unit_rows: rows that one person has at most; see `bounded`.
    """
    one = float(unit_rows << FRACTION) + 1.0
    match asked:
        case Histogram():
            return one * 2**0.5
        case _:
            return one * length(asked) ** 0.5


def contribution(asked: Joint, columns: Mapping[str, Any]) -> Integers:
    """A vault's own sums, as integers of 2^-`FRACTION`. Rows where a column holds no number count nowhere.

    Raises:
        KeyError: a column that isn't there. ValueError: columns of different lengths, or of words.
    """
    given = {range_.column: np.asarray(columns[range_.column], np.float64) for range_ in ranges(asked)}
    whole = np.ones(len(next(iter(given.values()))), np.bool_)
    for values in given.values():
        whole &= ~np.isnan(values)
    columns = {name: values[whole] for name, values in given.items()}
    match asked:
        case Moments(of):
            scaled = [range_.scaled(columns[range_.column]) for range_ in of]
            sums = [float(len(scaled[0]))]
            for values in scaled:
                sums += [float(values.sum()), float((values**2).sum())]
        case Histogram(column, cells):
            values = column.scaled(columns[column.column])
            places = ((values + 1) / 2 * cells).astype(np.int64)
            counts = np.bincount(np.minimum(places, cells - 1), minlength=cells)
            sums = [float(len(values)), *counts.astype(np.float64)]
        case Regression(features, target):
            parts = [range_.scaled(columns[range_.column]) for range_ in (*features, target)]
            table = np.column_stack([np.ones(len(parts[0])), *parts])
            products = table.T @ table
            sums = list(products[np.triu_indices(len(products))])
    return np.rint(np.asarray(sums) * (1 << FRACTION)).astype(np.int64)


def bounded(units: Any, unit_rows: int) -> npt.NDArray[np.bool_]:
    """Which rows count so that no person has more than `unit_rows`: the first ones of each.

    Args:
        units: whose each row is; any values that can be compared.
    """
    values = np.asarray(units)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    place = np.arange(len(ordered)) - np.repeat(begins, np.diff(np.append(begins, len(ordered))))
    keep = np.zeros(len(ordered), np.bool_)
    keep[order] = place < unit_rows
    return keep


class ColumnMoments(_Part, frozen=True):
    column: str
    mean: float
    variance: float
    """Of the population: divided by rows, not by rows - 1."""


class MomentsFound(_Part, frozen=True):
    rows: float
    columns: tuple[ColumnMoments, ...]


class HistogramFound(_Part, frozen=True):
    rows: float
    edges: tuple[float, ...]
    counts: tuple[float, ...]


class RegressionFound(_Part, frozen=True):
    rows: float
    intercept: float
    coefficients: dict[str, float]
    r_squared: float


class TooFewRows(ValueError):
    """{rows} rows are in the sum; this statistic needs {least}."""

    def __init__(self, rows: float, least: int) -> None:
        super().__init__(f"{rows:.1f} rows are in the sum; this statistic needs {least}")


def found(asked: Joint, total: Integers) -> MomentsFound | HistogramFound | RegressionFound:
    """The statistic of all rows together, from the sum of contributions.

    Raises:
        TooFewRows: no rows, or (with noise) fewer than none.
    """
    sums = total.astype(np.float64) / (1 << FRACTION)
    rows = float(sums[0])
    if rows < 0.5:
        raise TooFewRows(rows, 1)
    match asked:
        case Moments(of):
            columns: list[ColumnMoments] = []
            for at, range_ in enumerate(of):
                first, second = sums[1 + 2 * at] / rows, sums[2 + 2 * at] / rows
                variance = max(0.0, float(second - first**2)) * range_.half**2
                columns.append(
                    ColumnMoments(range_.column, float(range_.middle + first * range_.half), variance)
                )
            return MomentsFound(rows, tuple(columns))
        case Histogram(range_, cells):
            edges = tuple(range_.low + range_.span * i / cells for i in range(cells + 1))
            return HistogramFound(rows, edges, tuple(float(count) for count in sums[1:]))
        case Regression(features, target, ridge_micro):
            return _regress(features, target, ridge_micro / MICRO, sums, rows)


def _regress(
    features: tuple[Range, ...], target: Range, ridge: float, sums: Reals, rows: float
) -> RegressionFound:
    width = len(features) + 2
    products = np.zeros((width, width))
    products[np.triu_indices(width)] = sums
    products = products + products.T - np.diag(np.diag(products))
    if rows < len(features) + 1:
        raise TooFewRows(rows, len(features) + 1)
    inner = products[:-1, :-1] + ridge * np.diag([0.0, *([1.0] * len(features))])
    solved = np.linalg.lstsq(inner, products[:-1, -1], rcond=None)[0]
    residual = float(products[-1, -1] - 2 * solved @ products[:-1, -1] + solved @ products[:-1, :-1] @ solved)
    spread = float(products[-1, -1] - products[0, -1] ** 2 / rows)
    slopes = {
        range_.column: float(slope * target.half / range_.half)
        for range_, slope in zip(features, solved[1:], strict=True)
    }
    at_middle = sum(slopes[range_.column] * range_.middle for range_ in features)
    intercept = float(target.middle + solved[0] * target.half - at_middle)
    return RegressionFound(rows, intercept, slopes, 1.0 - residual / spread if spread > 0 else 0.0)
