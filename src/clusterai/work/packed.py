"""Answers that are bytes, as tokens: so that receipts, digests, transcripts and audits need to know nothing of what is in them.

    tokens: length in bytes, then three bytes a token, big end first; the last one filled up with zeros

Done in arrays: gateways read answers in the loop that serves everybody, and a full one took 0.2 s token by token.

One spelling for each byte string: a second one would be a second answer with another digest.
"""

from collections.abc import Sequence

import numpy as np

MOST_BYTES = 390_000
"""An answer has at most 131,072 tokens (`messages.Answer`)."""
_A_TOKEN = 3
_SHIFTS = np.array([16, 8, 0], np.int64)


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
    columns = np.frombuffer(filled, np.uint8).reshape(-1, _A_TOKEN).astype(np.int64)
    return (len(data), *(columns << _SHIFTS).sum(axis=1).tolist())


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
    if words and not 0 <= min(words) <= max(words) < 1 << 24:
        raise Unpackable("a token is more than three bytes")
    numbers = np.fromiter(words, np.int64, len(words))
    filled = (numbers[:, None] >> _SHIFTS).astype(np.uint8).tobytes()
    if any(filled[length:]):
        raise Unpackable("the last token isn't filled up with zeros")
    return filled[:length]
