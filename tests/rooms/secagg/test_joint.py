"""Statistics from sums of several vaults equal those over all rows in one place."""

from typing import Any

import numpy as np
import pytest

from clusterai.protocol.canonical import decode, encode
from clusterai.vault.core.secagg.joint import (
    FRACTION,
    BadRange,
    Histogram,
    HistogramFound,
    Joint,
    Moments,
    MomentsFound,
    Range,
    Regression,
    RegressionFound,
    TooFewRows,
    bounded,
    check,
    contribution,
    found,
    length,
    sensitivity,
)

AGE = Range("age", 0, 100_000_000)
DOSE = Range("dose", -2_000_000, 3_000_000)
OUTCOME = Range("outcome", -50_000_000, 50_000_000)


def vaults(sizes: tuple[int, ...] = (40, 7, 200)) -> list[dict[str, Any]]:
    draw = np.random.default_rng(11)
    made: list[dict[str, Any]] = []
    for size in sizes:
        age, dose = draw.uniform(20, 90, size), draw.uniform(-1, 2, size)
        made.append({"age": age, "dose": dose, "outcome": 3 + 0.2 * age - 4 * dose + draw.normal(size=size)})
    return made


def together(asked: Joint, parts: list[dict[str, Any]]) -> Any:
    total = sum((contribution(asked, part) for part in parts), np.zeros(length(asked), np.int64))
    return found(asked, total)


def pooled(parts: list[dict[str, Any]], name: str) -> Any:
    return np.concatenate([part[name] for part in parts])


def test_means_and_variances_are_those_of_all_rows():
    """Three vaults of different sizes, as if pooled."""
    parts = vaults()
    answer = together(Moments((AGE, DOSE)), parts)
    assert isinstance(answer, MomentsFound)
    assert answer.rows == 247
    for column in answer.columns:
        values = pooled(parts, column.column)
        assert abs(column.mean - values.mean()) < 1e-5
        assert abs(column.variance - values.var()) < 1e-3


def test_histograms_count_every_row_once():
    """Outliers count in the outermost cells."""
    parts = vaults()
    parts[0]["age"][:2] = (-1e9, 1e9)
    answer = together(Histogram(AGE, 10), parts)
    assert isinstance(answer, HistogramFound)
    counts, _ = np.histogram(np.clip(pooled(parts, "age"), 0, 100), bins=10, range=(0, 100))
    assert answer.counts == tuple(map(float, counts))
    assert answer.edges[:2] == (0.0, 10.0)


def test_regression_is_that_of_all_rows():
    """Coefficients, intercept and R squared as of pooled least squares."""
    parts = vaults()
    answer = together(Regression((AGE, DOSE), OUTCOME), parts)
    assert isinstance(answer, RegressionFound)
    table = np.column_stack([np.ones(247), pooled(parts, "age"), pooled(parts, "dose")])
    outcome = pooled(parts, "outcome")
    solve: Any = np.linalg.lstsq
    true, residual, *_ = solve(table, outcome, rcond=None)
    assert abs(answer.intercept - true[0]) < 1e-3
    assert abs(answer.coefficients["age"] - true[1]) < 1e-4
    assert abs(answer.coefficients["dose"] - true[2]) < 1e-3
    assert abs(answer.r_squared - (1 - residual[0] / ((outcome - outcome.mean()) ** 2).sum())) < 1e-4


@pytest.mark.parametrize("asked", [Moments((AGE, DOSE)), Histogram(AGE, 7), Regression((AGE,), OUTCOME)])
def test_one_row_moves_a_vector_by_its_sensitivity_at_most(asked: Joint):
    """Whatever the row holds: outside the bounds, infinite, not a number."""
    part = vaults((20,))[0]
    before = contribution(asked, part)
    for value in (0.0, 1e300, -1e300, float("nan"), float("inf"), 55.0):
        more = {name: np.append(values, value) for name, values in part.items()}
        moved = np.linalg.norm((contribution(asked, more) - before).astype(np.float64))
        assert moved <= sensitivity(asked)


def test_nobody_counts_with_more_rows_than_the_unit_says():
    """The first two rows of each person, and the sensitivity of two."""
    keep = bounded(np.array([7, 3, 7, 7, 3, 9, 7]), 2)
    assert keep.tolist() == [True, True, True, False, True, True, False]
    assert bounded(np.array([], np.int64), 2).tolist() == []
    one, two = (sensitivity(Moments((AGE,)), rows) for rows in (1, 2))
    assert two == pytest.approx(2 * one, rel=1e-6)


def test_rows_without_a_number_count_nowhere():
    """A missing value is no lower bound: its row is left out of all sums."""
    part = {"age": [20.0, float("nan"), 40.0], "dose": [0.0, 1.0, 2.0]}
    answer = found(Moments((AGE, DOSE)), contribution(Moments((AGE, DOSE)), part))
    assert isinstance(answer, MomentsFound)
    assert answer.rows == 2
    assert [round(column.mean, 5) for column in answer.columns] == [30.0, 1.0]


def test_questions_have_one_spelling_and_bad_ones_are_refused():
    """A joint question travels as canonical bytes, and empty ranges and sums say what is wrong."""
    asked: Any = Regression((AGE, DOSE), OUTCOME, 5)
    assert decode(encode(asked), Regression) == asked
    with pytest.raises(BadRange, match="must be above"):
        check(Moments((Range("age", 5, 5),)))
    with pytest.raises(TooFewRows):
        found(Moments((AGE,)), np.zeros(3, np.int64))
    with pytest.raises(TooFewRows, match="needs 3"):
        together(Regression((AGE, DOSE), OUTCOME), vaults((2,)))
    assert int(contribution(Moments((AGE,)), {"age": [50.0]})[0]) == 1 << FRACTION
