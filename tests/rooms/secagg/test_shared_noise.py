"""Noise that members add each for itself makes the sum private, whoever drops out."""

import math

import numpy as np
import pytest

from clusterai.vault.adapters.noising import epsilon, noised, rho_for
from clusterai.vault.core.secagg import graph
from clusterai.vault.core.secagg.noise import TooCoarse, concentrated, share
from clusterai.vault.core.secagg.quantise import Grid, modulus_bits


def test_a_third_may_drop_out_and_the_promise_holds():
    """The fewest members of a sum, less the colluders, make the noise; all of them make half as much again."""
    members, colluders = 30, 2
    rho = rho_for(1.0, 1e-6)
    made = share(rho, sensitivity=5000.0, length=1000, quorum=graph.quorum(members), colluders=colluders)
    assert made.least == 18
    assert epsilon(made.rho(), 1e-6) <= 1.0
    assert made.rho() == pytest.approx(rho, rel=1e-6)
    assert made.rho(members) == pytest.approx(rho * 18 / 30, rel=1e-6)
    assert epsilon(made.rho(members), 1e-6) < 0.8


def test_the_price_is_the_gaussian_s_but_for_a_trifle():
    """With variance 4 a member the cost of not being one Gaussian is below a billionth; below that it is refused."""
    assert concentrated(4.0, 10.0, 10**6, 20) == pytest.approx(100 / (2 * 20 * 4.0), rel=1e-6)
    assert concentrated(0.25, 10.0, 10**6, 20) > 100 / (2 * 20 * 0.25) * 1.1
    with pytest.raises(TooCoarse, match="more bits"):
        share(10.0, sensitivity=2.0, length=10, quorum=20)


def test_noise_has_the_variance_that_is_accounted():
    """Drawn by OpenDP, which can't be seeded: six deviations are allowed. The weight at the end is public and stays."""
    made = share(0.01, sensitivity=300.0, length=4000, quorum=4)
    before = np.arange(4001)
    drawn = [noised(before, made) for _ in range(4)]
    assert all(values[-1] == 4000 for values in drawn)
    moved = np.stack(drawn)[:, :-1] - before[:-1]
    assert float(moved.var()) == pytest.approx(made.variance, rel=0.068)
    assert abs(float(moved.mean())) < 6 * math.sqrt(made.variance / moved.size)
    assert float(moved.sum(axis=0).var()) == pytest.approx(300.0**2 / (2 * 0.01), rel=0.135)
    assert np.abs(moved.sum(axis=0)).max() < made.margin(4)


def test_noise_and_values_fit_one_modulus():
    """The margin of all members' noise is part of what a sum must hold."""
    grid = Grid(clip=1.0, value_bits=16)
    made = share(rho_for(4.0, 1e-6), sensitivity=grid.norm(1000), length=1000, quorum=20)
    bits = modulus_bits(30, grid.largest + math.ceil(made.margin(30) / 30))
    assert 2 ** (bits - 1) > 30 * grid.largest + made.margin(30)


def test_epsilon_falls_with_rho_and_matches_the_classic_bound():
    """OpenDP's conversion is at most rho + 2 sqrt(rho ln(1/delta)), and monotone."""
    for rho in (0.001, 0.05, 0.5, 2.0):
        classic = rho + 2 * math.sqrt(rho * math.log(1e6))
        assert 0 < epsilon(rho, 1e-6) <= classic
        assert epsilon(rho, 1e-6) < epsilon(rho * 1.5, 1e-6)


def test_small_epsilons_are_kept_too():
    """The search for rho never ends above what was asked for."""
    for wanted in (1e-6, 1e-4, 0.01, 3.0):
        assert epsilon(rho_for(wanted, 1e-9), 1e-9) <= wanted
