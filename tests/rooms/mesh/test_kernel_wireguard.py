"""The kernel's WireGuard: taken where there is one, told in netlink what wireguard-go is told in text. No kernel with one was at hand."""

import asyncio
from typing import Any

import pytest
from pyroute2.netlink.generic import wireguard

from clusterai.mesh import Device, Member, NoWireGuard, endpoints, keypair, net_of
from clusterai.mesh.adapters.kernel import message
from clusterai.mesh.core.attributes import answer, attributes, is_asking
from clusterai.mesh.core.uapi import (
    Malformed,
    Peer,
    PeerState,
    joining,
    leaving,
    listening,
    moving,
    setting,
    told,
)
from clusterai.protocol.ids import Digest

KEY = bytes(range(32))
OTHER = bytes(range(32, 64))
PEERS = (
    Peer(KEY, ("100.64.0.1",), ("192.0.2.7", 4242)),
    Peer(OTHER, ("100.64.0.2", "fd00::2"), ("2001:db8::7", 51820), keepalive_s=25),
)


def wired(text: bytes) -> Any:
    """What the kernel would read: encoded by pyroute2, and decoded by it."""
    made = message(wireguard.WG_CMD_SET_DEVICE, attributes("ca0", text))
    made.encode()
    read: Any = wireguard.wgmsg(made.data)
    read.decode()
    return read


def peers_of(read: Any) -> list[Any]:
    return list(read.get_attr("WGDEVICE_A_PEERS"))


class FakeKernel:
    """One that has WireGuard, or not: it keeps what it is told, by what pyroute2 makes of it."""

    def __init__(self, *, has: bool = True) -> None:
        self.has = has
        self.networks: dict[str, str | None] = {}
        self.peers: dict[bytes, Any] = {}
        self.port = 0

    def make(self, name: str, network: str | None) -> bool:
        if self.has:
            self.networks[name] = network
        return self.has

    def say(self, name: str, network: str | None, text: bytes) -> bytes:
        if self.networks.get(name, "") != network:
            raise OSError("no such device")
        if is_asking(text):
            found = [("WGDEVICE_A_PEERS", list(self.peers.values())), ("WGDEVICE_A_LISTEN_PORT", self.port)]
            return answer([found])
        read = wired(text)
        if read.get_attr("WGDEVICE_A_FLAGS") == 1:
            self.peers.clear()
            self.port = 4711
        for peer in peers_of(read) if read.get_attr("WGDEVICE_A_PEERS") else []:
            key, flags = peer.get_attr("WGPEER_A_PUBLIC_KEY"), peer.get_attr("WGPEER_A_FLAGS")
            if flags & 1:
                self.peers.pop(key, None)
            elif not flags & 4 or key in self.peers:
                self.peers[key] = peer
        return b"errno=0\n\n"

    def remove(self, name: str, network: str | None) -> None:
        if self.networks.get(name, "") == network:
            del self.networks[name]


def test_a_whole_configuration_becomes_one_message():
    """Key, port, and each peer with its flags, endpoint and addresses, in place of any before."""
    read = wired(setting(KEY, 0, PEERS))
    assert read.get_attr("WGDEVICE_A_IFNAME") == "ca0"
    assert read.get_attr("WGDEVICE_A_FLAGS") == 1
    assert read.get_attr("WGDEVICE_A_LISTEN_PORT") == 0
    one, two = peers_of(read)
    assert one.get_attr("WGPEER_A_FLAGS") == 2
    assert one.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == 5
    assert [it["addr"] for it in one.get_attr("WGPEER_A_ALLOWEDIPS")] == ["100.64.0.1/32"]
    assert [it["addr"] for it in two.get_attr("WGPEER_A_ALLOWEDIPS")] == ["100.64.0.2/32", "fd00::2/128"]
    assert (two.get_attr("WGPEER_A_ENDPOINT")["addr"], two.get_attr("WGPEER_A_ENDPOINT")["port"]) == (
        "2001:db8::7",
        51820,
    )


@pytest.mark.parametrize(
    ("text", "flags"), [(joining(PEERS[0]), 2), (moving(KEY, ("192.0.2.9", 1)), 4), (leaving(KEY), 1)]
)
def test_a_change_touches_no_other_peer(text: bytes, flags: int):
    """To join, to move, to leave: a message of one peer, and nothing of the device's own."""
    read = wired(text)
    assert read.get_attr("WGDEVICE_A_FLAGS") is None
    assert read.get_attr("WGDEVICE_A_PRIVATE_KEY") is None
    assert [it.get_attr("WGPEER_A_FLAGS") for it in peers_of(read)] == [flags]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"get=1\n\n",
        b"set=1\nfwmark=x\n\n",
        b"set=1\nlisten_port=x\n\n",
        b"set=1\nprivate_key=zz\n\n",
        b"set=1\npublic_key=" + b"0" * 64 + b"\npreshared_key=00\n\n",
        b"set=1\npublic_key=" + b"0" * 64 + b"\nendpoint=nowhere:1\n\n",
        b"\xff",
    ],
)
def test_what_is_not_of_the_protocol_is_refused(text: bytes):
    """Nothing half understood reaches the kernel."""
    with pytest.raises(Malformed):
        attributes("ca0", text)


def test_what_the_kernel_tells_reads_as_what_wireguard_go_tells():
    """Endpoints of both families, handshakes and bytes; a peer whose addresses come in a second message is one peer."""
    first = [
        ("WGDEVICE_A_LISTEN_PORT", 4242),
        (
            "WGDEVICE_A_PEERS",
            [
                {
                    "attrs": [
                        ("WGPEER_A_PUBLIC_KEY", b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
                        ("WGPEER_A_ENDPOINT", {"family": 10, "addr": "2001:db8::7", "port": 9}),
                        ("WGPEER_A_LAST_HANDSHAKE_TIME", {"tv_sec": 1700000000, "tv_nsec": 5}),
                        ("WGPEER_A_RX_BYTES", 7),
                        ("WGPEER_A_TX_BYTES", 8),
                    ]
                }
            ],
        ),
    ]
    reply = answer([first, first])
    assert listening(reply) == 4242
    assert told(reply) == (PeerState(KEY, ("2001:db8::7", 9), 1700000000, 7, 8),)


def test_the_kernel_is_taken_where_it_has_wireguard():
    """All that a mesh does of an interface is done there: made where packets leave, spoken to in text, removed at the end."""
    asyncio.run(_taken(FakeKernel()))


async def _taken(kernel: FakeKernel) -> None:
    device = await Device.open("ca0", origin="/run/netns/out", kernel=kernel)
    assert device.in_kernel
    assert device.pids == ()
    net = net_of(Digest(b"\x21" * 32))
    members = [Member(place, keypair(bytes([place + 1]) * 32)[1]) for place in range(3)]
    peers = endpoints(net, members[0], members, {1: ("192.0.2.1", 1001), 2: ("192.0.2.1", 1002)})
    assert await device.configure(KEY, peers) == 4711
    assert [it.endpoint for it in await device.states()] == [("192.0.2.1", 1001), ("192.0.2.1", 1002)]
    await device.move(members[1].key, ("198.51.100.4", 7))
    await device.say(leaving(members[2].key))
    await device.say(joining(Peer(OTHER, ("100.64.0.9",))))
    await device.move(members[2].key, ("198.51.100.5", 7))
    assert {it.key: it.endpoint for it in await device.states()} == {
        members[1].key: ("198.51.100.4", 7),
        OTHER: None,
    }
    await device.close()
    assert kernel.networks == {}
    with pytest.raises(NoWireGuard):
        await device.states()


@pytest.mark.parametrize(
    ("kernel", "enter"),
    [(FakeKernel(has=False), ()), (FakeKernel(), ("nsenter", "--net=/proc/self/ns/net"))],
)
def test_a_kernel_without_it_leaves_it_to_wireguard_go(kernel: FakeKernel, enter: tuple[str, ...]):
    """And so does one that is asked for a network which only a command line knows."""
    in_kernel, pids = asyncio.run(_left(kernel, enter))
    assert (in_kernel, len(pids), kernel.networks) == (False, 1, {})


async def _left(kernel: FakeKernel, enter: tuple[str, ...]) -> tuple[bool, tuple[int, ...]]:
    device = await Device.open(f"ca-k{len(enter)}", enter, kernel=kernel)
    try:
        return device.in_kernel, device.pids
    finally:
        await device.close()
