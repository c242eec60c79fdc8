"""Where cheating breaks even: `python bench/breakeven.py [--stakes 1 10 50] [--scale 1.0] [--svg FILE]`.

Every operator does one lease and none of its work, a fifth of the panel agrees with it, and there are no margin, no bonds and no
gains outside. The contracts audit at f = 0.8, 1.0 and 1.2 times p* (their rate is set by the saving that they assume: 0.7 f). What
the rules' formula says of its profit over honest work is s - p d (R + S) = s (1 - f), whatever the stake.

A lease's profit is s, or s - (R + S) if it is convicted, so its spread grows as the root of S while the mean doesn't: a larger stake
needs more leases. Honest operators are all but certain of theirs; an eighth as many of them suffice. Machines, contracts and
beacons are the simulator's. Errors are two standard errors over markets of 1,000 operators, of both means together.

How many are drawn is luck, and known to be p on average. So a second number is printed, for which each market's profit is corrected
by d (R + S) for the share of draws that it had too many (a control variate). It supposes that draws come at rate p, which the
column before it shows, and its error is half as large.
"""

import argparse
import gc
import time
from pathlib import Path
from typing import NamedTuple

from adversary import CHEAP, one

from clusterai.audit.core.rate import Terms, advantage, least_rate
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.simulator import Market
from clusterai.simulator.core.report import mean_and_error

FACTORS = (0.8, 1.0, 1.2)
SAVED = 0.7
CORRUPT = 0.2
MARKETS = {1.0: 8, 10.0: 12, 50.0: 24}
"""Of 1,000 operators, at each stake: for corrected errors of 0.01, 0.025 and 0.04."""
COLOURS = ("#2a7f62", "#2c5aa0", "#b06a12")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 70, 20, 60, 50


class Point(NamedTuple):
    """Two standard errors in `twice` and `adjusted_twice`; `drawn` and `convicted` are shares of so many leases."""

    stake: float
    factor: float
    rate: float
    formula: float
    measured: float
    twice: float
    adjusted: float
    adjusted_twice: float
    leases: int
    drawn: float
    convicted: float


def played(stake: float, factor: float, operators: int, markets: int, honest: int) -> Point:
    rules = (
        f"saving_ppm = {round(1_000_000 * SAVED * factor)}\nsensitivity_ppm = 1000000\n"
        f"corrupt_ppm = {round(1_000_000 * CORRUPT)}\nmargin_ppm = 0\nbond_tokens = 0\nbond_ppm = 0"
    )
    terms = {"leases": 1, "stake": stake, "history": 10**9, **CHEAP}
    scenario = one("collude", 2, operators, f"corrupt = {CORRUPT}", rules, **terms)
    price = scenario.market.price_tokens * WEI_PER_TOKEN
    ours = Terms(saved=SAVED, stake=stake, sensitivity=1.0, corrupt=CORRUPT, margin=0.0)
    rate = factor * least_rate(ours)
    profits: tuple[list[float], list[float]] = ([], [])
    adjusted: list[float] = []
    drawn = slashed = 0
    for seed in range(max(markets, honest)):
        for group, (wanted, mine) in enumerate(zip((markets, honest), profits, strict=True)):
            if seed >= wanted:
                continue
            gc.disable()  # as in bench/simulator.py; a market is small enough to be swept when it is over
            outcome = Market(scenario, seed, (0,) if group else ()).run()
            gc.enable()
            gc.collect()
            mine.append(sum(outcome.profits[0]) / operators / price)
            if not group:
                luck = outcome.drawn[0] / operators - rate
                adjusted.append(mine[-1] + luck * (1 - CORRUPT) * (1 + stake))
            drawn += outcome.drawn[0]
            slashed += outcome.slashed[0]
    others = mean_and_error(profits[1])

    def over_honest(values: list[float]) -> tuple[float, float]:
        mean, error = mean_and_error(values)
        return mean - others[0], 2 * (error**2 + others[1] ** 2) ** 0.5

    leases = markets * operators
    return Point(
        stake,
        factor,
        rate,
        advantage(ours, rate),
        *over_honest(profits[0]),
        *over_honest(adjusted),
        leases,
        drawn / leases,
        slashed / leases,
    )


def curve(points: list[Point]) -> str:
    """Profit over honest against p / p*: what the formula says, and what was measured with two standard errors; an SVG."""
    reach = max(0.25, *(abs(it.measured) + it.twice for it in points))

    def at(factor: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (factor - 0.7) / 0.6

    def up(profit: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (0.5 - profit / reach / 2)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        '<text x="12" y="20" font-size="14" fill="#111111">break-even: profit over honest of a lease of which nothing is done</text>',
        '<text x="12" y="38" fill="#555555">in prices of a lease; whiskers are two standard errors; hollow: corrected for the luck of draws; black: the formula</text>',
    ]
    for tick in (-0.2, -0.1, 0.0, 0.1, 0.2):
        out += [
            f'<path d="M{LEFT} {up(tick):.1f}H{WIDTH - RIGHT}" stroke="{"#555555" if not tick else "#dddddd"}"/>',
            f'<text x="{LEFT - 8}" y="{up(tick) + 4:.1f}" text-anchor="end" fill="#555555">{tick:+.1f}</text>',
        ]
    for factor in FACTORS:
        # The three stakes stand side by side at one and the same p / p*: so does what the formula says of them.
        out += [
            f'<path d="M{at(factor) - 50:.1f} {up(SAVED * (1 - factor)):.1f}h100" stroke="#111111"/>',
            f'<text x="{at(factor):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#555555">{factor:.1f}</text>',
        ]
    out += [
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 10}" text-anchor="middle" fill="#555555">p / p*</text>',
    ]
    stakes = sorted({it.stake for it in points})
    for nth, stake in enumerate(stakes):
        colour, shift = COLOURS[nth % len(COLOURS)], 26 * (nth - (len(stakes) - 1) / 2)
        out.append(
            f'<text x="{WIDTH - 120}" y="{TOP + 18 + 18 * nth}" fill="{colour}">&#9679; S = {stake:g} R</text>'
        )
        for it in points:
            if it.stake == stake:
                x = at(it.factor) + shift
                out += [
                    f'<path d="M{x:.1f} {up(it.measured - it.twice):.1f}V{up(it.measured + it.twice):.1f}" stroke="{colour}" stroke-width="2"/>',
                    f'<circle cx="{x:.1f}" cy="{up(it.measured):.1f}" r="4" fill="{colour}"/>',
                    f'<path d="M{x + 9:.1f} {up(it.adjusted - it.adjusted_twice):.1f}V{up(it.adjusted + it.adjusted_twice):.1f}" stroke="{colour}"/>',
                    f'<circle cx="{x + 9:.1f}" cy="{up(it.adjusted):.1f}" r="4" fill="#ffffff" stroke="{colour}"/>',
                ]
    return "\n".join([*out, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stakes", type=float, nargs="+", default=list(MARKETS), help="in prices of a lease")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of markets")
    parser.add_argument("--operators", type=int, default=1_000, help="of a market")
    parser.add_argument("--svg", type=Path)
    asked = parser.parse_args()
    began_s = time.process_time()
    print(
        "| S/R | p / p* | p | leases | drawn | convicted | formula | measured ± 2 se | corrected for draws |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    points: list[Point] = []
    for stake in asked.stakes:
        markets = max(2, round(asked.scale * MARKETS.get(stake, 24)))
        for factor in FACTORS:
            it = played(stake, factor, asked.operators, markets, max(2, markets // 8))
            points.append(it)
            print(
                f"| {stake:g} | {factor} | {it.rate:.4f} | {it.leases} | {it.drawn:.4f} | {it.convicted:.4f} | "
                f"{it.formula:+.3f} | {it.measured:+.3f} ± {it.twice:.3f} | {it.adjusted:+.3f} ± {it.adjusted_twice:.3f} |",
                flush=True,
            )
            if asked.svg is not None:
                asked.svg.write_text(curve(points))
    print(f"\n{time.process_time() - began_s:.0f} s of processor time")


if __name__ == "__main__":
    main()
