"""`clusterai data contribution`: files in, an appraisal out, and another's appraisal checked."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterai.cli.main import run

OWNERS = ["0x" + f"{at:02x}" * 20 for at in (3, 1, 2, 4)]


def write(path: Path, seed: int, count: int, turn: bool = False) -> None:
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["a", "kind", "b"])
        for _ in range(count):
            kind = int(rng.integers(0, 2))
            a, b = (3 * kind + rng.normal(0, 1, 2)).tolist()
            table.writerow([a, "yes" if kind != turn else "no", b])


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write(tmp_path / "held.csv", 1, 200)
    for at, name in enumerate(("one", "two", "bad")):
        write(tmp_path / f"{name}.csv", 10 + at, 100, turn=name == "bad")
    (tmp_path / "copy.csv").write_bytes((tmp_path / "one.csv").read_bytes())
    files = zip(OWNERS, ("one", "two", "bad", "copy"), strict=True)
    given = {
        "held_out": "held.csv", "label": "kind", "beacon": "0x" + "11" * 32, "pot_wei": 1_000,
        "contributions": [{"owner": owner, "rows": f"{name}.csv"} for owner, name in files],
    }  # fmt: skip
    (tmp_path / "study.json").write_text(json.dumps(given))
    return tmp_path / "study.json"


def told(study: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    assert run(["data", "contribution", str(study), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_study_is_appraised_from_its_files(study: Path, capsys: pytest.CaptureFixture[str]):
    """Honest rows share the pot, a copy earns nothing, turned labels are proposed for slashing; scores stand in the pot's order."""
    found = told(study, capsys)
    one, two, bad, copy = found["contributors"]
    assert one["share_wei"] + two["share_wei"] == 1_000
    assert (bad["propose_slashing"], copy["own"], copy["share_wei"]) == (True, 0, 0)
    assert found["participants"] == sorted(found["participants"], key=str.lower)
    assert [int(it) > 0 for it in found["scores"]] == [True, False, True, False]
    assert run(["data", "contribution", str(study)]) == 0
    assert found["digest"] in capsys.readouterr().out


def test_anothers_appraisal_is_checked(study: Path, capsys: pytest.CaptureFixture[str]):
    """The same files give the digest that was stated; one changed row doesn't, and that is a lie found out."""
    digest = told(study, capsys)["digest"]
    assert run(["data", "contribution", str(study), "--expect", digest]) == 0
    write(study.parent / "two.csv", 99, 100)
    assert run(["data", "contribution", str(study), "--expect", digest]) == 6


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("study.json", "{}", 2),
        ("two.csv", "a,b\n1,2\n", 1),
        ("two.csv", "a,kind,c\n1,yes,2\n", 1),
        ("two.csv", "a,kind,b\n1,yes,x\n", 1),
        ("two.csv", "a,kind,b\n1\n", 1),
        ("held.csv", "a,kind,b\n1,yes,1\n", 1),
        ("held.csv", "", 1),
    ],
)
def test_what_isnt_a_study_is_refused(study: Path, name: str, text: str, code: int):
    """Other columns, words for numbers, one label alone or no study at all: one sentence, no traceback."""
    (study.parent / name).write_text(text)
    assert run(["data", "contribution", str(study)]) == code
    (study.parent / "one.csv").unlink()
    assert run(["data", "contribution", str(study)]) != 0
