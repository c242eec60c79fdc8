"""The sequential test: honest providers are never convicted, cheats soon are, and sleepers have nothing saved."""

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core.sequential import ALPHA, BOUND_MILLI, FLOOR_MILLI, add, convinced

HONEST, FRAUD = 0.01, 0.10
MATCH = round(1000 * math.log((1 - FRAUD) / (1 - HONEST)))
MISS = round(1000 * math.log(FRAUD / HONEST))


def tokens_until_convinced(random: Random, misses: float, state: int = 0, most: int = 10**6) -> int | None:
    for token in range(1, most + 1):
        state = add(state, MISS if random.random() < misses else MATCH)
        if convinced(state):
            return token
    return None


def test_a_million_honest_tokens_convict_nobody() -> None:
    """At exactly the calibrated honest rate the test stays near its floor."""
    assert tokens_until_convinced(Random(1), HONEST) is None


def test_cheats_are_convicted_within_300_tokens_on_average() -> None:
    """At the mildest fraud's rate the mean over 200 cheats is below 300 tokens, from a clean start."""
    found = [tokens_until_convinced(Random(seed), FRAUD) for seed in range(200)]
    assert all(found)
    assert sum(token for token in found if token) / len(found) < 300


def test_a_sleeper_pays_for_its_past_once() -> None:
    """However long it was honest, the floor limits what fraud needs: twice the evidence, not more."""
    found = [tokens_until_convinced(Random(seed), FRAUD, FLOOR_MILLI) for seed in range(200)]
    assert sum(token for token in found if token) / len(found) < 600


def test_the_bound_is_that_of_alpha() -> None:
    """e^-bound is at most alpha, and from the floor at most alpha squared."""
    assert math.exp(-BOUND_MILLI / 1000) <= ALPHA
    assert math.exp((FLOOR_MILLI - BOUND_MILLI) / 1000) <= ALPHA**2


@given(st.lists(st.integers(-50_000, 50_000)))
def test_the_state_stays_above_its_floor(weights: list[int]) -> None:
    """No run of honest receipts buries later fraud."""
    state = 0
    for weight in weights:
        state = add(state, weight)
        assert state >= FLOOR_MILLI
