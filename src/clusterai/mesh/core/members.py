"""Who is in a lease's mesh: keys and addresses of their own, known to its members and its relay alone."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network

import msgspec
from nacl.public import PrivateKey

from clusterai.mesh.core.uapi import Endpoint, Peer
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak

RANGE = IPv4Network("100.64.0.0/10")
"""Addresses that belong to no network one could meet in a machine or at home (RFC 6598)."""
NET_BITS = 8
MOST_MEMBERS = 64


class Net(msgspec.Struct, frozen=True):
    """The addresses of one lease."""

    prefix: str

    def address(self, place: int) -> str:
        """Of the member at this place, from 0."""
        if not 0 <= place < MOST_MEMBERS:
            raise ValueError(f"a mesh has {MOST_MEMBERS} members at most")
        return str(IPv4Network(self.prefix)[place + 1])


class Member(msgspec.Struct, frozen=True):
    """One end of the mesh.

    Attributes:
        place: its number in the lease, which gives its address.
        key: its WireGuard public key of this lease.
    """

    place: int
    key: bytes


def net_of(lease: Digest) -> Net:
    """The lease's own prefix. Two leases of one machine live in network namespaces of their own, so equal ones don't meet."""
    at = int.from_bytes(keccak(b"clusterai mesh" + lease)[:4]) % (1 << (32 - NET_BITS - RANGE.prefixlen))
    return Net(f"{RANGE[at << NET_BITS]}/{32 - NET_BITS}")


def keypair(secret: bytes) -> tuple[bytes, bytes]:
    """A private key of 32 random bytes, as WireGuard clamps it, and its public key."""
    key = PrivateKey(secret)
    return bytes(key), bytes(key.public_key)


def endpoints(
    net: Net, me: Member, members: Sequence[Member], relay: Mapping[int, Endpoint]
) -> tuple[Peer, ...]:
    """All others as this member's device is to know them, through the relay to begin with.

    Args:
        relay: where this member sends what is for a place.
    """
    return tuple(
        Peer(it.key, (net.address(it.place),), relay.get(it.place)) for it in members if it.place != me.place
    )
