"""A language model of one hash: the token stream is a pure function of (model, prompt, seed).

Tokens are drawn from a keyed hash stream that can be read from any position, as counter-based noise can, so that another
provider goes on where one stopped. Each position has a runner-up that nearly won: altered weights let it win at about
a third of the positions. Another prompt gives unrelated tokens.
"""

from functools import lru_cache

from blake3 import blake3

from clusterai.protocol.ids import Digest

VOCABULARY = 1 << 16
END_BELOW = VOCABULARY // 48
"""A token below this ends the answer: after 48 tokens on average."""


@lru_cache(maxsize=4096)
def answer(
    model: bytes, prompt: tuple[int, ...], seed: int, max_tokens: int, altered: bool = False
) -> tuple[tuple[int, ...], str]:
    """The whole answer and why it ended."""
    key = _key(model, prompt, seed)
    stream = blake3(key).digest(2 * max_tokens)
    wins = blake3(b"altered" + key).digest(max_tokens) if altered else bytes(0)
    others = runners_up(model, prompt, seed, max_tokens) if altered else ()
    tokens: list[int] = []
    for position in range(max_tokens):
        token = int.from_bytes(stream[2 * position : 2 * position + 2])
        if altered and wins[position] < 85:
            token = others[position]
        tokens.append(token)
        if token < END_BELOW:
            return tuple(tokens), "stop"
    return tuple(tokens), "length"


@lru_cache(maxsize=4096)
def runners_up(model: bytes, prompt: tuple[int, ...], seed: int, count: int) -> tuple[int, ...]:
    """The second choice at each position."""
    stream = blake3(b"second" + _key(model, prompt, seed)).digest(2 * count)
    return tuple(int.from_bytes(stream[2 * position : 2 * position + 2]) for position in range(count))


def _key(model: bytes, prompt: tuple[int, ...], seed: int) -> bytes:
    return model + seed.to_bytes(8) + b"".join(token.to_bytes(4) for token in prompt)


MODEL = Digest(blake3(b"the simulated model").digest())
