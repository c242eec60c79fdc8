"""Asking: once at a time, again after an answer that changed nothing, and never for what is over."""

from clusterai.runtime.core.asking import RETRY_S, Asking


def test_what_is_under_way_is_not_asked_again() -> None:
    """Without an answer it stays under way; with one it is due again a little later."""
    asking = Asking()
    assert asking.due("open:a", 0)
    assert not asking.due("open:a", 10**9)
    asking.answered("open:a", 100)
    assert not asking.due("open:a", 100 + RETRY_S - 1)
    assert asking.due("open:a", 100 + RETRY_S)


def test_patience_ends() -> None:
    """What may get lost on the way is asked again after its time, answered or not."""
    asking = Asking()
    assert asking.due("fetch:a", 0, again_s=60)
    assert not asking.due("fetch:a", 59)
    assert asking.due("fetch:a", 60, again_s=60)


def test_answers_to_nobodys_question_leave_no_trace() -> None:
    """A late answer about something forgotten doesn't delay its namesake."""
    asking = Asking()
    asking.answered("open:a", 0)
    assert asking.due("open:a", 0)


def test_all_about_one_thing_is_forgotten_at_once() -> None:
    """Its namesakes stay under way."""
    asking = Asking()
    for key in ("open:a", "close:a", "open:b"):
        assert asking.due(key, 0)
    asking.forget("a")
    assert [asking.due(key, 0) for key in ("open:a", "close:a", "open:b")] == [True, True, False]


def test_a_turn_is_fixed_when_it_is_first_looked_for() -> None:
    """Looking again doesn't push it back."""
    asking = Asking()
    assert asking.at("turn:a", 7) == 7
    assert asking.at("turn:a", 99) == 7
