"""Rented machines between real processes: Ray comes up in the sandbox, time is paid by intervals, a machine that dies is replaced."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system import gauntlet
from tests.system.running import Network, until

pytestmark = pytest.mark.system
READY_S = 240.0


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network whose two nodes are offered whole."""
    running = Network(tmp_path_factory.mktemp("network") / "data", rent=True)
    try:
        yield running.up()
    finally:
        running.stop()


def rental(network: Network, name: str) -> dict[str, Any]:
    found: dict[str, Any] = network.http(f"rentals/{name}")
    return found


def settled(network: Network, name: str) -> dict[str, Any] | None:
    """How it stands, once it isn't being opened any more."""
    found = rental(network, name)
    assert found["state"] != "ended", found["notes"]
    head = found["machines"][0]
    return found if found["state"] == "running" and head["phase"] == "ready" else None


def test_a_machine_of_the_network_gets_a_measured_card(network: Network):
    """Nobody asks for it: a beacon draws the validator, which examines the node and tells it what it found."""
    config = str(network.data / "node-1" / "config.json")
    command = [sys.executable, "-m", "clusterai.cli", "node", "card", "--config", config, "--json"]

    def card() -> Any:
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    found = until("a measured card", card)
    kinds = {(line["name"], line["kind"]) for line in found["lines"]}
    assert ("cpu_milli", "claimed") in kinds
    assert ("cpu_milli", "measured") in kinds
    assert ("links_per_s_milli", "measured") in kinds
    assert ("memory_read_kbytes_per_s", "measured") in kinds
    assert ("round_trip_us", "measured") in kinds


def test_a_rented_machine_is_paid_by_the_interval_replaced_when_it_dies_and_given_back(network: Network):
    """One of two: its time is charged as receipts; killed, its place is taken anew; released, both are free again."""
    until("two machines on offer", lambda: network.http("offers")["suitable"] == 2)
    asked = ("--nodes", "1", "--hours", "0.3", "--mem", "1G", "--disk", "1G", "--no-mesh", "--yes")
    placed = network.told("rent", *asked)
    assert "rental" in placed, placed
    name = placed["rental"]["id"]
    until("Ray to run on it", lambda: settled(network, name), READY_S)
    until("an interval to be paid", lambda: rental(network, name)["paid_wei"] > 0)

    before = rental(network, name)
    network.kill(network.service_of(before["machines"][0]["operator"]))
    until("another machine", lambda: rental(network, name)["machines"][0]["generation"] > 0, READY_S)
    after = until("Ray to run there", lambda: settled(network, name), READY_S)
    assert after["place"] == before["place"]
    assert after["head"] == before["head"]
    until("it to be paid as well", lambda: rental(network, name)["paid_wei"] > before["paid_wei"])

    released = network.told("rent", "release", name, "--yes")
    assert (released["state"], released["why"]) == ("ended", "released")
    until("both to be free", lambda: network.http("offers")["suitable"] == 2, READY_S)

    paid_wei = rental(network, name)["paid_wei"]
    receipts = network.http("receipts")["receipts"]
    assert sum(int(it["price_wei"]) for it in receipts) == paid_wei
    hours = (rental(network, name)["ended_s"] - rental(network, name)["began_s"]) / 3600
    assert 0 < paid_wei <= hours * before["price_hour_wei"] * 1.01


def intervals_wei(network: Network) -> int:
    return sum(int(it["price_wei"]) for it in network.http("receipts")["receipts"])


@pytest.mark.long
def test_a_stay_outlives_its_gateway_and_the_chain(network: Network):
    """`kill -9` of the gateway while a machine comes up, and again while it is paid (with `CLUSTERAI_EVERY=1` of the chain as well): it stays
    the same machine throughout, each interval is paid once, and it is given back as ever."""
    until("two machines on offer", lambda: network.http("offers")["suitable"] == 2)
    before_wei, charged_wei = intervals_wei(network), network.http("account")["charged_wei"]
    known = {it["id"] for it in network.http("rentals")["rentals"]}
    asked = ("--nodes", "1", "--hours", "0.3", "--mem", "1G", "--disk", "1G", "--no-mesh", "--yes", "--json")
    renting = network.started("rent", *asked)
    try:
        name = until(
            "it to be booked",
            lambda: next(
                (it["id"] for it in network.http("rentals")["rentals"] if it["id"] not in known), None
            ),
        )
        network.until_back("gateway", network.kill("gateway"))
        told, errors = renting.communicate(timeout=READY_S)
        assert renting.returncode == 0, errors
        assert json.loads(told)["rental"]["id"] == name
    finally:
        renting.kill()
        renting.communicate()
    first = until("Ray to run on it", lambda: settled(network, name), READY_S)
    until("an interval to be paid", lambda: rental(network, name)["paid_wei"] > 0)
    for victim in ("gateway", "chain") if os.environ.get(gauntlet.EVERY) else ("gateway",):
        paid_wei = rental(network, name)["paid_wei"]
        network.until_back(victim, network.kill(victim))
        until("it to be paid on", lambda paid=paid_wei: rental(network, name)["paid_wei"] > paid, READY_S)
    after = rental(network, name)
    assert [(it["operator"], it["generation"]) for it in after["machines"]] == [
        (it["operator"], it["generation"]) for it in first["machines"]
    ]
    assert first["began_s"] == after["began_s"]
    released = network.told("rent", "release", name, "--yes")
    assert (released["state"], released["why"]) == ("ended", "released")
    until("both to be free", lambda: network.http("offers")["suitable"] == 2, READY_S)
    paid_wei = rental(network, name)["paid_wei"]
    assert intervals_wei(network) - before_wei == paid_wei
    assert network.http("account")["charged_wei"] - charged_wei == paid_wei
