"""A language model of sixty lines: logits are a hash of all tokens before.

It has what a real model has for the protocol: every token depends on the whole prompt, on the weights and on the seed; answers
end by themselves; altered weights give slightly other logits. The simulator, the gateway's benchmark and the fast
tests run on it.
"""

import re

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from clusterai.models.core.text import Vocabulary
from clusterai.protocol.canonical import content_digest
from clusterai.work.inference.core import noise
from clusterai.work.inference.core.ending import Ending
from clusterai.work.inference.core.sampler import Context, draw
from clusterai.work.inference.spec import FinishReason, Generation

NAME = "tiny"
ADDRESS = content_digest(b"clusterai tiny model 1")
"""It has no weights, so its address is of its name."""
WORDS = 512
END = 256 + WORDS
SIZE = END + 1

_ONSETS = tuple("bdfghklmnprstvwz")
_RHYMES = re.findall(
    "[a-z]+", "a e i o u an en in on un ar er ir or ur ai au ei ia io oa ou ya yo el il ol as es is os us"
)


def vocabulary() -> Vocabulary:
    """256 bytes, so that any text can be written; 512 syllables, which answers are made of; the end."""
    words = [f" {onset}{rhyme}".encode() for onset in _ONSETS for rhyme in _RHYMES]
    pieces = [bytes([byte]) for byte in range(256)] + words + [b""]
    return Vocabulary(tuple(pieces), frozenset({END}), frozenset({END}))


def encode(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


class TinyModel:
    """Logits for any context.

    Args:
        model: content address; other models give unrelated logits.
        altered: how far the weights are off; about the standard deviation that it adds to a logit.
    """

    def __init__(self, model: bytes, altered: float = 0.0) -> None:
        self._spread = noise.spread(SIZE)
        self._start = blake3(model).digest()
        self._altered = altered

    def start(self) -> bytes:
        return self._start

    def after(self, state: bytes, token: int) -> bytes:
        """The state once `token` was read."""
        return blake3(state + token.to_bytes(4, "little")).digest()

    def logits(self, state: bytes) -> NDArray[np.float32]:
        """(SIZE,) float32: what comes next. Syllables are likely, bare bytes are not, the end comes after about 60."""
        row = self._uniform(state, 0) * np.float32(6)
        row[:256] -= np.float32(12)
        row[END] = 4.9
        if self._altered:
            row += (self._uniform(state, 8) - np.float32(0.5)) * np.float32(self._altered * 3.46)
        return row

    def _uniform(self, state: bytes, at: int) -> NDArray[np.float32]:
        low = np.uint32(int.from_bytes(state[at : at + 4], "little"))
        high = np.uint32(int.from_bytes(state[at + 4 : at + 8], "little"))
        return noise.bits((low, high), self._spread).astype(np.float32) * np.float32(2.0**-32)


def answer(
    model: TinyModel, generation: Generation, context: int = 8192
) -> tuple[tuple[int, ...], FinishReason]:
    """The whole answer at once (the new tokens after `so_far`), for the simulator."""
    before = generation.prompt + generation.so_far
    state = model.start()
    for token in before:
        state = model.after(state, token)
    penalties = Context(generation.sampling, generation.prompt, generation.so_far)
    ending = Ending(generation, _VOCABULARY, context)
    tokens: list[int] = []
    while True:
        position = len(generation.so_far) + len(tokens)
        token = draw(model.logits(state), generation.sampling, position, penalties).token
        tokens.append(token)
        reason = ending.push(token)
        if reason is not None:
            return tuple(tokens), reason
        penalties.push(token)
        state = model.after(state, token)


_VOCABULARY = vocabulary()
