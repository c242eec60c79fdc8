"""Rented machines, as a gateway tells of them. The server side answers exactly these shapes (`rentalshapes.py`).

POST   /v1/clusterai/rentals               RentRequest → 201 Rental; 409 `hold-over`, 402
GET    /v1/clusterai/rentals               RentalList: this account's
GET    /v1/clusterai/rentals/{id}          Rental
DELETE /v1/clusterai/rentals/{id}          → Rental: given back
POST   /v1/clusterai/rentals/{id}/extend   Extension → Rental
PUT    /v1/clusterai/rentals/{id}/mesh     Meeting → Rental: the renter's end of the mesh
GET    /v1/clusterai/rentals/{id}/logs     ?place=0&start=0 → text, `X-Log-Start`, `X-Log-Total`
"""

import msgspec

from clusterai.sdk.client import Client
from clusterai.sdk.rentalshapes import Extension, Meeting, Rental, RentalList, RentRequest

PATH = "/v1/clusterai/rentals"


class Logged(msgspec.Struct, frozen=True):
    """A piece of a log, at most 64 KiB. It begins later than was asked where the older isn't kept any more."""

    start: int
    total: int
    data: bytes


class Rentals:
    """A gateway's rentals, through its client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def rent(self, request: RentRequest) -> Rental:
        return self._post("", request)

    def list(self) -> list[Rental]:
        return self._client.told("GET", PATH, RentalList).rentals

    def show(self, rental: str) -> Rental:
        return self._client.told("GET", f"{PATH}/{rental}", Rental)

    def release(self, rental: str) -> Rental:
        return self._client.told("DELETE", f"{PATH}/{rental}", Rental)

    def extend(self, rental: str, duration_s: int) -> Rental:
        return self._post(f"/{rental}/extend", Extension(duration_s=duration_s))

    def meet(self, rental: str, key: str) -> Rental:
        return self._client.told("PUT", f"{PATH}/{rental}/mesh", Rental, json=Meeting(key=key))

    def log(self, rental: str, place: int, start: int) -> Logged:
        """What a machine's own part printed, from byte `start` on."""
        response = self._client.ask("GET", f"{PATH}/{rental}/logs", params={"place": place, "start": start})
        return Logged(
            int(response.headers["X-Log-Start"]), int(response.headers["X-Log-Total"]), response.content
        )

    def _post(self, path: str, body: msgspec.Struct) -> Rental:
        return self._client.told("POST", f"{PATH}{path}", Rental, json=body)
