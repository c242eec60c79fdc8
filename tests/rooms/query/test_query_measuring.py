from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clusterai.vault.core.schema import Column, Schema
from clusterai.work.query.core.estimate import Answered, Estimate, estimated, expected
from clusterai.work.query.core.measuring import STEPS, drawn_rows, measured, reach
from clusterai.work.query.core.plan import Rank
from clusterai.work.query.core.release import MOST_VALUE, Released, budget_of, noises, released
from clusterai.work.query.core.sql import plan_of
from clusterai.work.query.core.stream import Stream
from clusterai.work.query.core.table import Table

SCHEMA = Schema(
    columns=(
        Column(name="person", kind="int"),
        Column(name="age", kind="int", low=0, high=100),
        Column(name="bmi", kind="float", low=-3, high=5.5, nullable=True),
        Column(name="ward", kind="category", categories=("north", "south", "west")),
        Column(name="smoker", kind="bool"),
        Column(name="seen", kind="date", low="2020-01-01", high="2026-12-31", nullable=True),
    ),
    unit="person",
    unit_rows=2,
)
ALL = (
    "select ward, count(*), count(bmi) as known, count(distinct person) as people, avg(age), variance(bmi), "
    "histogram(age, 5), median(age), sum(age) as years group by ward"
)


def stream(name: str = "rows") -> Stream:
    return Stream(b"\x03" * 32, name)


def columns_of(rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    names = SCHEMA.names
    found = {name: np.array([row.get(name) for row in rows], dtype=object) for name in names}
    found["person"] = np.array([row["person"] for row in rows], np.int64)
    return found


def patients(count: int, people: int, seed: int = 1) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [
        {
            "person": int(random.integers(people)),
            "age": int(random.integers(0, 101)),
            "bmi": None if random.random() < 0.2 else float(random.normal(1, 1)),
            "ward": str(random.choice(["north", "south", "west"])),
            "smoker": bool(random.random() < 0.3),
            "seen": "2023-05-01" if random.random() < 0.5 else "2021-01-01",
        }
        for _ in range(count)
    ]


def exact(sql: str, rows: list[dict[str, Any]], schema: Schema = SCHEMA) -> list[list[int]]:
    plan = plan_of(sql, schema)
    found = measured(Table(schema, columns_of(rows), len(rows)), plan, stream())
    return [[int(it) for it in np.ravel(values)] for values in found]


ONE_EACH = [
    {"person": 1, "age": 10, "bmi": 1.0, "ward": "north", "smoker": True, "seen": "2020-06-01"},
    {"person": 2, "age": 90, "bmi": None, "ward": "south", "smoker": False, "seen": None},
    {"person": 3, "age": 500, "bmi": float("nan"), "ward": "east", "smoker": True, "seen": "2025-01-01"},
]


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("smoker", 2),
        ("smoker = false", 1),
        ("bmi is null", 2),
        ("bmi is not null", 1),
        ("bmi > 0 or not (bmi > 0)", 1),
        ("ward = 'north'", 1),
        ("ward <> 'north'", 1),
        ("ward in ('north', 'south')", 2),
        ("not ward in ('north')", 1),
        ("seen >= '2020-06-01'", 2),
        ("seen between '2020-01-01' and '2020-12-31'", 1),
        ("age between 10 and 90", 2),
        ("age > 90", 1),
        ("not age > 90 and not smoker", 1),
        ("age = 10 or age = 90", 2),
    ],
)
def test_filters_keep_what_sql_keeps(where: str, count: int):
    """Filters are three-valued as in SQL; a category that wasn't declared counts as null."""
    assert exact(f"select count(*) where {where}", ONE_EACH) == [[count]]


def test_values_outside_of_the_bounds_are_clipped():
    """A value beyond the declared bounds counts as the bound, so nobody moves a sum by more."""
    assert exact("select sum(age)", [ONE_EACH[2]]) == [[STEPS]]


def test_undeclared_groups_are_left_out():
    """A row whose category wasn't declared is in no group."""
    assert exact("select count(*) group by ward", ONE_EACH) == [[1, 1, 0]]


def test_nobody_counts_more_often_than_declared():
    """Of a person with many rows, only so many are counted as the schema says."""
    rows = [{"person": 7, "age": 50, "ward": "north", "smoker": True} for _ in range(40)]
    assert exact("select count(*)", rows) == [[2]]
    assert exact("select count(distinct person)", rows) == [[1]]


def test_which_rows_count_is_drawn():
    """Which rows of a person are counted follows from the seed alone, and another seed draws others."""
    rows = patients(60, 5)
    table, plan = Table(SCHEMA, columns_of(rows), 60), plan_of("select count(*)", SCHEMA)
    first, again, other = (drawn_rows(table, plan, stream(name)) for name in ("a", "a", "b"))
    assert (first == again).all()
    assert (first != other).any()
    assert first.sum() == 10


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32), st.booleans())
def test_one_person_moves_no_measure_further_than_its_reach(count: int, seed: int, narrow: bool):
    """Adding a person with as many rows as it may have changes each measure by its reach at most."""
    rows = patients(count, 1000, seed)
    for at, row in enumerate(rows):
        row["person"] = at  # everybody's rows are kept, so that only the newcomer makes the difference
    added = [{**row, "person": 5000} for row in patients(2, 1, seed + 1)]
    added[0] |= {"bmi": 1e9, "age": -7}
    sql = ALL.replace(" group by ward", " where age > 20 group by ward") if narrow else ALL
    plan = plan_of(sql, SCHEMA)
    with_rows, without = exact(sql, rows + added), exact(sql, rows)
    for measure, before, after in zip(plan.measures, without, with_rows, strict=True):
        moved = [abs(a - b) for a, b in zip(after, before, strict=True)]
        if isinstance(measure, Rank):
            assert max(moved) <= reach(plan, measure).l1
        else:
            assert sum(moved) <= reach(plan, measure).l1
            assert sum(it * it for it in moved) <= reach(plan, measure).l2_squared


def close(plan_sql: str, truth: Callable[[list[dict[str, Any]]], float], tolerance: float) -> None:
    """With nearly no noise, the answer is what plain arithmetic gives."""
    rows = patients(3000, 10**9)
    plan = plan_of(plan_sql, SCHEMA)
    values = measured(Table(SCHEMA, columns_of(rows), 3000), plan, stream())
    told = released(plan, values, budget_of(plan, 20_000_000), stream("noise"))
    cell = estimated([Answered(plan, told)])[0][0]
    assert isinstance(cell, Estimate)
    assert cell.value == pytest.approx(truth(rows), abs=tolerance)


def ages(rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([row["age"] for row in rows], np.float64)


def test_aggregates_are_what_plain_arithmetic_gives():
    """At a large budget each aggregate is close to its plain value."""
    close("select avg(age)", lambda rows: float(ages(rows).mean()), 0.3)
    close("select variance(age)", lambda rows: float(ages(rows).var(ddof=1)), 15)
    close("select stddev_pop(age)", lambda rows: float(ages(rows).std()), 0.3)
    close("select sum(age)", lambda rows: float(ages(rows).sum()), 60)
    close("select median(age)", lambda rows: float(np.median(ages(rows))), 1)
    close("select quantile(age, 0.9)", lambda rows: float(np.quantile(ages(rows), 0.9)), 1)
    close("select count(*) where smoker", lambda rows: sum(row["smoker"] for row in rows), 2)


def test_the_interval_holds_what_it_promises():
    """Of many answers with fresh noise, about 95 % of the intervals contain the exact average."""
    rows = patients(400, 10**9, 5)
    plan = plan_of("select avg(age)", SCHEMA)
    values = measured(Table(SCHEMA, columns_of(rows), 400), plan, stream())
    budget, truth, inside = budget_of(plan, 1_000_000), ages(rows).mean(), 0
    for at in range(200):
        cell = estimated([Answered(plan, released(plan, values, budget, stream(f"noise {at}")))])[0][0]
        assert isinstance(cell, Estimate)
        assert cell.low is not None
        assert cell.high is not None
        inside += cell.low <= truth <= cell.high
    assert 180 <= inside <= 200


def test_vaults_join_by_their_sums():
    """Two vaults' average is that of all their people, also where their bounds differ."""
    other = Schema(
        columns=tuple(
            Column(name="age", kind="int", low=20, high=80) if column.name == "age" else column
            for column in SCHEMA.columns
        ),
        unit="person",
    )
    parts: list[Answered] = []
    kept: list[float] = []
    for schema, rows in ((SCHEMA, patients(2000, 10**9, 2)), (other, patients(500, 10**9, 3))):
        plan = plan_of("select avg(age), count(*), var_pop(age)", schema)
        values = measured(Table(schema, columns_of(rows), len(rows)), plan, stream())
        parts.append(Answered(plan, released(plan, values, budget_of(plan, 20_000_000), stream("noise"))))
        kept += list(np.clip(ages(rows), *schema.column("age").bounds or (0, 0)))
    average, count, variance = (cell for cell in estimated(parts)[0])
    assert isinstance(average, Estimate)
    assert isinstance(count, Estimate)
    assert isinstance(variance, Estimate)
    assert average.value == pytest.approx(np.mean(kept), abs=0.4)
    assert count.value == pytest.approx(2500, abs=3)
    assert variance.value == pytest.approx(np.var(kept), rel=0.03)


def test_different_questions_are_not_joined():
    """Answers with other groups can't be added up."""
    first, second = (
        Answered(plan, Released(budget_of(plan, 10**6), ((0,) * plan.groups,)))
        for plan in (plan_of(f"select count(*) group by {key}", SCHEMA) for key in ("ward", "smoker"))
    )
    with pytest.raises(ValueError, match="other groups"):
        estimated([first, second])


def test_delta_buys_less_noise_where_many_measures_share():
    """With δ, a plan of many measures gets Gaussian noise, and one of few stays with Laplace and spends no δ."""
    many = plan_of(
        "select " + ", ".join(f"count(*) as c{at}, histogram(age, {at + 2})" for at in range(20)), SCHEMA
    )
    few = plan_of("select count(*)", SCHEMA)
    rho = 24_000_000
    assert budget_of(many, 1_000_000, 10**6, rho).mechanism == "gauss"
    assert budget_of(few, 1_000_000, 10**6, rho).delta_pico == 0
    assert budget_of(many, 1_000_000).mechanism == "laplace"


def test_noise_of_a_count_is_what_the_budget_says():
    """A count's noise at ε = 0.5 and two rows a person is Laplace noise of scale 4, and so is the error that is announced."""
    plan = plan_of("select count(*)", SCHEMA)
    budget = budget_of(plan, 500_000)
    assert noises(plan, budget)[0].scale == 4
    assert expected(plan, budget, 100)[0] == pytest.approx(11.98, abs=0.01)


def test_a_huge_value_is_cut_off():
    """What leaves fits 63 bits, whatever the noise."""
    plan = plan_of("select count(*)", SCHEMA)
    told = released(plan, [np.array([2**63 - 1])], budget_of(plan, 10**6), stream())
    assert told.values == ((MOST_VALUE,),)


def test_an_empty_vault_answers():
    """No rows is an answer like another."""
    plan = plan_of(ALL, SCHEMA)
    values = measured(Table(SCHEMA, columns_of([]), 0), plan, stream())
    told = released(plan, values, budget_of(plan, 10**6), stream())
    assert len(estimated([Answered(plan, told)])) == 3
