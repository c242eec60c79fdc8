"""Stolen time, seen on real processes: a sentinel on every core, a tenant that works now and then, a thief with a duty cycle.

    python -m bench.timelock --overhead 8
    python -m bench.timelock --record FILE [--minutes 4] [--core-milli 300] [--thefts 0.1,0.05,0.02,0.01]
    python -m bench.timelock --record FILE --report

Spans of 20 s of every setting in turn (what is usual, honest, each theft) are played, each at another load, and every
interval is written to FILE at once. Stopped, or killed, it goes on where it was; the report is of all that FILE holds.

Other processes of the machine would all be thieves. So what is watched is a part of a core that a control group holds to its quota and,
by weight, gives before all others (`--core-milli 1000` for a whole quiet core): tenant, thief and sentinel share it, each
counted to the nanosecond by the kernel. What a busy machine still does to it, through caches and by being late, is in the honest spans too.

What a second of the sentinel is worth in links depends on the neighbours' caches as well. So all is reported twice: as it was, and as if each
second had been worth the same, which is what a quiet machine comes near to.

Reported: mean residual, the first alarm and conviction in all of a setting's intervals, one behind the other; then how often spans
of 1, 10 and 60 minutes raise the alarm, drawn from the recorded spans in blocks of a whole span: simulated from measured intervals.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from clusterai.audit.core.timelock import MILLION, Evidence, Interval, Profile, add, profiled, residual_ppm
from clusterai.sandbox.adapters.cgroup import ControlGroups, Group
from clusterai.sandbox.core.spec import Limits
from clusterai.work.cluster.inside import sentinel

CORES = sorted(os.sched_getaffinity(0))[-1:]
SPAN_S = 20.0
LOADS = (0.0, 0.2, 0.5, 0.8)
USUAL = "usual"


class Beat(msgspec.Struct):
    """One interval as it was, everything in seconds of processor time but the first.

    Attributes:
        setting: `usual`, or the share that the thief wanted.
        capacity: of a core, all that is shared.
    """

    setting: str
    span: int
    seconds: float
    tenant_s: float
    sentinel_s: float
    thief_s: float
    links: int
    capacity: float

    def interval(self, rate: float = 0.0) -> Interval:
        """As a verifier has it; with a rate, as if every second of the sentinel's had been worth so many links."""
        links = round(self.sentinel_s * rate) if rate else self.links
        return Interval(self.seconds * self.capacity, self.tenant_s, links)


def used_s(pids: Sequence[int]) -> float:
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def spin(core: int, duty: float, period_s: float, seed: int) -> None:
    """Work for `duty` of each period on one core, the periods' lengths by chance."""
    os.sched_setaffinity(0, {core})
    dice = Random(seed)
    while True:
        period = period_s * dice.uniform(0.5, 1.5)
        until = time.thread_time() + period * duty
        begin = time.monotonic()
        while time.thread_time() < until:
            sum(range(200))
        time.sleep(max(0.0, period - (time.monotonic() - begin)))


class Crowd:
    """One process a core at a load that can be changed."""

    def __init__(self, period_s: float, group: Group) -> None:
        self._period_s = period_s
        self._group = group
        self._running: list[multiprocessing.Process] = []

    def load(self, duty: float) -> None:
        self.end()
        if duty <= 0:
            return
        for core in CORES:
            process = multiprocessing.Process(
                target=spin, args=(core, duty, self._period_s, core), daemon=True
            )
            process.start()
            self._group.take(process.pid or 0)
            self._running.append(process)

    def cpu_s(self) -> float:
        return used_s([it.pid for it in self._running if it.pid is not None])

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.join()
        self._running = []


class Sentinel:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(sentinel.__file__)), *map(str, CORES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._write(bytes(32))

    def _write(self, seed: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(seed.hex() + "\n")
        self._process.stdin.flush()

    def links(self) -> int:
        self._write(bytes(32))
        assert self._process.stdout
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return sum(told["links"])

    def children(self) -> list[int]:
        pid = self._process.pid
        return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def cpu_s(self) -> float:
        return used_s(self.children())

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def running(core_milli: int) -> Generator[tuple[Sentinel, Crowd, Crowd]]:
    groups = ControlGroups()
    group = groups.make(f"{os.getpid()}-timelock", Limits(cpu_milli=core_milli, processes=64))
    for folder in group.folders:
        for file, most in (("cpu.shares", "262144"), ("cpu.weight", "10000")):
            if (folder / file).exists():
                (folder / file).write_text(most)
    watch, tenant, thief = Sentinel(), Crowd(0.2, group), Crowd(0.05, group)
    try:
        watch.links()  # Its children are there.
        for pid in watch.children():
            group.take(pid)
        yield watch, tenant, thief
    finally:
        tenant.end()
        thief.end()
        watch.end()
        group.close()


def read(record: Path) -> list[Beat]:
    """All but a last line that was cut off."""
    lines = record.read_bytes().split(b"\n")[:-1] if record.exists() else []
    return [msgspec.json.decode(line, type=Beat) for line in lines]


def play(record: Path, settings: Sequence[str], seconds: float, beat_s: float, core_milli: int) -> None:
    """Spans of the setting that has least, until all have enough."""
    capacity = core_milli / 1000
    had = dict.fromkeys(settings, 0.0)
    done = read(record)
    for it in done:
        had[it.setting] = had.get(it.setting, 0.0) + it.seconds
    span = max((it.span for it in done), default=-1) + 1
    if record.exists():  # What was cut off goes, or the next line would be part of it.
        os.truncate(record, record.read_bytes().rfind(b"\n") + 1)
    with running(core_milli) as (watch, tenant, thief), record.open("ab", buffering=0) as file:
        while min(had[it] for it in settings) < seconds:
            setting = min(settings, key=had.__getitem__)
            tenant.load(capacity * Random(span).choice(LOADS))
            thief.load(0.0 if setting == USUAL else capacity * float(setting))
            before, since, end = _now(watch, tenant, thief), time.monotonic(), time.monotonic() + SPAN_S
            while since < end:
                time.sleep(beat_s)
                after, now = _now(watch, tenant, thief), time.monotonic()
                tenant_s, sentinel_s, thief_s, links = (b - a for a, b in zip(before, after, strict=True))
                beat = Beat(setting, span, now - since, tenant_s, sentinel_s, thief_s, round(links), capacity)
                file.write(msgspec.json.encode(beat) + b"\n")
                had[setting] += beat.seconds
                before, since = after, now
            span += 1


def _now(watch: Sentinel, tenant: Crowd, thief: Crowd) -> tuple[float, float, float, float]:
    links = float(watch.links())
    return tenant.cpu_s(), watch.cpu_s(), thief.cpu_s(), links


def report(beats: Sequence[Beat]) -> None:
    usual = [it for it in beats if it.setting == USUAL]
    # A core is never alone here: a second that the sentinel had is a second of one.
    rate = sum(it.links for it in usual) / max(1e-9, sum(it.sentinel_s for it in usual))
    given = sum(it.seconds * it.capacity for it in beats)
    shares = [
        sum(getattr(it, name) for it in beats) / given for name in ("tenant_s", "sentinel_s", "thief_s")
    ]
    print(
        f"{usual[0].capacity:.2f} of a core, {sum(it.seconds for it in beats) / 60:.0f} minutes; the tenant had {shares[0]:.1%} of it, "
        f"the sentinel {shares[1]:.1%}, the thief {shares[2]:.1%}, nobody {1 - sum(shares):.1%}; {rate:.1f} links a second of a core"
    )
    for even, what in (
        (0.0, "as it was"),
        (rate, "were each second worth as many links, as with quiet neighbours"),
    ):
        known = profiled(len(CORES), rate, [it.interval(even) for it in usual])
        print(f"-- {what}; usual shares {', '.join(f'{it / MILLION:.3f}' for it in known.usual_ppm)}")
        spans: dict[str, list[list[Interval]]] = {}
        for setting in sorted({it.setting for it in beats} - {USUAL}, key=float):
            mine = [it for it in beats if it.setting == setting]
            said(known, setting, mine, even)
            numbers = sorted({it.span for it in mine})
            spans[setting] = [[it.interval(even) for it in mine if it.span == number] for number in numbers]
        power(known, spans)


def said(known: Profile, setting: str, mine: Sequence[Beat], even: float) -> None:
    evidence, alarm_s, convicted_s, gone = Evidence(), None, None, 0.0
    residuals: list[int] = []
    for it in mine:
        gone += it.seconds
        residuals.append(residual_ppm(known, it.interval(even)))
        evidence = add(known, evidence, it.interval(even))
        alarm_s = gone if alarm_s is None and evidence.alarmed else alarm_s
        convicted_s = gone if convicted_s is None and evidence.convinced else convicted_s

    def at(found: float | None) -> str:
        return "never" if found is None else f"after {found:.0f} s"

    really = sum(it.thief_s for it in mine) / sum(it.seconds * it.capacity for it in mine)
    mean, spread = statistics.mean(residuals) / 10_000, statistics.pstdev(residuals) / 10_000
    print(
        f"wanted {float(setting):5.1%}, stolen {really:6.2%}: residual {mean:+.2f} % ± {spread:.2f}, alarm {at(alarm_s)}, "
        f"convicted {at(convicted_s)} ({gone:.0f} s, measured)"
    )


def power(known: Profile, spans: dict[str, list[list[Interval]]]) -> None:
    """Of longer spans made of recorded ones, so that what hangs together stays together."""
    dice = Random(5)
    for minutes in (1, 10, 60):
        told: list[str] = []
        for setting, recorded in spans.items():
            tries, alarms = (400 if float(setting) == 0 else 100), 0
            for _ in range(tries):
                evidence, alarmed, gone = Evidence(), False, 0.0
                while gone < minutes * 60 and not alarmed:
                    for interval in dice.choice(recorded):
                        evidence = add(known, evidence, interval)
                        gone += interval.seconds
                        alarmed |= evidence.alarmed
                alarms += alarmed
            told.append(f"{float(setting):.0%}: {alarms / tries:.3f}")
        print(
            f"{minutes:3} minutes, share with an alarm (simulated from measured intervals): {', '.join(told)}"
        )


def overhead(rounds: int) -> None:
    def work() -> float:
        begin = time.monotonic()
        jobs = [multiprocessing.Process(target=_fixed, args=(core,)) for core in CORES]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        return time.monotonic() - begin

    ratios: list[float] = []
    for _ in range(rounds):
        bare = work()
        watch = Sentinel()
        watch.links()
        beside = work()
        watch.end()
        ratios.append(beside / bare)
    ratios.sort()
    # How many of n lie below their true median is binomial(n, 1/2): the two that bound it at 95 %.
    low = max(0, int((rounds - 1.96 * rounds**0.5) / 2))
    print(
        f"a tenant on all cores beside the sentinel: {(statistics.median(ratios) - 1):+.2%} of its time, median of {rounds} pairs "
        f"(between {ratios[low] - 1:+.2%} and {ratios[-1 - low] - 1:+.2%} at 95 %)"
    )


def _fixed(core: int) -> None:
    os.sched_setaffinity(0, {core})
    import numpy as np

    x = np.ones((300, 300))
    for _ in range(1500):
        x = x @ x / 300
    for _ in range(200_000):
        sum(range(200))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", type=Path, help="where what is measured of thefts is kept")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each setting")
    parser.add_argument("--core-milli", type=int, default=300, help="thousandths of a core that are shared")
    parser.add_argument("--beat", type=float, default=1.0)
    parser.add_argument("--thefts", default="0.1,0.05,0.02,0.01")
    parser.add_argument("--overhead", type=int, default=0, help="rounds; on a quiet machine")
    parser.add_argument("--report", action="store_true", help="of what is recorded, and no more")
    asked = parser.parse_args()
    if asked.record is None and not asked.overhead:
        parser.error("--overhead, --record FILE, or both")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    print(f"load of the last minute {os.getloadavg()[0]:.2f}", flush=True)
    if asked.overhead:
        overhead(asked.overhead)
    if asked.record is None:
        return
    if not asked.report:
        settings = (USUAL, "0.0", *asked.thefts.split(","))
        play(asked.record, settings, asked.minutes * 60, asked.beat, asked.core_milli)
    report(read(asked.record))


if __name__ == "__main__":
    main()
