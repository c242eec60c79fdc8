"""One task from its first process to its last: started, watched, ended, and judged.

bubblewrap tells the first process inside and waits; we take hold of it and of the volume (both by descriptors, so that no
number can be reused under us), then let the program start.
"""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Literal

import msgspec

from clusterai.sandbox.adapters.cgroup import Group
from clusterai.sandbox.adapters.outputs import TooMuch, collect
from clusterai.sandbox.adapters.remnants import swept, to_its_end, writers
from clusterai.sandbox.adapters.runner import Leash, Logs
from clusterai.sandbox.adapters.store import BlobStore
from clusterai.sandbox.adapters.tree import count
from clusterai.sandbox.core import bubble
from clusterai.sandbox.core.spec import Outcome, Reason, Task, Usage
from clusterai.sandbox.core.verdict import Sight, exceeded, explain, judge

if TYPE_CHECKING:
    import resource

LOOK_S = 0.05
"""How often a running task is looked at: what it can take beyond a limit that only we count is what it takes in this time."""
START_S = 20.0
TOOLS = "/usr/sbin:/usr/bin:/sbin:/bin"


class CannotSandbox(OSError):
    """Nothing here can hold a tenant's process: {why}; `cure` is how to get what is missing."""

    def __init__(self, why: str, cure: str = "") -> None:
        super().__init__(f"{why}: {cure}" if cure else why)
        self.why = why
        self.cure = cure


class Wires:
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


class Running:
    """One task from its start to its last process."""

    def __init__(self, task: Task, group: Group | None, logs: Logs, leash: Leash) -> None:
        self._task = task
        self._group = group
        self._logs = logs
        self._leash = leash
        self._held = Held()
        self._started = 0.0
        self._peak_memory = self._peak_disk = 0
        self._last = Sight()

    async def through(
        self, command: list[str], fds: Wires, run_id: str, store: BlobStore, name: str
    ) -> Outcome:
        """From the command to the outcome.

        Raises:
            CannotSandbox: the walls could not be built; nothing of the tenant's was run.
        """
        process = start(command, fds)
        outside = os.pidfd_open(process.pid)
        killed_for: Reason | None = None
        usage: resource.struct_rusage | None = None
        drained: list[asyncio.Future[None]] = []

        async def ended(pipes: tuple[int, int]) -> None:
            """Dead, waited for and read to its end. Of that nothing is left half done, however often this is cancelled."""
            nonlocal usage
            await self._end(outside, pipes)
            _, status, usage = os.wait4(process.pid, 0)  # noqa: ASYNC222
            process.returncode = os.waitstatus_to_exitcode(status)
            await asyncio.gather(*drained)

        try:
            assert process.stdout is not None
            assert process.stderr is not None
            drained.append(_drain(process.stdout.fileno(), "stdout", self._logs))
            drained.append(_drain(process.stderr.fileno(), "stderr", self._logs))
            try:
                ready = await self._ready(fds.status[0], outside, run_id)
                if ready:
                    self._started = time.monotonic()
                    os.write(fds.block[1], b"x")
                    killed_for = await self._watch(outside)
            finally:
                await to_its_end(ended((process.stdout.fileno(), process.stderr.fileno())))
            if not ready:
                said = self._logs.stderr.decode("utf-8", "replace").strip()[:300]
                raise CannotSandbox(f"the walls could not be built: {said or 'no answer'}")
            assert usage is not None
            return await self._outcome(name, store, killed_for, process.returncode, usage)
        finally:
            fds.close_ours()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            for descriptor in (outside, self._held.inside, self._held.volume):
                if descriptor >= 0:
                    os.close(descriptor)

    async def _ready(self, status_fd: int, outside: int, run_id: str) -> bool:
        """Wait until the walls stand, and hold on to the volume and to PID 1 inside. False: bubblewrap gave up."""
        await walls(self._held, status_fd, outside, run_id)
        if self._held.volume < 0:
            return False
        if self._group is None and os.geteuid() != 0:
            most = self._task.limits.processes + 16
            import resource  # Unix alone has it, and a node elsewhere loads this module

            resource.prlimit(self._held.pid, resource.RLIMIT_NPROC, (most, most))
        return True

    async def _watch(self, outside: int) -> Reason | None:
        """Until it ends by itself (None), or there is a reason to end it."""
        ended = asyncio.ensure_future(gone(outside))
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
        space = os.fstatvfs(self._held.volume)
        used = (space.f_blocks - space.f_bfree) * space.f_frsize
        if self._group is not None:
            memory, cpu, processes = self._group.memory_bytes(), self._group.cpu_ms(), 0
            ooms, forks = self._group.oom_kills(), self._group.refused_forks()
        else:
            tree = count(self._held.pid)
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

    async def _end(self, outside: int, pipes: tuple[int, int]) -> None:
        """Until every process of it is dead."""
        inside, group = self._held.inside, self._group
        for descriptor in (inside, outside):
            if descriptor >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        await gone(outside)
        if inside >= 0:
            await gone(inside)  # and with it everybody in its namespace
        else:
            await swept(group.processes if group is not None else lambda: writers(*pipes))

    async def _outcome(
        self,
        name: str,
        store: BlobStore,
        killed_for: Reason | None,
        code: int,
        used: "resource.struct_rusage",
    ) -> Outcome:
        self._look()
        limits = self._task.limits
        code = code if code >= 0 else 128 - code
        reason = judge(self._last, limits, code, killed_for)
        why = explain(reason, limits, code)
        outputs, skipped = (), ()
        try:
            outputs, skipped = await asyncio.to_thread(collect, self._held.volume, store, limits)
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
            runner=name,
        )


class Held(msgspec.Struct):
    """What we have in hand of a sandbox, by descriptors that no reused number can mislead; -1 for what isn't there."""

    pid: int = 0
    inside: int = -1
    volume: int = -1


async def walls(held: Held, status_fd: int, outside: int, run_id: str) -> None:
    """Wait until the walls stand. Without a volume: bubblewrap gave up. What there is, is in hand also when this is cancelled."""
    os.set_blocking(status_fd, False)
    deadline = time.monotonic() + START_S
    said = b""
    while time.monotonic() < deadline and not exited(outside):
        if b"\n" not in said:
            with contextlib.suppress(BlockingIOError):
                said += os.read(status_fd, 4096)
        if b"\n" in said:
            if not held.pid:
                held.pid = _child_pid(said)
                held.inside = os.pidfd_open(held.pid)
            root = f"/proc/{held.pid}/root"
            if os.access(f"{root}/run/{run_id}", os.F_OK):
                held.volume = os.open(root + bubble.VOLUME, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                return
        await asyncio.sleep(0.0005)


def start(command: list[str], fds: Wires, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Raises: CannotSandbox, with every descriptor closed."""
    try:
        # Not asyncio's own: we want the pidfd, the rusage, and to be the one who waits. It takes 2 ms.
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": TOOLS},
            pass_fds=fds.child(),
            cwd="/",
        )
    except OSError as error:
        fds.close_ours()
        raise CannotSandbox(
            f"{command[0]} can't be started ({error})", "apt-get install util-linux"
        ) from None
    finally:
        fds.close_childs()


class _Status(msgspec.Struct, rename="kebab"):
    child_pid: int


def _child_pid(said: bytes) -> int:
    return msgspec.json.decode(said.split(b"\n", 1)[0], type=_Status).child_pid


def exited(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


async def gone(pidfd: int) -> None:
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
