"""A machine enters a network between real processes: how long from `node join` until renters find it, measured by a validator.

    python -m bench.onboarding [--rounds 3] [--port 21920] [--model tiny]

Starts a network with one node and one validator on this machine, and joins further machines to it as a user does: `clusterai node doctor`,
then `clusterai node join --rent`. Each is drained before the next comes. Wanted: `listed and verified` within 60 s. How long a validator waits for the next beacon
is the network's to set: here it is a local network's epoch, 15 s at most.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.rentals import Network, until
from clusterai.sdk.offers import Offers
from clusterai.sdk.offershapes import Machine

WANTED_S = 60.0


def typed(*words: str) -> dict[str, Any]:
    """What a command of ours answers."""
    command = [sys.executable, "-m", "clusterai.cli", "node", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and words[0] != "doctor":
        raise SystemExit(f"{' '.join(words)} failed: {done.stderr}")
    return json.loads(done.stdout)


def one(network: Network, url: str, model: str, folder: Path) -> dict[str, float]:
    """A machine from nothing to measured, and out again; seconds by step."""
    offers = Offers(network.client)
    took: dict[str, float] = {}
    began_s = time.monotonic()

    def mark(step: str, since_s: float) -> None:
        took[step] = time.monotonic() - since_s
        print(f"  {step:<24} {took[step]:6.2f} s", flush=True)

    typed("doctor", "--data", str(network.data), "--gateway", url)
    mark("doctor", began_s)
    joins_s = time.monotonic()
    words = ("--folder", str(folder), "--data", str(network.data), "--model", model, "--rent", "0.1", "--yes")
    owner = str(typed("join", url, *words)["provider"]).lower()
    mark("join: listed", joins_s)

    def offered() -> Machine | None:
        return next((it for it in offers.list(limit=100).offers if it.operator.lower() == owner), None)

    until(lambda: offered() is not None)
    mark("renters find it", joins_s)
    until(
        lambda: (
            (it := offered()) is not None
            and it.cpu_milli.says == "measured"
            and it.links_per_s_milli is not None
        )
    )
    mark("listed and verified", joins_s)
    leaves_s = time.monotonic()
    typed("drain", "--folder", str(folder))
    mark("drain", leaves_s)
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=21_920)
    parser.add_argument(
        "--model",
        default="tiny",
        help="that the machine serves, too; its weights are loaded before it is listed",
    )
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
    network = Network(given.port, 1)
    rounds: list[dict[str, float]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="clusterai-bench-") as folder:
            for number in range(given.rounds):
                print(f"machine {number + 1}", flush=True)
                url = f"http://127.0.0.1:{given.port}"
                rounds.append(one(network, url, given.model, Path(folder) / str(number)))
    finally:
        network.end()
    for step in rounds[0]:
        seconds = sorted(it[step] for it in rounds)
        print(f"{step:>24}  median {statistics.median(seconds):6.2f} s   most {seconds[-1]:6.2f} s")
    most_s = max(it["listed and verified"] for it in rounds)
    print(f"wanted: {WANTED_S:.0f} s; {'held' if most_s <= WANTED_S else 'not held'}")


if __name__ == "__main__":
    main()
