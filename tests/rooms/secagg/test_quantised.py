"""Real vectors become integers whose sums can't wrap, within the rounding that is stated."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.vault.core.secagg import vectors
from clusterai.vault.core.secagg.quantise import (
    DoesNotFit,
    Grid,
    clipped,
    decode_mean,
    decode_sum,
    encode,
    modulus_bits,
)


@given(st.integers(2, 200), st.integers(2, 24), st.integers(1, 1000), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_largest_sums_come_back(members: int, value_bits: int, weight: int, seed: int):
    """All members at the edge at once: the modulus holds it, in both signs."""
    grid = Grid(clip=5.0, value_bits=value_bits, most_weight=weight)
    bits = modulus_bits(members, grid.largest)
    for sign in (1, -1):
        total = np.full(3, sign * grid.largest * members)
        wrapped = vectors.wrap(total, bits)
        assert (vectors.lift(wrapped, bits) == total).all()
    draw = np.random.default_rng(seed)
    parts = [
        encode(draw.normal(size=4), grid, int(draw.integers(0, weight, endpoint=True)))
        for _ in range(members)
    ]
    assert all(np.abs(part).max() <= max(grid.largest, weight) for part in parts)


def test_sixteen_bits_of_1024_members_take_26():
    """The published setting: 16-bit values, 2^10 users."""
    assert modulus_bits(1024, Grid(clip=1.0).largest) == 26


def test_a_weighted_mean_is_within_half_a_step():
    """Nearest rounding moves each value by half a step at most, whatever the weights."""
    draw = np.random.default_rng(3)
    grid = Grid(clip=100.0, reach=4.0, most_weight=50)
    updates, weights = draw.normal(size=(20, 30)), draw.integers(1, 50, 20)
    total = sum(
        (encode(u, grid, int(w)) for u, w in zip(updates, weights, strict=True)), np.zeros(31, np.int64)
    )
    true = np.average(updates, axis=0, weights=weights)
    assert np.abs(decode_mean(total, grid) - true).max() <= grid.step / 2 + 1e-12
    assert decode_sum(total, grid)[1] == weights.sum()


def test_stochastic_rounding_has_no_bias_and_repeats_by_its_seed():
    """Many roundings of one value average to it; one seed gives one rounding."""
    grid = Grid(clip=200.0, reach=1.0, value_bits=4, stochastic=True)
    update = np.full(40_000, 0.1)
    once = encode(update, grid, seed=5)
    assert (once == encode(update, grid, seed=5)).all()
    assert abs(float(once[:-1].mean()) * grid.step - 0.1) < 0.003
    assert set(once[:-1].tolist()) == {0, 1}


@given(st.lists(st.floats(width=64), min_size=1, max_size=20), st.floats(1e-3, 1e6))
def test_nothing_is_longer_than_its_clip(values: list[float], clip: float):
    """Infinities, not-a-numbers and huge values included."""
    out = clipped(np.asarray(values), clip)
    assert np.isfinite(out).all()
    assert float(np.linalg.norm(out)) <= clip * (1 + 1e-9)
    assert np.abs(encode(np.asarray(values), Grid(clip=clip))).max() <= Grid(clip=clip).largest


def test_rounding_lengthens_by_what_norm_says():
    """The bound that noise is scaled by holds."""
    for stochastic in (False, True):
        grid = Grid(clip=1.0, value_bits=5, stochastic=stochastic)
        for seed in range(20):
            update = np.random.default_rng(seed).normal(size=50) * 10
            got = float(np.linalg.norm(encode(update, grid, seed=seed)[:-1]))
            assert got <= grid.norm(50)


def test_what_no_modulus_holds_is_refused():
    """Rather than a sum that wrapped."""
    with pytest.raises(DoesNotFit, match="64 is the most"):
        modulus_bits(1000, 2**60)
    assert math.isclose(Grid(clip=2.0).step * Grid(clip=2.0).levels, 2.0)
