"""Reputation: from settled facts alone, fading, worth no more under many names than under one."""

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from clusterai.ledger.core import events
from clusterai.market.core.reputation import BEGINNER, HALF_LIFE_S, Reputation, total_weight
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.leases import CloseReason, Terms

STAKE = 1_000


def someone(number: int) -> Address:
    return Address(number.to_bytes(20))


ANN, BOB = someone(1), someone(2)


def cleared(reputation: Reputation, provider: Address, total: int, epoch: int = 1, audited: int = 1) -> None:
    reputation.apply(events.EpochCommitted(provider, epoch, ZERO_DIGEST, 1, total, epoch + 1, 250_000), 0)
    reputation.apply(events.EpochCleared(provider, epoch, ZERO_DIGEST, audited, ZERO_DIGEST), 0)


def lease(
    reputation: Reputation, provider: Address, worth: int, reason: CloseReason, now_s: float = 0
) -> None:
    name = Digest(bytes(32))
    terms = Terms(
        someone(9),
        provider,
        name,
        name,
        name,
        name,
        1,
        4,
        4,
        worth,
        0,
        start_by_s=1,
        deadline_s=2,
        nonce=name,
    )
    reputation.apply(events.LeaseOpened(name, someone(9), provider, terms), now_s)
    paid = worth if reason is CloseReason.COMPLETED else 0
    reputation.apply(events.LeaseClosed(name, reason, paid, worth - paid), now_s)


def test_a_newcomer_is_tried() -> None:
    """Nobody knows it, so it has half of a veteran's quality, and no line accuses it."""
    assert Reputation().quality(ANN, STAKE, 0) == BEGINNER


def test_audited_work_raises_it_and_unaudited_does_not() -> None:
    """An epoch of which nothing was drawn proves nothing."""
    reputation = Reputation()
    cleared(reputation, ANN, STAKE, audited=0)
    assert reputation.quality(ANN, STAKE, 0) == BEGINNER
    cleared(reputation, ANN, STAKE // 2, epoch=2)
    assert math.isclose(reputation.quality(ANN, STAKE, 0), 0.75)
    cleared(reputation, ANN, 10 * STAKE, epoch=3)
    assert reputation.quality(ANN, STAKE, 0) == 1.0


def test_a_clearance_counts_once() -> None:
    """Telling the chain's event again adds nothing."""
    reputation = Reputation()
    cleared(reputation, ANN, STAKE // 2)
    reputation.apply(events.EpochCleared(ANN, 1, ZERO_DIGEST, 1, ZERO_DIGEST), 0)
    assert math.isclose(reputation.quality(ANN, STAKE, 0), 0.75)


def test_what_it_says_of_itself_does_not_count() -> None:
    """A commitment is a provider's own claim: without a clearance it is worth nothing."""
    reputation = Reputation()
    reputation.apply(events.EpochCommitted(ANN, 1, ZERO_DIGEST, 9, 10**12, 2, 250_000), 0)
    assert reputation.quality(ANN, STAKE, 0) == BEGINNER


def test_broken_leases_lower_it_and_time_heals() -> None:
    """Each way of breaking a promise costs; a year later hardly anything is left of it."""
    for reason in (CloseReason.DEADLINE_MISSED, CloseReason.GAVE_UP, CloseReason.OUTPUT_DIFFERS):
        reputation = Reputation()
        lease(reputation, ANN, STAKE, reason)
        assert reputation.quality(ANN, STAKE, 0) < BEGINNER / 2
        assert reputation.quality(ANN, STAKE, 12 * HALF_LIFE_S) > 0.999 * BEGINNER


def test_what_the_requester_did_is_not_its_fault() -> None:
    """A lease that its requester cancelled leaves no trace."""
    for reason in (CloseReason.CANCELLED, CloseReason.CANCELLED_BEFORE_START, CloseReason.COMPLETED):
        reputation = Reputation()
        lease(reputation, ANN, STAKE, reason)
        assert reputation.quality(ANN, STAKE, 0) == BEGINNER


def test_the_convicted_weigh_nothing() -> None:
    """No amount of good work outweighs a conviction."""
    reputation = Reputation()
    cleared(reputation, ANN, 100 * STAKE)
    reputation.apply(events.Slashed(ANN, STAKE, 0, STAKE, BOB), 0)
    assert reputation.quality(ANN, STAKE, 0) == 0
    assert reputation.explain(ANN, STAKE, 0)[0].cure


def test_absence_and_slowness_show_with_their_cure() -> None:
    """Each factor below one says what was found and what would raise it."""
    reputation = Reputation()
    reputation.seen(ANN, True, 3_600, 0)
    reputation.seen(ANN, False, 1_200, 0)
    for _ in range(50):
        reputation.timed(BOB, 0.1)
        reputation.timed(ANN, 0.4)
    lines = {line.name: line for line in reputation.explain(ANN, STAKE, 0)}
    assert math.isclose(lines["availability"].value, 7_200 / 8_400)
    assert 0.5 <= lines["promptness"].value < 1
    assert all(line.cure for line in lines.values() if line.value < 1)
    quality = reputation.quality(ANN, STAKE, 0)
    assert math.isclose(quality, math.prod(line.value for line in lines.values()))


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**7)), min_size=1, max_size=12),
    st.integers(0, 10 * 86_400),
)
def test_many_names_weigh_no_more_than_one(parts: list[tuple[int, int]], later_s: int) -> None:
    """However a provider splits its stake and its verified work, the sum is at most what one name would weigh."""
    split, whole = Reputation(), Reputation()
    for number, (_, verified) in enumerate(parts):
        cleared(split, someone(number + 1), verified)
        cleared(whole, ANN, verified, epoch=number + 1)
    stake = sum(part for part, _ in parts)
    many = total_weight(
        split, [(someone(number + 1), part) for number, (part, _) in enumerate(parts)], later_s
    )
    assert many <= whole.weight(ANN, stake, later_s) * (1 + 1e-9)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**7))
def test_a_name_for_ones_faults_costs_its_stake(clean: int, dirty: int, broken: int) -> None:
    """Keeping the faults under one name saves no more than the other names' own weight."""
    reputation = Reputation()
    lease(reputation, BOB, broken, CloseReason.GAVE_UP)
    both = total_weight(reputation, [(ANN, clean), (BOB, dirty)], 0)
    assert both < BEGINNER * (clean + dirty)
    assert both >= BEGINNER * clean


def test_names_without_stake_weigh_nothing() -> None:
    """A thousand fresh identities are worth as much as none."""
    assert total_weight(Reputation(), [(someone(number), 0) for number in range(1, 1_001)], 0) == 0


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e9))
def test_quality_stays_between_none_and_all(up_s: float, down_s: float, now_s: float) -> None:
    """No observation takes it out of its range."""
    assume(now_s >= 0)
    reputation = Reputation()
    reputation.seen(ANN, True, up_s, now_s)
    reputation.seen(ANN, False, down_s, now_s)
    assert 0 <= reputation.quality(ANN, STAKE, now_s) <= 1


def test_only_what_is_deep_enough_counts() -> None:
    """An event counts when enough blocks stand above it, and not if its block was undone before."""
    reputation = Reputation(confirmations=2)
    slashed = events.Slashed(ANN, STAKE, 0, STAKE, BOB)
    reputation.hear(slashed)
    reputation.hear(events.Block(1, 10))
    reputation.hear(events.RolledBack(0))
    for number in range(1, 4):
        reputation.hear(events.Block(number, 10 + number))
    assert reputation.quality(ANN, STAKE, 20) > 0
    reputation.hear(slashed)
    reputation.hear(events.Block(4, 14))
    reputation.hear(events.Block(5, 15))
    assert reputation.quality(ANN, STAKE, 20) > 0
    reputation.hear(events.Block(6, 16))
    assert reputation.quality(ANN, STAKE, 20) == 0
