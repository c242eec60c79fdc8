"""Machines that are rented whole: what stands on offer, and a plan for a group. The server side answers exactly these shapes.

    GET  /v1/clusterai/offers          OfferList: what can be placed now; needs no key
    POST /v1/clusterai/rentals/plan    PlanRequest → RentalPlan, held for a minute; 409 `not-placed` with a WhyNot, 402, 503
    DELETE /v1/clusterai/rentals/plan/{hold}    → 204: given back

Errors are RFC 9457 problems; a plan belongs to an account (bearer key).
"""

from collections.abc import Iterator

import msgspec

from clusterai.sdk.client import ApiError, Client
from clusterai.sdk.offershapes import (
    MOST_LISTED,
    CardView,
    Machine,
    OfferList,
    PlanRequest,
    RentalPlan,
    Wanted,
    WhyNot,
)

PLAN_S = 30.0


class NotPlaced(Exception):
    """No such group stands free now; `why` says which wish fails, and what giving it up would cost."""

    def __init__(self, detail: str, why: WhyNot) -> None:
        super().__init__(detail)
        self.detail = detail
        self.why = why


class _Unplaced(msgspec.Struct):
    detail: str
    why: WhyNot


class Offers:
    """A gateway's offers, through its client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(
        self,
        need: Wanted | None = None,
        regions: tuple[str, ...] = (),
        near_ms: float | None = None,
        limit: int = 50,
        page: str = "",
        attested: tuple[str, ...] = (),
    ) -> OfferList:
        """One page, the cheapest first."""
        need = need or Wanted()
        asked: dict[str, str | int] = {
            name: value
            for name, value in {
                "gpu": need.gpu,
                "gpus": need.gpus,
                "hardware": need.hardware,
                "cpu_milli": need.cpu_milli,
                "memory_bytes": need.memory_bytes,
                "disk_bytes": need.disk_bytes,
                "bandwidth_kbps": need.bandwidth_kbps,
                "reliability_ppm": need.reliability_ppm,
                "measured": ",".join(need.measured),
                "region": ",".join(regions),
                "attested": ",".join(attested),
                "page": page,
            }.items()
            if value
        }
        if near_ms is not None:
            asked["near_ms"] = f"{near_ms:g}"
        return self._client.told("GET", "/v1/clusterai/offers", OfferList, params={**asked, "limit": limit})

    def card(self, node: str) -> CardView:
        """What is claimed, measured and attested of a machine.

        Args:
            node: its key's address, as the list has it.
        """
        return self._client.told("GET", f"/v1/clusterai/cards/{node}", CardView)

    def all(self, need: Wanted | None = None, regions: tuple[str, ...] = ()) -> Iterator[Machine]:
        """Every machine that fits, page by page."""
        page = ""
        while True:
            found = self.list(need, regions, limit=MOST_LISTED, page=page)
            yield from found.offers
            page = found.next
            if not page:
                return

    def plan(self, request: PlanRequest) -> RentalPlan:
        """The best group for this account, held for a minute unless the request says otherwise.

        Raises:
            NotPlaced: there is none. ApiError: 402, no credit for its first hour; 503, too many plans at once.
        """
        body = msgspec.json.encode(request)
        try:
            response = self._client.ask(
                "POST",
                "/v1/clusterai/rentals/plan",
                content=body,
                headers={"Content-Type": "application/json"},
                timeout=PLAN_S,
            )
        except ApiError as error:
            if error.code == "not-placed" and error.body:
                found = msgspec.json.decode(error.body, type=_Unplaced)
                raise NotPlaced(found.detail, found.why) from None
            raise
        return msgspec.json.decode(response.content, type=RentalPlan)

    def give_back(self, hold: str) -> None:
        """A plan that nobody wants: its machines are free again at once. Nothing happens where it is over."""
        self._client.ask("DELETE", f"/v1/clusterai/rentals/plan/{hold}", missing_ok=True)
