"""Rented machines between real processes: Ray comes up in the sandbox, time is paid by intervals, a machine that dies is replaced."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.system import gauntlet
from tests.system.gauntlet import Step
from tests.system.running import Network, until

pytestmark = pytest.mark.system
READY_S = 240.0
RELEASING_S = 0.4
"""A command that gives back is in the middle of it by then, or not: either way is played."""


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

    found = until("a measured card", card, READY_S)
    kinds = {(line["name"], line["kind"]) for line in found["lines"]}
    assert ("cpu_milli", "claimed") in kinds
    assert ("cpu_milli", "measured") in kinds
    assert ("links_per_s_milli", "measured") in kinds
    assert ("memory_read_kbytes_per_s", "measured") in kinds
    assert ("round_trip_us", "measured") in kinds


def test_a_rented_machine_is_paid_by_the_interval_replaced_when_it_dies_and_given_back(network: Network):
    """One of two: its time is charged as receipts; killed, its place is taken anew; released, both are free again."""
    until("two machines on offer", lambda: network.http("offers")["suitable"] == 2, READY_S)
    asked = ("--nodes", "1", "--hours", "0.3", "--mem", "1G", "--disk", "1G", "--no-mesh", "--yes")
    placed = network.told("rent", *asked)
    assert "rental" in placed, placed
    name = placed["rental"]["id"]
    until("Ray to run on it", lambda: settled(network, name), READY_S)
    until("an interval to be paid", lambda: rental(network, name)["paid_wei"] > 0, READY_S)

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


STEPS = tuple(map(Step, ("booked", "opened", "running", "paid", "extended", "released")))
ROUNDS = gauntlet.rounds(STEPS, ("gateway", "head", "validator", "worker", "chain"))


@pytest.mark.long
@pytest.mark.parametrize("victims", ROUNDS, ids=lambda victims: f"first-{victims[0]}")
def test_a_rental_survives_what_dies_at_each_of_its_steps(network: Network, victims: list[str]):
    """`kill -9` as soon as each step is seen: two machines become a cluster all the same, each interval is paid once, and both are given back.

    The gateway holds rental, relay and bookings; the supervisor starts all again. What the renter asks while the gateway is away, it asks again.
    """
    until("two machines on offer", lambda: network.http("offers")["suitable"] == 2, READY_S)
    before_wei, charged_wei = intervals_wei(network), network.http("account")["charged_wei"]
    known = {it["id"] for it in network.http("rentals")["rentals"]}
    wish = ("--nodes", "2", "--hours", "0.5", "--mem", "1G", "--disk", "1G", "--no-mesh", "--yes", "--json")
    asking = [network.started("rent", *wish)]
    try:
        name = until("it to be booked", lambda: new(network, known))
        booked = asked(network, name)

        def seen(step: Step) -> object:
            if step.name == "extended":
                return until("more time", lambda: extended(network, name, booked["until_s"]))
            if step.name == "released":
                until("all to run", lambda: whole_again(network, name), READY_S)
                asking.append(network.started("rent", "release", name, "--yes"))
                return time.sleep(RELEASING_S)
            return until(step.name, lambda: reached(asked(network, name), step.name), READY_S)

        def process(victim: str) -> str:
            place = {"head": 0, "worker": 1}.get(victim)
            return (
                victim
                if place is None
                else network.service_of(asked(network, name)["machines"][place]["operator"])
            )

        for killed in gauntlet.play(network, STEPS, victims, process, seen):
            print(f"{killed.process} at {killed.step}")
        until("its end", lambda: released(network, name), READY_S)
    finally:
        for command in asking:
            command.kill()
            command.communicate()
    until("both to be free", lambda: asked_offers(network) == 2, READY_S)
    found = asked(network, name)
    assert (found["state"], found["why"]) == ("ended", "released"), found["notes"]
    assert found["until_s"] == booked["until_s"] + 360
    assert intervals_wei(network) - before_wei == found["paid_wei"]
    assert network.http("account")["charged_wei"] - charged_wei == found["paid_wei"]
    hours = (found["ended_s"] - found["began_s"]) / 3600
    assert 0 < found["paid_wei"] <= hours * booked["price_hour_wei"] * 1.01


def asked(network: Network, name: str) -> dict[str, Any]:
    """As a renter does whose gateway is away for a moment."""
    return until("the gateway", lambda: answered(network, f"rentals/{name}"))


def answered(network: Network, path: str) -> Any:
    try:
        return network.http(path)
    except httpx.HTTPError:
        return None


def asked_offers(network: Network) -> int:
    found = answered(network, "offers")
    return 0 if found is None else found["suitable"]


def new(network: Network, known: set[str]) -> str | None:
    return next((it["id"] for it in network.http("rentals")["rentals"] if it["id"] not in known), None)


def reached(found: dict[str, Any], step: str) -> bool:
    assert found["state"] != "ended", found["notes"]
    phases = [it["phase"] for it in found["machines"]]
    return {
        "booked": True,
        "opened": any(it != "opening" for it in phases),
        "running": found["state"] == "running",
        "paid": found["paid_wei"] > 0,
    }[step]


def extended(network: Network, name: str, until_s: int) -> bool:
    """Asked once more only where the first asking came to nothing."""
    if asked(network, name)["until_s"] == until_s:
        network.cli("rent", "extend", name, "--hours", "0.1", "--yes")
    return asked(network, name)["until_s"] > until_s


def whole_again(network: Network, name: str) -> dict[str, Any] | None:
    found = asked(network, name)
    assert found["state"] != "ended", found["notes"]
    is_whole = found["state"] == "running" and all(it["phase"] == "ready" for it in found["machines"])
    return found if is_whole else None


def released(network: Network, name: str) -> bool:
    if asked(network, name)["state"] != "ended":
        network.cli("rent", "release", name, "--yes")
    return asked(network, name)["state"] == "ended"


def intervals_wei(network: Network) -> int:
    return sum(int(it["price_wei"]) for it in network.http("receipts")["receipts"])


@pytest.mark.long
def test_a_stay_outlives_its_gateway_and_the_chain(network: Network):
    """`kill -9` of the gateway while a machine comes up, and again while it is paid (with `CLUSTERAI_EVERY=1` of the chain as well): it stays
    the same machine throughout, each interval is paid once, and it is given back as ever."""
    until("two machines on offer", lambda: network.http("offers")["suitable"] == 2, READY_S)
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
    until("an interval to be paid", lambda: rental(network, name)["paid_wei"] > 0, READY_S)
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
