"""Stolen time, seen on real processes: a sentinel on every core, a tenant that works now and then, a thief with a duty cycle.

    python bench/timelock.py [--minutes 4] [--beat 1.0] [--thefts 0.1,0.05,0.02]

1. profile: the machine with a tenant at five loads and nobody else; what is usual.
2. honest, and each theft: alarms, convictions, the mean residual, seconds until the alarm.
3. overhead: what the sentinel costs the tenant, paired: rounds of a fixed work with and without it, in turn.
4. power: from the residuals measured in 2, drawn again in blocks, how often a theft of that share is seen in 1, 10 and 60
   minutes, and how often an honest span of that length raises the alarm. Simulated from measured residuals, and it says so.

The other processes of the machine are thieves too: run it on a quiet one. The first line printed says how quiet it was.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from clusterai.audit.core.timelock import (
    MILLION,
    USES,
    Evidence,
    Interval,
    Profile,
    add,
    profiled,
    residual_ppm,
)
from clusterai.work.cluster.inside import sentinel

CORES = sorted(os.sched_getaffinity(0))


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
    """One process a core at a load that can be changed; what CPU time they took."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
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
            self._running.append(process)

    def cpu_s(self) -> float:
        found = 0.0
        for process in self._running:
            fields = Path(f"/proc/{process.pid}/schedstat").read_text().split()
            found += int(fields[0]) / 1e9
        return found

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

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def running() -> Generator[tuple[Sentinel, Crowd, Crowd]]:
    watch, tenant, thief = Sentinel(), Crowd(0.2), Crowd(0.05)
    try:
        yield watch, tenant, thief
    finally:
        tenant.end()
        thief.end()
        watch.end()


def beats(watch: Sentinel, tenant: Crowd, seconds: float, beat_s: float) -> Iterator[Interval]:
    links, cpu_s, since = watch.links(), tenant.cpu_s(), time.monotonic()
    end = since + seconds
    while since < end:
        time.sleep(beat_s)
        links_now, cpu_now, now = watch.links(), tenant.cpu_s(), time.monotonic()
        yield Interval(now - since, cpu_now - cpu_s, links_now - links)
        links, cpu_s, since = links_now, cpu_now, now


def profile(seconds: float, beat_s: float) -> Profile:
    with running() as (watch, tenant, _):
        next(beats(watch, tenant, beat_s, beat_s))
        alone = list(beats(watch, tenant, seconds / USES, beat_s))
        rate = statistics.median(it.links / it.seconds for it in alone) / len(CORES)
        seen = alone
        for at in range(1, USES):
            tenant.load((at + 0.4) / USES)
            seen += list(beats(watch, tenant, seconds / USES, beat_s))
        return profiled(len(CORES), rate, seen)


def watched(known: Profile, stolen: float, seconds: float, beat_s: float, seed: int) -> list[int]:
    """Play one span with the tenant at changing loads; print what the tests said; the residuals."""
    dice = Random(seed)
    evidence, alarm_s, convicted_s, gone = Evidence(), None, None, 0.0
    residuals: list[int] = []
    with running() as (watch, tenant, thief):
        thief.load(stolen)
        while gone < seconds:
            tenant.load(dice.choice((0.0, 0.2, 0.5, 0.8)))
            for interval in beats(watch, tenant, min(20.0, seconds - gone), beat_s):
                gone += interval.seconds
                residuals.append(residual_ppm(known, interval))
                evidence = add(known, evidence, interval)
                alarm_s = gone if alarm_s is None and evidence.alarmed else alarm_s
                convicted_s = gone if convicted_s is None and evidence.convinced else convicted_s
    mean, spread = statistics.mean(residuals) / 10_000, statistics.stdev(residuals) / 10_000

    def at(found: float | None) -> str:
        return "never" if found is None else f"after {found:.0f} s"

    print(
        f"stolen {stolen:5.1%}: residual {mean:+.2f} % ± {spread:.2f}, alarm {at(alarm_s)}, convicted {at(convicted_s)} "
        f"({len(residuals)} intervals, measured)"
    )
    return residuals


def power(known: Profile, found: dict[float, list[int]], beat_s: float) -> None:
    """Spans made of measured residuals, in blocks of 20 so that what hangs together stays together."""
    dice = Random(5)
    for minutes in (1, 10, 60):
        told: list[str] = []
        for stolen, residuals in found.items():
            spans, alarms = (400 if stolen == 0 else 200), 0
            for _ in range(spans):
                evidence, alarmed = Evidence(), False
                for _ in range(int(minutes * 60 / beat_s / 20) or 1):
                    start = dice.randrange(max(1, len(residuals) - 20))
                    for residual in residuals[start : start + 20]:
                        # An interval that has just this residual, at no use of the tenant.
                        usual = known.usual_ppm[0] / MILLION
                        had = (1 + residual / MILLION) * usual * known.cores * known.links_per_s
                        evidence = add(known, evidence, Interval(1.0, 0.0, round(had)))
                    alarmed |= evidence.alarmed
                alarms += alarmed
            told.append(f"{stolen:.0%}: {alarms / spans:.3f}")
        print(
            f"{minutes:3} minutes, share of spans with an alarm (simulated from measured residuals): {', '.join(told)}"
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
    print(
        f"a tenant on all cores beside the sentinel: {(statistics.median(ratios) - 1):+.2%} of its time, median of {rounds} pairs "
        f"(from {min(ratios) - 1:+.2%} to {max(ratios) - 1:+.2%})"
    )


def _fixed(core: int) -> None:
    os.sched_setaffinity(0, {core})
    import numpy as np

    x = np.ones((300, 300))
    for _ in range(150):
        x = x @ x / 300
    for _ in range(20_000):
        sum(range(200))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--beat", type=float, default=1.0)
    parser.add_argument("--thefts", default="0.1,0.05,0.02")
    asked = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    print(f"{len(CORES)} cores, load of the last minute {os.getloadavg()[0]:.2f}")
    overhead(8)
    seconds = asked.minutes * 60
    known = profile(seconds, asked.beat)
    print(
        f"a core alone: {known.links_per_s:.1f} links/s; usual shares {[f'{it / MILLION:.3f}' for it in known.usual_ppm]}"
    )
    thefts = [0.0, *(float(it) for it in asked.thefts.split(","))]
    found = {stolen: watched(known, stolen, seconds, asked.beat, seed) for seed, stolen in enumerate(thefts)}
    power(known, found, asked.beat)


if __name__ == "__main__":
    main()
