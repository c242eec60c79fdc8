"""Merkle tree over receipt leaves whose proofs also prove the position.

    leaf  = keccak(0x00 || value)            value: 32 bytes
    node  = keccak(0x01 || left || right)
    a node without a right neighbour moves up unchanged

The prefix keeps an inner node from posing as a leaf. `verify` walks index and count together, so a proof
fits one position of one tree size only: the audit draws positions, and a provider must not be able to show
another receipt for a drawn one. `Court.sol` runs the same walk.
"""

from collections.abc import Sequence

from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.keccak import keccak


def _leaf(value: bytes) -> bytes:
    return keccak(b"\x00" + value)


def _levels(values: Sequence[bytes]) -> list[list[bytes]]:
    levels = [[_leaf(value) for value in values]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [keccak(b"\x01" + below[i] + below[i + 1]) for i in range(0, len(below) - 1, 2)]
        if len(below) % 2:
            above.append(below[-1])
        levels.append(above)
    return levels


def root(values: Sequence[Digest]) -> Digest:
    """The commitment to `values` in order; of no values, 32 zero bytes."""
    if not values:
        return ZERO_DIGEST
    return Digest(_levels(values)[-1][0])


def proof(values: Sequence[Digest], index: int) -> tuple[Digest, ...]:
    """The siblings of leaf `index` from the bottom up; levels where it has none are left out."""
    path: list[Digest] = []
    for level in _levels(values)[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(Digest(level[sibling]))
        index //= 2
    return tuple(path)


def verify(commitment: Digest, value: Digest, index: int, count: int, path: Sequence[Digest]) -> bool:
    """Whether `value` stands at `index` of the `count` values under `commitment`."""
    if not 0 <= index < count:
        return False
    node = _leaf(value)
    steps = iter(path)
    while count > 1:
        if index ^ 1 < count:
            sibling = next(steps, None)
            if sibling is None or len(sibling) != 32:
                return False
            node = keccak(b"\x01" + sibling + node) if index & 1 else keccak(b"\x01" + node + sibling)
        index //= 2
        count = (count + 1) // 2
    return next(steps, None) is None and node == commitment
