"""The mesh: one private network per lease, between the rented machines and the renter, over whatever lies between them.

Every member is reached through WireGuard, with keys and addresses of this lease alone. Nobody needs an open port: members send through
a relay first, which sees ciphertext only, learn from it how the other's network shows itself outside, and go direct where that works.

Nothing else is here: who is a member is decided by the lease, what runs in the mesh by the sandbox.
"""

from clusterai.mesh.adapters.connections import abort
from clusterai.mesh.adapters.device import Device, NoWireGuard
from clusterai.mesh.adapters.inside import datagrams
from clusterai.mesh.adapters.kernel import KERNEL
from clusterai.mesh.adapters.relay import RelayServer
from clusterai.mesh.core.members import Member, Net, endpoints, keypair, net_of
from clusterai.mesh.core.paths import Ears, Paths
from clusterai.mesh.core.uapi import Peer, PeerState

__all__ = [
    "KERNEL",
    "Device",
    "Ears",
    "Member",
    "Net",
    "NoWireGuard",
    "Paths",
    "Peer",
    "PeerState",
    "RelayServer",
    "abort",
    "datagrams",
    "endpoints",
    "keypair",
    "net_of",
]
