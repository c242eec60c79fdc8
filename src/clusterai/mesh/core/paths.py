"""Which way to a peer: through the relay, or direct.

    relayed ──outside address known──> trying ──heard from there──> direct
       ^                                  └── nothing heard for TRY_S ──┐        │ silent for LOST_S
       └───────────────────────── again later ──────────────────────────┴────────┘

WireGuard answers to wherever the newest valid packet came from, so trying costs nothing but what is sent into the void: if the other side
is still on the relay, its next packet brings us back to it by itself.
"""

from collections.abc import Iterable, Mapping

import msgspec

from clusterai.mesh.core.uapi import Endpoint, PeerState

TRY_S = 6.0
"""Longer than a keepalive of either side and its answer."""
LOST_S = 20.0
AGAIN_S = (30.0, 120.0, 600.0)


class Move(msgspec.Struct, frozen=True):
    """Send to this peer there from now on."""

    key: bytes
    endpoint: Endpoint


class Ears:
    """Since when nothing came from whom: of its own way a device tells bytes, and no times but of handshakes."""

    def __init__(self) -> None:
        self._heard: dict[bytes, tuple[int, float]] = {}

    def listen(self, states: Iterable[PeerState], now_s: float) -> None:
        """After a look at the device. A peer is listened for from the first look on; who left is forgotten."""
        before, self._heard = self._heard, {}
        for state in states:
            received, heard_s = before.get(state.key, (state.received, now_s))
            # A device that is told of its peers anew counts from nothing.
            came = state.received > (received if state.received >= received else 0)
            self._heard[state.key] = state.received, now_s if came else heard_s

    def silent_s(self, key: bytes, now_s: float) -> float | None:
        """None of a peer that isn't known."""
        found = self._heard.get(key)
        return None if found is None else now_s - found[1]


class _Way:
    def __init__(self, relay: Endpoint) -> None:
        self.relay = relay
        self.outside: Endpoint | None = None
        self.direct = False
        self.trying_s: float | None = None
        self.received = 0
        self.heard_s = 0.0
        self.again_s = 0.0
        self.failures = 0


class Paths:
    """One member's ways to its peers; pure, asked every second or so."""

    def __init__(self, relay: Mapping[bytes, Endpoint]) -> None:
        self._ways = {key: _Way(endpoint) for key, endpoint in relay.items()}

    def seen_outside(self, key: bytes, endpoint: Endpoint) -> None:
        """The relay told where a peer's packets come from. Of a stranger nothing follows."""
        way = self._ways.get(key)
        if way is not None and endpoint != way.relay and way.outside != endpoint:
            way.outside, way.again_s, way.failures = endpoint, 0.0, 0

    def is_direct(self, key: bytes) -> bool:
        """Whether packets go straight to the peer and come from it."""
        return self._ways[key].direct

    def step(self, states: Iterable[PeerState], now_s: float) -> list[Move]:
        """What to change, after a look at the device."""
        moves: list[Move] = []
        for state in states:
            way = self._ways.get(state.key)
            if way is not None and (to := self._turn(way, state, now_s)) is not None:
                moves.append(Move(state.key, to))
        return moves

    def _turn(self, way: _Way, state: PeerState, now_s: float) -> Endpoint | None:
        heard = state.received > way.received
        way.received = state.received
        if heard:
            way.heard_s = now_s
        relayed = state.endpoint is None or state.endpoint == way.relay
        if way.trying_s is not None:
            if heard and not relayed:
                way.direct, way.trying_s, way.failures = True, None, 0
            elif relayed or now_s - way.trying_s > TRY_S:
                return self._back(way, now_s, relayed)
            return None
        if relayed:
            way.direct = False
            if way.outside is None or now_s < way.again_s or state.handshake_s == 0:
                return None
            way.trying_s = now_s
            return way.outside
        if not way.direct and heard:
            way.direct = True  # The other side tried first, and got through.
        if now_s - way.heard_s > LOST_S:
            return self._back(way, now_s, relayed)
        return None

    def _back(self, way: _Way, now_s: float, relayed: bool) -> Endpoint | None:
        way.direct, way.trying_s, way.heard_s = False, None, now_s
        way.again_s = now_s + AGAIN_S[min(way.failures, len(AGAIN_S) - 1)]
        way.failures += 1
        return None if relayed else way.relay
