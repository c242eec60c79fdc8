"""A sandbox that stays: opened, spoken to over its standard input and output, and closed.

The walls are those of a task; what differs is who decides on its end. A task is watched here and judged by its limits, a cell is
watched by whoever opened it: control groups hold its limits meanwhile, so without them there is none. It has a network of its own
with loopback alone, into which its owner may move an interface.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from clusterai.sandbox.adapters import devicefilter
from clusterai.sandbox.adapters.cgroup import ControlGroups, Group
from clusterai.sandbox.adapters.native import NativeRunner
from clusterai.sandbox.adapters.remnants import swept, to_its_end
from clusterai.sandbox.adapters.residue import mark
from clusterai.sandbox.adapters.running import CannotSandbox, Held, gone, start, walls
from clusterai.sandbox.core.bubble import Root
from clusterai.sandbox.core.spec import Limits, Task

MOST_LINE = 1 << 16
ENDS_S = 10.0


class Cell:
    """Made by `open`.

    Attributes:
        pid: of the first process inside, as this machine counts.
        ended: done when it died, whoever ended it.
        group: its control groups.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        outside: int,
        held: Held,
        group: Group,
        groups: ControlGroups,
    ) -> None:
        self.pid = held.pid
        self.group = group
        self._groups = groups
        self._idle: Group | None = None
        self.ended: asyncio.Task[None] = asyncio.create_task(gone(outside))
        self._process = process
        self._outside = outside
        self._held = held
        self._reader = asyncio.StreamReader(MOST_LINE)
        self._pipe: asyncio.ReadTransport | None = None
        self._logged: int = -1

    @classmethod
    async def open(
        cls,
        runner: NativeRunner,
        task: Task,
        root: Root,
        *,
        shared_bytes: int | None = None,
        before: tuple[str, ...] = (),
        disk: Path | None = None,
        on_log: Callable[[bytes], None] = lambda _: None,
    ) -> "Cell":
        """
        Args:
            shared_bytes: of /dev/shm.
            before: a command line that runs another, `taskset -c 0,1`.
            disk: a folder, where `before` leads, that is its volume; memory by default.
            on_log: is handed what it writes to standard error.

        Raises:
            CannotSandbox.
        """
        if runner.groups is None:
            raise CannotSandbox("a cell needs control groups", runner.no_groups_because)
        run_id = os.urandom(8).hex()
        folder = runner.folder / run_id
        (folder / "in").mkdir(parents=True)
        for path in (folder, folder / "in"):
            path.chmod(0o755)
        # A volume that is no memory isn't lent beside it.
        limits = task.limits if disk is None else msgspec.structs.replace(task.limits, disk_bytes=0)
        devices = devicefilter.allowed(devicefilter.number_of(Path(it.source)) for it in root.devices)
        group = runner.groups.make(f"{mark()}{run_id}", limits, devices)
        wires = None
        try:
            # What is in it stays, and shall tell of it: a task would be over.
            group.falls_one_by_one()
            wires = runner.wires(group)
            try:
                command = runner.command(task, root, folder, group, wires, run_id, shared_bytes, disk)
            except OSError:
                wires.close_childs()
                raise
            try:
                process = start([*before, *command], wires, subprocess.PIPE)
            except CannotSandbox:
                wires = None  # It closed them.
                raise
            outside = os.pidfd_open(process.pid)
            held = Held()
            try:
                await walls(held, wires.status[0], outside, run_id)
                if held.volume < 0:
                    raise CannotSandbox(
                        f"the walls could not be built: {await _last_words(process, outside)}"
                    )
                os.write(wires.block[1], b"x")
            except BaseException:
                _kill(outside, held.inside)
                await to_its_end(_over(process, outside, held, group))
                raise
        except BaseException:
            group.close()
            raise
        finally:
            if wires is not None:
                wires.close_ours()
            shutil.rmtree(folder, ignore_errors=True)
        cell = cls(process, outside, held, group, runner.groups)
        await cell._listen(on_log)
        return cell

    @property
    def namespace(self) -> str:
        """Its network."""
        return f"/proc/{self.pid}/ns/net"

    async def _listen(self, on_log: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._reader), self._process.stdout
        )
        self._logged = self._process.stderr.fileno()
        os.set_blocking(self._logged, False)

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._logged, 1 << 16)
                if data:
                    on_log(data)
                else:
                    loop.remove_reader(self._logged)

        loop.add_reader(self._logged, read)

    def yields(self, pid: int, limits: Limits) -> None:
        """This process of it gets only the processor time that other groups leave, from now on.

        Raises:
            NoControlGroups.
        """
        if self._idle is None:
            self._idle = self._groups.make(f"{mark()}{os.urandom(8).hex()}", limits)
            self._idle.yields()
        self._idle.take(pid)

    def processes(self) -> list[int]:
        """Those inside, and bubblewrap."""
        return [*self.group.processes(), *(self._idle.processes() if self._idle is not None else ())]

    def say(self, line: bytes) -> None:
        """Raises: OSError: it doesn't read any more."""
        assert self._process.stdin is not None
        if os.write(self._process.stdin.fileno(), line + b"\n") != len(line) + 1:
            raise BrokenPipeError("it doesn't read any more")

    async def hear(self) -> bytes:
        """The next line; empty at its end.

        Raises:
            ValueError: one that is longer than `MOST_LINE`.
        """
        return await self._reader.readline()

    async def close(self) -> None:
        """Every process inside is dead, and what they had in memory gone, though this is cancelled meanwhile."""
        if self._outside >= 0:
            outside, self._outside = self._outside, -1
            await to_its_end(self._closed(outside))

    async def _closed(self, outside: int) -> None:
        _kill(outside, self._held.inside)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.ended), ENDS_S)
        if self._held.inside >= 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone(self._held.inside), ENDS_S)
        if self._pipe is not None:
            self._pipe.close()
        asyncio.get_running_loop().remove_reader(self._logged)
        _reap(self._process, outside, self._held)
        self.group.close()
        if self._idle is not None:
            self._idle.close()


def _kill(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)


async def _ended(outside: int, held: Held, group: Group) -> None:
    await gone(outside)
    if held.inside >= 0:
        await gone(held.inside)
    else:
        await swept(group.processes)


async def _over(process: subprocess.Popen[bytes], outside: int, held: Held, group: Group) -> None:
    await _ended(outside, held, group)
    _reap(process, outside, held)


def _reap(process: subprocess.Popen[bytes], outside: int, held: Held) -> None:
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    for descriptor in (outside, held.inside, held.volume):
        if descriptor >= 0:
            os.close(descriptor)


async def _last_words(process: subprocess.Popen[bytes], outside: int) -> str:
    _kill(outside)
    await gone(outside)
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    return (process.stderr.read() or b"no answer").decode("utf-8", "replace").strip()[-300:]
