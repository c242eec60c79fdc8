"""What a lease's provider commits to, and what the beacon draws from it."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eth_account.messages import encode_typed_data
from hypothesis import assume, given
from hypothesis import strategies as st

from clusterai.audit.core.segments import (
    MILLION,
    Commitment,
    Opening,
    RateRules,
    Seat,
    auditor_lot,
    bait_ppm,
    draw,
    drawn_unit,
    is_opened,
    least_rate_ppm,
    pick,
    rate_ppm,
)
from clusterai.protocol.ids import Address, Digest, digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import (
    Terms,
    is_bait,
    leases_domain,
    sealed_result,
    trap_digest,
    trap_nonce,
)

VECTOR: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "segments.json").read_text())
FIELDS = (
    "address requester,address provider,bytes32 spec,bytes32 resources,bytes32 input,bytes32 expected,"
    "uint8 class,uint32 segments,uint64 units,uint128 compensation,uint128 auditFee,uint40 startBy,"
    "uint40 deadline,bytes32 nonce"
)
RULES = RateRules(700_000, 990_000, 200_000, 200_000)
ANN, BOB, CYD = (Address(bytes([n]) * 20) for n in (1, 2, 3))


def states(count: int) -> list[Digest]:
    return [Digest(keccak(bytes([n]))) for n in range(count)]


def raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


@given(st.integers(1, 40), st.data())
def test_every_state_opens_and_fits_one_place_only(segments: int, data: st.DataObject) -> None:
    """Any digest opens at its own index with its own meter, and at no other."""
    meters = data.draw(st.lists(st.integers(0, 2**58), min_size=segments, max_size=segments))
    commitment = Commitment(states(segments + 1), meters)
    index = data.draw(st.integers(0, segments))
    opening = commitment.open(index)
    assert is_opened(commitment.root, segments, opening)
    replace = msgspec.structs.replace
    wrong = data.draw(st.integers(-1, segments + 1).filter(lambda other: other != index))
    assert not is_opened(commitment.root, segments, replace(opening, index=wrong))
    assert not is_opened(commitment.root, segments, replace(opening, units=opening.units ^ 1))
    assert not is_opened(commitment.root, segments, replace(opening, state=Digest(bytes(32))))
    assert not is_opened(
        commitment.root, segments, replace(opening, proof=(*opening.proof, Digest(bytes(32))))
    )


@given(st.lists(st.integers(-60, 60), min_size=1, max_size=30), st.binary(min_size=32, max_size=32))
def test_a_drawn_unit_lies_in_some_segment_of_any_meter(units: list[int], seed: bytes) -> None:
    """Wherever a cheat's meter goes up and down, both ends around the drawn unit can be shown, and they are."""
    meters = [0]
    for one in units:
        meters.append(max(0, meters[-1] + one))
    assume(meters[-1] > 0)
    commitment = Commitment(states(len(meters)), [after - before for before, after in pairwise(meters)])
    shown, other = commitment.show(1, Digest(seed))
    unit = drawn_unit(Digest(seed), meters[-1])
    assert shown[-2].units <= unit < shown[-1].units
    assert (shown[-2].index, shown[-1].index) == (other - 1, other)
    assert len(shown) == (2 if other == 1 else 4)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.data())
def test_units_that_are_not_found_by_arithmetic_are_bounded(honest: list[int], data: st.DataObject) -> None:
    """Whatever meters a cheat claims: of its surplus, all is drawn in proportion, but for one cap per segment that differs."""
    cap = max(*honest, 1)
    length = len(honest)
    claimed = data.draw(st.lists(st.integers(0, 200), min_size=length, max_size=length))
    meters = [0, *claimed]
    assume(meters[-1] > 0)
    steps = [after - before for before, after in pairwise(meters)]
    safe = {
        unit
        for unit in range(meters[-1])
        for low, high in pairwise(meters)
        if low <= unit < high and high - low <= cap
    }
    differing = sum(step != right for step, right in zip(steps, honest, strict=True))
    surplus = meters[-1] - sum(honest)
    assert surplus <= (meters[-1] - len(safe)) + cap * differing


def test_state_of_another_length_opens_nothing() -> None:
    """A peer's digest of 31 bytes is refused before it is hashed."""
    commitment = Commitment(states(2), (1,))
    assert not is_opened(commitment.root, 1, Opening(0, Digest(bytes(31)), 0, commitment.open(0).proof))


@given(st.binary(min_size=32, max_size=32), st.integers(1, 100))
def test_drawn_segment_is_one_of_the_committed(beacon: bytes, segments: int) -> None:
    """Segments count from 1 to T, at rate 0 nothing is audited and at a million everything."""
    anything = Digest(bytes(32))
    some = draw(Digest(beacon), anything, anything, anything, segments, 0)
    assert 1 <= some.segment <= segments
    assert not some.audited
    assert draw(Digest(beacon), anything, anything, anything, segments, 1_000_000).audited


def test_auditors_are_drawn_in_proportion_to_their_stake() -> None:
    """Of 2,000 draws each seat gets its share within four standard deviations, excluded and empty ones none."""
    seats = [Seat(ANN, 50), Seat(BOB, 0), Seat(CYD, 150), Seat(ANN, 0)]
    counts = Counter(pick(auditor_lot(Digest(keccak(n.to_bytes(4))), n % 8), seats, ()) for n in range(2_000))
    assert set(counts) == {ANN, CYD}
    assert abs(counts[ANN] - 500) < 4 * (2_000 * 0.25 * 0.75) ** 0.5
    assert pick(7, seats, (CYD,)) == ANN
    assert pick(7, seats, (CYD, ANN)) is None


def test_rates_are_those_of_the_published_arithmetic() -> None:
    """At saved 0.7 R, sensitivity 0.99, corrupt 0.2, margin 20 %: 53 %, 9.6 %, 2.1 %, 1.05 % at S/R = 1, 10, 50, 100."""
    found = [least_rate_ppm(RULES, times * 10**9, 10**9) for times in (0, 1, 10, 50, 100)]
    assert found == [1_000_000, 530_304, 96_419, 20_797, 10_502]


@given(st.integers(0, 10**18), st.integers(1, 10**18), st.integers(0, 10**6))
def test_reputation_lowers_the_rate_never_below_the_least(stake: int, pay: int, valid: int) -> None:
    """A veteran is audited less, but never less than deters."""
    rate = rate_ppm(RULES, stake, pay, valid)
    assert least_rate_ppm(RULES, stake, pay) <= rate <= 1_000_000
    assert rate_ppm(RULES, stake, pay, valid + 1) <= rate
    assert valid >= 10 or rate == 1_000_000


def test_bait_deters_the_weakest_auditor() -> None:
    """K = 0.7 R / 20; a copier falls into half of the bait that it is drawn for, and loses fee, bond and stake: 6 / 100 R, R and S_a."""
    rules, price = RateRules(700_000, 990_000, 200_000, 200_000), 1_000_000
    rates = [bait_ppm(rules, price, 20, price * 106 // 100 + price * stake) for stake in (0, 10, 100, 10_000)]
    assert rates == [132_076, 12_659, 1_386, 14]
    for stake, rate in zip((0, 10, 100, 10_000), rates, strict=True):
        assert rate / MILLION / 2 * (1.06 + stake) >= 2 * 0.7 / 20
    assert bait_ppm(rules, price, 20, 0) == MILLION


def test_rules_that_detect_nothing_audit_everything() -> None:
    """Without sensitivity no rate deters, and the most there is is taken."""
    assert least_rate_ppm(RateRules(1, 0, 0, 0), 1, 1) == 1_000_000


def test_vectors_hold() -> None:
    """tests/vectors/segments.json from its terms to the picked auditors."""
    domain = leases_domain(VECTOR["domain"]["chain_id"], Address(raw(VECTOR["domain"]["contract"])))
    plain: list[Any] = [raw(one) if isinstance(one, str) else one for one in VECTOR["terms"].values()]
    terms = Terms(*plain)
    lease = terms.lease_id(domain)
    assert lease == raw(VECTOR["lease"])
    meters = VECTOR["meters"]
    units = [after - before for before, after in pairwise(meters)]
    commitment = Commitment([digest(one) for one in VECTOR["states"]], units)
    assert commitment.root == raw(VECTOR["root"])
    for index, proof in enumerate(VECTOR["proofs"]):
        opening = Opening(index, digest(VECTOR["states"][index]), meters[index], tuple(map(digest, proof)))
        assert is_opened(commitment.root, 5, opening)
    results = [commitment.result(index) for index in range(6)]
    assert results == [raw(one) for one in VECTOR["results"]]
    sealed = VECTOR["sealed"]
    assert sealed_result(results[1], Address(raw(sealed["auditor"])), lease, digest(sealed["salt"])) == raw(
        sealed["digest"]
    )
    drawn = draw(digest(VECTOR["beacon"]), Digest(terms.spec), commitment.root, lease, 5, 1_000_000)
    assert (drawn.seed, drawn.segment) == (raw(VECTOR["seed"]), VECTOR["segment"])
    shown, other = commitment.show(drawn.segment, drawn.seed)
    assert (hex(drawn_unit(drawn.seed, meters[-1])), other) == (VECTOR["unit"], VECTOR["other"])
    assert [one.index for one in shown[-2:]] == [other - 1, other]
    lots = [auditor_lot(drawn.seed, attempt) for attempt in range(4)]
    assert [hex(one) for one in lots] == VECTOR["lots"]
    seats = [Seat(Address(raw(owner)), weight) for owner, weight in VECTOR["seats"]]
    picked = [pick(one, seats, (seats[3].owner,)) for one in lots]
    assert picked == [raw(one) for one in VECTOR["picked_without_the_last"]]
    for stake, valid, rate in VECTOR["rates_ppm"]:
        assert rate_ppm(RULES, stake, 1_000_000, valid) == rate


def test_eth_account_arrives_at_the_same_lease() -> None:
    """The id of a lease is what any EIP-712 wallet would sign."""
    types = [field.split() for field in FIELDS.split(",")]
    message = {
        name: raw(one) if kind == "bytes32" else one
        for (kind, name), one in zip(types, VECTOR["terms"].values(), strict=True)
    }
    domain = VECTOR["domain"]
    signable = encode_typed_data(
        {
            "name": domain["name"],
            "version": domain["version"],
            "chainId": domain["chain_id"],
            "verifyingContract": domain["contract"],
        },
        {"Terms": [{"name": name, "type": kind} for kind, name in types]},
        message,
    )
    assert keccak(b"\x19\x01" + signable.header + signable.body) == raw(VECTOR["lease"])


@pytest.mark.parametrize("at", range(4))
def test_sealed_results_are_bound_to_everything_in_them(at: int) -> None:
    """Another result, auditor, lease or salt gives another commitment: copying one is of no use."""
    parts = [bytes([n]) * 32 for n in range(4)]
    before = sealed_result(Digest(parts[0]), Address(parts[1][:20]), Digest(parts[2]), Digest(parts[3]))
    parts[at] = bytes([9]) * 32
    after = sealed_result(Digest(parts[0]), Address(parts[1][:20]), Digest(parts[2]), Digest(parts[3]))
    assert before != after


def test_no_two_states_in_a_row_are_bait() -> None:
    """Each segment that ends in bait begins with something to run, and over secrets each may be one."""
    for secret in (Digest(bytes(31) + bytes([n])) for n in range(4)):
        found = [is_bait(secret, index, 9) for index in range(10)]
        assert not found[0]
        assert all(found[n] != found[n + 1] for n in range(1, 9))


def test_traps_are_one_secret() -> None:
    """The nonce and each digest follow from the secret, and differ from each other."""
    secret = Digest(bytes(31) + b"\x07")
    made = {trap_nonce(secret), *(trap_digest(secret, index) for index in range(5))}
    assert len(made) == 6
    bait = [is_bait(digest(VECTOR["trap"]["secret"]), index, 4) for index in range(5)]
    assert bait == VECTOR["trap"]["bait"]
    assert VECTOR["trap"]["bait_of_one"] == [False, True]
    assert VECTOR["trap"]["digests"][1] == "0x" + trap_digest(digest(VECTOR["trap"]["secret"]), 1).hex()
