"""`kill -9` in the middle of federated rounds, between real processes: requester, vault, gateway, chain, each in each phase.

One run of five rounds with ε is played; in each round one process dies as soon as its phase is seen in the files that must outlive it. In CI one
run, in which each dies at least once; `CLUSTERAI_EVERY=1` plays all four, after which each has died in each phase.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterai.vault.adapters.bookkeeping import read_book
from clusterai.vault.adapters.folder import VaultFolder
from tests.rooms.training.studies import flower
from tests.system import gauntlet
from tests.system.gauntlet import Step
from tests.system.hospitals import APP, HOSPITALS, hospital, told, until_granted
from tests.system.running import DEADLINE_S, Network, until

pytestmark = pytest.mark.system

STEPS = (Step("spent"), Step("answered"), Step("summing"), Step("masked"), Step("kept"))
ROUNDS = gauntlet.rounds(STEPS, ("vault", "requester", "gateway", "chain"))
DEAD = "south"
"""The vault that dies."""


@pytest.fixture(scope="module")
def vaults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VaultFolder]:
    folder = tmp_path_factory.mktemp("vaults")
    return {name: hospital(folder, at) for at, name in enumerate(HOSPITALS)}


@pytest.fixture(scope="module")
def network(vaults: dict[str, VaultFolder], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    flower()
    folder = tmp_path_factory.mktemp("rounds")
    running = Network(folder / "data", vaults=[it.root for it in vaults.values()])
    try:
        yield running.up()
    finally:
        running.stop()


class Training:
    """`clusterai train federated`, typed again whenever it was killed."""

    def __init__(self, network: Network, app: Path, who: tuple[str, ...], rounds: int) -> None:
        self.folder = app.with_name(f"{app.name}-run")
        self._network = network
        self._words = (
            *("train", "federated", str(app), "--vaults", ",".join(HOSPITALS), "--rounds", str(rounds)),
            *("--blocks", "1", "--norm", "1", "--epsilon", "4", "--max-price", "1", "--yes", "--json", *who),
        )
        self._process = network.started(*self._words)

    def kill(self) -> None:
        """It, and not the app's process that it started: that must see for itself that nobody asks it any more."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=DEADLINE_S)
        until("its app to end", lambda: not _running_in(self.folder))
        self._process = self._network.started(*self._words)

    def ended(self) -> dict[str, Any]:
        out, errors = self._process.communicate(timeout=4 * DEADLINE_S)
        assert self._process.returncode == 0, errors
        return json.loads(out)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate(timeout=DEADLINE_S)

    # --- phases, as the files say them that must outlive a kill ---

    def reached(self, step: str, number: int, vault: Path) -> bool:
        if self._process.poll() not in (None, 0):
            _, errors = self._process.communicate(timeout=DEADLINE_S)
            pytest.fail(f"the run ended: {errors}")
        underway = self._underway()
        noted_ns = [it.stat().st_mtime_ns for it in vault.glob("?" * 64)]
        match step:
            case "spent":
                began_ns = (self.folder / "underway.json").stat().st_mtime_ns if underway == number else 0
                return 0 < began_ns < max(noted_ns, default=0)
            case "answered":
                return underway == number and any(vault.glob(f"*.{number}"))
            case "summing":
                return underway == number and self._said() >= 1
            case "masked":
                return underway == number and self._said() >= 8
            case _:
                # Of each round with ε two exchanges: training, and an evaluation that is withheld.
                return underway is None and (self.folder / "exchanges" / f"{2 * number + 1:04}").exists()

    def _underway(self) -> int | None:
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.folder / "underway.json").read_bytes())["number"]
        return None

    def _said(self) -> int:
        """How much has been said in the secure sum."""
        place = self.folder / "sum.sqlite"
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as db,
        ):
            return db.execute("SELECT count(*) FROM journal").fetchone()[0]
        return 0


def _running_in(folder: Path) -> list[str]:
    """Processes whose working folder it is."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append(process.name)
    return found


@pytest.mark.parametrize("victims", ROUNDS, ids=lambda victims: f"first-{victims[0]}")
def test_rounds_outlive_whatever_dies_in_each_of_their_phases(
    network: Network, vaults: dict[str, VaultFolder], tmp_path: Path, victims: list[str]
):
    """All five sums are made, by the same command; each order is paid once, and no vault has spent more ε than the run says."""
    app = tmp_path / "hospitals"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    who = ("--identity", str(tmp_path / "identity.json"))
    names = ",".join(HOSPITALS)
    told(
        network, "train", "request", str(app), "--vaults", names, "--purpose", "kills", "--epsilon", "4", *who
    )
    until_granted(network, who)
    before_wei = network.http("account")["charged_wei"]
    logged = {name: len(read_book(it).uses()) for name, it in vaults.items()}
    processes = {"vault": _node_of(network, vaults[DEAD].root), "gateway": "gateway", "chain": "chain"}
    notes = vaults[DEAD].state / "training"
    training = Training(network, app, who, len(STEPS))
    try:
        for number, (step, victim) in enumerate(zip(STEPS, victims, strict=True)):
            until(
                f"round {number} to be {step.name}",
                lambda at=(step.name, number): training.reached(*at, notes),
            )
            if victim == "requester":
                training.kill()
            else:
                restarts = network.kill(processes[victim])
                network.until_back(processes[victim], restarts)
            print(f"{victim} when round {number} was {step.name}")
        out = training.ended()
    finally:
        training.stop()
    card = json.loads(Path(out["lineage"]).read_text())
    assert [it["number"] for it in card["rounds"]] == list(range(len(STEPS)))
    assert card["failed_parts"] == 0
    fell = {
        at
        for at, victim in enumerate(victims)
        if victim == "vault" and STEPS[at].name in ("summing", "masked")
    }
    for it in card["rounds"]:
        assert len(it["parts"]) == len(HOSPITALS)
        assert len(it["summed"]) >= len(HOSPITALS) - (it["number"] in fell)
    assert 0 < out["epsilon"] <= 4
    assert network.http("account")["charged_wei"] - before_wei == out["charged_wei"] > 0
    for name, it in vaults.items():
        spent = read_book(it).uses()[logged[name] :]
        assert len(spent) == len(STEPS), "each order spends once"
        assert sum(row.epsilon_micro for row in spent) == round(out["epsilon"] * 1_000_000)


def _node_of(network: Network, vault: Path) -> str:
    """The process that serves a vault."""
    for name in network.services():
        config = network.data / name / "config.json"
        if config.exists() and str(vault) in config.read_text():
            return name
    raise AssertionError(f"nobody serves {vault}")
