"""Bisection: whoever is right wins, whatever the other says, in as many rounds as the arithmetic gives."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.protocol import bisection
from clusterai.protocol.bisection import ARITY, Dispute, Trace, WrongMove
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak


def honest(step: int) -> Digest:
    """The true state after a step."""
    return Digest(keccak(b"true" + step.to_bytes(8)))


def wrong_from(first: int) -> Trace:
    """A run that goes wrong in step `first` (which ends in state `first`), and stays wrong."""
    return lambda step: honest(step) if step < first else Digest(keccak(b"lie" + step.to_bytes(8)))


def play(steps: int, provider: Trace, challenger: Trace) -> tuple[Dispute, int]:
    """Both as they ran it; returns the leaf and how many rounds it took."""
    game = bisection.opened(steps, honest(0), provider(steps), challenger(steps))
    count = 0
    while not game.is_leaf:
        game = bisection.asserted(game, bisection.assertion(game, provider))
        game = bisection.selected(game, *bisection.selection(game, challenger))
        count += 1
    return game, count


def referee(leaf: Dispute) -> str:
    """Who is right about the last step, run from the agreed state; a wrong agreed state makes both wrong."""
    if leaf.start != honest(leaf.low):
        return "nobody"
    truth = honest(leaf.high)
    return {leaf.claimed: "provider", leaf.denied: "challenger"}.get(truth, "nobody")


@given(st.integers(1, 10**9), st.data())
def test_a_cheating_provider_loses(steps: int, data: st.DataObject) -> None:
    """Wherever it went wrong, an honest challenger leads it to that very step."""
    first = data.draw(st.integers(1, steps))
    leaf, count = play(steps, wrong_from(first), honest)
    assert (leaf.low, leaf.high) == (first - 1, first)
    assert referee(leaf) == "challenger"
    assert count <= bisection.rounds(steps)


@given(st.integers(1, 10**9), st.data())
def test_a_false_accuser_loses(steps: int, data: st.DataObject) -> None:
    """Wherever the accuser says it went wrong, that step comes out as the provider said."""
    first = data.draw(st.integers(1, steps))
    leaf, _ = play(steps, honest, wrong_from(first))
    assert referee(leaf) == "provider"


@given(st.integers(2, 10**6), st.data())
def test_an_honest_provider_wins_against_any_selection(steps: int, data: st.DataObject) -> None:
    """A challenger that selects at random, and says what it likes, comes to a step that is right."""
    lie = Digest(keccak(b"anything"))
    game = bisection.opened(steps, honest(0), honest(steps), lie)
    while not game.is_leaf:
        game = bisection.asserted(game, bisection.assertion(game, honest))
        parts = len(game.points) - 1
        game = bisection.selected(game, data.draw(st.integers(0, parts - 1)), lie)
    assert referee(game) == "provider"


@given(st.integers(2, 10**6), st.data())
def test_an_honest_challenger_wins_against_any_assertion(steps: int, data: st.DataObject) -> None:
    """A provider that mixes true states and lies in every round still parts from the truth in some step."""
    game = bisection.opened(steps, honest(0), wrong_from(steps)(steps), honest(steps))
    while not game.is_leaf:
        inner = [
            honest(point) if data.draw(st.booleans()) else Digest(keccak(b"lie" + bytes([number])))
            for number, point in enumerate(game.points[1:-1])
        ]
        game = bisection.asserted(game, inner)
        game = bisection.selected(game, *bisection.selection(game, honest))
    assert referee(game) == "challenger"


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 0), (16, 1), (17, 2), (10**3, 3), (10**6, 5), (10**9, 8)]
)
def test_rounds(steps: int, expected: int) -> None:
    """Five rounds for a million steps, eight for a thousand million."""
    assert bisection.rounds(steps) == expected
    assert play(steps, wrong_from(steps), honest)[1] <= expected


@given(st.integers(0, 2**39), st.integers(1, 2**39))
def test_parts_are_even(low: int, length: int) -> None:
    """Parts cover the range, none is empty, and none is longer than another by more than one step."""
    points = bisection.cut(low, low + length)
    lengths = [after - before for before, after in pairwise(points)]
    assert points[0] == low
    assert points[-1] == low + length
    assert len(lengths) == min(ARITY, length)
    assert max(lengths) - min(lengths) <= 1


def test_moves_out_of_turn_or_of_form_are_refused() -> None:
    """No move twice, none without the other's, none of another length, none without a disagreement."""
    game = bisection.opened(100, honest(0), wrong_from(100)(100), honest(100))
    inner = bisection.assertion(game, honest)
    with pytest.raises(WrongMove, match="assert first"):
        bisection.selected(game, 0, honest(1))
    with pytest.raises(WrongMove, match="states for"):
        bisection.asserted(game, inner[:-1])
    told = bisection.asserted(game, inner)
    with pytest.raises(WrongMove, match="nothing to assert"):
        bisection.asserted(told, inner)
    with pytest.raises(WrongMove, match="same there"):
        bisection.selected(told, 0, inner[0])
    with pytest.raises(WrongMove, match="no part"):
        bisection.selected(told, 16, honest(100))
    with pytest.raises(WrongMove, match="something else"):
        bisection.selected(told, 15, Digest(keccak(b"another story")))
    with pytest.raises(WrongMove, match="say the same"):
        bisection.opened(100, honest(0), honest(100), honest(100))
    with pytest.raises(WrongMove, match="steps"):
        bisection.opened(0, honest(0), honest(1), honest(2))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 600))
def test_trace_by_units_is_the_part_that_had_ended(costs: list[int], steps: int) -> None:
    """Between two ends of parts nothing changes; the last point is the end, whatever a meter claims the parts cost."""
    parts = [(cost, Digest(keccak(b"part" + bytes([at])))) for at, cost in enumerate(costs)]
    end = Digest(keccak(b"end"))
    trace = bisection.metered(honest(0), parts, steps, end)
    for point in range(steps):
        done = [sum(costs[: at + 1]) <= point for at in range(len(costs))].count(True)
        assert trace(point) == (parts[done - 1][1] if done else honest(0))
    assert trace(steps) == end
