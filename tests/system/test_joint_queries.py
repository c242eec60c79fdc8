"""`clusterai query --joint` between real processes: three vaults, one statistic, paid and logged at each."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterai.protocol.vaults import Operation
from clusterai.vault.adapters.folder import VaultFolder
from clusterai.vault.adapters.founding import found_vault
from clusterai.vault.adapters.importing import find
from clusterai.vault.core.policy import MICRO, Policy
from clusterai.vault.core.schema import Column, Schema
from tests.rooms.joint.clinics import standin
from tests.system.running import Network, until

pytestmark = pytest.mark.system

CLINICS = ("alder", "birch", "cedar")
ROWS = 1_500
USE_WEI, MILLI_WEI = 50_000, 1_000
SCHEMA = Schema(
    columns=(
        Column(name="patient", kind="int", low=0, high=100_000),
        Column(name="age", kind="int", low=0, high=100),
        Column(name="dose", kind="float", low=0, high=50),
    ),
    unit="patient",
)
POLICY = Policy(
    operations=(Operation.JOINT,),
    grant_epsilon_micro=8 * MICRO,
    requester_epsilon_micro=8 * MICRO,
    total_epsilon_micro=20 * MICRO,
    use_wei=USE_WEI,
    milli_epsilon_wei=MILLI_WEI,
    auto_operations=(Operation.JOINT,),
    auto_epsilon_micro=8 * MICRO,
)


def patients(at: int) -> dict[str, Any]:
    draw = np.random.default_rng(at)
    age = draw.integers(20, 90, ROWS)
    dose = np.clip(3 + 0.4 * age + draw.normal(0, 2, ROWS), 0, 50).round(3)
    return {"patient": np.arange(ROWS) + at * 10_000, "age": age, "dose": dose}


def clinic(folder: Path, at: int) -> VaultFolder:
    name, rows = CLINICS[at], patients(at)
    file = folder / f"{name}.csv"
    with file.open("w", newline="") as out:
        written = csv.writer(out)
        written.writerow(rows)
        written.writerows(zip(*(it.tolist() for it in rows.values()), strict=True))
    return found_vault(folder / name, name, folder / f"{name}.key", SCHEMA, find(file), POLICY)


def pooled(column: str) -> Any:
    return np.concatenate([patients(at)[column] for at in range(len(CLINICS))]).astype(float)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("clinics")
    with pytest.MonkeyPatch.context() as patch:
        # OpenFHE's shape alone: `bench/secagg.py --parts ckks` is the library's own run.
        patch.setenv("CLUSTERAI_OPENFHE_PYTHON", standin(folder))
        yield from served(folder)


def served(folder: Path) -> Iterator[Network]:
    running = Network(folder / "data", vaults=[clinic(folder, at).root for at in range(len(CLINICS))])
    try:
        yield running.up()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def who(network: Network, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A requester with grants at all three: one with ε, and one without noise."""
    who = ("--identity", str(tmp_path_factory.mktemp("requester") / "identity.json"))
    for name in CLINICS:
        for epsilon in ("4", "0"):
            words = (
                "data",
                "request",
                name,
                "--operation",
                "joint",
                "--epsilon",
                epsilon,
                "--purpose",
                "ages",
            )
            done = network.cli(*words, "--yes", "--json", *who)
            assert done.returncode == 0, done.stderr

    def granted() -> bool:
        found = network.told("data", "grants", *who)["grants"]
        return len(found) == 2 * len(CLINICS) and all(it["state"] == "granted" for it in found)

    until("all grants stand", granted)
    return who


def asked(network: Network, who: tuple[str, ...], sql: str, *words: str) -> Any:
    vaults = [word for name in CLINICS for word in ("--vault", name)]
    done = network.cli("query", "--joint", sql, *vaults, "--yes", "--json", *words, *who)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def numbers(told: Any) -> dict[str, float]:
    return {it["name"]: it["value"] for it in told["answer"]}


def test_three_vaults_answer_as_one(network: Network, who: tuple[str, ...], tmp_path: Path):
    """ε 1: the mean of all their rows within its interval, three uses paid, ε spent once at each; the same under a key that nobody holds, and an owner's replay of it; then a regression, exactly."""
    before_wei = network.http("account")["charged_wei"]
    came = asked(network, who, "select count(*) as n, avg(age) as age from patients", "--epsilon", "1")
    value, half = numbers(came)["age"], came["answer"][1]["half_width"]
    # A half width is 1.96 deviations, by 400 draws: four are missed once in 10^12 runs. Of n, 300 are 18 deviations.
    assert abs(value - pooled("age").mean()) < 4 * half < 3
    assert abs(numbers(came)["n"] - 3 * ROWS) < 300
    assert not came["dropped"]
    assert not came["found_wrong"]
    assert [it["in_sum"] for it in came["vaults"]] == [True] * 3
    assert {it["grant_spent_epsilon"] for it in came["vaults"]} == {1.0}
    charged_wei = network.http("account")["charged_wei"] - before_wei
    assert charged_wei == came["charged_wei"] == 3 * (1_000 * MILLI_WEI + USE_WEI)

    again = asked(network, who, "select avg(age) as age", "--epsilon", "1", "--by", "ckks")
    assert abs(numbers(again)["age"] - pooled("age").mean()) < 4 * again["answer"][0]["half_width"]
    assert again["charged_wei"] == came["charged_wei"]
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(again))
    replayed = network.told("vault", "replay", str(network.data.parent / CLINICS[1]), "--query", str(file))
    assert [(it["kind"], it["tally"], it["wrong"]) for it in replayed["queries"]] == [("joint", True, "")]

    line = asked(network, who, "select regression(dose, age)", "--epsilon", "0")
    polyfit: Any = np.polyfit
    true: list[float] = polyfit(pooled("age"), pooled("dose"), 1).tolist()
    assert [numbers(line)["age"], numbers(line)["intercept"]] == pytest.approx(true, rel=1e-3)
    assert line["charged_wei"] == 3 * USE_WEI


def test_what_is_shown_to_people_names_who_is_in_it(network: Network, who: tuple[str, ...]):
    """A table of numbers with what the noise does to each, and the vaults."""
    vaults = [word for name in CLINICS for word in ("--vault", name)]
    words = ("query", "--joint", "select histogram(age, 4)", *vaults, "--epsilon", "1", "--yes", *who)
    done = network.cli(*words)
    assert done.returncode == 0, done.stderr
    assert "25..50" in done.stdout
    assert "alder, birch, cedar together" in done.stdout + done.stderr


def test_too_little_is_refused_before_anything_is_spent(network: Network, who: tuple[str, ...]):
    """Two vaults, a budget that isn't left, a price above the limit: refused, and nothing is charged."""
    before_wei = network.http("account")["charged_wei"]
    sql = "select avg(age)"
    vaults = [word for name in CLINICS for word in ("--vault", name)]
    for words, why in (
        (("--vault", "alder", "--vault", "birch", "--epsilon", "1"), "fewer than three"),
        ((*vaults, "--epsilon", "9"), "no grant that holds this"),
        ((*vaults, "--epsilon", "1", "--max-price", "0.000001"), "above --max-price"),
    ):
        done = network.cli("query", "--joint", sql, *words, "--yes", *who)
        assert done.returncode != 0
        assert why in done.stderr
    assert network.http("account")["charged_wei"] == before_wei
