"""The draw: the Court's, unpredictable, and at the rate that it says."""

from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core.draw import MILLION, drawn, is_drawn
from clusterai.ledger.core.twin import court
from clusterai.protocol.ids import Address, Digest

PROVIDER = Address(b"\x07" * 20)
ROOT = Digest(b"\x08" * 32)


def beacon(number: int) -> Digest:
    return Digest(number.to_bytes(32))


def test_the_share_is_the_rate() -> None:
    """Of 40,000 receipts a quarter is drawn, within four standard deviations."""
    count = len(drawn(beacon(1), PROVIDER, 3, ROOT, 40_000, 250_000))
    assert abs(count - 10_000) < 4 * (40_000 * 0.25 * 0.75) ** 0.5


@given(st.integers(0, 2**256 - 1), st.integers(0, 2**40 - 1), st.integers(0, 2**32 - 1))
def test_the_ends_of_the_rate(number: int, epoch: int, index: int) -> None:
    """At a rate of one everything is drawn, at zero nothing."""
    assert is_drawn(beacon(number), PROVIDER, epoch, ROOT, index, MILLION)
    assert not is_drawn(beacon(number), PROVIDER, epoch, ROOT, index, 0)


@given(st.integers(0, 2**64), st.integers(1, MILLION - 1))
def test_a_higher_rate_draws_all_that_a_lower_one_does(number: int, rate: int) -> None:
    """Raising the rate only adds."""
    fewer = drawn(beacon(number), PROVIDER, 5, ROOT, 60, rate)
    more = drawn(beacon(number), PROVIDER, 5, ROOT, 60, rate + 1)
    assert set(fewer) <= set(more)


def test_everything_that_is_hashed_matters() -> None:
    """Another beacon, provider, epoch or root draws otherwise."""
    at = (beacon(1), PROVIDER, 3, ROOT)
    others = [
        (beacon(2), *at[1:]),
        (at[0], Address(b"\x09" * 20), *at[2:]),
        (*at[:2], 4, ROOT),
        (*at[:3], Digest(b"\x09" * 32)),
    ]
    first = drawn(*at, 400, 250_000)
    assert all(drawn(*other, 400, 250_000) != first for other in others)


@given(
    st.integers(0, 2**256 - 1), st.integers(0, 2**40 - 1), st.integers(0, 2**32 - 1), st.integers(0, MILLION)
)
def test_the_courts_twin_draws_the_same(number: int, epoch: int, index: int, rate: int) -> None:
    """The twin is held equal to the contract elsewhere, so this holds the auditor equal to the contract."""
    at = (beacon(number), PROVIDER, epoch, ROOT, index, rate)
    assert is_drawn(*at) == court.is_drawn(*at)
