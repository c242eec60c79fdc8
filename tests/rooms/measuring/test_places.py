"""Places out of round trips: delay moves away only, one liar proves nothing, and who wasn't drawn isn't heard."""

import msgspec
import pytest

from clusterai.market.core.placement.coordinates import Places
from clusterai.market.core.placement.feed import OfferFeed
from clusterai.market.core.placement.index import Index
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address
from clusterai.protocol.measuring import Trip
from clusterai.protocol.messages import Relay
from clusterai.protocol.offers import Field, MachineOffer, decode_measurement, signed_digest
from clusterai.protocol.signing import recover
from clusterai.runtime.machine import Received
from clusterai.validator.core.places import WITHIN_US, Atlas
from tests.rooms.market.machines import name
from tests.rooms.measuring.machine_played import Played, claims
from tests.rooms.measuring.measured_world import BEGIN_S, GATEWAY, NETWORK, Validator, World

ME, SECOND, THIRD, NODE = (name(at) for at in range(1, 5))


def told(
    by: Address, rtt_us: int, region: str = "eu-de", place: tuple[int, int, int, int] = (0, 0, 0, 10)
) -> Trip:
    return Trip(by, NODE, rtt_us, BEGIN_S, region, *place, 50_000, bytes(65))


def atlas(mine_us: int, *others: Trip) -> Atlas:
    it = Atlas(ME, "eu-de")
    for trip in others:
        it.heard(NODE, trip, BEGIN_S)
    it.measured(NODE, mine_us, BEGIN_S)
    return it


def stands(it: Atlas, region: str = "eu-de") -> bool:
    return it.stands_in(NODE, region, lambda witness: witness)


def test_a_region_takes_two_witnesses_there() -> None:
    """One validator that lies about its round trip proves nothing, nor do witnesses elsewhere."""
    assert not stands(atlas(5_000))
    assert stands(atlas(5_000, told(SECOND, 6_000)))
    assert not stands(atlas(80_000, told(SECOND, 1)))
    assert not stands(atlas(5_000, told(SECOND, 6_000, region="us-east")))
    assert not stands(atlas(5_000, told(SECOND, 6_000)), region="us-east")


def test_added_delay_only_moves_a_machine_away() -> None:
    """A machine in Asia can't come to Europe by answering late; one in Europe can only leave."""
    assert stands(atlas(5_000, told(SECOND, 6_000)))
    for delay_us in (WITHIN_US, 200_000):
        assert not stands(atlas(5_000 + delay_us, told(SECOND, 6_000 + delay_us)))


def test_a_coordinate_predicts_the_trips_that_it_was_fitted_to() -> None:
    """Alone it is as high as the trip is long; with three witnesses apart from each other it is in between."""
    alone = atlas(30_000).where(NODE)
    assert alone is not None
    assert 20_000 <= alone.height_us + abs(alone.x_us) + abs(alone.y_us) + abs(alone.z_us) <= 60_000
    far = atlas(
        30_000, told(SECOND, 30_000, place=(40_000, 0, 0, 10)), told(THIRD, 30_000, place=(0, 40_000, 0, 10))
    )
    where = far.where(NODE)
    assert where is not None
    assert where.x_us > 5_000
    assert where.y_us > 5_000


def test_a_liars_trip_moves_a_coordinate_by_bounded_steps() -> None:
    """Absurd places and times are passed over, or change little."""
    for lie in (told(SECOND, 2_000_000), told(SECOND, 1, place=(2_000_000, 2_000_000, 2_000_000, 2_000_000))):
        it = atlas(30_000, lie)
        where = it.where(NODE)
        assert where is not None
        assert isinstance(it.mine, Places)
        assert abs(it.place()[0]) <= 20_000


def test_old_trips_are_forgotten() -> None:
    """A machine may move; what is two days old says nothing."""
    it = atlas(5_000, told(SECOND, 6_000))
    it.forget(BEGIN_S + 3 * 86_400)
    assert it.where(NODE) is None


def test_the_drawn_tell_each_other_and_the_last_one_proves_the_region() -> None:
    """The first has one witness, itself; who comes later has two."""
    world = World(3, [Played(claims(), rtt_s=0.005)])
    world.beacon()
    world.run(120)
    said = [decode_measurement(it.measurement) for _, it in world.measured]
    assert len(said) == 3
    assert all(it.fields & Field.COORDINATE for it in said)
    assert [bool(it.fields & Field.REGION) for it in said] == [False, True, True]
    assert said[1].region == "eu-de"


def test_trips_of_who_was_not_drawn_are_not_heard() -> None:
    """Nor forged ones: a friend of the owner's is no witness."""
    world = World(8, [Played(claims())])
    world.beacon()
    node = world.nodes[0]
    drawn = node.draws.drawn(node.owner.address, world.now_s)
    assert drawn is not None
    inside = next(it for it in world.validators if it.owner.address in drawn.validators)
    outside = next(it for it in world.validators if it.owner.address not in drawn.validators)
    friend = Trip(
        outside.owner.address, node.hot.address, 1, int(world.now_s), "eu-de", 0, 0, 0, 0, 50_000, bytes(65)
    )
    signed = msgspec.structs.replace(friend, signature=outside.hot.sign(friend.signing_digest(NETWORK)))
    other = next(it for it in drawn.validators if it != inside.owner.address)
    forged = msgspec.structs.replace(signed, validator=other)
    for trip in (signed, forged, friend):
        relay = Relay(outside.owner.address, inside.owner.address, canonical.encode(trip))
        assert inside.measurer.step(Received(GATEWAY, relay), world.now_s) == []
    assert inside.measurer.atlas.where(Address(node.hot.address)) is None


FAR_S = 0.15


def lie(world: World, by: int, place: tuple[int, int, int, int]) -> OfferFeed:
    """Validator number `by` says that the machine stands beside it, there; what a gateway makes of all that it hears."""
    liar, node = world.validators[by], world.nodes[0]
    x_us, y_us, z_us, height_us = place

    def told(validator: Validator, to: Address, body: bytes) -> None:
        if validator is liar and (said := trip_of(body)) is not None:
            said = msgspec.structs.replace(
                said, rtt_us=1, x_us=x_us, y_us=y_us, z_us=z_us, height_us=height_us, error_ppm=1
            )
            signature = liar.hot.sign(said.signing_digest(NETWORK))
            body = canonical.encode(msgspec.structs.replace(said, signature=signature))
        honestly(validator, to, body)

    honestly, world.relay = world.relay, told
    world.beacon()
    world.run(120)
    feed = OfferFeed(Index(), node.directory, NETWORK, recover, 1, may_measure=node.draws.may_measure)
    now_s = int(world.now_s)
    offer = MachineOffer(
        node.hot.address, node.owner.address, 7, "x86-64-v3", 2_000, 2**20, "", 0, "eu-de", 10**6, 1, now_s, now_s + 60
    )  # fmt: skip
    assert (
        feed.hear_offer(canonical.encode(offer), node.hot.sign(signed_digest(offer, NETWORK)), now_s) is None
    )
    for sender, measured in world.measured:
        data, signature = measured.measurement, measured.signature
        if sender == liar.owner.address:
            said = decode_measurement(data)
            fields = said.fields | Field.REGION | Field.COORDINATE
            said = msgspec.structs.replace(
                said, fields=fields, region="eu-de", x_us=x_us, y_us=y_us, z_us=z_us, height_us=height_us
            )
            data, signature = canonical.encode(said), liar.hot.sign(signed_digest(said, NETWORK))
        assert feed.hear_measurement(data, signature, world.now_s) is None
    return feed


def trip_of(body: bytes) -> Trip | None:
    try:
        return canonical.decode(body, Trip)
    except canonical.Malformed:
        return None


@pytest.mark.parametrize("by", range(3))
@pytest.mark.parametrize("place", [(0, 0, 0, 1), (2_000_000, 0, 0, 1), (-50_000, 90_000, 9_000, 1)])
def test_a_validator_that_lies_about_a_round_trip_brings_no_machine_near(
    by: int, place: tuple[int, int, int, int]
) -> None:
    """Villain: one of the three says that a machine 150 ms away stands beside it, in the claimed region: it stays further away than half of that."""
    world = World(3, [Played(claims(), rtt_s=FAR_S)])
    feed = lie(world, by, place)
    row = feed.index.row(world.nodes[0].hot.address)
    assert row is not None
    offer = feed.index.offer(row)
    assert offer.source(Field.REGION, world.now_s).kind == "claimed"
    at = offer.coordinate
    assert at is not None
    for validator in (it for it in world.validators if it is not world.validators[by]):
        x_us, y_us, z_us, height_us = validator.measurer.atlas.place()
        way_us = ((at.x_us - x_us) ** 2 + (at.y_us - y_us) ** 2 + (at.z_us - z_us) ** 2) ** 0.5
        assert way_us + at.height_us + height_us > 0.5e6 * FAR_S
