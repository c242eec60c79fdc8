"""A tenant's encrypted disk: of fixed size, seen by its tenant alone, noise for everybody else, gone with its key."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clusterai.sandbox import (
    PLACE,
    BlobStore,
    Cell,
    Disk,
    Limits,
    NativeRunner,
    NoDisk,
    RootFs,
    Task,
    obstacle,
)
from clusterai.sandbox.adapters import diskkeeper, native

MiB = 1 << 20
SIZE = 64 * MiB
MARK = b"the tenant's own words, and nobody else's"

TENANT = """
import os, shutil, sys

for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "write":
        with open("/job/words", "w") as file:
            file.write(rest * 1000)
            file.flush()
            os.fsync(file.fileno())
        print("written")
    elif word == "read":
        print(open("/job/words").read(int(rest)) if os.path.exists("/job/words") else "nothing")
    elif word == "fill":
        written = 0
        try:
            with open("/job/much", "wb") as file:
                while True:
                    written += file.write(os.urandom(1 << 20))
                    file.flush()
        except OSError as error:
            print(written >> 20, error.strerror)
        os.unlink("/job/much") if rest else None
    elif word == "about":
        kind = [it.split()[2] for it in open("/proc/mounts") if it.split()[1] == "/job"][0]
        print(kind, shutil.disk_usage("/job").total >> 20, os.stat("/job").st_uid, os.environ["TMPDIR"])
    sys.stdout.flush()
"""


@asynccontextmanager
async def tenant(folder: Path, size: int = SIZE) -> AsyncGenerator[tuple[Disk, Cell]]:
    disk = await Disk.open(folder / "disk", size)
    try:
        runner = NativeRunner(BlobStore(folder / "store"), folder)
        root = native.host_python()
        task = Task(
            image=RootFs("python"),
            argv=(sys.executable, "-I", "-S", "-u", "-c", TENANT),
            limits=Limits(memory_bytes=256 * MiB, processes=16),
        )
        cell = await Cell.open(runner, task, root, before=disk.enter, disk=PLACE)
        try:
            yield disk, cell
        finally:
            await cell.close()
    finally:
        await disk.close()


async def ask(cell: Cell, line: str) -> str:
    cell.say(line.encode())
    async with asyncio.timeout(120):
        return (await cell.hear()).decode().strip()


def loops(folder: Path) -> list[str]:
    """Files in `folder` that a loop device holds; others on this machine are somebody else's."""
    held: list[str] = []
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # it was let go meanwhile
            held.append(device.read_text().strip())
    return [it for it in held if it.startswith(f"{folder}/")]


def lives(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(what: str, is_so: "object") -> None:
    assert callable(is_so)
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, what


def test_a_tenant_has_a_disk_of_its_own(tmp_path: Path):
    """The volume is an ext4 of the size that was asked for, the tenant's own, and no mount of it is seen by the rest of the machine."""

    async def seen() -> str:
        async with tenant(tmp_path) as (_, cell):
            said = await ask(cell, "about")
            assert not list(PLACE.iterdir())
            return said

    kind, size, owner, tmp = asyncio.run(seen()).split()
    assert (kind, owner, tmp) == ("ext4", "1000", "/job/tmp")
    assert 56 <= int(size) <= 64


def test_what_is_on_the_machines_disk_is_noise(tmp_path: Path):
    """What a tenant wrote and synced is nowhere in what the machine's disk holds of it, nor does the key lie there."""

    async def kept() -> bytes:
        async with tenant(tmp_path) as (_, cell):
            assert await ask(cell, f"write {MARK.decode()}") == "written"
            assert (await ask(cell, f"read {len(MARK)}")).encode() == MARK
            assert [it.name for it in (tmp_path / "disk" / "cipher").iterdir()] == ["disk"]
            return (tmp_path / "disk" / "cipher" / "disk").read_bytes()

    found = asyncio.run(kept())
    assert len(found) > SIZE
    assert MARK not in found
    assert b"lost+found" not in found


def test_a_disk_holds_no_more_than_its_size(tmp_path: Path):
    """Who writes on is told that the disk is full, and has it again when it removed something; the machine's disk gives no more."""

    async def filled() -> tuple[str, str]:
        async with tenant(tmp_path) as (_, cell):
            first = await ask(cell, "fill and remove")
            assert (tmp_path / "disk" / "cipher" / "disk").stat().st_size < SIZE * 1.02
            return first, await ask(cell, "fill")

    for said in asyncio.run(filled()):
        written, _, why = said.partition(" ")
        assert 50 <= int(written) <= 64
        assert why == "No space left on device"


def test_two_tenants_see_nothing_of_each_other(tmp_path: Path):
    """Disks open at the same time, at the same place, are two disks; one opened after another is empty."""

    async def seen() -> tuple[str, str]:
        async with tenant(tmp_path / "one") as (_, one), tenant(tmp_path / "two") as (_, two):
            await ask(one, f"write {MARK.decode()}")
            beside = await ask(two, "read 10")
        async with tenant(tmp_path / "one") as (_, after):
            return beside, await ask(after, "read 10")

    assert asyncio.run(seen()) == ("nothing", "nothing")


def test_nothing_of_a_disk_is_left(tmp_path: Path):
    """Closed, with data that was never synced, it leaves no process, no loop device and no file."""

    async def used() -> list[int]:
        async with tenant(tmp_path) as (disk, cell):
            await ask(cell, "fill")
            assert loops(tmp_path)
            return disk.processes()

    pids = asyncio.run(used())
    assert not [it for it in pids if lives(it)]
    until("loop devices", lambda: not loops(tmp_path))
    assert not (tmp_path / "disk").exists()


def test_nothing_is_left_of_a_disk_whose_end_is_cancelled(tmp_path: Path):
    """A daemon that closes cancels what is being cancelled: while a disk is opened or closed, that leaves no process and no file."""
    folder = tmp_path / "disk"

    async def cancelled_as_it_ends(task: "asyncio.Task[Disk] | asyncio.Task[None]") -> None:
        for _ in range(2):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not folder.exists(), "it is told when it is over"

    async def test() -> list[int]:
        never_ready = ("sh", "-c", 'mkdir "$0/up"; exec cat', str(folder))
        opening = asyncio.create_task(Disk.open(folder, SIZE, never_ready))
        await asyncio.to_thread(until, "its keeper", (folder / "up").exists)
        opening.cancel()
        await cancelled_as_it_ends(opening)
        disk = await Disk.open(folder, SIZE)
        await cancelled_as_it_ends(asyncio.create_task(disk.close()))
        return disk.processes()

    assert not [it for it in asyncio.run(test()) if lives(it)]
    until("loop devices", lambda: not loops(tmp_path))


def test_processor_time_of_encryption_is_told(tmp_path: Path):
    """What encrypting took is known to whoever counts the tenant's time."""

    async def used() -> int:
        async with tenant(tmp_path) as (disk, cell):
            before = disk.cpu_ms()
            for _ in range(4):
                await ask(cell, "fill and remove")
            return disk.cpu_ms() - before

    assert asyncio.run(used()) > 0


def test_a_disk_that_breaks_says_so(tmp_path: Path):
    """When what encrypts it dies, its owner hears why, and it can be closed all the same."""

    async def broken() -> str:
        async with tenant(tmp_path) as (disk, cell):
            await ask(cell, "fill")
            os.kill(disk.processes()[1], signal.SIGKILL)
            async with asyncio.timeout(120):
                return await disk.ended

    assert asyncio.run(broken()) == "gocryptfs ended"


DAEMON = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from tests.rooms.sandbox.test_encrypted_disk import ask, tenant

async def main():
    async with tenant(Path(sys.argv[1])) as (disk, cell):
        await ask(cell, "fill")
        print(*disk.processes(), *cell.processes(), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_killed_node_takes_the_key_with_it(tmp_path: Path):
    """`kill -9` in the middle of writing ends all that held the key, the mount and the loop device; what is left is noise."""
    root = str(Path(__file__).parents[3])
    words = [sys.executable, "-c", DAEMON, str(tmp_path), root]
    daemon = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert daemon.stdout
    pids = [int(it) for it in daemon.stdout.readline().split()]
    assert len(pids) >= 4
    daemon.kill()
    daemon.communicate()
    until("processes", lambda: not [it for it in pids if lives(it)])
    until("loop devices", lambda: not loops(tmp_path))
    left = [it for it in (tmp_path / "disk").rglob("*") if it.is_file()]
    assert [it.name for it in left] == ["disk"]


def test_what_is_missing_is_named_with_its_cure(tmp_path: Path):
    """A machine without gocryptfs says so and how to get it; one with all of it says nothing."""
    missing = obstacle(path=str(tmp_path))
    assert missing is not None
    assert missing.cure == "apt-get install gocryptfs"
    (tmp_path / "gocryptfs").touch(0o755)
    half = obstacle(path=str(tmp_path))
    assert half is not None
    assert half.cure == "apt-get install fuse3", "gocryptfs comes without what it mounts by"
    assert obstacle() is None


def test_a_disk_that_is_larger_than_the_machines_is_refused(tmp_path: Path):
    """All of it is taken at once: nobody rents a disk that isn't there."""
    with pytest.raises(NoDisk, match="no space for"):
        asyncio.run(Disk.open(tmp_path / "disk", 1 << 50))
    assert not (tmp_path / "disk").exists()


def test_the_keeper_goes_when_its_parent_already_went(tmp_path: Path):
    """A keeper whose node died before it began does nothing."""
    words = [
        sys.executable,
        "-I",
        "-S",
        diskkeeper.__file__,
        str(tmp_path),
        str(SIZE),
        str(PLACE),
        "gocryptfs",
        "1",
    ]
    done = subprocess.run(words, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert not list(tmp_path.iterdir())
