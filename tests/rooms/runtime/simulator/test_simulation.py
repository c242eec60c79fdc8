"""The simulator finds what it is built to find, and repeats itself to the byte."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterai.runtime.machine import Save
from clusterai.runtime.simulator import Broken, Fault, Faults, Process, Simulation, shrink
from tests.rooms.runtime.simulator.toys import TELLER, VAULT, Teller, Toys, Vault

NOTES = 30


def build(seed: int, faults: Faults, careless: bool = False) -> tuple[Simulation, Process, Process]:
    simulation = Simulation(seed, faults, frames=Toys, command=f"toys --seed {seed}")
    teller = simulation.spawn("teller", TELLER, lambda: Teller(NOTES))
    vault = simulation.spawn("vault", VAULT, lambda: Vault(careless))
    simulation.network.dial(teller, vault)
    simulation.begin()
    return simulation, teller, vault


def paid(teller: Process) -> bool:
    return isinstance(teller.machine, Teller) and teller.machine.next == NOTES


def outcome(
    seed: int, kinds: tuple[Fault, ...] = tuple(Fault), careless: bool = False, share: float = 0.5
) -> tuple[bool, str]:
    """Whether the vault holds every note that was thanked for, and the digest."""
    simulation, teller, vault = build(seed, Faults.draw(seed, kinds, share), careless)
    simulation.run(60)
    simulation.heal()
    assert simulation.run(200, until=lambda: paid(teller)), simulation.broken("never finished")
    machine = vault.machine
    assert isinstance(machine, Vault), "healed processes live"
    return sorted(machine.notes) == list(range(NOTES)), simulation.digest()


def test_a_careful_vault_keeps_every_acknowledged_note_under_all_faults() -> None:
    """What was acknowledged is there, whatever goes wrong."""
    assert all(outcome(seed)[0] for seed in range(60))


def test_a_vault_that_thanks_before_it_saves_loses_a_note_in_some_seed() -> None:
    """A crash between two effects finds an answer that came before its save."""
    assert not all(outcome(seed, careless=True)[0] for seed in range(60))


def test_shrinking_leaves_the_one_kind_of_fault_that_matters() -> None:
    """Of all kinds, only crashes lose the careless vault's notes."""
    kinds = (Fault.LOSS, Fault.DELAY, Fault.CRASH, Fault.SKEW)

    def fails(fewer: tuple[Fault, ...]) -> bool:
        return not all(outcome(seed, fewer, careless=True, share=1)[0] for seed in range(60))

    assert shrink(kinds, fails) == (Fault.CRASH,)


def test_taking_a_kind_away_leaves_the_rates_of_the_others() -> None:
    """Each kind of fault draws from a stream of its own."""
    for seed in range(20):
        all_of_them = Faults.draw(seed)
        without = Faults.draw(seed, tuple(kind for kind in Fault if kind is not Fault.LOSS))
        assert without.crash_every_us == all_of_them.crash_every_us
        assert without.loss == 0


def test_equal_seeds_give_equal_digests_and_others_do_not() -> None:
    """A run is a function of its seed."""
    digests = [outcome(seed)[1] for seed in range(8)]
    assert digests == [outcome(seed)[1] for seed in range(8)]
    assert len(set(digests)) == 8


def test_digests_do_not_depend_on_the_hash_seed() -> None:
    """Equal seeds give equal digests under two values of PYTHONHASHSEED."""
    root = Path(__file__).parents[4]
    program = (
        "from tests.rooms.runtime.simulator.test_simulation import outcome\n"
        "print([outcome(seed)[1] for seed in range(4)])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{root / 'src'}:{root}"},
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]


def test_a_broken_run_says_how_to_repeat_it() -> None:
    """What an observer raises ends the run with the command that repeats it and the last steps."""

    class Grumbler:
        def stepped(self, process: Process, event: Any, effects: list[Any]) -> None:
            assert len(effects) < 2, "two effects are too many"

    simulation, _, _ = build(7, Faults())
    simulation.observers.append(Grumbler())
    with pytest.raises(Broken, match="two effects are too many") as caught:
        simulation.run(10)
    assert "toys --seed 7" in str(caught.value)
    assert "teller" in str(caught.value)


def test_a_machine_that_changes_without_a_save_is_found() -> None:
    """What a snapshot says must follow from the journal."""

    class Forgetful(Vault):
        def step(self, event: Any, now_s: float) -> list[Any]:
            return [effect for effect in super().step(event, now_s) if not isinstance(effect, Save)]

    faults = Faults.draw(1, (Fault.COMPACTION,), share=1)
    simulation = Simulation(1, faults, frames=Toys)
    teller = simulation.spawn("teller", TELLER, lambda: Teller(10_000))
    vault = simulation.spawn("vault", VAULT, Forgetful)
    simulation.network.dial(teller, vault)
    simulation.begin()
    with pytest.raises(Broken, match="vault changed without a Save"):
        simulation.run(100)


def test_every_kind_of_fault_is_drawn_by_some_seed() -> None:
    """No kind is forgotten, and some seed has none at all of most kinds."""
    drawn = [set(Faults.draw(seed).kinds) for seed in range(100)]
    assert set[Fault]().union(*drawn) == set(Fault)
    assert all(sum(kind in kinds for kinds in drawn) > 20 for kind in Fault)
