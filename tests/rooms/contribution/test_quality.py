"""The part of a share that is earned by how clean rows are, and villains who want it for rows that aren't, or for names."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core.contribution import Appraised, Contribution, Rows, appraise
from clusterai.audit.core.contribution.shares import score_of
from clusterai.audit.core.contribution.whole import joined
from clusterai.protocol.ids import Address
from tests.rooms.contribution.test_contribution import BEACON, HELD_OUT, POT, drawn, study


def appraised(weight_milli: int, *parts: Rows, sure_milli: int = 0) -> Sequence[Appraised]:
    named = [Contribution(Address(bytes([at + 1]) * 20), rows) for at, rows in enumerate(parts)]
    fixed = msgspec.structs.replace(study(), quality_milli=weight_milli, sure_milli=sure_milli)
    return appraise(fixed, named, HELD_OUT, BEACON).contributors


@given(value=st.integers(-(2**60), 2**60), quality=st.integers(0, 1_000), weight=st.integers(0, 1_000))
def test_quality_takes_from_a_value_and_never_adds(value: int, quality: int, weight: int) -> None:
    """Rows of quality 1 earn their value, all others less by the study's weight; harm earns nothing however clean it looks."""
    score = score_of(value, quality, weight)
    assert 0 <= score <= max(0, value)
    assert score_of(value, 1_000, weight) == max(0, value)
    assert score >= max(0, value) * (1_000 - weight) // 1_000


def test_clean_rows_earn_more_of_the_same_pot() -> None:
    """Beside clean ones, who turned a sixth of its labels loses part of what it had by value alone; the pot is shared whole."""
    parts = (drawn(1, 120), drawn(2, 120), drawn(3, 120, flipped=0.15))
    plain, weighed = appraised(0, *parts), appraised(500, *parts)
    assert plain[2].quality_milli < 880 < plain[0].quality_milli
    assert weighed[2].share_wei < plain[2].share_wei * 95 // 100
    assert weighed[0].share_wei > plain[0].share_wei
    assert sum(it.share_wei for it in weighed) == sum(it.share_wei for it in plain) == POT


@pytest.mark.parametrize("times", [2, 5])
def test_duplicates_cost_quality_and_add_nothing(times: int) -> None:
    """Who gives its own rows several times has the value of one time, and less of what quality earns."""
    rows, other = drawn(1, 100), drawn(2, 100)
    once = appraised(500, rows, other)[0]
    often = appraised(500, joined([rows] * times), other)[0]
    assert (often.own, often.value) == (once.own, once.value)
    assert often.quality_milli <= once.quality_milli // times + 1
    assert often.score < once.score


def test_another_ones_rows_have_no_quality() -> None:
    """A copier's rows are nobody's own: no value, no quality, no share."""
    rows = drawn(1, 100)
    copier = appraised(1_000, rows, drawn(2, 100), rows)[2]
    assert (copier.quality_milli, copier.score, copier.share_wei) == (0, 0, 0)


def test_noise_is_worth_nothing_however_much_of_it() -> None:
    """Made-up rows beside clean ones earn less than a fiftieth of the pot, a thousand of them no more than a hundred."""
    clean = (drawn(1, 120), drawn(2, 120))
    for count in (100, 1_000):
        rng = np.random.default_rng(count)
        noise = Rows(rng.integers(-800, 800, (count, 6)), rng.integers(0, 3, count))
        assert appraised(300, *clean, noise)[2].share_wei < POT // 50


def test_ten_names_win_no_quality() -> None:
    """Clean rows dealt among ten names earn what they earn under one, within a hundredth."""
    rows, other = drawn(1, 200), drawn(2, 200)
    one = appraised(500, rows, other)[0].share_wei
    pieces = [rows.chosen(np.arange(at, len(rows), 10)) for at in range(10)]
    many = sum(it.share_wei for it in appraised(500, *pieces, other)[:10])
    assert abs(many - one) < one // 100


def test_sorting_rows_by_name_wins_what_dropping_the_bad_ones_does() -> None:
    """Who gives its bad rows under another name is paid for good ones: that is what quality asks for, and its weight bounds it."""
    good, bad, other = drawn(1, 140), drawn(4, 60, flipped=1.0), drawn(2, 200)
    mixed = appraised(400, joined([good, bad]), other)[0]
    apart = appraised(400, good, bad, other)
    assert apart[1].score == 0
    assert apart[0].score <= apart[0].value
    assert mixed.score < apart[0].score


@pytest.mark.parametrize("flipped", [0.3, 0.4, 0.5, 0.6])
def test_wrong_labels_dealt_among_names_earn_no_more_than_under_one(flipped: float) -> None:
    """Where a value must be sure to count, names that came out well by chance aren't paid: harm isn't set off by calling it somebody else's."""
    clean = (drawn(1, 150), drawn(2, 150))
    for seed in range(3, 8):
        bad = drawn(seed, 150, flipped=flipped)
        one = appraised(0, bad, *clean, sure_milli=3_000)[0].share_wei
        for names in (2, 5, 10, 15, 30):
            pieces = [bad.chosen(np.arange(at, len(bad), names)) for at in range(names)]
            many = sum(it.share_wei for it in appraised(0, *pieces, *clean, sure_milli=3_000)[:names])
            assert many <= one + POT // 40, (seed, names)


def test_right_rows_are_surely_worth_something() -> None:
    """What is asked of a value takes nothing from who has none but right rows, also where they are dealt among four names; fifteen rows are too few."""
    rows, other = drawn(1, 200), drawn(2, 200)
    pieces = [rows.chosen(np.arange(at, len(rows), 4)) for at in range(4)]
    for parts in ((rows, other), (*pieces, other)):
        plain, sure = appraised(0, *parts), appraised(0, *parts, sure_milli=3_000)
        assert [it.share_wei for it in sure] == [it.share_wei for it in plain]
    few = appraised(0, rows.chosen(np.arange(15)), other, sure_milli=3_000)[0]
    assert few.value > 0 == few.share_wei
