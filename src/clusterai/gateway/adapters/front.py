"""The hot path: paid endpoints as bare ASGI, from bytes in to bytes out.

    headers ──> door ──> limits ──> body ──> idempotency ──> endpoint.read ──> desk ──> endpoint's answer ──> bytes

No framework and no models per request stand between; everything else (pages.py) may take its time. What is the same for every
kind of work is here; what differs is in endpoints/.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncGenerator, Mapping

from clusterai.gateway.adapters.archive import Archive
from clusterai.gateway.adapters.asgi import JSON, Gone, Header, Receive, Scope, Send, body_of
from clusterai.gateway.adapters.catalog import Catalog
from clusterai.gateway.adapters.desk import ANSWER_S, Call, Desk
from clusterai.gateway.adapters.door import Admission, Doors, slower, within_limits
from clusterai.gateway.adapters.endpoints import BY_PATH, Asked, Endpoint
from clusterai.gateway.adapters.exchange import Exchange, Incoming
from clusterai.gateway.adapters.meters import Meters
from clusterai.gateway.adapters.replies import Replies, Reply
from clusterai.gateway.core.faults import Fault


class Front:
    """ASGI handlers of the endpoints that clients pay for."""

    def __init__(
        self,
        desk: Desk,
        catalog: Catalog,
        doors: Doors,
        replies: Replies,
        archive: Archive,
        meters: Meters,
        most_body: int = 8 * 1024 * 1024,
        most_running: int = 4096,
        endpoints: Mapping[str, Endpoint] = BY_PATH,
    ) -> None:
        self._desk = desk
        self._catalog = catalog
        self._doors = doors
        self._replies = replies
        self._archive = archive
        self._meters = meters
        self._most_body = most_body
        self._most_running = most_running
        self._boot = secrets.token_hex(8)
        self._count = itertools.count(1)
        self.closing = asyncio.Event()
        """set when the gateway shuts down: streams end with an error event, new requests hear 503"""
        self.busy = 0
        self.idle = asyncio.Event()
        """set while no request runs"""
        self.idle.set()
        self.routes = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request on one of `routes`."""
        incoming = Incoming(f"req_{self._boot}{next(self._count):08x}")
        self.busy += 1
        self.idle.clear()
        try:
            try:
                body = await self._enter(scope, receive, incoming)
                asked = await self.routes[scope["path"]].read(self._catalog, body)
                await self._answer(receive, send, incoming, asked)
            except Fault as fault:
                await self._refuse(send, incoming, fault)
        except Gone:
            self._meters.gone.inc()
        finally:
            self.busy -= 1
            if not self.busy:
                self.idle.set()
            incoming.end()

    # --- on the way in ---

    async def _enter(self, scope: Scope, receive: Receive, incoming: Incoming) -> bytes:
        """Everything that comes before the body is understood."""
        if scope["method"] != "POST":
            raise Fault(405, "invalid_request_error", "method_not_allowed", "use POST here")
        if self.closing.is_set():
            raise Fault(
                503, "service_unavailable", "shutting_down", "this gateway restarts: try again", None, 2.0
            )
        headers: dict[bytes, bytes] = dict(scope["headers"])
        body = await body_of(headers, receive, self._most_body)
        admission = await self._doors.admit("POST", scope["path"], headers, body, "inference")
        incoming.admit(admission)
        self._limit(admission)
        incoming.running = True
        if admission.usage is not None:
            admission.usage.running += 1
        key = headers.get(b"idempotency-key")
        if key is not None:
            name, reply = self._replies.begin(
                admission.account, key.decode("latin-1"), body, self._archive.charged_by
            )
            if reply is not None:
                raise _Replayed(reply)
            incoming.remember(self._replies, name)
        return body

    def _limit(self, admission: Admission) -> None:
        if self.busy > self._most_running:
            raise Fault(429, "rate_limit_error", "gateway_busy", "this gateway is full: try again", None, 1.0)
        within_limits(admission.usage)

    # --- the work ---

    async def _answer(self, receive: Receive, send: Send, incoming: Incoming, asked: Asked) -> None:
        admission = incoming.admission
        assert admission is not None, "nobody gets here unadmitted"
        if admission.usage is not None:
            wait_s = admission.usage.tokens.take(asked.tokens, time.monotonic())
            if wait_s:
                raise slower("tokens", admission.usage.tokens.limit, wait_s)
        call = self._desk.open(
            admission.account,
            asked.model,
            asked.requests,
            asked.preference,
            streamed=asked.streamed,
            tag=incoming.name or b"",
        )
        async with self._followed(call, receive, incoming, asked.model.name) as watcher:
            await asked.tell(Exchange(send, incoming, call, watcher, self._meters))

    @contextlib.asynccontextmanager
    async def _followed(
        self, call: Call, receive: Receive, incoming: Incoming, model: str
    ) -> AsyncGenerator["asyncio.Task[None]"]:
        """While a call runs, its client's departure is watched for; afterwards nothing of it is left."""
        watcher = asyncio.get_running_loop().create_task(_departure(receive, call))
        try:
            async with asyncio.timeout(ANSWER_S):
                yield watcher
        except TimeoutError:
            call.given_up = True
            raise Fault(
                504, "server_error", "answer_timeout", "the answer took too long", retry=False
            ) from None
        finally:
            watcher.cancel()
            self._desk.close(call)
            self._meters.ended(model, call, time.monotonic() - incoming.began_s)

    async def _refuse(self, send: Send, incoming: Incoming, fault: Fault) -> None:
        if isinstance(fault, _Replayed):
            replay: Header = (b"idempotent-replayed", b"true")
            kept = fault.reply
            await incoming.respond(send, kept.status, [*kept.headers, replay], kept.body)
            return
        self._meters.faults.labels(str(fault.status), fault.code).inc()
        await incoming.respond(send, fault.status, [JSON, *fault.headers()], fault.json())


class _Replayed(Fault):
    """Not a fault: the answer is there already."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status, "invalid_request_error", "replayed", "")
        self.reply = reply


async def _departure(receive: Receive, call: Call) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    call.wake()
