"""What is written down of rentals, and how they come back from it."""

from collections.abc import Iterable

import msgspec

from clusterai.gateway.core.rentstate import (
    Began,
    Dropped,
    Ended,
    Extended,
    Keyed,
    Passed,
    Recounted,
    Rental,
    Rented,
    RenterKeyed,
    RentRecord,
    Seated,
    Stay,
)
from clusterai.protocol.ids import Digest

HEAD = 0
"""The place whose machine Ray's own part of the cluster runs on."""


def apply(rentals: dict[Digest, Rental], record: RentRecord) -> None:
    """One more record."""
    if isinstance(record, Rented):
        stays = {place: Stay(place, 0, seat) for place, seat in enumerate(record.seats)}
        rentals[Digest(record.lease)] = Rental(record, record.until_s, stays)
        return
    rental = rentals[Digest(record.lease)]
    match record:
        case Seated(_, place, generation, seat):
            rental.stays[place] = Stay(place, generation, seat)
            rental.seeking.pop(place, None)
        case Keyed(_, place, generation, key, signature):
            stay = rental.stays[place]
            if stay.generation == generation:
                stay.key, stay.signature = key, signature
        case RenterKeyed(_, key):
            rental.renter_key = key
        case Began(_, at_s):
            rental.began_s = at_s
        case Passed():
            stay = rental.stays[record.place]
            if stay.generation == record.generation:
                stay.tried = max(stay.tried, record.number + 1)
                stay.head, stay.evidence = record.head, record.evidence
                stay.tenths += record.units
            rental.units[record.place] = rental.units.get(record.place, 0) + record.units
            rental.paid_wei += record.amount_wei
            rental.intervals += 1
        case Recounted(_, intervals, paid_wei, units):
            rental.intervals, rental.paid_wei, rental.units = intervals, paid_wei, dict(units)
        case Extended(_, until_s):
            rental.until_s = until_s
        case Ended():
            rental.ended = record
        case Dropped():
            del rentals[rental.lease]


def records(rental: Rental) -> Iterable[RentRecord]:
    """The fewest that lead here. What was paid to machines that are gone is kept in one sum."""
    lease = rental.lease
    yield msgspec.structs.replace(
        rental.rented, seats=tuple(rental.stays[at].seat for at in sorted(rental.stays))
    )
    for place, stay in rental.stays.items():
        if stay.generation:
            yield Seated(lease, place, stay.generation, stay.seat)
        if stay.key:
            yield Keyed(lease, place, stay.generation, stay.key, stay.signature)
        units = rental.units.get(place, 0)
        paid_wei = rental.paid_wei if place == HEAD else 0
        if stay.tried or units or paid_wei:
            number = max(0, stay.tried - 1)
            # The place's other stays are in the sum that follows.
            yield Passed(
                lease, place, stay.generation, number, stay.tenths, paid_wei, stay.head, stay.evidence
            )
    if rental.intervals:
        yield Recounted(lease, rental.intervals, rental.paid_wei, tuple(sorted(rental.units.items())))
    if rental.renter_key:
        yield RenterKeyed(lease, rental.renter_key)
    if rental.began_s is not None:
        yield Began(lease, rental.began_s)
    if rental.until_s != rental.rented.until_s:
        yield Extended(lease, rental.until_s)
    if rental.ended is not None:
        yield rental.ended


def extendable_s(rental: Rental, now_s: float) -> int:
    """By how much its end may be put off now: no machine is booked for longer ahead than its owner lets it."""
    longest_s = min(stay.seat.longest_s for stay in rental.stays.values())
    return max(0, int(now_s) + longest_s - rental.until_s)


def price_wei(rental: Rental) -> int:
    """Of an hour of all its machines."""
    return sum(stay.seat.price_wei for stay in rental.stays.values())
