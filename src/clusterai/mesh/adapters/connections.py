"""To end TCP connections to somebody who is gone: whoever waits on one hears of it at once, and not when it is asked whether it still stands.

Source: sock_diag(7); `struct inet_diag_req_v2`, `struct inet_diag_msg` of linux/inet_diag.h. Needs CONFIG_INET_DIAG_DESTROY and root.
"""

import socket
import struct
from collections.abc import Collection, Iterator

from clusterai.mesh.adapters.inside import inside

_NETLINK_SOCK_DIAG, _BY_FAMILY, _DESTROY = 4, 20, 21
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ASKED = struct.Struct("=BBBBI48s")
_ID_AT, _ID_BYTES, _PEER_AT = 4, 48, 20
_LIVING = 0xFFF & ~(1 << 6) & ~(1 << 7) & ~(1 << 10)
"""TCP's states but TIME_WAIT, CLOSE and LISTEN, in which nobody waits."""
_MAPPED = bytes(10) + b"\xff\xff"
WAITS_S = 2.0
MOST_BYTES = 1 << 16


def abort(namespace: str, addresses: Collection[str]) -> None:
    """End all connections with these IPv4 addresses in a network namespace.

    Raises:
        OSError: the kernel can't, or doesn't let us.
    """
    peers = {socket.inet_aton(it) for it in addresses}
    inside(namespace, lambda: _abort(peers))


def _abort(peers: set[bytes]) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(WAITS_S)
        for family in (socket.AF_INET, socket.AF_INET6):
            for found in [it for it in _found(kernel, family) if _peer(family, it) in peers]:
                _ask(kernel, _DESTROY, _REQUEST | _ACK, family, found)
                list(_answers(kernel))


def _ask(kernel: socket.socket, kind: int, flags: int, family: int, named: bytes) -> None:
    asked = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, _LIVING, named)
    kernel.send(_HEADER.pack(_HEADER.size + len(asked), kind, flags, 1, 0) + asked)


def _found(kernel: socket.socket, family: int) -> list[bytes]:
    """How the kernel names each connection of a family."""
    _ask(kernel, _BY_FAMILY, _REQUEST | _DUMP, family, bytes(_ID_BYTES))
    return [it[_ID_AT : _ID_AT + _ID_BYTES] for it in _answers(kernel)]


def _peer(family: int, named: bytes) -> bytes:
    """Its far end; gRPC's sockets are of IPv6 and have IPv4 addresses in it."""
    there = named[_PEER_AT : _PEER_AT + 16]
    if family == socket.AF_INET:
        return there[:4]
    return there[12:] if there.startswith(_MAPPED) else there


def _answers(kernel: socket.socket) -> Iterator[bytes]:
    """Until the kernel is done.

    Raises:
        OSError: it refused. A connection that ended by itself meanwhile is no refusal.
    """
    while True:
        data = kernel.recv(MOST_BYTES)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            body = data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("=i", body)[0]
                if number not in (0, 2):
                    raise OSError(number, "the kernel doesn't end connections")
                return
            yield body
