"""Who cheats, loses: `python bench/adversary.py [--seeds 8] [--nodes 2000] [--svg FILE] [--speed]`.

1. Every strategy alone among honest others, at the default parameters (`examples/sim/everyone.toml`), and auditors who copy,
   with and without traps (`examples/sim/traps.toml`).
2. Break-even: p at 0.8, 1.0 and 1.2 times p* without margin, one lease an operator, against s - p d (R + S).
3. Overhead: what audits repeat of the work, against p*/T.
4. Where the promise ends: a gain outside, more corrupt auditors than the rules think, and a ring that accuses and judges.
5. With `--speed`: leases per second of processor time, and memory.

The exit code is 1 if a strategy of 1. wins by more than two standard errors.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import msgspec

from clusterai.audit.core.rate import Terms, advantage, least_rate
from clusterai.simulator import Market, Report, Scenario, decode_scenario, simulate
from clusterai.simulator.core.plot import plot

EXAMPLES = Path(__file__).parents[1] / "examples" / "sim"
ONE = """
name = "bench"
seeds = {seeds}
[market]
leases = {leases}
history = {history}
stake = {stake}
segments = {segments}
validators = 20
[rules]
{rules}
[[groups]]
strategy = "{strategy}"
operators = {operators}
{group}
"""


def one(
    strategy: str, seeds: int, operators: int, group: str = "", rules: str = "", **market: float
) -> Scenario:
    terms = {"leases": 20, "history": 10**9, "stake": 10.0, "segments": 20} | market
    text = ONE.format(strategy=strategy, seeds=seeds, operators=operators, group=group, rules=rules, **terms)
    return decode_scenario(text)


def strategies(seeds: int, svg: Path | None) -> bool:
    report = simulate(decode_scenario((EXAMPLES / "everyone.toml").read_text()), seeds)
    show(report)
    if svg is not None:
        svg.write_text(plot(report))
    won = all(row.deterred for row in report.rows) and report.false_slashes == 0
    for share in (0.0, 0.05, 0.2):
        scenario = decode_scenario((EXAMPLES / "traps.toml").read_text())
        copied = simulate(msgspec.structs.replace(scenario, traps=share), seeds)
        row = copied.rows[0]
        print(f"| {row.strategy}, traps {share:.0%} of leases | {row.extra:+.2f} ± {2 * row.error:.2f} | | |")
    return won


def show(report: Report) -> None:
    print(
        f"\n{report.seeds} seeds, {report.leases} leases, {report.false_slashes} honest slashed, {report.reasons}"
    )
    print(
        "\n| strategy | extra profit ± 2 se | convicted | wrong leases until then | seconds |\n|---|---|---|---|---|"
    )
    for row in report.rows:
        until = "" if row.until_caught is None else f"{row.until_caught:.1f} | {row.delay_s:.0f}"
        print(
            f"| {row.strategy} | {row.extra:+.2f} ± {2 * row.error:.2f} | {row.caught:.2f} | {until or ' | '} |"
        )


def break_even(seeds: int, nodes: int) -> None:
    print("\n| S/R | p / p* | p | formula | measured ± 2 se |\n|---|---|---|---|---|")
    for stake in (1.0, 10.0):
        for factor in (0.8, 1.0, 1.2):
            terms = Terms(saved=0.7, stake=stake, sensitivity=1.0, corrupt=0.2, margin=0.0)
            rate = factor * least_rate(terms)
            rules = (
                f"saving_ppm = {round(700_000 * factor)}\nsensitivity_ppm = 1000000\ncorrupt_ppm = 200000\n"
                "margin_ppm = 0\nbond_tokens = 0"
            )
            scenario = one(
                "collude", seeds, nodes, "corrupt = 0.2", rules, leases=1, stake=stake, segments=20
            )
            row = simulate(scenario).rows[0]
            print(
                f"| {stake:.0f} | {factor} | {rate:.4f} | {advantage(terms, rate):+.3f} | "
                f"{row.extra:+.3f} ± {2 * row.error:.3f} |"
            )


def overheads(nodes: int) -> None:
    print("\n| operators | T | p*/T | repeated |\n|---|---|---|---|")
    for name, stake, segments, history in (
        ("S = 10 R", 10.0, 20, 10**9),
        ("S = 50 R", 50.0, 20, 10**9),
        ("S = 10 R", 10.0, 100, 10**9),
        ("newcomers, S = 0", 0.0, 20, 0),
    ):
        scenario = one("honest", 2, nodes, leases=10, stake=stake, segments=segments, history=history)
        outcomes = [Market(scenario, seed).run() for seed in range(2)]
        share = sum(it.rerun for it in outcomes) / sum(it.worked for it in outcomes)
        rate = min(1.0, least_rate(Terms(saved=0.7, stake=stake)))
        print(f"| {name} | {segments} | {rate / segments:.2%} | {share:.2%} |")


def limits(seeds: int) -> None:
    print("\n| where it ends | extra profit ± 2 se |\n|---|---|")
    for gain in (0.0, 1.0, 5.0, 20.0):
        row = simulate(one("sabotage", seeds, 40, f"gain = {gain}")).rows[0]
        print(
            f"| one segment of 20 wrong, worth {gain:.0f} R outside | {row.extra:+.2f} ± {2 * row.error:.2f} |"
        )
    for gain in (0.0, 1.0, 5.0):
        row = simulate(one("full-skip", seeds, 40, f"gain = {gain}")).rows[0]
        print(f"| all wrong, worth {gain:.0f} R outside | {row.extra:+.2f} ± {2 * row.error:.2f} |")
    for corrupt in (0.2, 0.3, 0.4, 0.6, 0.7):
        row = simulate(one("collude", seeds, 40, f"corrupt = {corrupt}")).rows[0]
        print(f"| {corrupt:.0%} of the panel colludes | {row.extra:+.2f} ± {2 * row.error:.2f} |")


def accusers(seeds: int) -> None:
    print(
        "\n| accusing ring's seats of 20 | S/R | extra profit of a seat ± 2 se | honest slashed |\n|---|---|---|---|"
    )
    others = '[[groups]]\nstrategy = "honest"\noperators = 60'
    for seats in (4, 6):
        for stake in (10.0, 50.0):
            scenario = one("accusing-ring", seeds, seats, others, history=200, stake=stake)
            report = simulate(scenario)
            row = report.rows[0]
            print(
                f"| {seats} | {stake:.0f} | {row.extra:+.2f} ± {2 * row.error:.2f} | {report.false_slashes} |"
            )


def speed(nodes: int) -> None:
    scenario = one("honest", 2, nodes, leases=18, history=200)
    began = time.process_time()
    outcome = Market(scenario, 0).run()
    spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"\n{nodes} nodes, {outcome.leases} leases, {outcome.calls} calls in {spent:.1f} s of processor time: "
        f"{outcome.leases / spent:.0f} leases/s, {outcome.calls / spent:.0f} calls/s, at most {peak:.2f} GB"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--nodes", type=int, default=2_000, help="of the break-even markets and of --speed")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--speed", action="store_true", help="measure speed and nothing else")
    arguments = parser.parse_args()
    if arguments.speed:
        speed(arguments.nodes)
        return 0
    deterred = strategies(arguments.seeds, arguments.svg)
    break_even(arguments.seeds, arguments.nodes)
    overheads(arguments.nodes)
    limits(arguments.seeds)
    accusers(arguments.seeds)
    return 0 if deterred else 1


if __name__ == "__main__":
    sys.exit(main())
