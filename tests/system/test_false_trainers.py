"""Vaults that cheat in training, between real processes: nine daemons of nine owners, of which some skip, exceed, collapse, replay or send noise.

Dealt into the same groups by name in every run (`dealt.py`).
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clusterai.cli import runpots
from tests.rooms.training.studies import flower
from tests.system.hospitals import APP, HELD_OUT, hospital, patients, told, until_granted
from tests.system.running import DEADLINE_S, Network
from tests.system.test_grouped_training import CLINICS
from tests.system.test_three_hospitals import accuracy

pytestmark = [pytest.mark.system, pytest.mark.long]

NORM = 1.0
SERVER = '''"""The rounds, judged on patients whom no clinic has."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from study.task import MEAN, SPREAD, measure

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    with np.load(str(context.run_config["held"])) as found:
        features, labels = (found["features"] - MEAN) / SPREAD, found["labels"]

    def measured(number: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord(measure(arrays["model"].numpy(), features, labels))

    FedAvg(fraction_evaluate=0.0).start(
        grid=grid,
        initial_arrays=ArrayRecord({"model": Array(np.zeros(11))}),
        num_rounds=int(context.run_config["num-server-rounds"]),
        evaluate_fn=measured,
    )
'''


class Clinics:
    """A network of nine vaults, and an app that they granted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        vaults = [hospital(folder, at, CLINICS).root for at in range(len(CLINICS))]
        self.network = Network(folder / "data", program="tests.system.falsevaults", vaults=vaults)
        self.app = folder / "study"
        shutil.copytree(APP, self.app, ignore=shutil.ignore_patterns("__pycache__"))
        (self.app / "study" / "server_app.py").write_text(SERVER)
        _, features, malignant = patients()
        self.held = folder / "held.npz"
        np.savez(self.held, features=features[:HELD_OUT], labels=malignant[:HELD_OUT].astype(float))
        self.who = ("--identity", str(folder / "identity.json"))

    def ask(self) -> None:
        names = ",".join(CLINICS)
        told(
            self.network,
            "train",
            "request",
            str(self.app),
            "--vaults",
            names,
            "--purpose",
            "tumours",
            *self.who,
        )
        until_granted(self.network, self.who, len(CLINICS))

    def trained(self, rounds: int, **cheats: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was printed, and the card."""
        out = self.folder / "-".join((*cheats.values(), "run"))
        # Slow enough that every round says something of who betters the model.
        slow = ("--run-config", "local-steps=2", "--run-config", "learning-rate=0.3")
        settings = {"held": str(self.held)} | {f"clinic-{at[1:]}": how for at, how in cheats.items()}
        config = [word for name, value in settings.items() for word in ("--run-config", f'{name}="{value}"')]
        words = ("--vaults", ",".join(CLINICS), "--rounds", str(rounds), "--groups", "3", "--worth")
        process = self.network.started(
            *(
                "train",
                "federated",
                str(self.app),
                *words,
                "--norm",
                str(NORM),
                "--max-price",
                "5",
                *slow,
                *config,
            ),
            *("--out", str(out), "--yes", "--json", *self.who),
            program="tests.system.dealt",
        )
        printed, errors = process.communicate(timeout=10 * DEADLINE_S)
        assert process.returncode == 0, errors
        return json.loads(printed), json.loads((out / "lineage.json").read_text())


@pytest.fixture(scope="module")
def clinics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinics]:
    flower()
    made = Clinics(tmp_path_factory.mktemp("clinics"))
    try:
        made.network.up()
        made.ask()
        yield made
    finally:
        made.network.stop()


def scores(card: dict[str, Any]) -> dict[str, int]:
    """As a pot for what was added is shared."""
    read = msgspec.convert(card, runpots.Card)
    return {name: it.score for name, it in runpots.added_of(read, "-loss").items()}


def test_who_exceeds_the_bound_is_named_beside_one_who_skips(clinics: Clinics):
    """Every group with it is left out whole, which names it; nobody honest is named, the model is good, and what was paid is all in the card."""
    out, card = clinics.trained(9, c1="skips", c4="exceeds")
    assert accuracy(Path(out["model"])) >= 0.8
    named = {it["vault"] for it in out["named"]}
    assert "clinic-4" in named
    assert named <= {"clinic-1", "clinic-4"}
    [loud] = [it["subject"] for it in card["sources"] if it["name"] == "clinic-4"]
    verdicts = {
        (loud in group["summed"], group["verdict"] == "beyond")
        for row in card["rounds"]
        for group in row["groups"]
    }
    assert verdicts == {(True, True), (False, False)}
    assert (
        card["charged_wei"] >= sum(part["charged_wei"] for row in card["rounds"] for part in row["parts"]) > 0
    )
    # Whoever has the run's folder can: of a network it knows nothing.
    check = [sys.executable, "-m", "clusterai.cli", "train", "check", str(Path(out["lineage"]).parent)]
    checked = subprocess.run(check, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert checked.returncode == 0, checked.stderr
    assert all(f"the run went on without {name}" in " ".join(checked.stderr.split()) for name in named)


@pytest.mark.parametrize("cheat", ["skips", "noise", "collapses", "replays"])
def test_who_cheats_within_the_bound_is_outvoted(clinics: Clinics, cheat: str):
    """Nobody honest is named, the model is as good as without it; who harms, or adds nothing, is paid next to nothing of a pot for what was added."""
    out, card = clinics.trained(8, c7=cheat)
    assert accuracy(Path(out["model"])) >= 0.8
    assert {it["vault"] for it in out["named"]} <= {"clinic-7"}
    got = scores(card)
    honest = sorted(score for name, score in got.items() if name != "clinic-7")
    if cheat != "replays":  # its first update goes on bettering the model a little
        assert 4 * got["clinic-7"] <= honest[len(honest) // 2], got
