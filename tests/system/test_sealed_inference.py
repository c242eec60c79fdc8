"""Sealed inference through a whole network: encrypted here, computed there, audited by somebody who sees nothing either."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from clusterai.cli.local.folder import CHEAT, Cheat, DataFolder
from clusterai.models.store import ModelStore
from tests.system.running import ROOT, Network, until

pytestmark = pytest.mark.system

MODEL = "sealed-breast-cancer"


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network with a model store of its own, in which there are bent weights too."""
    folder = tmp_path_factory.mktemp("clinic")
    running = Network(folder / "data", model=MODEL, nodes=1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CLUSTERAI_MODELS", str(folder / "models"))
        bend(folder / "bent", ModelStore(folder / "models"))
        try:
            yield running.up()
        finally:
            running.stop()


def bend(folder: Path, store: ModelStore) -> None:
    """The same model, but for one weight."""
    honest = store.get(MODEL)
    folder.mkdir()
    weights = json.loads(honest.paths["weights.json"].read_bytes())
    weights["rows"][0][0] += 5_000
    (folder / "weights.json").write_text(json.dumps(weights))
    (folder / "shape.json").write_bytes(honest.paths["shape.json"].read_bytes())
    store.add_sealed(folder, "bent")


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Three inputs, the first of the model's mean."""
    shape = json.loads((ROOT / "src/clusterai/models/sealed" / MODEL / "shape.json").read_text())
    path = tmp_path / "patients.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["number", *shape["features"]])
        for at in range(3):
            table.writerow([at, *(c + at * s for c, s in zip(shape["centre"], shape["spread"], strict=True))])
    return path


def test_an_encrypted_input_is_answered_paid_and_audited(clinic: Network, patients: Path):
    """One command gives answers that agree with the model in the clear; the receipt is audited, and replayed, on ciphertexts."""
    found = clinic.told("infer", "--encrypted", "--model", MODEL, str(patients))
    assert found["answers"] == ["benign", "not benign", "not benign"]
    assert found["error"] < 1e-4
    assert found["charged_wei"] > 0
    [receipt] = found["receipts"]
    replayed = clinic.cli("audit", "replay", receipt)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr

    def audited() -> bool:
        return clinic.told("receipt", "show", receipt)["state"] in ("verified", "settled")

    until("the validator to check it", audited)


def test_what_wont_be_paid_isnt_computed(clinic: Network, patients: Path):
    """A price below every offer is refused before anybody computes; inputs in the clear are never sent."""
    dear = clinic.cli("infer", "--encrypted", "--model", MODEL, "--max-price", "0.000000001", str(patients))
    assert dear.returncode == 1
    assert "raise it" in dear.stderr
    clear = clinic.cli("infer", "--model", MODEL, str(patients))
    assert clear.returncode == 2
    assert "in the clear" in clear.stderr


def test_a_provider_with_one_other_weight_loses_its_stake(clinic: Network, patients: Path):
    """The last test: the node serves the model with one weight bent; an auditor that sees ciphertexts alone convicts it."""
    [node] = [name for name in clinic.services() if name.startswith("node")]
    (DataFolder(clinic.data).of(node) / CHEAT).write_bytes(msgspec.json.encode(Cheat("bent")))
    restarts = clinic.kill(node)
    clinic.until_back(node, restarts)
    clinic.until_serving(1)
    found = clinic.told("infer", "--encrypted", "--model", MODEL, str(patients))
    assert found["error"] > 1e-2
    [receipt] = found["receipts"]

    def convicted() -> bool:
        return clinic.told("receipt", "show", receipt)["state"] in ("convicted", "refunded")

    until("the validator to convict it", convicted)
    assert clinic.cli("audit", "replay", receipt).returncode == 6
