"""Jobs on a whole network: run, verified, paid, and not lost when any process dies at any step.

In CI one round of `kill -9` is played, in which at each step one process dies, each kind two or three times, all of them at least
once while the job runs but for the auditor, which has nothing to do then. `CLUSTERAI_EVERY=1` plays all four rounds by hand,
after which each kind has died at each step.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterai.ledger.core import events
from clusterai.protocol.leases import CloseReason
from tests.system import gauntlet
from tests.system.gauntlet import Step
from tests.system.onchain import Onchain, kinds
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


STEPS = (
    Step("opened", events.LeaseOpened),
    Step("accepted", events.LeaseAccepted),
    Step("segment 1", nth=1),
    Step("segment 3", nth=3),
    Step("segment 5", nth=5),
    Step("committed", events.LeaseCommitted),
    Step("auditor drawn", events.AuditorDrawn),
    Step("auditor committed", events.AuditCommitted),
    Step("segment shown", events.SegmentShown),
    Step("revealed", events.AuditRevealed),
)
ROUNDS = gauntlet.rounds(STEPS, ("provider", "auditor", "chain", "gateway"))


@pytest.fixture(scope="module")
def onchain(network: Network) -> Iterator[Onchain]:
    following = Onchain(network)
    yield following
    following.close()


@pytest.fixture(scope="module")
def funds(network: Network) -> int:
    """What the account had before any job."""
    return network.told("account")["credit_wei"]


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


@pytest.mark.parametrize("victims", ROUNDS, ids=lambda victims: f"first-{victims[0]}")
def test_a_job_survives_what_dies_at_each_of_its_steps(
    network: Network, onchain: Onchain, funds: int, tmp_path: Path, victims: list[str]
):
    """`kill -9` as soon as each move is seen: each segment is done once as far as anyone can see, and stands its audit."""
    (tmp_path / "slow.yaml").write_text(SLOW)
    (tmp_path / "slow.py").write_text(COUNT)
    job = network.told("run", str(tmp_path / "slow.yaml"), "--yes", "--detach")["id"]
    opened = until("it to be placed", lambda: lease_of(network, job))

    def process(victim: str) -> str:
        names = {"provider": network.service_of(opened["provider"]), "auditor": "validator"}
        return names.get(victim, victim)

    def seen(step: Step) -> object:
        return until(f"segment {step.nth}", lambda: segment(network, job) >= step.nth)

    killed = gauntlet.run(network, onchain, opened["lease"], STEPS, victims, process, seen)
    print(", ".join(f"{it.process} at {it.step}" for it in killed))
    network.until_serving(2)
    assert until_audited(network, job) == "matched"
    fetched = network.cli("jobs", "fetch", job, "--json", "--output", str(tmp_path / "out"))
    assert fetched.returncode == 0, fetched.stderr
    (count,) = (tmp_path / "out").rglob("count.txt")
    assert count.read_text().split() == [str(number) for number in range(1, 9)]
    told = kinds(onchain.of(opened["lease"]))
    for once in ("LeaseAccepted", "LeaseCommitted", "AuditCommitted", "SegmentShown"):
        assert told.count(once) == 1


def test_a_module_is_done_and_audited(network: Network, tmp_path: Path):
    """A WASM job is paid by its fuel, and a segment of it is run again bit by bit."""
    told = run(network, tmp_path, EXAMPLES / "primes.yaml")
    assert (tmp_path / told["outputs"]["0"] / "primes.txt").read_text().strip() == "82025"
    assert until_audited(network, told["job"]["id"]) == "matched"


def test_a_native_job_is_done_audited_and_paid(network: Network, tmp_path: Path):
    """Digits of pi in ten segments: right, one segment run again by the validator, and the provider is paid."""
    told = run(network, tmp_path, EXAMPLES / "pi.yaml")
    assert (tmp_path / told["outputs"]["0"] / "pi.txt").read_text().startswith(PI)
    closed = until_closed(network, told["job"]["id"])
    assert closed["reason"] == "COMPLETED"
    assert closed["verdict"] == "matched", "a newcomer's first leases are always audited"
    assert [step["what"] for step in closed["steps"]][:3] == ["opened", "accepted", "committed"]
    (task,) = network.told("jobs", "show", told["job"]["id"])["tasks"]
    assert task["paid_wei"] > 0


def test_nothing_is_lost_or_paid_twice(network: Network, onchain: Onchain, funds: int):
    """When all these jobs are closed, each once, no contract holds money but a newcomer's tenth, auditors have their bonds, and
    the account has all that it didn't spend."""
    onchain.audit(vested=True)
    closed = [event for event in onchain.told if isinstance(event, events.LeaseClosed)]
    assert {CloseReason(event.reason) for event in closed} == {CloseReason.COMPLETED}
    assert not any(onchain.moved()[onchain.manifest.contracts.audits].values())
    tasks = [task for job in network.told("jobs", "--limit", "100")["jobs"] for task in job["tasks"]]
    assert len(tasks) == len(closed)
    cost = sum(task["total_wei"] + task["audit_fee_wei"] - task["refunded_wei"] for task in tasks)
    until("the rest to be credit", lambda: network.told("account")["credit_wei"] == funds - cost)


def lease_of(network: Network, job: str) -> dict[str, Any] | None:
    """Its one lease, once there is one."""
    found = network.told("job", "verify", job)["leases"]
    return found[0] if found else None


def segment(network: Network, job: str) -> int:
    """How many segments the gateway has heard to be done; nothing while it is away."""
    done = network.cli("jobs", "show", job, "--json")
    return json.loads(done.stdout)["tasks"][0]["segment"] if done.returncode == 0 else 0
