"""Machines of a rental are killed before any of their steps, stay away or come back: the renter's cluster goes on, and is paid once."""

import pytest

from clusterai.gateway.core.rentstate import Close, Extend, Meet, Release, Rent
from clusterai.protocol.ids import Address
from clusterai.protocol.rentals import stay_model
from clusterai.runtime.machine import Linked
from clusterai.work.cluster.price import unit_price_wei
from tests.rooms.rentals.stage import LEASE, PRICE_WEI, Stage

STEPS = {0: 20, 1: 20}
"""So many effects have head and worker in the story below."""


def story(victim: int = 0, dies_before: int | None = None, *, comes_back: bool = False) -> Stage:
    """Two machines: booked, joined, met by their renter, paid, prolonged, out of money, filled up, given back."""
    stage = Stage(2, spares=2)
    stage.machines[victim].dies_before = dies_before
    stage.machines[victim].comes_back = comes_back
    for machine in stage.machines:
        stage.tell(Linked(machine.operator))
    rented = stage.rented(2)
    stage.ask(Rent(rented))
    stage.ask(Meet(LEASE, b"\x55" * 32))
    stage.run(70)
    stage.ask(Extend(LEASE, rented.until_s + 100))
    stage.run(30)
    saved_wei, stage.credit_wei = stage.credit_wei, 0
    stage.run(70)
    stage.credit_wei = saved_wei
    stage.run(90)
    assert_whole(stage)
    stage.ask(Release(LEASE))
    stage.run(5)
    return stage


def assert_whole(stage: Stage) -> None:
    """All are ready, the mesh knows the keys that they have now, and nobody is left who joined a head before this one."""
    rental = stage.rental()
    assert rental.is_complete, stage.notes
    there = {it.key.address: it for it in stage.machines}
    machines = [there[Address(stay.seat.node)] for stay in rental.stays.values()]
    for stay, machine in zip(rental.stays.values(), machines, strict=True):
        assert machine.book.stay is not None
        assert machine.book.stay.opened is not None
        assert machine.book.stay.opened.key == stay.key
        assert machine.raised_s >= machines[0].raised_s


@pytest.mark.parametrize("victim", [0, 1])
def test_the_story_has_that_many_steps(victim: int):
    """So that none of a machine's is left out."""
    assert story().machines[victim].performed == STEPS[victim]


@pytest.mark.parametrize("comes_back", [False, True])
@pytest.mark.parametrize(
    ("victim", "at"), [(victim, at) for victim, steps in STEPS.items() for at in range(steps)]
)
def test_a_machine_killed_before_any_of_its_effects_costs_no_more_than_its_interval(
    victim: int, at: int, comes_back: bool
):
    """Head or worker, gone for good or started again: the cluster is whole again, each interval charged once, all given back."""
    stage = story(victim, at, comes_back=comes_back)
    rental = stage.rental()
    assert stage.machines[victim].starts == 1, "it was killed"
    assert rental.ended is not None
    assert rental.ended.why is Close.RELEASED
    assert rental.until_s == rental.rented.until_s + 100
    assert rental.renter_key == b"\x55" * 32
    assert all(it.book.is_vacant and it.lent == {} for it in stage.machines)
    assert stage.booked == set()
    assert stage.relays == {}
    seats = [it.seat.node for it in rental.stays.values()]
    assert len(set(seats)) == len(seats)
    charged_wei = sum(amount for _, amount in stage.charged)
    assert rental.paid_wei == charged_wei
    assert rental.intervals == len(stage.charged)
    assert sum(rental.units.values()) * unit_price_wei(PRICE_WEI) == charged_wei
    assert len(set(stage.seeds)) == len(stage.seeds)
    assert rental.began_s is not None
    charged = {model for model, _ in stage.charged}
    assert (
        charged >= {stay_model(LEASE, place, it.generation) for place, it in rental.stays.items()}
        or at >= STEPS[victim] - 4
    )
    assert 0 < charged_wei <= 2 * (stage.now_s - rental.began_s) * PRICE_WEI / 3600
