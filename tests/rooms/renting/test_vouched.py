"""Whom a renter's end of the mesh talks to: a gateway that puts another key or machine in a place is caught, whatever it changes."""

from typing import Any

import msgspec
import pytest

from clusterai.cli.renting.vouched import Forged, mates
from clusterai.protocol.ids import Digest, checksummed, hex0x
from clusterai.protocol.signing import Key
from clusterai.sdk.rentalshapes import Member, Rental
from tests.rooms.renting.told import DOMAIN, LEASE, NODES, machine, public, rental

PLAN = tuple(node.address for node in NODES[:3])
MALLORY = Key(b"\x66" * 32)
HERS = public(40)


def found(it: Rental) -> Any:
    return mates(it, LEASE, DOMAIN, PLAN)


def test_honest_machines_are_taken():
    """Each with its key, its relay and where it was seen; the renter's own end isn't one of them."""
    it = rental([machine(at) for at in range(3)], mine=public(3), seen={1: ("10.0.0.9", 77)})
    taken = found(it)
    assert [mate.member.key for mate in taken] == [public(at) for at in range(3)]
    assert [mate.relay for mate in taken] == [("10.77.0.1", 1000 + at) for at in range(3)]
    assert [mate.seen for mate in taken] == [None, ("10.0.0.9", 77), None]
    assert not any(mate.is_replacement for mate in taken)


def test_a_machine_that_took_a_lost_ones_place_is_taken_by_its_own_word():
    """It wasn't in the plan, and it is said so."""
    it = rental([machine(0), machine(1, generation=1, node=NODES[6])])
    assert [mate.is_replacement for mate in found(it)] == [False, True]


def test_a_lost_machine_is_no_member():
    """Nor is one that the relay has no port for yet."""
    it = rental([machine(0), machine(1, phase="lost"), machine(2)], relay={0: ("10.77.0.1", 7)})
    assert [mate.member.place for mate in found(it)] == [0]


def swapped(**changes: Any) -> Rental:
    """Machine 1 otherwise than it said."""
    return rental([machine(0), machine(1, **changes), machine(2)])


def renode(name: str, signer: Key = NODES[1]) -> Rental:
    """Machine 1 signed by somebody, under another name."""
    told = msgspec.structs.replace(machine(1, node=signer), node=name)
    return rental([machine(0), told, machine(2)])


def renamed(key: str) -> Rental:
    """The mesh has another key than its machine."""
    it = rental([machine(0), machine(1)])
    members = [
        msgspec.structs.replace(member, key=key) if member.place == 1 else member for member in it.members
    ]
    return msgspec.structs.replace(it, members=members)


def stranger(place: int) -> Rental:
    """A member that is no machine of the rental."""
    it = rental([machine(0)], mine=public(1))
    more = Member(place=place, key=hex0x(HERS), address="100.64.0.9", relay=("10.77.0.1", 9), seen=None)
    return msgspec.structs.replace(it, members=[*it.members, more])


def moved() -> Rental:
    """Machine 0's address leads to machine 1."""
    it = rental([machine(0), machine(1)])
    return msgspec.structs.replace(
        it, members=[msgspec.structs.replace(member, address=it.members[0].address) for member in it.members]
    )


VILLAINS = {
    "its own key with the machine's signature": swapped(key=hex0x(HERS)),
    "its own key and its own signature": swapped(node=MALLORY),
    "its own signature under the machine's name": renode(checksummed(NODES[1].address), MALLORY),
    "another place's signature": swapped(signature=machine(2).signature),
    "an earlier key of the same machine": swapped(key=hex0x(public(1, 1))),
    "no signature": swapped(signature=""),
    "a signature that is none": swapped(signature="0x" + "00" * 65),
    "a signature in no hex": swapped(signature="0xzz"),
    "no key": swapped(key=""),
    "a name that is none": renode("0x12"),
    "another key in the mesh than in the list": renamed(hex0x(HERS)),
    "a member that is no machine": stranger(5),
    "a member far out": stranger(64),
    "another address": moved(),
}


@pytest.mark.parametrize("name", VILLAINS)
def test_a_gateway_that_puts_itself_between_is_caught(name: str):
    """Nobody of such a mesh is talked to."""
    with pytest.raises(Forged):
        found(VILLAINS[name])


def test_a_first_machine_that_the_plan_did_not_name_is_caught():
    """Though it signed: the renter paid for another."""
    with pytest.raises(Forged, match="the plan named no machine"):
        found(rental([machine(0), machine(1, node=NODES[5])]))


def test_signatures_of_another_lease_or_network_do_not_count():
    """Each key is of one lease."""
    it = rental([machine(0)])
    with pytest.raises(Forged):
        mates(it, Digest(b"\x01" * 32), DOMAIN, PLAN)
    other = msgspec.structs.replace(DOMAIN, chain_id=1)
    with pytest.raises(Forged):
        mates(it, LEASE, other, PLAN)


def test_where_it_was_booked_elsewhere_machines_are_still_held_to_their_word():
    """Without a plan any machine may be named, but each by its own signature."""
    assert len(mates(rental([machine(0, node=NODES[7])]), LEASE, DOMAIN, ())) == 1
    with pytest.raises(Forged):
        mates(swapped(key=hex0x(HERS)), LEASE, DOMAIN, ())


@pytest.mark.parametrize(
    "relay", [("10.77.0.1", 0), ("10.77.0.1", 65_536), ("x" * 254, 1), ("10.77.0.1", -1)]
)
def test_a_relay_that_is_none_is_refused(relay: tuple[str, int]):
    """Ports and names beyond each end."""
    with pytest.raises(Forged):
        found(rental([machine(0)], relay={0: relay}))
