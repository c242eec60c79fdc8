"""What this machine seems to be, for its claims: cores, memory, disk, the processor's level, cards as the driver tells them.

All of it is claimed: a validator's tests say what is true.
"""

import functools
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from clusterai.node.adapters.offering import hardware_class
from clusterai.node.config import RentalsConfig
from clusterai.protocol.measuring import Claims, Gpu
from clusterai.work.cluster.core.cards import class_of, is_named

NVIDIA_S = 5.0


def cores() -> list[int]:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def memory_bytes() -> int:
    """Of the whole machine; 0 where the system doesn't tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal"))
    except (OSError, StopIteration):
        return 0


def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return printable(platform.processor())
    return printable(
        next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    )


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """What NVIDIA's driver tells through its own tool; none where that isn't there."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=name,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parsed_gpus(done.stdout)


def parsed_gpus(said: str) -> tuple[Gpu, ...]:
    """Lines of name, uuid, MiB; those of another shape are passed over. Cards are named as renters ask for them."""
    found: list[Gpu] = []
    for line in said.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and parts[2].isdigit():
            found.append(Gpu(class_of(parts[0]), printable(parts[1]), int(parts[2]) * 1024**2))
    return tuple(found)


def lent_gpus(rentals: RentalsConfig) -> tuple[Gpu, ...]:
    """Those that a renter gets, under the name by which they are offered."""
    found = gpus()
    if rentals.cards:
        found = tuple(it for at, it in enumerate(found) if is_named(at, it.uuid, rentals.cards))
    return tuple(
        Gpu(rentals.gpu or it.name, it.uuid, it.memory_bytes) for it in found[: min(16, rentals.gpus)]
    )


def claims(folder: Path, rentals: RentalsConfig | None, serial: int) -> Claims:
    """
    Args:
        folder: on the disk that is lent.
        rentals: what is offered; where nothing is, the whole machine is what it says it is.
        serial: of the newest offer.
    """
    here = len(cores())
    disk_bytes = shutil.disk_usage(folder).free
    if rentals is None:
        return Claims(
            0,
            hardware_class(),
            processor(),
            here,
            1000 * here,
            memory_bytes(),
            disk_bytes,
            gpus()[:16],
            "",
            0,
        )
    return Claims(
        serial=serial,
        hardware=rentals.hardware or hardware_class(),
        processor=processor(),
        cores=max(1, min(here, -(-rentals.cpu_milli // 1000))),
        cpu_milli=rentals.cpu_milli,
        memory_bytes=rentals.memory_bytes,
        disk_bytes=min(disk_bytes, rentals.disk_bytes),
        gpus=lent_gpus(rentals),
        region=rentals.region,
        bandwidth_kbps=rentals.bandwidth_kbps,
        memory_kbytes_per_s=rentals.memory_kbytes_per_s,
    )


def printable(text: str) -> str:
    return re.sub(r"[^ -~]", "?", text)[:64]
