"""Why did it end? One pure judgement over what the host saw, so that a tenant is told the same true reason everywhere.

What the host did comes first: a process that it killed for its memory ends by a signal too, and "failed(137)" would be a
lie. Then what the kernel counted. Only then what the tenant's own exit code says.
"""

import msgspec

from clusterai.sandbox.core.spec import Limits, Reason


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a running task at one moment."""

    wall_ms: int = 0
    cpu_ms: int = 0
    memory_bytes: int = 0
    oom_kills: int = 0
    refused_forks: int = 0
    processes: int = 0
    disk_bytes: int = 0
    disk_free_bytes: int = 4096
    files: int = 0
    output_bytes: int = 0


PAGE = 4096


def exceeded(seen: Sight, limits: Limits) -> Reason | None:
    """The limit that is met, if one is: the task is ended at once and for that reason."""
    if seen.oom_kills or seen.memory_bytes > limits.memory_bytes:
        return Reason.OUT_OF_MEMORY
    if seen.refused_forks or seen.processes > limits.processes:
        return Reason.TOO_MANY_PROCESSES
    if seen.output_bytes > limits.output_bytes:
        return Reason.TOO_MUCH_OUTPUT
    if seen.files > limits.files:
        return Reason.OUT_OF_DISK
    if seen.cpu_ms >= limits.cpu_s * 1000:
        return Reason.OUT_OF_CPU
    if seen.wall_ms >= limits.wall_s * 1000:
        return Reason.OUT_OF_TIME
    return None


def judge(last: Sight, limits: Limits, exit_code: int, killed_for: Reason | None) -> Reason:
    """The reason of an end.

    Args:
        last: as seen when all processes were gone.
        exit_code: the program's own, 128 + signal if it died by one.
        killed_for: why the host ended it, if it did.
    """
    if killed_for is not None:
        return killed_for
    met = exceeded(last, limits)
    if met in (Reason.OUT_OF_TIME, Reason.OUT_OF_CPU) and exit_code == 0:
        met = None  # It was done before we came to end it.
    if met is not None:
        return met
    if exit_code == 0:
        return Reason.FINISHED
    # A write past the volume's end fails inside the program, where we don't see it. A full volume and a failure: that is why.
    if last.disk_free_bytes < PAGE:
        return Reason.OUT_OF_DISK
    return Reason.FAILED


def explain(reason: Reason, limits: Limits, exit_code: int) -> str:
    """One sentence for the tenant, with the number that was met."""
    match reason:
        case Reason.FINISHED:
            return ""
        case Reason.FAILED:
            if exit_code > 128:
                return f"the program ended by signal {exit_code - 128}"
            return f"the program ended with code {exit_code}"
        case Reason.OUT_OF_MEMORY:
            return (
                f"it used more than memory_bytes = {limits.memory_bytes}: ask for more, or hold less at once"
            )
        case Reason.OUT_OF_TIME:
            return f"it ran longer than wall_s = {limits.wall_s}: ask for more, or cut the work into parts"
        case Reason.OUT_OF_CPU:
            return f"it used more than cpu_s = {limits.cpu_s} seconds of processor time: ask for more"
        case Reason.OUT_OF_DISK:
            return (
                f"its volume held more than disk_bytes = {limits.disk_bytes} or files = {limits.files}: "
                "ask for more, or delete what is not needed"
            )
        case Reason.TOO_MANY_PROCESSES:
            return f"it started more than processes = {limits.processes}, threads counted: ask for more"
        case Reason.TOO_MUCH_OUTPUT:
            return f"it printed more than output_bytes = {limits.output_bytes}: ask for more, or write files into out"
        case Reason.OUT_OF_FUEL:
            return f"it ran more than fuel = {limits.fuel} instructions: ask for more"
        case Reason.CANCELLED:
            return "its tenant cancelled it"
        case Reason.LEASE_ENDED:
            return "its lease ended while it ran"
        case Reason.TRAPPED | Reason.REFUSED:
            return ""
