"""What a rented cluster costs at its start: head and two workers over the mesh, against plain `ray start` between the same namespaces.

    python -m bench.cluster [--rounds 3]

As root, with `scripts/install.py peers ray`. Every machine is a network namespace of this one, so three machines' start shares its cores:
take the ratios. In turn, a round each: plain, then rented. Printed are medians of the rounds, by step, and how busy the machine was.

    plain     `ray start --head`, then both workers at once, a driver's first task, `ray job submit` twice
    rented    Stay.open (sandbox, interface, sentinel; Ray is loaded), Stay.join (mesh, head and workers at once), the same driver, the same jobs
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.rooms.cluster.renting import TOKEN, Rental, environment
from tests.rooms.mesh.hosts import Host, Internet

DRIVER = """
import ray
ray.init()

@ray.remote
def one():
    return 1

print("first", ray.get(one.remote()))
"""
MACHINES = 3
Steps = dict[str, float]


class Plain:
    """Ray as it is started by hand on three hosts."""

    def __init__(self, cpus: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        self.internet = Internet()
        self.hosts = [self.internet.host() for _ in range(MACHINES)]
        (self.folder / "token").write_text(TOKEN.hex())
        (self.folder / "train.py").write_text(DRIVER)
        self.cpus = cpus
        self.logs: list[Path] = []

    def start(self, host: Host, *words: str) -> subprocess.Popen[bytes]:
        env = {
            "PATH": f"{environment()}/bin:/usr/sbin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            # On a busy machine a worker gives up before its head is there; it asks at the same intervals with it.
            "RAY_NUM_REDIS_GET_RETRIES": "45",
            "RAY_ADDRESS": self.address,
        }
        if words[:2] == ("ray", "start"):
            del env["RAY_ADDRESS"]
        elif words[:2] == ("ray", "job"):
            env["RAY_ADDRESS"] = f"http://{self.hosts[0][1]}:8265"
        with (self.folder / f"log{len(self.logs)}").open("wb") as log:
            self.logs.append(Path(log.name))
            return subprocess.Popen([*host.enter, *words], env=env, cwd=self.folder, stdout=log, stderr=log)

    def done(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for it; what it said is shown where it failed."""
        code = process.wait(180)
        said = b"\n".join(it.read_bytes()[-2_000:] for it in self.logs[-MACHINES:])
        assert code == 0, f"{process.args}: {code}\n{said.decode(errors='replace')}"

    @property
    def address(self) -> str:
        return f"{self.hosts[0][1]}:6379"

    def node(self, at: int, *words: str) -> subprocess.Popen[bytes]:
        host, address = self.hosts[at]
        common = [
            f"--node-ip-address={address}",
            f"--num-cpus={self.cpus}",
            "--object-store-memory=200000000",
        ]
        common += [f"--temp-dir={self.folder}/{at}", "--disable-usage-stats"]
        return self.start(host, "ray", "start", *common, *words)

    def round(self) -> Steps:
        steps: Steps = {}
        begin = time.monotonic()
        try:
            head = ("--head", "--port=6379", f"--dashboard-host={self.hosts[0][1]}")
            self.done(self.node(0, *head))
            steps["head"] = time.monotonic() - begin
            for worker in [self.node(at, f"--address={self.address}") for at in range(1, MACHINES)]:
                self.done(worker)
            steps["cluster"] = time.monotonic() - begin
            self.done(self.start(self.hosts[0][0], "python", "train.py"))
            steps["first task"] = time.monotonic() - begin
            for name in ("first job", "warm job"):
                at = time.monotonic()
                words = ("ray", "job", "submit", "--working-dir", ".", "--", f"{environment()}/bin/python")
                (self.folder / "work").mkdir(exist_ok=True)
                (self.folder / "work" / "train.py").write_text(DRIVER)
                self.done(self.start(self.hosts[0][0], *words[:4], "work", *words[5:], "train.py"))
                steps[name] = time.monotonic() - at
        finally:
            self.end()
        return steps

    def end(self) -> None:
        """By the folder in their command lines or their environment: `ray stop` would end the whole machine's."""
        own = str(self.folder).encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if own in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), 9)
            except OSError:
                continue
        self.internet.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def rented(cores: Sequence[int]) -> Steps:
    steps: Steps = {}
    rental = Rental(MACHINES, tuple(cores))
    try:
        begin = time.monotonic()
        rental.run(rental.begin())
        steps["cluster"] = time.monotonic() - begin
        typed = f"cat > t.py <<'EOF'\n{DRIVER}\nEOF\npython t.py; exit\n"
        seen = rental.shell(0, typed)
        assert "first 1" in seen, seen
        steps["first task"] = time.monotonic() - begin
        opened = [it.steps for it in rental.stays.values()]
        for name in opened[0]:
            steps[f"  open: {name}"] = max(it[name] for it in opened) / 1000
        for name in rental.steps[0]:
            steps[f"  join: {name}, head"] = rental.steps[0][name] / 1000
            steps[f"  join: {name}, workers"] = max(rental.steps[at][name] for at in (1, 2)) / 1000
        steps["  CPU seconds of all machines until the first task"] = (
            sum(rental.run(it.beat(bytes(32))).tenant_ms for it in rental.stays.values()) / 1000
        )
        (rental.folder / "work").mkdir()
        (rental.folder / "work" / "train.py").write_text(DRIVER)
        for name in ("first job", "warm job"):
            at = time.monotonic()
            words = ("ray", "job", "submit", "--working-dir", ".", "--", "python", "train.py")
            code, said = rental.run(rental.ray(*words, folder=rental.folder / "work"))
            assert code == 0, said
            steps[name] = time.monotonic() - at
    finally:
        rental.end()
        shutil.rmtree(rental.folder)
    return steps


def median(rounds: Sequence[Steps]) -> Steps:
    return {name: statistics.median(it[name] for it in rounds) for name in rounds[0]}


async def nothing() -> None:
    """So that asyncio's own start isn't counted to the first round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds: int = parser.parse_args().rounds
    asyncio.run(nothing())
    cores = sorted(os.sched_getaffinity(0))
    plain: list[Steps] = []
    ours: list[Steps] = []
    for _ in range(rounds):
        plain.append(Plain(len(cores)).round())
        ours.append(rented(cores))
    bare, rent = median(plain), median(ours)
    load = os.getloadavg()
    print(
        f"{len(cores)} cores for {MACHINES} machines; load {load[0]:.1f}, {load[1]:.1f}, {rounds} rounds, medians"
    )
    for name, took in rent.items():
        beside = f"plain {bare[name]:6.1f} s   {took / bare[name]:.2f} x" if name in bare else ""
        print(f"{name:52} {took:6.1f} s   {beside}")
    print(f"{'plain: head alone':52} {bare['head']:6.1f} s")


if __name__ == "__main__":
    main()
