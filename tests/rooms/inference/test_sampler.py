"""Drawing tokens with keyed noise."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clusterai.work.inference.core import noise
from clusterai.work.inference.core.sampler import Context, draw, gap, logprobs
from clusterai.work.inference.spec import Sampling

SIZE = 3000
ROWS = (np.random.default_rng(0).standard_normal((16, SIZE)) * 3).astype(np.float32)
SPREAD = noise.spread(SIZE)

SAMPLINGS = [
    Sampling(temperature_ppm=0),
    Sampling(),
    Sampling(temperature_ppm=300_000),
    Sampling(temperature_ppm=2_000_000),
    Sampling(top_k=1),
    Sampling(top_k=40),
    Sampling(top_p_ppm=900_000),
    Sampling(top_p_ppm=0),
    Sampling(temperature_ppm=700_000, top_p_ppm=950_000, top_k=50, min_p_ppm=20_000),
    Sampling(min_p_ppm=100_000),
    Sampling(presence_ppm=500_000, frequency_ppm=-200_000, repetition_ppm=1_200_000),
    Sampling(logit_bias=((3, 5_000), (70, -100_000))),
]


def perturbed(row: NDArray[np.float32], sampling: Sampling, position: int) -> NDArray[np.float64]:
    """The definition, straight: scaled logits plus noise over the whole vocabulary."""
    random = noise.bits(noise.keys(sampling.seed, position), SPREAD)
    return row.astype(np.float64) * (1_000_000 / sampling.temperature_ppm) + noise.gumbel(random)


@given(
    st.integers(0, 2**64 - 1), st.integers(0, 10**6), st.sampled_from([10_000, 400_000, 1_000_000, 2_000_000])
)
@settings(max_examples=60)
def test_the_short_cut_is_exact(seed: int, position: int, temperature: int) -> None:
    """Noise is computed for a few tokens only, and the winner is the one over all."""
    sampling = Sampling(seed=seed, temperature_ppm=temperature)
    row = ROWS[seed % 16]
    assert draw(row, sampling, position).token == int(perturbed(row, sampling, position).argmax())


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_what_is_drawn_has_no_gap(sampling: Sampling) -> None:
    """The audit's distance is 0 for the drawn token, and above 0 for others, under every setting."""
    context = Context(sampling, prompt=range(10, 60), answer=[5, 5, 900])
    for position, row in enumerate(ROWS):
        token = draw(row, sampling, position, context).token
        assert gap(row, sampling, position, token, context) == 0
        assert gap(row, sampling, position, (token + 1) % SIZE, context) > 0


@given(st.integers(0, 10**9), st.integers(0, SIZE - 1))
@settings(max_examples=40)
def test_gap_is_the_distance_in_logits(seed: int, claimed: int) -> None:
    """Raise a claimed token's logit by its gap, and a little, and it is drawn."""
    sampling = Sampling(seed=seed, temperature_ppm=500_000)
    row = ROWS[seed % 16].copy()
    off = gap(row, sampling, 3, claimed)
    assert off == pytest.approx(
        (perturbed(row, sampling, 3).max() - perturbed(row, sampling, 3)[claimed]) / 2
    )
    row[claimed] += off + 1e-3
    assert draw(row, sampling, 3).token == claimed


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_small_errors_give_small_gaps(sampling: Sampling) -> None:
    """Logits off by 0.01 never look like fraud, filters' borders included: gaps stay within a few times that."""
    wrong = ROWS + np.random.default_rng(1).uniform(-0.01, 0.01, ROWS.shape).astype(np.float32)
    context = Context(sampling, prompt=range(10, 60), answer=[5, 5, 900])
    for position, (row, off) in enumerate(zip(ROWS, wrong, strict=True)):
        for seed in range(20):
            keyed = msgspec.structs.replace(sampling, seed=seed)
            token = draw(off, keyed, position, context).token
            assert gap(row, keyed, position, token, context) < 0.08


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=12),
    st.integers(0, 11),
    st.sampled_from([10_000, 100_000, 300_000, 500_000, 700_000, 900_000, 990_000]),
    st.sampled_from([300_000, 1_000_000, 2_000_000]),
    st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_a_swap_at_top_ps_border_is_a_small_gap(
    logits: list[float], tied: int, top_p: int, temperature: int, seed: int
) -> None:
    """Two tokens nearly equal change places, and with them who is inside of top-p: that is an error of 0.01, not a fraud."""
    row = np.full(200, -20, np.float32)
    row[: len(logits)] = logits
    row[100] = row[tied % len(logits)] + np.float32(0.001)
    random = np.random.default_rng(seed)
    for position in range(8):
        off = row + random.uniform(-0.01, 0.01, row.shape).astype(np.float32)
        sampling = Sampling(seed=seed, temperature_ppm=temperature, top_p_ppm=top_p)
        token = draw(off, sampling, position).token
        assert gap(row, sampling, position, token) < 0.08


def test_draws_follow_the_softmax() -> None:
    """Over positions, tokens come as often as their probability says (chi squared, 3 degrees of freedom)."""
    shares = np.array([0.5, 0.25, 0.15, 0.1])
    row = np.log(shares).astype(np.float32)
    counts = np.bincount(
        [draw(row, Sampling(seed=9), position).token for position in range(20_000)], minlength=4
    )
    expected = shares * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_seeds_and_positions_are_independent() -> None:
    """Noise of neighbouring seeds, positions and tokens doesn't correlate."""
    base = noise.gumbel(noise.bits(noise.keys(1, 1), SPREAD))
    for seed, position in ((2, 1), (1, 2), (2**32 + 1, 1), (1, 2**32 + 1)):
        other = noise.gumbel(noise.bits(noise.keys(seed, position), SPREAD))
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.08
    assert abs(np.corrcoef(base[:-1], base[1:])[0, 1]) < 0.08


def test_noise_is_pinned() -> None:
    """The bits are part of the protocol: another implementation can be held to these."""
    random = noise.bits(noise.keys(1, 0), noise.spread(4))
    assert random.tolist() == [2322557290, 3781413556, 722755102, 4039409550]
    assert noise.gumbel(np.array([0, 2**31, 2**32 - 1], np.uint32)) == pytest.approx(
        [-3.129995, 0.366513, 22.873857], abs=1e-5
    )


@given(st.floats(-3, 25))
def test_threshold_on_bits_is_safe(value: float) -> None:
    """Bits below the threshold never reach the value; so nothing that could win is passed over."""
    least = noise.least_bits(value)
    if least > 0:
        assert noise.gumbel(np.array([min(least, 2**32) - 1], np.uint64).astype(np.uint32))[0] <= value + 1e-9


def test_grammar_decides_first() -> None:
    """Only allowed tokens are drawn, and a forbidden claim is infinitely far."""
    allowed = np.zeros(SIZE, np.bool_)
    allowed[[7, 8]] = True
    for sampling in SAMPLINGS:
        assert draw(ROWS[0], sampling, 0, Context(sampling), allowed).token in (7, 8)
    assert gap(ROWS[0], Sampling(), 0, 9, None, allowed) == math.inf
    assert gap(ROWS[0], Sampling(), 0, SIZE) == math.inf


def test_penalties() -> None:
    """Presence once, frequency by count, repetition on both signs; prompts count for repetition only."""
    row = np.array([2.0, -2.0, 1.0, 0.5], np.float32)
    counted = Context(Sampling(presence_ppm=100_000, frequency_ppm=200_000), prompt=[3], answer=[0, 0, 1])
    assert counted.distort(row) == pytest.approx([1.5, -2.3, 1.0, 0.5])
    repeated = Context(Sampling(repetition_ppm=2_000_000), prompt=[3], answer=[0, 1])
    assert repeated.distort(row) == pytest.approx([1.0, -4.0, 1.0, 0.25])
    assert row[0] == 2.0


def test_tokens_beyond_the_row_are_passed_over() -> None:
    """Biases and penalties on tokens that the model doesn't have change nothing."""
    sampling = Sampling(logit_bias=((4, 9_000),), repetition_ppm=1_500_000)
    row = np.array([2.0, -2.0, 1.0, 0.5], np.float32)
    assert draw(row, sampling, 0, Context(sampling, prompt=[99])).token in range(4)


def test_logprobs_are_the_models_own() -> None:
    """Reported probabilities sum to 1 before distortion, likeliest first."""
    row = ROWS[0]
    own, top = logprobs(row, 17, 5)
    exact = row - np.log(np.exp(row.astype(np.float64)).sum())
    assert own == pytest.approx(exact[17], abs=1e-5)
    assert [token for token, _ in top] == np.argsort(-row)[:5].tolist()
    assert logprobs(row, 17, 0)[1] == ()
