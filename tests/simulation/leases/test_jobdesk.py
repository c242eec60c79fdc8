"""Jobs at a gateway's desk, over the real books, auditors and contracts: charged what they cost, once, or nothing."""

import pytest

from clusterai.gateway.core.jobstate import Cancel, Job, Slot
from clusterai.ledger.core.calls import Approve
from clusterai.ledger.core.lease_calls import CancelLease
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.protocol.jobs import Done, LeaseRefused
from clusterai.protocol.leases import CloseReason
from clusterai.runtime.machine import Received
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import Image, JobArray, JobSpec, Resources
from tests.simulation.leases.world import CREDIT, SEGMENTS, World, honest, key, skipper

SPEC = JobSpec(
    name="sums",
    check="wasm",
    image=Image("wasm", b"\x07" * 32),
    segments=SEGMENTS,
    fuel=SEGMENTS,
    resources=Resources(time_s=60),
)


def job(world: World) -> Job:
    assert world.desk is not None
    return next(iter(world.desk.machine.jobs.values()))


def spent(world: World) -> int:
    return sum(world.charged.values())


def test_a_job_is_done_and_charged() -> None:
    """Placed, accepted, done, fetched, closed: the account pays what the chain says that it cost."""
    world = World(1, {"ann": honest}, desk=True)
    world.submit(JobArray(SPEC))
    world.settle()
    (slot,) = job(world).slots
    assert slot.closed is not None
    assert CloseReason(slot.closed.reason) is CloseReason.COMPLETED
    assert slot.here
    assert slot.segment == SEGMENTS
    assert spent(world) > 0
    assert world.credit == CREDIT - spent(world)
    assert not world.till.tabs.open


@pytest.mark.parametrize("seed", range(12))
def test_crashes_and_loss_lose_nothing(seed: int) -> None:
    """Everybody dies between any two effects and frames are lost: each task has its result, and is charged once."""
    world = World(seed, {"ann": honest, "bob": honest}, crash=0.02, loss=0.3, desk=True)
    world.submit(JobArray(SPEC), Wishes(replicas=2, retries=2))
    world.settle()
    done = [slot for slot in job(world).slots if slot.closed is not None and slot.here]
    assert [CloseReason(slot.closed.reason) for slot in done if slot.closed] == [CloseReason.COMPLETED] * 2
    assert {slot.terms.provider for slot in done if slot.terms} == {key("ann").address, key("bob").address}
    assert world.credit == CREDIT - spent(world)
    assert len(world.charged) == len({lease for _, lease in world.charged})


def test_a_cheat_is_replaced_and_not_paid() -> None:
    """The first provider hides what it made up; the second does the work, and only that is charged."""
    world = World(5, {"ann": skipper, "bob": honest}, desk=True, serves=lambda name: name != "ann")
    world.submit(JobArray(SPEC), Wishes(retries=1))
    world.settle()
    (slot,) = job(world).slots
    assert slot.closed is not None
    assert CloseReason(slot.closed.reason) is CloseReason.COMPLETED
    assert slot.terms is not None
    assert world.slashed == [key("ann").address]
    assert slot.terms.provider == key("bob").address
    assert sorted(world.charged.values()) == [0, spent(world)]
    assert world.credit == CREDIT - spent(world)


def test_what_nobody_can_take_is_refused_with_the_plan() -> None:
    """The answer says why, and nothing is held."""
    world = World(6, {"ann": honest}, desk=True)
    world.submit(JobArray(SPEC), Wishes(replicas=3))
    world.settle(3)
    assert world.answers[-1] == (None, "not-placed")
    assert not world.till.tabs.open


def test_too_little_credit_is_refused() -> None:
    """Nothing is opened on chain for an account that can't pay."""
    world = World(7, {"ann": honest}, desk=True)
    world.till.account(ZERO_DIGEST).funded_wei = 0
    world.submit(JobArray(SPEC))
    world.settle(5)
    assert world.answers[-1] == (None, "insufficient_credit")
    assert not world.charged


@pytest.mark.parametrize("seconds", [5, 20, 60, 120])
def test_a_snapshot_is_the_whole_desk(seconds: int) -> None:
    """Compacted at any moment, the journal restores to the same jobs, and the work goes on to its end."""
    world = World(8, {"ann": skipper, "bob": honest}, desk=True, serves=lambda name: name != "ann")
    world.submit(JobArray(SPEC), Wishes(retries=1))
    world.settle(seconds)
    assert world.desk is not None
    world.desk.journal = [canonical.encode(record) for record in world.desk.machine.snapshot()]
    world.desk.restart()
    world.settle()
    (slot,) = job(world).slots
    assert slot.closed is not None
    assert CloseReason(slot.closed.reason) is CloseReason.COMPLETED
    assert world.credit == CREDIT - spent(world)
    assert not world.till.tabs.open


def test_a_cancelled_job_costs_what_it_took() -> None:
    """Cancelled while it runs: the chain says what that costs, the rest is credit again, and nothing is tried anew."""
    world = World(9, {"ann": honest}, desk=True)
    world.submit(JobArray(SPEC), Wishes(retries=3))
    world.settle(4)
    assert world.desk is not None
    world.desk.hear(Cancel(job(world).id))
    world.settle()
    (slot,) = job(world).slots
    assert slot.over == "cancelled" or (
        slot.closed is not None and slot.closed.reason == CloseReason.COMPLETED
    )
    assert world.credit == CREDIT - spent(world)
    assert not world.till.tabs.open


def opened(world: World) -> Slot:
    """A lease that the desk knows to be open, and not yet to be accepted."""
    world.submit(JobArray(SPEC))
    for _ in range(60):
        if job(world).slots[0].opened:
            break
        world.turn()
    (slot,) = job(world).slots
    assert slot.opened
    assert not slot.accepted
    return slot


def test_done_before_the_desk_heard_that_it_was_accepted() -> None:
    """A provider may be faster than the chain's news: its work isn't cancelled for that."""
    world = World(11, {"ann": honest}, desk=True)
    slot = opened(world)
    assert world.desk is not None
    assert slot.lease is not None
    assert slot.terms is not None
    states = honest(SPEC.canonical())
    world.desk.hear(
        Received(
            key("ann").address, Done(slot.lease, states[-1], SEGMENTS, slot.terms.compensation_wei, 0, "")
        )
    )
    world.settle()
    assert slot.closed is not None
    assert CloseReason(slot.closed.reason) is CloseReason.COMPLETED
    assert spent(world) > 0


def test_accepting_what_one_refused_earns_no_cancellation() -> None:
    """The desk cancels what is refused only while that is free; who accepts it all the same has to do it."""
    cancels: list[CancelLease] = []

    def lets(_: str, call: object) -> bool:
        if isinstance(call, CancelLease):
            cancels.append(call)
        return not isinstance(call, CancelLease)

    world = World(12, {"ann": honest}, desk=True, lets=lets)
    slot = opened(world)
    assert world.desk is not None
    assert slot.lease is not None
    world.desk.hear(Received(key("ann").address, LeaseRefused(slot.lease, "full", "no room")))
    world.settle()
    assert cancels
    assert not any(call.even_accepted for call in cancels)
    assert slot.closed is not None
    assert CloseReason(slot.closed.reason) is CloseReason.COMPLETED


@pytest.mark.parametrize("seconds", range(8))
def test_cancelled_before_anyone_accepts_costs_nothing(seconds: int) -> None:
    """Whether the lease is opened, on its way or not even asked for: all of it is credit again."""
    world = World(10, {"ann": honest}, desk=True, loss=1.0)
    world.submit(JobArray(SPEC))
    world.settle(seconds)
    assert world.desk is not None
    world.desk.hear(Cancel(job(world).id))
    world.settle()
    assert spent(world) == 0
    assert world.credit == CREDIT
    assert not world.till.tabs.open


def test_cancelled_before_the_chain_was_asked_is_over_at_once() -> None:
    """The gateway's first lease waits for its allowance; cancelled meanwhile it never is, and nobody waits for its time."""
    world = World(13, {"ann": honest}, desk=True, lets=lambda _, call: not isinstance(call, Approve))
    world.submit(JobArray(SPEC))
    while job(world).slots[0].lease is None:
        world.turn()
    (slot,) = job(world).slots
    assert slot.unasked
    assert slot.terms is not None
    assert world.desk is not None
    world.desk.hear(Cancel(job(world).id))
    world.settle(5)
    assert job(world).ended
    assert world.now_s < slot.terms.start_by_s
    assert slot.closed is not None
    assert CloseReason(slot.closed.reason) is CloseReason.CANCELLED_BEFORE_START
    assert world.credit == CREDIT
    assert not world.till.tabs.open
