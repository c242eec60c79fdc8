"""Clocks that differ, and clocks that are set while a rental runs: nobody is accused of it, paid too much, or put out."""

import pytest

from clusterai.gateway.core.rentstate import Close
from clusterai.node.core.staybook import CLOCKS_S
from tests.rooms.rentals.stage import PRICE_WEI, Stage


def paid_s(stage: Stage) -> float:
    """Seconds of one machine that were charged."""
    return stage.rental().paid_wei * 3600 / PRICE_WEI


@pytest.mark.parametrize("ahead_s", [-3_600.0, -45.0, 45.0, float(CLOCKS_S)])
def test_a_machine_whose_clock_differs_is_paid_as_any_other(ahead_s: float):
    """What is paid are seconds that passed, and those are the same on both sides."""
    stage = Stage(2)
    stage.machines[1].ahead_s = ahead_s
    rental = stage.rent(2)
    stage.run(130)
    assert [it.generation for it in rental.stays.values()] == [0, 0]
    assert 2 * 90 <= paid_s(stage) <= 2 * 130
    assert rental.units[0] == rental.units[1]


def test_a_booking_ends_by_the_gateways_clock():
    """A machine that is ahead by as much as clocks may differ ends its stay half a minute early at most, and isn't paid for it."""
    stage = Stage(1)
    stage.machines[0].ahead_s = 45.0
    rental = stage.rent(1, hours=200 / 3600)
    stage.run(260)
    assert rental.ended is not None
    assert rental.ended.why is Close.OVER
    assert 200 - 45 - 30 <= paid_s(stage) <= 200


@pytest.mark.parametrize("whose", ["gateway", "head", "worker"])
@pytest.mark.parametrize("by_s", [-7_200.0, -5.0, -0.2, 0.2, 5.0, 300.0])
def test_a_clock_that_is_set_while_it_runs_loses_no_machine(whose: str, by_s: float):
    """Of the gateway or of a machine, forwards or back, in the middle of an interval: the same stays go on and are paid for what passed."""
    stage = Stage(2, spares=1)
    rental = stage.rent(2)
    stage.run(47)
    if whose == "gateway":
        stage.ahead_s += by_s
    else:
        stage.machines[whose == "worker"].ahead_s += by_s
    stage.now_s += 0.9
    stage.beat()
    stage.run(200)
    assert rental.ended is None
    assert [it.generation for it in rental.stays.values()] == [0, 0], stage.notes
    assert 2 * 200 <= paid_s(stage) <= 2 * 247


def test_a_clock_set_back_ends_no_wait():
    """While an account is empty or a head sought, the gateway's clock goes back by two hours: credit and machines are asked for as ever."""
    stage = Stage(2, spares=1)
    rental = stage.rent(2)
    stage.run(40)
    saved_wei, stage.credit_wei = stage.credit_wei, 0
    stage.run(60)
    assert rental.unpaid_s is not None
    stage.ahead_s -= 7_200.0
    stage.run(20)
    stage.credit_wei = saved_wei
    stage.run(20)
    assert rental.unpaid_s is None
    stage.spares[0].is_up = False
    stage.machines[0].die()
    stage.run(8)
    stage.ahead_s -= 7_200.0
    stage.spares[0].is_up = True
    stage.run(30)
    assert rental.is_complete
