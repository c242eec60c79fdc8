"""Why a node gets no work: each cause is found, stands before what it rules out, and names the number that would change it."""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from clusterai.cli.explaining import Finding, findings
from clusterai.node.adapters.watch import LinkView, ModelView, Status
from clusterai.node.config import Config, JobsConfig, ModelConfig, RentalsConfig
from clusterai.node.core.willing import Hours, Pause, window
from clusterai.runtime.adapters.config import GatewayConfig
from clusterai.sdk.shapes import Factor, LendingRank, NodeModel, Rank, RankedNode

OWNER = "0x" + "4e" * 20
CONFIG = Config(
    data=Path("data"),
    network=Path("network.json"),
    key=Path("hot.key"),
    owner=OWNER,
    gateways=(GatewayConfig(owner="0x" + "47" * 20, url="wss://gateway.example:1"),),
    models=(ModelConfig(name="tiny", slots=8),),
    jobs=JobsConfig(),
)
STATUS = Status(
    pid=7,
    at_s=0,
    owner=OWNER,
    hot=OWNER,
    phase="running",
    chain_block=7,
    chain_trouble="",
    registered=True,
    barred=False,
    running=0,
    receipts=0,
    tokens=0,
    owed_wei=0,
    vouched_wei=0,
    committed_wei=0,
    claimed_wei=0,
    settled_wei=0,
    links=(LinkView("0x" + "47" * 20, "wss://gateway.example:1", True, "", 3.0),),
    models=(ModelView("tiny", "0x00", "ready", 0, 0, 2.5),),
)
RANK = Rank(
    model="0x" + "6d" * 32,
    name="tiny",
    obstacle="",
    place=1,
    of=5,
    share=0.4,
    price_wei=500,
    wait_s=0.1,
    doubt=1.0,
    cheapest_wei=600,
    quickest_s=0.1,
    answers_an_hour=40.0,
    all_answers_an_hour=100.0,
)
NODE = RankedNode(
    provider=OWNER,
    stake_wei=10**12,
    barred=False,
    linked=True,
    state="ready",
    models=[NodeModel(name="tiny", address="0x00", input_price_wei=100, output_price_wei=400, slots=8)],
    quality=1.0,
    ranks=[RANK],
    jobs=LendingRank(core_hour_wei=10, place=1, of=3, cheapest_wei=10, checks=["wasm", "pinned"]),
)
NOON_S = 1_767_960_000.0


def told(
    status: dict[str, Any] | None = None,
    node: dict[str, Any] | None = None,
    rank: dict[str, Any] | None = None,
    schedule: Hours | None = None,
) -> list[Finding]:
    ranked = msgspec.structs.replace(NODE, ranks=[msgspec.structs.replace(RANK, **(rank or {}))])
    return findings(
        CONFIG,
        msgspec.structs.replace(STATUS, **(status or {})),
        msgspec.structs.replace(ranked, **(node or {})),
        "",
        schedule,
        NOON_S,
    )


def of(found: list[Finding], name: str) -> Finding:
    return next(it for it in found if it.name.strip() == name)


def test_a_node_that_gets_work_has_nothing_to_cure():
    """All is good, and every line says what was found."""
    found = told()
    assert {it.state for it in found} == {"good"}
    assert all(it.found for it in found)
    assert not any(it.cure for it in found)


def test_a_node_that_does_not_run_is_told_that_alone():
    """What comes behind it would only confuse."""
    (only,) = findings(CONFIG, None, NODE, "", None, NOON_S)
    assert (only.name, only.state) == ("daemon", "stops")


def test_a_dear_price_names_the_factors_that_would_do():
    """At 0.8 x the price it would be second of five, at 0.6 x the first."""
    found = told(rank={"place": 3, "share": 0.2, "next_price_wei": 400, "first_price_wei": 300})
    price = of(found, "price tiny")
    assert price.state == "limits"
    assert "3rd of 5" in price.found
    assert "at 0.8 x your price (400 wei) you would be 2nd" in price.cure
    assert "at 0.6 x your price (300 wei) you would be 1st" in price.cure


def test_the_last_of_several_is_told_that_it_gets_nothing_for_now():
    """Routing takes the better of two: only when others are busier is it the last one's turn. Where no price helps that is said."""
    price = of(told(rank={"place": 5, "share": 0.0}), "price tiny")
    assert price.state == "limits"
    assert "5th of 5: 0% of the requests while all are as busy as now" in price.found
    assert "no price makes up" in price.cure


def test_the_hours_say_when_they_begin():
    """Outside of them the pause is told with the time that is left."""
    nights = Hours((window(("fri",), "22:00", "06:00"),), ZoneInfo("UTC"), "UTC")
    found = told({"pauses": (Pause("hours", "outside its hours", "set `hours`"),)}, schedule=nights)
    assert of(found, "paused").state == "stops"
    assert "they begin in 10.0 h" in of(found, "paused").found


@pytest.mark.parametrize(
    ("status", "name", "words"),
    [
        ({"phase": "draining"}, "draining", "being stopped"),
        ({"pauses": (Pause("operator", "paused by its owner", "clusterai node resume"),)}, "paused", "owner"),
        ({"registered": False}, "chain", "doesn't act for its owner"),
        ({"barred": True}, "chain", "barred"),
        ({"links": (LinkView("0x", "wss://g:1", False, "unreachable", None),)}, "link", "unreachable"),
        ({"models": (ModelView("tiny", "", "loading", 0, 0, 0.0),)}, "model tiny", "loading"),
        ({"running": 8 + CONFIG.queue}, "queue", "72 orders"),
    ],
)
def test_what_stops_all_work_here_is_found(status: dict[str, Any], name: str, words: str):
    """Each stops it, says what was found, and what to do."""
    it = of(told(status), name)
    assert it.state == "stops"
    assert words in it.found
    assert it.cure


@pytest.mark.parametrize(
    ("node", "name", "state"),
    [
        ({"state": "suspended for 8 s: engine_failed"}, "gateway", "stops"),
        ({"state": "offline", "linked": False}, "gateway", "stops"),
        ({"stake_wei": 0}, "stake", "stops"),
        ({"jobs": None}, "jobs", "limits"),
        (
            {
                "jobs": LendingRank(
                    core_hour_wei=20, place=2, of=3, cheapest_wei=10, next_wei=10, checks=["wasm", "pinned"]
                )
            },
            "jobs",
            "limits",
        ),
    ],
)
def test_what_the_gateway_holds_against_it_is_found(node: dict[str, Any], name: str, state: str):
    """Its state, stake and lending, each with a cure."""
    it = of(told(node=node), name)
    assert it.state == state
    assert it.cure


def test_slowness_bad_standing_unpaid_credit_and_no_demand_limit():
    """None of them stops all work; each is told with its number."""
    found = told(
        status={"owed_wei": 2 * CONFIG.credit_wei},
        rank={"wait_s": 1.0, "all_answers_an_hour": 0.0},
        node={
            "quality": 0.5,
            "explained": [Factor(name="experience", value=0.5, found="new", source="settled", cure="work")],
        },
    )
    ranked = [it for it in found if it.state == "limits"]
    assert {it.name.strip() for it in ranked} >= {"credit", "standing", "experience"}
    slow = told(rank={"wait_s": 1.0, "all_answers_an_hour": 0.0})
    assert "10.0 x as quick" in of(slow, "latency tiny").cure
    assert of(slow, "demand tiny").state == "limits"


def test_an_unmeasured_machine_limits_who_rents_it_out():
    """Who only answers is routed by its wait and not by a card; who rents out is told that all is claimed."""
    rents = msgspec.structs.replace(CONFIG, rentals=RentalsConfig(hour_wei=1))
    for config, measured, state in ((CONFIG, None, "good"), (rents, 0, "limits"), (rents, 7, "good")):
        found = findings(config, STATUS, NODE, "", None, NOON_S, measured)
        assert of(found, "hardware").state == state
    assert "7 fields" in of(findings(rents, STATUS, NODE, "", None, NOON_S, 7), "hardware").found


def test_without_a_gateways_word_the_rest_is_told():
    """Why there is none is a line of its own."""
    found = findings(CONFIG, STATUS, None, "no gateway answers", None, NOON_S)
    assert of(found, "gateway").found == "no gateway answers"
    assert of(found, "queue").state == "good"
