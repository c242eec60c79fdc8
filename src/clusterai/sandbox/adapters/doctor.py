"""What of the sandbox works on this machine: rows of what was found, and the cure where something is missing.

    python -m clusterai.sandbox            or: doctor(folder)

Everything is tried for real, with a program of ours; nothing is changed.
"""

import asyncio
import contextlib
import platform
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec

from clusterai.sandbox.adapters.front import Kind, Sandbox
from clusterai.sandbox.adapters.native import NativeRunner, find_bwrap
from clusterai.sandbox.adapters.store import BlobStore
from clusterai.sandbox.adapters.volume import MEMORY, memory_bytes, swap_is_encrypted
from clusterai.sandbox.core.spec import Limits, MiB, RootFs, Task

REINSTALL = "apt-get install --reinstall bubblewrap, or pip install 'clusterai[sandbox]'; docs/explanation/sandbox.md says what it needs"
LEAST_MEMORY_BYTES = 1 << 30


class Row(msgspec.Struct, frozen=True):
    """`state`: green is right, yellow works with a limit, red doesn't work until it is cured."""

    name: str
    state: Literal["green", "yellow", "red"]
    found: str
    cure: str = ""


def doctor(folder: Path | None = None) -> list[Row]:
    """Rows for the walls, control groups, WASM, containers and volumes.

    Args:
        folder: where the node keeps its runs; a temporary one by default.
    """
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(TemporaryDirectory(prefix="clusterai-doctor-")))
        store = BlobStore(place / "doctor-store")
        box = Sandbox(store, place / "doctor")
        rows = [_walls(box), *_counting(box)]
        rows += [_images(box, "wasm", "red"), _images(box, "container", "yellow"), _volume()]
        for made in (place / "doctor-store", place / "doctor"):
            shutil.rmtree(made, ignore_errors=True)
        return rows


def _images(box: Sandbox, kind: Kind, absent: Literal["yellow", "red"]) -> Row:
    runner = box.runners.get(kind)
    if runner is not None:
        return Row(f"{kind} images", "green", runner.name)
    refusal = box.refusals[kind]
    return Row(f"{kind} images", absent, refusal.why, refusal.cure or REINSTALL)


def _walls(box: Sandbox) -> Row:
    native = box.runners.get("root")
    if native is None:
        refusal = box.refusals["root"]
        return Row("walls", "red", refusal.why, refusal.cure or REINSTALL)
    task = Task(
        image=RootFs("python"),
        argv=("sh", "-c", "test ! -e /etc/shadow && ls /proc/self/fd | wc -l"),
        limits=Limits(memory_bytes=64 * MiB, wall_s=30),
    )
    outcome = asyncio.run(native.run(task))
    bwrap = find_bwrap()
    version = (
        subprocess.run([str(bwrap), "--version"], capture_output=True, check=False).stdout.decode().strip()
    )
    if not outcome.ok:
        return Row("walls", "red", f"{version}: {outcome.reason}: {outcome.why}", REINSTALL)
    return Row("walls", "green", f"{native.name}, {version}, {platform.machine()}")


def _counting(box: Sandbox) -> list[Row]:
    native = box.runners.get("root")
    if not isinstance(native, NativeRunner):
        return []
    rows: list[Row] = []
    if native.groups is not None:
        rows.append(Row("control groups", "green", f"version {native.groups.version}"))
    else:
        why, _, cure = native.no_groups_because.partition(": ")
        found = f"{why}; limits are held by rlimits and by looking every 50 ms, processor shares not at all"
        rows.append(Row("control groups", "yellow", found, cure))
    if native.privileged:
        rows.append(Row("users", "green", "each task has a user id of its own"))
    else:
        rows.append(
            Row(
                "users",
                "yellow",
                "tasks run as the node's own user, inside their namespaces",
                "run the node as root",
            )
        )
    return rows


def _volume(memory: Path = MEMORY) -> Row:
    cure = f"mount -t tmpfs tmpfs {memory} (in a container: --shm-size=2g)"
    if not memory.is_dir() or not memory_bytes(memory):
        return Row(
            "lease volumes", "red", f"{memory} is no memory file system: inputs can't be laid out", cure
        )
    if (size := memory_bytes(memory)) < LEAST_MEMORY_BYTES:
        found = f"inputs of running tasks are laid out in {memory}, which holds {size >> 20} MiB"
        return Row("lease volumes", "yellow", found, cure)
    encrypted = swap_is_encrypted()
    if encrypted is False:
        return Row(
            "lease volumes",
            "yellow",
            "encrypted on disk, but memory may be swapped to a disk in the clear",
            "swapoff -a, or put swap on an encrypted device",
        )
    return Row("lease volumes", "green", "encrypted on disk; no memory reaches a disk in the clear")
