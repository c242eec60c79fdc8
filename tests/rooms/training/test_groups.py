"""Runs over random groups: who skips, repeats, sends noise, collapses or boosts is named and done without; who trains isn't."""

import asyncio
import json
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bench.groups import played
from clusterai.cli.main import run
from clusterai.vault.adapters.aggregation import Declined
from clusterai.work.training.adapters.campaign import Campaign, CannotTrain, Outcome, Wish
from clusterai.work.training.adapters.hosting import Training
from clusterai.work.training.adapters.studio import Performed
from clusterai.work.training.core.bundle import Bundle
from clusterai.work.training.inside import records
from clusterai.work.training.spec import Round
from tests.rooms.training.studies import APP, ME, USE_WEI, Near, accuracy, close_vaults, digits

# --- the arithmetic alone: many rounds, no processes ---


@pytest.mark.parametrize(
    "cheat",
    [
        "skips",
        "repeats",
        "noise",
        "opposite",
        "collapse",
        "boost",
        "weight",
    ],
)
def test_who_cheats_is_named_within_twenty_rounds(cheat: str):
    """Two of twelve, in four groups of three; nobody else is named, and the model is as good as without them."""
    run = played(cheat, seed=2)
    assert set(run.named) == set(run.cheats)
    assert run.accuracy >= 0.92


@pytest.mark.parametrize("deal", ["iid", "1.0", "0.3"])
def test_nobody_who_trains_is_named_however_rows_are_dealt(deal: str):
    """Vaults with other rows than the others' pull less and elsewhere, and aren't accused of it."""
    for seed in range(2):
        assert played("", seed, deal=deal).named == {}


def test_what_is_not_named_is_bounded():
    """Wrong labels at two vaults are what honest rows could be: not named, and outvoted."""
    run = played("labels", seed=1)
    assert set(run.named) <= set(run.cheats)
    assert run.accuracy >= played("labels", seed=1, groups=1).accuracy


# --- whole runs: a ServerApp of Flower's, vaults with grants and budgets, secure sums; the ClientApp's arithmetic in this process ---


class Quick:
    """A studio without walls: what the example's ClientApp does, here."""

    def __init__(self, rows: slice) -> None:
        pixels, digit = digits()
        self._x, self._y = pixels[rows] / 16, digit[rows]

    async def perform(
        self,
        bundle: Bundle,
        message: bytes,
        about: Mapping[str, Any],
        node: Mapping[str, Any],
        config: Mapping[str, Any],
        data: Path,
        state: bytes = b"",
    ) -> Performed:
        _, arrays = records.decode(message)["arrays"]
        weights, bias = np.asarray(arrays["weights"]), np.asarray(arrays["bias"])
        metrics: dict[str, Any] = {"num-examples": len(self._y)}
        if about["type"] == "evaluate":
            metrics["accuracy"] = float(((self._x @ weights + bias).argmax(axis=1) == self._y).mean())
            return Performed({"metrics": ("metrics", metrics)})
        wanted = np.eye(10)[self._y]
        for _ in range(5):
            scores = self._x @ weights + bias
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            wrong = (powers / powers.sum(axis=1, keepdims=True) - wanted) / len(self._y)
            weights, bias = weights - self._x.T @ wrong, bias - wrong.sum(axis=0)
        reply: records.Records = {
            "arrays": ("arrays", {"weights": weights, "bias": bias}),
            "metrics": ("metrics", metrics),
        }
        return Performed(reply)


class Cheat(Training):
    """A vault whose owner changed the daemon: what it puts behind the mask is its own affair."""

    cheat = ""

    async def _contribution(self, study: Any, request: Round, message: bytes, content: Any) -> Any:
        made = await super()._contribution(study, request, message, content)
        values = made.vector.copy()
        if self.cheat == "skips" and request.training:
            values[:650] = 0
        if self.cheat == "boost" and request.training:
            values[:650] *= -20
        if self.cheat == "noise" and request.training:
            length = np.linalg.norm(values[:650])
            noise = np.random.default_rng(request.number).normal(0, 1, 650)
            values[:650] = np.rint(noise * (length / np.linalg.norm(noise)))
        if self.cheat == "metrics":
            values[-64:] = 2**40
        return msgspec.structs.replace(made, vector=values)


def grouped(folder: Path, count: int, app: Path = APP, **cheats: str) -> list[Near]:
    """As many vaults, `v3="skips"` and so on."""
    made: list[Near] = []
    for at in range(count):
        rows = slice(at, 1600, count)
        near = Near(folder / f"v{at}", f"v{at}", rows, app=app)
        near.service = Cheat(near.vault, lambda rows=rows: Quick(rows))  # pyright: ignore[reportArgumentType]
        near.service.cheat = cheats.get(near.name, "")
        made.append(near)
    return made


@pytest.fixture(autouse=True)
def closed() -> Generator[None]:
    yield
    close_vaults()


def trained(
    parties: list[Near],
    folder: Path,
    rounds: int,
    told: list[dict[str, Any]],
    app: Path = APP,
    **more: Any,
) -> Outcome:
    wish = Wish(
        rounds=rounds, groups=len(parties) // 3, norm=2.0, config={"num-server-rounds": rounds}, **more
    )
    return asyncio.run(Campaign(app, parties, ME.key, wish, folder, told.append).train())


def test_a_skipper_and_a_poisoner_are_named_and_earn_nothing_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Both are out of the run before it ends, nobody else is, and the card says why, as `train check` does; from then on they get no orders."""
    parties = grouped(tmp_path, 12, v3="skips", v7="boost")
    told: list[dict[str, Any]] = []
    outcome = trained(parties, tmp_path / "run", 8, told)
    assert {it.name for it in outcome.named} == {"v3", "v7"}
    assert outcome.model is not None
    assert accuracy(outcome.model) >= 0.85
    card = json.loads((tmp_path / "run" / "lineage.json").read_text())
    assert {it["name"] for it in card["named"]} == {"v3", "v7"}
    assert card["rule"] == "median"
    for it in outcome.named:
        party = next(party for party in parties if party.name == it.name)
        assert party.orders <= it.number + 1 < 16
        paid = [
            part["charged_wei"]
            for row in card["rounds"]
            for part in row["parts"]
            if part["subject"] == "0x" + party.subject.hex()
        ]
        assert sum(paid) == party.orders * USE_WEI
    assert all(len(row["groups"]) >= 3 for row in card["rounds"])
    assert any(group["verdict"] == "beyond" for row in card["rounds"] for group in row["groups"])
    assert run(["train", "check", str(tmp_path / "run")]) == 0, "its sums are what the card says"
    said = " ".join(capsys.readouterr().err.split())
    for it in outcome.named:
        assert (
            f"after round {it.number} the run went on without {it.name}, as its card says: {it.why}" in said
        )


def test_a_run_over_groups_goes_on_with_its_evidence(tmp_path: Path):
    """Killed after a vault was named, it is still done without; no vault is asked again."""
    parties = grouped(tmp_path, 9, v3="boost")
    told: list[dict[str, Any]] = []

    class BrokenOff(Exception):
        pass

    def broke(event: dict[str, Any]) -> None:
        told.append(event)
        if event["event"] == "summed" and any(it["event"] == "named" for it in told):
            raise BrokenOff

    wish = Wish(rounds=5, groups=3, norm=2.0, config={"num-server-rounds": 5})
    with pytest.raises(BrokenOff):
        asyncio.run(Campaign(APP, parties, ME.key, wish, tmp_path / "run", broke).train())
    before = parties[3].orders
    outcome = trained(parties, tmp_path / "run", 5, told)
    assert [it.name for it in outcome.named] == ["v3"]
    assert parties[3].orders == before
    with pytest.raises(CannotTrain, match="another folder"):
        asyncio.run(Campaign(APP, parties, ME.key, Wish(rounds=5), tmp_path / "run").train())


def test_a_metric_behind_a_mask_is_outvoted(tmp_path: Path):
    """One group's accuracy can be any number; the median of the groups' is an honest one."""
    parties = grouped(tmp_path, 9, v3="metrics")
    outcome = trained(parties, tmp_path / "run", 1, [])
    assert 0 <= outcome.history[-1]["accuracy"] <= 1


def test_groups_smaller_than_agreed_are_refused_by_the_vault(tmp_path: Path):
    """A run of one group is no run of three, and no group is of fewer than three."""
    parties = grouped(tmp_path, 9)
    told: list[dict[str, Any]] = []
    specs: list[Any] = []
    one = parties[0].service
    offered = one.offered

    async def seen(spec: Any, server: Any) -> Any:
        for groups in (4, 9):
            with pytest.raises(Declined, match="larger groups"):
                await offered(msgspec.structs.replace(spec, groups=groups), server)
        few = msgspec.structs.replace(spec, cohort=spec.cohort[:8])
        with pytest.raises(Declined, match="hide nobody"):
            await offered(few, server)
        specs.append(spec)
        return await offered(spec, server)

    one._sums._offer = seen  # pyright: ignore[reportPrivateUsage]
    trained(parties, tmp_path / "run", 1, told)
    assert [spec.groups for spec in specs] == [3, 3]


def test_a_strategy_that_compares_gets_each_groups_mean(tmp_path: Path):
    """FedMedian of Flower's, unmodified, over three groups: a proven cheat's group gives it no reply. Over one sum it is refused."""
    app = tmp_path / "median"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    server = app / "digits" / "server_app.py"
    server.write_text(server.read_text().replace("FedAvg", "FedMedian"))
    parties = grouped(tmp_path, 9, app, v3="boost")
    wish = Wish(rounds=2, groups=3, norm=2.0, config={"num-server-rounds": 2})
    outcome = asyncio.run(Campaign(app, parties, ME.key, wish, tmp_path / "run").train())
    assert outcome.model is not None
    assert accuracy(outcome.model) >= 0.7
    trained_rows = [row for row in outcome.card["rounds"] if row["type"] == "train"]
    assert all([it["verdict"] for it in row["groups"]].count("beyond") == 1 for row in trained_rows)
    alone = msgspec.structs.replace(wish, groups=1)
    with pytest.raises(CannotTrain, match="--groups 3 or more"):
        asyncio.run(Campaign(app, parties, ME.key, alone, tmp_path / "one").train())
