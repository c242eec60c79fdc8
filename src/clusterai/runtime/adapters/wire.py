"""One WebSocket over TLS, driven without a task: bytes in call a function, `send` writes at once.

The `websockets` library's protocol without I/O does the framing, asyncio's transport the buffering. So there is no
queue of ours between a machine's `Send` and the socket, and no task that can be lost: measured beside the library's
own asyncio connection it halves the round trip.

Every wait is bounded: the outbox by bytes (a peer that doesn't read is cut off, never waited for in silence), the
opening by a deadline, silence by `dead_after_s`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import msgspec
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from clusterai.protocol.canonical import MAX_FRAME_BYTES

logging.getLogger("websockets").addHandler(logging.NullHandler())
_silent = logging.getLogger("clusterai.wire")
_silent.propagate = False
_silent.addHandler(logging.NullHandler())


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a link may cost and how long it may be silent.

    Attributes:
        outbox_bytes: unread by the peer before it is cut off as slow; two of the largest frames and some.
        pause_bytes: unread by the peer before `drained` waits: adapters that stream hold back from here on.
        ping_every_s: a ping when nothing else was sent for so long would be enough; we ping always, it is 40 bytes.
        dead_after_s: of silence, after which the peer counts as dead.
        opening_s: from connection to greeted.
        retry_s, retry_most_s: first and longest wait between dials; each wait is drawn between half and all of it.
        strangers: connections that are not greeted yet.
        peers: greeted connections.
    """

    outbox_bytes: int = 3 * MAX_FRAME_BYTES
    pause_bytes: int = 256 * 1024
    ping_every_s: float = 2.0
    dead_after_s: float = 4.0
    opening_s: float = 5.0
    retry_s: float = 0.2
    retry_most_s: float = 5.0
    strangers: int = 256
    peers: int = 4096


def silent_logger() -> logging.Logger:
    """Where the WebSocket library may log: nowhere. It would print peers' bytes."""
    return _silent


class Wire(asyncio.Protocol):
    """One connection; `on_message` gets whole binary messages, `on_closed` exactly once why it ended."""

    def __init__(
        self,
        websocket: ServerProtocol | ClientProtocol,
        limits: Limits,
        on_open: Callable[["Wire"], None],
        on_message: Callable[["Wire", bytes], None],
        on_closed: Callable[["Wire", str], None],
    ) -> None:
        self._websocket = websocket
        self._limits = limits
        self._on_open = on_open
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unpaused = asyncio.Event()
        self._unpaused.set()
        self._last_heard = 0.0
        self._closing: str | None = None
        self.closed = asyncio.Event()

    # --- what the owner calls ---

    @property
    def open(self) -> bool:
        return self._closing is None and self._websocket.state is State.OPEN

    @property
    def silent_s(self) -> float:
        return self._loop.time() - self._last_heard

    def transport_info(self, name: str) -> object:
        assert self._transport is not None
        return self._transport.get_extra_info(name)

    def send(self, message: bytes) -> bool:
        """Write one message. False, and nothing is written, when the connection is closed or cut off for slowness."""
        if not self.open or self._transport is None:
            return False
        if self._transport.get_write_buffer_size() + len(message) > self._limits.outbox_bytes:
            self.abort("slow: it doesn't read what it is sent")
            return False
        self._websocket.send_binary(message)
        self._flush()
        return True

    async def drained(self) -> None:
        """Wait until the peer has read most of what it was sent, or is gone."""
        await self._unpaused.wait()

    def close(self, reason: str) -> None:
        """Say goodbye; what was written before is still delivered."""
        if self._closing is not None:
            return
        self._closing = reason
        if self._websocket.state is State.OPEN:
            self._websocket.send_close(1000, reason.encode()[:120].decode(errors="ignore"))
            self._flush()
            self._loop.call_later(1.0, self._drop)
        else:
            self._drop()

    def abort(self, reason: str) -> None:
        """End now: the peer is dead, slow or hostile."""
        if self._closing is None:
            self._closing = reason
        self._drop()

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface without the base class.
        self._transport = transport = cast("asyncio.Transport", transport)
        if self._closing is not None:
            transport.abort()
            return
        self._last_heard = self._loop.time()
        transport.set_write_buffer_limits(high=self._limits.pause_bytes)
        self._loop.call_later(self._limits.opening_s, self._give_up_opening)
        if isinstance(self._websocket, ClientProtocol):
            self._websocket.send_request(self._websocket.connect())
            self._flush()

    def data_received(self, data: bytes) -> None:
        self._last_heard = self._loop.time()
        self._websocket.receive_data(data)
        if self._closing is None:
            self._take_events()
        self._flush()

    def eof_received(self) -> bool:
        self._websocket.receive_eof()
        return False

    def pause_writing(self) -> None:
        self._unpaused.clear()

    def resume_writing(self) -> None:
        self._unpaused.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing is None:
            received = self._websocket.close_rcvd
            told = received.reason if received else ""
            self._closing = told or (str(exc) if exc else "the connection ended")
        self._end()

    # --- inside ---

    def _take_events(self) -> None:
        for event in self._websocket.events_received():
            if isinstance(event, Request):
                assert isinstance(self._websocket, ServerProtocol)
                self._websocket.send_response(self._websocket.accept(event))
                if self._websocket.state is State.OPEN:
                    self._on_open(self)
            elif isinstance(event, Response):
                if self._websocket.state is State.OPEN:
                    self._on_open(self)
            elif event.opcode is Opcode.BINARY and event.fin:
                self._on_message(self, bytes(event.data))
            elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self.abort("malformed: a message is one whole binary WebSocket frame")
            if self._closing is not None:
                return
        error = self._websocket.handshake_exc or self._websocket.parser_exc
        if error is not None and not isinstance(error, EOFError):
            kind = "no WebSocket" if isinstance(error, InvalidHandshake) else "malformed"
            self._closing = f"{kind}: {error}"

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            self._websocket.data_to_send()
            return
        for data in self._websocket.data_to_send():
            if data:
                transport.write(data)
            else:
                transport.close()
        if transport.get_write_buffer_size() > self._limits.outbox_bytes:
            self.abort("slow: it doesn't read what it is sent")
        elif self._websocket.close_expected():
            self._loop.call_later(1.0, self._drop)

    def _give_up_opening(self) -> None:
        if self._websocket.state is State.CONNECTING:
            self.abort("timeout: no WebSocket handshake")

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        else:
            self._end()  # TLS never finished: asyncio will not call `connection_lost`

    def _end(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self._unpaused.set()
            self._on_closed(self, self._closing or "")
