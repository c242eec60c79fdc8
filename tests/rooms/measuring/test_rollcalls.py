"""Roll-call on the machines: one device under two owners' names is missing at it, and no other is."""

from typing import Any

import pytest

from clusterai.protocol.ids import Digest
from clusterai.protocol.measuring import Multiply, decode_findings
from clusterai.protocol.offers import decode_measurement
from clusterai.validator.core import measurer
from clusterai.validator.core.measurer import READY_S, ROLL_EVERY_S, Told
from tests.rooms.measuring.machine_played import Played, claims
from tests.rooms.measuring.measured_world import World


class Shared(Played):
    """One device that answers for two names: it does both at once, each half as fast, where their calls overlap."""

    world: World
    calls: list[list[float]]

    def multiplied(self, seed: Digest, test: Multiply) -> tuple[Any, float]:
        result, took_s = super().multiplied(seed, test)
        now_s = self.world.now_s
        overlaps = any(
            abs(now_s - began_s) < took_s
            for other in self.calls
            if other is not self.mine
            for began_s in other
        )
        self.mine.append(now_s)
        return result, 2 * took_s if overlaps else took_s

    mine: list[float]


def roll(world: World, turn: int) -> None:
    """The next quarter of a day begins with a beacon."""
    world.now_s += ROLL_EVERY_S
    world.beacon(f"roll {turn}".encode())
    world.run(READY_S + 20)


def came(world: World) -> list[str]:
    return [it.detail.split(",")[0] for one in world.validators for it in one.told if it.what == "called"]


def slow(machine: Played) -> Played:
    """Its products take 0.1 s, so that a call is longer than clocks differ."""
    machine.mops_per_s = 2 * 16**3 * 6 / 10**6 / 4
    return machine


def test_machines_that_are_there_answer_when_all_are_called() -> None:
    """Two owners, two devices; each call is by one validator."""
    world = World(1, [slow(Played(claims())), slow(Played(claims()))])
    world.beacon()
    world.run(60)
    for turn in range(3):
        roll(world, turn)
    assert came(world) == ["in time"] * 6
    assert all(it.missed == 0 for it in world.validators[0].measurer.timed.values())


def test_one_device_sold_twice_loses_its_cores() -> None:
    """Examined alone each name is fine; called together one of them is late, and after three calls in a row has nothing to sell."""
    machines = [Shared(claims()), Shared(claims())]
    lines: list[list[float]] = [[], []]
    world = World(1, [slow(it) for it in machines])
    for machine, mine in zip(machines, lines, strict=True):
        machine.world, machine.calls, machine.mine = world, lines, mine
    second = world.nodes[1].owner.address
    world.linked.discard(second)
    world.beacon()
    world.run(60)
    world.linked.add(second)
    world.run(120)
    assert [decode_measurement(it.measurement).cpu_milli for _, it in world.measured] == [2_000, 2_000]
    for turn in range(3):
        roll(world, turn)
    assert came(world).count("missing") >= 3
    last = world.measured[-1][1]
    assert decode_measurement(last.measurement).cpu_milli == 0
    assert any(it.name == "roll_calls_missed" for it in decode_findings(last.findings).found)


def test_a_machine_that_is_not_free_is_not_missing() -> None:
    """Rented or away, it isn't called: its offer doesn't stand then either."""
    world = World(1, [slow(Played(claims()))])
    world.beacon()
    world.run(60)
    world.nodes[0].engaged = "it is rented"
    roll(world, 1)
    world.linked.clear()
    roll(world, 2)
    assert came(world) == []
    assert all(isinstance(it, Told) for it in world.validators[0].told)
    assert world.validators[0].measurer.timed[world.nodes[0].owner.address].missed == 0


def test_of_too_many_machines_the_next_ones_are_called_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is left out for good because others were timed before it."""
    monkeypatch.setattr(measurer, "MOST_CALLED", 2)
    world = World(1, [slow(Played(claims())) for _ in range(3)])
    world.beacon()
    world.run(90)
    for turn in range(3):
        roll(world, turn)
    called = [it.owner for it in world.validators[0].told if it.what == "called"]
    assert sorted(called) == sorted(2 * [it.owner.address for it in world.nodes])
