"""Calls in parts, and answers of bytes as tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.protocol import canonical
from clusterai.protocol.calls import (
    MOST_CALL_BYTES,
    MOST_CARD_BYTES,
    MOST_LISTING_BYTES,
    MOST_LISTINGS,
    MOST_PARTS,
    MOST_SUBJECTS,
    PART_BYTES,
    DataListing,
    Gathered,
    OfferData,
    cut,
)
from clusterai.protocol.canonical import MAX_FRAME_BYTES, Malformed
from clusterai.work.packed import MOST_BYTES, Unpackable, bytes_of, tokens_of


@given(st.binary(max_size=300))
def test_bytes_come_back_from_tokens(data: bytes):
    """Whatever is packed comes out as it went in, and each token is three bytes at most."""
    tokens = tokens_of(data)
    assert bytes_of(tokens) == data
    assert all(0 <= it < 2**24 for it in tokens[1:])


@pytest.mark.parametrize(
    "tokens",
    [(), (1,), (1, 1), (3, 1, 1), (-1,), (2, 2**24), (4, 0, 0, 0), (1, 0x410001), (MOST_BYTES + 1,), (3, -1)],
)
def test_what_nobody_packed_is_refused(tokens: tuple[int, ...]):
    """A second spelling of the same bytes, or of none, isn't taken."""
    with pytest.raises(Unpackable):
        bytes_of(tokens)


def test_too_much_for_one_answer_is_refused():
    """The most that is packed fits the tokens of one answer."""
    assert len(tokens_of(bytes(MOST_BYTES))) <= 131_072
    with pytest.raises(ValueError, match="390000"):
        tokens_of(bytes(MOST_BYTES + 1))


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_a_call_comes_whole_from_its_parts(size: int):
    """Parts that come in order are the body again, and only with the last one."""
    body = bytes(at % 251 for at in range(size))
    parts = cut(body)
    gathered = Gathered()
    heard = [gathered.add(at, len(parts), part) for at, part in enumerate(parts)]
    assert heard == [None] * (len(parts) - 1) + [body]


def test_the_longest_call_fits_its_parts():
    """64 MiB are no more parts than a frame can number, and one byte more is refused."""
    assert len(cut(bytes(MOST_CALL_BYTES))) <= MOST_PARTS
    with pytest.raises(ValueError, match="send less"):
        cut(bytes(MOST_CALL_BYTES + 1))


@pytest.mark.parametrize(
    "parts",
    [
        [(1, 2, b"a")],
        [(0, 2, b"a"), (0, 2, b"a")],
        [(0, 2, b"a"), (1, 3, b"b")],
        [(0, 2, b"")],
        [(0, 1, b"123456789")],
        [(0, 3, b"12345"), (1, 3, b"6789")],
    ],
)
def test_parts_out_of_turn_end_a_call(parts: list[tuple[int, int, bytes]]):
    """What is repeated, skipped, empty, renumbered or too much is nonsense."""
    gathered = Gathered(most_bytes=8)

    def add_all() -> None:
        for part in parts:
            gathered.add(*part)

    with pytest.raises(Malformed):
        add_all()


def test_the_largest_offer_of_data_is_a_frame():
    """As many listings as may stand in one frame, each as large as it may be, still go over a link."""
    largest = DataListing(bytes(MOST_LISTING_BYTES), bytes(65), bytes(MOST_CARD_BYTES))
    offer = OfferData((largest,) * MOST_LISTINGS, (bytes(32),) * 256, (bytes(32),) * MOST_SUBJECTS)
    assert len(canonical.encode(offer)) <= MAX_FRAME_BYTES
