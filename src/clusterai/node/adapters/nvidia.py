"""NVIDIA's GPUs, as the driver's own program tells of them.

`nvidia-smi` and not NVML: it comes with every driver, needs no package of ours, and a driver that hangs hangs a child
process with a deadline instead of the node.
"""

import shutil
import subprocess
from pathlib import Path

import msgspec

ASK_S = 15.0
_FIELDS = "index,name,driver_version,memory.total,power.limit,power.min_limit,power.max_limit"


class Gpu(msgspec.Struct, frozen=True):
    """One GPU; watts are None where the card doesn't tell them."""

    index: int
    name: str
    driver: str
    memory_bytes: int
    limit_w: float | None
    least_w: float | None
    most_w: float | None


class NoDriver(Exception):
    """There is a GPU, and its driver doesn't answer: {why}."""


def gpus() -> tuple[Gpu, ...]:
    """None where there is no such GPU.

    Raises:
        NoDriver: there is one that can't be used.
    """
    program = shutil.which("nvidia-smi")
    device = Path("/proc/driver/nvidia").exists() or Path("/dev/nvidiactl").exists()
    if program is None:
        if device:
            raise NoDriver("its kernel module is loaded, and its library and nvidia-smi aren't installed")
        return ()
    try:
        said = _ask(program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits")
    except NoDriver as error:
        if "No devices were found" in str(error):
            return ()
        raise
    return parsed(said)


def parsed(said: str) -> tuple[Gpu, ...]:
    """
    Raises:
        NoDriver: the program said something else than what was asked.
    """
    found: list[Gpu] = []
    for line in said.splitlines():
        values = [value.strip() for value in line.split(",")]
        try:
            index, name, driver, memory, *watts = values
            limit, least, most = map(_watts, watts)
            found.append(Gpu(int(index), name, driver, int(float(memory)) * 1024**2, limit, least, most))
        except ValueError:
            raise NoDriver(f"nvidia-smi said {line[:200]!r}") from None
    return tuple(found)


def limit(gpu: Gpu, watts: float) -> None:
    """Set its power limit.

    Raises:
        NoDriver: it refuses; it takes root, or the capability to administrate it.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise NoDriver("nvidia-smi isn't installed")
    _ask(program, "-i", str(gpu.index), "-pl", f"{watts:g}")


def _watts(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # "[N/A]": the card has no such limit


def _ask(program: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoDriver(str(error)) from None
    if done.returncode:
        raise NoDriver(
            (done.stdout + done.stderr).strip()[:300] or f"nvidia-smi ended with {done.returncode}"
        )
    return done.stdout
