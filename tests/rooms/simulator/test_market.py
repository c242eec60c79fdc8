"""The market itself: it repeats bit by bit, keeps all money, and refuses scenarios by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clusterai.ledger.core.events import Transferred
from clusterai.protocol.ids import Address
from clusterai.simulator import Market, ScenarioRefused, decode_scenario
from clusterai.simulator.core.books import NotConserved
from clusterai.simulator.core.plot import plot
from clusterai.simulator.core.report import simulate

SMALL = """
name = "<small>"
seeds = 2
traps = 0.1
together = true
[market]
leases = 4
history = 30
[[groups]]
strategy = "full-skip"
operators = 3
[[groups]]
strategy = "collude"
operators = 2
corrupt = 0.2
[[groups]]
strategy = "false-accuser"
operators = 3
"""
PROGRAM = """
import sys
from clusterai.simulator import decode_scenario, simulate
print(simulate(decode_scenario(sys.stdin.read())).digest)
"""


def test_equal_seeds_give_equal_markets_under_any_hash_seed() -> None:
    """Nothing depends on the order of sets or on addresses in memory."""
    digests = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=SMALL,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "4242")
    ]
    assert digests[0] == digests[1] == simulate(decode_scenario(SMALL)).digest + "\n"


def test_another_seed_is_another_market() -> None:
    """Seeds are what standard errors are taken over."""
    scenario = decode_scenario(SMALL)
    assert Market(scenario, 0).run().digest != Market(scenario, 1).run().digest


def test_money_that_no_event_accounts_for_is_seen() -> None:
    """The books aren't a copy of the contracts: a balance changed behind their back is found."""
    market = Market(decode_scenario(SMALL), 0)
    thief = Address(bytes(19) + b"\x01")
    market.chain.world.store.put(("balance", thief), 5)
    with pytest.raises(NotConserved, match="booked"):
        market.books.book((Transferred(thief, market.chain.world.governor, 1),))


def test_escrow_that_leaks_is_seen() -> None:
    """What Leases holds is what open leases pay."""
    market = Market(decode_scenario(SMALL), 0)
    market.books.escrow += 1
    with pytest.raises(NotConserved, match="Leases has"):
        market.run()


def test_all_that_was_not_burned_belongs_to_somebody() -> None:
    """At the end the contracts keep stakes and vested pay, and no bond or escrow."""
    market = Market(decode_scenario(SMALL), 3)
    market.run()
    at = market.chain.world.addresses
    assert market.chain.token.balance(at.audits) == 0
    assert market.chain.token.balance(at.disputes) == 0
    vested = sum(market.chain.leases.vested(who).amount for it in market.operators for who in it.providers)
    assert market.chain.token.balance(at.leases) == vested
    market.books.audit()


def test_the_picture_names_every_strategy_and_escapes_its_title() -> None:
    """One bar a row, in a file that a browser can read."""
    drawn = plot(simulate(decode_scenario(SMALL)))
    assert "&lt;small&gt;" in drawn
    assert drawn.count("<rect") == 1 + 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name = ", "not TOML"),
        ('name = "x"', "groups"),
        ('name = "x"\ngroups = []', "groups"),
        ('name = "x"\nspeed = 1\n[[groups]]\nstrategy = "honest"', "speed"),
        ('name = "x"\n[[groups]]\nstrategy = "steal"', r"\$.groups\[0\].strategy"),
        ('name = "x"\n[[groups]]\nstrategy = "honest"\noperators = 0', r"\$.groups\[0\].operators"),
        ('name = "x"\n[[groups]]\nstrategy = "collude"\ncorrupt = 1.0', r"\$.groups\[0\].corrupt"),
        ('name = "x"\n[market]\nvalidators = 65\n[[groups]]\nstrategy = "honest"', r"\$.market.validators"),
        ('name = "x"\n[[groups]]\nstrategy = "lazy-auditor"\noperators = 21', r"\$.market.validators"),
        ('name = "x"\n[rules]\nwindow_s = 5\n[[groups]]\nstrategy = "honest"', r"\$.rules.window_s"),
        ('name = "x"\n[market]\nsteps = 1\n[[groups]]\nstrategy = "honest"', r"\$.market.steps"),
        ("#" * 100_001, "longer"),
    ],
)
def test_a_scenario_that_can_not_be_played_is_refused_by_name(text: str, why: str) -> None:
    """The refusal says which field is wrong."""
    with pytest.raises(ScenarioRefused, match=why):
        decode_scenario(text)


@pytest.mark.parametrize("file", sorted(Path("examples/sim").glob("*.toml")), ids=lambda file: file.stem)
def test_the_examples_are_scenarios(file: Path) -> None:
    """What the repository shows can be played."""
    decode_scenario(file.read_text(encoding="utf-8"))
