"""Roll-call: all devices at one moment, each with a deadline that it meets only if it works for nobody else.

    beacon ──> the same second for all ──> chained products, seeds of their own ──> commitments within 1.15 x p95 + round trip

One device that answers for two needs twice the time. With k devices at most k answers come in time, however many names they have,
if the products are such that a device is busy with one of them wholly; the seeds come at the same moment, so none can be begun before.

A device that is there misses a call once in a while: p95 is what it says, and machines have other things to do. So a device counts as
missing after `MOST_MISSED` calls in a row; honest devices that miss one in twenty, one call after the other, get there once in 8,000 calls.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

MARGIN = 1.15
MOST_MISSED = 3

Name = TypeVar("Name", bound=Hashable)


def p95_s(seen: Sequence[float]) -> float:
    """Of the times that a device took alone; of a few, the longest.

    Raises:
        ValueError: there are none.
    """
    if not seen:
        raise ValueError("a device that was never timed can't be called")
    return sorted(seen)[math.ceil(0.95 * len(seen)) - 1]


def deadline_s(seen: Sequence[float], round_trip_s: float) -> float:
    """From the call to the commitments."""
    return MARGIN * p95_s(seen) + round_trip_s


def missing(deadlines: Mapping[Name, float], came: Mapping[Name, float | None]) -> tuple[Name, ...]:
    """Who was called and didn't answer rightly in time.

    Args:
        came: after how many seconds the right commitments were there; None, or nobody, where they weren't.
    """
    late: list[Name] = []
    for name, limit_s in deadlines.items():
        after_s = came.get(name)
        if after_s is None or after_s > limit_s:
            late.append(name)
    return tuple(late)


def missed_in_a_row(before: int, *, is_missing: bool) -> int:
    return before + 1 if is_missing else 0
