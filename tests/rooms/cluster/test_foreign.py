"""Foreign processes on a rented machine: who counts, who doesn't, and from when."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from clusterai.work.cluster.adapters.processes import sample
from clusterai.work.cluster.core.foreign import Sample, foreign


def process(pid: int, cpu_ms: int, name: str = "miner", parent: int = 1, started: int = 5) -> Sample:
    return Sample(pid=pid, parent=parent, started=started, name=name, cpu_ms=cpu_ms)


def names(before: Sequence[Sample], now: Sequence[Sample], elapsed_ms: int = 1000) -> list[str]:
    return [it.name for it in foreign(before, now, elapsed_ms, {100}, {"sshd"})]


def test_who_burns_time_beside_the_tenant_is_foreign():
    """More than 2 % of a core since the sample before counts, less doesn't, and what was used before the stay doesn't either."""
    before = [process(7, 90_000), process(8, 90_000, "cron")]
    assert names(before, [process(7, 90_020), process(8, 90_019, "cron")]) == ["miner"]
    assert names(before, before) == []


def test_the_tenant_the_node_and_their_children_are_not_foreign():
    """Descent counts, however long, and so does the owner's list; kernel threads are the machine itself."""
    now = [
        process(100, 500, "clusterai", parent=1),
        process(101, 500, "wireguard-go", parent=100),
        process(102, 500, "deep", parent=101),
        process(9, 500, "sshd"),
        Sample(pid=3, parent=2, started=1, name="kworker", cpu_ms=500, kernel=True),
    ]
    assert names([], now) == []


def test_a_number_that_is_used_again_is_another_process():
    """What a new process used is not set off against its predecessor's time, and parents in a circle end the search."""
    assert names([process(7, 90_000)], [process(7, 300, "late", parent=7, started=6)]) == ["late"]
    assert names([process(7, 0)], [process(7, 300)], elapsed_ms=0) == []


def test_a_burning_process_of_this_machine_is_seen():
    """/proc tells of a process that isn't ours, with its name and its time."""
    program = "while True: pass"
    started = subprocess.run(
        ["setsid", "sh", "-c", 'exec "$0" -S -c "$1" >/dev/null 2>&1 & echo $!', sys.executable, program],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    pid = int(started.stdout)
    try:
        before = sample()
        now = before
        while not any(it.pid == pid and it.cpu_ms >= 100 for it in now):
            now = sample()
        assert pid in {it.pid for it in foreign((), now, 1000, {os.getpid()}, ())}
        assert os.getpid() in {it.pid for it in now}
    finally:
        os.kill(pid, signal.SIGKILL)
