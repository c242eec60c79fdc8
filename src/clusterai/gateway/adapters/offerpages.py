"""The HTTP endpoints of machines that are rented whole, as `sdk.offers` describes them. Errors are RFC 9457 problems."""

import re
import secrets
import time
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clusterai.gateway.adapters.door import Admission, Doors
from clusterai.gateway.adapters.handling import body_of, json_of, missing, number
from clusterai.gateway.adapters.marketplace import Busy, Marketplace, Reserved
from clusterai.gateway.core import offerviews as views
from clusterai.gateway.core.faults import Fault
from clusterai.market.core import placement
from clusterai.market.core.placement import Answered, Field, Refused, WhyNot, listing, single
from clusterai.protocol import ids
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.protocol.money import show as money
from clusterai.protocol.offers import MachineMeasurement
from clusterai.sdk.offershapes import MOST_LISTED, Attested, PlanRequest, Wanted

MOST_BODY = 16 * 1024
EVERY_METHOD = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
ASKED = frozenset(
    [
        "gpu",
        "gpus",
        "hardware",
        "cpu_milli",
        "memory_bytes",
        "disk_bytes",
        "bandwidth_kbps",
        "reliability_ppm",
        "measured",
        "region",
        "attested",
        "near_ms",
        "limit",
        "page",
    ]
)
TEXTS = ("gpu", "hardware")
NUMBERS = ("gpus", "cpu_milli", "memory_bytes", "disk_bytes", "bandwidth_kbps", "reliability_ppm")
MILLISECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?", re.ASCII)


class OfferPages:
    """Handlers of `/v1/clusterai/offers` and `/v1/clusterai/rentals/plan`.

    Args:
        me: the gateway's owner, whose links measured round trips.
        credit_wei: what an account can still spend.
    """

    def __init__(
        self, market: Marketplace, doors: Doors, me: Address, credit_wei: Callable[[Digest], int]
    ) -> None:
        self._market, self._doors, self._me, self._credit_wei = market, doors, me, credit_wei
        self._asking: set[Digest] = set()
        """accounts whose plan is being worked out: one of each, so that nobody takes all turns"""

    def routes(self) -> list[Route]:
        return [
            Route("/v1/clusterai/offers", self.offers, methods=["GET"]),
            Route("/v1/clusterai/cards/{node}", self.card, methods=["GET"]),
            Route("/v1/clusterai/rentals/plan", self.plan, methods=EVERY_METHOD),
            Route("/v1/clusterai/rentals/plan/{hold}", self.release, methods=["DELETE"]),
        ]

    # --- what stands ---

    async def offers(self, request: Request) -> Response:
        """Anyone may look; what is worked out for nobody's account gives way to plans."""
        for name in request.query_params:
            if name not in ASKED:
                raise _invalid(f"there is no filter {name[:40]!r}: {', '.join(sorted(ASKED))}", "query")
        now_s = time.time()
        asked = placement.Request(
            parts=single(1, views.need_of(_wanted(request))),
            regions=_list(request, "region", 16),
            attested=_attested(request),
            most_link_us=_near_us(request),
            us_wei=0,
        )
        limit = number(request, "limit", 50, 1, MOST_LISTED)
        after = None
        if (text := request.query_params.get("page")) is not None:
            after = views.place_of(text)
            if after is None:
                raise _invalid("page is the `next` of the page before", "page")
        found = listing.page(self._market.index, asked, now_s, limit, after)
        why = None
        if not found.suitable and not self._market.is_busy:
            worked_out = await self._market.plan(asked)
            why = worked_out if isinstance(worked_out, WhyNot) else None
        return json_of(views.offers(found, why, self._profile, self._me, now_s))

    async def card(self, request: Request) -> Response:
        """A machine's card, which anyone may check."""
        try:
            node = ids.address(request.path_params["node"])
        except ids.BadId as error:
            raise _invalid(f"node: {error}", "node") from None
        found = self._market.cards.view(node, time.time())
        if found is None:
            raise missing("no card of that machine was told here: it isn't linked, or isn't rented out")
        return json_of(found)

    # --- plans ---

    async def plan(self, request: Request) -> Response:
        if request.method != "POST":
            # Else a route of rentals would take it for one of that name.
            raise HTTPException(405, headers={"Allow": "POST"})
        admission = await self._admit(request)
        wish = await _wish(request)
        name = Digest(secrets.token_bytes(32))
        if admission.account in self._asking:
            raise _busy("a plan for this account is being worked out: ask again when it is there")
        self._asking.add(admission.account)
        try:
            found = await self._placed(admission.account, wish, name)
        except Busy:
            raise _busy("many plans are being worked out: ask again") from None
        finally:
            self._asking.discard(admission.account)
        match found:
            case WhyNot():
                return _unplaced(found)
            case Refused(_, "too_many"):
                raise Fault(
                    409,
                    "invalid_request_error",
                    "too-many-held",
                    "this account holds as many machines as it may: confirm a plan, release it, or wait a minute",
                )
            case Refused():
                raise Fault(
                    429,
                    "rate_limit_error",
                    "contended",
                    "others were quicker each time: ask again",
                    None,
                    1.0,
                )
            case Reserved():
                held_s = max(0, found.holding.until_s - int(time.time()))
                return self._told(found.answered, wish, hex0x(name), held_s)
            case Answered():
                return self._told(found, wish, "", 0)

    async def _placed(
        self, account: Digest, wish: PlanRequest, name: Digest
    ) -> Reserved | Answered | WhyNot | Refused:
        asked = views.request_of(wish)
        one_price = wish.pricing == "uniform"
        if one_price and wish.max_price_wei is None:
            raise _invalid("one price for all needs `max_price_wei`: a share of it is the reserve", "pricing")
        if not wish.hold:
            return await self._market.plan(asked, one_price=one_price)
        return await self._market.reserve(
            asked,
            renter_of(account),
            name,
            lambda it: self._affordable(account, wish, it),
            one_price=one_price,
        )

    async def release(self, request: Request) -> Response:
        """Give a held plan back. Knowing its name isn't enough: it has to be this account's."""
        admission = await self._admit(request)
        try:
            hold = ids.digest(request.path_params["hold"])
        except ids.BadId as error:
            raise _invalid(f"hold: {error}", "hold") from None
        if self._market.renter(hold) != renter_of(admission.account) or self._market.is_booked(hold):
            raise missing("this account holds no such plan: it is over, or it was booked")
        self._market.release(hold)
        return Response(status_code=204)

    def _affordable(self, account: Digest, wish: PlanRequest, found: Answered) -> None:
        """Holding costs nothing, so only who could pay for the first hour may."""
        first_wei = views.price_of(found.plan.price_wei, min(wish.duration_s, views.HOUR_S))
        credit_wei = self._credit_wei(account)
        if credit_wei < first_wei:
            raise Fault(
                402,
                "insufficient_quota",
                "insufficient_quota",
                f"the first hour costs {money(first_wei)} and this account has {money(credit_wei)}: "
                "add credit, or ask with `hold` false to look only",
            )

    def _told(self, found: Answered, wish: PlanRequest, hold: str, held_s: int) -> Response:
        links_us = {offer.node: self._market.link_us(offer.node) for offer in found.plan.offers}
        return json_of(
            views.plan(found, links_us, self._profile, hold, held_s, wish.duration_s, self._me, time.time())
        )

    def _profile(self, node: Address) -> MachineMeasurement | None:
        return self._market.measured(node, Field.PROFILE)

    async def _admit(self, request: Request) -> Admission:
        admission = await self._doors.admit(
            request.method, request.url.path, dict(request.headers.raw), b"", "inference"
        )
        if admission.usage is not None:
            wait_s = admission.usage.requests.take(1, time.monotonic())
            if wait_s > 0:
                raise Fault(
                    429,
                    "rate_limit_error",
                    "rate_limit_exceeded",
                    "this key asks for more than it may",
                    None,
                    wait_s,
                )
        return admission


def renter_of(account: Digest) -> Address:
    """The name of an account in the book: its last 20 bytes, which for a wallet are its address."""
    return Address(account[-20:])


def _unplaced(why: WhyNot) -> Response:
    body = {
        "type": "urn:clusterai:problem:not-placed",
        "title": "no such group stands free now",
        "status": 409,
        "detail": views.unplaced(why),
        "why": views.why_not(why),
    }
    return Response(msgspec.json.encode(body), 409, media_type="application/problem+json")


async def _wish(request: Request) -> PlanRequest:
    try:
        return msgspec.json.decode(await body_of(request, MOST_BODY), type=PlanRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(str(error), "body") from None


def _wanted(request: Request) -> Wanted:
    given = request.query_params
    fields: dict[str, object] = {name: given[name] for name in TEXTS if name in given}
    fields |= {name: number(request, name, 0, 0, 2**53) for name in NUMBERS}
    fields["measured"] = _list(request, "measured", 9)
    try:
        return msgspec.convert(fields, Wanted)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), "query") from None


def _attested(request: Request) -> tuple[tuple[str, tuple[Address, ...]], ...]:
    text = request.query_params.get("attested", "")
    names = tuple(text.split(",", 16)) if text else ()
    try:
        return views.attested_of(msgspec.convert(names, Annotated[tuple[Attested, ...], Meta(max_length=16)]))
    except (msgspec.ValidationError, ids.BadId):
        raise _invalid(
            "attested is label or label@0x… of the attestor, at most 16 between commas", "attested"
        ) from None


def _list(request: Request, name: str, most: int) -> tuple[str, ...]:
    text = request.query_params.get(name)
    if not text:
        return ()
    found = tuple(text.split(","))
    if len(found) > most or not all(re.fullmatch(r"[a-z0-9.-]{1,32}", it, re.ASCII) for it in found):
        raise _invalid(f"{name} is at most {most} names between commas, of a-z 0-9 . and -", name)
    return found


def _near_us(request: Request) -> int | None:
    text = request.query_params.get("near_ms")
    if text is None:
        return None
    found = round(1_000 * float(text)) if MILLISECONDS.fullmatch(text) else 0
    if not 1 <= found <= 2_000_000:
        raise _invalid("near_ms is 0.001 to 2000 milliseconds, with at most three places", "near_ms")
    return found


def _busy(why: str) -> Fault:
    return Fault(429, "rate_limit_error", "busy", why, None, 1.0)


def _invalid(why: str, param: str) -> Fault:
    return Fault(400, "invalid_request_error", "invalid_request", why, param)
