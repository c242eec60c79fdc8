"""A rental between real processes: how long until Ray can be used, until a dead worker's place is taken, until all is given back.

    python -m bench.rentals [--rounds 3] [--port 21900]        as root; Ray and wireguard-go as `clusterai up --rent` wants them

Starts a network of four nodes on this machine, rents two of them, kills the worker's node by `kill -9`, and waits for another. All four,
Ray's processes and the rest share this machine's cores, so the numbers are those of a machine that is far too small.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from clusterai.sdk import Client
from clusterai.sdk.offers import Offers
from clusterai.sdk.offershapes import PlanRequest, Wanted
from clusterai.sdk.rentals import Rentals
from clusterai.sdk.rentalshapes import Rental, RentRequest, Setup

MEMORY = 1 << 30
WAITS_S = 300.0
POLL_S = 0.1


class Network:
    def __init__(self, port: int, nodes: int) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="clusterai-bench-"))
        command = [sys.executable, "-m", "clusterai.cli", "up", "--rent", "--json", "--data", str(self.data)]
        command += ["--port", str(port), "--nodes", str(nodes), "--model", "tiny"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        said = ""
        while not said.endswith("}\n"):
            said += self._process.stdout.readline()
        told = json.loads(said)
        self.client = Client(told["console"], told["openai_api_key"])

    def kill(self, operator: str) -> None:
        for service in json.loads((self.data / "up.json").read_text())["services"]:
            config = self.data / service["name"] / "config.json"
            if config.exists() and json.loads(config.read_text())["owner"] == operator.lower():
                os.kill(service["pid"], signal.SIGKILL)

    def end(self) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait()


def until(look: Any) -> float:
    """Seconds until it is true."""
    began_s = time.monotonic()
    while not look():
        if time.monotonic() - began_s > WAITS_S:
            raise SystemExit("it took too long: is this machine busy?")
        time.sleep(POLL_S)
    return time.monotonic() - began_s


def one(network: Network) -> dict[str, float]:
    """A rental from plan to given back; seconds by step."""
    rentals = Rentals(network.client)
    offers = Offers(network.client)
    until(lambda: offers.list().suitable >= 3)
    wish = PlanRequest(nodes=2, duration_s=1200, need=Wanted(cpu_milli=1000, memory_bytes=MEMORY))
    setup = Setup(cpu_milli=1000, memory_bytes=MEMORY, disk_bytes=MEMORY)
    began_s = time.monotonic()
    plan = offers.plan(wish)
    planned_s = time.monotonic() - began_s
    name = rentals.rent(RentRequest(hold=plan.hold, plan=wish, setup=setup)).id

    def now() -> Rental:
        return rentals.show(name)

    ready_s = until(lambda: now().state == "running")
    network.kill(now().machines[1].operator)
    killed_s = time.monotonic()
    noticed_s = until(lambda: now().machines[1].generation > 0 or now().machines[1].phase == "lost")
    until(lambda: (it := now().machines[1]).generation > 0 and it.phase == "ready")
    replaced_s = time.monotonic() - killed_s
    began_s = time.monotonic()
    rentals.release(name)
    until(lambda: offers.list().suitable >= 3)
    return {
        "plan": planned_s,
        "ready": ready_s,
        "noticed": noticed_s,
        "replaced": replaced_s,
        "free again": time.monotonic() - began_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=21_900)
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
    network = Network(given.port, 4)
    try:
        rounds = [one(network) for _ in range(given.rounds)]
    finally:
        network.end()
    for step in rounds[0]:
        took = sorted(it[step] for it in rounds)
        print(f"{step:>12}  median {statistics.median(took):6.2f} s   most {took[-1]:6.2f} s")


if __name__ == "__main__":
    main()
