"""A made-up world for benches, tests and the simulator: machines in 60 cities, their access lines, prices and operators.

Round trips are light in glass over a path 1.4 times the great circle, plus both access lines, times noise of a tenth, so that
they break the triangle inequality now and then as real ones do. It resembles no measured network in particular; what is
measured on it says how placement behaves, not how fast anybody's network is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clusterai.market.core.placement import coordinates
from clusterai.market.core.placement.coordinates import Floats, Places
from clusterai.market.core.placement.offers import Coordinate, Measurement, Offer
from clusterai.protocol.ids import Address

CITIES = 60
REGIONS = 12
HARDWARE = ("x86-64-v3", "x86-64-v4", "arm64")
GPUS = ("", "h100", "rtx4090", "l4")
GPU_PRICE = (0.1, 2.2, 0.4, 0.5)
"""Tokens an hour around which prices lie."""
VALIDATOR = Address(bytes(19) + b"\x01")
KM = 6_371.0
US_PER_KM = 2 * 1.4 / 200 * 1_000
TOKEN = 10**9
ALL = 0xFF
"""Every field is measured."""


class World(NamedTuple):
    """Arrays of n machines."""

    city: NDArray[np.int64]
    sphere: Floats
    access_us: Floats
    operator: NDArray[np.int64]
    gpu: NDArray[np.int64]
    hardware: NDArray[np.int64]
    price_wei: NDArray[np.int64]
    reliability_ppm: NDArray[np.int64]
    cpu: NDArray[np.int64]


def world(count: int, seed: int, cities: int = CITIES) -> World:
    random = np.random.default_rng(seed)
    centres = _unit(random.normal(size=(cities, 3)) * (1.0, 1.0, 0.6))
    city = random.choice(cities, count, p=_zipf(cities, 0.8))
    # A city's machines lie within some 30 km.
    sphere = _unit(centres[city] + random.normal(scale=30 / KM, size=(count, 3)))
    home = random.random(count) < 0.5
    access = np.where(home, random.gamma(3.0, 1_500.0, count), random.gamma(2.0, 120.0, count)) + 20
    operators = max(1, count // 8)
    gpu = random.choice(len(GPUS), count, p=(0.4, 0.15, 0.3, 0.15))
    price = np.asarray(GPU_PRICE)[gpu] * random.lognormal(0.0, 0.35, count)
    return World(
        city,
        sphere,
        access,
        random.choice(operators, count, p=_zipf(operators, 0.7)),
        gpu,
        random.choice(len(HARDWARE), count, p=(0.6, 0.3, 0.1)),
        (price * TOKEN).astype(np.int64) // 1_000_000 * 1_000_000,
        (1_000_000 - random.gamma(1.5, 8_000.0, count)).clip(0, 999_999).astype(np.int64),
        random.choice((4, 8, 16, 32, 64), count),
    )


def round_trips(
    it: World, here: NDArray[np.int64], there: NDArray[np.int64], random: np.random.Generator
) -> Floats:
    """In microseconds, pair by pair, with noise."""
    cosine = np.clip((it.sphere[here] * it.sphere[there]).sum(axis=-1), -1.0, 1.0)
    path = np.arccos(cosine) * KM * US_PER_KM
    still = path + it.access_us[here] + it.access_us[there]
    return still * np.exp(random.normal(0.0, 0.05, len(here)))


class Meetings:
    """Whom each machine measures next: by turns anyone, and one of its own city, as neighbours do."""

    def __init__(self, it: World) -> None:
        self._city = it.city
        self._by_city = np.argsort(it.city, kind="stable")
        self._begin = np.searchsorted(it.city[self._by_city], np.arange(int(it.city.max()) + 1))
        self._size = np.bincount(it.city, minlength=len(self._begin))
        self._near = False

    def __call__(self, random: np.random.Generator) -> NDArray[np.int64]:
        count = len(self._city)
        if self._near:
            other = self._by_city[self._begin[self._city] + random.integers(0, self._size[self._city])]
        else:
            other = random.integers(0, count, count)
        self._near = not self._near
        everyone = np.arange(count)
        return np.where(other == everyone, (other + 1) % count, other)


def settle(it: World, rounds: int, seed: int) -> Places:
    """Coordinates after each machine measured `rounds` others."""
    random = np.random.default_rng(seed)
    count = len(it.city)
    places = coordinates.begin(count, random)
    meet = Meetings(it)
    everyone = np.arange(count)
    for _ in range(rounds):
        other = meet(random)
        places = coordinates.update(places, places.at(other), round_trips(it, everyone, other, random))
    return places


def offers(it: World, places: Places, now_s: int, life_s: int = 86_400) -> list[Offer]:
    measured = Measurement(ALL, VALIDATOR, now_s)
    return [offer(it, places, row, now_s, life_s, measured) for row in range(len(it.city))]


def offer(
    it: World,
    places: Places,
    row: int,
    now_s: int,
    life_s: int,
    measured: Measurement,
    price_wei: int | None = None,
) -> Offer:
    x, y, z = (round(float(value)) for value in places.x[row])
    gpu = int(it.gpu[row])
    return Offer(
        node=node(row),
        operator=Address(b"op" + int(it.operator[row]).to_bytes(18)),
        hardware=HARDWARE[int(it.hardware[row])],
        cpu_milli=int(it.cpu[row]) * 1_000,
        memory_bytes=int(it.cpu[row]) * 4 * 2**30,
        disk_bytes=int(it.cpu[row]) * 32 * 2**30,
        gpu=GPUS[gpu],
        gpus=1 if gpu else 0,
        region=f"r{int(it.city[row]) % REGIONS}",
        bandwidth_kbps=1_000_000 if it.access_us[row] < 1_000 else 100_000,
        price_wei=int(it.price_wei[row]) if price_wei is None else price_wei,
        reliability_ppm=int(it.reliability_ppm[row]),
        coordinate=Coordinate(x, y, z, round(float(places.height[row]))),
        issued_s=now_s,
        expires_s=now_s + life_s,
        measurements=(measured,),
    )


def node(row: int) -> Address:
    """Ids in no order of anything."""
    return Address((row * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8) + row.to_bytes(12))


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _zipf(count: int, power: float) -> Floats:
    weights = 1.0 / np.arange(1, count + 1) ** power
    return weights / weights.sum()
