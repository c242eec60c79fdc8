"""Where a machine is, as far as light proves it: whoever answered within t is no further than t away.

A machine can answer late, never early. So a round trip proves *nearness* and nothing else:

    no further from the witness than   rtt / 2 x 200,000 km/s          (light in glass)

and added delay only moves a machine away: the region in which it must lie grows, what it can prove shrinks. A claim such as
"in this region" is therefore never tested by "too far from elsewhere", which delay would fake, but by "near enough to a
witness there". Witnesses may lie too: of f+1 different operators the (f+1)th smallest round trip counts, so that f liars
prove nothing.
"""

from collections.abc import Iterable, Mapping

import msgspec

from clusterai.protocol.ids import Address

KM_PER_US = 0.2
"""Light in glass, per microsecond, one way."""


class RoundTrip(msgspec.Struct, frozen=True):
    """A witness measured the least round trip of several to the machine; the statement is signed by the witness."""

    witness: Address
    operator: Address
    rtt_us: int
    at_s: int


def furthest_km(rtt_us: int) -> float:
    """No further from the witness than this; later answers prove less."""
    return rtt_us / 2 * KM_PER_US


def proven_rtt_us(trips: Iterable[RoundTrip], liars: int) -> int | None:
    """The least round trip of which at least one honest witness is sure, if at most `liars` operators of witnesses lie.

    Returns:
        None without `liars` + 1 different operators. Of one operator its smallest counts, once.
    """
    least: dict[Address, int] = {}
    for trip in trips:
        least[trip.operator] = min(trip.rtt_us, least.get(trip.operator, trip.rtt_us))
    ranked = sorted(least.values())
    return ranked[liars] if len(ranked) > liars else None


def proven_in(
    trips: Iterable[RoundTrip], witnesses: Mapping[Address, str], region: str, within_us: int, liars: int = 1
) -> bool:
    """Whether enough witnesses that stand in `region` had an answer within `within_us`.

    Args:
        witnesses: the region in which each witness stands; others' trips don't count.
    """
    near = proven_rtt_us((it for it in trips if witnesses.get(it.witness) == region), liars)
    return near is not None and near <= within_us
