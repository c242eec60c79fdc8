"""What somebody gains who sees the chain's randomness first and may let a block go: the formula, and the contracts' twins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core.draw import MILLION, is_drawn
from clusterai.audit.core.rate import Terms, advantage, bribe, bribed, least_rate, unbribed_rate
from clusterai.ledger import artifacts
from clusterai.ledger.core import calls
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.events import BeaconRecorded
from clusterai.ledger.core.rules import LOCAL
from clusterai.ledger.core.twin import BlockContext, Refused, TwinChain
from clusterai.protocol.ids import ZERO_DIGEST, Address
from clusterai.protocol.keccak import keccak

DEPLOYER, CHEAT = Address(b"d" * 20), Address(b"c" * 20)
EPOCHS = 6_000


def played(rate: float, share: float, tries: int) -> float:
    """The share of epochs in which the cheat's one receipt is drawn, on a chain whose blocks it may let go."""
    chain = TwinChain(31415, local_plan(artifacts.load, DEPLOYER).addresses, DEPLOYER)

    def recorded(block: BlockContext) -> bool:
        outcome = chain.execute(calls.Tick(), DEPLOYER, block)
        assert not isinstance(outcome, Refused)
        (event,) = outcome
        assert isinstance(event, BeaconRecorded)
        epoch = block.timestamp_s // LOCAL.epoch_s
        return is_drawn(event.beacon, CHEAT, epoch, ZERO_DIGEST, 0, round(rate * MILLION))

    drawn = 0
    for epoch in range(EPOCHS):
        for attempt in range(tries + 1):
            lot = keccak(b"%d %d" % (epoch, attempt))
            block = BlockContext(0, epoch * LOCAL.epoch_s + attempt, lot)
            is_own = int.from_bytes(keccak(lot + b"maker")[:8]) < share * 2**64
            mark = chain.mark()
            is_caught = recorded(block)
            if not is_caught or not is_own or attempt == tries:
                drawn += is_caught
                break
            chain.rollback(mark)  # the block is let go; the next maker's has other randomness
    return drawn / EPOCHS


@pytest.mark.parametrize(
    ("rate", "share", "tries"),
    [
        (0.25, 0.0, 1),
        (0.25, 0.1, 1),
        (0.25, 0.5, 1),
        (0.25, 1.0, 1),
        (0.5, 1.0, 1),
        (0.5, 0.5, 3),
        (0.5, 1.0, 3),
    ],
)
def test_the_formula_is_what_the_contract_does(rate: float, share: float, tries: int) -> None:
    """Draws by recorded beacons come out as p' says, within four standard errors."""
    expected = bribed(rate, share, tries)
    error = (expected * (1 - expected) / EPOCHS) ** 0.5
    assert played(rate, share, tries) == pytest.approx(expected, abs=4 * error)


@given(st.integers(1, 990), st.integers(0, 1_000))
def test_one_try_squares_what_is_bribed(rate_milli: int, share_milli: int) -> None:
    """p' = p (1 - q (1 - p)): of the bribed blocks only p^2 draw; all others draw p. Without an end, only honest blocks do."""
    rate, share = rate_milli / 1_000, share_milli / 1_000
    assert bribed(rate, share) == pytest.approx(rate * (1 - share * (1 - rate)))
    assert bribed(unbribed_rate(rate, share), share) == pytest.approx(rate)
    assert bribed(rate, share, 10_000) == pytest.approx(bribed_for_ever(rate, share))


def bribed_for_ever(rate: float, share: float) -> float:
    return (1 - share) * rate / (1 - share * rate)


def test_the_margin_covers_a_sixth_of_the_blocks() -> None:
    """At S = 10 R, with p* and its margin of 20 %, cheating still loses with 18 % of the blocks bribed, and wins with 19 %."""
    terms = Terms(saved=0.7, stake=10)
    least = least_rate(terms)
    assert advantage(terms, bribed(least, 0.18)) < 0 < advantage(terms, bribed(least, 0.19))
    assert bribed(least, 1.0) == pytest.approx(least**2)


def test_what_a_bribe_is_worth_grows_with_the_stake() -> None:
    """One block let go is worth 7.9 R at S = 10 R, and 40 R at 50: stakes make bribes worth their price."""
    for stake, worth in ((10, 7.9), (50, 39.5)):
        terms = Terms(saved=0.7, stake=stake)
        assert bribe(terms, least_rate(terms)) == pytest.approx(worth, rel=0.01)
