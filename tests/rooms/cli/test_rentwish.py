"""The flags of `offers` and `rent`: what they come to, at each end, and what is refused with how to write it."""

from typing import Any

import pytest

from clusterai.cli import rentplan
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.rentwish import Flags, plan_request, seconds
from clusterai.sdk.offers import NotPlaced
from clusterai.sdk.offershapes import Narrowed, PlanRequest, Relaxed, Wanted, WhyNot

TOKEN = 10**9


def test_flags_come_to_a_request():
    """Units as people write them; nothing said is nothing asked."""
    assert plan_request(Flags()) == PlanRequest(nodes=1, duration_s=3_600)
    asked = plan_request(
        Flags(
            nodes=4,
            hours="0.5",
            cpu="1.5",
            memory="4G",
            gpu="H100:8",
            max_price="2.5",
            region="eu, us",
            near="20ms",
            max_rtt="0.5",
            measured="cpu,gpu",
            same_operator="no",
        ),
        hold=False,
    )
    assert asked == PlanRequest(
        nodes=4,
        duration_s=1_800,
        need=Wanted(cpu_milli=1_500, memory_bytes=4 * 2**30, gpu="h100", gpus=8, measured=("cpu", "gpu")),
        max_price_wei=5 * TOKEN // 2,
        regions=("eu", "us"),
        near_us=20_000,
        max_rtt_us=500,
        max_per_operator=1,
        hold=False,
    )


@pytest.mark.parametrize(
    ("hours", "found"), [("2", 7_200), ("90m", 5_400), ("1d", 86_400), ("60s", 60), ("720", 2_592_000)]
)
def test_hours_are_numbers_or_durations(hours: str, found: int):
    """From a minute to 30 days, both ends included."""
    assert seconds(hours) == found


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": 0}, {"nodes": 101}, {"hours": "0"}, {"hours": "59s"}, {"hours": "721"}, {"hours": "soon"}, {"hours": "nan"},
        {"hours": "1e999999"}, {"cpu": "-1"}, {"cpu": "many"}, {"cpu": "4294968"}, {"memory": "4 apples"}, {"gpu": "h100:x"},
        {"gpu": "h100:256"}, {"gpu": "h 100"}, {"gpu": "x" * 33}, {"max_price": "-1"}, {"max_price": "cheap"}, {"region": "e_u"},
        {"region": ",".join(f"r{it}" for it in range(17))}, {"near": "0ms"}, {"near": "2001ms"}, {"near": "inf"},
        {"max_rtt": "x"}, {"measured": "price"}, {"attested": "soc2@you"}, {"same_operator": "0"}, {"same_operator": "101"}, {"same_operator": "maybe"},
        {"one_price": True},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_it_is_asked(changes: dict[str, Any]):
    """Exit code 2."""
    with pytest.raises(Failure) as failed:
        plan_request(Flags(**changes))
    assert failed.value.code == Exit.USAGE


@pytest.mark.parametrize(
    ("changes", "cure"),
    [({"measured": "cpu,foo"}, "hardware, cpu, memory, gpu, "), ({"attested": "soc2@me"}, "soc2-type2@0x… of who attests it")],
)  # fmt: skip
def test_a_name_that_is_none_is_answered_with_those_that_are(changes: dict[str, Any], cure: str):
    """The name, and what may stand there."""
    with pytest.raises(Failure) as failed:
        plan_request(Flags(**changes))
    assert cure in failed.value.next
    assert next(iter(changes.values())).split(",")[-1] in str(failed.value)


def test_one_price_is_asked_for_with_its_reserve():
    """The most that the group may cost goes with it."""
    asked = plan_request(Flags(nodes=2, one_price=True, max_price="3"))
    assert (asked.pricing, asked.max_price_wei) == ("uniform", 3 * TOKEN)


@pytest.mark.parametrize(("text", "most"), [(None, None), ("yes", None), ("no", 1), ("3", 3), ("100", 100)])
def test_machines_of_one_operator(text: str | None, most: int | None):
    """None of two, so many, or as it comes."""
    assert plan_request(Flags(same_operator=text)).max_per_operator == most


def test_a_group_that_can_not_be_placed_is_told_with_ways_out():
    """The failing wish, and the cheapest relaxations first; without any, how many satisfy each wish."""
    ways = [
        Relaxed(
            constraints=["price"],
            text=f"{it} CLAI more an hour",
            nodes=2,
            operators=1,
            price_hour_wei=it * TOKEN,
            diameter_us=0,
        )
        for it in range(1, 6)
    ]
    why = WhyNot(
        suitable=3, failing=["price"], narrowings=[Narrowed(constraint="cpu", offers=9)], relaxations=ways
    )
    failure = rentplan.not_placed(NotPlaced("", why))
    assert failure.why == "price: giving up one of these is enough"
    assert failure.next.startswith("1 CLAI more an hour (price): 2 machines of 1 operator for 1 CLAI an hour")
    assert failure.next.count("CLAI more") == 3
    nothing = WhyNot(suitable=0, failing=[], narrowings=why.narrowings, relaxations=[])
    assert "cpu 9" in rentplan.not_placed(NotPlaced("", nothing)).why
