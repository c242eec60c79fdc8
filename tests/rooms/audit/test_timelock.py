"""Proof of time-lock: whoever takes a share of a rented machine is seen, and honest machines never are."""

from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core.timelock import (
    CEILING_PPM,
    FLOOR_PPM,
    MILLION,
    MOST_SLACK_PPM,
    ROUND,
    USES,
    Evidence,
    Interval,
    Profile,
    add,
    profiled,
    proven_ppm,
    residual_ppm,
    share_ppm,
)

CORES, RATE, BEAT_S = 4, 20.0, 3.0
NOISE = 0.02


def rented(dice: Random, beats: int, stolen: float = 0.0, noise: float = NOISE, drag: float = 0.6):
    """Intervals of a machine whose noise is correlated and has hiccups, whose tenant works now and then."""
    wander = 0.0
    use = 0.5
    for _ in range(beats):
        wander = drag * wander + dice.gauss(0, noise) * (1 - drag**2) ** 0.5
        use = min(1.0, max(0.0, use + dice.gauss(0, 0.1)))
        there = CORES * BEAT_S * (1 - stolen) * min(1.01, 1 + wander)
        if dice.random() < 1e-3:
            there *= dice.random()
        tenant_s = min(there, CORES * BEAT_S * use)
        yield Interval(BEAT_S, tenant_s, round((there - tenant_s) * RATE))


def profile() -> Profile:
    return profiled(CORES, RATE, list(rented(Random(0), 4000)))


def played(dice: Random, seconds: float, stolen: float) -> tuple[bool, bool]:
    """Whether the alarm rose, and whether the machine was convicted."""
    evidence, alarmed = Evidence(), False
    known = PROFILE
    for interval in rented(dice, int(seconds / BEAT_S), stolen):
        evidence = add(known, evidence, interval)
        alarmed |= evidence.alarmed
        if evidence.convinced:
            return True, True
    return alarmed, False


PROFILE = profile()


def test_an_honest_machine_is_never_convicted_and_hardly_ever_suspected():
    """A thousand spans of ten minutes with correlated noise and hiccups: no conviction, and an alarm in one at most."""
    dice = Random(1)
    found = [played(dice, 600, 0.0) for _ in range(1000)]
    assert not any(convicted for _, convicted in found)
    assert sum(alarmed for alarmed, _ in found) <= 1


@pytest.mark.parametrize(("stolen", "seconds"), [(0.05, 600), (0.02, 3600)])
def test_a_thief_is_seen(stolen: float, seconds: float):
    """Five percent for ten minutes, two percent for an hour: seen in at least 99 of 100."""
    dice = Random(2)
    assert sum(played(dice, seconds, stolen)[0] for _ in range(200)) >= 198


def test_a_long_theft_convicts():
    """A tenth for ten minutes reaches the bound that an honest machine never does."""
    assert played(Random(3), 600, 0.10) == (True, True)


def test_what_is_stolen_within_slack_is_not_seen():
    """The promise's end: less than the slack looks like heat, in a whole day."""
    assert played(Random(4), 86_400, 0.002) == (False, False)


@given(st.integers(0, MOST_SLACK_PPM))
def test_no_bet_gains_on_the_average_where_nothing_is_missing(slack_ppm: int):
    """Rounds whole or short by twice the slack, at equal chances: the mean is just allowed, and no capital is expected to grow."""
    flat = Profile(1, 1.0, (MILLION,) * USES, slack_ppm)
    capitals: list[tuple[float, ...]] = []
    for short_ppm in (0, 2 * slack_ppm):
        evidence = Evidence()
        for _ in range(ROUND):
            evidence = add(flat, evidence, Interval(1.0, 1 - short_ppm / MILLION, 0))
        capitals.append(tuple(map(exp, evidence.nats)))
    for outcomes in zip(*capitals, strict=True):
        assert sum(outcomes) / 2 == pytest.approx(1, abs=1e-9)


@given(st.floats(0.1, 60), st.floats(0, 1e4), st.integers(0, 10**9))
def test_one_interval_says_no_more_than_its_bounds(seconds: float, tenant_s: float, links: int):
    """Nonsense from a hostile machine moves the tests by a bounded step, and pays no more than the whole."""
    interval = Interval(seconds, tenant_s, links)
    assert -FLOOR_PPM <= residual_ppm(PROFILE, interval) <= CEILING_PPM
    assert 0 <= proven_ppm(PROFILE, interval) <= MILLION
    evidence = Evidence()
    for _ in range(ROUND):
        evidence = add(PROFILE, evidence, interval)
    assert max(map(abs, evidence.nats)) < 2.1


def test_a_stolen_interval_pays_its_share():
    """An interval with a tenth missing is paid nine tenths, an honest one whole."""
    whole = Interval(10.0, 20.0, 20 * 20)
    assert share_ppm(Profile(CORES, RATE, (MILLION,) * USES), whole) == MILLION
    flat = Profile(CORES, RATE, (MILLION,) * USES)
    assert proven_ppm(flat, whole) == MILLION
    assert proven_ppm(flat, Interval(10.0, 20.0, 16 * 20)) == 900_000


def test_a_profile_needs_something_seen():
    """Without intervals there is nothing to compare with."""
    with pytest.raises(ValueError, match="needs intervals"):
        profiled(CORES, RATE, [])
