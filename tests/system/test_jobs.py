"""Jobs on a whole network: run, verified, paid, and not lost when any process dies in the middle."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.running import DEADLINE_S, Network, until

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[2] / "examples" / "jobs"
PI = "3141592653589793238462643383279502884197"

SLOW = """
name: slow
run: python slow.py
inputs: {slow.py: slow.py}
outputs: [count.txt]
class: pinned
segments: 8
resources: {cpu: 1, memory: 256MB, disk: 64MB, time: 5m}
"""
COUNT = """
import os, sys, time
from pathlib import Path
segment = int(os.environ["CLUSTERAI_SEGMENT"])
time.sleep(0.6)
with Path("count.txt").open("a") as file:
    file.write(f"{segment}\\n")
sys.exit(0 if segment == 8 else 75)
"""


def run(network: Network, folder: Path, job: Path) -> dict[str, Any]:
    """`clusterai run`, from a folder of its own: outputs are laid beside where it is started."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "clusterai.cli",
            "run",
            str(job),
            "--yes",
            "--json",
            "--data",
            str(network.data),
        ],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lease(network: Network, job: str) -> dict[str, Any]:
    (found,) = network.told("job", "verify", job)["leases"]
    return found


def until_audited(network: Network, job: str) -> str:
    """What the validator found; the lease is closed when its window is over."""
    return until("the audit to be over", lambda: (it := lease(network, job)["verdict"]) != "pending" and it)


def until_closed(network: Network, job: str) -> dict[str, Any]:
    """The lease, once the chain has closed it and nothing of its audit is left open."""
    return until("the lease to be closed", lambda: (it := lease(network, job))["reason"] and it)


def test_a_native_job_is_done_audited_and_paid(network: Network, tmp_path: Path):
    """Digits of pi in ten segments: right, one segment run again by the validator, and the provider is paid."""
    before = network.told("account")["credit_wei"]
    told = run(network, tmp_path, EXAMPLES / "pi.yaml")
    assert (tmp_path / told["outputs"]["0"] / "pi.txt").read_text().startswith(PI)
    closed = until_closed(network, told["job"]["id"])
    assert closed["reason"] == "COMPLETED"
    assert closed["verdict"] == "matched", "a newcomer's first leases are always audited"
    assert [step["what"] for step in closed["steps"]][:3] == ["opened", "accepted", "committed"]
    (task,) = network.told("jobs", "show", told["job"]["id"])["tasks"]
    cost = task["total_wei"] + task["audit_fee_wei"] - task["refunded_wei"]
    assert task["paid_wei"] > 0
    until(
        "what wasn't spent to be credit again", lambda: network.told("account")["credit_wei"] == before - cost
    )


def test_a_module_is_done_and_audited(network: Network, tmp_path: Path):
    """A WASM job is paid by its fuel, and a segment of it is run again bit by bit."""
    told = run(network, tmp_path, EXAMPLES / "primes.yaml")
    assert (tmp_path / told["outputs"]["0"] / "primes.txt").read_text().strip() == "82025"
    assert until_audited(network, told["job"]["id"]) == "matched"


@pytest.mark.parametrize("victim", ["provider", "gateway", "chain"])
def test_a_job_survives_what_dies_in_its_middle(network: Network, tmp_path: Path, victim: str):
    """`kill -9` while it runs: each segment is done once as far as anyone can see, and stands an audit."""
    (tmp_path / "slow.yaml").write_text(SLOW)
    (tmp_path / "slow.py").write_text(COUNT)
    started = network.cli("run", str(tmp_path / "slow.yaml"), "--yes", "--detach", "--json")
    assert started.returncode == 0, started.stderr
    job = json.loads(started.stdout)["id"]
    (task,) = until(
        "two segments to be done",
        lambda: (it := network.told("jobs", "show", job)["tasks"]) and it[0]["segment"] >= 2 and it,
    )
    name = victim if victim != "provider" else _service(network, task["provider"])
    network.until_back(name, network.kill(name))
    assert until_audited(network, job) == "matched"
    fetched = network.cli("jobs", "fetch", job, "--json", "--output", str(tmp_path / "out"))
    assert fetched.returncode == 0, fetched.stderr
    (count,) = (tmp_path / "out").rglob("count.txt")
    assert count.read_text().split() == [str(number) for number in range(1, 9)]


def _service(network: Network, provider: str) -> str:
    """The process that is this provider."""
    for name in network.services():
        config = network.data / name / "config.json"
        if config.exists() and json.loads(config.read_bytes())["owner"] == provider.lower():
            return name
    raise AssertionError(f"nobody is {provider}")
