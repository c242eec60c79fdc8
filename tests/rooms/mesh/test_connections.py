"""Connections to members who are gone end at once; all others stand."""

import socket
from collections.abc import Iterator

import pytest
from pyroute2 import netns

from clusterai.mesh import abort
from tests.rooms.mesh.hosts import Host

GONE, THERE = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


def connected(address: str, family: int) -> tuple[socket.socket, ...]:
    """Listener, one end and the other; as gRPC does, of IPv6 with an IPv4 address in it where that is asked."""
    listener = socket.create_server((address, 0))
    port = listener.getsockname()[1]
    one = socket.socket(family)
    one.settimeout(5)
    one.connect((address if family == socket.AF_INET else f"::ffff:{address}", port))
    other, _ = listener.accept()
    other.settimeout(5)
    return listener, one, other


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_who_waits_on_somebody_who_is_gone_hears_of_it_at_once(host: Host, family: int):
    """Though no packet comes; connections with others carry on."""
    netns.pushns(host.namespace)
    try:
        gone, there = connected(GONE, family), connected(THERE, family)
    finally:
        netns.popns()
    try:
        abort(host.namespace, [GONE])
        with pytest.raises(ConnectionAbortedError):
            gone[1].recv(1)
        there[2].sendall(b"x")
        assert there[1].recv(1) == b"x"
        abort(host.namespace, [GONE])
    finally:
        for it in (*gone, *there):
            it.close()
