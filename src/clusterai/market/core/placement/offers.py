"""An offer: one machine that its operator lends by the hour, and of every field who says so, and since when.

    claimed    the operator says it of itself
    offered    the price: the operator is bound by it until the offer expires
    measured   somebody else found it: by whom, and when

A machine's word about itself costs nothing, so two fields count in a choice only once they were measured: reliability
(until then a newcomer's is assumed) and the network coordinate (until then the machine is nowhere, and no group that
has to be close takes it). A measurement fades to a claim after `MEASUREMENT_LIFE_S`.
"""

from typing import Literal

import msgspec

from clusterai.protocol.ids import Address
from clusterai.protocol.offers import MOST_RENTED_S, Field

MEASUREMENT_LIFE_S = 7 * 86_400
NEWCOMER_RELIABILITY_PPM = 950_000
"""What is assumed of a machine whose reliability nobody measured: it is tried, but loses ties by far."""


class Source(msgspec.Struct, frozen=True):
    """Where a field's value comes from, as `clusterai offers` says it."""

    kind: Literal["claimed", "offered", "measured"]
    by: Address
    at_s: int


class Measurement(msgspec.Struct, frozen=True):
    """`by`, who isn't the operator, found these fields as they stand at `at_s`."""

    fields: int
    by: Address
    at_s: int


class Coordinate(msgspec.Struct, frozen=True):
    """A place in the space of round trips (`coordinates.py`), in microseconds."""

    x_us: int
    y_us: int
    z_us: int
    height_us: int


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One machine, lent as a whole.

    Attributes:
        node: the machine's hot key.
        operator: the account whose stake stands behind it, and by which its link is known.
        belongs_to: whose machine the operator's is, as both of them signed; None says no more than `operator`.
        hardware: class in which equal work gives equal times, such as `x86-64-v3`.
        gpu, gpus: kind and number; an empty kind and zero without.
        bandwidth_kbps: the lesser of both directions.
        price_wei: of one hour.
        reliability_ppm: of the hours that it was rented, those without a fault.
        coordinate: None until somebody measured round trips to it.
        issued_s, expires_s: outside of them the offer doesn't stand.
        disk_bytes: of a renter's volume at most, as the operator claims.
        longest_s: it can't be rented for longer.
    """

    node: Address
    operator: Address
    hardware: str
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int = 0
    gpu: str = ""
    gpus: int = 0
    region: str
    bandwidth_kbps: int
    price_wei: int
    reliability_ppm: int = NEWCOMER_RELIABILITY_PPM
    coordinate: Coordinate | None = None
    issued_s: int
    expires_s: int
    longest_s: int = MOST_RENTED_S
    measurements: tuple[Measurement, ...] = ()
    belongs_to: Address | None = None

    @property
    def counts_as(self) -> Address:
        """Whose machine it is: operators are counted by this."""
        return self.belongs_to or self.operator

    def source(self, field: Field, now_s: float) -> Source:
        """Who says so: the newest measurement that hasn't faded, else the operator. For the price see `price_source`."""
        newest = max(
            (it for it in self.measurements if it.fields & field and _counts(it, self, now_s)),
            key=lambda it: (it.at_s, it.by),
            default=None,
        )
        if newest is None:
            return Source("claimed", self.operator, self.issued_s)
        return Source("measured", newest.by, newest.at_s)

    @property
    def price_source(self) -> Source:
        return Source("offered", self.operator, self.issued_s)

    def measured(self, now_s: float) -> int:
        """The fields that somebody else found, as bits of `Field`."""
        fields = 0
        for it in self.measurements:
            if _counts(it, self, now_s):
                fields |= it.fields
        return fields


def _counts(measurement: Measurement, offer: Offer, now_s: float) -> bool:
    """Nobody measures its own, and nothing is measured in the future."""
    return (
        measurement.by not in (offer.operator, offer.belongs_to)
        and now_s - MEASUREMENT_LIFE_S < measurement.at_s <= now_s
    )
