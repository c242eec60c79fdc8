"""The kernel's WireGuard in the words of core/uapi.py: what is set becomes attributes of netlink messages, what it tells becomes text.

So whoever speaks to a device doesn't see which of the two it is.

Source: include/uapi/linux/wireguard.h of Linux 6.1.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, cast

from clusterai.mesh.core.uapi import ASKING, Malformed

REPLACE_PEERS = 1
REMOVE_ME = 1
REPLACE_ALLOWED = 2
UPDATE_ONLY = 4
FAMILIES = {4: 2, 6: 10}

Attributes = list[tuple[str, Any]]


def is_asking(text: bytes) -> bool:
    return text == ASKING


def attributes(name: str, text: bytes) -> Attributes:
    """Of the one message that sets what this text sets.

    Raises:
        Malformed: it isn't of this protocol.
    """
    try:
        parts = [line.partition("=") for line in text.decode("ascii").split("\n") if line]
        lines = [(name, value) for name, _, value in parts]
        if not lines or lines[0] != ("set", "1"):
            raise Malformed("nothing is set")
        made: Attributes = [("WGDEVICE_A_IFNAME", name)]
        first = next((at for at, it in enumerate(lines) if it[0] == "public_key"), len(lines))
        made += [_of_device(*line) for line in lines[1:first]]
        if peers := list(_peers(lines[first:])):
            made.append(("WGDEVICE_A_PEERS", [{"attrs": it} for it in peers]))
    except (UnicodeDecodeError, ValueError) as error:
        raise Malformed(f"it can't be set: {error}") from None
    return made


def _of_device(name: str, value: str) -> tuple[str, Any]:
    if name == "private_key":
        return "WGDEVICE_A_PRIVATE_KEY", b64encode(bytes.fromhex(value))
    if name == "listen_port":
        return "WGDEVICE_A_LISTEN_PORT", int(value)
    if (name, value) == ("replace_peers", "true"):
        return "WGDEVICE_A_FLAGS", REPLACE_PEERS
    raise Malformed(f"a device has no {name}")


def _peers(lines: Sequence[tuple[str, str]]) -> Iterable[Attributes]:
    begins = [at for at, it in enumerate(lines) if it[0] == "public_key"]
    for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
        yield _peer(lines[begin:end])


def _peer(lines: Sequence[tuple[str, str]]) -> Attributes:
    made: Attributes = []
    flags = 0
    allowed: list[dict[str, Attributes]] = []
    marks = {"replace_allowed_ips": REPLACE_ALLOWED, "update_only": UPDATE_ONLY, "remove": REMOVE_ME}
    for name, value in lines:
        if name == "public_key":
            made.append(("WGPEER_A_PUBLIC_KEY", b64encode(bytes.fromhex(value))))
        elif name == "endpoint":
            host, _, port = value.rpartition(":")
            made.append(("WGPEER_A_ENDPOINT", {"addr": str(ip_address(host.strip("[]"))), "port": int(port)}))
        elif name == "persistent_keepalive_interval":
            made.append(("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", int(value)))
        elif name == "allowed_ip":
            net = ip_network(value)
            allowed.append(
                {
                    "attrs": [
                        ("WGALLOWEDIP_A_FAMILY", FAMILIES[net.version]),
                        ("WGALLOWEDIP_A_IPADDR", net.network_address.packed),
                        ("WGALLOWEDIP_A_CIDR_MASK", net.prefixlen),
                    ]
                }
            )
        elif name in marks and value == "true":
            flags |= marks[name]
        else:
            raise Malformed(f"a peer has no {name}")
    made.append(("WGPEER_A_FLAGS", flags))
    if allowed:
        made.append(("WGPEER_A_ALLOWEDIPS", allowed))
    return made


def answer(told: Iterable[Sequence[tuple[str, Any]]]) -> bytes:
    """What ASKING is answered, out of the attributes of the kernel's messages: a device with many peers comes in several."""
    lines: list[str] = []
    seen: set[str] = set()
    for message in told:
        device = _named(message)
        if "WGDEVICE_A_LISTEN_PORT" in device and "port" not in seen:
            seen.add("port")
            lines.append(f"listen_port={device['WGDEVICE_A_LISTEN_PORT']}")
        for peer in cast("Sequence[Mapping[str, Any]]", device.get("WGDEVICE_A_PEERS") or ()):
            lines += _told(_named(peer["attrs"]), seen)
    return ("\n".join([*lines, "errno=0"]) + "\n\n").encode()


def _told(peer: Mapping[str, Any], seen: set[str]) -> Iterable[str]:
    key = b64decode(_value(peer["WGPEER_A_PUBLIC_KEY"])).hex()
    if key in seen:
        return  # Its further addresses, in a message of their own.
    seen.add(key)
    yield f"public_key={key}"
    if at := peer.get("WGPEER_A_ENDPOINT"):
        host = ip_address(at["addr"])
        yield f"endpoint=[{host}]:{at['port']}" if host.version == 6 else f"endpoint={host}:{at['port']}"
    if handshake := peer.get("WGPEER_A_LAST_HANDSHAKE_TIME"):
        yield f"last_handshake_time_sec={handshake['tv_sec']}"
    yield f"rx_bytes={peer.get('WGPEER_A_RX_BYTES', 0)}"
    yield f"tx_bytes={peer.get('WGPEER_A_TX_BYTES', 0)}"


def _named(found: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {it[0]: it[1] for it in found}


def _value(found: Any) -> bytes:
    """Of a key, which one of pyroute2's ways of decoding wraps."""
    return cast("Mapping[str, bytes]", found)["value"] if isinstance(found, dict) else found
