"""Prices and plans: from offers to who does it, and from refusals to the cure."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core.segments import RateRules
from clusterai.work.batch.core.plan import (
    RULES,
    Offer,
    assign,
    cheat_gain_wei,
    plan,
    refusals,
    sabotage_wei,
    slots,
)
from clusterai.work.batch.core.prices import (
    Tariff,
    audit_fee_wei,
    billable_wei,
    hourly_wei,
    least_wei,
    total_wei,
)
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import GIB, Image, JobArray, JobSpec, OutOfRange, Resources, Root

D = bytes(range(32))
PINNED = JobSpec(
    name="pi",
    check="pinned",
    image=Image("base", D, "python"),
    argv=("python",),
    segments=20,
    resources=Resources(cpu_milli=1000, memory_bytes=GIB, disk_bytes=GIB, time_s=3600),
)
LOOSE = msgspec.structs.replace(PINNED, check="unverified", segments=1)
MODULE = JobSpec(name="m", check="wasm", image=Image("wasm", D), fuel=10**12, segments=20)
TARIFF = Tariff(core_hour_wei=100, memory_gib_hour_wei=20, disk_gib_hour_wei=3, giga_fuel_wei=7)


PROOF = RateRules(saving_ppm=700_000, sensitivity_ppm=990_000, corrupt_ppm=200_000, margin_ppm=200_000)
METERED = msgspec.structs.replace(PROOF, saving_ppm=1_000_000)


def offer(name: str = "a", **fields: Any) -> Offer:
    return msgspec.structs.replace(
        Offer(
            provider=f"0x{name * 40}",
            tariff=TARIFF,
            bases=(("python", D),),
            cpu_milli=4000,
            memory_bytes=8 * GIB,
            disk_bytes=8 * GIB,
            stake_wei=1230,
            valid_in_a_row=1000,
        ),
        **fields,
    )


def test_an_hour_of_a_core():
    """Cores, memory and disk add up; unverified work is cheaper."""
    assert hourly_wei(TARIFF, PINNED) == total_wei(TARIFF, PINNED) == 123
    assert hourly_wei(TARIFF, LOOSE) == 111
    half = msgspec.structs.replace(PINNED, resources=Resources(cpu_milli=1000, time_s=1800))
    assert total_wei(TARIFF, half) == 62


def test_a_module_costs_its_fuel():
    """By 10^9 units: three tenths whatever it used, and the rest by that."""
    assert total_wei(TARIFF, MODULE) == 7000
    assert billable_wei(MODULE, 7000, 5 * 10**11) == 4550
    assert billable_wei(MODULE, 7000, 10**15) == 7000


def test_finished_segments_are_paid_and_the_machine():
    """Three tenths for what was set aside; half of the segments is half of the rest."""
    assert least_wei(123) == 37
    assert [billable_wei(PINNED, 123, units) for units in (0, 10, 20, -3, 10**9)] == [37, 80, 123, 37, 123]


def test_the_auditor_gets_more_than_a_segment_costs():
    """A fifth more than a twentieth of the price; nobody is paid to audit what can't be."""
    assert audit_fee_wei(PINNED, 10_000) == 600
    assert audit_fee_wei(LOOSE, 10_000) == 0


@pytest.mark.parametrize("field", Tariff.__struct_fields__)
def test_a_tariff_is_bounded(field: str):
    """No price is negative or beyond what exists."""
    for wrong in (-1, 10**15 + 1):
        with pytest.raises(OutOfRange):
            msgspec.structs.replace(TARIFF, **{field: wrong})


@given(st.integers(0, 10**12), st.integers(0, 2**62), st.integers(1, 1000))
def test_bills_add_up(compensation: int, units: int, segments: int):
    """No bill exceeds the compensation, more units never cost less, and all units cost all of it."""
    spec = msgspec.structs.replace(PINNED, segments=segments)
    bill = billable_wei(spec, compensation, units)
    assert 0 <= bill <= compensation
    assert bill <= billable_wei(spec, compensation, units + 1)
    assert billable_wei(spec, compensation, segments) == compensation


def test_the_cheapest_gets_it():
    """Cheapest first; the plan names price, time, and how often it is audited."""
    dear = msgspec.structs.replace(TARIFF, core_hour_wei=200)
    found = plan(JobArray(PINNED), Wishes(), [offer("b", tariff=dear), offer("a"), offer("c")], PROOF)
    assert found.placed
    assert [one.provider[2] for one in found.candidates] == ["a", "c", "b"]
    assert (found.total_wei, found.hourly_wei, found.eta_s, found.leases) == (123, 123, 3600, 1)
    assert found.verification.audit_rate_ppm == 96_419
    assert found.verification.reexecuted_ppm == 4821
    assert found.candidates[0].cheat_gain_wei < 0
    assert "probability 9.64 %" in found.verification.promise
    assert "longer than 3 min, its share" in found.verification.limits[-1]
    assert found.numbers["stake_wei"] == "settled"


def test_a_meter_that_is_overstated_saves_the_whole_price():
    """At a rate for s = 0.7 R claiming all fuel pays, and the plan says so; at one for s = R it doesn't."""
    many = Offer(provider="0xaa", tariff=TARIFF, stake_wei=70_000, valid_in_a_row=1000)
    module = msgspec.structs.replace(MODULE, resources=Resources(cpu_milli=1000))
    assert "claiming more fuel" in " ".join(
        plan(JobArray(module), Wishes(), [many], PROOF).verification.limits
    )
    assert "claiming more fuel" not in " ".join(
        plan(JobArray(module), Wishes(), [many], METERED).verification.limits
    )


def test_a_newcomer_is_always_audited():
    """Without stake or history the rate is one; and where even that doesn't deter, the plan says so instead of promising."""
    found = plan(JobArray(PINNED), Wishes(), [offer(stake_wei=0, valid_in_a_row=0)], METERED)
    assert found.verification.audit_rate_ppm == 1_000_000
    assert found.verification.reexecuted_ppm == 50_000
    assert found.candidates[0].cheat_gain_wei > 0
    assert "too little at stake" in found.verification.limits[0]
    trusted = plan(JobArray(PINNED), Wishes(), [offer(stake_wei=100, valid_in_a_row=0)], METERED)
    assert trusted.candidates[0].cheat_gain_wei < 0


def test_unverified_is_called_so():
    """No audit, no promise, and the way out is named."""
    found = plan(JobArray(LOOSE), Wishes(), [offer()])
    assert found.placed
    assert found.verification.audit_rate_ppm == found.audit_fee_wei == 0
    assert found.verification.promise.startswith("unverified")
    assert "class: pinned" in found.verification.limits[0]


def test_an_array_is_spread():
    """Slots fill up from the cheapest on, and then in rounds."""
    array = JobArray(PINNED, tuple(Root(bytes([i]) * 32, 1, 1) for i in range(10)))
    found = plan(array, Wishes(), [offer("a"), offer("b", cpu_milli=2000)])
    assert (found.leases, found.total_wei, found.eta_s, found.hourly_wei) == (10, 1230, 7200, 123 * 6)


def test_replicas_are_different_providers():
    """Three providers for three replicas; two can't."""
    offers = [offer("a"), offer("b"), offer("c")]
    found = plan(JobArray(PINNED), Wishes(replicas=3), offers)
    assert (found.placed, found.leases, found.total_wei) == (True, 3, 369)
    found = plan(JobArray(PINNED), Wishes(replicas=3), offers[:2])
    assert not found.placed
    assert [it.code for it in found.reasons] == ["replicas"]


@given(st.lists(st.integers(100, 9000), min_size=1, max_size=6), st.integers(1, 20), st.integers(1, 4))
def test_every_lease_gets_a_provider(cores: list[int], tasks: int, replicas: int):
    """Whoever is able, and no provider twice for one task."""
    able = [(offer(chr(97 + at), cpu_milli=milli), at) for at, milli in enumerate(cores) if milli >= 1000]
    found = assign(able, PINNED, tasks, replicas)
    if len(able) < replicas:
        assert found == []
        return
    assert len(found) == tasks * replicas
    for task in range(tasks):
        assert len(set(found[task * replicas : (task + 1) * replicas])) == replicas


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], Wishes]] = [
    ("barred", {"barred": True}, {}, Wishes()),
    ("away", {"linked": False}, {}, Wishes()),
    ("full", {"takes_more": False}, {}, Wishes()),
    ("class", {"checks": ("wasm",)}, {}, Wishes()),
    ("stake", {"stake_wei": 4}, {}, Wishes()),
    ("image", {"bases": ()}, {}, Wishes()),
    ("image", {"bases": (("python", D[::-1]),)}, {}, Wishes()),
    ("image", {}, {"image": Image("oci", D, "debian")}, Wishes()),
    ("cpu", {"cpu_milli": 500}, {}, Wishes()),
    ("memory", {"memory_bytes": GIB // 2}, {}, Wishes()),
    ("disk", {"disk_bytes": GIB // 2}, {}, Wishes()),
    ("processes", {"processes": 2}, {}, Wishes()),
    ("time", {"most_time_s": 60}, {}, Wishes()),
    ("segments", {"most_segments": 5}, {}, Wishes()),
    ("deadline", {"queue_s": 10}, {}, Wishes(deadline_s=3605)),
    ("price", {}, {}, Wishes(max_price_wei=100)),
    ("hourly", {}, {}, Wishes(max_hourly_wei=100)),
]


@pytest.mark.parametrize(
    ("code", "has", "asks", "wishes"), REFUSED, ids=[f"{at}-{it[0]}" for at, it in enumerate(REFUSED)]
)
def test_each_refusal_has_its_code(code: str, has: dict[str, Any], asks: dict[str, Any], wishes: Wishes):
    """One reason of the closed list, in words with the numbers."""
    spec = msgspec.structs.replace(PINNED, **asks)
    found = refusals(offer(**has), spec, wishes, least_stake_wei=5)
    assert [it.code for it in found] == [code]
    refused = plan(JobArray(spec), wishes, [offer(**has)], least_stake_wei=5)
    assert not refused.placed
    assert [it.code for it in refused.reasons] == [code]
    curable = code in (
        "cpu",
        "memory",
        "disk",
        "processes",
        "time",
        "segments",
        "deadline",
        "price",
        "hourly",
    )
    assert (refused.relaxation is not None) == curable
    if refused.relaxation:
        assert "→" in refused.relaxation.changes[0]


@pytest.mark.parametrize(
    ("code", "has", "asks"),
    [
        ("network", {}, {"network": True}),
        ("gpu", {}, {"resources": Resources(gpus=1)}),
        ("gpu", {"gpus": 1, "gpu": "A100"}, {"resources": Resources(gpus=1, gpu="H100")}),
    ],
)
def test_what_only_unverified_jobs_ask_for(code: str, has: dict[str, Any], asks: dict[str, Any]):
    """Networks and GPUs are lent or not."""
    assert [it.code for it in refusals(offer(**has), msgspec.structs.replace(LOOSE, **asks), Wishes())] == [
        code
    ]


def test_the_cheapest_relaxation():
    """The fewest changes, then the lowest price; changes that follow from each other are named together."""
    small = offer("a", cpu_milli=500, memory_bytes=GIB // 2)
    dear = offer("b", cpu_milli=900, tariff=msgspec.structs.replace(TARIFF, core_hour_wei=300))
    cheap = offer("c", cpu_milli=800)
    gone = offer("d", linked=False)
    found = plan(JobArray(PINNED), Wishes(), [small, dear, cheap, gone]).relaxation
    assert found is not None
    assert (found.provider[2], found.changes) == ("c", ["resources.cpu: 1 → 0.8"])
    found = plan(JobArray(PINNED), Wishes(max_price_wei=50, deadline_s=10), [cheap]).relaxation
    assert found is not None
    assert [change.split(":")[0] for change in found.changes] == ["resources.cpu", "max_price", "deadline"]


def test_nobody_offers():
    """An empty market says so."""
    found = plan(JobArray(PINNED), Wishes(), [])
    assert [it.code for it in found.reasons] == ["nobody"]
    assert found.relaxation is None


@given(st.integers(1, 10**12), st.integers(0, 10**14), st.integers(0, 10_000), st.integers(1, 1000))
def test_no_plan_makes_cheating_pay(pay: int, stake: int, valid: int, segments: int):
    """At the rate that the chain computes, skipping loses on average wherever the rate may go below one."""
    from clusterai.audit.core.segments import rate_ppm

    rate = rate_ppm(RULES, stake, pay, valid)
    assert cheat_gain_wei(RULES, rate, pay, stake) <= max(1, pay // 1000) or rate == 1_000_000
    worth = sabotage_wei(RULES, rate, pay, stake, segments)
    assert 0 <= worth <= (pay + stake) * 10


def test_slots():
    """As often as the scarcest thing fits."""
    assert slots(offer(), PINNED) == 4
    assert slots(offer(disk_bytes=GIB), PINNED) == 1
    assert slots(offer(cpu_milli=10), PINNED) == 0


@pytest.mark.parametrize(("fuel_per_s", "is_told"), [(10**12 // 3600, True), (10**12 // 3600 + 1, False)])
def test_fuel_that_nobody_burns_in_time_is_told(fuel_per_s: int, is_told: bool):
    """Of the slowest who would run it: what its auditors can't come through is said before it is paid for."""
    offers = [offer("a", fuel_per_s=fuel_per_s), offer("b", fuel_per_s=10**12)]
    found = plan(JobArray(MODULE), Wishes(replicas=2), offers)
    assert found.placed
    assert any("keeps auditors busy" in limit for limit in found.verification.limits) == is_told
