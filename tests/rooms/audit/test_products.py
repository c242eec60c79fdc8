"""Measured cards: honest products pass on any hardware's order of adding, and each shortcut is seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core import products
from clusterai.audit.core.products import Challenge, Opened, Small, Wide
from clusterai.protocol.ids import Digest

ASKED = Challenge(Digest(b"\x05" * 32), 48, 6)
BEACON = Digest(b"\x09" * 32)


class Prover:
    """Does the links with a product of its own, and opens what is drawn."""

    def __init__(self, product: products.Product = products.exact) -> None:
        self.kept: list[tuple[Small, Wide]] = []
        self.commitments = products.answer(ASKED, product, lambda _, x, y: self.kept.append((x, y)))

    def open(self, link: int) -> Opened:
        return products.opened(link, *self.kept[link])

    def judged(self, link: int) -> str | None:
        previous = self.open(link - 1) if link else None
        return products.differs(ASKED, self.commitments, previous, self.open(link), BEACON)


def in_doubles(x: Small, m: Small) -> Wide:
    return (x.astype(np.float64) @ m.astype(np.float64)).astype(np.int32)


def in_integers(x: Small, m: Small) -> Wide:
    return x.astype(np.int32) @ m.astype(np.int32)


@pytest.mark.parametrize("product", [products.exact, in_doubles, in_integers])
def test_every_arithmetic_comes_to_the_same_chain(product: products.Product):
    """float32 in blocks, float64 and integers commit to equal digests, and every link stands."""
    prover = Prover(product)
    assert prover.commitments == Prover().commitments
    assert [prover.judged(link) for link in range(ASKED.links)] == [None] * ASKED.links


def test_blocks_of_float32_lose_nothing_at_the_largest_entries():
    """A product whose sums are as large as they can be is exact beyond a block's length."""
    size = products.BLOCK + 8
    full = np.full((size, size), products.HALF, np.int8)
    assert (products.exact(full, full) == size * products.HALF**2).all()


@given(st.integers(0, ASKED.links - 1), st.integers(0, 48 * 48 - 1), st.integers(1, 2**20))
def test_one_wrong_entry_is_seen(link: int, entry: int, by: int):
    """A prover that is off by anything in a single entry of a link, and goes on from there, fails at that link."""
    done = 0

    def slip(x: Small, m: Small) -> Wide:
        nonlocal done
        y = products.exact(x, m)
        if done == link:
            y.reshape(-1)[entry] += by
        done += 1
        return y

    assert Prover(slip).judged(link) == "not the product"


def test_a_skipped_product_is_seen():
    """Making a link up costs nothing and passes nowhere."""
    assert Prover(lambda x, _: x.astype(np.int32)).judged(3) == "not the product"


def test_another_start_is_seen():
    """A chain that was prepared for another challenge isn't this one's."""
    prover = Prover()
    other = Challenge(Digest(b"\x06" * 32), ASKED.size, ASKED.links)
    assert products.differs(other, prover.commitments, None, prover.open(0), BEACON) is not None


def test_links_done_side_by_side_are_seen():
    """Whoever begins the second half before the first is done has another factor there than follows."""
    prover = Prover()
    x, _ = prover.kept[3]
    forged = x.copy()
    forged[0, 0] = -forged[0, 0] or 1
    y = products.exact(forged, products.multiplier(ASKED, prover.commitments[2]))
    commitments = (
        *prover.commitments[:3],
        products.next_commitment(prover.commitments[2], y),
        *prover.commitments[4:],
    )
    said = products.differs(ASKED, commitments, prover.open(2), products.opened(3, forged, y), BEACON)
    assert said == "the factor doesn't follow from the link before"


def test_other_matrices_than_committed_are_seen():
    """After the draw nothing else can be shown."""
    prover = Prover()
    for shown in (products.opened(2, *prover.kept[3]), Opened(2, b"", b""), Opened(9, *prover.kept[0])):  # type: ignore[arg-type]
        assert products.differs(ASKED, prover.commitments, prover.open(1), shown, BEACON) is not None
    assert products.differs(ASKED, prover.commitments, None, prover.open(2), BEACON) is not None
    assert products.differs(ASKED, prover.commitments, prover.open(0), prover.open(2), BEACON) is not None


def test_the_draw_depends_on_what_was_committed():
    """Links are drawn by the beacon and the commitments: neither side picks them, and all can be drawn."""
    prover = Prover()
    drawn = {products.draw(ASKED, prover.commitments, Digest(bytes([at]) * 32), 2) for at in range(60)}
    assert {link for pair in drawn for link in pair} == set(range(ASKED.links))
    assert all(len(set(pair)) == 2 for pair in drawn)
