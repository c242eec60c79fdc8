"""Pots for data from the command line, between real processes: vaults that are paid, and everybody who tried to be paid for nothing."""

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterai.cli import pots, staking
from clusterai.cli.failure import Exit
from clusterai.cli.main import run
from clusterai.ledger.adapters.network import Network as Manifest
from clusterai.ledger.adapters.network import load_network, make_key
from clusterai.ledger.core import calls
from clusterai.protocol.ids import Address, Digest, address, checksummed
from clusterai.protocol.money import WEI_PER_TOKEN as COIN
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Operation
from clusterai.vault.adapters.folder import VaultFolder
from clusterai.vault.adapters.founding import found_vault
from clusterai.vault.adapters.importing import find
from clusterai.vault.core.policy import Policy
from clusterai.vault.core.schema import Column, Schema
from tests.system.running import Network, until

pytestmark = pytest.mark.system

SCHEMA = Schema(
    columns=(
        Column(name="patient", kind="int", low=0, high=10_000),
        Column(name="a", kind="float", low=-20, high=20),
        Column(name="b", kind="float", low=-20, high=20),
        Column(name="kind", kind="category", categories=("no", "yes")),
    ),
    unit="patient",
)
AMOUNT = 12 * COIN
BOND = AMOUNT // 20
ROWS = 80


def table(path: Path, seed: int, turned: bool = False) -> Path:
    """Patients whose kind two measurements tell, most of the time."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("patient", "a", "b", "kind"))
        for at in range(ROWS):
            kind = int(rng.integers(0, 2))
            a, b = (3 * kind + rng.normal(0, 1, 2)).tolist()
            out.writerow((at, a, b, ("no", "yes")[kind != turned]))
    return path


def vault(folder: Path, name: str, seed: int) -> VaultFolder:
    """One that sells copies to whoever asks."""
    policy = Policy(operations=(Operation.COPY,), copy_wei=COIN // 10, auto_operations=(Operation.COPY,))
    data = table(folder / f"{name}.in.csv", seed)
    return found_vault(folder / name, name, folder / f"{name}.key", SCHEMA, find(data), policy)


class Stage:
    """The network, the folder of the study, and everybody's keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vaults = {name: vault(folder, name, seed) for seed, name in enumerate(("north", "west"), 1)}
        self.network = Network(folder / "data", vaults=[it.root for it in self.vaults.values()])
        table(folder / "held.csv", 9)
        self.files = {
            "copier": folder / "north.in.csv",
            "poisoner": table(folder / "poison.csv", 4, turned=True),
            "rider": table(folder / "kept-back.csv", 5),
        }
        self.manifest: Manifest

    def up(self) -> "Stage":
        self.network.up()
        self.manifest = load_network(self.network.data / "network.json")
        return self

    def path(self, name: str) -> Path:
        """A key of the network's, or a stranger's, made now."""
        path = self.network.data / "keys" / f"{name}.key"
        return path if path.exists() else self.folder / f"{name}.key"

    def key(self, name: str) -> Key:
        return make_key(self.path(name))

    def address(self, name: str) -> str:
        return checksummed(self.key(name).address)

    def fund(self, name: str, amount_wei: int) -> None:
        paid = calls.Transfer(self.key(name).address, amount_wei)
        staking.carry_out(self.manifest, self.key("treasury"), [paid])

    def balance(self, who: Address) -> int:
        return staking.asked(self.manifest, lambda client: client.read("Token", "balanceOf", who))

    def study(self, name: str) -> Path:
        """Two vaults, of which the second was brought by a scout; a copier, a poisoner that brought itself, and two who give nothing."""
        contributions = [
            {"vault": "north", "rows": "copies/north.csv"},
            {"vault": "west", "rows": "copies/west.csv", "referrer": self.address("scout")},
            {"owner": self.address("copier"), "rows": "north.in.csv"},
            {"owner": self.address("poisoner"), "rows": "poison.csv", "referrer": self.address("sock")},
            {"owner": self.address("rider"), "rows": "north.in.csv"},
            {"owner": self.address("absent"), "rows": "poison.csv"},
        ]
        (self.folder / "copies").mkdir(exist_ok=True)
        path = self.folder / name
        told = {"held_out": "held.csv", "label": "kind", "features": ["a", "b"], "quality": 0.2}
        path.write_text(json.dumps(told | {"contributions": contributions}))
        return path

    def owners(self, study: Path) -> dict[str, str]:
        given = json.loads(study.read_text())["contributions"]
        return {it.get("vault", ""): it["owner"] for it in given}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("rewards"))
    try:
        yield made.up()
    finally:
        made.network.stop()


@pytest.fixture
def reward(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """`clusterai data reward …` by somebody's key: what it prints, or the exit code that it ends with."""
    monkeypatch.setenv("CLUSTERAI_DATA", str(stage.network.data))
    monkeypatch.setenv("CLUSTERAI_IDENTITY", str(tmp_path / "identity.json"))

    def act(verb: str, *words: str | Path, by: str = "treasury", fails: int = Exit.OK) -> Any:
        asks = () if verb in ("gather", "check", "vote", "close", "claim", "show") else ("--yes",)
        signed = () if verb == "show" else ("--key", str(stage.path(by)))
        done = run(["data", "reward", verb, *map(str, words), *signed, *asks, "--json"])
        told = capsys.readouterr()
        assert done == fails, told.err
        return json.loads(told.out) if told.out else told.err

    return act


Act = Callable[..., Any]


def opened(stage: Stage, reward: Act, study: Path, *more: str) -> str:
    """A pot that all but one have joined, the copier after the vault that it copies."""
    pot: str = reward("open", study, "--amount", "12", "--referral", "10", *more)["pot"]
    for at, name in enumerate(("north", "west"), 1):
        reward("join", pot, "--vault", stage.vaults[name].root, by=f"node-{at}.hot")
    for name, file in stage.files.items():
        reward("join", pot, "--rows", file, by=name)
    return pot


def test_vaults_are_paid_and_nobody_else(stage: Stage, reward: Act) -> None:
    """Put up, joined, scored, contested in vain, closed and claimed: two vaults and a scout have all of it, to the unit; a copier, a poisoner
    and its other name, who gave no table and who never joined have nothing; nobody is paid twice."""
    for name in ("scout", "sock", "copier", "poisoner", "rider", "absent", "evaluator"):
        stage.key(name)
    stage.fund("evaluator", BOND)
    stage.fund("poisoner", BOND)
    study = stage.study("study.json")
    pot = opened(stage, reward, study, "--evaluator", stage.address("evaluator"), "--join-hours", "0.004")
    assert reward("join", pot, "--rows", stage.folder / "held.csv", by="treasury", fails=Exit.FAILED)
    assert reward("join", pot, "--rows", stage.folder / "held.csv", by="rider", fails=Exit.FAILED)
    came = reward("gather", pot, study, "--max-price", "0.1")
    assert came == {"north": "fetched", "west": "fetched"}
    assert set(reward("gather", pot, study).values()) == {"here"}
    scored: dict[str, Any] = until("scores", lambda: _scored(reward, pot, study))
    of = {it["owner"]: it for it in scored["contributors"]}
    owners = stage.owners(study)
    north, west = (of[owners[name]] for name in ("north", "west"))
    copier, poisoner = (of[stage.address(name)] for name in ("copier", "poisoner"))
    assert north["score"] > 0 < west["score"]
    assert 0.5 < north["quality"] <= 1
    assert (copier["own"], copier["score"]) == (0, 0)
    assert (poisoner["score"], poisoner["propose_slashing"]) == (0, True)
    assert "another table" in scored["nothing"][stage.address("rider")]
    assert reward("check", pot, study)["same"] is True
    # A poisoner that doesn't like its zero has the panel look, which finds the same: that costs it the bond.
    reward("contest", pot, by="poisoner")
    assert reward("vote", pot, study, by="validator.hot")["same"] is True
    closed = reward("close", pot)
    earned = {it["owner"]: it["earned_wei"] for it in closed["participants"] if it["earned_wei"]}
    assert set(earned) == {owners["north"], owners["west"]}
    scout = closed["referrals"][stage.address("scout")]
    assert set(closed["referrals"]) == {stage.address("scout")}
    assert scout == (earned[owners["west"]] + scout) // 10
    assert sum(earned.values()) + scout == AMOUNT
    assert reward("close", pot, fails=Exit.FAILED)
    for owner, wei in {**earned, stage.address("scout"): scout, stage.address("evaluator"): BOND}.items():
        before = stage.balance(address(owner))
        assert reward("claim", "--for", owner, by="rider")["amount_wei"] == wei
        assert stage.balance(address(owner)) == before + wei
        assert "owed nothing" in reward("claim", "--for", owner, fails=Exit.FAILED)
    for name in ("copier", "poisoner", "sock", "rider", "absent"):
        assert "owed nothing" in reward("claim", "--for", stage.address(name), fails=Exit.FAILED)
    assert reward("claim")["amount_wei"] == BOND, "the poisoner's, to the payer"
    assert stage.balance(stage.manifest.contracts.rewards) == 0


def _scored(reward: Act, pot: str, study: Path) -> Any:
    """Scored, or None as long as who never joined may still join."""
    stage_of = reward("show", pot)
    if stage_of["join_by_s"] >= time.time() - 2:
        return None
    return reward("score", pot, study, by="evaluator")


def test_false_scores_cost_their_evaluator_its_bond(stage: Stage, reward: Act) -> None:
    """An evaluator that gives a copier everything is found out by whoever makes the scores again, overruled by the panel, and pays for it."""
    stage.fund("evaluator", BOND)
    stage.fund("node-1.hot", BOND)
    study = stage.study("other.json")
    pot = opened(stage, reward, study, "--evaluator", stage.address("evaluator"), "--join-hours", "0.004")
    told = pots.one(stage.manifest, pot)
    false = tuple(9 * (it == stage.key("copier").address) for it in told.pot.participants)
    until("joining ends", lambda: time.time() > told.pot.join_by_s + 2)
    lie = calls.ScorePot(told.pot, Digest(bytes([7]) * 32), false)
    approved = calls.Approve(stage.manifest.contracts.rewards, BOND)
    staking.carry_out(stage.manifest, stage.key("evaluator"), [approved, lie])
    reward("gather", pot, study, "--max-price", "0.1")
    assert reward("check", pot, study, fails=Exit.UNTRUE)["same"] is False
    reward("contest", pot, by="node-1.hot")
    assert reward("vote", pot, study, by="validator.hot")["same"] is False
    assert "have to be made again" in reward("close", pot, fails=Exit.FAILED)
    closed = reward("close", pot, study)
    owners = stage.owners(study)
    earned = {it["owner"]: it["earned_wei"] for it in closed["participants"] if it["earned_wei"]}
    assert set(earned) == {owners["north"], owners["west"]}
    assert sum(earned.values()) + sum(closed["referrals"].values()) == AMOUNT
    assert "owed nothing" in reward("claim", "--for", stage.address("evaluator"), fails=Exit.FAILED)
    contester = reward("claim", "--for", stage.address("node-1.hot"))
    assert contester["amount_wei"] == 2 * BOND
    for owner in (*earned, stage.address("scout")):
        reward("claim", "--for", owner)
    assert stage.balance(stage.manifest.contracts.rewards) == 0
