"""Everything that isn't paid for: models, status, receipts, audits, accounts, keys, metrics. Errors are RFC 9457 here."""

import asyncio
import base64
import hmac
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from clusterai.gateway.adapters.archive import Archive
from clusterai.gateway.adapters.calls import CallPages
from clusterai.gateway.adapters.catalog import Catalog, Served
from clusterai.gateway.adapters.door import Admission, Doors
from clusterai.gateway.adapters.handling import body_of, json_of, missing, number
from clusterai.gateway.adapters.jobs import JobPages
from clusterai.gateway.adapters.keys import SCOPES, KeyRing
from clusterai.gateway.adapters.meters import Meters
from clusterai.gateway.adapters.offerpages import OfferPages
from clusterai.gateway.adapters.rentals import RentalPages
from clusterai.gateway.adapters.withdrawals import Withdrawals
from clusterai.gateway.core import views
from clusterai.gateway.core.faults import Fault, unknown_model
from clusterai.gateway.core.limits import Limits
from clusterai.gateway.core.meter import Meter
from clusterai.market.core.reputation import Reputation
from clusterai.protocol import canonical, ids
from clusterai.protocol.ids import Address, Digest, checksummed, hex0x
from clusterai.runtime.adapters.journal import JournalLost

log: structlog.stdlib.BoundLogger = structlog.get_logger("pages")

OPENAPI = Path(__file__).parent / "openapi.json"
WEB = Path(__file__).parent.parent / "web"
EXPLORER = {
    "/": ("index.html", "text/html"),
    "/explorer.js": ("explorer.js", "text/javascript"),
    "/explorer.css": ("explorer.css", "text/css"),
}
"""What a browser gets, by path: small files, read once."""
EXPLORER_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
OURS = ("/v1/clusterai/", "/v1/jobs", "/v1/content/")
"""Below these, errors are RFC 9457 problems; elsewhere they are OpenAI's."""
KEEP_ALIVE_S = 10.0
MOST_LISTED = 500
MOST_BODY = 16 * 1024

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class KeyWish(msgspec.Struct, forbid_unknown_fields=True):
    """What an administrator asks a new key to be."""

    name: str = ""
    account: str | None = None
    scopes: tuple[str, ...] = SCOPES
    limits: Limits | None = None


class Invitation(msgspec.Struct, frozen=True):
    """What this gateway tells whoever wants to join its network.

    Attributes:
        gateway: the owner, which a node checks the link's keys against.
        link: where nodes dial in, as they reach it; empty for the host that they asked at and `link_port`.
        manifest: `network.json`.
    """

    gateway: Address
    link: str
    link_port: int
    manifest: bytes


class Pages:
    """Handlers of the quiet endpoints.

    Args:
        admin_key: who shows it may make and revoke keys.
        healthy: why this gateway isn't ready, or an empty string.
    """

    def __init__(
        self,
        meter: Meter,
        catalog: Catalog,
        doors: Doors,
        keys: KeyRing,
        archive: Archive,
        meters: Meters,
        admin_key: str,
        healthy: Callable[[], str],
        version: str,
        withdrawals: Withdrawals,
        jobs: JobPages,
        offers: OfferPages,
        rentals: RentalPages,
        calls: CallPages,
        reputation: Reputation,
        invitation: Invitation,
    ) -> None:
        self._meter = meter
        self._catalog = catalog
        self._doors = doors
        self._keys = keys
        self._archive = archive
        self._meters = meters
        self._admin_key = admin_key
        self._healthy = healthy
        self._version = version
        self._withdrawals = withdrawals
        self._jobs = jobs
        self._offers, self._rentals, self._calls = offers, rentals, calls
        self._reputation = reputation
        self._invitation = invitation
        self._since_s = int(time.time())
        self._openapi = OPENAPI.read_bytes()
        self._web = {path: (WEB / name).read_bytes() for path, (name, _) in EXPLORER.items()}
        self.closing = asyncio.Event()

    def app(self) -> Starlette:
        def get(path: str, endpoint: Endpoint) -> Route:
            return Route(path, endpoint, methods=["GET"])

        return Starlette(
            routes=[
                get("/v1/models", self.models),
                get("/v1/models/{name:path}", self.model),
                get("/v1/clusterai/status", self.status),
                get("/v1/clusterai/network", self.network),
                get("/v1/clusterai/nodes", self.nodes),
                get("/v1/clusterai/nodes/{provider}", self.node),
                get("/v1/clusterai/receipts", self.receipts),
                get("/v1/clusterai/receipts/{id}", self.receipt),
                get("/v1/clusterai/receipts/{id}/transcript", self.transcript),
                get("/v1/clusterai/audits", self.audits),
                get("/v1/clusterai/account", self.account),
                Route("/v1/clusterai/withdrawals", self.withdraw, methods=["POST"]),
                get("/v1/clusterai/withdrawals/{id}", self.withdrawal),
                get("/v1/clusterai/events", self.events),
                Route("/v1/clusterai/keys", self.keys, methods=["GET", "POST"]),
                Route("/v1/clusterai/keys/{id}", self.revoke_key, methods=["DELETE"]),
                *self._offers.routes(),
                *self._rentals.routes(),
                *self._calls.routes(),
                *self._jobs.routes(),
                get("/healthz", self.healthz),
                get("/metrics", self.metrics),
                get("/openapi.json", self.openapi),
                *(get(path, self.explorer) for path in EXPLORER),
            ],
            exception_handlers={
                Fault: _fault,
                HTTPException: _unrouted,
                JournalLost: _unwritten,
                sqlite3.OperationalError: _unwritten,
            },
        )

    # --- OpenAI's ---

    async def models(self, request: Request) -> Response:
        await self._known(request)
        listed = [self._model(it) for it in self._catalog.by_name.values()]
        # What nobody could be hired for now isn't offered; asked for by its name, it says so by `providers`.
        return json_of({"object": "list", "data": [it for it in listed if it["providers"]]})

    async def model(self, request: Request) -> Response:
        await self._known(request)
        found = self._catalog.find(request.path_params["name"])
        if found is None:
            raise unknown_model(request.path_params["name"], ", ".join(self._catalog.by_name))
        return json_of(self._model(found))

    async def _known(self, request: Request) -> None:
        """These two need no key; a wrong one is told so."""
        if "authorization" in request.headers:
            await self._admit(request, "inference")

    def _model(self, model: Served) -> dict[str, Any]:
        offers = views.offers(self._meter, model.address)
        return {
            "id": model.name,
            "object": "model",
            "created": model.created_s,
            "owned_by": "clusterai",
            "address": hex0x(model.address),
            "context_length": model.context,
            "license": model.licence,
            "providers": len(offers),
            "pricing": {
                "prompt": min((it.input_price_wei for it in offers), default=None),
                "completion": min((it.output_price_wei for it in offers), default=None),
                "unit": "wei of the network's token per model token",
                "numbers": "claimed",
            },
        }

    # --- ours ---

    async def status(self, request: Request) -> Response:
        found = views.status(self._meter, time.time())
        serves = {
            it.name: len(views.offers(self._meter, it.address)) for it in self._catalog.by_name.values()
        }
        about = {"version": self._version, "since_s": self._since_s, "reason": self._healthy()}
        return json_of({**found, **about, "models": serves})

    async def network(self, request: Request) -> Response:
        """All that a machine must know to join."""
        shown = self._invitation
        link = shown.link or f"wss://{request.url.hostname}:{shown.link_port}"
        found = {"gateway": checksummed(shown.gateway), "link": link, "manifest": msgspec.Raw(shown.manifest)}
        return json_of(found)

    async def nodes(self, request: Request) -> Response:
        return json_of({"nodes": views.nodes(self._meter, self._reputation, time.time())})

    async def node(self, request: Request) -> Response:
        """How routing ranks it, for its owner: all in it is public, or follows from what is."""
        provider = _parsed(ids.address, request.path_params["provider"], "provider")
        found = views.one_node(self._meter, self._reputation, provider, time.time())
        if found is None:
            raise missing("nobody of this address is registered as a provider: GET /v1/clusterai/nodes")
        return json_of({**found, "jobs": self._jobs.lends(provider)})

    async def account(self, request: Request) -> Response:
        admission = await self._admit(request, "read")
        found = views.account(self._meter, admission.account)
        return json_of({**found, "keys": [_key(it) for it in self._keys.all(admission.account)]})

    async def withdraw(self, request: Request) -> Response:
        made = await self._withdrawals.make(
            request.url.path, dict(request.headers.raw), await body_of(request, MOST_BODY)
        )
        return json_of(made, 202)

    async def withdrawal(self, request: Request) -> Response:
        """Anyone who knows its id may see it; the chain tells no less."""
        found = self._withdrawals.show(_parsed(ids.digest, request.path_params["id"], "id"))
        if found is None:
            raise missing("no withdrawal of this id is remembered here")
        return json_of(found)

    async def receipts(self, request: Request) -> Response:
        admission = await self._admit(request, "read")
        provider = request.query_params.get("provider")
        rows = self._archive.receipts(
            admission.account,
            number(request, "limit", 50, 1, MOST_LISTED),
            number(request, "before_s", 2**40, 0, 2**40),
            None if provider is None else _parsed(ids.address, provider, "provider"),
        )
        return json_of(
            {"receipts": [self._receipt(charged, refunded, own=True) for charged, refunded in rows]}
        )

    async def receipt(self, request: Request) -> Response:
        """Anyone who knows a receipt's id may see it, without its account."""
        found = self._archive.receipt(self._order(request))
        if found is None:
            raise missing("no receipt of this id was issued here")
        return json_of(self._receipt(*found, own=False))

    def _receipt(self, charged: Any, refunded_wei: int, *, own: bool) -> dict[str, Any]:
        it = charged.receipt
        found = views.receipt(
            self._meter, charged, refunded_wei, self._archive.epoch(it.provider, it.epoch), own=own
        )
        served = self._catalog.by_address.get(Digest(it.model))
        return {**found, "model_name": served.name if served else None}

    async def transcript(self, request: Request) -> Response:
        """All that a replay of the audit needs; for the account that paid, in the protocol's own bytes."""
        admission = await self._admit(request, "read")
        order = self._order(request)
        transcript = self._archive.transcript(order, admission.account)
        found = self._archive.receipt(order)
        if transcript is None or found is None:
            raise missing("no transcript of this receipt is kept for this account")
        model = self._catalog.by_address.get(Digest(transcript.order.model))
        text = model.vocabulary.text(transcript.answer.tokens) if model else None
        return json_of(
            {
                "id": hex0x(order),
                "kind": transcript.kind,
                "transcript": base64.b64encode(canonical.encode(transcript)).decode(),
                "receipt": base64.b64encode(canonical.encode(found[0].receipt)).decode(),
                "receipt_signature": hex0x(found[0].signature),
                "request": base64.b64encode(transcript.request).decode(),
                "tokens": transcript.answer.tokens,
                "text": text,
            }
        )

    async def audits(self, request: Request) -> Response:
        limit = number(request, "limit", 100, 1, MOST_LISTED)
        kinds = (
            "Voted",
            "Convicted",
            "EpochCleared",
            "Challenged",
            "ChallengeAnswered",
            "Slashed",
            "Equivocated",
        )
        return json_of(
            {"epochs": self._archive.epochs(limit), "events": self._archive.happened(kinds, limit)}
        )

    async def events(self, request: Request) -> Response:
        """Newest last. As JSON for those who poll (`after` is the last `seq` seen), as SSE for those who stay."""
        after = number(request, "after", 0, 0, 2**53)
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(self._feed(after), media_type="text/event-stream")
        return json_of({"events": [it for it in self._archive.recent if it["seq"] > after]})

    async def _feed(self, after: int) -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        while not self.closing.is_set():
            fresh = [it for it in self._archive.recent if it["seq"] > after]
            for it in fresh:
                after = it["seq"]
                yield b"id: %d\nevent: %b\ndata: %b\n\n" % (
                    after,
                    it["kind"].encode(),
                    msgspec.json.encode(it),
                )
            if not fresh:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await self._archive.news()
                except TimeoutError:
                    yield b": still here\n\n"

    # --- keys ---

    async def keys(self, request: Request) -> Response:
        """GET lists, POST makes: one route, as of two only the first would stand in a 405's `Allow`."""
        self._administer(request)
        if request.method != "POST":
            return json_of({"keys": [_key(it) for it in self._keys.all()]})
        try:
            wish = msgspec.json.decode(await request.body() or b"{}", type=KeyWish)
            account = None if wish.account is None else _parsed(ids.digest, wish.account, "account")
            secret, key = self._keys.create(wish.name, account, wish.scopes, wish.limits)
        except (msgspec.DecodeError, ValueError) as error:
            raise Fault(422, "invalid_request_error", "invalid_key_request", str(error)) from None
        return json_of({**_key(key), "key": secret}, 201)

    async def revoke_key(self, request: Request) -> Response:
        self._administer(request)
        if not self._keys.revoke(request.path_params["id"]):
            raise missing("no such key: GET /v1/clusterai/keys lists them")
        return Response(status_code=204)

    def _administer(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._admin_key.encode()):
            raise Fault(
                401,
                "authentication_error",
                "not_admin",
                "this needs the admin key: it lies in admin.key of the gateway's data folder",
            )

    # --- operations ---

    async def healthz(self, request: Request) -> Response:
        reason = self._healthy()
        return json_of({"status": "waiting" if reason else "ok", "reason": reason}, 503 if reason else 200)

    async def metrics(self, request: Request) -> Response:
        self._meters.linked.set(len(self._meter.routing.providers))
        self._meters.running.set(len(self._meter.errands))
        self._meters.baited(self._jobs.bait())
        return Response(self._meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        return Response(self._openapi, media_type="application/json")

    async def explorer(self, request: Request) -> Response:
        path = request.url.path
        return Response(self._web[path], media_type=EXPLORER[path][1], headers=EXPLORER_HEADERS)

    # --- helpers of handlers ---

    async def _admit(self, request: Request, scope: str) -> Admission:
        return await self._doors.admit(
            request.method, request.url.path, dict(request.headers.raw), b"", scope
        )

    def _order(self, request: Request) -> Digest:
        return _parsed(ids.digest, request.path_params["id"], "receipt id")


def _key(it: Any) -> dict[str, Any]:
    return {
        "id": it.id,
        "name": it.name,
        "account": hex0x(it.account),
        "scopes": it.scopes,
        "limits": it.limits,
        "created_s": it.created_s,
    }


def _parsed(parse: Callable[[str], Any], text: str, name: str) -> Any:
    try:
        return parse(text)
    except ids.BadId as error:
        raise Fault(400, "invalid_request_error", "invalid_id", f"{name}: {error}", name) from None


def _problem(status: int, code: str, title: str, detail: str, headers: dict[str, str]) -> Response:
    body = {"type": f"urn:clusterai:problem:{code}", "title": title, "status": status, "detail": detail}
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")


async def _fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, Fault), "registered for faults"
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    if request.url.path.startswith(OURS):
        return _problem(error.status, error.code, error.code.replace("_", " "), error.message, headers)
    return Response(error.json(), error.status, headers, media_type="application/json")


async def _unwritten(request: Request, error: Exception) -> Response:
    """Its disk is full, most likely. What can't be written down isn't begun."""
    log.error("unwritten", path=request.url.path, why=str(error))
    what = "this gateway can't write to its disk: nothing of this was begun; ask again when whoever runs it made room"
    return await _fault(request, Fault(503, "server_error", "unwritten", what))


async def _unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for those"
    what = {404: "there is nothing at this path: GET /openapi.json lists what there is"}.get(
        error.status_code, error.detail
    )
    headers = dict(error.headers or {})
    if request.url.path.startswith(OURS):
        return _problem(error.status_code, "http", error.detail, what, headers)
    fault = Fault(error.status_code, "invalid_request_error", "unknown_url", what)
    return Response(fault.json(), error.status_code, headers, media_type="application/json")
