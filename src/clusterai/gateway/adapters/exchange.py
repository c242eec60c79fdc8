"""One paid request from the moment that it came until its last byte is out: what it holds, and how it is answered."""

import asyncio
import time

from clusterai.gateway.adapters import asgi
from clusterai.gateway.adapters.asgi import Gone, Header, Send
from clusterai.gateway.adapters.desk import Call
from clusterai.gateway.adapters.door import Admission
from clusterai.gateway.adapters.meters import Meters
from clusterai.gateway.adapters.replies import Replies, Reply
from clusterai.gateway.core.faults import Fault
from clusterai.gateway.core.shapes import Told
from clusterai.protocol.ids import Digest


class Incoming:
    """What one request holds until it ends: who pays, its place among a key's requests, its idempotency key."""

    __slots__ = ("_replies", "admission", "began_s", "id", "name", "running")

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.began_s = time.monotonic()
        self.admission: Admission | None = None
        self.running = False
        self.name: Digest | None = None
        self._replies: Replies | None = None

    def admit(self, admission: Admission) -> None:
        self.admission = admission

    def remember(self, replies: Replies, name: Digest) -> None:
        self._replies, self.name = replies, name

    def keep(self, reply: Reply) -> None:
        if self._replies is not None and self.name is not None:
            self._replies.keep(self.name, reply)
            self._replies = None

    def headers(self) -> list[Header]:
        found: list[Header] = [(b"x-request-id", self.id.encode())]
        if self.admission is not None:
            found += self.admission.headers
            if self.admission.usage is not None:
                found += self.admission.usage.headers(time.monotonic())
        return found

    async def respond(self, send: Send, status: int, headers: list[Header], body: bytes) -> None:
        """The whole answer."""
        length: Header = (b"content-length", b"%d" % len(body))
        await asgi.start(send, status, [*headers, length, *self.headers()])
        await asgi.more(send, body, last=True)

    def end(self) -> None:
        if self._replies is not None and self.name is not None:
            self._replies.forget(self.name)
        if self.running and self.admission is not None and self.admission.usage is not None:
            self.admission.usage.running -= 1


class Exchange:
    """A request whose work runs: endpoints take its news and give its answer.

    Args:
        watcher: done when the client has left.
    """

    def __init__(
        self, send: Send, incoming: Incoming, call: Call, watcher: "asyncio.Task[None]", meters: Meters
    ) -> None:
        self._send = send
        self._incoming = incoming
        self._watcher = watcher
        self._meters = meters
        self._kept: list[bytes] = []
        self.call = call
        self.id = incoming.id

    async def news(self) -> None:
        """Wait for the Meter.

        Raises:
            Gone: the client left.
        """
        await self.call.news()
        if self._watcher.done() and not self.call.over:
            raise Gone

    async def ended(self) -> None:
        """Wait until there is nothing more to wait for.

        Raises:
            Gone: the client left. Fault: it failed.
        """
        while not (self.call.over or self.call.failed):
            await self.news()
        if (fault := self.call.fault()) is not None:
            raise fault

    def told(self, seed: int | None) -> Told:
        """What the client hears of receipts and price."""
        dones = [choice.done for choice in self.call.in_order() if choice.done is not None]
        charges = tuple(done.charged for done in dones if done.charged is not None)
        return Told(charges, seed, len(dones) - len(charges))

    async def respond(self, headers: list[Header], body: bytes) -> None:
        """The whole answer at once; kept for who asks again with the same idempotency key."""
        self._incoming.keep(Reply(200, headers, body))
        await self._incoming.respond(self._send, 200, headers, body)

    # --- an answer in parts ---

    async def begin(self) -> None:
        self.call.begun = True
        await asgi.start(self._send, 200, [*asgi.EVENTS, *self._incoming.headers()])

    async def more(self, part: bytes) -> None:
        if self._incoming.name is not None:
            self._kept.append(part)
        if part:
            await asgi.more(self._send, part)

    async def finish(self, part: bytes) -> None:
        self._kept.append(part)
        self._incoming.keep(Reply(200, asgi.EVENTS, b"".join(self._kept)))
        await asgi.more(self._send, part, last=True)

    async def break_off(self, part: bytes, fault: Fault) -> None:
        """End in an error; text that came before it is still the client's."""
        await asgi.more(self._send, part + b"data: " + fault.json() + b"\n\n", last=True)
        self._meters.faults.labels(str(fault.status), fault.code).inc()
