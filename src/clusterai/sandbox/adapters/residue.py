"""What lies in memory in the clear for a program that runs, and who takes it away when its process is killed.

Everything of that kind lies in `/dev/shm/clusterai-PID-NAMESPACE-…`. A process that ends in order removes its own. For one that is killed there are two:

    guard   a child of it, in a session of its own, that waits for its parent's death and then removes what bears its number: in milliseconds
    sweep   whenever one of ours begins that lays something out, or a doctor looks: what belongs to no process, or to one that began later

The guard dies too where all of a control group or a container is killed at once; then it is the next start that sweeps.

A number says who lives only within its own process namespace: containers that share the memory folder don't judge each other's, and what such a container leaves is for its next start.
"""

import os
import shutil
from functools import lru_cache
from pathlib import Path

from clusterai.sandbox.adapters.volume import MEMORY

_WAITS = 'trap "" HUP INT TERM QUIT; read -r _; rm -rf -- "$0"-*'
"""Of the guard; its pipe ends when the process that holds the other end does, however that came."""
CLOCK_S = 10.0
"""By so much the clock may have been set since."""
_guarded = 0


def mark() -> str:
    """This process among all of this machine's, also where containers count their own."""
    return f"{os.getpid()}-{namespace()}-"


@lru_cache
def namespace() -> int:
    """In which this process has its number. A child made by fork is in the same one."""
    return Path("/proc/self/ns/pid").stat().st_ino


def prefix() -> str:
    return f"clusterai-{mark()}"


def guard(memory: Path = MEMORY) -> None:
    """See to it that what this process lays out goes when it is killed. Once for a process, however often it is called."""
    global _guarded
    if _guarded == os.getpid():
        return
    _guarded = os.getpid()
    reads, holds = os.pipe()  # `holds` stays open until the process dies, and no child gets it
    try:
        os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _WAITS, str(memory / prefix()).removesuffix("-")],
            {"PATH": "/usr/bin:/bin"},
            file_actions=[(os.POSIX_SPAWN_DUP2, reads, 0)],
            setsid=True,
        )
    except BaseException:
        os.close(holds)
        raise
    finally:
        os.close(reads)


def left(memory: Path = MEMORY, booted_s: float | None = None) -> list[Path]:
    """Folders of processes that are gone, as far as they had their numbers in this namespace.

    Args:
        booted_s: when this machine did, from which processes' ages count; None: as the kernel says.
    """
    since_s = _booted_s() if booted_s is None else booted_s
    return [
        it for it in sorted(memory.glob(f"clusterai-[0-9]*-{namespace()}-*")) if not _is_owned(it, since_s)
    ]


def sweep(memory: Path = MEMORY) -> int:
    """Remove them; how many there were."""
    found = left(memory)
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    return len(found)


def _is_owned(folder: Path, booted_s: float) -> bool:
    """Whether the process whose number it bears lives, and began before the folder was made: numbers are given again."""
    try:
        told = Path("/proc", folder.name.split("-")[1], "stat").read_text()
        began_s = booted_s + int(told.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return began_s <= folder.stat().st_ctime + CLOCK_S
    except (OSError, ValueError, IndexError):
        return False


def _booted_s() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
