"""Links: a gateway hosts, providers and validators dial out and stay connected, to several gateways at once.

    host = LinkServer("0.0.0.0", 8443, me, certificate(folder), authorize, on_up, on_down, on_frame)
    await host.start(); host.send(peer, frame); await host.close()

    caller = LinkClient({gateway_owner: "wss://gateway:8443/"}, me, authorize, on_up, on_down, on_frame)
    task_group.create_task(caller.run()); caller.send(gateway_owner, frame)

Peers are named by their owner's address. Callbacks run on the event loop's thread, at once and in order; for one peer
`on_up` and `on_down` alternate. A frame that doesn't decode ends the link. Pings are answered here and also
handed on (they carry the peer's load); pongs are not. A link never drops a frame in the middle: what `send`
accepted arrives in order, or the link goes down and both sides say again what still matters.
"""

import asyncio
import random
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from typing import cast

import msgspec
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from clusterai.protocol import canonical
from clusterai.protocol.canonical import MAX_FRAME_BYTES, Malformed
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.messages import Frame, Ping, Pong
from clusterai.runtime.adapters.certificate import (
    Certificate,
    caller_context,
    fingerprint_of,
    host_context,
)
from clusterai.runtime.adapters.wire import Limits, Wire, silent_logger
from clusterai.runtime.core.greeting import (
    CURES,
    VERSION,
    Authorize,
    Greeted,
    Handshake,
    Hello,
    Identity,
    Reason,
    TurnedAway,
    Welcome,
    binding,
    greet,
    hear,
    judge,
)

OnUp = Callable[[Address, Role], None]
OnDown = Callable[[Address, str], None]
OnFrame = Callable[[Address, Frame], None]
Load = Callable[[], tuple[int, int]]
"""(running, queued) of this side, told in every ping."""

_FRAME = cast("type[Frame]", Frame)
_BEATS_PER_PING = 4
DEFAULT_LIMITS = Limits()


def idle() -> tuple[int, int]:
    return 0, 0


class _Line:
    """One connection from its first byte to its last, on either side: greeting, then frames and pings."""

    def __init__(self, owner: "LinkServer | _Dial", me: Identity, limits: Limits, load: Load) -> None:
        self._owner = owner
        self._me = me
        self._limits = limits
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._nonce = secrets.token_bytes(32)
        self._heard_hello: Hello | None = None
        self._heard_greeting: tuple[Address, Role] | None = None
        self._beats = 0
        self._beat_due = 0.0
        self._pinged: tuple[int, float] = (0, 0.0)
        self.round_trip_ms: float | None = None
        self.peer: Address | None = None
        hosts = isinstance(owner, LinkServer)
        websocket = (
            ServerProtocol(max_size=MAX_FRAME_BYTES, logger=silent_logger())
            if hosts
            else ClientProtocol(owner.uri, max_size=MAX_FRAME_BYTES, logger=silent_logger())
        )
        self.hosts = hosts
        self.wire = Wire(websocket, limits, self._opened, self._message, self._closed)
        self._deadline = self._loop.call_later(limits.opening_s, self._too_late)

    def send(self, frame: Frame) -> bool:
        data = canonical.encode(frame)
        return len(data) <= MAX_FRAME_BYTES and self.wire.send(data)

    # --- greeting ---

    def _opened(self, wire: Wire) -> None:
        if not self.hosts:
            self._say(Hello(VERSION, self._nonce))

    def _message(self, wire: Wire, data: bytes) -> None:
        try:
            if self.peer is not None:
                self._frame(self.peer, canonical.decode(data, _FRAME))
            else:
                self._greeting(hear(data))
        except Malformed as error:
            self.wire.abort(f"malformed: {error}")

    def _greeting(self, message: Handshake) -> None:
        match message:
            case TurnedAway() if not self.hosts:
                self.wire.close(f"refused: {message.code}: {message.detail}")
            case Hello() if self._heard_hello is None:
                self._heard_hello = message
                if message.version != VERSION:
                    self._turn_away(Reason.VERSION)
                elif self.hosts:
                    self._say(Hello(VERSION, self._nonce))
                    self._say(greet(self._me, self._bound(message)))
            case Greeted() if self._heard_hello is not None and self._heard_greeting is None:
                self._greeted(message, self._bound(self._heard_hello))
            case Welcome() if not self.hosts and self._heard_greeting is not None:
                self._up(*self._heard_greeting)
            case _:
                raise Malformed(f"a {type(message).__name__} out of turn")

    def _greeted(self, message: Greeted, bound: Digest) -> None:
        expected = None if self.hosts else Role.GATEWAY
        judged = judge(message, bound, self._me.domain, self._owner.authorize, expected)
        if not isinstance(judged, Reason):
            judged = self._owner.admit(judged[0]) or judged
        if isinstance(judged, Reason):
            self._turn_away(judged)
        elif self.hosts:
            self._say(Welcome())
            self._up(*judged)
        else:
            self._heard_greeting = judged
            self._say(greet(self._me, bound))

    def _bound(self, hello: Hello) -> Digest:
        """The binding as this side sees the connection: the host knows its certificate, the caller saw one."""
        if self.hosts:
            return binding(cast("LinkServer", self._owner).fingerprint, self._nonce, hello.nonce)
        tls = self.wire.transport_info("ssl_object")
        assert isinstance(tls, ssl.SSLObject), "links are always TLS"
        seen = tls.getpeercert(binary_form=True)
        return binding(fingerprint_of(seen or b""), hello.nonce, self._nonce)

    def _turn_away(self, reason: Reason) -> None:
        if self.hosts:
            self._say(TurnedAway(reason, CURES[reason]))
        self.wire.close(f"refused: {reason}: {CURES[reason]}")

    def _say(self, message: Handshake) -> None:
        self.wire.send(canonical.encode(message))

    def _too_late(self) -> None:
        self.wire.abort("timeout: no greeting")

    # --- frames ---

    def _up(self, peer: Address, role: Role) -> None:
        self._deadline.cancel()
        self.peer = peer
        self._beat()
        self._owner.up(self, peer, role)

    def _frame(self, peer: Address, frame: Frame) -> None:
        if isinstance(frame, Pong):
            sent_ms, at = self._pinged
            if frame.sent_ms == sent_ms:
                self.round_trip_ms = (time.perf_counter() - at) * 1000
            return
        if isinstance(frame, Ping):
            self.send(Pong(frame.sent_ms))
        self._owner.on_frame(peer, frame)

    def _beat(self) -> None:
        """Ping, and notice silence; also that this process itself stood still and has mail to read first."""
        now = self._loop.time()
        every = self._limits.ping_every_s / _BEATS_PER_PING
        stood_still = self._beats > 0 and now - self._beat_due > self._limits.dead_after_s / 4
        if self.wire.silent_s > self._limits.dead_after_s and not stood_still:
            self.wire.abort(f"dead: silent for {self.wire.silent_s:.1f} s")
            return
        if self._beats % _BEATS_PER_PING == 0:
            # Not the loop's clock: uvloop's has milliseconds only.
            self._pinged = (int(now * 1000), time.perf_counter())
            running, queued = self._load()
            self.send(Ping(self._pinged[0], running, queued))
        self._beats += 1
        self._beat_due = now + every
        self._deadline = self._loop.call_later(every, self._beat)

    def _closed(self, wire: Wire, reason: str) -> None:
        self._deadline.cancel()
        self._owner.down(self, reason)


class LinkServer:
    """The gateway's side. `authorize` decides who is no stranger; see `greeting.Reason` for what strangers hear."""

    def __init__(
        self,
        host: str,
        port: int,
        me: Identity,
        own: Certificate,
        authorize: Authorize,
        on_up: OnUp,
        on_down: OnDown,
        on_frame: OnFrame,
        load: Load = idle,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._host = host
        self.port = port
        self._me = me
        self._own = own
        self.fingerprint = own.fingerprint
        self.authorize = authorize
        self._on_up = on_up
        self._on_down = on_down
        self.on_frame = on_frame
        self._load = load
        self._limits = limits
        self._lines: dict[Address, _Line] = {}
        self._all: set[_Line] = set()
        self._server: asyncio.Server | None = None
        self.refused: dict[str, int] = {}
        """How many connections ended before they were up, by the first word of why: for metrics."""

    async def start(self) -> None:
        """Listen; with port 0 the system picks, and `port` then says which."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connection,
            self._host,
            self.port,
            ssl=host_context(self._own),
            ssl_handshake_timeout=self._limits.opening_s,
            ssl_shutdown_timeout=1.0,
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and say goodbye to everybody; frames sent before are still delivered."""
        if self._server is not None:
            self._server.close()
        lines = list(self._all)
        for line in lines:
            line.wire.close("the gateway shuts down")
        for line in lines:
            await line.wire.closed.wait()

    def send(self, peer: Address, frame: Frame) -> bool:
        """Give `peer` a frame. False: not linked, too large, or cut off just now because it doesn't read."""
        line = self._lines.get(peer)
        return line is not None and line.send(frame)

    async def drained(self, peer: Address) -> None:
        """Wait until `peer` reads on; at once when it isn't linked."""
        line = self._lines.get(peer)
        if line is not None:
            await line.wire.drained()

    def drop(self, peer: Address, reason: str) -> None:
        """End the link of a peer that misbehaves or was barred; `on_down` follows."""
        line = self._lines.get(peer)
        if line is not None:
            line.wire.close(reason)

    def peers(self) -> tuple[Address, ...]:
        return tuple(self._lines)

    def round_trip_ms(self, peer: Address) -> float | None:
        """Of the last ping that was answered; None before the first."""
        line = self._lines.get(peer)
        return line.round_trip_ms if line else None

    # --- what lines call ---

    def admit(self, peer: Address) -> Reason | None:
        full = len(self._lines) >= self._limits.peers and peer not in self._lines
        return Reason.FULL if full else None

    def up(self, line: _Line, peer: Address, role: Role) -> None:
        old = self._lines.pop(peer, None)
        if old is not None:
            # It restarted before its death was noticed. The machine must hear of both, for what ran there is lost.
            old.wire.close("replaced: the same owner connected again")
            self._on_down(peer, "replaced by a newer connection")
        self._lines[peer] = line
        self._on_up(peer, role)

    def down(self, line: _Line, reason: str) -> None:
        self._all.discard(line)
        if line.peer is None:
            kind = reason.split(":")[0]
            self.refused[kind] = self.refused.get(kind, 0) + 1
        elif self._lines.get(line.peer) is line:
            del self._lines[line.peer]
            self._on_down(line.peer, reason)

    def _connection(self) -> asyncio.Protocol:
        if len(self._all) - len(self._lines) >= self._limits.strangers:
            return _Deaf()
        line = _Line(self, self._me, self._limits, self._load)
        self._all.add(line)
        return line.wire


class _Deaf(asyncio.Protocol):
    """What a connection too many gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


class LinkStatus(msgspec.Struct, frozen=True):
    """How the link with one gateway stands, for doctor and metrics; `why` is of the last end or refusal."""

    gateway: Address
    url: str
    up: bool
    attempts: int
    why: str
    round_trip_ms: float | None


class LinkClient:
    """A provider's or validator's side: keeps one link to each of `gateways` (owner to wss:// URL)."""

    def __init__(
        self,
        gateways: Mapping[Address, str],
        me: Identity,
        authorize: Authorize,
        on_up: OnUp,
        on_down: OnDown,
        on_frame: OnFrame,
        load: Load = idle,
        limits: Limits = DEFAULT_LIMITS,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.me = me
        self.authorize = authorize
        self.on_up = on_up
        self.on_down = on_down
        self.on_frame = on_frame
        self.load = load
        self.limits = limits
        self.draw = draw
        self._dials = {gateway: _Dial(self, gateway, url) for gateway, url in gateways.items()}

    async def run(self) -> None:
        """Dial, stay, dial again, until cancelled; then say goodbye everywhere."""
        async with asyncio.TaskGroup() as tasks:
            for dial in self._dials.values():
                tasks.create_task(dial.run())

    def send(self, gateway: Address, frame: Frame) -> bool:
        """Give `gateway` a frame. False: not linked, too large, or cut off just now because it doesn't read."""
        dial = self._dials.get(gateway)
        return dial is not None and dial.line is not None and dial.line.send(frame)

    async def drained(self, gateway: Address) -> None:
        """Wait until `gateway` reads on; at once when it isn't linked."""
        dial = self._dials.get(gateway)
        if dial is not None and dial.line is not None:
            await dial.line.wire.drained()

    def peers(self) -> tuple[Address, ...]:
        return tuple(gateway for gateway, dial in self._dials.items() if dial.line is not None)

    def round_trip_ms(self, gateway: Address) -> float | None:
        dial = self._dials.get(gateway)
        return dial.line.round_trip_ms if dial and dial.line else None

    def status(self) -> tuple[LinkStatus, ...]:
        return tuple(dial.status() for dial in self._dials.values())


class _Dial:
    """One gateway that is to be linked, over and over."""

    def __init__(self, client: LinkClient, gateway: Address, url: str) -> None:
        self._client = client
        self._gateway = gateway
        self._url = url
        self.uri = parse_uri(url)
        if not self.uri.secure:
            raise InvalidURI(url, "links are TLS: use wss://")
        self.authorize = client.authorize
        self.on_frame = client.on_frame
        self.line: _Line | None = None
        self._attempts = 0
        self._why = ""

    async def run(self) -> None:
        limits = self._client.limits
        wait_s = limits.retry_s
        while True:
            was_up = await self._once()
            # Who is refused or replaced must not hammer; who lost a good link comes back at once.
            unwelcome = self._why.startswith(("refused", "replaced"))
            wait_s = limits.retry_most_s if unwelcome else limits.retry_s if was_up else wait_s
            await asyncio.sleep(wait_s * (0.5 + self._client.draw() / 2))
            wait_s = min(2 * wait_s, limits.retry_most_s)

    async def _once(self) -> bool:
        """Dial, and stay until the link ends. Whether it was up."""
        loop = asyncio.get_running_loop()
        self._attempts += 1
        line = _Line(self, self._client.me, self._client.limits, self._client.load)
        try:
            async with asyncio.timeout(self._client.limits.opening_s):
                await loop.create_connection(
                    lambda: line.wire,
                    self.uri.host,
                    self.uri.port,
                    ssl=caller_context(),
                    ssl_shutdown_timeout=1.0,
                )
        except (OSError, TimeoutError) as error:
            line.wire.abort(f"unreachable: {error or 'timed out'}")
            return False
        try:
            await line.wire.closed.wait()
        except asyncio.CancelledError:
            line.wire.close("shutting down")
            await line.wire.closed.wait()
            raise
        return line.peer is not None

    def status(self) -> LinkStatus:
        trip = self.line.round_trip_ms if self.line else None
        return LinkStatus(self._gateway, self._url, self.line is not None, self._attempts, self._why, trip)

    # --- what lines call ---

    def admit(self, peer: Address) -> Reason | None:
        return None if peer == self._gateway else Reason.OTHER_GATEWAY

    def up(self, line: _Line, peer: Address, role: Role) -> None:
        self.line = line
        self._why = ""
        self._client.on_up(peer, role)

    def down(self, line: _Line, reason: str) -> None:
        self._why = reason
        if self.line is line:
            self.line = None
            self._client.on_down(self._gateway, reason)
