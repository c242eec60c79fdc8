"""Hospitals that train together, each a vault with its patients, between real processes: what their tests share."""

import csv
import json
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer

from clusterai.protocol.vaults import Operation
from clusterai.vault.adapters.folder import VaultFolder
from clusterai.vault.adapters.founding import found_vault
from clusterai.vault.adapters.importing import find
from clusterai.vault.core.policy import MICRO, Policy
from clusterai.vault.core.schema import Column, Schema
from tests.rooms.training.studies import flower
from tests.system.running import Network, until

APP = Path(__file__).resolve().parents[2] / "examples" / "hospitals"
HOSPITALS = ("north", "south", "west")
HELD_OUT = 119
USE_WEI, MILLI_WEI = 5_000, 10
POLICY = Policy(
    operations=(Operation.TRAINING,),
    grant_epsilon_micro=8 * MICRO,
    requester_epsilon_micro=8 * MICRO,
    total_epsilon_micro=20 * MICRO,
    total_delta_pico=10**9,
    use_wei=USE_WEI,
    milli_epsilon_wei=MILLI_WEI,
    auto_operations=(Operation.TRAINING,),
    auto_epsilon_micro=8 * MICRO,
)


def patients() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ten measurements each, and whether the tumour is malignant."""
    loaded: Any = load_breast_cancer
    found = loaded()
    names = [str(name).replace(" ", "_") for name in found.feature_names[:10]]
    return names, np.asarray(found.data)[:, :10], 1 - np.asarray(found.target)


def hospital(folder: Path, at: int, names: Sequence[str] = HOSPITALS) -> VaultFolder:
    """A vault with its share of the patients; the first 119 are nobody's."""
    columns, features, malignant = patients()
    low, high = np.floor(features.min(0)), np.ceil(features.max(0))
    schema = Schema(
        columns=(
            Column(name="patient", kind="int", low=0, high=100_000),
            *(
                Column(name=it, kind="float", low=float(low[place]), high=float(high[place]))
                for place, it in enumerate(columns)
            ),
            Column(name="malignant", kind="int", low=0, high=1),
        ),
        unit="patient",
    )
    name = names[at]
    file = folder / f"{name}.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["patient", *columns, "malignant"])
        for row in range(HELD_OUT + at, len(malignant), len(names)):
            rows.writerow([row, *features[row], malignant[row]])
    return found_vault(folder / name, name, folder / f"{name}.key", schema, find(file), POLICY)


@contextmanager
def hospitals(folder: Path, names: Sequence[str] = HOSPITALS) -> Generator[Network]:
    """A network with a vault for each of them."""
    flower()
    roots = [hospital(folder, at, names).root for at in range(len(names))]
    running = Network(folder / "data", vaults=roots)
    try:
        yield running.up()
    finally:
        running.stop()


def app_in(folder: Path) -> Path:
    """The example that they run."""
    app = folder / "hospitals"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    return app


def told(network: Network, *words: str) -> Any:
    done = network.cli(*words, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def until_granted(network: Network, who: tuple[str, ...], count: int = len(HOSPITALS)) -> None:
    """A policy's grants stand on chain after some blocks."""

    def granted() -> bool:
        done = network.cli("data", "grants", "--json", *who)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["grants"]
        return len(found) == count and all(it["state"] == "granted" for it in found)

    until("all grants stand", granted)
