"""The arithmetic of deterrence, number by number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core.rate import (
    Terms,
    advantage,
    burst,
    detection,
    epochs,
    least_rate,
    rate,
    reexecuted,
    replicas,
    trap_rate,
)


@pytest.mark.parametrize(
    ("stake", "percent", "repeated"), [(1, 53, 2.65), (10, 9.6, 0.48), (50, 2.1, 0.10), (100, 1.05, 0.0525)]
)
def test_the_published_rates(stake: float, percent: float, repeated: float) -> None:
    """At s = 0.7R, d0 = 0.99, r = 0.2 and a margin of 20 %, p* and the work repeated at T = 20 are as published."""
    least = least_rate(Terms(saved=0.7, stake=stake))
    assert least * 100 == pytest.approx(percent, rel=0.01)
    assert reexecuted(least, 20) * 100 == pytest.approx(repeated, rel=0.05)


def test_one_stake_covers_many_jobs_only_if_all_pay_is_forfeited() -> None:
    """With 100 open jobs at break-even, forfeiting all leaves the cheat -42R; only the caught jobs, +31R."""
    terms = Terms(saved=0.7, stake=50, margin=0)
    least = least_rate(terms)
    assert burst(terms, least, 100, forfeit_all=True) == pytest.approx(-42, abs=0.5)
    assert burst(terms, least, 100, forfeit_all=False) == pytest.approx(31, abs=0.5)


def test_one_auditor_costs_least() -> None:
    """Overhead goes as m / (1 - r^m), least at m = 1."""
    cost = [m * least_rate(Terms(saved=0.7, stake=10, auditors=m)) for m in (1, 2, 3, 4)]
    assert cost == sorted(cost)
    assert detection(Terms(saved=0.7, stake=10, auditors=2)) > detection(Terms(saved=0.7, stake=10))


def test_a_newcomer_is_always_audited_and_a_veteran_at_the_least_rate() -> None:
    """Reputation lowers the rate down to p* and never below."""
    terms = Terms(saved=0.7, stake=10)
    assert rate(Terms(saved=0.7, stake=0), 0) == 1
    assert rate(terms, 0) == 1
    assert rate(terms, 49) == pytest.approx(0.2)
    assert rate(terms, 10_000) == least_rate(terms)


def test_sabotage_needs_replicas() -> None:
    """Where a wrong result is worth 1000 prices, auditing can't deter and the least number of replicas can."""
    terms = Terms(saved=0.7, stake=1, gain=1000, sensitivity=0.5)
    assert least_rate(terms) > 1
    n = replicas(gain=1000, stake=1, corrupt=0.2)
    assert 0.2**n * 1000 < (1 - 0.2**n) * n
    assert 0.2 ** (n - 1) * 1000 >= (1 - 0.2 ** (n - 1)) * (n - 1)
    with pytest.raises(ValueError, match="no number"):
        replicas(gain=1, stake=0, corrupt=0.2)


def test_a_lazy_auditor_loses_above_the_trap_rate() -> None:
    """A check that costs 1 for a fee of 2 and a bond of 98 needs traps in one of a hundred."""
    assert trap_rate(1, 2, 98) == pytest.approx(0.01)


@given(st.floats(0.01, 1), st.floats(0, 1000), st.floats(0.5, 1), st.floats(0, 0.5), st.floats(0, 1e-3))
def test_at_the_least_rate_honesty_wins(
    saved: float, stake: float, sensitivity: float, corrupt: float, false_positive: float
) -> None:
    """Wherever p* is a probability, cheating at p* loses."""
    terms = Terms(
        saved=saved, stake=stake, sensitivity=sensitivity, corrupt=corrupt, false_positive=false_positive
    )
    least = least_rate(terms)
    if least <= 1:
        assert advantage(terms, least) < 0
    assert advantage(terms, 0) > 0


@given(
    st.lists(st.floats(0.001, 1_000), min_size=1, max_size=30),
    st.floats(0, 10_000),
    st.floats(0.01, 1.0),
)
def test_one_stake_covers_all_open_epochs(totals: list[float], stake: float, saved: float) -> None:
    """Cheating in any number of epochs at once, of any sizes, never wins where each is audited at p* of its own total."""
    terms = Terms(saved=saved, stake=stake, corrupt=0.0, sensitivity=1.0, margin=0.0)
    rates = [
        min(
            1.0, least_rate(Terms(saved=saved, stake=stake / total, corrupt=0.0, sensitivity=1.0, margin=0.0))
        )
        for total in totals
    ]
    assert epochs(terms, totals, rates) <= 1e-9 * sum(totals)


def test_half_of_what_deters_one_epoch_deters_none_of_many() -> None:
    """At S = 50 T, ten epochs at half of p* win, and at p* they lose."""
    terms = Terms(saved=0.7, stake=50)
    least = least_rate(terms)
    assert epochs(terms, [1.0] * 10, [least] * 10) < 0 < epochs(terms, [1.0] * 10, [least / 2] * 10)
