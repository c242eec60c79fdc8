"""Outputs that aren't handed over, in virtual time: the requester ends with its outputs or its money, whoever crashes when."""

from typing import TypeVar

import pytest

from clusterai.gateway.core.jobstate import Job
from clusterai.ledger.core import calls, events
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import CloseReason, DemandOutcome
from clusterai.runtime.machine import Unlinked
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import Image, JobArray, JobSpec, Resources
from tests.simulation.leases.world import AT, CREDIT, MOST, RULES, SEGMENTS, World, honest, key

E = TypeVar("E")
BOND = RULES.deliveries.bond_wei
MODULE = JobSpec(
    name="sums",
    check="wasm",
    image=Image("wasm", b"\x07" * 32),
    segments=SEGMENTS,
    fuel=SEGMENTS,
    resources=Resources(time_s=60),
)
PROGRAM = JobSpec(
    name="sums",
    check="unverified",
    image=Image("base", b"\x07" * 32, "python"),
    argv=("true",),
    resources=Resources(time_s=60),
)


def job(world: World) -> Job:
    assert world.desk is not None
    return next(iter(world.desk.machine.jobs.values()))


def of(world: World, kind: type[E]) -> list[E]:
    return [event for event in world.history if isinstance(event, kind)]


def outcomes(world: World) -> list[DemandOutcome]:
    return [DemandOutcome(it.outcome) for it in world.history if isinstance(it, events.DemandEnded)]


def money(world: World, name: str) -> int:
    return world.balance(key(name).address) + world.balance(key(name + " hot").address)


def check_money(world: World) -> None:
    """Nothing is left in contracts but stake and what vests; the account was charged what the chain says, once."""
    assert world.balance(AT.deliveries) == world.balance(AT.audits) == 0
    assert world.credit == CREDIT - sum(world.charged.values())
    assert not world.till.tabs.open
    for lease, closed in world.closed.items():
        cost = next(cost for (_, item), cost in world.charged.items() if item == lease)
        if closed.reason == CloseReason.WITHHELD:
            assert closed.paid == 0
            assert cost <= 100, "an audit's fee at most"


@pytest.mark.parametrize("spec", [MODULE, PROGRAM])
@pytest.mark.parametrize("seed", range(6))
def test_who_withholds_from_everyone_is_convicted(seed: int, spec: JobSpec) -> None:
    """Committed to right states and handed over to nobody: the money comes back, the stake is gone, another does the work."""
    world = World(
        seed,
        {"ann": honest, "bob": honest},
        desk=True,
        hands=lambda provider, to: provider != "ann",
        crash=0.01 if seed else 0.0,
        loss=0.1 if seed else 0.0,
    )
    before = money(world, "gate")
    world.submit(JobArray(spec), Wishes(retries=1, replicas=2))
    world.settle()
    assert world.slashed == [key("ann").address]
    assert outcomes(world) == [DemandOutcome.UNDELIVERED]
    done = [slot for slot in job(world).slots if slot.here and slot.closed is not None]
    assert {slot.terms.provider for slot in done if slot.terms} == {key("bob").address}
    assert money(world, "gate") == before - sum(world.charged.values())
    check_money(world)


@pytest.mark.parametrize("seed", range(6))
def test_who_withholds_from_the_requester_only_serves_it_over_the_panel(seed: int) -> None:
    """Members got the outputs and pass them on: the requester has them, and the bond is gone."""
    world = World(
        seed,
        {"ann": honest},
        desk=True,
        hands=lambda provider, to: to != "gate",
        crash=0.01 if seed else 0.0,
        loss=0.1 if seed else 0.0,
    )
    before = money(world, "gate")
    world.submit(JobArray(PROGRAM))
    world.settle()
    (slot,) = job(world).slots
    assert slot.here
    assert slot.closed is not None
    assert CloseReason(slot.closed.reason) is CloseReason.COMPLETED
    assert not world.slashed
    assert outcomes(world) == [DemandOutcome.DELIVERED]
    assert not of(world, events.UndeliveredReported)
    assert money(world, "gate") == before - BOND - sum(world.charged.values())
    check_money(world)


@pytest.mark.parametrize("spec", [MODULE, PROGRAM])
@pytest.mark.parametrize("seed", range(6))
def test_a_false_output_over_right_states_is_convicted(seed: int, spec: JobSpec) -> None:
    """What was committed to isn't what the last state gives: every member sees it, long before the deadline."""
    world = World(
        seed,
        {"ann": honest},
        desk=True,
        lists=lambda states: Digest(keccak(b"false" + states[-1])),
        crash=0.01 if seed else 0.0,
        loss=0.1 if seed else 0.0,
    )
    before = money(world, "gate")
    world.submit(JobArray(spec))
    world.settle()
    assert world.slashed == [key("ann").address]
    assert outcomes(world) == [DemandOutcome.UNDELIVERED]
    assert money(world, "gate") == before - sum(world.charged.values())
    assert job(world).slots[0].over is not None
    check_money(world)


@pytest.mark.parametrize("seed", range(6))
def test_who_was_served_and_demands_loses_the_bond(seed: int) -> None:
    """A requester that demands what it has: the provider keeps its pay and gets the bond, nobody is accused."""
    world = World(seed, {"ann": honest}, crash=0.01 if seed else 0.0, loss=0.1 if seed else 0.0)
    villain = key("gate hot").address
    world.must(calls.Approve(AT.deliveries, MOST), villain)
    lease = world.lease("ann")
    before = money(world, "ann")
    for _ in range(300):
        world.turn()
        if lease in world.closed:
            break
        if of(world, events.LeaseCommitted) and not of(world, events.DeliveryDemanded):
            world.must(calls.DemandDelivery(lease), villain)
    world.run()
    assert world.reason(lease) is CloseReason.COMPLETED
    assert outcomes(world) == [DemandOutcome.DELIVERED]
    assert not of(world, events.UndeliveredReported)
    assert not world.slashed
    kept = world.chain.leases.vested(key("ann").address).amount
    assert money(world, "ann") == before + BOND + world.closed[lease].paid - kept
    assert world.balance(AT.deliveries) == 0


def test_one_liar_of_three_decides_nothing() -> None:
    """A member that reports what it was served, alone, changes nothing."""
    world = World(3, {"ann": honest}, desk=True, hands=lambda provider, to: to not in ("gate", "val"))
    world.submit(JobArray(PROGRAM))
    world.settle()
    assert len(of(world, events.UndeliveredReported)) == 1
    assert outcomes(world) == [DemandOutcome.DELIVERED]
    assert not world.slashed
    assert job(world).slots[0].here
    check_money(world)


def test_who_could_not_ask_says_nothing() -> None:
    """Members whose own links went down as soon as it was demanded accuse nobody, even of what is withheld."""
    world = World(6, {"ann": honest}, desk=True, hands=lambda provider, to: False)
    world.submit(JobArray(PROGRAM))
    while not of(world, events.DeliveryDemanded):
        world.settle(1)
    for auditor in world.auditors.values():
        auditor.hear(Unlinked(world.gateway.address))
    world.settle()
    assert not of(world, events.UndeliveredReported)
    assert outcomes(world) == [DemandOutcome.DELIVERED]
    assert job(world).slots[0].over == "it was paid, and its outputs never came"
    check_money(world)


def test_served_late_is_served() -> None:
    """A provider that hands over only once the panel looks loses nothing, and the requester has its outputs."""
    found: list[World] = []
    world = World(
        4,
        {"ann": honest},
        desk=True,
        hands=lambda provider, to: bool(of(found[0], events.DeliveryDemanded)),
    )
    found.append(world)
    world.submit(JobArray(PROGRAM))
    world.settle()
    assert job(world).slots[0].here
    assert not world.slashed
    check_money(world)


def test_unverified_work_is_closed_and_paid() -> None:
    """Nothing is audited and nobody says so on chain: the lease is closed when its window is over, and never called verified."""
    world = World(5, {"ann": honest}, desk=True)
    world.submit(JobArray(PROGRAM))
    world.settle(200)
    (slot,) = job(world).slots
    assert slot.closed is not None
    assert CloseReason(slot.closed.reason) is CloseReason.COMPLETED
    assert slot.here
    assert not slot.verified
    assert not outcomes(world)
    check_money(world)
