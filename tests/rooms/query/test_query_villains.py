"""Attacks on what leaves a vault: each is measured without noise, where it succeeds, and with it, where it must not."""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from clusterai.vault.core.schema import Column, Schema
from clusterai.work.query.core.estimate import Answered, Estimate, estimated
from clusterai.work.query.core.measuring import measured
from clusterai.work.query.core.noise import discrete_laplace
from clusterai.work.query.core.plan import RefusedQuery
from clusterai.work.query.core.release import budget_of, released
from clusterai.work.query.core.sql import plan_of
from clusterai.work.query.core.stream import Stream
from clusterai.work.query.core.table import Table

PEOPLE = 64
SCHEMA = Schema(
    columns=(
        Column(name="person", kind="int"),
        Column(name="born", kind="int", low=1900, high=2030),
        Column(name="pay", kind="float", low=0, high=1000),
        Column(name="sick", kind="bool"),
    ),
    unit="person",
)


class Asked:
    """A vault that counts what it was asked.

    Attributes:
        spent: ε in all.
    """

    def __init__(self, sick: NDArray[np.bool_], pay: NDArray[np.float64] | None = None) -> None:
        count = len(sick)
        columns = {
            "person": np.arange(count),
            "born": 1900 + np.arange(count) % 131,
            "pay": np.full(count, 500.0) if pay is None else pay,
            "sick": sick,
        }
        self._table = Table(SCHEMA, columns, count)
        self.spent = 0.0
        self._asked = 0

    def value(self, sql: str, epsilon: float | None) -> float:
        """With noise of this ε; without any where it is None."""
        plan = plan_of(sql, SCHEMA)
        exact = measured(self._table, plan, Stream(bytes(32), "rows"))
        if epsilon is None:
            return float(exact[0][0])
        self._asked += 1
        self.spent += epsilon
        told = released(
            plan, exact, budget_of(plan, int(epsilon * 10**6)), Stream(bytes(32), f"n {self._asked}")
        )
        cell = estimated([Answered(plan, told)])[0][0]
        assert isinstance(cell, Estimate)
        assert cell.value is not None
        return cell.value


def reconstructed(vault: Asked, epsilon: float | None, queries: int) -> NDArray[np.bool_]:
    """Who is sick, from counts over random sets of years of birth, by least squares.

    Source: Dinur, Nissim 2003, "Revealing information while preserving privacy".
    """
    random = np.random.default_rng(4)
    sets = random.random((queries, PEOPLE)) < 0.5
    counts = np.array(
        [
            vault.value(
                f"select count(*) where sick and born in ({', '.join(str(1900 + at) for at in np.flatnonzero(row))})",
                epsilon,
            )
            for row in sets
        ]
    )
    found = np.linalg.lstsq(sets.astype(float), counts, rcond=None)[0]
    return found > 0.5


def test_reconstruction_works_on_exact_counts_and_fails_within_a_budget():
    """Counts without noise give every person away; with ε = 4 in all, little more than guessing is left."""
    sick = np.random.default_rng(9).random(PEOPLE) < 0.5
    queries = 4 * PEOPLE
    assert (reconstructed(Asked(sick), None, queries) == sick).all()
    right: list[float] = []
    vault = Asked(sick)
    right.append(float((reconstructed(vault, 4 / queries, queries) == sick).mean()))
    assert vault.spent == pytest.approx(4)
    assert right[0] < 0.7


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_differencing_two_counts_says_no_more_than_both_their_budgets(epsilon: float):
    """Everybody, minus everybody but one: right at most as often as both ε together allow."""
    tries, right = 400, 0
    random = np.random.default_rng(5)
    for at in range(tries):
        is_sick = bool(random.random() < 0.5)
        sick = np.zeros(PEOPLE, np.bool_)
        sick[7] = is_sick
        vault = Asked(sick)
        vault._asked = 2 * at  # pyright: ignore[reportPrivateUsage]  other noise in each try
        whole = vault.value("select count(*) where sick", epsilon / 2)
        others = vault.value("select count(*) where sick and born <> 1907", epsilon / 2)
        right += (whole - others > 0.5) == is_sick
    bound = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert right / tries < bound + 3 * math.sqrt(bound * (1 - bound) / tries)


def test_a_tracker_is_told_the_same_noise_as_everybody():
    """Padding a narrow question with a broad one (Denning's tracker) meets noise of the same size on both."""
    sick = np.zeros(PEOPLE, np.bool_)
    sick[7] = True
    errors = [
        Asked(sick).value(sql, None)
        for sql in (
            "select count(*) where sick and born = 1907 or born < 1950",
            "select count(*) where sick and born = 1907 or not born < 1950",
            "select count(*)",
        )
    ]
    # Without noise the tracker works; the three questions take the budget of three.
    assert errors[0] + errors[1] - errors[2] == 1
    scale = Fraction(3)
    draws = Stream(bytes(32), "tracker")
    noisy = [sum(discrete_laplace(draws, scale) for _ in range(3)) for _ in range(500)]
    assert np.std(noisy) > 5


def test_a_millionaire_doesnt_show_in_a_sum():
    """A value a thousand times out of its bounds moves the sum as far as the bound, and that is what the noise hides."""
    rich = np.full(PEOPLE, 500.0)
    rich[3] = 10**6
    plain = np.full(PEOPLE, 500.0)
    plain[3] = 1000.0
    nobody = np.zeros(PEOPLE, np.bool_)
    assert Asked(nobody, rich).value("select sum(pay)", 1.0) == Asked(nobody, plain).value(
        "select sum(pay)", 1.0
    )


@pytest.mark.parametrize("poison", [float("inf"), float("-inf"), float("nan"), 1e308, -1e308])
def test_poisoned_cells_break_nothing(poison: float):
    """Infinities, no-numbers and giants in the data are clipped or null; the answer is finite."""
    pay = np.full(PEOPLE, 500.0)
    pay[3] = poison
    vault = Asked(np.zeros(PEOPLE, np.bool_), pay)
    for sql in ("select avg(pay)", "select variance(pay)", "select sum(pay)", "select median(pay)"):
        assert math.isfinite(vault.value(sql, 1.0))


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) where sick and person = 7",
        "select person, count(*) group by person",
        "select sum(case when person = 7 then pay end)",
        "select max(pay)",
        "select pay",
        "select avg(pay) / 0",
        "select avg(1 / (pay - 500))",
        "select count(*) where sqrt(pay - 500) > 0",
        "select count(*) where pay > (select avg(pay) from data)",
        "select string_agg(pay, ',')",
    ],
)
def test_questions_about_one_person_or_that_fail_by_value_are_refused(sql: str):
    """Nothing names a person, and nothing in the language can fail depending on a value."""
    with pytest.raises(RefusedQuery):
        plan_of(sql, SCHEMA)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_membership_is_guessed_as_seldom_as_epsilon_demands(epsilon: float):
    """From a sum, an attacker who knows all others guesses whether one rich person is in it within the bound of ε.

    The rule it guesses by is the best one for this noise: which of the two sums lies nearer.
    """
    tries, right = 400, 0
    random, plan = np.random.default_rng(6), plan_of("select sum(pay)", SCHEMA)
    for at in range(tries):
        is_in = bool(random.random() < 0.5)
        count = PEOPLE + is_in
        pay = np.full(count, 100.0)
        pay[PEOPLE:] = 1000.0
        columns = {
            "person": np.arange(count),
            "born": np.full(count, 1950),
            "pay": pay,
            "sick": np.zeros(count, np.bool_),
        }
        exact = measured(Table(SCHEMA, columns, count), plan, Stream(bytes(32), "rows"))
        told = released(plan, exact, budget_of(plan, int(epsilon * 10**6)), Stream(bytes(32), f"member {at}"))
        cell = estimated([Answered(plan, told)])[0][0]
        assert isinstance(cell, Estimate)
        assert cell.value is not None
        right += (cell.value > PEOPLE * 100.0 + 500.0) == is_in
    bound = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert right / tries < bound + 3 * math.sqrt(bound * (1 - bound) / tries)
