"""All processes of this machine, as /proc has them."""

import contextlib
import os
from pathlib import Path

from clusterai.work.cluster.core.foreign import Sample

TICK_MS = 1000 // os.sysconf("SC_CLK_TCK")
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
    try:
        return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
