"""The mesh's pure parts: configuration text, addresses, the relay's table and the choice of ways."""

from hashlib import blake2s
from ipaddress import IPv4Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.mesh.core import uapi
from clusterai.mesh.core.forwarding import Forward, Port, Table
from clusterai.mesh.core.members import MOST_MEMBERS, RANGE, Member, endpoints, keypair, net_of
from clusterai.mesh.core.paths import LOST_S, TRY_S, Ears, Move, Paths
from clusterai.mesh.core.uapi import Malformed, Peer, PeerState
from clusterai.protocol.ids import Digest

LEASE, OTHER = Digest(b"\x01" * 32), Digest(b"\x02" * 32)
HERE, THERE, ELSEWHERE = ("10.0.0.1", 1000), ("10.0.0.2", 2000), ("10.0.0.9", 9)
KEY = b"\x07" * 32
MEMBERS = [Member(place, keypair(bytes([place + 1]) * 32)[1]) for place in range(3)]


# --- configuration ---


def test_a_device_is_told_and_tells():
    """What is set is written as WireGuard reads it, and what it answers is read back."""
    peer = Peer(KEY, ("100.64.0.2",), ("fd00::1", 51820), 5)
    text = uapi.setting(b"\x01" * 32, 0, [peer]).decode()
    assert "endpoint=[fd00::1]:51820\n" in text
    assert "allowed_ip=100.64.0.2/32\n" in text
    assert text.endswith("\n\n")
    reply = (
        f"private_key={'01' * 32}\nlisten_port=4000\npublic_key={KEY.hex()}\nendpoint=[fd00::1]:51820\n"
        "last_handshake_time_sec=17\nrx_bytes=3\ntx_bytes=4\nallowed_ip=100.64.0.2/32\nerrno=0\n\n"
    ).encode()
    assert uapi.told(reply) == (PeerState(KEY, ("fd00::1", 51820), 17, 3, 4),)
    assert uapi.listening(reply) == 4000


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"errno=1\n\n",
        b"errno=0\nerrno=0\n\n",
        b"nonsense\nerrno=0\n\n",
        b"\xff\xff",
        b"public_key=00\nerrno=0\n\n",
        b"public_key=" + KEY.hex().encode() + b"\nendpoint=here\nerrno=0\n\n",
        b"public_key=" + KEY.hex().encode() + b"\nrx_bytes=many\nerrno=0\n\n",
        (b"public_key=" + KEY.hex().encode() + b"\n") * 257 + b"errno=0\n\n",
    ],
)
def test_nonsense_of_a_device_is_refused(reply: bytes):
    """Anything that isn't the protocol is an error, not a peer."""
    with pytest.raises(Malformed):
        uapi.told(reply)


# --- members ---


@given(st.binary(min_size=32, max_size=32), st.integers(0, MOST_MEMBERS - 1))
def test_addresses_are_the_leases_own(lease: bytes, place: int):
    """A member's address lies in its lease's net, that in the range, and two places never share one."""
    net = net_of(Digest(lease))
    assert IPv4Network(net.prefix).subnet_of(RANGE)
    assert ip_address(net.address(place)) in IPv4Network(net.prefix)
    assert net.address(place) != net.address((place + 1) % MOST_MEMBERS)


def test_a_member_knows_all_others_by_one_address_each():
    """Nothing but its own address is accepted from a peer."""
    net = net_of(LEASE)
    peers = endpoints(net, MEMBERS[0], MEMBERS, {1: HERE})
    assert [peer.allowed for peer in peers] == [(net.address(1),), (net.address(2),)]
    assert [peer.endpoint for peer in peers] == [HERE, None]
    with pytest.raises(ValueError, match="at most"):
        net.address(MOST_MEMBERS)


# --- the relay ---


def handshake(kind: int, receiver: Member) -> bytes:
    length, at = (148, 116) if kind == 1 else (92, 60)
    body = (bytes([kind]) + b"\0\0\0").ljust(at, b"x")
    key = blake2s(b"mac1----" + receiver.key).digest()
    return (body + blake2s(body, key=key, digest_size=16).digest()).ljust(length, b"\0")


DATA = b"\x04\0\0\0" + bytes(60)


def met() -> tuple[Table, Port]:
    """Members 0 and 1 have shaken hands through the relay."""
    table = Table(rate=1000)
    table.open(LEASE, MEMBERS)
    port = Port(LEASE, 0, 1)
    assert table.take(port, HERE, handshake(1, MEMBERS[1]), 0.0) is None, "nobody knows yet where 1 is"
    assert table.take(port.back(), THERE, handshake(1, MEMBERS[0]), 0.0) == Forward(port, HERE)
    return table, port


def test_members_are_forwarded_to_each_other():
    """After a handshake of each side data goes both ways, and each is told where the other is seen."""
    table, port = met()
    assert table.take(port, HERE, DATA, 1.0) == Forward(port.back(), THERE)
    assert table.take(port.back(), THERE, DATA, 1.0) == Forward(port, HERE)
    assert table.outside(LEASE) == {0: HERE, 1: THERE}
    assert table.outside(OTHER) == {}


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        DATA,
        b"\x09\0\0\0" + bytes(60),
        b"\x01\0\0\1" + bytes(144),
        handshake(1, MEMBERS[2]),
        handshake(1, MEMBERS[1])[:-1],
        handshake(1, MEMBERS[1])[:120] + bytes(28),
    ],
)
def test_a_stranger_is_not_forwarded_and_moves_nobody(datagram: bytes):
    """Without the receiver's key neither data nor handshakes pass from elsewhere, and streams stay where they were."""
    table, port = met()
    assert table.take(port, ELSEWHERE, datagram, 1.0) is None
    assert table.outside(LEASE) == {0: HERE, 1: THERE}
    assert table.dropped == 1


def test_a_member_that_moves_is_followed():
    """A new handshake from another address turns the stream there."""
    table, port = met()
    assert table.take(port, ELSEWHERE, handshake(2, MEMBERS[1]), 1.0) == Forward(port.back(), THERE)
    assert table.take(port.back(), THERE, DATA, 1.0) == Forward(port, ELSEWHERE)


def test_a_port_forwards_no_more_than_its_rate():
    """What is above a second's worth is dropped, and flows again a second later."""
    table, port = met()
    passed = sum(table.take(port, HERE, DATA, 1.0) is not None for _ in range(100))
    assert passed == 1000 // len(DATA)
    assert table.take(port, HERE, DATA, 2.0) is not None


def test_a_closed_lease_is_forwarded_no_more():
    """At its end nothing of a lease passes, and nothing is remembered of it."""
    table, port = met()
    table.close(LEASE)
    assert table.take(port, HERE, DATA, 1.0) is None
    assert table.take(port, HERE, handshake(1, MEMBERS[1]), 1.0) is None
    assert table.outside(LEASE) == {}


def test_a_member_that_is_replaced_is_nowhere_until_it_calls():
    """Opened again with another key in its place, those who stay are where they were; who left isn't heard any more."""
    table, port = met()
    table.open(LEASE, (MEMBERS[0], Member(1, bytes(32))))
    assert table.outside(LEASE) == {0: HERE}
    assert table.take(port, HERE, DATA, 1.0) is None
    assert table.take(port.back(), THERE, DATA, 1.0) is None
    assert table.take(Port(LEASE, 0, 2), HERE, handshake(1, MEMBERS[2]), 1.0) is None
    assert table.dropped == 2


# --- ways ---


def state(endpoint: uapi.Endpoint, received: int, handshake_s: int = 1) -> PeerState:
    return PeerState(KEY, endpoint, handshake_s, received, 0)


def trying() -> Paths:
    paths = Paths({KEY: HERE})
    assert paths.step([state(HERE, 1)], 0.0) == []
    paths.seen_outside(KEY, THERE)
    assert paths.step([state(HERE, 2)], 1.0) == [Move(KEY, THERE)]
    return paths


def test_a_direct_way_is_kept_once_it_is_heard():
    """The peer answers where it was tried: that is the way, until it falls silent."""
    paths = trying()
    assert not paths.is_direct(KEY)
    assert paths.step([state(THERE, 3)], 2.0) == []
    assert paths.is_direct(KEY)
    assert paths.step([state(THERE, 3)], 2.0 + LOST_S) == []
    assert paths.step([state(THERE, 3)], 2.1 + LOST_S) == [Move(KEY, HERE)]
    assert not paths.is_direct(KEY)


def test_a_try_in_vain_ends_at_the_relay_and_comes_again_later():
    """Silence at the other address leads back, and the next try waits longer each time."""
    paths = trying()
    assert paths.step([state(THERE, 2)], 1.0 + TRY_S) == []
    assert paths.step([state(THERE, 2)], 1.1 + TRY_S) == [Move(KEY, HERE)]
    assert paths.step([state(HERE, 3)], 20.0) == []
    assert paths.step([state(HERE, 4)], 60.0) == [Move(KEY, THERE)]


def test_nothing_is_tried_before_both_have_met():
    """Without a handshake, or for a stranger, no way is changed."""
    paths = Paths({KEY: HERE})
    paths.seen_outside(KEY, THERE)
    paths.seen_outside(b"\x08" * 32, THERE)
    paths.seen_outside(KEY, HERE)
    assert paths.step([state(HERE, 0, 0), PeerState(b"\x08" * 32, THERE, 1, 1, 1)], 5.0) == []


@given(
    st.lists(
        st.tuples(st.sampled_from([HERE, THERE, ELSEWHERE]), st.integers(0, 3), st.floats(0, 30)), max_size=60
    )
)
def test_it_sends_to_the_relay_or_to_where_the_peer_was_seen(seen: list[tuple[uapi.Endpoint, int, float]]):
    """Whatever a device tells, a peer is never moved to an address that nobody named."""
    paths = Paths({KEY: HERE})
    paths.seen_outside(KEY, THERE)
    now_s, received = 0.0, 0
    for endpoint, more, later_s in seen:
        now_s, received = now_s + later_s, received + more
        for move in paths.step([state(endpoint, received)], now_s):
            assert move.endpoint in (HERE, THERE)


def test_silence_is_counted_from_the_last_byte_that_came():
    """Also over a device that counts from nothing again; who wasn't there before is listened for from now on."""
    ears = Ears()
    ears.listen([state(HERE, 100)], 5.0)
    assert ears.silent_s(KEY, 7.0) == 2.0
    assert ears.silent_s(b"\x08" * 32, 7.0) is None
    ears.listen([state(HERE, 100)], 9.0)
    assert ears.silent_s(KEY, 9.0) == 4.0
    ears.listen([state(HERE, 132)], 10.0)
    ears.listen([state(HERE, 0)], 12.0)
    assert ears.silent_s(KEY, 12.0) == 2.0
    ears.listen([state(HERE, 32)], 13.0)
    assert ears.silent_s(KEY, 13.0) == 0.0
    ears.listen([], 14.0)
    assert ears.silent_s(KEY, 14.0) is None
