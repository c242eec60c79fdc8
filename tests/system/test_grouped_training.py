"""`clusterai train federated --groups`, between real processes: nine vaults of nine owners, three groups, a model and its card."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

from tests.system.hospitals import app_in, hospitals, told, until_granted
from tests.system.running import Network

pytestmark = [pytest.mark.system, pytest.mark.long]

CLINICS = tuple(f"clinic-{at}" for at in range(9))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with hospitals(tmp_path_factory.mktemp("clinics"), CLINICS) as running:
        yield running


def test_nine_clinics_train_in_three_groups(network: Network, tmp_path: Path):
    """Each round's groups stand in the card with their verdicts, nobody who trained is named, and the model is there as safetensors."""
    app = app_in(tmp_path)
    who = ("--identity", str(tmp_path / "identity.json"))
    names = ",".join(CLINICS)
    told(network, "train", "request", str(app), "--vaults", names, "--purpose", "malignancy", *who)
    until_granted(network, who, len(CLINICS))
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
