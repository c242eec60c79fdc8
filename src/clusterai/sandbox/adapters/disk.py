"""A tenant's disk, encrypted under a key that is in memory alone and dies with the lease, or with the process that opened it.

For stays that are longer than a job, and volumes that are larger than memory. Where it can't be had (`obstacle` says why, and what
would cure it), the volume is memory, which is bounded by the machine's.

    protected          from whoever gets the disk, or a copy of it, during the lease or after; from the next tenant
    not protected      from whoever controls the running machine: root reads gocryptfs's memory, and the mount

What the tenant has is a plain ext4 of fixed size (`diskkeeper.py` says on what it stands), in a mount namespace that no other process
of the machine is in. A killed node leaves pieces of noise in its folder, and nothing that could open them.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from clusterai.sandbox.adapters import diskkeeper
from clusterai.sandbox.adapters.native import STAGE
from clusterai.sandbox.adapters.remnants import to_its_end
from clusterai.sandbox.adapters.running import TOOLS

READY_S = 60.0
ENDS_S = 15.0
PLACE = STAGE / "disk"
"""The same for all: each is mounted in a namespace of its own."""
TICKS_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
LEAST_BYTES = 16 << 20


class NoDisk(Exception):
    """No encrypted disk can be had here: {why}; `cure` is how to get what is missing."""

    def __init__(self, why: str, cure: str = "") -> None:
        super().__init__(f"{why}: {cure}" if cure else why)
        self.why = why
        self.cure = cure


class _Said(msgspec.Struct):
    said: str
    why: str = ""
    cipher: int = 0


def obstacle(path: str | None = None) -> NoDisk | None:
    """What is missing here, if anything; nothing is tried.

    Args:
        path: where programs are looked for.
    """
    path = path if path is not None else f"{os.environ.get('PATH', '')}:{TOOLS}"
    if os.geteuid() != 0:
        return NoDisk("only root mounts disks", "run the node as root")
    for program, package in (
        ("gocryptfs", "gocryptfs"),
        ("fusermount", "fuse3"),
        ("mkfs.ext4", "e2fsprogs"),
    ):
        if shutil.which(program, path=path) is None:
            return NoDisk(f"{program} isn't installed", f"apt-get install {package}")
    for device, module in (("/dev/fuse", "fuse"), ("/dev/loop-control", "loop")):
        if not os.access(device, os.R_OK | os.W_OK):
            cure = f"modprobe {module} (in a container: --device {device}, and --privileged for mounts)"
            return NoDisk(f"{device} can't be opened", cure)
    return None


class Disk:
    """Made by `open`.

    Attributes:
        ended: done with the reason when it broke by itself.
    """

    def __init__(self, process: asyncio.subprocess.Process, cipher: int, folder: Path) -> None:
        self._process = process
        self._cipher = cipher
        self._folder = folder
        self._spent_ms = 0
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(self._broken())

    @classmethod
    async def open(cls, folder: Path, size: int, before: Sequence[str] = ()) -> "Disk":
        """An empty disk of that size. It dies with the calling thread, which is to be the loop's.

        Args:
            folder: ours; made, and gone after `close`. What encrypted bytes there are lie here.
            before: a command line that runs another, `taskset -c 0,1`.

        Raises:
            NoDisk.
        """
        missing = obstacle()
        if missing is not None:
            raise missing
        _prepare(folder)
        env = {"PATH": f"{os.environ.get('PATH', '')}:{TOOLS}"}
        program = shutil.which("gocryptfs", path=env["PATH"]) or "gocryptfs"
        words = [sys.executable, "-I", "-S", diskkeeper.__file__, str(folder), str(max(size, LEAST_BYTES))]
        try:
            process = await asyncio.create_subprocess_exec(
                *before,
                *words,
                str(PLACE),
                program,
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=env,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            async with asyncio.timeout(READY_S):
                said = await _heard(process)
            if said.said != "ready":
                raise NoDisk(said.why or "the disk's keeper ended")
        except TimeoutError:
            await to_its_end(_ended(process, folder))
            raise NoDisk(f"it wasn't ready after {READY_S:.0f} s") from None
        except BaseException:
            await to_its_end(_ended(process, folder))
            raise
        return cls(process, said.cipher, folder)

    @property
    def enter(self) -> tuple[str, ...]:
        """A command line that runs another where the disk is mounted, on `PLACE`."""
        return ("nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt")

    def processes(self) -> list[int]:
        """That carry it."""
        return [self._process.pid, self._cipher]

    def cpu_ms(self) -> int:
        """Processor time of what encrypts it, so far: its tenant's doing."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            words = Path(f"/proc/{self._cipher}/stat").read_text().rpartition(")")[2].split()
            self._spent_ms = (int(words[11]) + int(words[12])) * 1000 // TICKS_S
        return self._spent_ms

    async def _broken(self) -> None:
        said = await _heard(self._process)
        if not self.ended.done():
            self.ended.set_result(said.why or "the disk's keeper ended")

    async def close(self) -> None:
        """The key is gone, then the disk, though this is cancelled meanwhile. Whoever works on it is to be dead before."""
        self._watch.cancel()
        self.ended.cancel()
        await to_its_end(_ended(self._process, self._folder))


def _prepare(folder: Path) -> None:
    STAGE.mkdir(exist_ok=True)
    STAGE.chmod(0o755)  # Whatever our umask is: the tenant's user goes through here.
    PLACE.mkdir(mode=0o755, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)


async def _heard(process: asyncio.subprocess.Process) -> _Said:
    assert process.stdout is not None
    line = await process.stdout.readline()
    try:
        return msgspec.json.decode(line, type=_Said)
    except msgspec.MsgspecError:
        return _Said("ended")


async def _ended(process: asyncio.subprocess.Process, folder: Path) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(ENDS_S):
            await process.wait()
    except TimeoutError:
        # With what encrypts: a keeper that waits for it hears no signal before it is gone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDS_S):
                await process.wait()
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
