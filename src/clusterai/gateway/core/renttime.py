"""Intervals of rented machines: which is ordered next, what its heartbeats say, and how they weigh."""

from collections.abc import Sequence

from clusterai.audit.core.timelock import Evidence, add
from clusterai.gateway.core.rentstate import Rental, Stay
from clusterai.protocol.offers import MachineMeasurement
from clusterai.work.cluster.core.heartbeats import beats_of
from clusterai.work.cluster.price import profile_of, seen_of
from clusterai.work.cluster.spec import BEAT_S, MOST_CORES, Interval, beats_for, decode_spec, seed_of

SLACK_PPM = 4_000
CLOCK_S, DRIFT = 0.05, 0.001
"""A machine's clock begins later than ours and tells before ours hears: honest ones never come near this."""


def next_interval(rental: Rental, stay: Stay, fresh: bytes, now_s: float) -> Interval | None:
    """None where the booked time leaves none. `fresh`: see `RentDesk`."""
    cores = min(decode_spec(rental.rented.spec).cores, MOST_CORES)
    beats = min(beats_for(cores), int(rental.until_s - now_s) // BEAT_S)
    if beats < 1:
        return None
    model = stay.model(rental.lease)
    return Interval(
        model,
        stay.tried,
        beats * BEAT_S,
        beats,
        cores,
        stay.seat.links_per_s_milli,
        SLACK_PPM,
        seed_of(rental.rented.secret + fresh, model, stay.tried),
        stay.head,
    )


def runs_ahead(interval: Interval, tokens: Sequence[int], passed_s: float) -> bool:
    """Whether heartbeats say that more time passed than did: they can come late, but not early."""
    try:
        beats = beats_of(interval.cores, tokens)
    except ValueError:
        return False  # refused with its receipt
    return bool(beats) and beats[-1].elapsed_ms / 1000 > passed_s * (1 + DRIFT) + CLOCK_S


def came_by(rental: Rental, stay: Stay, when_s: float) -> int:
    """How many tokens of the interval that is under way are heartbeats of no later than that."""
    cores = min(decode_spec(rental.rented.spec).cores, MOST_CORES)
    try:
        beats = beats_of(cores, stay.tokens)
    except ValueError:
        return 0
    kept = sum(stay.ordered_s + beat.elapsed_ms / 1000 <= when_s for beat in beats)
    return len(stay.tokens) // max(1, len(beats)) * kept


def weighed(interval: Interval, evidence: Evidence, tokens: tuple[int, ...]) -> Evidence:
    """The evidence after this interval; nothing is weighed of a machine that nobody measured."""
    if not interval.links_per_s_milli:
        return evidence
    try:
        beats = beats_of(interval.cores, tokens)
    except ValueError:
        return evidence
    return add(profile_of(interval), evidence, seen_of(beats)) if beats else evidence


def core_worth(found: MachineMeasurement | None) -> int:
    """Thousandths of links a second that a rented core's chain is held to; 0 where nobody measured it.

    Of hardware threads each does less while its sibling works, and in a rental all of them work: at the tenant's things, or the sentinel's.
    """
    if found is None:
        return 0
    cores = found.cpu_milli // 1000
    together = found.links_at_once_per_s_milli // cores if cores else 0
    return min(found.links_per_s_milli, together or found.links_per_s_milli)
