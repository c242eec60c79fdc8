"""Control groups: the kernel's own count of memory, processes and processor time of a whole task.

A task's group is made inside the group that we are in ourselves, so a node that was itself given limits (by systemd,
Kubernetes, a container) can't lend more than it has. Both layouts are known: version 1, a tree for each controller, and
version 2, one tree, where our group must have been delegated to us.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from clusterai.sandbox.adapters import devicefilter
from clusterai.sandbox.adapters.devicefilter import Device
from clusterai.sandbox.adapters.residue import mark, namespace
from clusterai.sandbox.core.spec import Limits

DEVICES = "devices"
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", DEVICES)
PERIOD_US = 100_000
SPARE_PROCESSES = 2
"""bubblewrap outside and bubblewrap inside stand in the same group as the tenant."""


class NoControlGroups(OSError):
    """Control groups can't be used here; the message says why and what to change."""


class Mount(msgspec.Struct, frozen=True):
    """Where our own group of a controller lies in the file system."""

    folder: Path
    version: int


def find(proc: Path = Path("/proc/self")) -> dict[str, Mount]:
    """Our own group for each controller that is mounted. Where one is mounted again, inside another root's folder say, the first place is ours."""
    own: dict[str, str] = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(",") if names else ["unified"]:
            own[name] = path
    found: dict[str, Mount] = {}
    for line in (proc / "mountinfo").read_text().splitlines():
        left, right = line.split(" - ", 1)
        root, place = left.split()[3:5]
        kind, _, options = right.split(maxsplit=2)
        if kind == "cgroup":
            for name in set(options.split(",")) & set(CONTROLLERS):
                if name not in found or found[name].version != 1:
                    found[name] = Mount(_inside(place, root, own.get(name, "/")), 1)
        elif kind == "cgroup2":
            folder = _inside(place, root, own.get("unified", "/"))
            with contextlib.suppress(OSError):
                for name in (folder / "cgroup.controllers").read_text().split():
                    if name in CONTROLLERS:
                        found.setdefault(name, Mount(folder, 2))
    return found


def _inside(place: str, root: str, path: str) -> Path:
    return Path(place) / path.removeprefix(root if root != "/" else "").lstrip("/")


class ControlGroups:
    """Makes a group for each task. Raises NoControlGroups at once where that is not possible."""

    def __init__(self, mounts: dict[str, Mount] | None = None) -> None:
        self._mounts = find() if mounts is None else mounts
        for name in ("memory", "pids", "cpu"):
            if name not in self._mounts:
                raise NoControlGroups(
                    f"no {name} controller is mounted: mount it, or run the node under systemd"
                )
        self.version = self._mounts["memory"].version
        if self.version == 2:
            self._delegate(self._mounts["memory"].folder)
        self._sweep()
        probe = self.make(f"{mark()}probe-{os.urandom(4).hex()}", Limits())
        probe.close()

    @staticmethod
    def _delegate(folder: Path) -> None:
        """Version 2 lets a group have processes or children with controllers, not both: step into a leaf of our own."""
        try:
            leaf = folder / "clusterai-node"
            leaf.mkdir(exist_ok=True)
            for process in (folder / "cgroup.procs").read_text().split():
                if process == str(os.getpid()):
                    (leaf / "cgroup.procs").write_text(process)
            (folder / "cgroup.subtree_control").write_text("+memory +pids +cpu")
        except OSError as error:
            raise NoControlGroups(
                f"{folder} is not ours to divide ({error.strerror}): run the node as a systemd unit with Delegate=yes"
            ) from None

    def _sweep(self) -> None:
        """Remove the groups of nodes that died; theirs are empty, since their tasks died with them."""
        for mount in self._mounts.values():
            for left in mount.folder.glob(f"clusterai-[0-9]*-{namespace()}-*"):
                if not Path("/proc", left.name.split("-")[1]).exists():
                    with contextlib.suppress(OSError):
                        left.rmdir()

    def processes(self, prefix: str) -> list[int]:
        """Those in all our groups whose names begin so."""
        folders = self._mounts["pids"].folder.glob(f"clusterai-{prefix}*")
        return [int(line) for folder in folders for line in (folder / "cgroup.procs").read_text().split()]

    def make(self, name: str, limits: Limits, devices: Iterable[Device] | None = None) -> "Group":
        """
        Args:
            devices: all that may be opened; anything by default, and where the kernel can't be told (`Group.is_walled`).

        Raises:
            NoControlGroups.
        """
        folders: dict[str, Path] = {}
        try:
            for controller, mount in self._mounts.items():
                if controller == DEVICES:
                    continue
                folders[controller] = mount.folder / f"clusterai-{name}"
                folders[controller].mkdir(exist_ok=True)
            group = Group(folders, self.version)
            group.limit(limits)
        except OSError as error:
            Group(folders, self.version).close()
            raise NoControlGroups(
                f"no control group may be made in {self._mounts['memory'].folder} ({error.strerror}): run the node as root, "
                "or as a systemd unit with Delegate=yes"
            ) from None
        if devices is not None:
            group.wall(tuple(devices), self._mounts.get(DEVICES))
        return group


class Group:
    """The control groups of one task."""

    def __init__(self, folders: dict[str, Path], version: int) -> None:
        self._folders = folders
        self._version = version
        self.is_walled = False

    @property
    def folders(self) -> list[Path]:
        return list(dict.fromkeys(self._folders.values()))

    def limit(self, limits: Limits) -> None:
        """Memory is bounded by program and files together: the volume's files lie in memory too. `sight` tells them apart."""
        memory = limits.memory_bytes + limits.disk_bytes
        quota = limits.cpu_milli * PERIOD_US // 1000
        processes = limits.processes + SPARE_PROCESSES
        if self._version == 1:
            self._write("memory", "memory.limit_in_bytes", memory)
            self._write("cpu", "cpu.cfs_period_us", PERIOD_US)
            self._write("cpu", "cpu.cfs_quota_us", quota)
        else:
            self._write("memory", "memory.max", memory)
            self._write("memory", "memory.oom.group", 1)
            self._write("cpu", "cpu.max", f"{quota} {PERIOD_US}")
        self._write("pids", "pids.max", processes)

    def wall(self, devices: Iterable[Device], mount: Mount | None) -> None:
        """Nothing but these device files can be opened, where the kernel can be told so."""
        try:
            if self._version == 2:
                devicefilter.attach(self._folders["memory"], devices)
            elif mount is None:
                return
            else:
                self._folders[DEVICES] = mount.folder / self._folders["memory"].name
                self._folders[DEVICES].mkdir(exist_ok=True)
                self._write(DEVICES, "devices.deny", "a")
                for line in devicefilter.lines(devices):
                    self._write(DEVICES, "devices.allow", line)
            self.is_walled = True
        except OSError:
            # Half a list would be worse than none: /dev shows no others anyway.
            if (folder := self._folders.pop(DEVICES, None)) is not None:
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def falls_one_by_one(self) -> None:
        """Where memory is short the kernel ends the process that holds most, not all of them."""
        if self._version == 2:
            self._write("memory", "memory.oom.group", 0)

    def yields(self) -> None:
        """From now on it gets only the time that other groups leave."""
        try:
            self._write("cpu", "cpu.idle", 1)
        except OSError:
            # Kernels before 5.15: the smallest weight there is.
            self._write("cpu", *(("cpu.shares", 2) if self._version == 1 else ("cpu.weight", 1)))

    def take(self, pid: int) -> None:
        """Move a process in here; where controllers have trees of their own, for the processor alone."""
        with contextlib.suppress(ProcessLookupError):
            self._write("cpu", "cgroup.procs", pid)

    def _write(self, controller: str, file: str, value: int | str) -> None:
        (self._folders[controller] / file).write_text(str(value))

    def _table(self, controller: str, file: str) -> dict[str, int]:
        try:
            lines = (self._folders[controller] / file).read_text().splitlines()
        except OSError:
            return {}
        return {line.split()[0]: int(line.split()[1]) for line in lines if len(line.split()) == 2}

    def memory_bytes(self) -> int:
        """Of the programs, without the files in the volume."""
        stat = self._table("memory", "memory.stat")
        return stat.get("total_rss", 0) if self._version == 1 else stat.get("anon", 0)

    def peak_bytes(self) -> int:
        """The most that was charged at once: programs, volume, and what the kernel cached for them."""
        file = "memory.max_usage_in_bytes" if self._version == 1 else "memory.peak"
        try:
            return int((self._folders["memory"] / file).read_text())
        except (OSError, ValueError):
            return 0

    def processes(self) -> list[int]:
        """Those in it now, threads not counted."""
        try:
            return [int(line) for line in (self._folders["cpu"] / "cgroup.procs").read_text().split()]
        except (OSError, KeyError):
            return []

    def oom_kills(self) -> int:
        file = "memory.oom_control" if self._version == 1 else "memory.events"
        return self._table("memory", file).get("oom_kill", 0)

    def refused_forks(self) -> int:
        return self._table("pids", "pids.events").get("max", 0)

    def cpu_ms(self) -> int:
        if self._version == 2:
            return self._table("cpu", "cpu.stat").get("usage_usec", 0) // 1000
        if "cpuacct" not in self._folders:
            return 0
        try:
            return int((self._folders["cpuacct"] / "cpuacct.usage").read_text()) // 1_000_000
        except OSError:
            return 0

    def close(self) -> None:
        """Only an empty group can be removed; the walls see to it that it is."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
