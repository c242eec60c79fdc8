"""Traps for auditors who copy, with real desks, books and auditors: who falls in, who is paid, and whom nobody can harm by them."""

from collections.abc import Callable
from typing import Any

import pytest

from clusterai.gateway.core.jobbait import Tally
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import SpringTrap
from clusterai.ledger.core.twin import Refused
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import CloseReason
from clusterai.work.batch.spec import JobArray
from tests.simulation.leases.test_jobdesk import SPEC, spent
from tests.simulation.leases.world import AT, CREDIT, STAKE, World, honest, key, skipper

ALWAYS = 1_000_000
PANEL = ("val", "vic", "vow")
ANN = key("ann").address


def tally(world: World) -> Tally:
    assert world.desk is not None
    found: Tally = world.desk.machine.planting.tally()
    return found


def sprung(world: World) -> list[events.TrapSprung]:
    return [event for event in world.history if isinstance(event, events.TrapSprung)]


def is_even(world: World) -> bool:
    """Nothing is left with the contracts, and nobody has it twice."""
    return not any(world.balance(at) for at in (AT.leases, AT.audits, AT.disputes, AT.deliveries))


def tried(name: str, kind: type) -> Callable[[str, Any], bool]:
    """Everyone's calls are heard of, but these of one."""

    def lets(who: str, call: Any) -> bool:
        return who != name or not isinstance(call, kind)

    return lets


def everyone(_: str) -> bool:
    return True


def planted(seed: int, **how: Any) -> World:
    """A job with bait beside it."""
    world = World(seed, {"ann": honest, "bob": honest}, desk=True, bait_ppm=ALWAYS, **how)
    world.submit(JobArray(SPEC))
    return world.settle()


@pytest.mark.parametrize("seed", range(8))
def test_honest_auditors_are_paid_for_bait_that_they_run(seed: int) -> None:
    """They say what they came to; the trap is sprung, nobody is slashed or disputed, and the account is charged for its job alone."""
    world = planted(seed)
    (closed,) = sprung(world)
    assert not any(closed.lazy)
    assert not world.slashed
    assert not any(isinstance(event, events.DisputeOpened) for event in world.history)
    found = tally(world)
    assert (found.planted, found.open, found.drawn, found.caught) == (1, 0, 1, 0)
    revealed = [event for event in world.history if isinstance(event, events.AuditRevealed)]
    fee = next(iter(world.desk.machine.planting.plants.values())).planted.terms.audit_fee_wei  # type: ignore[union-attr]
    assert found.cost_wei == (fee if any(it.lease == closed.lease for it in revealed) else 0)
    assert world.credit == CREDIT - spent(world)
    assert is_even(world)


@pytest.mark.parametrize("seed", range(12))
def test_crashes_and_loss_plant_nothing_twice(seed: int) -> None:
    """Everybody dies between any two effects and frames are lost: all bait is closed once, and nobody is convicted of it."""
    world = planted(seed, crash=0.02, loss=0.2)
    assert not world.slashed
    assert tally(world).planted <= 1
    assert tally(world).open == 0
    assert is_even(world)


@pytest.mark.parametrize("seed", range(8))
def test_who_copies_loses_its_stake_and_its_bond(seed: int) -> None:
    """Wherever the drawn segment ends in bait; elsewhere nothing is served, and so nothing is copied."""
    world = planted(seed, copies=everyone)
    (closed,) = sprung(world)
    assert len(world.slashed) == tally(world).caught <= 1
    if world.slashed:
        assert closed.lazy == world.slashed[0]
        assert world.slashed[0] in [key(name).address for name in PANEL]
        assert world.chain.registry.participant(world.slashed[0]).stake == 0
    assert is_even(world)


def test_some_copier_is_caught_and_some_bait_is_called_off() -> None:
    """The secret decides which half of the segments is bait: over seeds both are seen."""
    caught = [tally(planted(seed, copies=everyone)).caught for seed in range(8)]
    assert 0 < sum(caught) < len(caught)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("silent", ["gate", "ann"])
def test_either_of_the_two_springs_it(seed: int, silent: str) -> None:
    """A gateway that is down, or a planter that never springs, convicts nobody; nor does a provider that leaves it to the gateway."""
    world = World(seed, {"ann": honest}, desk=True, bait_ppm=ALWAYS, lets=tried(silent, SpringTrap))
    world.submit(JobArray(SPEC))
    world.settle()
    revealed = {event.lease for event in world.history if isinstance(event, events.AuditRevealed)}
    bait = next(iter(world.desk.machine.planting.plants))  # type: ignore[union-attr]
    if silent == "gate" or bait in revealed:
        assert not world.slashed
        assert [event.lease for event in sprung(world)] == [bait]
        assert is_even(world)


@pytest.mark.parametrize("seed", range(6))
def test_one_auditor_who_accuses_at_once_convicts_nobody(seed: int) -> None:
    """With nobody to hear besides, the dispute may begin with the reveal; the trap is sprung in it, and bonds go back."""
    world = World(seed, {"ann": honest}, ("val",))
    lease = world.plant("ann")
    world.run()
    assert world.reason(lease) is CloseReason.CANCELLED
    assert not world.slashed
    for _ in range(60):
        world.turn()
    assert is_even(world)


@pytest.mark.parametrize("panel", [("val",), PANEL])
def test_bonds_come_back_from_a_dispute_about_bait(panel: tuple[str, ...]) -> None:
    """Whoever accused in good faith has all of it back, however late the trap was sprung."""
    worlds: list[World] = []

    def lets(_: str, call: Any) -> bool:
        history = worlds[0].history if worlds else []
        disputed = any(isinstance(event, events.DisputeOpened) for event in history)
        return disputed or not isinstance(call, SpringTrap)

    seen = 0
    for seed in range(4):
        world = World(seed, {"ann": honest}, panel, lets=lets)
        worlds[:] = [world]
        lease = world.plant("ann", f"bait {seed}")
        world.run()
        assert lease in world.closed
        for _ in range(90):
            world.turn()
        if any(isinstance(event, events.DisputeOpened) for event in world.history):
            seen += 1
            assert world.reason(lease) is CloseReason.CANCELLED
            assert not world.slashed
        assert world.balance(AT.disputes) == world.balance(AT.audits) == 0
    assert seen


def test_bait_that_is_not_drawn_is_paid_like_work() -> None:
    """A provider with a history is rarely drawn: what it committed to without running anything is its pay."""
    world = World(3, {"ann": honest})
    world.chain.world.store.put(("valid_in_a_row", ANN), 10**9)
    before = world.balance(ANN)
    closed: list[CloseReason] = []
    for n in range(6):
        lease = world.plant("ann", f"bait {n}")
        world.run()
        closed.append(world.reason(lease))
        world.terms.clear()
    paid = closed.count(CloseReason.COMPLETED)
    assert set(closed) <= {CloseReason.COMPLETED, CloseReason.CANCELLED}
    assert paid > 0
    assert world.balance(ANN) > before
    assert world.balance(ANN) + world.chain.leases.vested(ANN).amount == before + paid * 2_800


def test_bait_is_committed_when_work_would_have_been() -> None:
    """Not at once, though it is there at once."""
    world = World(4, {"ann": honest})
    lease = world.plant("ann")
    at: dict[str, int] = {}
    for _ in range(60):
        world.turn()
        for event in world.history:
            name = type(event).__name__
            if getattr(event, "lease", None) == lease:
                at.setdefault(name, int(world.now_s))
    assert 20 <= at["LeaseCommitted"] - at["LeaseAccepted"] <= 24


def test_a_secret_that_the_terms_do_not_hold_is_refused() -> None:
    """With it nothing could be sprung, and the provider would be convicted of its bait."""
    world = World(5, {"ann": honest})
    lease = world.plant("ann", told=keccak(b"another"))
    world.run()
    assert world.reason(lease) in (CloseReason.NOT_ACCEPTED, CloseReason.GAVE_UP)
    assert {it.code for it in world.refusals} == {"bait"}


@pytest.mark.parametrize("changes", [{"expected": b"\x01" * 32}, {"determinism": 0}, {"determinism": 2}])
def test_bait_that_could_not_be_played_is_refused(changes: dict[str, Any]) -> None:
    """What has an output to be expected, is never drawn, or has no state to run on from."""
    world = World(5, {"ann": honest})
    lease = world.plant("ann", **changes)
    world.run()
    assert world.reason(lease) in (CloseReason.NOT_ACCEPTED, CloseReason.GAVE_UP)
    assert {it.code for it in world.refusals} == {"bait"}


def test_who_is_not_willing_gets_none() -> None:
    """The gateway takes it back, and its job isn't touched."""
    world = planted(6, takes_bait=False)
    assert {it.code for it in world.refusals} == {"bait"}
    assert tally(world).cost_wei == 0
    assert tally(world).open == 0
    assert is_even(world)


def test_a_gateway_can_not_call_work_bait() -> None:
    """The terms hold a secret, but the work was done: only its provider could spring it, and it is paid."""
    world = World(7, {"ann": honest})
    lease = world.plant("ann")
    del world.baits[lease]
    secret = Digest(keccak(b"secret" + b"bait"))
    refused: set[str] = set()
    for _ in range(300):
        world.turn()
        if lease in world.closed:
            break
        found = world.execute(SpringTrap(world.terms[lease], secret), key("gate hot").address)
        assert isinstance(found, Refused)
        refused.add(found.reason)
    assert "NotTrap" in refused
    assert world.reason(lease) is CloseReason.COMPLETED
    assert not world.slashed


@pytest.mark.parametrize("wait_s", [0, 5])
def test_a_gateway_that_demands_the_outputs_of_bait_convicts_nobody(wait_s: int) -> None:
    """There are none; the provider calls the bait off, and its stake stays."""
    world = World(8, {"ann": honest})
    lease = world.plant("ann")
    for _ in range(100):
        world.turn()
        if any(isinstance(event, events.LeaseCommitted) for event in world.history):
            break
    for _ in range(wait_s):
        world.turn()
    world.must(calls.Approve(AT.deliveries, 10**9), key("gate hot").address)
    if lease not in world.closed:
        world.must(calls.DemandDelivery(lease), key("gate hot").address)
    world.run()
    assert world.reason(lease) is CloseReason.CANCELLED
    assert not world.slashed
    assert world.chain.registry.participant(ANN).stake == STAKE


@pytest.mark.parametrize("seed", range(4))
def test_fraud_under_bait_is_paid_by_who_planted_it_at_most(seed: int) -> None:
    """A provider that commits to anything else instead of bait is drawn and gets nothing; fraud on work is fraud."""

    class Sloppy(World):
        @staticmethod
        def _bait(raw: bytes, bait: Any) -> tuple[Digest, ...]:
            return tuple(skipper(raw)[: bait.segments + 1])

    world = Sloppy(seed, {"ann": honest, "bob": skipper})
    lease, fraud = world.plant("ann"), world.lease("bob")
    before = world.balance(ANN)
    world.run()
    assert world.reason(lease) is CloseReason.CANCELLED
    assert world.reason(fraud) is CloseReason.FRAUD
    assert world.slashed == [key("bob").address]
    assert world.balance(ANN) == before


def test_an_auditor_who_makes_things_up_is_no_copier() -> None:
    """What it says is not bait, so that a trap says nothing of it: that is what second auditors and disputes are for."""
    world = World(9, {"ann": honest}, computes=lambda name, spec, segment: Digest(keccak(b"anything")))
    lease = world.plant("ann")
    world.run()
    assert world.reason(lease) is CloseReason.CANCELLED
    assert not world.slashed
