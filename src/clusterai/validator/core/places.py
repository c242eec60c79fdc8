"""Where machines are, out of round trips: this validator's own, and those that the other drawn validators tell it, signed.

    own trips, others' Trips ──> fit: the machine's network coordinate        (coordinates.py)
                            └──> near enough to enough witnesses in a region  (location.py)

A machine says nothing about its place: it could only say what suits it. Each validator fits it from the trips that it knows, and moves itself a
little by each of its own. A validator that lies about its round trip is one witness of three: the second smallest counts for a region, one
sample moves a coordinate by a bounded step, and where a validator puts a machine is no nearer to itself than its own trip. All trips go through a gateway, so they are longer than the way between the two: an upper bound.
"""

import math
from collections.abc import Callable

import msgspec
import numpy as np

from clusterai.market.core.placement.coordinates import (
    MOST_ERROR,
    MOST_RTT_US,
    Places,
    begin,
    coordinate,
    update,
)
from clusterai.market.core.placement.location import RoundTrip, proven_in
from clusterai.market.core.placement.offers import Coordinate
from clusterai.protocol.ids import Address
from clusterai.protocol.measuring import Trip
from clusterai.protocol.offers import MILLION, MOST_PLACE_US

ROUNDS = 64
"""How often the trips that are known are gone through: they are few, and few samples settle slowly."""
TRIP_LIFE_S = 2 * 86_400
WITHIN_US = 20_000
"""Of a witness in a region: at most 2,000 km of glass."""
LIARS = 1


class Known(msgspec.Struct, frozen=True):
    """One witness's least round trip to a machine, and where the witness says it is."""

    rtt_us: int
    at_s: int
    region: str
    place: tuple[int, int, int, int]
    error_ppm: int


class Atlas:
    """What one validator knows; `seed` of its own tells its first microsecond from others'."""

    def __init__(self, me: Address, region: str) -> None:
        self._me, self._region = me, region
        self.mine = begin(1, np.random.default_rng(int.from_bytes(me[:8])))
        self._trips: dict[Address, dict[Address, Known]] = {}

    def measured(self, node: Address, rtt_us: int, now_s: float) -> None:
        """My own trip; I move by it too."""
        others = self._trips.get(node)
        if others and any(witness != self._me for witness in others):
            self.mine = update(self.mine, self._fitted(node), np.array([float(rtt_us)]))
        self._put(node, self._me, Known(rtt_us, int(now_s), self._region, self.place(), self.error_ppm()))

    def heard(self, node: Address, trip: Trip, now_s: float) -> None:
        """Another's; whether it may say so was asked before."""
        if abs(trip.at_s - now_s) < TRIP_LIFE_S and 0 < trip.rtt_us <= MOST_RTT_US:
            place = (trip.x_us, trip.y_us, trip.z_us, trip.height_us)
            self._put(
                node,
                Address(trip.validator),
                Known(trip.rtt_us, trip.at_s, trip.region, place, trip.error_ppm),
            )

    def place(self) -> tuple[int, int, int, int]:
        """My own coordinate, within what a statement holds."""
        it = _limited(coordinate(self.mine, 0))
        return it.x_us, it.y_us, it.z_us, it.height_us

    def error_ppm(self) -> int:
        return round(float(self.mine.error[0]) * MILLION)

    def where(self, node: Address) -> Coordinate | None:
        """None while no trip is known. No nearer to me than I found it: others' trips may be lies, and mine can't be too short."""
        if node not in self._trips:
            return None
        it = coordinate(self._fitted(node), 0)
        mine = self._trips[node].get(self._me)
        if mine is not None:
            x_us, y_us, z_us, height_us = self.place()
            way_us = math.dist((it.x_us, it.y_us, it.z_us), (x_us, y_us, z_us)) + height_us
            it = msgspec.structs.replace(it, height_us=max(it.height_us, math.ceil(mine.rtt_us - way_us)))
        return _limited(it)

    def stands_in(self, node: Address, region: str, operator_of: Callable[[Address], Address]) -> bool:
        """Whether enough witnesses of that region had an answer so soon that it must be near them."""
        known = self._trips.get(node, {})
        trips = [
            RoundTrip(witness, operator_of(witness), it.rtt_us, it.at_s) for witness, it in known.items()
        ]
        regions = {witness: it.region for witness, it in known.items()}
        return bool(region) and proven_in(trips, regions, region, WITHIN_US, LIARS)

    def forget(self, now_s: float) -> None:
        for node, known in list(self._trips.items()):
            for witness in [it for it, trip in known.items() if now_s - trip.at_s > TRIP_LIFE_S]:
                del known[witness]
            if not known:
                del self._trips[node]

    def _put(self, node: Address, witness: Address, known: Known) -> None:
        old = self._trips.setdefault(node, {}).get(witness)
        if old is None or known.at_s >= old.at_s:
            self._trips[node][witness] = known

    def _fitted(self, node: Address) -> Places:
        here = begin(1, np.random.default_rng(int.from_bytes(node[:8])))
        trips = sorted(self._trips[node].items())
        for _ in range(ROUNDS):
            for _, trip in trips:
                there = Places(
                    np.array([trip.place[:3]], np.float64),
                    np.array([float(trip.place[3])]),
                    np.array([min(MOST_ERROR, trip.error_ppm / MILLION)]),
                )
                here = update(here, there, np.array([float(trip.rtt_us)]))
        return here


def _limited(it: Coordinate) -> Coordinate:
    x, y, z = (max(-MOST_PLACE_US, min(MOST_PLACE_US, value)) for value in (it.x_us, it.y_us, it.z_us))
    return Coordinate(x, y, z, max(0, min(MOST_PLACE_US, it.height_us)))
