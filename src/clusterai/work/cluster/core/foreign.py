"""Who else used a rented machine: processes that are neither the tenant's, nor the node's, nor on its owner's list.

An owner who forgot a job on the machine is told so at once, and the renter sees it in the heartbeats. It is the machine's own word, and
names can be forged: against an owner who means to steal time stands the sentinel, whose chains can't be.
"""

from collections.abc import Collection, Iterable

import msgspec

ANYBODY = "*"
THRESHOLD_MILLI = 20
"""Thousandths of a core: 2 % of one; what a machine's own upkeep takes lies below."""


class Sample(msgspec.Struct, frozen=True):
    """One process at one time.

    Attributes:
        started: in the kernel's own ticks; a number that is used again is another process.
        name: of its program, as the kernel has it (15 characters).
        kernel: a thread of the kernel's.
        cpu_ms: since it began.
    """

    pid: int
    parent: int
    started: int
    name: str
    cpu_ms: int
    kernel: bool = False


def foreign(
    before: Iterable[Sample],
    now: Iterable[Sample],
    elapsed_ms: int,
    ours: Collection[int],
    allowed: Collection[str],
    threshold_milli: int = THRESHOLD_MILLI,
) -> tuple[Sample, ...]:
    """The processes that used more than the threshold since the sample before.

    Args:
        ours: numbers of the tenant's, the sentinel's and the node's processes; with them go all that descend from them.
        allowed: names on the owner's list; with `*` on it the machine is shared on purpose, and nobody is counted.
    """
    if elapsed_ms <= 0 or ANYBODY in allowed:
        return ()
    known = {(it.pid, it.started): it.cpu_ms for it in before}
    seen = list(now)
    parents = {it.pid: it.parent for it in seen}
    found: list[Sample] = []
    for it in seen:
        used_ms = it.cpu_ms - known.get((it.pid, it.started), 0)
        if used_ms * 1000 < threshold_milli * elapsed_ms or it.kernel or it.name in allowed:
            continue
        # Of a process that was there before us only what it used since counts; of a new one all.
        if not descends(it.pid, parents, ours):
            found.append(it)
    return tuple(found)


def descends(pid: int, parents: dict[int, int], ours: Collection[int]) -> bool:
    """Whether a process is one of ours, or came of one."""
    for _ in range(64):
        if pid in ours:
            return True
        pid = parents.get(pid, 0)
    return False
