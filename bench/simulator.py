"""The simulator: machine steps a second and seeds a minute, `python bench/simulator.py [--seeds 30] [--profile]`.

1. Toys: two machines that do next to nothing, so that what remains is the simulator itself: heap, links, codec, journal,
   digest.
2. A quiet network of a gateway, two providers, three validators and three clients over the twin chain, with all
   checkers; and the same under all faults.
3. With `--profile`, where the time of 2. goes, by room.

Beside the clock stands processor time, which other work on the machine changes less. The peer is our own first prototype:
23,000 steps/s, without checkers.
"""

# ruff: noqa: E402 - the tests' own worlds are run here too, from the repository's root
import argparse
import cProfile
import os
import platform
import pstats
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

from clusterai.runtime.simulator import Faults, Simulation
from tests.rooms.runtime.simulator.toys import TELLER, VAULT, Teller, Toys, Vault
from tests.simulation.play import play
from tests.simulation.scenarios.catalogue import SCENARIOS

PEER_STEPS_S = 23_000


def toys() -> int:
    """Steps of a teller that pays notes for 300 virtual seconds."""
    simulation = Simulation(1, Faults(), frames=Toys)
    teller = simulation.spawn("teller", TELLER, lambda: Teller(10**9))
    vault = simulation.spawn("vault", VAULT, Vault)
    simulation.network.dial(teller, vault)
    simulation.begin()
    simulation.run(300)
    return simulation.steps


def network(name: str, seeds: int) -> int:
    return sum(play(name, SCENARIOS[name], seed)[0].simulation.steps for seed in range(seeds))


def measured(what: str, seeds: int, run: Callable[[], int]) -> None:
    clock, processor = time.perf_counter(), time.process_time()
    steps = run()
    clock_s, processor_s = time.perf_counter() - clock, time.process_time() - processor
    print(
        f"{what:<28} {steps:>9,} steps  {steps / clock_s:>8,.0f}/s  {steps / processor_s:>8,.0f} per processor second "
        f"= {steps / processor_s / PEER_STEPS_S:.1f} x the prototype"
        + (f"  {60 * seeds / clock_s:,.0f} seeds/min ({60 * seeds / processor_s:,.0f})" if seeds else "")
    )


def by_room(run: Callable[[], int]) -> None:
    """Own time of all functions, summed by the folder that they stand in."""
    profile = cProfile.Profile()
    profile.runcall(run)
    rooms: dict[str, float] = defaultdict(float)
    own: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = vars(pstats.Stats(profile))["stats"]
    for (path, _, _), (_, _, own_s, _, _) in own.items():
        inside = next((part for part in ("clusterai/", "tests/simulation/") if part in path), None)
        at = "built-in and libraries"
        if inside is not None:
            at = "/".join((inside + path.split(inside, 1)[1]).split("/")[:3]).removesuffix(".py")
        rooms[at] += own_s
    total_s = sum(rooms.values())
    for room, own_s in sorted(rooms.items(), key=lambda it: -it[1]):
        print(f"    {own_s / total_s:6.1%}  {room}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()
    load = ", ".join(f"{it:.1f}" for it in os.getloadavg())
    print(
        f"{platform.machine()}, {os.cpu_count()} processors (one used), Python {platform.python_version()}, load {load}"
    )
    network("happy", 1)
    measured("toys", 0, toys)
    measured("network, no faults", chosen.seeds, lambda: network("happy", chosen.seeds))
    measured("network, all faults", chosen.seeds, lambda: network("all-faults", chosen.seeds))
    if chosen.profile:
        by_room(lambda: network("all-faults", max(1, chosen.seeds // 10)))


if __name__ == "__main__":
    main()
