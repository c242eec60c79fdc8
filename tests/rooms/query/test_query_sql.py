import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.vault.core.schema import Column, Schema
from clusterai.work.query.core.plan import (
    Both,
    Compare,
    IsNull,
    Moment,
    Negated,
    People,
    RefusedQuery,
    Rows,
    Whole,
)
from clusterai.work.query.core.sql import plan_of

SCHEMA = Schema(
    columns=(
        Column(name="person", kind="int"),
        Column(name="age", kind="int", low=0, high=110),
        Column(name="children", kind="int", low=0, high=9),
        Column(name="bmi", kind="float", low=10, high=60.5, nullable=True),
        Column(name="weight", kind="float"),
        Column(name="ward", kind="category", categories=("north", "south")),
        Column(name="smoker", kind="bool"),
        Column(name="seen", kind="date", low="2020-01-01", high="2026-12-31"),
        Column(name="note", kind="text"),
    ),
    unit="person",
    unit_rows=3,
)


def test_an_average_needs_a_count_and_a_centred_sum():
    """An average is planned as two measures, and bounds become centre and half width."""
    plan = plan_of("select avg(age) from data", SCHEMA)
    assert plan.measures == (Rows(), Moment("age", 1, Fraction(55), Fraction(55)))
    assert (plan.groups, plan.unit, plan.unit_rows) == (1, "person", 3)


def test_aggregates_share_what_they_measure():
    """Count, average, variance and sum of one column together need three measures, not seven."""
    plan = plan_of("select sum(age), count(*), avg(age), variance(age), stddev_pop(age)", SCHEMA)
    assert len(plan.measures) == 3


def test_a_sum_alone_is_measured_directly():
    """A sum without an average beside it takes one measure and all of the budget."""
    assert plan_of("select sum(age)", SCHEMA).measures == (Whole("age", Fraction(0), Fraction(110)),)


def test_people_are_counted_by_the_privacy_unit():
    """count(distinct UNIT) counts people."""
    assert plan_of("select count(distinct person) as people", SCHEMA).measures == (People(),)


def test_groups_are_all_that_were_declared():
    """Groups come from the schema alone: every combination of declared categories, whatever the data holds."""
    plan = plan_of("select ward, smoker, count(*) group by ward, smoker", SCHEMA)
    assert [plan.labels(group) for group in range(plan.groups)] == [
        ("north", "false"),
        ("north", "true"),
        ("south", "false"),
        ("south", "true"),
    ]


def test_numbers_are_grouped_by_buckets_or_by_each_small_int():
    """Numbers are grouped by equal parts of their bounds, small ints by each value."""
    assert plan_of("select bucket(bmi, 2), count(*) group by bucket(bmi, 2)", SCHEMA).keys[0].labels == (
        "10..35.25",
        "35.25..60.5",
    )
    assert plan_of("select count(*) group by children", SCHEMA).groups == 10


def test_filters_become_a_closed_tree():
    """Comparisons, between, null tests and their combinations are taken; constants stand on either side."""
    plan = plan_of("select count(*) where 18 <= age and not (bmi is null) and seen < '2021-02-03'", SCHEMA)
    assert plan.where == Both(
        (Compare("age", ">=", Fraction(18)), Negated(IsNull("bmi")), Compare("seen", "<", Fraction(18661)))
    )
    assert plan.columns == ("age", "bmi", "person", "seen")


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("select * from data", "isn't answered"),
        ("select age from data", "rows never leave"),
        ("select ward, age from data group by ward", "rows never leave"),
        ("select avg(age + bmi)", "isn't a column"),
        ("select max(age)", "isn't answered"),
        ("select avg(weight)", "without bounds"),
        ("select avg(person)", "says who a row belongs to"),
        ("select count(*) where person = 7", "says who a row belongs to"),
        ("select count(*) group by person", "says who a row belongs to"),
        ("select count(*) group by age", "bucket(age, 10)"),
        ("select count(*) group by note", "aren't declared"),
        ("select count(*) where note = 'x'", "filter by numbers"),
        ("select count(*) where ward = 'east'", "its categories are north, south"),
        ("select count(*) where ward < 'south'", "has no order"),
        ("select count(*) where age = 'old'", "is no number"),
        ("select count(*) where age < bmi", "is no number"),
        ("select count(*) where age + 1 > 3", "isn't a column"),
        ("select count(*) where exists (select 1)", "compare columns"),
        ("select count(*) where age in (select age from data)", "compare columns"),
        ("select count(distinct age)", "count(distinct person)"),
        ("select count(*) from a join b on a.x = b.x", "several vaults"),
        ("select count(*) from (select * from data)", "from data"),
        ("select count(*) from data having count(*) > 3", "costs no budget"),
        ("select count(*) from data order by 1", "costs no budget"),
        ("select count(*) from data limit 1", "take the rows"),
        ("select distinct count(*)", "number of people"),
        ("with a as (select 1) select count(*) from a", "one select"),
        ("select count(*); drop table data", "one select"),
        ("delete from data", "one select"),
        ("select count(*) -- hidden", "no comments"),
        ("select count(*), count(*)", "one name"),
        ("select quantile(age, 1.5)", "between 0 and 1"),
        ("select histogram(age, 100000)", "take 2 to 256"),
        ("select nosuch(age)", "are answered"),
        ("select avg(height)", "columns are person"),
        ("select ward group by ward", "no aggregate"),
        ("select avg(age) over (partition by ward)", "isn't answered"),
        ("select", "select 1 to 64"),
        ("selec avg(age)", "it"),
        ("select count(*) where age < 1e999999", "below 1e18"),
        ("select histogram(age, 200) group by bucket(bmi, 200)", "at most 4096"),
        ("select count(*) where " + "(" * 90 + "age = 1" + ")" * 90, "nested too deeply"),
        ("select count(*) where " + " or ".join(["age = 1"] * 1000), "characters"),
    ],
)
def test_what_is_not_answered_is_refused_with_what_to_write(sql: str, says: str):
    """Each form outside of the language is refused, and the refusal says what to write instead."""
    with pytest.raises(RefusedQuery, match=r".+; .+") as refusal:
        plan_of(sql, SCHEMA)
    assert says in str(refusal.value)


def test_a_tiny_number_costs_nothing_to_read():
    """An exponent that no float has doesn't become a fraction of a million digits."""
    plan = plan_of("select count(*) where age > 1e-999999", SCHEMA)
    assert plan.where == Compare("age", ">", Fraction(0))


@pytest.mark.parametrize(
    "sql",
    [
        "select " + "a." * 900 + "b",
        "select age" + "->1" * 600,
        "select age" + "::int" * 390,
        "select x" + " -> x" * 390,
        "select age" + "[1]" * 600,
        "select count(*) where " + "not " * 199 + "smoker",
        "select count(*) where age = " + "1+" * 900 + "1",
        "select count(*) where age" + " is null" * 240,
        "select " + "exists " * 280,
        "select 1 " + "union select 1 " * 130,
    ],
)
@pytest.mark.parametrize("room", [1_000, 20_000])
def test_what_nests_without_brackets_is_refused(sql: str, room: int):
    """Chains that make the parser's tree as deep as they are long end as a refusal, however deep Python may go, not as a crash."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(room, before))
    try:
        with pytest.raises(RefusedQuery):
            plan_of(sql, SCHEMA)
    finally:
        sys.setrecursionlimit(before)


WORDS = st.sampled_from(
    [
        "select",
        "from",
        "where",
        "group",
        "by",
        "avg",
        "count",
        "sum",
        "(",
        ")",
        "*",
        ",",
        "age",
        "ward",
        "'north'",
        "1",
        "-1",
        "and",
        "or",
        "not",
        "in",
        "is",
        "null",
        "distinct",
        "=",
        "<",
        "median",
        "data",
        "as",
        "x",
        ".",
        ";",
        "union",
        "histogram",
        "over",
    ]
)


@settings(deadline=None)
@given(
    st.one_of(
        st.text(max_size=60), st.lists(WORDS, max_size=24).map(lambda words: "select " + " ".join(words))
    )
)
def test_any_text_is_planned_or_refused(sql: str):
    """Whatever a stranger writes, the planner answers with a plan or with a refusal."""
    try:
        plan = plan_of(sql, SCHEMA)
    except RefusedQuery:
        return
    assert plan.measures
    assert set(plan.columns) <= set(SCHEMA.names)
