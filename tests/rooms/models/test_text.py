"""From tokens to text."""

from hypothesis import given
from hypothesis import strategies as st

from clusterai.models import TextStream, Vocabulary

# Bytes as tokens, a few longer pieces, and an end.
PIECES = (*(bytes([byte]) for byte in range(256)), b"##", b"abc", "é!".encode(), b"\xf0\x9f", b"")
END = len(PIECES) - 1
WORDS = Vocabulary(PIECES, frozenset({END}), frozenset({END}))

tokens = st.lists(st.integers(0, END), max_size=40)


def stream(ids: list[int], stops: tuple[str, ...] = ()) -> tuple[str, TextStream]:
    text = TextStream(WORDS, stops)
    return "".join(map(text.push, ids)) + text.finish(), text


@given(tokens)
def test_pieces_add_up_to_the_whole(ids: list[int]) -> None:
    """Text streamed token by token is the text of all tokens, whatever characters were split."""
    assert stream(ids)[0] == WORDS.text(ids)


@given(tokens, st.lists(st.sampled_from(["#", "##", "a#b", "é", "!a", "cab"]), min_size=1, max_size=3))
def test_stop_strings_cut_and_are_never_shown(ids: list[int], stops: list[str]) -> None:
    """With stop strings the text ends before the first of them, however tokens cut it."""
    text, end = stream(ids, tuple(stops))
    raw = b"".join(map(WORDS.bytes_of, ids))
    assert end.stopped == any(stop.encode() in raw for stop in stops)
    if not end.stopped:
        assert text == WORDS.text(ids)
    else:
        assert all(stop.encode() not in text.encode() for stop in stops)


def test_what_may_become_a_stop_string_is_held_back() -> None:
    """A client never sees the beginning of a stop string that then completes."""
    text = TextStream(WORDS, ["###"])
    assert [text.push(token) for token in b"a##b#"] == ["a", "", "", "##b", ""]
    assert text.push(256) == ""
    assert text.stopped
    assert text.finish() == ""


def test_half_a_character_waits() -> None:
    """Bytes of one character leave together; what stays incomplete becomes U+FFFD."""
    text = TextStream(WORDS)
    assert [text.push(token) for token in "é€".encode()] == ["", "é", "", "", "€"]
    assert text.push(0xE2) == ""
    assert text.finish() == "�"


def test_control_tokens_and_strangers_are_no_text() -> None:
    """End tokens and ids outside of the vocabulary add nothing."""
    assert WORDS.text([97, END, -1, 10_000, 98]) == "ab"
