"""Behind the walls of a rented machine: exactly the rented cards' device files, for a tenant who tries. No real card is behind these."""

import asyncio
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from clusterai.sandbox import Bind, BlobStore, Cell, Limits, NativeRunner, Root, RootFs, Task, host_python
from clusterai.sandbox.adapters import devicefilter
from clusterai.sandbox.adapters.cgroup import ControlGroups
from clusterai.sandbox.adapters.devicefilter import Device
from clusterai.work.cluster.core.granting import Grant, granted
from tests.rooms.cluster.fakecards import FAKE_MAJOR, UUIDS, Machine

UNIFIED = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
TENANT = """
import errno, json, os, socket, stat, sys

def tried(what, *words):
    try:
        what(*words)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def opened(path):
    os.close(os.open(path, os.O_RDWR))

told = {
    "dev": sorted(it for it in os.listdir("/dev") if it.startswith("nvidia") or it == "dri"),
    "open": {at: tried(opened, f"/dev/nvidia{at}") for at in range(4)},
    "ctl": tried(opened, "/dev/nvidiactl"),
    "null": tried(opened, "/dev/null"),
    "mknod": tried(os.mknod, "/job/mine", 0o666 | stat.S_IFCHR, os.makedev(MAJOR, 2)),
    "mknod in dev": tried(os.mknod, "/dev/nvidia2", 0o666 | stat.S_IFCHR, os.makedev(MAJOR, 2)),
    "unlink": tried(os.unlink, "/dev/nvidia1"),
    "rename": tried(os.rename, "/dev/nvidia1", "/dev/nvidia2"),
    "chmod": tried(os.chmod, "/dev/nvidia1", 0o600),
    "write library": tried(os.open, "/nvidia/libcuda.so.1", os.O_WRONLY),
    "library": open("/nvidia/libcuda.so.1").read(),
    "driver": sorted(os.listdir("/nvidia")),
    "cuda": os.environ["CUDA_VISIBLE_DEVICES"],
    "link": tried(os.link, "/dev/nvidia1", "/job/kept"),
}
print(json.dumps(told), flush=True)
sys.stdin.read()
"""


def opened(path: Path) -> str:
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


async def seen(root: Root, folder: Path) -> dict[str, object]:
    runner = NativeRunner(BlobStore(folder / "store"), folder, {"python": root})
    code = TENANT.replace("MAJOR", str(FAKE_MAJOR))
    task = Task(
        image=RootFs("python"),
        argv=("/usr/bin/env", "python3", "-I", "-S", "-c", code),
        limits=Limits(memory_bytes=256 << 20),
    )
    said: list[bytes] = []
    cell = await Cell.open(runner, task, root, on_log=said.append)
    try:
        assert cell.group.is_walled
        async with asyncio.timeout(60):
            line = await cell.hear()
        assert line, b"".join(said).decode()
        return msgspec.json.decode(line)
    finally:
        await cell.close()


def test_a_tenant_finds_the_rented_card_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Villain: a tenant who makes device files, and moves or opens others. The rented card's answers (there is none behind it: ENXIO)."""
    machine = Machine(tmp_path, 4, monkeypatch)
    taken = machine.cards(4, UUIDS[1]).take(1)
    told = asyncio.run(seen(taken.root(host_python()), tmp_path / "node"))
    assert taken.give_back() == ""
    assert told["dev"] == ["nvidia-uvm", "nvidia-uvm-tools", "nvidia1", "nvidiactl"]
    assert told["open"] == {"0": "ENOENT", "1": "ENXIO", "2": "ENOENT", "3": "ENOENT"}
    assert (told["ctl"], told["null"]) == ("ENXIO", "done")
    assert told["mknod"] == "EPERM"
    refused = {it: told[it] for it in ("mknod in dev", "unlink", "rename", "chmod", "write library", "link")}
    assert set(refused.values()) <= {"EROFS", "EPERM", "EACCES", "EXDEV", "EBUSY"}, refused
    assert told["library"] == "a library"
    assert told["driver"] == ["libcuda.so", "libcuda.so.1", "libcuda.so.570.86.15"]
    assert told["cuda"] == "0"


def test_a_tenant_without_cards_finds_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Though the machine has some."""
    Machine(tmp_path, 2, monkeypatch)
    plain = msgspec.structs.replace(host_python(), env={"CUDA_VISIBLE_DEVICES": ""})
    code = 'import os, json; print(json.dumps(sorted(os.listdir("/dev"))), flush=True); input()'

    async def main() -> list[str]:
        runner = NativeRunner(BlobStore(tmp_path / "store"), tmp_path / "node", {"python": plain})
        task = Task(image=RootFs("python"), argv=("/usr/bin/env", "python3", "-I", "-S", "-c", code))
        cell = await Cell.open(runner, task, plain)
        try:
            return json.loads(await cell.hear())
        finally:
            await cell.close()

    assert not [it for it in asyncio.run(main()) if "nvidia" in it]


LISTS = """
import json, os
def told(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return error.errno
print(json.dumps([told("/proc/sys/net"), bool(told("/proc/sys/net/core")), told("/sys/bus/pci/devices"), told("/sys/devices")]), flush=True)
input()
"""


def test_folders_that_tell_of_other_devices_are_emptied_but_for_ones_own(tmp_path: Path):
    """As the driver's list of all cards is: another folder of /proc stands for it. Of /sys the card's own part is there, where it is looked for."""
    place, processor = "/sys/bus/pci/devices/0000:01:00.0", "/sys/devices/system/cpu/cpu0"
    grant = Grant(1, (), (), system=(processor,), links=((processor, place),))
    root = msgspec.structs.replace(
        granted(host_python(), grant),
        emptied=("/proc/sys/net",),
        regained=(Bind("/proc/sys/net/core", "/proc/sys/net/core"),),
    )

    async def main() -> list[object]:
        runner = NativeRunner(BlobStore(tmp_path / "store"), tmp_path / "node", {"python": root})
        task = Task(image=RootFs("python"), argv=("/usr/bin/env", "python3", "-I", "-S", "-c", LISTS))
        cell = await Cell.open(runner, task, root)
        try:
            return json.loads(await cell.hear())
        finally:
            await cell.close()

    assert asyncio.run(main()) == [["core"], True, ["0000:01:00.0"], ["system"]]


PROBE = """
import errno, os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
for path in sys.argv[2:]:
    try:
        os.close(os.open(path, os.O_RDWR))
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
try:
    os.mknod(sys.argv[2] + ".made", 0o600 | 0o020000, os.stat(sys.argv[2]).st_rdev)
    print("done")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def probed(group: Path, *paths: Path) -> list[str]:
    """What a process in this group, as root and with the host's own /dev, gets of them; the last is of making one."""
    words = [sys.executable, "-I", "-S", "-c", PROBE, str(group), *map(str, paths)]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_the_kernel_refuses_other_device_files_to_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The second wall alone: even root that sees all device files opens the listed ones, and makes none."""
    machine = Machine(tmp_path, 2, monkeypatch)
    assert opened(machine.dev / "nvidia0") == opened(machine.dev / "nvidia1") == "ENXIO"
    groups = ControlGroups()
    listed = devicefilter.allowed([devicefilter.number_of(machine.dev / "nvidia1")])
    group = groups.make(f"{os.getpid()}-cards", Limits(), listed)
    try:
        assert group.is_walled
        found = probed(group.folders[-1], machine.dev / "nvidia0", machine.dev / "nvidia1", Path("/dev/null"))
        assert found == ["EPERM", "ENXIO", "done", "EPERM"]
    finally:
        group.close()


def test_the_program_of_version_two_refuses_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same by a program that the kernel runs at each open, in a group of the unified tree."""
    machine = Machine(tmp_path, 2, monkeypatch)
    tree = next(it for it in UNIFIED if (it / "cgroup.controllers").exists())
    group = tree / f"clusterai-test-{os.getpid()}"
    group.mkdir()
    try:
        number = devicefilter.number_of(machine.dev / "nvidia1")
        devicefilter.attach(group, devicefilter.allowed([number]))
        found = probed(group, machine.dev / "nvidia0", machine.dev / "nvidia1", Path("/dev/null"))
        assert found == ["EPERM", "ENXIO", "done", "EPERM"]
    finally:
        group.rmdir()


@pytest.mark.parametrize("minor", [7, devicefilter.ANY])
def test_the_lists_words_and_program_have_a_length_that_follows(minor: int):
    """A line or a few instructions for each device; block devices have none."""
    device = Device(195, minor)
    assert devicefilter.lines([device]) == [f"c 195:{'*' if minor < 0 else minor} rw"]
    assert len(devicefilter.program([device])) == 8 * (12 + (3 if minor < 0 else 4) + 1)
