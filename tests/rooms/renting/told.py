"""Rentals as a gateway tells of them, made by a test: machines with keys that they signed."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from clusterai.mesh import keypair, net_of
from clusterai.protocol.ids import Address, Digest, checksummed, hex0x
from clusterai.protocol.rentals import MeshKey
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.sdk.rentalshapes import Member, Rental, RentedMachine, Setup

LEASE = Digest(b"\x77" * 32)
DOMAIN = network_domain(31415, Address(b"\x09" * 20))
NOW_S = 1_800_000_000
NODES = tuple(Key(bytes([place + 1]) * 32) for place in range(8))
"""Hot keys of machines."""


def secret(place: int, generation: int = 0) -> bytes:
    """Of a member's end of the mesh."""
    return bytes([place + 1, generation]) * 16


def public(place: int, generation: int = 0) -> bytes:
    return keypair(secret(place, generation))[1]


def machine(place: int, generation: int = 0, node: Key | None = None, **changes: Any) -> RentedMachine:
    """Honest, if nothing is changed."""
    node = node or NODES[place]
    key = public(place, generation)
    said = MeshKey(LEASE, place, generation, node.address, key)
    fields: dict[str, Any] = {
        "place": place,
        "generation": generation,
        "node": checksummed(node.address),
        "operator": checksummed(Address(b"\x0a" * 20)),
        "phase": "ready",
        "price_hour_wei": 10**9,
        "key": hex0x(key),
        "signature": hex0x(node.sign(said.signing_digest(DOMAIN))),
        "steps_ms": {"mesh": 7, "ray": 900},
        "proof": "measured",
        "proven_s": 90.0,
    }
    return RentedMachine(**(fields | changes))


def rental(
    machines: Sequence[RentedMachine],
    relay: Mapping[int, tuple[str, int]] | None = None,
    mine: bytes | None = None,
    seen: Mapping[int, tuple[str, int]] | None = None,
    **changes: Any,
) -> Rental:
    """
    Args:
        relay: by place, where the renter sends what is for it.
        mine: the renter's key.
    """
    net, count = net_of(LEASE), len(machines)
    relay = {it.place: ("10.77.0.1", 1000 + it.place) for it in machines} if relay is None else relay
    members = [
        Member(
            place=it.place,
            key=it.key,
            address=net.address(it.place),
            relay=relay.get(it.place),
            seen=(seen or {}).get(it.place),
        )
        for it in machines
        if it.phase != "lost"
    ]
    if mine is not None:
        members.append(
            Member(place=count, key=hex0x(mine), address=net.address(count), relay=None, seen=None)
        )
    fields: dict[str, Any] = {
        "id": hex0x(LEASE),
        "state": "running",
        "made_s": NOW_S - 100,
        "began_s": NOW_S - 90,
        "until_s": NOW_S + 3_600,
        "extendable_s": 0,
        "ended_s": None,
        "why": "",
        "detail": "",
        "price_hour_wei": 10**9 * count,
        "paid_wei": 5 * 10**7,
        "runway_s": 7_200,
        "setup": Setup(),
        "machines": list(machines),
        "network": net.prefix,
        "place": count,
        "address": net.address(count),
        "head": net.address(0),
        "token": "ab" * 32,
        "members": members,
        "notes": [],
    }
    return msgspec.convert(msgspec.to_builtins(fields | changes), Rental)
