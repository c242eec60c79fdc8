"""How fast memory is read: all of what was filled is gone over again and again, and what it came to is drawn from.

    key_0   = XOF(seed)                                  key_r+1 = XOF(root_r)
    v_r,i   = sum over j of page_i[j] * key_r[j]         words of 64 bits, modulo 2^64
    root_r  = the tree over the v_r,i, 64 of them a leaf

A key has as many words as a page, so no shorter form of a page gives its value: who wants it reads the page. Keys of a
round follow from the round before, so two rounds can't be done in one pass. The prover sends the roots; the verifier then draws
(round, page) pairs, sees each page as the fill committed to it (`pages.py`), and multiplies once more. Who made up a share f of the
values passes k draws with (1 - f)^k.

It is a floor: what multiplies takes time as well (a core of 2023 does some 9 GB a second of it, and reads at most three times
that), and so do the tree and the line. What fits into caches is read from there, so the fill must be larger than they are.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from clusterai.audit.core.pages import PAGE_BYTES, Filling, PageShown, is_committed
from clusterai.protocol import merkle
from clusterai.protocol.ids import Digest

BLOCK = 64
"""Values in a leaf: a tree over each would take as long as the reading."""
Words = NDArray[np.uint64]


class ValueShown(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One value's whole leaf with its place in the round's tree, and the page that it is of."""

    leaf: bytes
    proof: tuple[Digest, ...]
    page: PageShown


class SweepShown(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    drawn: tuple[ValueShown, ...]


class Sweep:
    """`rounds` rounds over what is held."""

    def __init__(self, filling: Filling, seed: Digest, rounds: int) -> None:
        self._filling = filling
        self._values: list[Words] = []
        self._trees: list[list[list[bytes]]] = []
        word = seed
        for _ in range(rounds):
            values = filling.times(key(word))
            tree = merkle.levels([_leaf(at, data) for at, data in enumerate(_leaves(values))])
            word = Digest(tree[-1][0])
            self._values.append(values)
            self._trees.append(tree)

    @property
    def roots(self) -> tuple[Digest, ...]:
        return tuple(Digest(tree[-1][0]) for tree in self._trees)

    def show(self, places: Sequence[int]) -> SweepShown | None:
        """Nothing where a place is none of it."""
        pages = self._filling.pages
        if any(not 0 <= it < pages * len(self._trees) for it in places):
            return None
        found: list[ValueShown] = []
        for turn, page in (divmod(it, pages) for it in places):
            leaf = _leaves(self._values[turn])[page // BLOCK]
            proof = merkle.path(self._trees[turn], page // BLOCK)
            found.append(ValueShown(leaf, proof, self._filling.one(page)))
        return SweepShown(tuple(found))


def draw(word: Digest, pages: int, rounds: int, count: int) -> tuple[int, ...]:
    """Places, round * pages + page; one may be drawn twice."""
    return tuple(
        int.from_bytes(blake3(b"clusterai sweep" + word + turn.to_bytes(4)).digest()) % (pages * rounds)
        for turn in range(count)
    )


def differs(
    seed: Digest,
    pages: int,
    filled: Digest,
    roots: Sequence[Digest],
    places: Sequence[int],
    shown: SweepShown,
) -> str | None:
    """Why what was shown isn't what reading all of it gives; None where it is.

    Args:
        filled: the root of the fill that was gone over.
        roots: of all rounds.
        places: that were drawn.
    """
    if len(shown.drawn) != len(places):
        return "not as many values as were drawn"
    leaves = -(-pages // BLOCK)
    for place, value in zip(places, shown.drawn, strict=True):
        turn, page = divmod(place, pages)
        at, within = divmod(page, BLOCK)
        if value.page.page != page or not is_committed(filled, pages, value.page):
            return "not the page that was filled"
        if len(value.leaf) != 8 * min(BLOCK, pages - at * BLOCK):
            return "a leaf of another size"
        if not merkle.verify(roots[turn], _leaf(at, value.leaf), at, leaves, value.proof):
            return "not the values that it committed to"
        words = np.frombuffer(value.page.data, "<u8")
        made = (words * key(seed if turn == 0 else roots[turn - 1])).sum(dtype=np.uint64)
        if made != np.frombuffer(value.leaf, "<u8")[within]:
            return "not what reading the page gives"
    return None


def key(word: Digest) -> Words:
    return np.frombuffer(blake3(b"clusterai sweep" + word).digest(length=PAGE_BYTES), "<u8")


def _leaves(values: Words) -> list[bytes]:
    data = values.astype("<u8").tobytes()
    return [data[start : start + 8 * BLOCK] for start in range(0, len(data), 8 * BLOCK)]


def _leaf(at: int, data: bytes) -> Digest:
    return Digest(blake3(b"clusterai sweep leaf" + at.to_bytes(4) + data).digest())
