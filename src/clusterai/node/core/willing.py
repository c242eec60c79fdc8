"""Whether a node takes new work now: its owner's word, the hours, and what else the machine is used for.

    operator says pause ─┐
    outside the hours ───┼─> a reason: no new orders, jobs or leases; what runs may end
    others use it ───────┘

Hours are those of the clock on the wall in a stated time zone: a window belongs to the day on which it begins, one that
ends before it begins goes over midnight, and where a clock is set forward or back, what it shows decides. Time and load
come from outside.
"""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Literal

import msgspec

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
LOOK_AHEAD_MINUTES = 8 * DAY_MINUTES
"""A week and a day: each window has come by then."""

Cause = Literal["operator", "hours", "use"]


class Window(msgspec.Struct, frozen=True):
    """Minutes of the day, `begin` until before `end`, on `days` (0 is Monday). Alike means a whole day."""

    days: tuple[int, ...]
    begin: int
    end: int

    def has(self, weekday: int, minute: int) -> bool:
        if self.begin < self.end:
            return weekday in self.days and self.begin <= minute < self.end
        yesterday = (weekday - 1) % 7
        return (weekday in self.days and minute >= self.begin) or (
            yesterday in self.days and minute < self.end
        )

    def __str__(self) -> str:
        days = "" if len(self.days) == 7 else " " + ",".join(DAYS[day] for day in self.days)
        return f"{_clock(self.begin)}-{_clock(self.end)}{days}"


class Hours(msgspec.Struct, frozen=True):
    """When work is taken; `zone` is called `name`."""

    windows: tuple[Window, ...]
    zone: tzinfo
    name: str

    def are_open(self, now_s: float) -> bool:
        local = datetime.fromtimestamp(now_s, self.zone)
        minute = 60 * local.hour + local.minute
        return any(window.has(local.weekday(), minute) for window in self.windows)

    def change_s(self, now_s: float) -> float | None:
        """When they open or close next; None if they never do."""
        is_open = self.are_open(now_s)
        # Windows and changes of the clock are at whole minutes, so nothing happens between two of them.
        at = int(now_s) // 60 * 60
        for minute in range(1, LOOK_AHEAD_MINUTES + 1):
            if self.are_open(at + 60 * minute) != is_open:
                return float(at + 60 * minute)
        return None

    def __str__(self) -> str:
        return f"{'; '.join(map(str, self.windows))} ({self.name})"


class Quiet(msgspec.Struct, frozen=True):
    """When a machine counts as unused: others take at most `most_foreign` of its processors, and nobody typed, for `after_s`."""

    most_foreign: float
    after_s: float
    input_s: float


class Load(msgspec.Struct, frozen=True):
    """What others use of this machine: `foreign` is their share of all cores, 0 ... 1; `input_s` how long ago somebody
    typed, None where that isn't known."""

    foreign: float
    input_s: float | None = None


class Pause(msgspec.Struct, frozen=True):
    """Why nothing is taken, in words, and what would change it."""

    cause: Cause
    said: str
    cure: str


class Willing:
    """One node's. `pauses` is asked again and again; it remembers since when the machine is unused."""

    def __init__(self, hours: Hours | None = None, quiet: Quiet | None = None) -> None:
        self._hours = hours
        self._quiet = quiet
        self._unused_since_s: float | None = None

    def pauses(self, now_s: float, paused: bool, load: Load | None = None) -> tuple[Pause, ...]:
        """Nothing: work is taken.

        Args:
            load: the newest that was measured; None where nothing is known, which counts as used.
        """
        found: list[Pause] = []
        if paused:
            found.append(Pause("operator", "paused by its owner", "clusterai node resume"))
        if self._hours is not None and not self._hours.are_open(now_s):
            found.append(
                Pause(
                    "hours",
                    f"outside its hours, {self._hours}",
                    "widen `hours` in the configuration, or take it out",
                )
            )
        if self._quiet is not None and (busy := self._busy(self._quiet, now_s, load)) is not None:
            found.append(busy)
        return tuple(found)

    def _busy(self, quiet: Quiet, now_s: float, load: Load | None) -> Pause | None:
        cure = "raise `idle.most_foreign`, lower `idle.after_s`, or take `idle` out of the configuration"
        used = _use(quiet, load)
        if used is not None:
            self._unused_since_s = None
            return Pause("use", used, cure)
        # A clock that was set back must not make it wait for long.
        if self._unused_since_s is None or self._unused_since_s > now_s:
            self._unused_since_s = now_s
        left_s = self._unused_since_s + quiet.after_s - now_s
        if left_s > 0:
            return Pause("use", f"unused by others, but not yet for {quiet.after_s:.0f} s", cure)
        return None


def _use(quiet: Quiet, load: Load | None) -> str | None:
    if load is None:
        return "not known yet what others use of this machine"
    if load.foreign > quiet.most_foreign:
        return f"others use more than {quiet.most_foreign:.0%} of the processors"
    if quiet.input_s and load.input_s is not None and load.input_s < quiet.input_s:
        return f"somebody typed within the last {quiet.input_s:.0f} s"
    return None


def minutes(text: str) -> int:
    """Of the day, from HH:MM; 24:00 is its end."""
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def window(days: Sequence[str], begin: str, end: str) -> Window:
    return Window(
        tuple(sorted({DAYS.index(day) for day in days})), minutes(begin), minutes(end) % DAY_MINUTES
    )


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
