"""From tokens to text, one token at a time: whole characters only, and stop strings never shown.

Both sides use it: the provider to know when an answer ends, the gateway to produce what the client reads. It works on
bytes, where a stop string can't be missed by a character that is split over two tokens.
"""

import codecs
from collections.abc import Iterable, Sequence

import msgspec


class Vocabulary(msgspec.Struct, frozen=True):
    """The bytes behind each token.

    Attributes:
        pieces: bytes of each token id, as they stand in text.
        special: ids of control tokens: they stand for no text.
        ends: ids that end an answer; a subset of `special`.
    """

    pieces: tuple[bytes, ...]
    special: frozenset[int]
    ends: frozenset[int]

    def __len__(self) -> int:
        return len(self.pieces)

    def bytes_of(self, token: int) -> bytes:
        """What the token adds to the text; nothing for control tokens and ids that the model pads with."""
        if token in self.special or not 0 <= token < len(self.pieces):
            return b""
        return self.pieces[token]

    def text(self, tokens: Iterable[int]) -> str:
        return b"".join(map(self.bytes_of, tokens)).decode("utf-8", "replace")


class TextStream:
    """Turns tokens of one answer into text to send.

    Text that may yet become a stop string is held back:

        stop = ["###"]     push "a#" -> "a"     push "#" -> ""     push "b" -> "##b"     finish -> ""
                           push "a#" -> "a"     push "##" -> ""    stopped
    """

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[str] = ()) -> None:
        self._vocabulary = vocabulary
        self._stops = tuple(stop.encode() for stop in stops)
        self._held = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token; returns the text that is now certain. After `stopped` there is none."""
        if self.stopped:
            return ""
        self._held += self._vocabulary.bytes_of(token)
        if not self._stops:
            sure, self._held = self._held, b""
            return self._decoder.decode(sure)
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            return self._decoder.decode(self._held[: min(found)], final=True)
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - keep
        sure, self._held = self._held[:cut], self._held[cut:]
        return self._decoder.decode(sure)

    def finish(self) -> str:
        """The answer ended otherwise: what was held back is text after all."""
        if self.stopped:
            return ""
        sure, self._held = self._held, b""
        return self._decoder.decode(sure, final=True)


def _overlap(text: bytes, stop: bytes) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
