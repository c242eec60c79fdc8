"""Whole leases in virtual time: paid when right, refunded when not, whatever crashes and whatever is lost."""

from typing import Any

import pytest

from clusterai.ledger.core import events
from clusterai.protocol.ids import Digest
from clusterai.protocol.leases import CloseReason
from clusterai.runtime.machine import Tick
from tests.simulation.leases.world import AT, World, honest, key, skipper


def test_an_honest_lease_is_paid() -> None:
    """Accepted, performed, committed, audited or not, closed: the provider has its pay, the auditor its fee."""
    world = World(1, {"ann": honest})
    lease = world.lease("ann")
    world.run()
    assert world.reason(lease) is CloseReason.COMPLETED
    assert world.closed[lease].paid == 2_800
    assert not world.slashed
    assert any(isinstance(event, events.AuditMatched) for event in world.history), (
        "newcomers are always audited"
    )
    assert world.balance(AT.leases) == 280, "a tenth of a newcomer's pay vests"
    assert world.balance(AT.audits) == 0, "every bond went back"


@pytest.mark.parametrize("seed", range(12))
def test_crashes_and_loss_lose_nothing(seed: int) -> None:
    """Every process dies between any two effects, a third of the frames is lost: the work is done once and paid once."""
    world = World(seed, {"ann": honest, "bob": honest}, crash=0.02, loss=0.3)
    leases = [world.lease("ann", "one"), world.lease("bob", "two"), world.lease("ann", "three")]
    world.run()
    assert [world.reason(lease) for lease in leases] == [CloseReason.COMPLETED] * 3
    assert not world.slashed
    assert sum(process.crashes for process in world.processes) > 0


@pytest.mark.parametrize("seed", range(6))
def test_a_provider_that_serves_nothing_is_convicted(seed: int) -> None:
    """It skipped everything and hides: once two thirds of the panel saw that nothing is served, it loses its stake."""
    world = World(seed, {"ann": skipper}, serves=lambda _: False)
    lease = world.lease("ann")
    world.run()
    assert world.reason(lease) is CloseReason.WITHHELD
    assert world.slashed == [key("ann").address]
    assert world.closed[lease].paid == 0


def test_an_absent_provider_costs_nobody_anything() -> None:
    """Nobody accepts: after its last moment the lease goes back whole."""
    world = World(3, {"ann": honest})
    before = world.balance(key("gate hot").address)
    lease = world.lease("ann", start_by_s=int(world.now_s) + 2)
    world.run()
    assert world.reason(lease) is CloseReason.NOT_ACCEPTED
    assert world.balance(key("gate hot").address) == before


class Walked(dict[Digest, Any]):
    """Counts how often somebody looks at each of its values."""

    walks = 0

    def values(self) -> Any:
        self.walks += 1
        return super().values()


def test_many_leases_are_closed_in_their_turn_and_looked_through_once() -> None:
    """However many wait for their pay, a provider's book asks once a step whose turn it is; all are paid, the oldest first."""
    world = World(4, {"ann": honest})
    book = world.books["ann"].machine
    book.leases = walked = Walked()
    leases = [world.lease("ann", f"job {n}", start_by_s=int(world.now_s) + 30 + n) for n in range(40)]
    most = 0
    while not all(it in world.closed for it in leases):
        world.turn()
        before = walked.walks
        book.step(Tick(), world.now_s)
        most = max(most, walked.walks - before)
    assert most <= 3
    assert {world.reason(it) for it in leases} == {CloseReason.COMPLETED}
    committed = [it.lease for it in world.history if isinstance(it, events.LeaseCommitted)]
    assert list(world.closed) == committed
