"""WireGuard's configuration protocol, as text: what is set, and what a device tells of its peers.

Source: https://www.wireguard.com/xplatform/
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import msgspec

Endpoint = tuple[str, int]
KEY_BYTES = 32
MOST_PEERS = 256


class Malformed(Exception):
    """A device said something that this protocol doesn't know."""


class Peer(msgspec.Struct, frozen=True):
    """Another member, as a device is told of it.

    Attributes:
        key: its public key.
        allowed: addresses that are its own inside the mesh; nothing else is accepted from it or sent to it.
        endpoint: where it is reached; None where it has to call first.
        keepalive_s: seconds between packets that keep a NAT's door open; 0 for none.
    """

    key: bytes
    allowed: tuple[str, ...]
    endpoint: Endpoint | None = None
    keepalive_s: int = 5


class PeerState(msgspec.Struct, frozen=True):
    """What a device tells of a peer.

    Attributes:
        endpoint: where its newest valid packet came from, or where it was said to be.
        handshake_s: when both last agreed on keys, seconds since 1970; 0 for never.
        received, sent: bytes, as they went over the wire.
    """

    key: bytes
    endpoint: Endpoint | None
    handshake_s: int
    received: int
    sent: int


def setting(private: bytes, port: int, peers: Iterable[Peer]) -> bytes:
    """A whole configuration, in place of any before it. Port 0 takes a free one."""
    lines = ["set=1", f"private_key={private.hex()}", f"listen_port={port}", "replace_peers=true"]
    for peer in peers:
        lines += _peer(peer)
    return _text(lines)


def moving(key: bytes, endpoint: Endpoint) -> bytes:
    """Send to this peer elsewhere from now on."""
    return _text(["set=1", f"public_key={key.hex()}", "update_only=true", f"endpoint={_written(endpoint)}"])


def joining(peer: Peer) -> bytes:
    """One peer more, or the same at another endpoint; the others' sessions go on."""
    return _text(["set=1", *_peer(peer)])


def leaving(key: bytes) -> bytes:
    """Forget a peer; nothing of it is accepted any more."""
    return _text(["set=1", f"public_key={key.hex()}", "remove=true"])


ASKING = b"get=1\n\n"


def accepted(reply: bytes) -> None:
    """
    Raises:
        Malformed: the device refused.
    """
    if (number := _errno(_lines(reply))) != 0:
        raise Malformed(f"the device refused: errno {number}")


def told(reply: bytes) -> tuple[PeerState, ...]:
    """The peers of a reply to ASKING.

    Raises:
        Malformed: it isn't one.
    """
    lines = _lines(reply)
    if _errno(lines) != 0:
        raise Malformed(f"the device refused: errno {_errno(lines)}")
    found: list[dict[str, str]] = []
    for name, value in lines:
        if name == "public_key":
            found.append({})
            if len(found) > MOST_PEERS:
                raise Malformed("more peers than a mesh can have")
        if found:
            found[-1][name] = value
    try:
        return tuple(_state(peer) for peer in found)
    except (KeyError, ValueError) as error:
        raise Malformed(f"a peer without what it must have: {error}") from None


def listening(reply: bytes) -> int:
    """The UDP port of a reply to ASKING.

    Raises:
        Malformed: it isn't one.
    """
    for name, value in _lines(reply):
        if name == "listen_port" and value.isdigit() and 0 < int(value) < 1 << 16:
            return int(value)
    raise Malformed("no port is named")


def _peer(peer: Peer) -> list[str]:
    lines = [f"public_key={peer.key.hex()}", "replace_allowed_ips=true"]
    if peer.endpoint is not None:
        lines.append(f"endpoint={_written(peer.endpoint)}")
    lines.append(f"persistent_keepalive_interval={peer.keepalive_s}")
    lines += [f"allowed_ip={ip_address(it)}/{ip_address(it).max_prefixlen}" for it in peer.allowed]
    return lines


def _state(peer: dict[str, str]) -> PeerState:
    key = bytes.fromhex(peer["public_key"])
    if len(key) != KEY_BYTES:
        raise ValueError("a key of another length")
    return PeerState(
        key,
        _read(peer["endpoint"]) if "endpoint" in peer else None,
        int(peer.get("last_handshake_time_sec", "0")),
        int(peer.get("rx_bytes", "0")),
        int(peer.get("tx_bytes", "0")),
    )


def _written(endpoint: Endpoint) -> str:
    host, port = ip_address(endpoint[0]), endpoint[1]
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


def _read(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return str(ip_address(host.strip("[]"))), int(port)


def _lines(reply: bytes) -> Sequence[tuple[str, str]]:
    try:
        text = reply.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed("not text") from None
    pairs = [line.partition("=") for line in text.splitlines() if line]
    if any(not middle for _, middle, _ in pairs):
        raise Malformed("a line without a value")
    return [(name, value) for name, _, value in pairs]


def _errno(lines: Sequence[tuple[str, str]]) -> int:
    found = [value for name, value in lines if name == "errno"]
    if len(found) != 1 or not found[0].lstrip("-").isdigit():
        raise Malformed("it doesn't say whether it worked")
    return int(found[0])


def _text(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n\n").encode()
