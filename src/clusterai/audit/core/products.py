"""How fast a machine multiplies, shown so that it can't be claimed: a chain of matrix products, committed link by link.

    X_0 from the challenge's seed;  M_k from the commitment to X_k and Y_k-1;  Y_k = X_k M_k exactly;  X_k+1 = Y_k mod 251

Every factor follows from the commitment before, so links can't be prepared, nor done side by side by two machines. All
numbers are small integers: float32, int8 and tensor cores come to the same exact products, and so does every machine.

The prover sends its commitments; the verifier, who took the time, then draws links by a beacon that came later, has their
matrices opened, and checks them by Freivalds: Y v = X (M v) for vectors v that nobody knew, which costs n^2 instead of n^3.
A wrong product passes with probability 2^-20 a vector at most, as each entry of v is one of 2^20.

What it shows is a floor: this much work was done in this time by whoever answered. That it was done *there* is for the round trip
to say, and that no other card of the same owner helped for the roll-call (all devices in one round).

Source: Freivalds 1977.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from clusterai.protocol.ids import Digest

Small = NDArray[np.int8]
Wide = NDArray[np.int32]
Product = Callable[[Small, Small], Wide]
"""(n, n) times (n, n), exact."""

MODULUS = 251
HALF = MODULUS // 2
MOST_SIZE = 8192
MOST_LINKS = 256
BLOCK = 1024
"""float32 adds up this many products of two entries exactly: 1024 x 125^2 < 2^24."""
VECTORS = 2
VECTOR_BITS = 20


class Challenge(msgspec.Struct, frozen=True):
    """What is to be multiplied.

    Attributes:
        seed: of a beacon and the device that is asked.
        size: n of the (n, n) matrices, at most MOST_SIZE.
        links: how many products, at most MOST_LINKS.
    """

    seed: Digest
    size: int
    links: int

    @property
    def operations(self) -> int:
        """Multiplications and additions of all links."""
        return 2 * self.size**3 * self.links


class Opened(msgspec.Struct, frozen=True):
    """One drawn link: X and Y as bytes, int8 and little-endian int32, row by row."""

    link: int
    x: bytes
    y: bytes


def expand(seed: bytes, size: int) -> Small:
    """An (n, n) matrix of entries from -125 to 125, drawn by BLAKE3 of the seed."""
    raw = np.frombuffer(blake3(seed).digest(length=size * size), np.uint8).reshape(size, size)
    return _reduced(raw.astype(np.int32))


def exact(x: Small, m: Small) -> Wide:
    """The product on this processor: float32 in blocks that lose nothing."""
    size = x.shape[0]
    total = np.zeros((size, size), np.int32)
    for at in range(0, size, BLOCK):
        part = x[:, at : at + BLOCK].astype(np.float32) @ m[at : at + BLOCK].astype(np.float32)
        total += part.astype(np.int32)
    return total


def begin(challenge: Challenge) -> Small:
    return expand(b"clusterai products" + challenge.seed, challenge.size)


def multiplier(challenge: Challenge, before: Digest) -> Small:
    """M_k, of the commitment before it."""
    return expand(b"clusterai factor" + challenge.seed + before, challenge.size)


def committed(challenge: Challenge, x: Small) -> Digest:
    """What the chain begins with."""
    return Digest(blake3(challenge.seed + x.tobytes()).digest())


def next_commitment(before: Digest, y: Wide) -> Digest:
    """Link k's: of the one before and Y_k."""
    return Digest(blake3(before + y.astype("<i4").tobytes()).digest())


def answer(
    challenge: Challenge, product: Product = exact, keep: Callable[[int, Small, Wide], None] | None = None
) -> tuple[Digest, ...]:
    """All links, done; `links` commitments. `keep` gets each link's matrices, should it be drawn."""
    x = begin(challenge)
    last = committed(challenge, x)
    found: list[Digest] = []
    for link in range(challenge.links):
        y = product(x, multiplier(challenge, last))
        if keep is not None:
            keep(link, x, y)
        last = next_commitment(last, y)
        found.append(last)
        x = _reduced(y)
    return tuple(found)


def draw(challenge: Challenge, commitments: Sequence[Digest], beacon: Digest, count: int) -> tuple[int, ...]:
    """Which links are opened: `count` of them at most, by a beacon later than the commitments."""
    seed = blake3(b"clusterai drawn links" + beacon + challenge.seed + b"".join(commitments))
    order = sorted(range(challenge.links), key=lambda link: blake3(seed.digest() + link.to_bytes(4)).digest())
    return tuple(sorted(order[:count]))


def opened(link: int, x: Small, y: Wide) -> Opened:
    return Opened(link, x.tobytes(), y.astype("<i4").tobytes())


def differs(
    challenge: Challenge,
    commitments: Sequence[Digest],
    previous: Opened | None,
    shown: Opened,
    beacon: Digest,
) -> str | None:
    """Why an opened link is not what the challenge asks for; None where it is.

    Args:
        previous: the link before, opened too; None for the first, whose X follows from the seed.
        beacon: later than the commitments; the vectors are drawn by it.
    """
    n, k = challenge.size, shown.link
    if len(commitments) != challenge.links or not 0 <= k < challenge.links:
        return "another number of links"
    if len(shown.x) != n * n or len(shown.y) != 4 * n * n:
        return "matrices of another size"
    x = np.frombuffer(shown.x, np.int8).reshape(n, n)
    y = np.frombuffer(shown.y, "<i4").reshape(n, n)
    start = committed(challenge, begin(challenge))
    before = start if k == 0 else commitments[k - 1]
    if next_commitment(before, y) != commitments[k]:
        return "not the product that was committed to"
    if k == 0:
        if not np.array_equal(x, begin(challenge)):
            return "the chain begins elsewhere"
    else:
        if previous is None or previous.link != k - 1 or len(previous.y) != 4 * n * n:
            return "the link before isn't shown"
        y_before = np.frombuffer(previous.y, "<i4").reshape(n, n)
        earlier = start if k == 1 else commitments[k - 2]
        if next_commitment(earlier, y_before) != before:
            return "the link before isn't the one committed to"
        if not np.array_equal(x, _reduced(y_before)):
            return "the factor doesn't follow from the link before"
    m = multiplier(challenge, before).astype(np.int64)
    wide, left = y.astype(np.int64), x.astype(np.int64)
    for at in range(VECTORS):
        v = _vector(beacon, challenge, commitments, k, at)
        if not np.array_equal(wide @ v, left @ (m @ v)):
            return "not the product"
    return None


def _vector(
    beacon: Digest, challenge: Challenge, commitments: Sequence[Digest], link: int, at: int
) -> NDArray[np.int64]:
    seed = beacon + challenge.seed + b"".join(commitments) + link.to_bytes(4) + bytes([at])
    raw = np.frombuffer(blake3(b"clusterai vector" + seed).digest(length=4 * challenge.size), "<u4")
    return (raw & ((1 << VECTOR_BITS) - 1)).astype(np.int64)


def _reduced(y: NDArray[np.int32]) -> Small:
    return (y % MODULUS - HALF).astype(np.int8)
