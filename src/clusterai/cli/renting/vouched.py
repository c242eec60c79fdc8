"""Whom the renter's end of the mesh talks to: only machines that the plan named, by keys that they signed themselves.

The gateway tells who is in the mesh. One that put its own key in a machine's place could read what is sent there, so each key has to be
signed by the hot key of a machine of the plan. A machine that took a lost one's place wasn't in the plan: that it is the one that the gateway
names is checked, that it is a good one is the gateway's word, as its choice is.
"""

from collections.abc import Collection, Sequence
from ipaddress import ip_address

import msgspec

from clusterai.mesh import Member, net_of
from clusterai.mesh.core.uapi import KEY_BYTES
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, BadId, Digest, address, digest
from clusterai.protocol.rentals import MOST_MEMBERS, MeshKey
from clusterai.protocol.signing import BadSignature, recover
from clusterai.sdk.rentalshapes import Rental, RentedMachine


class Forged(Exception):
    """The gateway named a key that the machine at place {place} didn't sign, or a machine that the plan didn't name: {why}."""

    def __init__(self, place: int, why: str) -> None:
        super().__init__(f"machine {place}: {why}")
        self.place = place


class Mate(msgspec.Struct, frozen=True):
    """A machine of the mesh whose key is its own.

    Attributes:
        relay: host and port, as the gateway said; not looked up yet.
        is_replacement: it wasn't in the plan.
    """

    member: Member
    relay: tuple[str, int]
    seen: tuple[str, int] | None
    is_replacement: bool


def mates(rental: Rental, lease: Digest, network: Domain, planned: Collection[Address]) -> tuple[Mate, ...]:
    """The machines of the mesh, each vouched for by itself.

    Args:
        planned: hot keys of the plan's machines; empty where it was booked elsewhere, and the gateway's word has to do.

    Raises:
        Forged: one isn't. Nothing is sent to any of them then.
    """
    machines = {machine.place: machine for machine in rental.machines}
    found: list[Mate] = []
    for member in rental.members:
        if member.place == rental.place:
            continue
        machine = machines.get(member.place)
        if machine is None or not 0 <= member.place < MOST_MEMBERS or machine.key != member.key:
            raise Forged(member.place, "no machine of this rental has that key")
        key = _signed(machine, lease, network)
        is_replacement = _is_replacement(machine, planned)
        if member.address != net_of(lease).address(member.place):
            raise Forged(member.place, f"its address isn't {member.address[:64]!r}")
        if member.relay is not None:
            seen = None if member.seen is None else _literal(member.place, member.seen)
            found.append(
                Mate(Member(member.place, key), _endpoint(member.place, member.relay), seen, is_replacement)
            )
    if len({mate.member.key for mate in found}) < len(found):
        raise Forged(found[-1].member.place, "two machines have one key")
    return tuple(found)


def _signed(machine: RentedMachine, lease: Digest, network: Domain) -> bytes:
    try:
        key, node = bytes(digest(machine.key)), address(machine.node)
        said = MeshKey(lease, machine.place, machine.generation, node, key)
        signer = recover(said.signing_digest(network), bytes.fromhex(machine.signature.removeprefix("0x")))
    except (BadId, BadSignature, ValueError):
        raise Forged(machine.place, "its key has no signature") from None
    assert len(key) == KEY_BYTES
    if signer != node:
        raise Forged(machine.place, f"its key isn't signed by {machine.node[:42]}")
    return key


def _is_replacement(machine: RentedMachine, planned: Collection[Address]) -> bool:
    """A first machine has to be of the plan; of a later one just its key is known to be its own."""
    if not planned or address(machine.node) in planned:
        return False
    if machine.generation == 0:
        raise Forged(machine.place, f"the plan named no machine {machine.node[:42]}")
    return True


def _endpoint(place: int, given: Sequence[object]) -> tuple[str, int]:
    host, port = given
    if not isinstance(host, str) or not isinstance(port, int) or len(host) > 253 or not 1 <= port <= 65_535:
        raise Forged(place, "its relay has no address")
    return host, port


def _literal(place: int, given: Sequence[object]) -> tuple[str, int]:
    """Where packets come from is an address, never a name."""
    host, port = _endpoint(place, given)
    try:
        return str(ip_address(host)), port
    except ValueError:
        raise Forged(place, "where it was seen is no address") from None
