"""What was earned: every part in one state, sums that agree with the node's own numbers, and days that add up."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.ledger.core import events
from clusterai.ledger.core.vault_calls import DatasetTerms
from clusterai.node.core.earnings import (
    DAY_S,
    Books,
    Earned,
    Earnings,
    State,
    answers_by_state,
    by_state,
    placed,
)
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.leases import CloseReason, Terms

ME, OTHER = Address(b"M" * 20), Address(b"O" * 20)
EPOCH_S = 3600
amounts = st.integers(0, 10**12)
PLAIN = Books(0, 0, 0, 0, 0, {}, {}, barred=False)


@st.composite
def books(draw: st.DrawFn) -> Books:
    """As a node's are: settled ≤ claimed ≤ committed, and claimed ≤ vouched."""
    settled, held, waiting, more, owed = (draw(amounts) for _ in range(5))
    claimed = settled + held
    vouched = claimed + waiting
    barred = draw(st.booleans())
    return Books(owed, vouched, claimed, settled, claimed + more, {}, {}, barred=barred)


@given(books())
def test_the_states_agree_with_the_nodes_status(found: Books):
    """Each sum of `status.json` is a sum of states, and nothing is in two of them."""
    sums = dict(answers_by_state(found))
    assert all(amount >= 0 for amount in sums.values())
    assert sum(sums.values()) == found.owed_wei + found.vouched_wei
    assert sums["settled"] == found.settled_wei
    if not found.barred:
        assert sums["settled"] + sums["held"] == found.claimed_wei
        assert sums["owed"] == found.owed_wei
        assert sums["held"] + sums["committed"] + sums["settled"] <= max(
            found.committed_wei, found.claimed_wei
        )


days = st.lists(st.tuples(st.integers(0, 5), amounts), max_size=6)
SOME: tuple[State, ...] = ("settled", "held", "owed")
states = st.lists(st.tuples(st.sampled_from(SOME), amounts), max_size=3)


@given(days, states)
def test_days_and_states_lose_nothing(work: list[tuple[int, int]], totals: list[tuple[State, int]]):
    """Every state's total and every day's work is told, whichever is more; what is left over is undated, or forfeited."""
    found = placed(sorted(work), totals)
    for state in SOME:
        told = sum(amount for _, it, amount in found if it == state)
        assert told == sum(amount for it, amount in totals if it == state)
    for day in range(6):
        told = sum(amount for it, _, amount in found if it == day)
        assert told == sum(amount for it, amount in work if it == day)
    undated = sum(amount for day, _, amount in found if day is None)
    assert undated == max(0, sum(a for _, a in totals) - sum(a for _, a in work))


class Chain:
    """Tells an `Earnings` of blocks."""

    def __init__(self) -> None:
        self.earnings = Earnings(ME, EPOCH_S)
        self.number = 0

    def block(self, at_s: int, *happened: Any) -> None:
        for event in happened:
            self.earnings.apply(event, at_s)
        self.number += 1
        self.earnings.apply(events.Block(self.number, at_s), at_s)

    def undo(self, to: int) -> None:
        self.earnings.apply(events.RolledBack(to), 0)
        self.number = to


def committed(epoch: int, total: int, provider: Address = ME) -> events.EpochCommitted:
    return events.EpochCommitted(provider, epoch, ZERO_DIGEST, 1, total, 1, 1)


def terms(pay: int) -> Terms:
    none = ZERO_DIGEST
    return Terms(OTHER, ME, none, none, none, none, 1, 1, 1, pay, 0, 10, 20, none)


def lease(name: bytes) -> Digest:
    return Digest(name * 32)


def lease_committed(name: bytes, amount: int) -> events.LeaseCommitted:
    return events.LeaseCommitted(lease(name), ZERO_DIGEST, 1, ZERO_DIGEST, 1, amount, 1, ZERO_DIGEST)


def test_answers_are_told_by_the_day_of_their_epoch():
    """The oldest day is settled first; receipts of the running epoch are there before the chain hears of them."""
    chain = Chain()
    chain.block(100, committed(23, 50), committed(23, 1_000, OTHER))
    chain.block(DAY_S + 10, committed(24, 30))
    now = msgspec.structs.replace(
        PLAIN, vouched_wei=80, claimed_wei=80, settled_wei=60, committed_wei=80, owed_wei=7, made={48: 7}
    )
    assert chain.earnings.earned(now) == [
        Earned(0, "answers", "settled", 50),
        Earned(1, "answers", "settled", 10),
        Earned(1, "answers", "held", 20),
        Earned(2, "answers", "owed", 7),
    ]


def test_what_is_disputed_is_forfeited_once():
    """Refused before the commitment it is in no total; refused behind it, it is taken out of the epoch's."""
    chain = Chain()
    chain.block(100, committed(23, 50))
    now = msgspec.structs.replace(PLAIN, vouched_wei=40, committed_wei=50, disputed={23: 10, 24: 5})
    sums = by_state(chain.earnings.earned(now))
    assert (sums["committed"], sums["forfeited"]) == (40, 15)


def test_undone_blocks_earn_nothing():
    """A commitment in a block that a reorganisation took away isn't told any more."""
    chain = Chain()
    chain.block(100, committed(23, 50))
    chain.block(200, committed(24, 30))
    chain.undo(1)
    assert chain.earnings.earned(msgspec.structs.replace(PLAIN, vouched_wei=50, committed_wei=50)) == [
        Earned(0, "answers", "committed", 50)
    ]


def test_a_job_goes_from_promised_to_settled():
    """Accepted, committed, closed on a later day; a newcomer's tenth vests until it is set free."""
    chain = Chain()
    opened = events.LeaseOpened(lease(b"a"), OTHER, ME, terms(100))
    chain.block(100, opened, events.LeaseOpened(lease(b"z"), OTHER, ME, terms(5)))
    assert chain.earnings.earned(PLAIN) == []
    chain.block(110, events.LeaseAccepted(lease(b"a")))
    assert chain.earnings.earned(PLAIN) == [Earned(None, "jobs", "promised", 100)]
    chain.block(120, lease_committed(b"a", 90))
    assert chain.earnings.earned(PLAIN) == [Earned(None, "jobs", "held", 90)]
    closed = events.LeaseClosed(lease(b"a"), CloseReason.COMPLETED, 90, 10)
    chain.block(DAY_S + 1, closed, events.PayVested(ME, lease(b"a"), 9))
    assert chain.earnings.earned(PLAIN) == [Earned(1, "jobs", "settled", 81), Earned(1, "jobs", "vesting", 9)]
    chain.block(DAY_S + 2, events.VestedReleased(ME, 9, burned=False))
    assert chain.earnings.earned(PLAIN) == [Earned(1, "jobs", "settled", 90)]


@pytest.mark.parametrize(
    ("reason", "lost"),
    [(CloseReason.DEADLINE_MISSED, 100), (CloseReason.CANCELLED, 0), (CloseReason.FRAUD, 100)],
)
def test_a_broken_job_is_forfeited(reason: CloseReason, lost: int):
    """What was undertaken and not kept is told as lost; what its requester called off isn't."""
    chain = Chain()
    chain.block(
        100, events.LeaseOpened(lease(b"a"), OTHER, ME, terms(100)), events.LeaseAccepted(lease(b"a"))
    )
    chain.block(200, events.LeaseClosed(lease(b"a"), reason, 0, 100))
    assert by_state(chain.earnings.earned(PLAIN), "jobs")["forfeited"] == lost


def test_a_conviction_takes_what_was_not_settled():
    """Held, vouched and owed are forfeited; what is settled stays."""
    chain = Chain()
    chain.block(100, committed(1, 100))
    now = Books(5, 90, 60, 40, 100, {}, {}, barred=True)
    sums = by_state(chain.earnings.earned(now))
    assert sums["settled"] == 40
    assert sums["held"] == sums["vouched"] == sums["owed"] == sums["committed"] == 0
    assert sums["forfeited"] >= 55


@pytest.mark.parametrize(
    ("delivered", "paid", "state"), [(True, 30, "settled"), (True, 0, "forfeited"), (False, 0, None)]
)
def test_a_sold_copy_is_paid_when_its_sale_is_closed(delivered: bool, paid: int, state: State | None):
    """Promised when it is bought, held when it is delivered; what is given back undelivered was never earned."""
    chain = Chain()
    mine, others, sale = (Digest(it * 32) for it in (b"d", b"o", b"s"))
    listed = DatasetTerms(ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST, 1, 1, 30)
    chain.block(
        10,
        events.DatasetListed(mine, ME, ZERO_DIGEST, listed),
        events.DatasetListed(others, OTHER, ZERO_DIGEST, listed),
        events.CopyBought(sale, mine, OTHER, ZERO_DIGEST, OTHER, 30, 99),
        events.CopyBought(lease(b"t"), others, OTHER, ZERO_DIGEST, OTHER, 30, 99),
    )
    assert chain.earnings.earned(PLAIN) == [Earned(None, "copies", "promised", 30)]
    if delivered:
        chain.block(20, events.CopyDelivered(sale, ZERO_DIGEST))
        assert chain.earnings.earned(PLAIN) == [Earned(None, "copies", "held", 30)]
    chain.block(DAY_S, events.SaleClosed(sale, paid, 30 - paid))
    assert chain.earnings.earned(PLAIN) == ([] if state is None else [Earned(1, "copies", state, 30)])
