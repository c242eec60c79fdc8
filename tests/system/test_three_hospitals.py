"""The tutorial `docs/tutorials/three-hospitals.md`, between real processes: three vaults, a requester, a model and where it comes from."""

import asyncio
import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from clusterai.cli.asking import standings
from clusterai.cli.training import Remote
from clusterai.protocol.ids import digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Operation, dataset_id, subject
from clusterai.sdk.identity import Identity
from clusterai.sdk.vaults import Vaults
from clusterai.vault.adapters.folder import VaultFolder
from clusterai.vault.adapters.founding import found_vault
from clusterai.vault.adapters.importing import find
from clusterai.vault.core.policy import MICRO, Policy
from clusterai.vault.core.schema import Column, Schema
from clusterai.vault.core.secagg.cohort import membership
from clusterai.work.training.adapters.packing import bundle_of
from clusterai.work.training.adapters.parties import VaultSaid, ask
from clusterai.work.training.spec import Begin, Good, Hello, Hi, Run
from tests.rooms.training.studies import flower
from tests.system import rewarded
from tests.system.running import Network, until

pytestmark = pytest.mark.system

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


def hospital(folder: Path, at: int) -> VaultFolder:
    """A vault with a third of the patients."""
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
    file = folder / f"{HOSPITALS[at]}.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["patient", *names, "malignant"])
        for row in range(HELD_OUT + at, len(malignant), 3):
            rows.writerow([row, *features[row], malignant[row]])
    name = HOSPITALS[at]
    return found_vault(folder / name, name, folder / f"{name}.key", schema, find(file), POLICY)


def accuracy(model: Path) -> float:
    """On patients that no hospital has."""
    _, features, malignant = patients()
    known = features[:HELD_OUT]
    scaled = (known - known.mean(0)) / known.std(0)
    with np.load(model) as found:
        weights = found["model"]
    guessed = scaled @ weights[:-1] + weights[-1] > 0
    return float((guessed == (malignant[:HELD_OUT] > 0)).mean())


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("hospitals")
    flower()
    running = Network(folder / "data", vaults=[hospital(folder, at).root for at in range(3)])
    try:
        yield running.up()
    finally:
        running.stop()


def told(network: Network, *words: str) -> Any:
    done = network.cli(*words, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("epsilon", [(), ("--epsilon", "4")])
def test_three_hospitals_train_a_model_together(network: Network, tmp_path: Path, epsilon: tuple[str, ...]):
    """Asked for, granted by policy, trained by secure sums, paid; the card names every source, with and without ε."""
    app = tmp_path / "hospitals"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    who = ("--identity", str(tmp_path / "identity.json"))
    names = ",".join(HOSPITALS)
    asked = told(
        network, "train", "request", str(app), "--vaults", names, "--purpose", "malignancy", *epsilon, *who
    )
    assert {it["state"] for it in asked} <= {"approved", "granted"}
    until_granted(network, who)
    pot = rewarded.put_up(network, app, HOSPITALS, tmp_path / "identity.json")
    before_wei = network.http("account")["charged_wei"]
    words = (
        "train",
        "federated",
        str(app),
        "--vaults",
        names,
        "--rounds",
        "2",
        "--blocks",
        "4",
        "--norm",
        "1",
    )
    out = told(network, *words, "--max-price", "1", *epsilon, *who)
    card = json.loads(Path(out["lineage"]).read_text())
    assert {source["name"] for source in card["sources"]} == set(HOSPITALS)
    assert [it["dropped"] for it in card["rounds"]] == [{}] * len(card["rounds"])
    assert all(len(it["summed"]) == 3 and it["transcript"] for it in card["rounds"])
    assert card["failed_parts"] == 0
    assert network.http("account")["charged_wei"] - before_wei == out["charged_wei"] > 0
    assert rewarded.scored(network, app, pot) == dict.fromkeys(HOSPITALS, 2.0)
    if epsilon:
        assert 2 < out["epsilon"] <= 4
        assert card["privacy"]["unit"] == "one person's rows at one vault"
    else:
        assert accuracy(Path(out["model"])) >= 0.82
        assert out["history"][-1]["accuracy"] >= 0.82


def test_a_requester_who_brings_its_own_members_gets_nothing(network: Network, tmp_path: Path):
    """A villain: one hospital among members that the requester made up. The hospital asks the chain who they are, and gives nothing."""
    app = tmp_path / "hospitals"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    place = tmp_path / "identity.json"
    who = ("--identity", str(place))
    told(network, "train", "request", str(app), "--vaults", "north", "--purpose", "malignancy", *who)
    until_granted(network, who, 1)
    me, sybils = Identity.load_or_make(place), [Key(bytes([at]) * 32) for at in (1, 2)]

    async def main() -> str:
        ready = network.ready
        async with Vaults(ready["openai_base_url"], ready["openai_api_key"]) as vaults:
            [listed] = [it async for it in vaults.find("north") if it.name == "north"]
            [grant] = [it.grant for it in await standings(vaults, listed, me)]
            assert grant is not None
            victim = Remote(vaults, listed, digest(grant), me)
            hi = await ask(victim, Hello(), Hi)
            datasets = [dataset_id(it.address, "mine") for it in sybils]
            papers = [
                membership(it, listed.network, data, it.address)
                for it, data in zip(sybils, datasets, strict=True)
            ]
            run = Run(
                nonce=bytes(32),
                app=bundle_of(app).digest,
                requester=me.address,
                config=b"",
                weight="num-examples",
                subjects=(bytes(victim.subject), *(bytes(subject(it, "training")) for it in datasets)),
                members=(hi.member, *(it.address for it in sybils)),
                norm_micro=10**6,
                noise_milli=0,
                delta_pico=0,
                blocks=1,
                masked=True,
            )
            begin = Begin(run, victim.grant, bundle_of(app).canonical(), (hi.membership, *papers))
            with pytest.raises(VaultSaid) as said:
                await ask(victim, begin, Good)
            return str(said.value)

    assert "isn't listed on chain" in asyncio.run(main())


def until_granted(network: Network, who: tuple[str, ...], count: int = len(HOSPITALS)) -> None:
    """A policy's grant stands on chain after some blocks."""

    def granted() -> bool:
        done = network.cli("data", "grants", "--json", *who)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["grants"]
        return len(found) == count and all(it["state"] == "granted" for it in found)

    until("all grants stand", granted)
