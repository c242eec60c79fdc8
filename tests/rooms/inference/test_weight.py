"""What gaps weigh: honest answers never much, weights of another model soon, one edit an answer within a few answers."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core.sequential import BOUND_MILLI, FLOOR_MILLI, add, convinced
from clusterai.models import Calibration
from clusterai.models.core.card import read_card
from clusterai.models.store import CARDS
from clusterai.work.inference.core.weight import (
    EDITED_EVERY,
    EDITS,
    GENERIC,
    IMPOSSIBLE_MILLI,
    Scales,
    weights,
)

CARD = read_card((CARDS / "smollm2-135m.json").read_bytes()).calibration or GENERIC
CALIBRATIONS = pytest.mark.parametrize("calibration", [GENERIC, CARD], ids=["generic", "card"])
FAR = 9.0
"""A gap that no arithmetic explains: the likeliest token replaced by any other."""


def weigh(calibration: Calibration, gaps: list[float]) -> int:
    scales = Scales(calibration)
    for gap in gaps:
        scales.add(gap)
    return scales.milli


def honest_gap(calibration: Calibration, random: Random) -> float:
    """One from each bin as often as the calibration allows at most, else a match."""
    at = random.random() * 1e9
    for share, low in zip(calibration.honest_ppb[:0:-1], calibration.edges_e4[::-1], strict=True):
        if at < share:
            return low / 10_000 + 1e-6
    return 0.0


@CALIBRATIONS
def test_weights_rise_with_the_gap(calibration: Calibration) -> None:
    """A provider with better arithmetic can't look worse."""
    for table in weights(calibration):
        assert table == sorted(table)
        assert table[0] < 0 < table[-1]
    assert IMPOSSIBLE_MILLI > BOUND_MILLI - FLOOR_MILLI


@CALIBRATIONS
def test_the_mean_likelihood_ratio_of_honest_tokens_is_at_most_one(calibration: Calibration) -> None:
    """What Ville's bound rests on, at the greatest honest shares that the calibration allows."""
    for table in weights(calibration):
        tails = [*calibration.honest_ppb[1:], 0]
        shares = [high - low for high, low in zip([10**9, *tails[:-1]], tails, strict=True)]
        assert sum(shares) == 10**9
        assert (
            sum(share * math.exp(weight) for share, weight in zip(shares, table, strict=True)) <= 1e9 * 1.0001
        )


@CALIBRATIONS
@pytest.mark.parametrize("size", [1, 12, 120, 1000])
def test_no_honest_provider_climbs(calibration: Calibration, size: int) -> None:
    """At the greatest honest shares, 100,000 tokens in answers of any length stay far from conviction."""
    random = Random(size)
    state = highest = 0
    for _ in range(100_000 // size):
        state = add(state, weigh(calibration, [honest_gap(calibration, random) for _ in range(size)]))
        highest = max(highest, state)
    assert highest < BOUND_MILLI * 0.7


@pytest.mark.parametrize(("size", "answers"), [(12, 3), (120, 3), (400, 3)])
def test_one_edit_an_answer_is_convicted_within_few_answers(size: int, answers: int) -> None:
    """From the floor, each answer honest but for one token: the third convicts. Two do for a provider without a past."""
    answer = [0.0] * (size - 1) + [FAR]
    fresh = add(add(0, weigh(CARD, answer)), weigh(CARD, answer))
    assert convinced(fresh)
    state = FLOOR_MILLI
    for _ in range(answers):
        assert not convinced(state)
        state = add(state, weigh(CARD, answer))
    assert convinced(state)


@CALIBRATIONS
def test_one_odd_token_convicts_nobody(calibration: Calibration) -> None:
    """Whatever made it (a flipped bit, say): a single one is forgiven, in an answer of any length."""
    for size in (1, 10, 1000):
        assert not convinced(add(0, weigh(calibration, [0.0] * (size - 1) + [FAR])))


@CALIBRATIONS
def test_small_gaps_in_many_tokens_convict_whatever_the_answers_length(calibration: Calibration) -> None:
    """Other weights, in answers of 1 to 300 tokens, from the floor, within 300 tokens."""
    for size in (1, 10, 50, 300):
        random, state, count = Random(size), FLOOR_MILLI, 0
        while not convinced(state) and count < 3000:
            gaps = random.choices(
                [0.0, *(edge / 10_000 + 1e-6 for edge in calibration.edges_e4)], calibration.fraud_ppm, k=size
            )
            state, count = add(state, weigh(calibration, gaps)), count + size
        assert count <= (300 if size > 1 else 600)


@given(st.lists(st.sampled_from([0.0, 0.05, 0.5, 1.5, 9.0, math.inf]), max_size=40))
def test_an_answers_weight_is_that_of_the_mixture(gaps: list[float]) -> None:
    """The log of the weighted mean of both likelihood ratios; an impossible token convicts beside any others."""
    milli = weigh(GENERIC, gaps)
    if math.inf in gaps:
        assert convinced(add(FLOOR_MILLI, milli))
        return
    sums = [
        sum(table[sum(gap > edge / 10_000 for edge in GENERIC.edges_e4)] for gap in gaps)
        for table in weights(GENERIC)
    ]
    mixed = math.log((1 - EDITS) * math.exp(sums[0]) + EDITS * math.exp(sums[1]))
    assert milli == pytest.approx(1000 * mixed if gaps else 0, abs=0.51)


def test_weights_are_log_ratios() -> None:
    """A bin's weight is the log of fraud against honest; an edit is one token in many."""
    even = Calibration((0,), (900_000_000, 100_000_000), (500_000, 500_000), (1, 999_999), 1, "")
    other, edits = weights(even)
    assert other == pytest.approx([math.log(5 / 9), math.log(5)])
    rate = 1 / EDITED_EVERY
    assert edits == pytest.approx([math.log(1 - rate), math.log(1 - rate + rate * 10)], abs=1e-5)


def test_a_calibration_has_a_share_for_every_bin() -> None:
    """Edges rise, and no bin is called impossible."""
    with pytest.raises(ValueError, match="must rise"):
        Calibration((5, 5), (1, 1, 1), (1, 1, 1), (1, 1, 1), 0, "")
    with pytest.raises(ValueError, match="one share"):
        Calibration((5, 6), (1, 1), (1, 1, 1), (1, 1, 1), 0, "")
    with pytest.raises(ValueError, match="one share"):
        Calibration((5, 6), (1, 0, 1), (1, 1, 1), (1, 1, 1), 0, "")
