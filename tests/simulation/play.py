"""Scenarios: which world, which faults, which villains, what is done to it, and what must hold in the end.

    world, checkers = play("all-faults", SCENARIOS["all-faults"], seed=7)

raises `Broken`, which carries the command that repeats it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from clusterai.ledger.core.rules import Rules
from clusterai.runtime.simulator import Fault, Faults
from tests.simulation.checkers.answers import AnswersTrue
from tests.simulation.checkers.bills import BillsFair
from tests.simulation.checkers.charges import ChargesAreVouchers
from tests.simulation.checkers.justice import JusticeDone
from tests.simulation.checkers.money import MoneyConserved
from tests.simulation.checkers.payments import PaymentsInOrder
from tests.simulation.checkers.payouts import PaidBackOnce
from tests.simulation.checkers.truth import Truth
from tests.simulation.world.chain import DEPLOYER, RULES
from tests.simulation.world.world import Maker, Shape, World

ALL = tuple(Fault)


class Checkers:
    """All checkers of one world, attached to it."""

    def __init__(self, world: World) -> None:
        twin = world.ledger.twin
        gateways = frozenset(it.party.address for it in world.gateways) - world.villains.keys()
        providers = {it.party.address: it.process for it in world.providers}
        self.money = MoneyConserved(world.chain, twin, DEPLOYER.address)
        self.payments = PaymentsInOrder(world.chain, world.rules, frozenset(providers))
        self.charges = ChargesAreVouchers(world.chain, gateways)
        self.bills = BillsFair(gateways)
        self.truth = Truth()
        self.justice = JusticeDone(world.chain, world.rules, self.truth, providers, world.villains)
        self.answers = AnswersTrue(gateways, world.villains)
        self.payouts = PaidBackOnce(world.chain, frozenset(it.home for it in world.wallets))
        world.simulation.observers += [
            self.truth,
            self.charges,
            self.bills,
            self.justice,
            self.answers,
            self.payouts,
        ]


def live(world: World) -> None:
    """Work under faults, then everything heals and must finish."""
    world.simulation.run(world.shape.busy_s)
    world.heal()
    world.settle()


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """
    Attributes:
        share: probability of each kind of fault in a seed.
        makers: who is a villain: participant's name to its maker.
        script: what happens after the beginning.
        verdict: what must hold in the end, beyond what the checkers demand; raises AssertionError.
    """

    kinds: tuple[Fault, ...] = ALL
    share: float = 0.5
    shape: Shape = Shape()
    rules: Rules = RULES
    makers: Mapping[str, Maker] = {}
    script: Callable[[World], None] = live
    verdict: Callable[[World, Checkers], None] = lambda world, checkers: None


def play(
    name: str,
    scenario: Scenario,
    seed: int,
    kinds: tuple[Fault, ...] | None = None,
    trace: Callable[[Any], None] | None = None,
) -> tuple[World, Checkers]:
    """Run one seed of a scenario to its end.

    Raises:
        Broken: a promise didn't hold.
    """
    kinds = scenario.kinds if kinds is None else kinds
    command = f"python -m tests.simulation.run {name} --start {seed} --seeds 1"
    if kinds != scenario.kinds:
        command += f" --faults {','.join(kinds)}"
    faults = Faults.draw(seed, kinds, scenario.share)
    world = World(seed, faults, scenario.shape, scenario.makers, scenario.rules, command)
    checkers = Checkers(world)
    if trace is not None:
        world.simulation.tell = trace
    world.begin()
    scenario.script(world)
    try:
        scenario.verdict(world, checkers)
    except AssertionError as error:
        raise world.simulation.broken(str(error)) from error
    return world, checkers
