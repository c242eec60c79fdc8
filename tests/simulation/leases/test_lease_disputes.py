"""Disputes in virtual time: the real machines accuse, defend and judge, with crashes and losses."""

from itertools import combinations
from random import Random

import pytest

from clusterai.ledger.core import events
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import CloseReason, DisputeReason
from tests.simulation.leases.world import AT, STAKE, UNITS, World, honest, key, skipper, state

PANEL = ("val", "vic", "vow", "wim", "wat")


def ended(world: World) -> list[events.DisputeEnded]:
    return [event for event in world.history if isinstance(event, events.DisputeEnded)]


@pytest.mark.parametrize("seed", range(8))
def test_a_skipper_that_serves_what_it_made_up_is_convicted_of_fraud(seed: int) -> None:
    """Two auditors come to other states; the first disputes, referees run the last step, the stake is gone."""
    world = World(seed, {"ann": skipper}, PANEL)
    lease = world.lease("ann")
    world.run()
    assert world.reason(lease) is CloseReason.FRAUD
    assert world.slashed == [key("ann").address]
    assert [(one.winner != key("ann").address, one.reason) for one in ended(world)] == [
        (True, DisputeReason.REFEREES)
    ]
    assert sum(isinstance(event, events.TraceAsserted) for event in world.history) == 3
    assert world.balance(AT.disputes) == world.balance(AT.audits) == 0


@pytest.mark.parametrize("liars", list(combinations(PANEL, 2)))
def test_a_false_accuser_loses_its_bond(liars: tuple[str, str]) -> None:
    """Whoever accuses an honest provider pays it both bonds, and the work is paid; some pair of liars is drawn first."""

    def lies(name: str, spec: bytes, segment: int) -> Digest:
        return Digest(keccak(b"lie")) if name in liars else state(spec, segment)

    world = World(1, {"ann": honest}, PANEL, computes=lies)
    before = {name: world.balance(key(name + " hot").address) for name in PANEL}
    lease = world.lease("ann")
    world.run()
    assert world.reason(lease) is CloseReason.COMPLETED
    assert not world.slashed
    auditors = [event for event in world.history if isinstance(event, events.AuditorDrawn)]
    assert bool(ended(world)) == (auditors[0].auditor in [key(name).address for name in liars])
    for one in ended(world):
        assert (one.winner, one.reason) == (key("ann").address, DisputeReason.REFEREES)
    for one in world.history:
        if isinstance(one, events.DisputeOpened):
            liar = next(name for name in PANEL if key(name).address == one.accuser)
            assert liar in liars
            # A tenth of the provider's stake for the audit, and again for the dispute.
            assert world.balance(key(liar + " hot").address) == before[liar] - 2 * STAKE // 10
    assert world.balance(AT.disputes) == world.balance(AT.audits) == 0


@pytest.mark.parametrize("seed", range(8))
def test_crashes_and_loss_change_no_verdict(seed: int) -> None:
    """Everyone dies between any two effects and a fifth of the frames is lost: the cheat loses, the honest one is paid."""
    world = World(seed, {"ann": skipper, "bob": honest}, PANEL, crash=0.01, loss=0.2)
    cheat, right = world.lease("ann", "one"), world.lease("bob", "two")
    world.run(900)
    assert world.reason(right) is CloseReason.COMPLETED
    assert world.reason(cheat) in (CloseReason.FRAUD, CloseReason.WITHHELD)
    assert world.slashed == [key("ann").address]
    assert world.balance(AT.disputes) == world.balance(AT.audits) == 0


@pytest.mark.parametrize(("is_passed_on", "levels"), [(True, [0]), (False, [0, 1, 2])])
@pytest.mark.parametrize("seed", range(4))
def test_a_cheat_that_hides_from_referees_is_convicted(
    seed: int, is_passed_on: bool, levels: list[int]
) -> None:
    """It served its auditors and nobody since: they hand it on to the referees. Where they don't, two committees pass the dispute on,
    then two thirds of the panel's stake say so."""
    worlds: list[World] = []

    def serves(_: str) -> bool:
        return not any(isinstance(event, events.DisputeOpened) for event in worlds[0].history)

    world = World(
        seed,
        {"ann": skipper},
        PANEL,
        serves=serves,
        passes=lambda _, shown: shown if is_passed_on else None,
    )
    worlds.append(world)
    lease = world.lease("ann")
    world.run()
    assert [event.level for event in world.history if isinstance(event, events.RefereesDrawn)] == levels
    assert world.reason(lease) is CloseReason.FRAUD
    assert world.slashed == [key("ann").address]


@pytest.mark.parametrize("seed", range(3))
def test_a_cheat_that_serves_one_half_of_the_panel_is_convicted(seed: int) -> None:
    """The other half is served nothing, so neither has two thirds: not to report it, and not to say what is right."""
    panel = tuple(f"val-{n}" for n in range(20))
    served = Random(seed).sample(panel, 10)
    world = World(seed, {"ann": skipper}, panel, shows=lambda name: name in served)
    lease = world.lease("ann")
    world.run(2_000)
    assert world.reason(lease) is CloseReason.FRAUD
    assert world.slashed == [key("ann").address]


def last_clock(world: World) -> int:
    """When the time of whoever has to run something is over."""
    for event in reversed(world.history):
        match event:
            case events.AuditorDrawn():
                return event.commit_by_s
            case events.WithheldReported():
                return event.report_by_s
            case events.RefereesDrawn():
                return event.seal_by_s
            case _:
                pass
    return 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("judges", [False, True])
def test_a_cheat_that_serves_in_the_last_seconds_is_convicted(seed: int, judges: bool) -> None:
    """Auditors and referees need ten seconds for a segment; who is served eight before its clock ends was served nothing."""
    worlds: list[World] = []

    def shows(_: str) -> bool:
        disputed = any(isinstance(event, events.DisputeOpened) for event in worlds[0].history)
        return (judges and not disputed) or worlds[0].now_s >= last_clock(worlds[0]) - 8

    panel = tuple(f"val-{n}" for n in range(64))
    world = World(seed, {"ann": skipper}, panel, shows=shows, takes_s=10)
    worlds.append(world)
    lease = world.lease("ann")
    world.run(2_000)
    assert world.reason(lease) in (CloseReason.FRAUD, CloseReason.WITHHELD)
    assert world.slashed == [key("ann").address]


@pytest.mark.parametrize("seed", range(4))
def test_where_the_first_accuser_is_gone_the_second_accuses(seed: int) -> None:
    """Each was ready to lose its bond by keeping silent; the second's half of the clock is enough for it."""
    world = World(seed, {"ann": skipper}, PANEL)
    lease = world.lease("ann")
    while not any(isinstance(event, events.AuditContested) for event in world.history):
        world.turn()
    first, second = [event.auditor for event in world.history if isinstance(event, events.AuditorDrawn)]
    del world.auditors[next(name for name in PANEL if key(name).address == first)]
    world.run()
    assert [one.accuser for one in world.history if isinstance(one, events.DisputeOpened)] == [second]
    assert world.reason(lease) is CloseReason.FRAUD
    assert world.slashed == [key("ann").address]


def test_a_provider_that_falls_silent_loses_by_its_clock() -> None:
    """Caught and gone: nobody waits for it longer than for one move."""
    world = World(2, {"ann": skipper}, PANEL)
    lease = world.lease("ann")
    while not any(isinstance(event, events.DisputeOpened) for event in world.history):
        world.turn()
    world.books.clear()
    world.run()
    assert world.reason(lease) is CloseReason.FRAUD
    assert [one.reason for one in ended(world)] == [DisputeReason.TIMEOUT]


def late(start: bytes, end: Digest, point: int) -> Digest:
    """A liar's trace: as everyone else's up to the last unit."""
    return end if point == UNITS else Digest(keccak(b"true so far" + start))


@pytest.mark.parametrize("seed", range(4))
def test_a_trace_that_is_true_to_the_last_step_costs_no_time(seed: int) -> None:
    """Assertions that begin with the same states are made one after the other, each in the block after its selection."""
    world = World(seed, {"ann": skipper}, PANEL, within=late)
    lease = world.lease("ann")
    world.run()
    assert world.reason(lease) is CloseReason.FRAUD
    moves = [one for one in world.history if isinstance(one, (events.TraceAsserted, events.Block))]
    asserted = [at for at, one in enumerate(moves) if isinstance(one, events.TraceAsserted)]
    assert len(asserted) == 3
    assert asserted[-1] - asserted[0] <= 2 * 5, "blocks, and the assertions among them"


@pytest.mark.parametrize("seed", range(8))
def test_a_machine_that_fails_now_and_then_loses_nothing(seed: int) -> None:
    """A third of all runs for a dispute fail; whoever asked for one tries again within its clock."""
    chance = Random(seed)
    world = World(seed, {"ann": skipper}, PANEL, breaks=lambda _: chance.random() < 1 / 3)
    lease = world.lease("ann")
    world.run()
    assert world.reason(lease) is CloseReason.FRAUD
    assert [one.reason for one in ended(world)] == [DisputeReason.REFEREES]
