"""The demonstration: a provider that serves other weights loses its stake, and the requester gets the money back."""

import pytest

from clusterai.cli.failure import Exit
from tests.system.running import Network, until

pytestmark = pytest.mark.system

STAKE_WEI = 1_000 * 10**9


def deposit_left(network: Network, provider: str) -> int:
    """What the gateway's channel with this provider still holds for nobody."""
    channels = network.http("status")["channels"]
    return sum(it["balance_wei"] - it["claimed_wei"] for it in channels if it["provider"] == provider)


def test_a_cheat_is_caught_slashed_and_its_customers_refunded(fresh: Network):
    """`demo cheat` ends with a conviction, half the stake burned, every unsettled payment refunded and the rest of the deposit
    back; `demo restore` lets the node start over under a new identity."""
    fresh.up()
    lonely = fresh.cli("demo", "cheat", "--job", "--yes")
    assert lonely.returncode == Exit.NOT_RUNNING, "a lie about a job takes a panel"
    assert "up --validators" in lonely.stderr
    story = fresh.told("demo", "cheat", "--yes", "--deadline", "240")
    assert story["caught"]
    assert story["slashed_wei"] == STAKE_WEI
    assert story["burned_wei"] == story["bounty_wei"] == STAKE_WEI // 2
    assert [it["step"] for it in story["steps"]][:2] == ["altered", "paid"]
    cheat = story["plan"]["provider"]
    receipts = fresh.http(f"receipts?limit=500&provider={cheat}")["receipts"]
    assert receipts
    assert {it["state"] for it in receipts} == {"refunded"}
    assert all(it["refunded_wei"] == it["price_wei"] for it in receipts)
    account = fresh.told("account")
    assert account["refunded_wei"] >= story["refunded_wei"] > 0
    until("the gateway's deposit to be back", lambda: deposit_left(fresh, cheat) == 0)
    fresh.stop()
    (warning,) = fresh.up().ready["warnings"]
    assert story["plan"]["node"] in warning
    assert "clusterai demo restore" in warning
    assert fresh.told("demo", "restore")["restored"] == [story["plan"]["node"]]
    fresh.until_serving(2)
    nodes = {node["provider"]: node for node in fresh.http("nodes")["nodes"]}
    assert nodes[cheat]["barred"]
    assert sorted(node["stake_wei"] for node in nodes.values()) == [0, STAKE_WEI, STAKE_WEI]
