"""The HTTP endpoints of calls, of orders of any kind, and of data, as `sdk.vaults` describes them. Errors are RFC 9457 problems."""

import asyncio
import base64
import time
from itertools import islice
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from clusterai.gateway.adapters.archive import Archive
from clusterai.gateway.adapters.calls import views
from clusterai.gateway.adapters.calls.calling import Calling, Lost, Refused
from clusterai.gateway.adapters.desk import ANSWER_S, Desk, Numbers
from clusterai.gateway.adapters.door import Admission, Doors, within_limits
from clusterai.gateway.adapters.handling import body_of, json_of, missing, number
from clusterai.gateway.adapters.replies import Replies, Reply
from clusterai.gateway.core.faults import Fault
from clusterai.gateway.core.flow import Full, Held
from clusterai.gateway.core.meter import Meter
from clusterai.gateway.core.posted import MOST_BODY
from clusterai.market.core.routing import Preference
from clusterai.protocol import ids
from clusterai.protocol.calls import MOST_CALL_BYTES
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest, checksummed
from clusterai.protocol.money import show
from clusterai.sdk.vaultshapes import DataPosted, OrderRequest
from clusterai.work import KINDS, Kind
from clusterai.work.packed import Unpackable, bytes_of

MOST_ORDER_BODY = 1_200_000
"""Base64 of what a request may have (768 KiB, so that it can be shown on chain)."""
MOST_LISTED = 100
MOST_WORDS = 200

PROBLEMS: dict[str, tuple[int, float | None]] = {
    "unknown_subject": (404, None),
    "busy": (503, 1.0),
    "too_large": (413, None),
    "malformed": (400, None),
    "denied": (403, None),
    "too_slow": (504, None),
    "shutting_down": (503, 2.0),
}
"""A provider's refusals as HTTP says them; all others are its failure."""


class CallPages:
    """Handlers of `/v1/clusterai/calls`, `/v1/clusterai/orders` and `/v1/clusterai/data`."""

    def __init__(
        self,
        calling: Calling,
        desk: Desk,
        meter: Meter,
        doors: Doors,
        replies: Replies,
        archive: Archive,
    ) -> None:
        self._calling = calling
        self._desk = desk
        self._meter = meter
        self._doors = doors
        self._replies = replies
        self._archive = archive
        self._orders: set[asyncio.Task[Response]] = set()
        self._running = 0
        self.closing = asyncio.Event()
        self.idle = asyncio.Event()
        """set while no call and no order runs"""
        self.idle.set()

    def routes(self) -> list[Route]:
        return [
            Route("/v1/clusterai/calls/{subject}", self.call, methods=["POST"]),
            Route("/v1/clusterai/orders/{subject}", self.order, methods=["POST"]),
            Route("/v1/clusterai/data", self.datasets, methods=["GET", "POST"]),
            Route("/v1/clusterai/data/{dataset}", self.dataset, methods=["GET"]),
        ]

    # --- calls ---

    async def call(self, request: Request) -> Response:
        admission = await self._enter(request)
        subject = _digest(request, "subject")
        sender = ZERO_ADDRESS
        if (text := request.query_params.get("sender")) is not None:
            sender = _address(text, "sender")
        provider = self._answerer(subject, request.query_params.get("provider"))
        within_limits(admission.usage)
        try:
            held = self._calling.flow.begin(admission.account, time.monotonic())
        except Full as error:
            raise _full(error, 429) from None
        self._begin(admission)
        try:
            # One deadline for the body too: who sends a byte a minute would hold its place for ever.
            async with asyncio.timeout(self._calling.timeout_s):
                body = await _read(request, held)
            answer = await self._calling.call(provider, subject, sender, body, held)
        except BaseException as error:
            held.end()
            self._end(admission)
            raise _fault_of(error, provider) from None
        headers = {"x-clusterai-provider": checksummed(provider)}
        return _Held(answer, headers, self._calling.timeout_s, lambda: (held.end(), self._end(admission)))

    def _answerer(self, subject: Digest, wanted: str | None) -> Address:
        """
        Raises:
            Fault: 404, nobody linked answers calls about it, or not the wanted one.
        """
        found = self._calling.answerers(subject)
        if wanted is not None:
            provider = _address(wanted, "provider")
            if provider not in found:
                raise missing(
                    f"{checksummed(provider)} isn't linked here, or answers no calls about this subject: leave"
                    " `provider` out, or look it up by GET /v1/clusterai/data"
                )
            return provider
        if not found:
            raise missing(
                "no linked provider answers calls about this subject: GET /v1/clusterai/data lists what there is;"
                " a vault that was restarted is back within seconds"
            )
        return found[0]

    # --- orders ---

    async def order(self, request: Request) -> Response:
        admission = await self._enter(request)
        subject = _digest(request, "subject")
        raw = await body_of(request, MOST_ORDER_BODY)
        kind, value, asked = _asked(raw, subject)
        within_limits(admission.usage)
        name = b""
        key = request.headers.get("idempotency-key")
        if key is not None:
            try:
                name, reply = self._replies.begin(
                    admission.account, key, bytes(subject) + raw, self._archive.charged_by
                )
            except Fault as fault:
                if fault.code != "answer_lost":
                    raise
                return self._kept(admission.account, self._replies.name_of(admission.account, key), fault)
            if reply is not None:
                headers = {**_text(reply.headers), "idempotent-replayed": "true"}
                return Response(reply.body, reply.status, headers)
        self._begin(admission)
        # What was begun goes on to its end though its client leaves: it is paid for, and the answer is kept for its key.
        task = asyncio.get_running_loop().create_task(
            self._done(admission, subject, kind, value, asked, name)
        )
        self._orders.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _kept(self, account: Digest, name: Digest, lost: Fault) -> Response:
        """What was answered and charged, and then this gateway died: its transcript says it as well.

        Raises:
            Fault: the transcript is gone too.
        """
        order = self._archive.charged_by(name)
        receipt = None if order is None else self._archive.receipt(ids.digest(order))
        transcript = None if order is None else self._archive.transcript(ids.digest(order), account)
        if receipt is None or transcript is None:
            raise lost
        try:
            answer = bytes_of(transcript.answer.tokens)
        except Unpackable:
            raise lost from None
        told = views.ordered(self._meter, receipt[0], transcript, answer)
        return Response(
            msgspec.json.encode(told),
            200,
            {"content-type": "application/json", "idempotent-replayed": "true"},
        )

    def _over(self, task: "asyncio.Task[Response]") -> None:
        self._orders.discard(task)
        if not task.cancelled():
            task.exception()  # its client may be gone, and nobody else asks

    async def _done(
        self, admission: Admission, subject: Digest, kind: Kind, value: Any, asked: OrderRequest, name: bytes
    ) -> Response:
        body: bytes | None = None
        headers = [(b"content-type", b"application/json")]
        try:
            body = await self._carried_out(admission.account, subject, kind, value, asked, name)
            return Response(body, 200, _text(headers))
        finally:
            if name and body is not None:
                self._replies.keep(Digest(name), Reply(200, headers, body))
            elif name:
                self._replies.forget(Digest(name))
            self._end(admission)

    async def _carried_out(
        self, account: Digest, subject: Digest, kind: Kind, value: Any, asked: OrderRequest, name: bytes
    ) -> bytes:
        call, choice = self._desk.order(
            account, kind, subject, value, self._preference(subject, kind, value, asked), name
        )
        try:
            async with asyncio.timeout(max(ANSWER_S, 2 * kind.first_s)):
                while not (call.over or call.failed):
                    await call.news()
        except TimeoutError:
            call.given_up = True
            raise Fault(
                504,
                "server_error",
                "answer_timeout",
                "the answer took too long: nothing was charged",
                retry=False,
            ) from None
        finally:
            fault = call.fault()
            self._desk.close(call)
        if fault is not None:
            raise fault
        return self._told(choice)

    def _preference(self, subject: Digest, kind: Kind, value: Any, asked: OrderRequest) -> Preference:
        """Whom the order may go to, at which prices: those at which it can't cost more than it may.

        Raises:
            Fault: 400, every offer is above that.
        """
        wanted = () if asked.provider is None else (_address(asked.provider, "provider"),)
        if asked.max_price_wei is None:
            return Preference(only=wanted)
        offers = [
            (it, offer) for it, offer in self._meter.routing.offers(subject) if not wanted or it in wanted
        ]
        costs = {
            it: kind.cap_wei(value, offer.input_price_wei, offer.output_price_wei) for it, offer in offers
        }
        within = [(it, offer) for it, offer in offers if costs[it] <= asked.max_price_wei]
        if offers and not within:
            raise Fault(
                400,
                "invalid_request_error",
                "too_dear",
                f"this costs up to {show(min(costs.values()))} ({min(costs.values())} wei) at the cheapest offer, and"
                f" `max_price_wei` is {asked.max_price_wei}: raise it, or ask for less",
                "max_price_wei",
            )
        return Preference(
            only=tuple(it for it, _ in within) or wanted,
            most_input_wei=max((it.input_price_wei for _, it in within), default=None),
            most_output_wei=max((it.output_price_wei for _, it in within), default=None),
        )

    def _told(self, choice: Numbers) -> bytes:
        done = choice.done
        assert done is not None, "an order that didn't fail is done"
        try:
            answer = bytes_of(choice.numbers)
        except Unpackable as error:
            raise Fault(
                502, "server_error", "bad_answer", f"the provider's answer isn't bytes: {error}", retry=False
            ) from None
        return msgspec.json.encode(views.ordered(self._meter, done.charged, done.transcript, answer))

    # --- data ---

    async def datasets(self, request: Request) -> Response:
        """GET lists, for anyone; POST adds: one route, as of two only the first would stand in a 405's `Allow`."""
        if request.method == "POST":
            return await self.list_data(request)
        query = request.query_params
        for name in query:
            if name not in ("text", "owner", "limit", "page"):
                raise _invalid(f"there is no filter {name[:40]!r}: text, owner, limit, page", "query")
        text = query.get("text", "")
        if len(text) > MOST_WORDS:
            raise _invalid(f"text has at most {MOST_WORDS} characters", "text")
        owner = None if (said := query.get("owner")) is None else _address(said, "owner")
        limit = number(request, "limit", 50, 1, MOST_LISTED)
        after = None if (said := query.get("page")) is None else _parsed(said, "page")
        self._calling.posted.expire(int(time.time()))
        found = self._calling.shelf.find(text, owner)
        page = list(islice((it for it in found if after is None or it.listing.dataset > after), limit + 1))
        left = islice(self._calling.shelf.left(text, owner), MOST_LISTED) if after is None else ()
        return json_of(views.datasets(page, limit, self._meter.routing, views.away(left, time.time())))

    async def list_data(self, request: Request) -> Response:
        """An account lists a data set that anyone may hold; its listing says whose it is."""
        admission = await self._enter(request)
        within_limits(admission.usage)
        raw = await body_of(request, MOST_BODY)
        taken = self._calling.posted.take(admission.account, raw, int(time.time()))
        if isinstance(taken, str):
            raise _invalid(taken, "body")
        dataset, until_s = taken
        return json_of(DataPosted(dataset=ids.hex0x(dataset), until_s=until_s))

    async def dataset(self, request: Request) -> Response:
        self._calling.posted.expire(int(time.time()))
        name = _digest(request, "dataset")
        found = self._calling.shelf.datasets.get(name)
        if found is None:
            if (left := self._calling.shelf.away.get(name)) is not None:
                ago_s = max(0, int(time.time() - left.at_s))
                raise Fault(
                    404,
                    "invalid_request_error",
                    "vault_away",
                    f"whoever has this data set isn't linked at the moment (last seen {ago_s} s ago)",
                )
            raise missing(
                "no linked provider has this data set: GET /v1/clusterai/data lists what there is; a vault that was"
                " restarted is back within seconds"
            )
        return json_of(views.dataset(found, self._meter.routing))

    # --- shared ---

    async def _enter(self, request: Request) -> Admission:
        if self.closing.is_set():
            raise Fault(
                503, "service_unavailable", "shutting_down", "this gateway restarts: try again", None, 2.0
            )
        return await self._doors.admit(
            request.method, request.url.path, dict(request.headers.raw), b"", "inference"
        )

    def _begin(self, admission: Admission) -> None:
        if admission.usage is not None:
            admission.usage.running += 1
        self._running += 1
        self.idle.clear()

    def _end(self, admission: Admission) -> None:
        if admission.usage is not None:
            admission.usage.running -= 1
        self._running -= 1
        if not self._running:
            self.idle.set()


class _Held(Response):
    """An answer that counts as held until its reader has it, or took too long."""

    def __init__(self, body: bytes, headers: dict[str, str], timeout_s: float, release: Any) -> None:
        super().__init__(body, 200, headers, "application/octet-stream")
        self._timeout_s = timeout_s
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await super().__call__(scope, receive, send)
        finally:
            self._release()


async def _read(request: Request, held: Held) -> bytes:
    """A call's body; what comes is counted before it is kept."""
    found = bytearray()
    async for piece in request.stream():
        if len(found) + len(piece) > MOST_CALL_BYTES:
            raise Fault(
                413,
                "invalid_request_error",
                "request_too_large",
                f"a call has at most {MOST_CALL_BYTES} bytes each way: send less at once",
            )
        held.take(len(piece))
        found += piece
    return bytes(found)


def _fault_of(error: BaseException, provider: Address) -> BaseException:
    """A call's failure as HTTP says it; what isn't one stays what it is."""
    who = checksummed(provider)
    match error:
        case Lost():
            return Fault(
                503,
                "service_unavailable",
                "provider_lost",
                f"the link with {who} ended before its answer came: ask again when it is back (GET /v1/clusterai/nodes),"
                " or name another provider",
                None,
                2.0,
            )
        case TimeoutError():
            return Fault(
                504, "server_error", "too_slow", f"{who} didn't answer in time: ask for less, or ask again"
            )
        case Full():
            return _full(error, 503)
        case Refused(code=code, detail=detail):
            status, wait_s = PROBLEMS.get(code, (502, None))
            shown = code if code in PROBLEMS else "failed"
            kind = "server_error" if status >= 500 else "invalid_request_error"
            return Fault(status, kind, shown, f"{who}: {detail}", None, wait_s)
        case _:
            return error


def _full(error: Full, status: int) -> Fault:
    return Fault(status, "rate_limit_error", "calls_full", str(error), None, error.wait_s)


def _asked(raw: bytes, subject: Digest) -> tuple[Kind, Any, OrderRequest]:
    """
    Raises:
        Fault: 400, it is no order of a kind that is done over vaults.
    """
    try:
        asked = msgspec.json.decode(raw, type=OrderRequest)
        request = base64.b64decode(asked.request, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _invalid(str(error), "body") from None
    kind = KINDS.get(asked.kind)
    if kind is None or not (kind.hosts or kind.packed):
        known = ", ".join(sorted(it.name for it in KINDS.values() if it.hosts or it.packed))
        raise _invalid(f"there is no kind {asked.kind[:32]!r} that is ordered here: {known}", "kind")
    try:
        value = kind.decode(request)
    except Malformed as error:
        raise _invalid(f"request: {error}", "request") from None
    if getattr(value, "model", subject) != subject:
        raise _invalid("the request is about another subject than the path", "request")
    return kind, value, asked


def _digest(request: Request, name: str) -> Digest:
    return _parsed(request.path_params[name], name)


def _parsed(text: str, name: str) -> Digest:
    try:
        return ids.digest(text)
    except ids.BadId as error:
        raise _invalid(f"{name}: {error}", name) from None


def _address(text: str, name: str) -> Address:
    try:
        return ids.address(text)
    except ids.BadId as error:
        raise _invalid(f"{name}: {error}", name) from None


def _text(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


def _invalid(why: str, param: str) -> Fault:
    return Fault(400, "invalid_request_error", "invalid_request", why, param)
