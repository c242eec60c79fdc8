"""A language model of one hash: the token stream is a pure function of (model, prompt, seed).

Tokens are drawn from a keyed hash stream that can be read from any position, as counter-based noise can, so that another
provider goes on where one stopped. Altered weights give another token at about a third of the positions, and a
skipped prompt at nearly all.
"""

from functools import lru_cache

from blake3 import blake3

from clusterai.protocol.ids import Digest

VOCABULARY = 1 << 16
END_BELOW = VOCABULARY // 48
"""A token below this ends the answer: after 48 tokens on average."""


@lru_cache(maxsize=4096)
def answer(
    model: bytes, prompt: tuple[int, ...], seed: int, max_tokens: int, altered: int = 0
) -> tuple[tuple[int, ...], str]:
    """The whole answer and why it ended. With `altered`, of weights of which a third of the tokens differs."""
    key = model + seed.to_bytes(8) + b"".join(token.to_bytes(4) for token in prompt)
    stream = blake3(key).digest(2 * max_tokens)
    other = blake3(key + altered.to_bytes(8)).digest(3 * max_tokens) if altered else b""
    tokens: list[int] = []
    for position in range(max_tokens):
        token = int.from_bytes(stream[2 * position : 2 * position + 2])
        if altered and other[3 * position] < 85:
            token = int.from_bytes(other[3 * position + 1 : 3 * position + 3])
        tokens.append(token)
        if token < END_BELOW:
            return tuple(tokens), "stop"
    return tuple(tokens), "length"


MODEL = Digest(blake3(b"the simulated model").digest())
