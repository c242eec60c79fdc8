"""Memory that was there: filled so that no page can be had without others, and shown at once where it is drawn.

    page_0 = XOF(seed)
    h_i    = BLAKE3(i - 1 || page_i-1)                      which is also the leaf of page i-1 in the tree that is committed to
    page_i = XOF(h_i) xor page_i-1 xor page_(h_i mod i)

Every page is the sum of so many expanded digests that storing the digests saves nothing: whoever dropped a page makes it again out
of those before it, which takes about as long as the fill did. The prover sends the root; the verifier draws pages afterwards and
wants them at once. Who holds a share s of them answers k draws with s^k.

It shows that so much was held at once, by whoever answered. Fast disks can pose as memory at this pace; how fast it can
be read, `sweeps.py` asks.

Source: Biryukov and Khovratovich 2016, Egalitarian computing (Merkle tree proofs over memory-hard fills).
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from clusterai.protocol import merkle
from clusterai.protocol.ids import Digest

PAGE_BYTES = 16 * 1024
Words = NDArray[np.uint64]


class PageShown(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A page and its place in the tree."""

    page: int
    data: bytes
    proof: tuple[Digest, ...]


class PagesShown(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """For each drawn page: itself, the one before, and the one that it was mixed with."""

    drawn: tuple[tuple[PageShown, PageShown, PageShown], ...]


class Filling:
    """`pages` pages, all held until it is dropped."""

    def __init__(self, seed: Digest, pages: int) -> None:
        words = np.empty((pages, PAGE_BYTES // 8), np.uint64)
        words[0] = _expanded(_begin(seed))
        self._leaves: list[Digest] = [_leaf(0, words[0].tobytes())]
        for at in range(1, pages):
            before = self._leaves[-1]
            row = words[at]
            np.bitwise_xor(words[at - 1], words[_mixed(before, at)], out=row)
            np.bitwise_xor(row, _expanded(before), out=row)
            self._leaves.append(_leaf(at, row.tobytes()))
        self._words = words
        self._tree = merkle.levels(self._leaves)

    @property
    def root(self) -> Digest:
        return Digest(self._tree[-1][0])

    @property
    def pages(self) -> int:
        return len(self._leaves)

    def show(self, pages: Sequence[int]) -> PagesShown:
        """Each with those that it was made of; page 0 is made of the seed alone."""
        return PagesShown(
            tuple(
                (
                    self.one(at),
                    self.one(max(0, at - 1)),
                    self.one(_mixed(self._leaves[at - 1], at) if at else 0),
                )
                for at in pages
            )
        )

    def times(self, key: Words) -> Words:
        """Each page as words, times the key's, summed: all pages are read, in their order."""
        return self._words @ key

    def one(self, at: int) -> PageShown:
        return PageShown(at, self._words[at].tobytes(), merkle.path(self._tree, at))


def draw(word: Digest, pages: int, count: int) -> tuple[int, ...]:
    """Which pages are shown; one may be drawn twice."""
    return tuple(
        int.from_bytes(blake3(b"clusterai pages" + word + turn.to_bytes(4)).digest()) % pages
        for turn in range(count)
    )


def differs(seed: Digest, pages: int, root: Digest, drawn: Sequence[int], shown: PagesShown) -> str | None:
    """Why what was shown isn't what was asked for; None where it is."""
    if tuple(trio[0].page for trio in shown.drawn) != tuple(drawn):
        return "other pages than those that were drawn"
    for page, before, mixed in shown.drawn:
        for one in (page, before, mixed):
            if not is_committed(root, pages, one):
                return "not the page that was committed to"
        at = page.page
        if at == 0:
            made = _expanded(_begin(seed))
        else:
            leaf = _leaf(at - 1, before.data)
            if before.page != at - 1 or mixed.page != _mixed(leaf, at):
                return "not the pages that it is made of"
            made = _expanded(leaf) ^ _words(before.data) ^ _words(mixed.data)
        if not np.array_equal(made, _words(page.data)):
            return "not what the pages before give"
    return None


def is_committed(root: Digest, pages: int, one: PageShown) -> bool:
    """Whether it stands in the tree over so many pages."""
    if len(one.data) != PAGE_BYTES or not 0 <= one.page < pages:
        return False
    return merkle.verify(root, _leaf(one.page, one.data), one.page, pages, one.proof)


def _begin(seed: Digest) -> Digest:
    return Digest(blake3(b"clusterai fill" + seed).digest())


def _leaf(at: int, page: bytes) -> Digest:
    return Digest(blake3(at.to_bytes(4) + page).digest())


def _mixed(before: Digest, at: int) -> int:
    """Which of the `at` pages before."""
    return int.from_bytes(before[:8]) % at


def _expanded(digest: Digest) -> Words:
    return _words(blake3(digest).digest(length=PAGE_BYTES))


def _words(data: bytes) -> Words:
    return np.frombuffer(data, "<u8")
