"""The feed: honest offers and measurements get in; forged, replayed, stale, own and endless ones don't."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.ledger.core.events import Barred, Block, Bonded, Delegated, Registered, Revoked, Unbonding
from clusterai.market.core.directory import Directory
from clusterai.market.core.placement.feed import MOST_VALIDATORS, SKEW_S, OfferFeed, Turned
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.offers import MEASUREMENT_LIFE_S, NEWCOMER_RELIABILITY_PPM
from clusterai.market.core.placement.place import Plan, place
from clusterai.market.core.placement.request import Request, single
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Role
from clusterai.protocol.offers import MOST_LIFE_S, Field, MachineMeasurement, MachineOffer, signed_digest
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import network_domain
from tests.rooms.market.machines import name

NOW = 1_000_000
NETWORK = network_domain(31415, name(1))
STAKE_PER_NODE = 100


def key(number: int) -> Key:
    return Key(number.to_bytes(32))


OPERATOR, STRANGER, VALIDATOR, SECOND = (key(number) for number in (1, 2, 3, 4))
NODES = [key(100 + number) for number in range(12)]
EYES = [key(200 + number) for number in range(MOST_VALIDATORS + 2)]


def participants() -> Directory:
    directory = Directory()
    events: list[Any] = [
        Registered(OPERATOR.address, int(Role.PROVIDER | Role.VALIDATOR), ZERO_DIGEST),
        Registered(SECOND.address, int(Role.PROVIDER), ZERO_DIGEST),
        Registered(VALIDATOR.address, int(Role.VALIDATOR), ZERO_DIGEST),
        Registered(STRANGER.address, 0, ZERO_DIGEST),
        Bonded(OPERATOR.address, 10 * STAKE_PER_NODE, 10 * STAKE_PER_NODE),
        Bonded(SECOND.address, STAKE_PER_NODE, STAKE_PER_NODE),
        *(Delegated(OPERATOR.address, it.address) for it in NODES),
        *(Registered(it.address, int(Role.VALIDATOR), ZERO_DIGEST) for it in EYES),
        Block(1, NOW),
    ]
    for event in events:
        directory.apply(event)
    return directory


def feed() -> OfferFeed:
    return OfferFeed(Index(), participants(), NETWORK, recover, STAKE_PER_NODE)


def offer(machine: Key = NODES[0], **changes: Any) -> MachineOffer:
    fields: dict[str, Any] = {
        "node": machine.address,
        "operator": OPERATOR.address,
        "serial": 1,
        "hardware": "x86-64-v3",
        "cpu_milli": 8_000,
        "memory_bytes": 2**34,
        "disk_bytes": 2**36,
        "gpu": "h100",
        "gpus": 8,
        "region": "eu",
        "bandwidth_kbps": 1_000_000,
        "price_wei": 10**9,
        "issued_s": NOW,
        "expires_s": NOW + 600,
    }
    return MachineOffer(**(fields | changes))


def found(machine: Key = NODES[0], by: Key = VALIDATOR, **changes: Any) -> MachineMeasurement:
    fields: dict[str, Any] = {
        "node": machine.address,
        "validator": by.address,
        "serial": 1,
        "fields": int(Field.GPU | Field.COORDINATE | Field.RELIABILITY),
        "hardware": "",
        "cpu_milli": 0,
        "memory_bytes": 0,
        "gpu": "l4",
        "gpus": 1,
        "region": "",
        "bandwidth_kbps": 0,
        "reliability_ppm": 999_000,
        "x_us": -5,
        "y_us": 0,
        "z_us": 7,
        "height_us": 100,
        "links_per_s_milli": 0,
        "links_at_once_per_s_milli": 0,
        "findings": bytes(32),
        "at_s": NOW,
    }
    return MachineMeasurement(**(fields | changes))


def sign(statement: MachineOffer | MachineMeasurement, by: Key) -> tuple[bytes, bytes]:
    return canonical.encode(statement), by.sign(signed_digest(statement, NETWORK))


def offered(it: OfferFeed, statement: MachineOffer, by: Key = NODES[0], now_s: float = NOW) -> Turned | None:
    return it.hear_offer(*sign(statement, by), now_s)


def measured(
    it: OfferFeed, statement: MachineMeasurement, by: Key = VALIDATOR, now_s: float = NOW
) -> Turned | None:
    return it.hear_measurement(*sign(statement, by), now_s)


def reason(turned: Turned | None) -> str:
    return turned.reason if turned is not None else "taken"


def listed(it: OfferFeed, node: Key = NODES[0]) -> Any:
    row = it.index.row(node.address)
    return None if row is None else it.index.offer(row)


def test_what_was_measured_stands_in_place_of_what_was_claimed() -> None:
    """Eight H100 are claimed, one L4 is found: it is planned with as one L4, and the card says by whom."""
    it = feed()
    assert offered(it, offer()) is None
    assert (listed(it).gpus, listed(it).source(Field.GPU, NOW).kind) == (8, "claimed")
    assert listed(it).reliability_ppm == NEWCOMER_RELIABILITY_PPM
    assert measured(it, found()) is None
    card = listed(it)
    assert (card.gpu, card.gpus, card.reliability_ppm) == ("l4", 1, 999_000)
    assert card.source(Field.GPU, NOW) == msgspec.structs.replace(
        card.source(Field.GPU, NOW), by=VALIDATOR.address
    )
    assert card.source(Field.GPU, NOW).kind == "measured"
    assert card.source(Field.CPU, NOW).kind == "claimed"
    assert isinstance(place(it.index, Request(parts=single(1)), None, NOW), Plan)


def test_an_offer_that_was_replaced_does_not_come_back() -> None:
    """Not while the newer stands, and not when that is over or taken out: cheap old offers can't be replayed."""
    it = feed()
    old, new = offer(expires_s=NOW + 3_600), offer(serial=2, price_wei=2 * 10**9, expires_s=NOW + 60)
    assert offered(it, old) is None
    assert offered(it, new) is None
    assert reason(offered(it, old)) == "stale"
    assert it.sweep(NOW + 61) == [NODES[0].address]
    assert reason(offered(it, old, now_s=NOW + 61)) == "stale"
    it.sweep(NOW + MOST_LIFE_S + SKEW_S + 1)
    assert reason(offered(it, old, now_s=NOW + MOST_LIFE_S + SKEW_S + 1)) == "stale"


def test_a_machine_is_taken_out_by_its_operator() -> None:
    """An offer that expires as it is issued leaves nothing."""
    it = feed()
    offered(it, offer())
    assert offered(it, offer(serial=2, expires_s=NOW)) is None
    assert listed(it) is None


@pytest.mark.parametrize(
    ("changes", "signer", "why"),
    [
        ({}, STRANGER, "forged"),
        ({}, OPERATOR, "forged"),
        ({"operator": SECOND.address}, NODES[0], "unknown"),
        ({"node": STRANGER.address, "operator": STRANGER.address}, STRANGER, "unknown"),
        ({"expires_s": NOW + MOST_LIFE_S + 1}, NODES[0], "stale"),
        ({"issued_s": NOW - 700, "expires_s": NOW}, NODES[0], "stale"),
        ({"issued_s": NOW + SKEW_S + 1, "expires_s": NOW + 90}, NODES[0], "stale"),
        ({"region": "E U"}, NODES[0], "malformed"),
        ({"hardware": "x" * 33}, NODES[0], "malformed"),
        ({"hardware": "x\n"}, NODES[0], "malformed"),
        ({"price_wei": 10**15 + 1}, NODES[0], "malformed"),
        ({"gpus": 256}, NODES[0], "malformed"),
    ],
)
def test_offers_that_are_not_taken(changes: dict[str, Any], signer: Key, why: str) -> None:
    """Forged, by nobody we know, over, too long, from the future, or out of bounds."""
    it = feed()
    statement = offer(**changes)
    assert (
        reason(
            it.hear_offer(canonical.encode(statement), signer.sign(signed_digest(statement, NETWORK)), NOW)
        )
        == why
    )
    assert len(it.index) == 0


def test_an_offer_for_another_network_is_forged() -> None:
    """The signature names the chain and its registry."""
    it = feed()
    elsewhere = network_domain(1, name(1))
    signature = NODES[0].sign(signed_digest(offer(), elsewhere))
    assert reason(it.hear_offer(canonical.encode(offer()), signature, NOW)) == "forged"


def test_nobody_has_more_machines_than_its_stake_carries() -> None:
    """Ten machines for ten stakes; the eleventh waits until one is forgotten. Withdrawn ones count until then."""
    it = feed()
    for node in NODES[:10]:
        assert offered(it, offer(node), node) is None
    assert reason(offered(it, offer(NODES[10]), NODES[10])) == "staked"
    offered(it, offer(serial=2, expires_s=NOW), NODES[0])
    assert reason(offered(it, offer(NODES[10]), NODES[10])) == "staked"
    later = NOW + MOST_LIFE_S + SKEW_S + 1
    it.sweep(later)
    assert offered(it, offer(NODES[10], issued_s=later, expires_s=later + 60), NODES[10], later) is None


def test_measurements_that_are_not_taken() -> None:
    """By a stranger, by the operator of the machine itself, forged, old, or of a machine that nobody offers."""
    it = feed()
    assert reason(measured(it, found())) == "unknown"
    offered(it, offer())
    assert reason(measured(it, found(by=OPERATOR), OPERATOR)) == "own"
    assert reason(measured(it, found(by=STRANGER), STRANGER)) == "unknown"
    assert reason(measured(it, found(), STRANGER)) == "forged"
    assert reason(measured(it, found(at_s=NOW + SKEW_S + 1))) == "stale"
    assert reason(measured(it, found(at_s=0))) == "stale"
    assert reason(measured(it, found(fields=0))) == "malformed"
    assert reason(measured(it, found(x_us=2_000_001))) == "malformed"
    assert measured(it, found()) is None
    assert reason(measured(it, found())) == "stale"


def test_validators_without_end_fill_no_memory() -> None:
    """Of one machine the newest few measurements are kept."""
    it = feed()
    offered(it, offer())
    for at, eye in enumerate(EYES):
        assert measured(it, found(by=eye, at_s=NOW + at), eye) is None
    assert len(listed(it).measurements) == MOST_VALIDATORS
    assert {m.by for m in listed(it).measurements} == {eye.address for eye in EYES[2:]}


def test_who_is_barred_is_out() -> None:
    """A convicted operator's machines go at the next sweep, and none is taken any more."""
    directory = participants()
    it = OfferFeed(Index(), directory, NETWORK, recover, STAKE_PER_NODE)
    offered(it, offer())
    directory.apply(Barred(OPERATOR.address))
    assert it.sweep(NOW + 1) == [NODES[0].address]
    assert reason(offered(it, offer(serial=2))) == "unknown"


@given(st.binary(max_size=600), st.binary(max_size=70))
def test_any_bytes_are_refused_without_harm(data: bytes, signature: bytes) -> None:
    """Strangers' bytes raise nothing and leave nothing."""
    it = feed()
    assert isinstance(it.hear_offer(data, signature, NOW), Turned)
    assert isinstance(it.hear_measurement(data, signature, NOW), Turned)
    assert len(it.index) == 0


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at: int, change: int) -> None:
    """No byte of a signed offer can be changed on the way."""
    it = feed()
    data, signature = sign(offer(), NODES[0])
    at %= len(data)
    changed = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
    assert isinstance(it.hear_offer(changed, signature, NOW), Turned)


def test_the_very_same_offer_may_be_said_again() -> None:
    """After its operator was away it stands again, and counts once."""
    it = feed()
    assert offered(it, offer()) is None
    assert it.away(OPERATOR.address) == [NODES[0].address]
    assert listed(it) is None
    assert offered(it, offer()) is None
    assert listed(it) is not None
    assert reason(offered(it, offer(price_wei=1))) == "stale"
    assert it.away(SECOND.address) == []


def test_what_an_operator_may_no_longer_offer_is_taken_out_at_once() -> None:
    """Its keys were revoked, or its stake carries fewer machines now."""
    directory = participants()
    it = OfferFeed(Index(), directory, NETWORK, recover, STAKE_PER_NODE)
    for machine in NODES[:4]:
        assert offered(it, offer(machine), machine) is None
    directory.apply(Revoked(OPERATOR.address, NODES[1].address))
    assert it.doubt(OPERATOR.address) == [NODES[1].address]
    directory.apply(Unbonding(OPERATOR.address, 8 * STAKE_PER_NODE, NOW))
    assert it.doubt(OPERATOR.address) == [NODES[3].address]
    directory.apply(Barred(OPERATOR.address))
    assert it.doubt(OPERATOR.address) == [NODES[0].address, NODES[2].address]


def test_a_feed_carries_no_more_than_it_can() -> None:
    """Whoever comes too late is told so, and what stands is renewed nevertheless."""
    it = OfferFeed(Index(), participants(), NETWORK, recover, STAKE_PER_NODE, most_machines=2)
    for machine in NODES[:2]:
        assert offered(it, offer(machine), machine) is None
    assert reason(offered(it, offer(NODES[2]), NODES[2])) == "full"
    assert offered(it, offer(serial=2)) is None


def test_a_sweep_in_parts_ends_where_a_whole_one_does() -> None:
    """Some machines at a time, all of them in turn."""
    directory = participants()
    it = OfferFeed(Index(), directory, NETWORK, recover, STAKE_PER_NODE)
    for machine in NODES[:5]:
        assert offered(it, offer(machine), machine) is None
    directory.apply(Barred(OPERATOR.address))
    gone = [it.sweep(NOW, most=2) for _ in range(3)]
    assert [len(part) for part in gone] == [2, 2, 1]
    assert len(it.index) == 0


def test_what_was_found_of_a_field_is_told_whole() -> None:
    """Until it fades; of a field that nobody measured there is none."""
    it = feed()
    offered(it, offer())
    newer = found(by=EYES[0], at_s=NOW + 1)
    assert measured(it, found()) is None
    assert measured(it, newer, EYES[0]) is None
    assert it.found(NODES[0].address, Field.GPU, NOW + 1) == newer
    assert it.found(NODES[0].address, Field.CPU, NOW + 1) is None
    assert it.found(NODES[1].address, Field.GPU, NOW + 1) is None
    assert it.found(NODES[0].address, Field.GPU, NOW + MEASUREMENT_LIFE_S + 2) is None


def heard(*said: dict[str, Any], **claimed: Any) -> OfferFeed:
    """A machine of which so many validators said this, one after the other."""
    it = feed()
    offered(it, offer(expires_s=NOW + 3_600, **claimed))
    for at, (eye, changes) in enumerate(zip(EYES, said, strict=False)):
        assert measured(it, found(by=eye, at_s=NOW + at, **changes), eye, NOW + at) is None
    return it


def test_one_liar_of_three_moves_nothing() -> None:
    """Of what validators found the lower middle counts: a lie upwards is no more than what an honest one found."""
    said = ((900_000, 1), (910_000, 1), (1_000_000, 8))
    it = heard(*({"reliability_ppm": ppm, "gpus": gpus} for ppm, gpus in said))
    assert (listed(it).reliability_ppm, listed(it).gpus) == (910_000, 1)


HONEST: dict[str, Any] = {"fields": int(Field.CPU | Field.PROFILE), "cpu_milli": 8_000}


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize(
    ("field", "lie"),
    [
        (Field.GPU, {"gpu": "h100", "gpus": 8}),
        (Field.REGION, {"region": "eu"}),
        (Field.MEMORY, {"memory_bytes": 0}),
        (Field.BANDWIDTH, {"bandwidth_kbps": 1}),
        (Field.RELIABILITY, {"reliability_ppm": 1_000_000}),
        (Field.RELIABILITY, {"reliability_ppm": 0}),
        (Field.COORDINATE, {"x_us": 1, "y_us": 1, "z_us": 1, "height_us": 1}),
    ],
)
def test_what_one_validator_of_three_alone_found_does_not_count(
    turn: int, field: Field, lie: dict[str, Any]
) -> None:
    """Villain: a validator that finds the card that isn't there, the claimed region, or no memory, where the others found nothing of the kind."""
    said = [HONEST] * 3
    said[turn] = HONEST | {"fields": int(HONEST["fields"] | field)} | lie
    card = listed(heard(*said))
    claimed = listed(heard(*[HONEST] * 3))
    assert card.source(field, NOW + 2).kind == "claimed"
    assert not card.measured(NOW + 2) & field
    for told in ("coordinate", *(it for it in lie if hasattr(card, it))):
        assert getattr(card, told) == getattr(claimed, told)


def test_what_two_of_three_found_counts() -> None:
    """The first in a region has no other witness yet, and says nothing of it; the two after it do."""
    there = HONEST | {"fields": int(HONEST["fields"] | Field.REGION), "region": "eu"}
    assert listed(heard(HONEST, there, there)).source(Field.REGION, NOW + 2).kind == "measured"
    assert listed(heard(HONEST, there)).source(Field.REGION, NOW + 1).kind == "claimed"
    assert listed(heard(there)).source(Field.REGION, NOW).kind == "measured", "there is nobody else yet"
    moved = heard(HONEST, there, there, region="us")
    assert (listed(moved).region, listed(moved).source(Field.REGION, NOW + 2).kind) == ("us", "claimed")


PLACE = st.tuples(*[st.integers(-2_000_000, 2_000_000)] * 3, st.integers(0, 2_000_000))


def apart(one: tuple[int, ...], two: tuple[int, ...]) -> float:
    return sum((a - b) ** 2 for a, b in zip(one[:3], two[:3], strict=True)) ** 0.5 + abs(one[3] - two[3])


@given(PLACE, PLACE, PLACE, st.permutations(range(3)))
def test_a_liar_about_round_trips_moves_a_place_no_further_than_the_honest_differ(
    one: tuple[int, ...], two: tuple[int, ...], lie: tuple[int, ...], order: list[int]
) -> None:
    """Villain: one of three that puts a machine next to whomever it likes, the last to speak or not."""
    places = [(one, two, lie)[at] for at in order]
    names: list[str] = ["x_us", "y_us", "z_us", "height_us"]
    card = listed(heard(*(dict(zip(names, it, strict=True)) for it in places)))
    at = tuple(getattr(card.coordinate, name) for name in names)
    assert max(apart(at, one), apart(at, two)) <= apart(one, two) + 4


def test_a_liar_does_not_decide_what_a_core_is_worth() -> None:
    """Villain: one of three that says a core does nothing, so that no chain is needed, or more than any can, so that every owner is a thief."""
    for lie in (0, 2**31):
        said = [
            {
                "fields": int(Field.CPU | Field.PROFILE),
                "cpu_milli": 2_000,
                "links_per_s_milli": alone,
                "links_at_once_per_s_milli": all_,
            }
            for alone, all_ in ((300_000, 580_000), (310_000, 600_000), (lie, lie))
        ]
        worth = heard(*said).found(NODES[0].address, Field.PROFILE, NOW + 2)
        assert worth is not None
        assert 300_000 <= worth.links_per_s_milli <= 310_000
        assert 580_000 <= worth.links_at_once_per_s_milli <= 600_000
        assert worth.cpu_milli == 2_000


def test_who_was_not_drawn_is_not_heard() -> None:
    """An operator's own choice of validators measures nothing, whatever its stake."""
    directory = participants()
    drawn = {VALIDATOR.address}
    it = OfferFeed(
        Index(),
        directory,
        NETWORK,
        recover,
        STAKE_PER_NODE,
        may_measure=lambda operator, validator, now_s: validator in drawn,
    )
    offered(it, offer())
    assert reason(measured(it, found(by=EYES[0]), EYES[0])) == "unassigned"
    assert measured(it, found()) is None


def test_what_was_found_of_a_machine_outlives_a_day_in_which_it_was_rented() -> None:
    """Its offer was withdrawn and forgotten; offered again it is as measured as before, until that fades."""
    it = feed()
    offered(it, offer())
    measured(it, found())
    offered(it, offer(serial=2, expires_s=NOW))
    later = NOW + 86_400
    it.sweep(later)
    assert it.found(NODES[0].address, Field.GPU, later) == found()
    assert offered(it, offer(serial=3, issued_s=later, expires_s=later + 600), now_s=later) is None
    assert listed(it).gpu == "l4"
    offered(it, offer(serial=4, issued_s=later, expires_s=later), now_s=later)
    faded = NOW + MEASUREMENT_LIFE_S + 86_400
    it.sweep(faded)
    offered(it, offer(serial=5, issued_s=faded, expires_s=faded + 600), now_s=faded)
    assert listed(it).gpu == "h100"


def test_a_key_that_goes_over_to_another_owner_takes_nothing_with_it() -> None:
    """What was found isn't the new owner's, and its stake has to carry the machine."""
    directory = participants()
    it = OfferFeed(Index(), directory, NETWORK, recover, STAKE_PER_NODE)
    for machine in NODES[:2]:
        assert offered(it, offer(machine), machine) is None
    measured(it, found())
    for machine in NODES[:2]:
        directory.apply(Delegated(SECOND.address, machine.address))
    moved = offer(serial=2, operator=SECOND.address)
    assert offered(it, moved) is None
    assert listed(it).gpu == "h100"
    other = offer(NODES[1], serial=2, operator=SECOND.address)
    assert reason(offered(it, other, NODES[1])) == "staked"
    assert listed(it, NODES[1]) is None
