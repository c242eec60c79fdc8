"""Sealed inference through a whole network: encrypted here, computed there, audited by somebody who sees nothing either."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.running import ROOT, Network, until

pytestmark = pytest.mark.system

MODEL = "sealed-breast-cancer"


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    running = Network(tmp_path_factory.mktemp("clinic") / "data", model=MODEL, nodes=1)
    try:
        yield running.up()
    finally:
        running.stop()


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
