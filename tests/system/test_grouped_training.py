"""`clusterai train federated --groups`, between real processes: nine vaults of nine owners, three groups, a model and its card."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

from clusterai.vault.adapters.folder import VaultFolder
from clusterai.vault.adapters.founding import found_vault
from clusterai.vault.adapters.importing import find
from clusterai.vault.core.schema import Column, Schema
from tests.rooms.training.studies import flower
from tests.system.running import Network, until
from tests.system.test_three_hospitals import APP, HELD_OUT, POLICY, patients, told

pytestmark = [pytest.mark.system, pytest.mark.long]

CLINICS = tuple(f"clinic-{at}" for at in range(9))


def clinic(folder: Path, at: int) -> VaultFolder:
    names, features, malignant = patients()
    low, high = np.floor(features.min(0)), np.ceil(features.max(0))
    schema = Schema(
        columns=(
            Column(name="patient", kind="int", low=0, high=100_000),
            *(
                Column(name=it, kind="float", low=float(low[place]), high=float(high[place]))
                for place, it in enumerate(names)
            ),
            Column(name="malignant", kind="int", low=0, high=1),
        ),
        unit="patient",
    )
    file = folder / f"{CLINICS[at]}.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["patient", *names, "malignant"])
        for row in range(HELD_OUT + at, len(malignant), len(CLINICS)):
            rows.writerow([row, *features[row], malignant[row]])
    name = CLINICS[at]
    return found_vault(folder / name, name, folder / f"{name}.key", schema, find(file), POLICY)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("clinics")
    flower()
    running = Network(folder / "data", vaults=[clinic(folder, at).root for at in range(len(CLINICS))])
    try:
        yield running.up()
    finally:
        running.stop()


def test_nine_clinics_train_in_three_groups(network: Network, tmp_path: Path):
    """Each round's groups stand in the card with their verdicts, nobody who trained is named, and the model is there as safetensors."""
    app = tmp_path / "hospitals"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    who = ("--identity", str(tmp_path / "identity.json"))
    names = ",".join(CLINICS)
    told(network, "train", "request", str(app), "--vaults", names, "--purpose", "malignancy", *who)

    def granted() -> bool:
        done = network.cli("data", "grants", "--json", *who)
        assert done.returncode == 0, done.stderr
        found: Any = json.loads(done.stdout)["grants"]
        return len(found) == len(CLINICS) and all(it["state"] == "granted" for it in found)

    until("all grants stand", granted)
    words = ("train", "federated", str(app), "--vaults", names, "--rounds", "1", "--norm", "1", *who)
    refused = network.cli(*words, "--groups", "4", "--yes")
    assert refused.returncode != 0
    assert "three vaults at least" in refused.stderr
    out = told(network, *words, "--groups", "3", "--max-price", "1")
    assert out["named"] == []
    card = json.loads(Path(out["lineage"]).read_text())
    assert (card["groups"], card["rule"]) == (3, "median")
    for row in card["rounds"]:
        groups = row["groups"]
        assert [len(group["summed"]) for group in groups] == [3, 3, 3]
        assert {member for group in groups for member in group["summed"]} == {
            source["subject"] for source in card["sources"]
        }
        assert all(group["transcript"] and group["verdict"] in ("good", "apart") for group in groups)
    library: Any = safetensors
    with np.load(out["model"]) as found:
        np.testing.assert_array_equal(library.load_file(out["safetensors"])["model"], found["model"])
