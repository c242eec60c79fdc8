"""What an interval costs: the tenths of seconds in which the whole machine was the tenant's, as its heartbeats prove."""

from clusterai.audit.core.timelock import MILLION, USES, Profile, proven_ppm
from clusterai.audit.core.timelock import Interval as Seen
from clusterai.work.cluster.core.heartbeats import Beat, beats_of
from clusterai.work.cluster.spec import Interval

UNITS_A_SECOND = 10
UNITS_AN_HOUR = 3_600 * UNITS_A_SECOND


def unit_price_wei(price_wei: int) -> int:
    """Of a tenth of a second, where an hour has this price; rounded up."""
    return -(-price_wei // UNITS_AN_HOUR)


def profile_of(interval: Interval) -> Profile:
    return Profile(interval.cores, interval.links_per_s_milli / 1000, (MILLION,) * USES, interval.slack_ppm)


def seen_of(beats: tuple[Beat, ...]) -> Seen:
    """All of an interval as the tests of `audit/core/timelock.py` take it.

    Args:
        beats: one at least.
    """
    links = sum(cell.links for beat in beats for cell in beat.cells)
    return Seen(beats[-1].elapsed_ms / 1000, beats[-1].tenant_ms / 1000, links)


def recount(interval: Interval, tokens: tuple[int, ...]) -> tuple[int, int]:
    """(0, tenths of seconds) as an honest receipt states them.

    Time with foreign processes isn't the tenant's. Where nobody measured the sentinel's speed, time counts as it passed.
    """
    try:
        beats = beats_of(interval.cores, tokens)
    except ValueError:
        return 0, 0
    elapsed_ms = beats[-1].elapsed_ms if beats else 0
    if elapsed_ms <= 0:
        return 0, 0
    began_ms = (0, *(beat.elapsed_ms for beat in beats))
    alone_ms = sum(
        max(0, beat.elapsed_ms - since_ms)
        for since_ms, beat in zip(began_ms, beats, strict=False)
        if not beat.foreign
    )
    share_ppm = MILLION
    if interval.links_per_s_milli:
        share_ppm = proven_ppm(profile_of(interval), seen_of(beats))
    proven_ms = min(alone_ms, interval.seconds * 1000) * max(0, share_ppm) // MILLION
    return 0, proven_ms * UNITS_A_SECOND // 1000


def cap_wei(interval: Interval, input_wei: int, output_wei: int) -> int:
    """The most that this interval can cost: the order's cap."""
    return interval.seconds * UNITS_A_SECOND * output_wei
