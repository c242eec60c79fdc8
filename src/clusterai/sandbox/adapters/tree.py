"""A task's processes counted from /proc, where no control group counts them."""

import os
import re
from pathlib import Path

import msgspec

_HELD = re.compile(r"^Rss(?:Anon|Shmem):\s*(\d+) kB$", re.MULTILINE)
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Tree(msgspec.Struct, frozen=True):
    memory_bytes: int = 0
    """Of all of them: private, and shared without a file. What several share counts for each."""
    cpu_ms: int = 0
    processes: int = 0
    """Threads counted."""


def count(root: int) -> Tree:
    """Everything below process `root`, which is the first of its PID namespace, so that nothing can leave the tree."""
    memory = ticks = threads = 0
    todo = [root]
    while todo:
        process = todo.pop()
        folder = Path(f"/proc/{process}")
        try:
            status = (folder / "status").read_text()
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            todo += [int(child) for child in (folder / f"task/{process}/children").read_text().split()]
        except OSError:
            continue  # It ended between two reads.
        memory += sum(int(size) for size in _HELD.findall(status)) * 1024
        ticks += sum(int(field) for field in fields[11:15])
        threads += int(fields[17]) if process != root else 0
    return Tree(memory, ticks * 1000 // TICKS, threads)
