"""Outputs that a provider keeps to itself, between processes: the requester ends with them, or with its money."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterai.cli.failure import Exit
from tests.system.running import Network, until
from tests.system.withholder import ALL, REQUESTER, SWAPPED

pytestmark = pytest.mark.system

MODULE = Path(__file__).parents[2] / "examples" / "jobs" / "primes.wasm"
JOB = f"""
name: NAME
wasm: {MODULE}
args: [16]
outputs: [primes.txt]
segments: 20
fuel: 400000000
resources: {{memory: 16MB, disk: 16MB, time: 1m}}
"""


@pytest.fixture(scope="module")
def keepers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network whose nodes do every job rightly, and keep the outputs of some."""
    running = Network(
        tmp_path_factory.mktemp("keepers") / "data",
        nodes=3,
        validators=3,
        program="tests.system.withholding",
    )
    try:
        yield running.up()
    finally:
        running.stop()


def ended(network: Network, folder: Path, name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A job of that name, once its lease is closed: its id, its one task, and its lease's story."""
    path = folder / "job.yaml"
    path.write_text(JOB.replace("NAME", name))
    job = network.told("run", str(path), "--yes", "--detach")["id"]
    (task,) = until(
        f"{name} to be closed",
        lambda: (it := network.told("jobs", "show", job)["tasks"])[0]["reason"] and it,
        240,
    )
    (lease,) = network.told("job", "verify", job)["leases"]
    return job, task, lease


def moves(lease: dict[str, Any]) -> list[str]:
    return [step["what"] for step in lease["steps"]]


def outcome(lease: dict[str, Any]) -> str:
    (end,) = [step for step in lease["steps"] if step["what"] == "demand_ended"]
    return end["detail"]["outcome"]


def test_what_the_requester_is_refused_it_gets_from_the_panel(keepers: Network, tmp_path: Path) -> None:
    """The provider serves the members; they pass the outputs on, and it is paid: the bond is what that cost."""
    job, task, lease = ended(keepers, tmp_path, REQUESTER)
    until("the outputs to be here", lambda: keepers.told("jobs", "show", job)["tasks"][0]["output"])
    assert task["reason"] == "COMPLETED"
    assert outcome(lease) == "DELIVERED"
    assert "undelivered" not in moves(lease)
    assert keepers.cli("job", "verify", job).returncode == Exit.OK


@pytest.mark.parametrize("name", [ALL, pytest.param(SWAPPED, marks=pytest.mark.long)])
def test_who_keeps_or_swaps_the_outputs_loses_its_stake(keepers: Network, tmp_path: Path, name: str) -> None:
    """Two thirds of the panel see it too: nothing is paid, all comes back but an auditor's fee, and the stake is burnt."""
    job, task, lease = ended(keepers, tmp_path, name)
    assert (task["reason"], task["paid_wei"]) == ("WITHHELD", 0)
    assert task["refunded_wei"] >= task["total_wei"]
    assert outcome(lease) == "UNDELIVERED"
    assert moves(lease).count("undelivered") >= 2
    shown = keepers.cli("job", "verify", job)
    assert shown.returncode == Exit.UNTRUE
    for word in ("demanded", "undelivered", "WITHHELD"):
        assert word in re.sub(r"\s+", " ", shown.stdout)
