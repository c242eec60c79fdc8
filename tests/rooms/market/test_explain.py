"""A request that can't be placed is told what fails and what would help; a plan is told what each wish costs."""

from typing import Any

from clusterai.market.core.placement.explain import Relaxation, WhyNot, tolls, why_not
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.offers import Coordinate
from clusterai.market.core.placement.place import NoPlan, Plan, place
from clusterai.market.core.placement.request import Need, Request, single
from clusterai.protocol.offers import Field
from tests.rooms.market.machines import CITY_US, NOW, TOKEN, index_of, machine, name


def two_cities() -> Index:
    """Three dear machines here, five cheap ones 100 ms away."""
    dear = [machine(number, at_us=number * 1_000, price=2.0, region="eu") for number in range(1, 4)]
    cheap = [
        machine(number, at_us=CITY_US + number * 1_000, price=1.0, region="us") for number in range(5, 10)
    ]
    return index_of(*dear, *cheap)


def ask(index: Index, nodes: int, need: Need | None = None, **wishes: Any) -> WhyNot:
    request = Request(parts=single(nodes, need), **wishes)
    assert isinstance(place(index, request, None, NOW), NoPlan)
    return why_not(index, request, None, NOW)


def by(reasons: WhyNot, constraint: str) -> Relaxation:
    return next(it for it in reasons.relaxations if it.constraints == (constraint,))


def test_too_close() -> None:
    """Four machines within 2 ms: 1 ms more gives a plan, and so do three machines."""
    reasons = ask(two_cities(), 4, most_rtt_us=2_000)
    assert reasons.failing == ("round trip",)
    assert by(reasons, "round trip").text == "1.0 ms more round trip"
    assert by(reasons, "round trip").plan.diameter_us == 3_000
    assert by(reasons, "nodes").text == "3 machines instead of 4"


def test_too_dear() -> None:
    """The least that has to be paid more is said, in tokens."""
    reasons = ask(two_cities(), 3, regions=("eu",), most_price_wei=5 * TOKEN)
    assert reasons.failing == ("region", "price")
    assert by(reasons, "price").text == "1 CLAI more an hour"
    assert by(reasons, "region").text == "machines in us"
    assert reasons.relaxations[0].constraints == ("region",)


def test_the_cheapest_relaxation_comes_first() -> None:
    """By the renter's own measure: whoever pays much for closeness is shown the dear city first."""
    dear = [machine(number, at_us=number * 1_000, price=2.0) for number in range(1, 4)]
    wide = [machine(number, at_us=CITY_US + number * 10_000, price=1.0) for number in range(5, 8)]
    wishes: dict[str, Any] = {"near": Coordinate(0, 0, 0, 0), "near_us": 10_000, "most_price_wei": 5 * TOKEN}
    for us_wei, first in ((0, "near"), (10**6, "price")):
        reasons = ask(index_of(*dear, *wide), 3, us_wei=us_wei, **wishes)
        assert set(reasons.failing) == {"near", "price"}
        assert reasons.relaxations[0].constraints == (first,)


def test_how_much_further() -> None:
    """The least distance at which enough machines stand, to within a millisecond or so."""
    reasons = ask(two_cities(), 4, near=Coordinate(0, 0, 0, 0), near_us=10_000, us_wei=0)
    text = by(reasons, "near").text
    assert text.startswith(("95.", "96.")), text


def test_too_few_operators() -> None:
    """The least number of machines of one operator that gives a plan."""
    index = index_of(*(machine(number, operator=name(1_000 + number % 2)) for number in range(1, 7)))
    reasons = ask(index, 4, most_per_operator=1)
    assert by(reasons, "per operator").text == "2 machines of one operator instead of 1"


def test_thresholds_give_way_no_further_than_needed() -> None:
    """Of 4, 8 and 16 processors where 32 are asked, 16 are offered."""
    index = index_of(
        *(machine(number, cpu_milli=cpu * 1_000) for number, cpu in enumerate((4, 8, 16, 16), 1))
    )
    assert by(ask(index, 2, Need(cpu_milli=32_000)), "cpu").text == "16 cores instead of 32"
    assert by(ask(index, 3, Need(cpu_milli=32_000)), "cpu").text == "8 cores instead of 32"


def test_other_kinds_and_claims() -> None:
    """What else there is is named: another GPU, another class, machines that nobody measured."""
    index = index_of(
        machine(1, gpu="l4", gpus=1, hardware="arm64"),
        machine(2, gpu="h100", gpus=1, hardware="arm64", measurements=()),
    )
    assert by(ask(index, 1, Need(gpu="a100")), "gpu").text == "GPU l4"
    assert by(ask(index, 1, Need(hardware="x86-64-v4")), "hardware").text == "hardware arm64"
    claimed = ask(index, 1, Need(gpu="h100", measured=int(Field.GPU)))
    assert by(claimed, "measured").plan.nodes == (name(2),)


def test_where_no_single_constraint_is_enough_two_are_named_with_how_much_of_each() -> None:
    """Region and price both fail: neither alone helps, and it is said how much more has to be paid where."""
    index = index_of(machine(1, price=3.0, region="us"))
    reasons = ask(index, 1, regions=("eu",), most_price_wei=TOKEN)
    assert reasons.failing == ()
    (way,) = reasons.relaxations
    assert way.constraints == ("region", "price")
    assert way.text == "machines in us, and 2 CLAI more an hour"


def test_of_two_wishes_neither_gives_way_further_than_it_has_to() -> None:
    """Of machines with 4, 8 and 16 cores where 32 are asked, the largest, at what they cost; not the cheapest."""
    index = index_of(
        *(machine(it, cpu_milli=it * 1_000, price=it, longest_s=it * 3_600) for it in (4, 8, 16, 17))
    )
    asked: dict[str, Any] = {"most_price_wei": 3 * TOKEN, "duration_s": 3_600}
    (way,) = ask(index, 2, Need(cpu_milli=32_000), **asked).relaxations
    assert way.constraints == ("cpu", "price")
    assert way.text == "16 cores instead of 32, and 30 CLAI more an hour"
    assert {it.cpu_milli for it in way.plan.offers} == {16_000, 17_000}
    two = ask(index, 1, Need(cpu_milli=32_000), duration_s=20 * 3_600)
    assert [it.text for it in two.relaxations] == ["17 cores instead of 32, and 17 hours instead of 20"]


def test_only_the_cheapest_pairs_are_worked_out_the_others_are_named() -> None:
    """Four things fail at once in pairs of machines: the three cheapest ways out say by how much."""
    index = index_of(
        machine(1, price=5.0, region="us"),
        machine(2, price=1.0, region="us", memory_bytes=2**30),
        machine(3, price=4.0, memory_bytes=2**30),
        machine(4, price=2.0, region="us", cpu_milli=1_000),
        machine(5, price=6.0, cpu_milli=1_000),
    )
    need = Need(cpu_milli=2_000, memory_bytes=2**31)
    ways = ask(index, 1, need, regions=("eu",), most_price_wei=3 * TOKEN, us_wei=0).relaxations
    told = {it.constraints: it.text for it in ways}
    assert told == {
        ("memory", "region"): "1 GiB of memory instead of 2, and machines in us",
        ("cpu", "region"): "1 core instead of 2, and machines in us",
        ("memory", "price"): "1 GiB of memory instead of 2, and 1 CLAI more an hour",
        ("region", "price"): "neither region nor price",
        ("cpu", "price"): "neither cpu nor price",
    }


def test_how_many_satisfy_each_thing_alone_is_said() -> None:
    """A person sees where the offers went."""
    index = two_cities()
    index.take((name(1),))
    reasons = ask(index, 3, Need(cpu_milli=8_000), regions=("eu",))
    counts = {it.constraint: it.offers for it in reasons.narrowings}
    assert counts == {"standing": 8, "free": 7, "cpu": 8, "region": 3, "placed": 8}
    assert reasons.suitable == 2


def test_each_relaxation_was_tried() -> None:
    """Every plan that is named keeps to all the rest that was asked."""
    reasons = ask(two_cities(), 4, most_rtt_us=2_000, most_price_wei=6 * TOKEN, most_per_operator=1)
    for it in reasons.relaxations:
        if it.constraints != ("round trip",):
            assert it.plan.diameter_us <= 2_000
        if it.constraints != ("price",):
            assert it.plan.price_wei <= 6 * TOKEN


def test_what_each_wish_costs() -> None:
    """The region costs 3 tokens an hour, the spread nothing."""
    index = two_cities()
    request = Request(parts=single(3), regions=("eu",), most_per_operator=1, us_wei=1_000)
    plan = place(index, request, None, NOW)
    assert isinstance(plan, Plan)
    region, spread = tolls(index, request, plan, None, NOW)
    assert (region.constraint, region.price_wei, region.price_without_wei) == ("region", 6 * TOKEN, 3 * TOKEN)
    assert region.saved_wei == 3 * TOKEN
    assert (spread.constraint, spread.saved_wei) == ("per operator", 0)


def test_fewer_gpus_of_the_same_kind_are_told() -> None:
    """As many as there are, and no other kind of them."""
    index = index_of(
        machine(1, gpu="h100", gpus=4), machine(2, gpu="h100", gpus=2), machine(3, gpu="l4", gpus=8)
    )
    fewer = by(ask(index, 1, Need(gpu="h100", gpus=8)), "gpu count")
    assert (fewer.text, fewer.plan.nodes) == ("4 GPUs of each machine instead of 8", (name(1),))
    assert (
        by(ask(index, 2, Need(gpu="h100", gpus=8)), "gpu count").text == "2 GPUs of each machine instead of 8"
    )


def test_where_nobody_has_a_gpu_going_without_is_told() -> None:
    """Another kind is told first where there is one; where there is none, that it is none."""
    asked = Request(parts=single(1, Need(gpu="h100", gpus=1)), us_wei=0)
    bare = machine(1)
    nothing = why_not(index_of(bare), asked, None, NOW)
    assert [(it.constraints, it.text) for it in nothing.relaxations] == [(("gpus",), "GPU none")]
    other = why_not(index_of(bare, machine(2, price=0.5, gpu="l4", gpus=1)), asked, None, NOW)
    assert (other.relaxations[0].constraints, other.relaxations[0].text) == (("gpu",), "GPU l4")


def test_a_disk_is_asked_for_as_memory_is() -> None:
    """A machine whose operator lends less of it isn't planned with, and the most that is there is told."""
    index = index_of(machine(1, disk_bytes=2**30), machine(2, disk_bytes=3 * 2**30, price=2.0))
    found = place(index, Request(parts=single(1, Need(disk_bytes=2**31))), None, NOW)
    assert isinstance(found, Plan)
    assert found.nodes == (name(2),)
    reasons = ask(index, 1, Need(disk_bytes=4 * 2**30))
    assert by(reasons, "disk").text == "3 GiB of disk instead of 4"


def test_nobody_is_planned_with_for_longer_than_it_lets_itself_be_rented() -> None:
    """The longest time for which there is a group is told."""
    index = index_of(*(machine(it, longest_s=it * 3_600, price=it) for it in (1, 2, 6)))
    found = place(index, Request(parts=single(1), duration_s=2 * 3_600), None, NOW)
    assert isinstance(found, Plan)
    assert found.nodes == (name(2),)
    reasons = ask(index, 2, duration_s=4 * 3_600)
    assert reasons.failing == ("duration",)
    assert by(reasons, "duration").text == "2 hours instead of 4"


def test_fewer_machines_and_one_wish_less_are_a_way_out_too() -> None:
    """Of three machines with a GiB each, four with two can't be had; nor a GPU where there is none."""
    index = index_of(*(machine(it, memory_bytes=2**30) for it in (1, 2, 3)))
    reasons = ask(index, 4, Need(memory_bytes=2**31))
    (way,) = reasons.relaxations
    assert way.constraints == ("memory", "nodes")
    assert way.text == "3 machines instead of 4, and 1 GiB of memory instead of 2"
    reasons = ask(index, 1, Need(memory_bytes=2**31, gpu="h100", gpus=1))
    assert [it.constraints for it in reasons.relaxations] == [("memory", "gpus")]
