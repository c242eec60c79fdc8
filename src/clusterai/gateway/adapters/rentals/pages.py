"""The HTTP endpoints of rentals, as `sdk.rentals` describes them. Errors are RFC 9457 problems."""

import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clusterai.gateway.adapters.door import Admission, Doors
from clusterai.gateway.adapters.handling import body_of, json_of, missing, number
from clusterai.gateway.adapters.offerpages import renter_of
from clusterai.gateway.adapters.rentals import views
from clusterai.gateway.adapters.rentals.renting import NoLog, Renting
from clusterai.gateway.core.faults import Fault
from clusterai.gateway.core.offerviews import price_of
from clusterai.gateway.core.rentbooks import extendable_s, price_wei
from clusterai.gateway.core.rentstate import Extend, Meet, Release, Rent, Rental, Rented
from clusterai.market.core.placement import Refused
from clusterai.protocol import canonical, ids
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest
from clusterai.protocol.money import show as money
from clusterai.protocol.rentals import MOST_MEMBERS
from clusterai.protocol.units import show_duration
from clusterai.sdk.rentalshapes import Extension, Meeting, RentalList, RentRequest
from clusterai.work.cluster.spec import IMAGES, ClusterSpec, decode_spec

MOST_BODY = 128 * 1024
MOST_LISTED = 200
MOST_RUNNING = 16
"""Rentals of one account at once."""

T = TypeVar("T")


class RentalPages:
    """Handlers of `/v1/clusterai/rentals`.

    Args:
        credit_wei: what an account can still spend.
    """

    def __init__(self, renting: Renting, doors: Doors, credit_wei: Callable[[Digest], int]) -> None:
        self._renting, self._doors, self._credit_wei = renting, doors, credit_wei

    def routes(self) -> list[Route]:
        return [
            Route("/v1/clusterai/rentals", self.rentals, methods=["GET", "POST"]),
            Route("/v1/clusterai/rentals/{id}", self.rental, methods=["GET", "DELETE"]),
            Route("/v1/clusterai/rentals/{id}/extend", self.extend, methods=["POST"]),
            Route("/v1/clusterai/rentals/{id}/mesh", self.mesh, methods=["PUT"]),
            Route("/v1/clusterai/rentals/{id}/logs", self.logs, methods=["GET"]),
        ]

    # --- all of an account ---

    async def rentals(self, request: Request) -> Response:
        """GET lists, POST books: one route, as of two only the first would stand in a 405's `Allow`."""
        if request.method == "POST":
            return await self._rent(request)
        admission = await self._admit(request, "read")
        mine = [it for it in self._desk.rentals.values() if it.account == admission.account]
        mine.sort(key=lambda it: (it.rented.at_s, it.lease), reverse=True)
        left_wei = self._credit_wei(admission.account)
        return json_of(
            RentalList(rentals=[views.rental(self._desk, it, left_wei) for it in mine[:MOST_LISTED]])
        )

    async def _rent(self, request: Request) -> Response:
        admission = await self._admit(request, "inference")
        asked = await _read(request, RentRequest)
        hold, account, market = ids.digest(asked.hold), admission.account, self._renting.market
        spec = _spec(asked)
        if market.renter(hold) != renter_of(account) or market.is_booked(hold):
            raise Fault(
                409,
                "invalid_request_error",
                "hold-over",
                "this account holds no such plan any more: plans are held for a minute; ask for another",
            )
        seats = self._renting.seats(hold)
        if len(seats) != asked.plan.nodes or len(seats) >= MOST_MEMBERS:
            raise _invalid(
                f"the plan holds {len(seats)} machines, `plan.nodes` says {asked.plan.nodes}", "plan"
            )
        need = asked.plan.need
        if (
            spec.cpu_milli > max(1000, need.cpu_milli)
            or spec.memory_bytes > max(2 << 30, need.memory_bytes)
            or spec.gpus > need.gpus
            or spec.disk_bytes > max(2 << 30, need.disk_bytes)
        ):
            raise _invalid("setup asks for more of each machine than the plan's `need` did", "setup")
        running = [it for it in self._desk.rentals.values() if it.account == account and it.ended is None]
        if len(running) >= MOST_RUNNING:
            raise Fault(
                409,
                "invalid_request_error",
                "too-many",
                f"an account has {MOST_RUNNING} rentals at once at most",
            )
        self._affordable(account, sum(it.price_wei for it in seats), asked.plan.duration_s)
        now_s = int(time.time())
        until_s = now_s + asked.plan.duration_s
        if isinstance(refused := market.confirm(hold, until_s), Refused):
            raise Fault(409, "invalid_request_error", "hold-over", f"the plan is over: {refused.reason}")
        lease = Digest(secrets.token_bytes(32))
        rented = Rented(
            lease,
            account,
            spec.canonical(),
            msgspec.json.encode(asked.plan),
            seats,
            until_s,
            now_s,
            secrets.token_bytes(32),
        )
        self._renting.driver.handle(Rent(rented))
        if asked.key is not None:
            self._renting.driver.handle(Meet(lease, bytes(ids.digest(asked.key))))
        return self._told(self._desk.rentals[lease], 201)

    def _affordable(self, account: Digest, hour_wei: int, duration_s: int) -> None:
        """All of the booked time, so that a cluster that was begun can be used to its end."""
        needed_wei, credit_wei = price_of(hour_wei, duration_s), self._credit_wei(account)
        if credit_wei < needed_wei:
            raise Fault(
                402,
                "insufficient_quota",
                "insufficient_quota",
                f"this costs {money(needed_wei)} and the account has {money(credit_wei)}: add credit, or book less",
            )

    # --- one of them ---

    async def rental(self, request: Request) -> Response:
        """GET shows, DELETE gives back."""
        if request.method == "DELETE":
            found = await self._mine(request, "inference")
            self._renting.driver.handle(Release(found.lease))
        else:
            found = await self._mine(request, "read")
        return self._told(found)

    async def extend(self, request: Request) -> Response:
        found = await self._mine(request, "inference")
        asked = await _read(request, Extension)
        self._still_runs(found)
        until_s, most_s = found.until_s + asked.duration_s, extendable_s(found, time.time())
        if asked.duration_s > most_s:
            raise _invalid(
                f"its machines can be booked for {show_duration(most_s)} more now, not {show_duration(asked.duration_s)}: "
                "their owners let them for so long from now, and not longer",
                "duration_s",
            )
        left_s = until_s - int(time.time())
        self._affordable(found.account, price_wei(found), max(0, left_s))
        self._renting.driver.handle(Extend(found.lease, until_s))
        return self._told(found)

    async def mesh(self, request: Request) -> Response:
        found = await self._mine(request, "inference")
        asked = await _read(request, Meeting)
        self._still_runs(found)
        self._renting.driver.handle(Meet(found.lease, bytes(ids.digest(asked.key))))
        return self._told(found)

    async def logs(self, request: Request) -> Response:
        found = await self._mine(request, "read")
        place = number(request, "place", 0, 0, MOST_MEMBERS)
        start = number(request, "start", 0, 0, 2**53)
        if place not in found.stays:
            raise missing(f"there is no machine {place} in this rental")
        self._still_runs(found)
        try:
            logged = await self._renting.log_of(found.lease, place, start)
        except NoLog:
            raise Fault(
                503, "server_error", "away", "that machine doesn't answer: ask again", None, 2.0
            ) from None
        headers = {"X-Log-Total": str(logged.total), "X-Log-Start": str(logged.start)}
        return Response(logged.data, media_type="application/octet-stream", headers=headers)

    # --- shared ---

    @property
    def _desk(self) -> Any:
        return self._renting.desk

    def _told(self, found: Rental, status: int = 200) -> Response:
        return json_of(views.rental(self._desk, found, self._credit_wei(found.account)), status)

    async def _admit(self, request: Request, scope: str) -> Admission:
        return await self._doors.admit(
            request.method, request.url.path, dict(request.headers.raw), b"", scope
        )

    async def _mine(self, request: Request, scope: str) -> Rental:
        admission = await self._admit(request, scope)
        try:
            lease = ids.digest(request.path_params["id"])
        except ids.BadId as error:
            raise _invalid(f"id: {error}", "id") from None
        found = self._desk.rentals.get(lease)
        if found is None or found.account != admission.account:
            raise missing("this account has no such rental")
        return found

    @staticmethod
    def _still_runs(found: Rental) -> None:
        if found.ended is not None:
            raise Fault(409, "invalid_request_error", "ended", f"this rental ended: {found.ended.why.value}")


def _spec(asked: RentRequest) -> ClusterSpec:
    given = asked.setup
    if given.image not in IMAGES:
        raise _invalid(f"there is no image {given.image[:40]!r}: {', '.join(IMAGES)}", "setup")
    spec = ClusterSpec(
        image=given.image,
        cpu_milli=given.cpu_milli,
        memory_bytes=given.memory_bytes,
        disk_bytes=given.disk_bytes,
        gpus=given.gpus,
        env=given.env,
    )
    try:
        return decode_spec(canonical.encode(spec))
    except Malformed as error:
        raise _invalid(f"setup: {error}", "setup") from None


async def _read(request: Request, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(await body_of(request, MOST_BODY), type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(str(error), "body") from None


def _invalid(why: str, param: str) -> Fault:
    return Fault(400, "invalid_request_error", "invalid_request", why, param)
