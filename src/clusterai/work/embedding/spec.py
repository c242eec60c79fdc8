"""What is asked for: vectors for texts, each text as the model's own tokens.

The gateway tokenizes, so that everybody counts the same tokens and none is cut off in silence. An answer is one
`messages.Answer`: `size` numbers for each text, in order, as fixed-point integers:

    component x in [-1, 1]   <-->   token = round(x * 32767) + 32768, in 1 .. 65535

Half a step is 1.5e-5, finer than a half-precision float where a component of a unit vector lies, and a vector takes
two bytes a component on the wire. So an answer is tokens as in any other kind of work, and receipts, digests, frames,
transcripts and sealing need to know nothing.

Bounds: whatever was asked must fit an answer to a challenge on chain (24,576 bytes, `audit.core.opening`), or an honest
provider whose gateways are away could not defend itself. 6,144 numbers and 2,048 tokens take at most 20 KB of it.
"""

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.work.request import within

SCALE = 32_767
ZERO = 32_768
MOST_NUMBERS = 6_144
"""Components of all vectors of one request: 16 vectors of 384."""
MOST_TOKENS = 2_048
"""Of all texts of one request together."""
MOST_TOKEN = 2**20


class Embedding(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="embedding.1"):
    """Vectors asked of one model.

    Attributes:
        model: content address of the weights, 32 bytes.
        texts: token ids of each text, with the tokens that the model wants around it.
        size: length of the model's vectors.
    """

    model: bytes
    texts: tuple[tuple[int, ...], ...]
    size: int

    def __post_init__(self) -> None:
        within("length of model address in bytes", len(self.model), 32, 32)
        within("size of a vector", self.size, 1, MOST_NUMBERS)
        within("number of texts", len(self.texts), 1, MOST_NUMBERS // self.size)
        for text in self.texts:
            within("tokens of a text", len(text), 1, MOST_TOKENS)
            within("least token of a text", min(text), 0, MOST_TOKEN)
            within("greatest token of a text", max(text), 0, MOST_TOKEN)
        within("tokens of all texts", sum(map(len, self.texts)), 1, MOST_TOKENS)

    def canonical(self) -> bytes:
        """What travels beside an order and what its digest covers."""
        return canonical.encode(self)

    def digest(self) -> Digest:
        return canonical.digest(self)


def decode_embedding(raw: bytes) -> Embedding:
    """Read a stranger's request.

    Raises:
        canonical.Malformed: too long, no embedding request, out of range, or not in canonical form.
    """
    return canonical.decode(raw, Embedding)


def packed(model: bytes, texts: list[tuple[int, ...]], size: int) -> list[Embedding]:
    """As few requests as hold all texts, in order.

    Raises:
        OutOfRange: a text that is too long for any request.
    """
    found: list[Embedding] = []
    batch: list[tuple[int, ...]] = []
    tokens = 0
    for text in texts:
        if batch and (tokens + len(text) > MOST_TOKENS or (len(batch) + 1) * size > MOST_NUMBERS):
            found.append(Embedding(model, tuple(batch), size))
            batch, tokens = [], 0
        batch.append(text)
        tokens += len(text)
    return [*found, Embedding(model, tuple(batch), size)]


def vectors(request: Embedding, answer: tuple[int, ...]) -> list[list[float]]:
    """The vectors that an answer holds; a last one that isn't whole is left out."""
    numbers = [round((token - ZERO) / SCALE, 7) for token in answer]
    return [
        numbers[start : start + request.size]
        for start in range(0, len(numbers) - request.size + 1, request.size)
    ]
