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


def levels(values: Sequence[Digest]) -> list[list[bytes]]:
    """All nodes, leaves first: for whoever needs several proofs of one tree."""
    tree = [[_leaf(value) for value in values]]
    while len(tree[-1]) > 1:
        below = tree[-1]
        above = [keccak(b"\x01" + below[i] + below[i + 1]) for i in range(0, len(below) - 1, 2)]
        if len(below) % 2:
            above.append(below[-1])
        tree.append(above)
    return tree


def root(values: Sequence[Digest]) -> Digest:
    """The commitment to `values` in order; of no values, 32 zero bytes."""
    if not values:
        return ZERO_DIGEST
    return Digest(levels(values)[-1][0])


def proof(values: Sequence[Digest], index: int) -> tuple[Digest, ...]:
    """The siblings of leaf `index` from the bottom up; levels where it has none are left out."""
    return path(levels(values), index)


def path(tree: Sequence[Sequence[bytes]], index: int) -> tuple[Digest, ...]:
    """As `proof`, of a tree's `levels`."""
    siblings: list[Digest] = []
    for level in tree[:-1]:
        if index ^ 1 < len(level):
            siblings.append(Digest(level[index ^ 1]))
        index //= 2
    return tuple(siblings)


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
