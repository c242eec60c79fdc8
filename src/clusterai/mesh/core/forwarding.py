"""The relay's table: whose packets go where. It sees ciphertext, and forwards nothing that isn't WireGuard's.

Each ordered pair of members has a port: what `a` sends to port (a, b) goes to `b`, from port (b, a), so that `b` answers to it. Where a
member is, is learnt from its handshakes: each carries a code made with the receiver's public key (mac1), which only
members of the lease know. Whoever doesn't know it can neither be forwarded nor turn a stream elsewhere.

Source: https://www.wireguard.com/protocol/ (handshake 1: 148 bytes, mac1 at 116; handshake 2: 92 bytes, at 60; cookie 64; data >= 32).
"""

import hmac
from collections.abc import Mapping, Sequence
from hashlib import blake2s

import msgspec

from clusterai.mesh.core.members import Member
from clusterai.mesh.core.uapi import Endpoint
from clusterai.protocol.ids import Digest

MOST_BYTES = 65_507
_INITIATION, _RESPONSE, _COOKIE, _DATA = 1, 2, 3, 4
_MAC1_AT = {_INITIATION: (148, 116), _RESPONSE: (92, 60)}
_LABEL = b"mac1----"


class Port(msgspec.Struct, frozen=True):
    """Where `sender` sends what is for `receiver`, by their places in a lease."""

    lease: Digest
    sender: int
    receiver: int

    def back(self) -> "Port":
        return Port(self.lease, self.receiver, self.sender)


class Forward(msgspec.Struct, frozen=True):
    """Send this datagram from a port of ours to an address."""

    port: Port
    to: Endpoint


class Table:
    """Who is where; pure.

    Args:
        rate: bytes a second that one port forwards; what is above is dropped, as a full line would.
    """

    def __init__(self, rate: int = 125_000_000) -> None:
        self._rate = rate
        self._keys: dict[tuple[Digest, int], bytes] = {}
        self._places: dict[Port, Endpoint] = {}
        self._spent: dict[Port, tuple[float, float]] = {}
        self.dropped = 0

    def open(self, lease: Digest, members: Sequence[Member]) -> tuple[Port, ...]:
        """The ports of a lease; again, when its members are others. Who left or has another key is nowhere until it calls."""
        before = {key: code for key, code in self._keys.items() if key[0] == lease}
        for key in before:
            del self._keys[key]
        for member in members:
            self._keys[lease, member.place] = blake2s(_LABEL + member.key).digest()
        for port in [it for it in self._places if it.lease == lease]:
            sender = lease, port.sender
            if self._keys.get(sender) != before.get(sender):
                del self._places[port]
        places = [member.place for member in members]
        return tuple(Port(lease, a, b) for a in places for b in places if a != b)

    def close(self, lease: Digest) -> None:
        """The lease is over: nothing of it is forwarded any more."""
        for held in (self._places, self._spent):
            for port in [it for it in held if it.lease == lease]:
                del held[port]
        for key in [it for it in self._keys if it[0] == lease]:
            del self._keys[key]

    def outside(self, lease: Digest) -> Mapping[int, Endpoint]:
        """Where members' packets come from, as seen from here."""
        return {port.sender: place for port, place in self._places.items() if port.lease == lease}

    def take(self, port: Port, source: Endpoint, datagram: bytes, now_s: float) -> Forward | None:
        """Where a datagram goes; None where it goes nowhere."""
        if not self._is_known(port, source, datagram) or not self._within(port, len(datagram), now_s):
            self.dropped += 1
            return None
        to = self._places.get(port.back())
        return None if to is None else Forward(port.back(), to)

    def _is_known(self, port: Port, source: Endpoint, datagram: bytes) -> bool:
        key = self._keys.get((port.lease, port.receiver))
        if key is None or len(datagram) < 32 or datagram[1:4] != b"\0\0\0":
            return False
        kind = datagram[0]
        if kind in _MAC1_AT:
            length, at = _MAC1_AT[kind]
            if len(datagram) != length:
                return False
            code = blake2s(datagram[:at], key=key, digest_size=16).digest()
            if not hmac.compare_digest(code, datagram[at : at + 16]):
                return False
            self._places[port] = source
            return True
        return kind in (_COOKIE, _DATA) and self._places.get(port) == source

    def _within(self, port: Port, size: int, now_s: float) -> bool:
        """A bucket of one second's worth."""
        left, since_s = self._spent.get(port, (float(self._rate), now_s))
        left = min(float(self._rate), left + (now_s - since_s) * self._rate)
        if size > left:
            self._spent[port] = (left, now_s)
            return False
        self._spent[port] = (left - size, now_s)
        return True
