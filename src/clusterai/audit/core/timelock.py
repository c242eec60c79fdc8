"""Whether a rented machine gave its tenant the whole time, or somebody else a share of it.

On every core a sentinel runs a sequential chain at the lowest priority, so that it gets just what the tenant leaves. What the
tenant got and what the sentinel could do add up to what the machine is worth; time that went to a third party is missing:

    share    = (tenant's CPU seconds + links / (links a second of a core alone)) / (cores x seconds)
    residual = share / what was usual at that use - 1          cut to [-FLOOR, +CEILING]

What the machine says of itself it may forge. The links it can't, and the seconds are the verifier's.

Two tests run over the residuals' means in rounds of ROUND intervals. Both bet against "the mean of the next round is at least -slack,
whatever came before", which doesn't ask that noise be normal, or intervals independent; rounds, because the noise of one interval lives
on in the next. A bet of size b multiplies its stake by 1 + b (-slack - mean), which can't grow on the average while that holds.

    conviction   the mean of three bets' capitals since the beginning reaches 10^9: by Ville's inequality with probability 10^-9
                 at most, ever, however often one looks
    alarm        the same capitals, begun anew whenever they fall below one: more probes and a refund, nobody is slashed

The more of it is stolen, the larger the bet that sees it first; so three of them.

Sources: Ville 1939; Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (2024); Shin, Ramdas and
Rinaldo, E-detectors (2024); Page 1954.
"""

import math
from collections.abc import Sequence

import msgspec

MILLION = 1_000_000
CEILING_PPM = 20_000
"""A machine can't give more than all of its time: what lies above is the noise of clocks."""
FLOOR_PPM = 200_000
"""One interval says no more than this against anyone: a hiccup isn't a theft."""
ROUND = 10
BETS = (3.0, 10.0, 30.0)
CONVICTION_NATS = 9 * math.log(10)
ALARM_NATS = math.log(20_000)
MOST_SLACK_PPM = 13_000
"""With more, the largest bet could lose more than it has."""
USES = 5
"""Bins of the tenant's use, each with a usual share of its own: a busy tenant's caches slow the sentinel's links."""


class Profile(msgspec.Struct, frozen=True):
    """What was measured of a machine before it was rented, by a verifier that its owner didn't choose.

    Attributes:
        cores: that the tenant rents.
        links_per_s: of one core alone, median.
        usual_ppm: the share that is seen when nothing is stolen, by use of the tenant (`USES` bins from idle to busy).
        slack_ppm: by how much the mean residual may lie below zero in honest use: heat, the host's own upkeep. At most MOST_SLACK_PPM.
    """

    cores: int
    links_per_s: float
    usual_ppm: tuple[int, ...]
    slack_ppm: int = 4_000


class Interval(msgspec.Struct, frozen=True):
    """Between two heartbeats.

    Attributes:
        seconds: by the verifier's clock.
        tenant_s: CPU seconds of the tenant's processes.
        links: of all cores' chains together.
    """

    seconds: float
    tenant_s: float
    links: int


class Evidence(msgspec.Struct, frozen=True):
    """The tests' state; a part of the lease's record, so that another validator comes to the same.

    Attributes:
        intervals: seen so far.
        short_ppm: what the intervals of the round that isn't full are short by, together.
        nats: the log of each bet's capital since the beginning.
        since_nats: the same, begun anew whenever it fell below one.
    """

    intervals: int = 0
    short_ppm: int = 0
    nats: tuple[float, ...] = (0.0,) * len(BETS)
    since_nats: tuple[float, ...] = (0.0,) * len(BETS)

    @property
    def convinced(self) -> bool:
        """Time was taken: an honest machine ever gets here with probability 10^-9 at most."""
        return _mean_nats(self.nats) >= CONVICTION_NATS

    @property
    def alarmed(self) -> bool:
        """Something is likely wrong of late."""
        return _mean_nats(self.since_nats) >= ALARM_NATS


def share_ppm(profile: Profile, interval: Interval) -> int:
    """How much of the machine the tenant had or could have had."""
    had = interval.tenant_s + interval.links / profile.links_per_s
    return round(had / (profile.cores * interval.seconds) * MILLION)


def residual_ppm(profile: Profile, interval: Interval) -> int:
    """The share beside what was usual at that use, cut."""
    return max(-FLOOR_PPM, min(CEILING_PPM, _beside_usual_ppm(profile, interval) - MILLION))


def _beside_usual_ppm(profile: Profile, interval: Interval) -> int:
    use = min(1.0, interval.tenant_s / (profile.cores * interval.seconds))
    usual = profile.usual_ppm[min(USES - 1, int(use * USES))]
    return share_ppm(profile, interval) * MILLION // usual


def add(profile: Profile, evidence: Evidence, interval: Interval) -> Evidence:
    """The evidence after one more interval."""
    intervals = evidence.intervals + 1
    short_ppm = evidence.short_ppm - residual_ppm(profile, interval)
    if intervals % ROUND:
        return msgspec.structs.replace(evidence, intervals=intervals, short_ppm=short_ppm)
    beyond = (short_ppm / ROUND - min(profile.slack_ppm, MOST_SLACK_PPM)) / MILLION
    steps = [math.log1p(bet * beyond) for bet in BETS]
    return Evidence(
        intervals,
        0,
        tuple(held + step for held, step in zip(evidence.nats, steps, strict=True)),
        tuple(max(0.0, held) + step for held, step in zip(evidence.since_nats, steps, strict=True)),
    )


def profiled(cores: int, links_per_s: float, seen: Sequence[Interval], slack_ppm: int = 4_000) -> Profile:
    """A profile out of intervals in which nothing was stolen.

    Args:
        seen: at several uses; a bin without any takes its neighbour's usual share.

    Raises:
        ValueError: there are none.
    """
    if not seen:
        raise ValueError("a profile needs intervals")
    bins: list[list[int]] = [[] for _ in range(USES)]
    bare = Profile(cores, links_per_s, (MILLION,) * USES)
    for interval in seen:
        use = interval.tenant_s / (cores * interval.seconds)
        bins[min(USES - 1, int(use * USES))].append(share_ppm(bare, interval))
    known = {at: sum(shares) // len(shares) for at, shares in enumerate(bins) if shares}
    usual = tuple(known[min(known, key=lambda it: (abs(it - at), it))] for at in range(USES))
    return Profile(cores, links_per_s, usual, slack_ppm)


def proven_ppm(profile: Profile, interval: Interval) -> int:
    """What of an interval is paid: all of it within slack and the noise of clocks, else the share that was there."""
    shown = _beside_usual_ppm(profile, interval)
    return MILLION if MILLION - shown <= profile.slack_ppm + CEILING_PPM else max(0, shown)


def _mean_nats(nats: Sequence[float]) -> float:
    top = max(nats)
    return top + math.log(sum(math.exp(it - top) for it in nats) / len(nats))
