"""What a strategy comes to: its group's profit in a market, against the same group's in the same market played honestly.

    alone        one group deviates, all others are honest       against  all are honest
    together     all play their strategies                       against  all but this group do

    extra profit = mean over a group's operators of (profit as played - profit if honest), in prices of a lease
    deterred     = mean over seeds <= 2 standard errors

The same seed, purses and seats stand behind both, so that a strategy that needs accomplices on the panel is compared with
the same owner having them and using none.
"""

import math
from collections.abc import Callable, Sequence

import msgspec

from clusterai.protocol.keccak import keccak
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.simulator.core.market import Market, Outcome
from clusterai.simulator.core.scenario import Scenario


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One group, over all seeds; money in prices of a lease and per operator.

    Attributes:
        profit, honest: means as played, and with everyone honest.
        extra, error: mean of their difference, and its standard error over seeds.
        deterred: extra <= 2 errors.
        caught: identities slashed, per operator.
        delay_s: mean time from the commitment that convicted to the conviction; None if nobody was.
        until_caught: mean number of wrong leases up to that one.
        victim: what a provider made of a lease that this group cancelled, after the cost of the work it had done.
    """

    strategy: str
    operators: int
    profit: float
    honest: float
    extra: float
    error: float
    deterred: bool
    caught: float
    delay_s: float | None
    until_caught: float | None
    victim: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """
    Attributes:
        overhead: cost of re-executed work as a share of leased work that was done, where all are honest (or together).
        accusations: disputes about leases on which nobody had cheated, in all markets.
        false_slashes: identities slashed whose operators never did wrong, in all markets.
        reasons: how leases ended, in all markets.
        digest: of everything that happened in all markets.
    """

    scenario: str
    seeds: int
    rows: tuple[Row, ...]
    overhead: float
    accusations: int
    false_slashes: int
    reasons: dict[str, int]
    leases: int
    calls: int
    digest: str


def simulate(
    scenario: Scenario, seeds: int | None = None, told: Callable[[int, int], None] = lambda done, of: None
) -> Report:
    """
    Args:
        seeds: instead of the scenario's.
        told: how many of how many markets have been played.

    Raises:
        NotConserved: money appeared or vanished: a fault of the rules or of this program.
    """
    count = seeds or scenario.seeds
    groups = range(len(scenario.groups))
    deviants = [group for group in groups if scenario.groups[group].strategy != "honest"]
    all_but = {group: frozenset(it for it in groups if it != group) for group in groups}
    wanted = (
        [(), *(frozenset((group,)) for group in deviants)]
        if scenario.together
        else [frozenset(groups), *(all_but[group] for group in deviants)]
    )
    common: list[Outcome] = []
    single: dict[int, list[Outcome]] = {group: [] for group in deviants}
    for n in range(count):
        for at, honest in enumerate(wanted):
            outcome = Market(scenario, scenario.first_seed + n, honest).run()
            (single[deviants[at - 1]] if at else common).append(outcome)
            told(n * len(wanted) + at + 1, count * len(wanted))
    rows: list[Row] = []
    for group in groups:
        other = single.get(group, common)
        played, honest_ones = (common, other) if scenario.together else (other, common)
        rows.append(_row(scenario, group, played, honest_ones))
    every = [*common, *(it for group in deviants for it in single[group])]
    reasons: dict[str, int] = {}
    for it in every:
        for reason, times in it.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + times
    return Report(
        scenario=scenario.name,
        seeds=count,
        rows=tuple(rows),
        overhead=overhead(common),
        accusations=sum(it.accusations for it in every),
        false_slashes=sum(it.false_slashes for it in every),
        reasons=dict(sorted(reasons.items())),
        leases=sum(it.leases for it in every),
        calls=sum(it.calls for it in every),
        digest=_joined(every),
    )


def _row(scenario: Scenario, group: int, played: Sequence[Outcome], honest: Sequence[Outcome]) -> Row:
    terms = scenario.groups[group]
    price = scenario.market.price_tokens * WEI_PER_TOKEN

    def means(outcomes: Sequence[Outcome]) -> list[float]:
        return [sum(it.profits[group]) / len(it.profits[group]) / price for it in outcomes]

    as_played, as_honest = means(played), means(honest)
    extra, error = mean_and_error([a - b for a, b in zip(as_played, as_honest, strict=True)])
    falls = [fall for it in played for fall in it.fell[group]]
    cancelled = sum(it.cancelled[group] for it in played)
    return Row(
        strategy=terms.strategy,
        operators=terms.operators,
        profit=sum(as_played) / len(as_played),
        honest=sum(as_honest) / len(as_honest),
        extra=extra,
        error=error,
        deterred=extra <= 2 * error,
        caught=sum(it.slashed[group] for it in played) / (len(played) * terms.operators),
        delay_s=sum(fall[1] for fall in falls) / len(falls) if falls else None,
        until_caught=sum(fall[0] for fall in falls) / len(falls) if falls else None,
        victim=sum(it.victims[group] for it in played) / cancelled / price if cancelled else None,
    )


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """And the standard error of the mean; of one value 0, since nothing is known of its spread."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    variance = sum((it - mean) ** 2 for it in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def overhead(outcomes: Sequence[Outcome]) -> float:
    worked = sum(it.worked for it in outcomes)
    return sum(it.rerun for it in outcomes) / worked if worked else 0.0


def _joined(outcomes: Sequence[Outcome]) -> str:
    return keccak(b"".join(bytes.fromhex(it.digest) for it in outcomes)).hex()
