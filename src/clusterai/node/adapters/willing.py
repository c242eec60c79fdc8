"""What the decision to take work rests on: the owner's pause file, the clock, and the use of this machine by others.

DATA/paused   while it is there, nothing new is taken; only who may write to the node's folder can pause it

It is a file and not a door: it outlives a restart, needs no port, and the folder's permissions are all its protection.
"""

import os
import time
from pathlib import Path
from zoneinfo import ZoneInfo

from clusterai.node.config import Config
from clusterai.node.core.willing import Hours, Load, Pause, Quiet, Willing, window

SAMPLE_S = 5.0
"""Between two looks at what others use."""


class PauseFile:
    """The owner's word, durable."""

    def __init__(self, data: Path) -> None:
        self.path = data / "paused"

    def is_there(self) -> bool:
        return self.path.exists()

    def pause(self) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.fsync(descriptor)
        os.close(descriptor)

    def resume(self) -> None:
        self.path.unlink(missing_ok=True)


class HostUse:
    """How much of this machine is used by what isn't this process, its children, or theirs.

    In a container it is the host's, as far as the host shows it there. Who types is seen on terminals alone: a desktop that
    is used without one is seen by the processors that it takes.
    """

    def __init__(self) -> None:
        import psutil

        self._ps = psutil
        self._me = psutil.Process()
        self._before = self._sums()
        self._at_s = time.monotonic()
        self._load: Load | None = None

    def look(self) -> Load | None:
        """The last `SAMPLE_S` or so; None until that has passed for the first time."""
        now_s = time.monotonic()
        if now_s - self._at_s < SAMPLE_S:
            return self._load
        total, busy, own = after = self._sums()
        passed = total - self._before[0]
        if passed > 0:
            foreign = (busy - self._before[1]) - (own - self._before[2])
            self._load = Load(min(1.0, max(0.0, foreign / passed)), self._typed_ago_s())
        self._before, self._at_s = after, now_s
        return self._load

    def _sums(self) -> tuple[float, float, float]:
        """Seconds of all cores since the machine's start: all, busy, and busy for us."""
        times = self._ps.cpu_times()
        # On Linux guests' time is part of users' time, and waiting for a disk is idling.
        idle = times.idle + getattr(times, "iowait", 0.0)
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        total = sum(times) - guests
        own = 0.0
        for process in [self._me, *self._me.children(recursive=True)]:
            try:
                used = process.cpu_times()
            except self._ps.Error:
                continue  # it has ended; its parent has its times now
            own += (
                used.user
                + used.system
                + getattr(used, "children_user", 0)
                + getattr(used, "children_system", 0)
            )
        return total, total - idle, own

    def _typed_ago_s(self) -> float | None:
        found: list[float] = []
        for user in self._ps.users():
            try:
                found.append(max(0.0, time.time() - (Path("/dev") / str(user.terminal)).stat().st_atime))
            except OSError:
                continue
        return min(found, default=None)


class Will:
    """One node's: asked once a second."""

    def __init__(self, config: Config) -> None:
        self.file = PauseFile(config.data)
        self._willing = Willing(hours(config), quiet(config))
        self._use = HostUse() if config.idle is not None else None

    def pauses(self, now_s: float) -> tuple[Pause, ...]:
        load = None if self._use is None else self._use.look()
        return self._willing.pauses(now_s, self.file.is_there(), load)


def hours(config: Config) -> Hours | None:
    if not config.hours:
        return None
    assert config.zone is not None, "the configuration was checked"
    windows = tuple(window(it.days, it.begin, it.end) for it in config.hours)
    return Hours(windows, ZoneInfo(config.zone), config.zone)


def quiet(config: Config) -> Quiet | None:
    idle = config.idle
    return None if idle is None else Quiet(idle.most_foreign, idle.after_s, idle.input_s)
