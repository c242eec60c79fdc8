"""Long campaigns and single seeds, from the command line.

python -m tests.simulation.run all-faults --seeds 1000 --start 0
python -m tests.simulation.run all-faults --start 7 --seeds 1 --trace      every step
python -m tests.simulation.run all-faults --start 7 --seeds 1 --shrink     which kinds of fault it takes
"""

import argparse
import sys
import time
from collections.abc import Sequence

from clusterai.runtime.simulator import Broken, Fault, Faults, shrink
from tests.simulation.play import play
from tests.simulation.scenarios.catalogue import SCENARIOS

NEARBY = 8
"""Seeds tried for each smaller set of faults: a run with one kind less is another run."""


def breaks(name: str, seed: int, kinds: tuple[Fault, ...]) -> int | None:
    """The first seed from `seed` on that breaks under these kinds of fault."""
    for other in range(seed, seed + NEARBY):
        try:
            play(name, SCENARIOS[name], other, kinds)
        except Broken:
            return other
    return None


def shrunk(name: str, seed: int, kinds: tuple[Fault, ...] | None) -> str:
    """The kinds of fault that the failure takes, and a command that shows it with them alone."""
    scenario = SCENARIOS[name]
    drawn = Faults.draw(seed, scenario.kinds if kinds is None else kinds, scenario.share).kinds
    needed = shrink(drawn, lambda fewer: breaks(name, seed, fewer) is not None)
    found = breaks(name, seed, needed)
    command = f"python -m tests.simulation.run {name} --start {found} --seeds 1 --faults {','.join(needed)}"
    return f"It takes {', '.join(needed) or 'no fault at all'}:\n    {command}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--faults", help="comma-separated kinds, instead of the scenario's")
    parser.add_argument("--shrink", action="store_true", help="find the kinds of fault that a failure takes")
    parser.add_argument("--trace", action="store_true", help="print every step")
    parser.add_argument("--keep-going", action="store_true", help="don't stop at the first failure")
    chosen = parser.parse_args(arguments)
    kinds = None if chosen.faults is None else tuple(Fault(it) for it in chosen.faults.split(",") if it)
    began = time.perf_counter()
    steps = failed = 0
    seed = chosen.start
    for seed in range(chosen.start, chosen.start + chosen.seeds):
        try:
            world, _ = play(
                chosen.scenario, SCENARIOS[chosen.scenario], seed, kinds, print if chosen.trace else None
            )
            steps += world.simulation.steps
        except Broken as broken:
            failed += 1
            steps += broken.steps
            print(broken, file=sys.stderr)
            if chosen.shrink:
                print(shrunk(chosen.scenario, seed, kinds), file=sys.stderr)
            if not chosen.keep_going:
                break
    took_s = time.perf_counter() - began
    print(
        f"{chosen.scenario}: seeds {chosen.start} to {seed}, {failed} broke, {steps} steps, "
        f"{steps / took_s:,.0f} steps/s, {(seed - chosen.start + 1) / took_s * 60:,.0f} seeds/min"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
