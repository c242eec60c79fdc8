"""A day of a large network: `python bench/simulator.py [--nodes 100000] [--leases 1] [--strategies]`.

All machines are the shipped ones over the contracts' twins (`clusterai.simulator`). The load is honest unless asked otherwise: every
provider does one job of an hour (or more) within the day, at a moment of its own; 64 validators sit on the panel, the rules are the
default ones. How much is audited follows from them: S = 10 R and 200 audits behind everyone make 9.6 % of the leases, one of 20 segments
each. With `--strategies` one node in twenty plays one of the provider's strategies instead, all in one market; colluders have a
fifth of the panel, and sleepers begin to cheat after half of their leases.

Prints leases, steps of machines and calls of the chain a second, wall and processor time, and memory. The exit code is 1 if a
lease of an honest node ended otherwise than paid, or an honest node was slashed. Bait that is drawn ends as cancelled.
"""

import argparse
import gc
import resource
import sys
import time

from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.simulator import Market, decode_scenario
from clusterai.simulator.core.report import mean_and_error

DAY_S = 86_400
WORK_S = 3_600
SETTLING_S = 1_200
PRICE = 10 * WEI_PER_TOKEN
"""Of a lease: the scenario's default."""
SCENARIO = """
name = "a day"
[market]
leases = {leases}
history = 200
validators = 64
work_s = {work_s}
pause_s = 60
spread_s = {spread_s}
[[groups]]
strategy = "honest"
operators = {honest}
"""
PLAYED = (
    "full-skip",
    "partial-skip",
    "sleeper",
    "sabotage",
    "stubborn",
    "hasty",
    "withhold",
    "hide",
    "collude",
    "bribe-beacon",
    "self-deal",
)
GROUP = """
[[groups]]
strategy = "{strategy}"
operators = {operators}
honest_first = {honest_first}
corrupt = {corrupt}
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--leases", type=int, default=1, help="of each node within the day")
    parser.add_argument("--strategies", action="store_true", help="one node in twenty cheats")
    arguments = parser.parse_args()
    each = arguments.nodes // 20 // len(PLAYED) if arguments.strategies else 0
    spread_s = DAY_S - arguments.leases * (WORK_S + 60) - SETTLING_S
    text = SCENARIO.format(
        leases=arguments.leases,
        work_s=WORK_S,
        spread_s=max(1, spread_s),
        honest=arguments.nodes - each * len(PLAYED),
    )
    for it in PLAYED if each else ():
        corrupt = 0.2 if it == "collude" else 0.0
        text += GROUP.format(strategy=it, operators=each, honest_first=arguments.leases // 2, corrupt=corrupt)
    wall_s, processor_s = time.perf_counter(), time.process_time()
    market = Market(decode_scenario(text), 0)
    # Machines come and go by reference counts; looking for cycles among millions of them is a third of all time.
    gc.freeze()
    gc.disable()
    began_s = market.network.now_s
    outcome = market.run()
    wall_s, processor_s = time.perf_counter() - wall_s, time.process_time() - processor_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{arguments.nodes} nodes, {outcome.leases} leases in {(market.network.now_s - began_s) / 3600:.1f} h of network time: "
        f"{outcome.reasons}, {outcome.false_slashes} honest slashed, {outcome.rerun / outcome.worked:.2%} of the work repeated"
    )
    for group, slashed, profits in zip(("honest", *PLAYED), outcome.slashed, outcome.profits, strict=False):
        # The first colluder's purse is the ring's: what its seats earn of all others says nothing of colluding.
        mean, error = mean_and_error([it / PRICE for it in profits[group == "collude" :]])
        print(
            f"  {group}: {slashed} of {len(profits)} slashed, profit {mean:+.3f} ± {2 * error:.3f} R a node"
        )
    print(
        f"{wall_s:.0f} s of wall time, {processor_s:.0f} s of processor time: {outcome.leases / processor_s:.0f} leases/s, "
        f"{outcome.steps / processor_s:.0f} steps/s, {outcome.calls / processor_s:.0f} calls/s; at most {peak:.2f} GB"
    )
    return (
        0
        if outcome.false_slashes == 0 and (each or set(outcome.reasons) <= {"COMPLETED", "CANCELLED"})
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())
