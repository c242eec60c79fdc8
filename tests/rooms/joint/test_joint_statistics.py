"""One question to several vaults: what comes is the statistic of all rows together, paid once, within its noise."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterai.vault.core.policy import MICRO
from clusterai.vault.core.secagg.joint import FRACTION, HistogramFound
from clusterai.work.joint import KIND
from clusterai.work.joint.adapters.asking import NoStatistic
from clusterai.work.joint.core.question import BadQuestion, question_of
from clusterai.work.joint.core.spread import half_widths, numbers
from clusterai.work.packed import tokens_of
from tests.rooms.joint.clinics import MILLI_WEI, USE_WEI, Clinic, asked, clinics, pooled, schema

MOMENTS = "select count(*) as n, sum(age), avg(age), variance(dose), stddev_pop(dose), avg(sick) from wards"


def three(folder: Path, count: int = 3, rows: int = 400, epsilon_micro: int = 0) -> list[Clinic]:
    return clinics(folder, count, rows, epsilon_micro)


def test_exact_moments_are_those_of_all_rows_together(tmp_path: Path):
    """Without noise, as the owners granted it: count, sum, mean, variance over three vaults, each paid a use."""
    of = three(tmp_path)
    came = asyncio.run(asked(of, MOMENTS))
    age, dose = pooled(of, "age"), pooled(of, "dose")
    assert came.values == pytest.approx(
        {
            "n": len(age),
            "sum(age)": age.sum(),
            "avg(age)": age.mean(),
            "variance(dose)": dose.var(ddof=1),
            "stddev_pop(dose)": dose.std(),
            "avg(sick)": pooled(of, "sick").mean(),
        },
        rel=1e-6,
    )
    assert set(came.half.values()) == {0.0}
    assert came.vaults == ("clinic-0", "clinic-1", "clinic-2")
    assert came.charged_wei == 3 * USE_WEI
    assert came.checked == dict.fromkeys(came.vaults, "")
    assert all(len(it.vault.uses()) == 1 for it in of)


def test_exact_histogram_and_regression(tmp_path: Path):
    """Cells between the declared bounds; coefficients of least squares over all rows."""
    of = three(tmp_path)
    found = asyncio.run(asked(of, "select histogram(age, 10)")).found
    assert isinstance(found, HistogramFound)
    assert found.counts == pytest.approx(np.histogram(pooled(of, "age"), 10, (0, 100))[0], abs=1e-3)
    line = asyncio.run(asked(of, "select regression(dose, age, sick)")).values
    table = np.column_stack([np.ones(1200), pooled(of, "age"), pooled(of, "sick")])
    lstsq: Any = np.linalg.lstsq
    true = lstsq(table, pooled(of, "dose"), rcond=None)[0]
    assert [line["intercept"], line["age"], line["sick"]] == pytest.approx(true.tolist(), rel=1e-3)
    assert line["r_squared"] > 0.9


def test_what_noise_drowns_is_not_told_as_certain():
    """A regression far below its noise: r_squared ends at 0 whatever is drawn, and nothing is said of how far off that is."""
    wanted = question_of("select regression(dose, age)", {"a": schema()})
    exact = np.array([180.0, 18.0, -36.0, 60.0, 50.0, 70.0])
    draw, ends = np.random.default_rng(5), 0
    for at in range(20):
        noisy = np.rint((exact + draw.normal(0, 60, 6)) * (1 << FRACTION)).astype(np.int64)
        told = numbers(wanted, noisy)
        half = half_widths(wanted, noisy, (60.0 * (1 << FRACTION)) ** 2, at.to_bytes(32))
        assert all(width > 0 for width in half.values())
        ends += told["r_squared"] == 0.0
        assert told["r_squared"] > 0 or half["r_squared"] > 1
    assert ends


def test_too_few_rows_are_told_with_what_was_charged(tmp_path: Path):
    """The shares came and were paid; of no rows no line follows."""
    of = three(tmp_path, 3, 0)
    with pytest.raises(NoStatistic, match=r"0\.0 rows are in the sum; this statistic needs 1") as told:
        asyncio.run(asked(of, "select regression(dose, age)"))
    assert told.value.charged_wei == 3 * USE_WEI


def test_a_noised_mean_is_within_what_is_told_and_each_vault_spends_its_epsilon_once(tmp_path: Path):
    """ε 1: near the truth, with an interval that holds it; one use in each log, of the ε that was asked."""
    of = three(tmp_path, 4, 2_000, 4 * MICRO)
    came = asyncio.run(asked(of, "select count(*) as n, avg(age) as age", MICRO))
    true = pooled(of, "age").mean()
    assert came.values["age"] != true
    # A half width is 1.96 deviations, by 400 draws: four are missed once in 10^12 runs.
    assert abs(came.values["age"] - true) < 4 * came.half["age"] < 3
    assert abs(came.values["n"] - 8_000) < 4 * came.half["n"] < 300
    assert [it.spent_micro() for it in of] == [MICRO] * 4
    assert came.charged_wei == 4 * (1_000 * MILLI_WEI + USE_WEI)


def test_the_interval_covers_what_it_says():
    """Of sums with noise of a known variance, about nineteen in twenty are within the half width that is told."""

    wanted = question_of("select avg(age)", {"a": schema()})
    draw = np.random.default_rng(3)
    rows, total = 1_000, np.rint(np.array([1_000, 550.0, 310.0]) * (1 << FRACTION)).astype(np.int64)
    deviation, inside = 20.0 * (1 << FRACTION), 0
    for at in range(100):
        noisy = total + np.rint(draw.normal(0, deviation, 3)).astype(np.int64)
        half = half_widths(wanted, noisy, deviation**2, at.to_bytes(32))["avg(age)"]
        inside += abs(numbers(wanted, noisy)["avg(age)"] - (50 + 50 * 550 / rows)) <= half
    assert 88 <= inside <= 100


@pytest.mark.parametrize("where", ["order", "Advert", "Masked", "Roll"])
def test_one_of_four_vaults_may_drop_out(tmp_path: Path, where: str):
    """Gone at the order or in the middle of the sum: the statistic is of the other three, and says so."""
    of = three(tmp_path, 4, 60)
    of[2].dead_at = where
    came = asyncio.run(asked(of, "select count(*) as n, avg(age) as age"))
    left = [it for it in of if it.name in came.vaults]
    assert came.values["n"] == pytest.approx(60 * len(left), rel=1e-6)
    assert came.values["age"] == pytest.approx(pooled(left, "age").mean(), rel=1e-5)
    assert len(left) == 4 or (len(left) == 3 and "clinic-2" in came.dropped)


def test_with_two_vaults_nothing_is_ordered(tmp_path: Path):
    """Where one of three won't, nobody is asked to spend anything."""
    of = three(tmp_path, 3, 60, MICRO)
    of[1].dead_at = "Hello"
    with pytest.raises(NoStatistic, match="2 of 3 vaults are ready, and 3 must"):
        asyncio.run(asked(of, "select avg(age)", MICRO))
    assert [it.spent_micro() for it in of] == [0, 0, 0]
    assert not any(it.orders for it in of)


def test_a_vault_that_was_killed_after_its_order_gives_the_same_share(tmp_path: Path):
    """Its memory is gone: it makes the share again of the ε that was spent, and the statistic comes."""
    of = three(tmp_path, 3, 60, MICRO)
    plain = of[0].order

    async def order_and_die(order: object, most_wei: int | None) -> object:
        paid = await plain(order, most_wei)  # pyright: ignore[reportArgumentType]
        of[0].restart()
        return paid

    of[0].order = order_and_die  # pyright: ignore[reportAttributeAccessIssue]
    came = asyncio.run(asked(of, "select count(*) as n, avg(age)", MICRO))
    assert len(came.vaults) == 3
    assert [it.spent_micro() for it in of] == [MICRO] * 3
    assert [len(it.vault.uses()) for it in of] == [1, 1, 1]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("select avg(wage)", "no column wage"),
        ("select avg(note)", "text without bounds"),
        ("select avg(patient)", "who a row"),
        ("select median(age)", "isn't answered jointly"),
        ("select avg(age) from x where sick", "where isn't answered"),
        ("select count(*)", "name 1 to"),
        ("select avg(age), histogram(age, 5)", "stands alone"),
        ("select histogram(age, 100000)", "cells"),
        ("select regression(age, age)", "twice"),
        ("drop table x", "one select"),
        ("select avg(age", "can't be read"),
    ],
)
def test_what_vaults_do_not_answer_together_is_said_before_anything_is_asked(sql: str, why: str):
    """With what to write instead."""
    with pytest.raises(BadQuestion, match=why):
        question_of(sql, {"a": schema(), "b": schema()})


def test_bounds_are_the_widest_of_all_vaults():
    """So every vault scales alike, whatever it declares."""
    wanted = question_of("select AVG(Age)", {"a": schema(90), "b": schema(120)})
    [range_] = wanted.question.columns  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    assert (range_.column, range_.low, range_.span) == ("age", 0, 120)  # pyright: ignore[reportUnknownMemberType]


def test_an_answer_of_another_order_shows_without_the_data(tmp_path: Path):
    """A gateway, and a validator: honest is honest, and whoever puts another's pledge in its place is convicted."""
    of = three(tmp_path, 3, 60, MICRO)
    asyncio.run(asked(of, "select avg(age)", MICRO))
    mine, others = of[0].orders[0], of[1].orders[0]

    async def check() -> None:
        paid = await of[0].order(mine, None)
        tokens = tokens_of(paid.answer)
        assert KIND.check_part is not None
        assert (await KIND.check_part(mine, tokens, "stop", b"")).weight_milli < 0
        assert (await KIND.check_part(others, tokens, "stop", b"")).weight_milli > 0
        assert KIND.recount(others, tokens) == (0, 0)

    asyncio.run(check())
    assert of[0].spent_micro() == MICRO
