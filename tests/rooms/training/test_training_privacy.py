"""Noise and its account: never less than what is said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.work.training.adapters.noise import drawn
from clusterai.work.training.core import privacy


def test_the_curve_is_the_one_of_published_tables():
    """One Gaussian release: Balle and Wang's example, and the bound of the classical calibration above it."""
    assert privacy.epsilon_of(1.0, 1, 1e-5) == pytest.approx(4.377, abs=2e-3)
    assert privacy.delta_of(1.0, 1.0, 1) == pytest.approx(0.126936, abs=1e-5)
    classical = np.sqrt(2 * np.log(1.25 / 1e-5)) / 0.5
    assert privacy.multiplier_for(0.5, 1, 1e-5) < classical


@given(st.floats(0.1, 20), st.integers(1, 200), st.sampled_from([1e-7, 1e-5, 1e-3]))
def test_the_multiplier_that_is_chosen_costs_what_was_asked(epsilon: float, rounds: int, delta: float):
    """Not more; and not much less, or accuracy would be thrown away."""
    multiplier = privacy.multiplier_for(epsilon, rounds, delta)
    spent = privacy.epsilon_of(multiplier, rounds, delta)
    assert 0.999 * epsilon <= spent <= epsilon


@given(st.integers(300, 20_000), st.integers(1, 60))
def test_what_rounds_spend_adds_up_and_never_shrinks(noise_milli: int, rounds: int):
    """The vault's ledger holds the sum of the steps: what all of them cost together."""
    spent = [privacy.epsilon_micro(noise_milli, number, 10**7) for number in range(rounds + 1)]
    assert spent[0] == 0
    assert spent == sorted(spent)


def test_noise_is_as_wide_as_is_accounted_and_can_be_drawn_again():
    """By who has the vault's key; with another seed it is another."""
    noise = drawn(b"k" * 32, 200_000)
    assert np.array_equal(noise, drawn(b"k" * 32, 200_000))
    assert not np.array_equal(noise, drawn(b"l" * 32, 200_000))
    deviation = noise.std() / privacy.SHARE_STEPS
    assert deviation == pytest.approx(1.0, abs=0.01)
    assert abs(noise.mean()) / privacy.SHARE_STEPS < 0.01
    beyond_two = (np.abs(noise) > 2 * privacy.SHARE_STEPS).mean()
    assert beyond_two == pytest.approx(0.0455, abs=0.003)


def test_rounding_to_the_grid_is_accounted():
    """A wider update for many parameters, so a smaller multiplier is charged."""
    assert privacy.widened(2000, 100, 2) <= 2000
    assert privacy.widened(2000, 10**7, 2) < privacy.widened(2000, 100, 2)
    assert privacy.widened(2000, 10**7, 2) > 1800
