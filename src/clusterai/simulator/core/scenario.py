"""A scenario: the market, the rules in force, and who plays what. TOML, decoded strictly; every refusal names the field."""

import tomllib
from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.ledger.core.rules import LOCAL, AuditRules, DisputeRules, Rules
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.simulator.core.strategies import STRATEGIES, Options
from clusterai.work.batch.core.prices import GIGA, MOST_TARIFF_WEI

LONGEST_TEXT = 100_000

_Share = Annotated[float, Meta(ge=0, le=1)]
_Ppm = Annotated[int, Meta(ge=0, le=1_000_000)]
_Multiple = Annotated[float, Meta(ge=0, le=10_000)]


class ScenarioRefused(ValueError):
    """The scenario can't be played: {why}."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the scenario can't be played: {why}")


class MarketTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is traded.

    Attributes:
        price_tokens: compensation of a lease (R).
        cost: what honest work costs, in prices; all of it is saved by doing nothing (s/R).
        uneven: so many equal shares of the work are in each segment of the heaviest quarter. At 4 all of it is.
        slack: so many equal shares of what the price is for may be in one segment; 1 is what nodes allow for. A job that is more uneven
            is ordered for so much more than it costs.
        segments: into how many segments work is cut (T). The auditor's fee follows from it, as the desk sets it.
        steps: units that the terms allow for in a segment, through which a dispute goes.
        used: share of them that the work needs; a provider's cost goes by it, and of its pay seven tenths.
        work_s: how long a lease takes when it is worked on.
        spread_s: within which all begin; as long as a lease if 0.
        pause_s: from a commitment to the next lease of the same operator.
        leases: how many each operator runs.
        parallel: of them at once, at most.
        stake: of an operator, in prices (S/R), unless its group says otherwise.
        history: audits in a row that had matched before the scenario began.
        validators: seats on the panel.
        validator_stake_tokens: of each.
        delegated: stake of others behind each of them, in multiples of its own; it shares in fees and falls with the validator.
        commission: of their share that the validator keeps.
        value: what a delivered result is worth to its requester, in prices.
    """

    price_tokens: Annotated[float, Meta(gt=0, le=10_000)] = 10.0
    cost: _Share = 0.7
    uneven: Annotated[float, Meta(ge=1, le=4)] = 1.0
    slack: Annotated[float, Meta(ge=1, le=4)] = 1.0
    segments: Annotated[int, Meta(ge=1, le=1024)] = 20
    steps: Annotated[int, Meta(ge=1, le=2**30)] = 65_536
    used: Annotated[float, Meta(gt=0, le=1)] = 1.0
    work_s: Annotated[int, Meta(ge=2, le=86_400)] = 600
    spread_s: Annotated[int, Meta(ge=0, le=86_400)] = 0
    pause_s: Annotated[int, Meta(ge=0, le=86_400)] = 30
    leases: Annotated[int, Meta(ge=1, le=100_000)] = 20
    parallel: Annotated[int, Meta(ge=1, le=64)] = 1
    stake: _Multiple = 10.0
    history: Annotated[int, Meta(ge=0, le=10**9)] = 0
    validators: Annotated[int, Meta(ge=1, le=64)] = 20
    validator_stake_tokens: Annotated[float, Meta(gt=0, le=100_000)] = 1_000.0
    delegated: Annotated[float, Meta(ge=0, le=3)] = 0.0
    commission: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    value: _Multiple = 1.0


class RuleTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of the contracts that decide what cheating yields; the rest is the local network's."""

    saving_ppm: _Ppm = 700_000
    sensitivity_ppm: _Ppm = 990_000
    corrupt_ppm: _Ppm = 200_000
    margin_ppm: _Ppm = 200_000
    bond_tokens: Annotated[float, Meta(ge=0, le=1_000)] = 1.0
    bond_ppm: Annotated[int, Meta(ge=0, le=100_000)] = 100_000
    window_s: Annotated[int, Meta(ge=60, le=604_800)] = 60
    bounty_bps: Annotated[int, Meta(ge=0, le=5_000)] = 5_000

    def rules(self) -> Rules:
        bond = round(self.bond_tokens * WEI_PER_TOKEN)
        return msgspec.structs.replace(
            LOCAL,
            window_s=self.window_s,
            unbond_delay_s=2 * self.window_s,
            bounty_bps=self.bounty_bps,
            audits=AuditRules(
                saving_ppm=self.saving_ppm,
                sensitivity_ppm=self.sensitivity_ppm,
                corrupt_ppm=self.corrupt_ppm,
                margin_ppm=self.margin_ppm,
                bond_wei=bond,
                bond_ppm=self.bond_ppm,
            ),
            disputes=DisputeRules(bond_wei=bond),
        )


class Group(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Operators who play the same.

    Attributes:
        strategy: a name of `strategies.STRATEGIES`.
        operators: how many; of auditors, how many seats they take.
        stake: in prices; the market's if none.
        corrupt: share of the panel's seats that belong to this group as one ring.
        gain: what a wrong result that was paid for is worth to it outside of the network, in prices (B/R).
    """

    strategy: str
    operators: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    stake: _Multiple | None = None
    corrupt: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    gain: _Multiple = 0.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Attributes:
        seeds: how many markets of each kind; standard errors need two.
        traps: beside so many of the leases bait is planted for auditors who copy; by default what gateways do, who plant more where auditors
            have little at stake, and none for 0.
        together: all strategies are played in one market; else one at a time among honest others.
    """

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    seeds: Annotated[int, Meta(ge=2, le=1_000)] = 5
    first_seed: Annotated[int, Meta(ge=0, le=2**32)] = 0
    traps: _Share = 0.004
    together: bool = False
    market: MarketTerms = MarketTerms()
    rules: RuleTerms = RuleTerms()
    groups: Annotated[tuple[Group, ...], Meta(min_length=1, max_length=64)]


def decode_scenario(text: str) -> Scenario:
    """
    Raises:
        ScenarioRefused: not TOML, an unknown or missing field, a value out of bounds, or players that don't fit.
    """
    if len(text) > LONGEST_TEXT:
        raise ScenarioRefused(f"longer than {LONGEST_TEXT} characters")
    try:
        scenario = msgspec.convert(tomllib.loads(text), Scenario)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioRefused(f"not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ScenarioRefused(str(error)) from None
    market = scenario.market
    fuel = market.segments * market.steps
    if market.price_tokens * WEI_PER_TOKEN * GIGA > MOST_TARIFF_WEI * fuel:
        raise ScenarioRefused(
            f"{fuel} units are too few for such a price - at `$.market.steps`, which is {market.steps}"
        )
    seats = 0
    for at, group in enumerate(scenario.groups):
        if group.strategy not in STRATEGIES:
            known = ", ".join(sorted(STRATEGIES))
            raise ScenarioRefused(
                f"no strategy {group.strategy!r} - at `$.groups[{at}].strategy`; there are {known}"
            )
        is_auditor = STRATEGIES[group.strategy].role == "auditor"
        seats += group.operators if is_auditor else round(group.corrupt * scenario.market.validators)
    if seats > scenario.market.validators:
        raise ScenarioRefused(
            f"{seats} seats for groups - at `$.market.validators`, which is {scenario.market.validators}"
        )
    return scenario
