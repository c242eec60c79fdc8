"""Answers that are bytes, as tokens: so that receipts, digests, transcripts and audits need to know nothing of what is in them.

    tokens: length in bytes, then three bytes a token, big end first; the last one filled up with zeros

One spelling for each byte string: a second one would be a second answer with another digest.
"""

from collections.abc import Sequence

MOST_BYTES = 390_000
"""An answer has at most 131,072 tokens (`messages.Answer`)."""
_A_TOKEN = 3


class Unpackable(ValueError):
    """These tokens aren't packed bytes: {why}."""


def tokens_of(data: bytes) -> tuple[int, ...]:
    """
    Raises:
        ValueError: more than `MOST_BYTES`.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(
            f"{len(data)} bytes; one answer carries at most {MOST_BYTES}: send the rest by a call"
        )
    filled = data + bytes(-len(data) % _A_TOKEN)
    words = (int.from_bytes(filled[at : at + _A_TOKEN]) for at in range(0, len(filled), _A_TOKEN))
    return (len(data), *words)


def bytes_of(tokens: Sequence[int]) -> bytes:
    """
    Raises:
        Unpackable: not what `tokens_of` makes of any bytes.
    """
    if not tokens:
        raise Unpackable("there are no tokens")
    length, words = tokens[0], tokens[1:]
    if not 0 <= length <= MOST_BYTES or len(words) != -(-length // _A_TOKEN):
        raise Unpackable(f"{len(words)} tokens can't hold {length} bytes")
    if any(not 0 <= word < 1 << 24 for word in words):
        raise Unpackable("a token is more than three bytes")
    filled = b"".join(word.to_bytes(_A_TOKEN) for word in words)
    if any(filled[length:]):
        raise Unpackable("the last token isn't filled up with zeros")
    return filled[:length]
