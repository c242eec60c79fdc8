"""A real node offers its machine to a real gateway: listed, renewed by each start, gone when it drains or dies."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterai.market.core.placement.book import HoldConfirmed
from clusterai.protocol import canonical
from clusterai.protocol.ids import checksummed, digest
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.sdk import Client
from clusterai.sdk.offers import NotPlaced, Offers
from clusterai.sdk.offershapes import PlanRequest
from tests.rooms.gateway.bed import TOKEN, Bed

RENTALS = {"hour_wei": TOKEN // 2, "region": "eu-de", "cpu_milli": 1_500, "memory_bytes": 2**30}


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path, providers=0, nodes=1, wallets=False)
    made.node_settings = {"rentals": RENTALS}
    with made as it:
        yield it


def test_a_node_offers_its_machine_and_takes_it_back(bed: Bed):
    """With what it lends at its price; SIGTERM withdraws it, a start offers it anew, a kill takes it out, and a hold outlives both."""
    with Client(bed.url, bed.key) as client:
        offers = Offers(client)
        bed.until(lambda: offers.list().suitable == 1, "the offer")
        (machine,) = offers.list().offers
        assert machine.node == checksummed(bed.nodes[0].hot.address)
        assert machine.operator == checksummed(bed.nodes[0].owner.address)
        assert (machine.price_wei.value, machine.region.value, machine.cpu_milli.value) == (
            TOKEN // 2,
            "eu-de",
            1_500,
        )
        assert machine.hardware.value
        bed.kill("node-0", signal.SIGTERM)
        bed.until(lambda: offers.list().standing == 0, "the withdrawal")
        bed.start_node(0)
        bed.until(lambda: offers.list().suitable == 1, "the new offer")
        plan = offers.plan(PlanRequest(nodes=1, duration_s=3_600))
        assert offers.list().taken == 1
        bed.kill("node-0")
        bed.until(lambda: offers.list().standing == 0, "its going")
        bed.start_node(0)
        bed.until(lambda: offers.list().standing == 1, "its return")
        assert offers.list().taken == 1
        assert bed.fetch("DELETE", f"/v1/clusterai/rentals/plan/{plan.hold}", None, bed.key)[0] == 204
        assert offers.list().suitable == 1


def test_a_gateway_that_was_killed_remembers_what_it_held(bed: Bed):
    """Between the plan and its confirmation: the machine comes back with its link, and is still held for who saw the plan."""
    with Client(bed.url, bed.key) as client:
        offers = Offers(client)
        bed.until(lambda: offers.list().suitable == 1, "the offer")
        plan = offers.plan(PlanRequest(nodes=1, duration_s=3_600))
        bed.kill("gateway")
        bed.start_gateway()
        bed.until(lambda: offers.list().standing == 1, "the offer again")
        assert offers.list().taken == 1
        with pytest.raises(NotPlaced):
            offers.plan(PlanRequest(nodes=1, duration_s=3_600))
        assert bed.fetch("DELETE", f"/v1/clusterai/rentals/plan/{plan.hold}", None, bed.key)[0] == 204
        assert offers.list().suitable == 1


def test_a_booking_that_nothing_rents_is_given_back(bed: Bed):
    """The gateway was killed when the machines were booked and the rental wasn't written down yet: they don't stand idle for its time."""
    with Client(bed.url, bed.key) as client:
        offers = Offers(client)
        bed.until(lambda: offers.list().suitable == 1, "the offer")
        plan = offers.plan(PlanRequest(nodes=1, duration_s=3_600))
        bed.kill("gateway")
        journal = SqliteJournal(bed.folder / "gateway" / "market.db")
        journal.append([canonical.encode(HoldConfirmed(digest(plan.hold), int(time.time()) + 3_600))])
        journal.close()
        bed.start_gateway()
        bed.until(lambda: offers.list().suitable == 1, "its return")
        assert bed.log().count("unwanted_booking") == 1
