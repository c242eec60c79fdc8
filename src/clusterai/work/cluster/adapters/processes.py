"""All processes of this machine, as /proc has them."""

import contextlib
import os
from pathlib import Path

from clusterai.work.cluster.core.foreign import Sample

TICK_MS = 1000 // (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)
KTHREADD = 2
PROC = Path("/proc")


def sample(proc: Path = PROC) -> tuple[Sample, ...]:
    """Takes some 20 µs a process."""
    found: list[Sample] = []
    for entry in os.scandir(proc):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            head, _, tail = Path(entry.path, "stat").read_text().rpartition(")")
            # Counted from the state, which is field 3 of proc(5).
            words = tail.split()
            parent = int(words[1])
            found.append(
                Sample(
                    pid=int(entry.name),
                    parent=parent,
                    started=int(words[19]),
                    name=head.partition("(")[2],
                    cpu_ms=(int(words[11]) + int(words[12])) * TICK_MS,
                    kernel=parent == KTHREADD or entry.name == str(KTHREADD),
                )
            )
    return tuple(found)


def parent(pid: int) -> int:
    """Of a process; 0 where it is gone."""
    words = _words(pid)
    return int(words[1]) if words else 0


def stopped(pid: int) -> bool | None:
    """Whether a signal made it stand still; None where it is gone, or about to be."""
    words = _words(pid)
    return None if not words or words[0] in "ZX" else words[0] == "T"


def _words(pid: int) -> list[str]:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
