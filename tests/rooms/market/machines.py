"""Offers for placement's tests: one by hand, or a made-up world of them."""

from functools import cache
from typing import Any

from clusterai.market.core.placement import population
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.offers import Coordinate, Measurement, Offer
from clusterai.protocol.ids import Address

NOW = 1_000_000
TOKEN = 10**9
ALL_FIELDS = 0xFF
WITNESS = Address(b"w" * 20)
CITY_US = 100_000


def name(number: int) -> Address:
    return Address(number.to_bytes(20))


def machine(number: int, at_us: int | tuple[int, int, int] = 0, price: float = 1.0, **changes: Any) -> Offer:
    """A machine that is on a line of round trips at `at_us`, measured by a witness, with an operator of its own."""
    x, y, z = at_us if isinstance(at_us, tuple) else (at_us, 0, 0)
    fields: dict[str, Any] = {
        "node": name(number),
        "operator": name(10_000 + number),
        "hardware": "x86-64-v3",
        "cpu_milli": 8_000,
        "memory_bytes": 2**34,
        "disk_bytes": 2**36,
        "region": "eu",
        "bandwidth_kbps": 1_000_000,
        "price_wei": round(price * TOKEN),
        "reliability_ppm": 1_000_000,
        "coordinate": Coordinate(x, y, z, 0),
        "issued_s": NOW - 10,
        "expires_s": NOW + 600,
        "measurements": (Measurement(ALL_FIELDS, WITNESS, NOW - 20),),
    }
    return Offer(**(fields | changes))


def index_of(*offers: Offer) -> Index:
    index = Index()
    for offer in offers:
        index.put(offer, NOW)
    return index


@cache
def world_offers(count: int, seed: int, rounds: int = 120) -> tuple[Offer, ...]:
    world = population.world(count, seed)
    return tuple(population.offers(world, population.settle(world, rounds, seed + 1), NOW))
