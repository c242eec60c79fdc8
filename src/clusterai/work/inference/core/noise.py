"""Counter-based Gumbel noise: a number for every (seed, position, token), the same on every machine.

Adding independent Gumbel noise to scaled logits and taking the largest is drawing from their softmax (the Gumbel-max
trick), so with the noise fixed by the seed, a draw is a function that anyone with the logits can repeat.

The bits are 32-bit integer mixing under a 64-bit key: any subset of tokens can be asked for without generating the
rest, in any order, and a GPU kernel needs four lines for it. numpy's Philox was the other candidate: as good, but
sequential, so that drawing from 40 candidates costs as much as from 49,152.

Source of the finaliser: Chris Wellons, hash-prospector ("lowbias32"), bias 0.17.
"""

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

GREATEST = 22.874
"""No Gumbel value made from 32 bits is greater: -ln(-ln(1 - 2^-33))."""

CHUNK = 16_384
"""Tokens mixed at once: ten passes over 64 KiB stay in the processor's nearest caches, twice as fast as over all."""

_M1 = np.uint32(0x7FEB352D)
_M2 = np.uint32(0x846CA68B)
_S15 = np.uint32(15)
_S16 = np.uint32(16)


def keys(seed: int, position: int) -> tuple[np.uint32, np.uint32]:
    """The pair of round keys of a position."""
    raw = blake3(seed.to_bytes(8, "little") + position.to_bytes(8, "little")).digest(8)
    return np.uint32(int.from_bytes(raw[:4], "little")), np.uint32(int.from_bytes(raw[4:], "little"))


def spread(size: int) -> NDArray[np.uint32]:
    """Token ids 0 … size-1, mixed: neighbours must not enter the keyed rounds as neighbours. Computed once a model."""
    x = np.arange(size, dtype=np.uint32)
    t = np.empty_like(x)
    _fold(x, t, _S16)
    x *= _M1
    _fold(x, t, _S15)
    x *= _M2
    _fold(x, t, _S16)
    return x


def bits(key: tuple[np.uint32, np.uint32], spread_tokens: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """32 uniform bits for each of `spread(size)[tokens]`."""
    x = np.empty_like(spread_tokens)
    t = np.empty(min(CHUNK, len(x)), np.uint32)
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        _mix(part, t[: len(part)], spread_tokens[start : start + CHUNK], key)
    return x


def gumbel(random: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Standard Gumbel values of uniform bits; increasing in them."""
    uniform = (random.astype(np.float64) + 0.5) * 2.0**-32
    return -np.log(-np.log(uniform))


def least_bits(value: float) -> int:
    """The least 32-bit number whose Gumbel value may reach `value`, one to spare; at least 2^32 where none can."""
    if value > GREATEST:
        return 2**32
    uniform = float(np.exp(-np.exp(-value)))
    return max(0, int(uniform * 2**32) - 1)


def _mix(
    x: NDArray[np.uint32], t: NDArray[np.uint32], tokens: NDArray[np.uint32], key: tuple[np.uint32, np.uint32]
) -> None:
    np.bitwise_xor(tokens, key[0], out=x)
    _fold(x, t, _S16)
    x *= _M1
    x ^= key[1]
    _fold(x, t, _S15)
    x *= _M2
    _fold(x, t, _S16)


def _fold(x: NDArray[np.uint32], t: NDArray[np.uint32], shift: np.uint32) -> None:
    """x ^= x >> shift, in place."""
    np.right_shift(x, shift, out=t)
    np.bitwise_xor(x, t, out=x)
