"""Who cheats, loses: `python bench/adversary.py [--seeds 8] [--only PART …] [--strategies NAME …] [--svg FILE]`.

strategies  every strategy among honest others at the default parameters, and auditors who copy, with and without traps
overhead    what audits repeat of the work, against p*/T
limits      where the promise ends: a gain outside, more corrupt auditors or beacons than the rules think
delegated   an auditor who does nothing, where others' stake stands behind each validator and shares its fees
accusers    a ring that accuses and judges: how many of how many accusations convict an honest provider

All of it is played by the shipped machines (`clusterai.simulator`). The exit code is 1 if a strategy of the first part wins by more
than two standard errors, or an honest provider was slashed there. Break-even: `bench/breakeven.py`; a large network: `bench/simulator.py`.
"""

import argparse
import sys
import time
from pathlib import Path

import msgspec

from clusterai.audit.core.rate import Terms, least_rate
from clusterai.simulator import Market, Report, Row, Scenario, decode_scenario, simulate
from clusterai.simulator.core.plot import plot
from clusterai.simulator.core.report import mean_and_error
from clusterai.simulator.core.strategies import STRATEGIES

ONE = """
name = "strategies"
seeds = {seeds}
traps = {traps}
[market]
leases = {leases}
delegated = {delegated}
commission = {commission}
parallel = {parallel}
history = {history}
stake = {stake}
segments = {segments}
validators = 40
validator_stake_tokens = {auditor_stake}
used = {used}
uneven = {uneven}
slack = {slack}
work_s = {work_s}
spread_s = {spread_s}
steps = {steps}
price_tokens = {price_tokens}
[rules]
{rules}
[[groups]]
strategy = "{strategy}"
operators = {operators}
{group}
"""
HONEST = '[[groups]]\nstrategy = "honest"\noperators = {operators}'
CHEAP = {"steps": 1, "price_tokens": 0.02}
"""One step a segment, so that disputes go to the referees at once: where many are played and their rounds don't matter."""
EVERYONE: tuple[tuple[str, dict[str, float], str], ...] = (
    ("full-skip", {}, ""),
    ("full-skip, 10 at once", {"parallel": 10}, ""),
    ("full-skip, 30 at once", {"parallel": 30}, ""),
    ("partial-skip", {}, "share = 0.25"),
    ("heavy-quarter, even", {}, ""),
    ("heavy-quarter, half of all", {"uneven": 2}, ""),
    ("heavy-quarter, all of it", {"uneven": 4}, ""),
    ("sleeper", {}, "honest_first = 15"),
    ("sabotage", {}, ""),
    ("sybil-split", {}, "identities = 5"),
    ("stubborn", {}, ""),
    ("hasty", {}, ""),
    ("hasty, an hour", {"work_s": 3600}, ""),
    ("withhold", {}, ""),
    ("hide", {}, ""),
    ("starve", {}, ""),
    ("self-deal", {}, "honest_first = 15"),
    ("collude, a fifth", {}, "corrupt = 0.2"),
    ("collude, three tenths", {}, "corrupt = 0.3"),
    ("bribe-beacon", {}, "bribed = 10"),
    ("overclaim, everywhere", {"used": 0.5}, "share = 1.0"),
    ("overclaim, a quarter", {"used": 0.5}, "share = 0.25"),
    ("overclaim-lump", {"used": 0.5}, ""),
    ("withhold-outputs", {}, ""),
    ("griefer", {}, ""),
    ("false-demand", {}, ""),
    ("lazy-auditor", {}, HONEST.format(operators=10)),
    ("silent-auditor", {}, HONEST.format(operators=10)),
    ("withheld-reveal", {}, HONEST.format(operators=10)),
    ("false-accuser", {}, HONEST.format(operators=10)),
)


def one(
    strategy: str, seeds: int, operators: int, group: str = "", rules: str = "", **market: float
) -> Scenario:
    terms: dict[str, float] = {
        "leases": 30,
        "parallel": 1,
        "delegated": 0,
        "commission": 0,
        "history": 200,
        "stake": 10.0,
        "segments": 20,
        "used": 1.0,
        "uneven": 1.0,
        "slack": 1.0,
        "traps": 0.0,
        "work_s": 600,
        "spread_s": 0,
        "steps": 65_536,
        "price_tokens": 10.0,
        "auditor_stake": 1_000.0,
    } | market
    text = ONE.format(strategy=strategy, seeds=seeds, operators=operators, group=group, rules=rules, **terms)
    return decode_scenario(text)


def strategies(seeds: int, svg: Path | None, names: list[str]) -> bool:
    print("| strategy | profit over honest ± 2 se | convicted | wrong leases until then | seconds |")
    print("|---|---|---|---|---|")
    rows: list[Row] = []
    leases = slashed = 0
    for name, market, group in EVERYONE:
        strategy = name.split(",")[0]
        if names and strategy not in names:
            continue
        operators = 5 if STRATEGIES[strategy].role == "auditor" else 20
        report = simulate(one(strategy, seeds, operators, group, "", **market))
        row = msgspec.structs.replace(report.rows[0], strategy=name)
        rows.append(row)
        leases, slashed = leases + report.leases, slashed + report.false_slashes
        show(row)
    print(f"\n{seeds} seeds, {leases} leases, {slashed} honest slashed")
    if svg is not None:
        report = Report(
            scenario="strategies",
            seeds=seeds,
            rows=tuple(rows),
            overhead=0.0,
            accusations=0,
            false_slashes=slashed,
            reasons={},
            leases=leases,
            calls=0,
            digest="",
        )
        svg.write_text(plot(report))
    if names and "copying-auditor" not in names:
        return all(row.deterred for row in rows) and not slashed
    copiers(seeds)
    return all(row.deterred for row in rows) and not slashed


def copiers(seeds: int) -> None:
    """Half of a panel copies what everybody leaks. Newcomers are audited nearly always, so that few leases tell much: bait is the same share of audits."""
    print(
        "\n| auditors who copy | stake of each | bait beside so many of the leases | profit over honest, in R ± 2 se | caught |"
    )
    print("|---|---|---|---|---|")
    for share, stake in ((0.0, 100), (0.004, 100), (0.004, 30), (0.004, 10), (0.004, 3)):
        terms = {"traps": share, "history": 0, "leases": 20, "auditor_stake": 10.0 * stake}
        scenario = one("copying-auditor", seeds, 20, HONEST.format(operators=25), "", **terms)
        report = simulate(scenario)
        row = report.rows[0]
        print(
            f"| {20 * seeds} | {stake} R | {share:.1%} | {row.extra:+.3f} ± {2 * row.error:.3f} | {row.caught:.3f} |",
            flush=True,
        )


def show(row: Row) -> None:
    until = "|" if row.until_caught is None else f"{row.until_caught:.1f} | {row.delay_s:.0f}"
    print(
        f"| {row.strategy} | {row.extra:+.2f} ± {2 * row.error:.2f} | {row.caught:.2f} | {until} |",
        flush=True,
    )


def overheads(seeds: int) -> None:
    print("\n| operators | T | p*/T | repeated ± 2 se |\n|---|---|---|---|")
    for name, stake, segments, history, uneven in (
        ("S = 10 R", 10.0, 20, 10**9, 1),
        ("S = 50 R", 50.0, 20, 10**9, 1),
        ("S = 10 R", 10.0, 100, 10**9, 1),
        ("newcomers, S = 0", 0.0, 20, 0, 1),
        ("S = 10 R, all work in a quarter of the segments", 10.0, 20, 10**9, 4),
        ("newcomers, the same", 0.0, 20, 0, 4),
    ):
        terms = {"leases": 5, "stake": stake, "segments": segments, "history": history, "uneven": uneven}
        scenario = one("honest", 2, 500, "", "", **terms)
        outcomes = [Market(scenario, seed).run() for seed in range(seeds)]
        share, error = mean_and_error([it.rerun / it.worked for it in outcomes])
        rate = min(1.0, least_rate(Terms(saved=0.7, stake=stake)))
        print(f"| {name} | {segments} | {rate / segments:.3%} | {share:.3%} ± {2 * error:.3%} |", flush=True)


def limits(seeds: int) -> None:
    print("\n| where it ends | profit over honest ± 2 se |\n|---|---|")
    for gain in (0.0, 1.0, 5.0):
        row = simulate(one("sabotage", seeds, 20, f"gain = {gain}", leases=20)).rows[0]
        print(
            f"| one segment of 20 wrong, worth {gain:.0f} R outside | {row.extra:+.2f} ± {2 * row.error:.2f} |"
        )
    for gain in (0.0, 1.0, 5.0):
        row = simulate(one("full-skip", seeds, 20, f"gain = {gain}", leases=20)).rows[0]
        print(f"| all wrong, worth {gain:.0f} R outside | {row.extra:+.2f} ± {2 * row.error:.2f} |")
    row = simulate(one("heavy-quarter", seeds, 20, uneven=4, slack=4, leases=20)).rows[0]
    print(
        f"| all of a job in a quarter of its segments, and nobody minds | {row.extra:+.2f} ± {2 * row.error:.2f} |"
    )
    for corrupt in (0.2, 0.3, 0.4, 0.6):
        row = simulate(one("collude", seeds, 20, f"corrupt = {corrupt}", leases=20)).rows[0]
        print(f"| {corrupt:.0%} of the panel colludes | {row.extra:+.2f} ± {2 * row.error:.2f} |", flush=True)
    for every in (10, 5, 2, 1):
        scenario = one(
            "bribe-beacon",
            seeds,
            200,
            f"bribed = {every}",
            leases=1,
            history=10**9,
            work_s=60,
            spread_s=80_000,
        )
        row = simulate(scenario).rows[0]
        print(
            f"| one beacon of {every} drawn twice, a lease | {row.extra:+.3f} ± {2 * row.error:.3f} |",
            flush=True,
        )


def delegations(seeds: int) -> None:
    print(
        "\n| behind each validator, of its own | commission | a silent auditor over an honest one ± 2 se |\n|---|---|---|"
    )
    for delegated, commission in ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (1.0, 0.3), (3.0, 0.3), (3.0, 0.5)):
        terms = {"delegated": delegated, "commission": commission}
        row = simulate(one("silent-auditor", seeds, 5, HONEST.format(operators=10), "", **terms)).rows[0]
        print(f"| {delegated:g} | {commission:.0%} | {row.extra:+.4f} ± {2 * row.error:.4f} |", flush=True)


def accusers(seeds: int) -> None:
    print(
        "\n| accusing ring's seats of 40 | S/R | accusations | honest slashed | extra profit of a seat ± 2 se |\n"
        "|---|---|---|---|---|"
    )
    others = HONEST.format(operators=40)
    for seats, stake in ((12, 50.0), (8, 50.0)):
        market = {"history": 0, "stake": stake, "leases": 4, **CHEAP}
        report = simulate(one("accusing-ring", seeds, seats, others, "bond_tokens = 0.002", **market))
        row = report.rows[0]
        print(
            f"| {seats} | {stake:.0f} | {report.accusations} | {report.false_slashes} | "
            f"{row.extra:+.2f} ± {2 * row.error:.2f} |",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("strategies", "overhead", "limits", "delegated", "accusers")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument(
        "--strategies", nargs="+", default=[], metavar="NAME", help="of the first part, only these"
    )
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    began_s, deterred = time.process_time(), True
    if "strategies" in arguments.only:
        deterred = strategies(arguments.seeds, arguments.svg, arguments.strategies)
    if "overhead" in arguments.only:
        overheads(arguments.seeds)
    if "limits" in arguments.only:
        limits(arguments.seeds)
    if "delegated" in arguments.only:
        delegations(arguments.seeds)
    if "accusers" in arguments.only:
        accusers(arguments.seeds)
    print(f"\n{time.process_time() - began_s:.0f} s of processor time")
    return 0 if deterred else 1


if __name__ == "__main__":
    sys.exit(main())
