"""Roll-call: cards that are there answer, one under two names doesn't, and nobody is missing for one bad second."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core.rollcall import MOST_MISSED, deadline_s, missed_in_a_row, missing, p95_s

ALONE_S = 2.0
TRIP_S = 0.05


def called(names: list[str], device_of: dict[str, int], trip_s: float = TRIP_S) -> tuple[str, ...]:
    """A device does what it is asked for side by side: as many times slower as it has names."""
    share = {name: sum(device_of[it] == device_of[name] for it in names) for name in names}
    deadlines = {name: deadline_s([ALONE_S], trip_s) for name in names}
    return missing(deadlines, {name: ALONE_S * share[name] + trip_s for name in names})


def test_devices_that_are_there_answer() -> None:
    """Each within 1.15 times what it takes alone."""
    names = ["a", "b", "c"]
    assert called(names, {"a": 1, "b": 2, "c": 3}) == ()


def test_one_card_sold_twice_is_missing_twice() -> None:
    """Two names, two owners, one device: working for both it is late for both."""
    assert called(["a", "b", "c"], {"a": 1, "b": 1, "c": 3}) == ("a", "b")


def test_a_card_that_serves_its_names_one_after_the_other_is_missing_for_all_but_one() -> None:
    """It may choose for which name it is there."""
    deadlines = dict.fromkeys("ab", deadline_s([ALONE_S], TRIP_S))
    assert missing(deadlines, {"a": ALONE_S + TRIP_S, "b": 2 * ALONE_S + TRIP_S}) == ("b",)


@given(st.integers(1, 12), st.integers(0, 12))
def test_k_devices_never_answer_for_more_than_k(real: int, more: int) -> None:
    """A device does its first name's work, then its next one's: the second is too late."""
    names = [str(at) for at in range(real + more)]
    deadlines = dict.fromkeys(names, deadline_s([ALONE_S], TRIP_S))
    came = {name: (at // real + 1) * ALONE_S + TRIP_S for at, name in enumerate(names)}
    assert len(names) - len(missing(deadlines, came)) == real


def test_who_did_not_answer_is_missing_and_strangers_change_nothing() -> None:
    """Silence, a wrong answer, and an answer by one who wasn't called."""
    assert missing({"a": 1.0, "b": 1.0}, {"a": None, "z": 0.1}) == ("a", "b")


def test_honest_devices_are_not_missing_for_one_bad_second() -> None:
    """With one late answer in twenty, three in a row are rare."""
    random = Random(7)
    row, ever = 0, 0
    for _ in range(8_000):
        row = missed_in_a_row(row, is_missing=random.random() < 0.05)
        ever += row == MOST_MISSED
    assert ever <= 4


def test_the_profile_is_that_of_what_was_seen() -> None:
    """Of twenty times the nineteenth; a device that was never timed isn't called."""
    assert p95_s([float(at) for at in range(1, 21)]) == 19.0
    assert p95_s([3.0]) == 3.0
    with pytest.raises(ValueError, match="never timed"):
        p95_s([])
