"""What the vaults' noise does to a statistic: it is added once more, many times, to the sums that came.

The sums are noisy by a known variance. How far the statistic moves when as much is added again is how far it may be from the true one: a parametric bootstrap,
for means and slopes alike. It covers noise alone, not what a sample leaves open; where few rows meet much noise it is a rough guide.
"""

from typing import Any

import numpy as np

from clusterai.vault.core.secagg import joint
from clusterai.work.joint.core.question import Wanted

DRAWS = 400
COVERED = 0.95


def numbers(wanted: Wanted, total: joint.Integers) -> dict[str, float]:
    """The answer as named numbers, in the order in which they were asked for.

    Raises:
        TooFewRows.
    """
    found = joint.found(wanted.question, total)
    match found:
        case joint.MomentsFound(rows, columns):
            by_name = {it.column: it for it in columns}
            return {it.name: _moment(it.function, rows, by_name.get(it.column)) for it in wanted.outputs}
        case joint.HistogramFound(_, edges, counts):
            return {f"{edges[at]:.6g}..{edges[at + 1]:.6g}": count for at, count in enumerate(counts)}
        case joint.RegressionFound(rows, intercept, coefficients, r_squared):
            return {"rows": rows, "intercept": intercept, **coefficients, "r_squared": r_squared}


def _moment(function: str, rows: float, column: joint.ColumnMoments | None) -> float:
    if column is None:
        return rows
    sample = column.variance * rows / max(rows - 1, 1.0)
    match function:
        case "sum":
            return column.mean * rows
        case "avg":
            return column.mean
        case "variance":
            return sample
        case "var_pop":
            return column.variance
        case "stddev":
            return sample**0.5
        case _:
            return column.variance**0.5


def half_widths(wanted: Wanted, total: joint.Integers, variance: float, seed: bytes) -> dict[str, float]:
    """Of each number, how far off it is in 95 of 100 cases; zeros without noise, infinite where nothing can be said.

    Args:
        variance: of the noise in each integer of the sum, of all vaults together.
        seed: the same answer is told the same.
    """
    told = numbers(wanted, total)
    if variance <= 0:
        return dict.fromkeys(told, 0.0)
    random = np.random.default_rng(np.frombuffer(seed, np.uint32))
    moved: list[list[float]] = []
    for _ in range(DRAWS):
        more = np.rint(random.normal(0.0, variance**0.5, len(total))).astype(np.int64)
        try:
            moved.append(list(numbers(wanted, total + more).values()))
        except joint.TooFewRows:
            moved.append([np.inf] * len(told))
    away: Any = np.abs(np.asarray(moved) - np.asarray(list(told.values())))
    widths = np.quantile(away, COVERED, axis=0, method="higher")
    # What noise can't move stands at an end of its range, as r_squared does at 0: nothing is known of it, rather than all.
    widths[widths == 0.0] = np.inf
    return dict(zip(told, widths.tolist(), strict=True))
