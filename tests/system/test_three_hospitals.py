"""The tutorial `docs/tutorials/three-hospitals.md`, between real processes: three vaults, a requester, a model and where it comes from."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clusterai.cli.asking import standings
from clusterai.cli.training import Remote
from clusterai.protocol.ids import digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import dataset_id, subject
from clusterai.sdk.identity import Identity
from clusterai.sdk.vaults import Vaults
from clusterai.vault.core.secagg.cohort import membership
from clusterai.work.training.adapters.packing import bundle_of
from clusterai.work.training.adapters.parties import VaultSaid, ask
from clusterai.work.training.spec import Begin, Good, Hello, Hi, Run
from tests.system import rewarded
from tests.system.hospitals import HELD_OUT, HOSPITALS, app_in, hospitals, patients, told, until_granted
from tests.system.running import Network

pytestmark = pytest.mark.system


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
    with hospitals(tmp_path_factory.mktemp("hospitals")) as running:
        yield running


@pytest.mark.parametrize("epsilon", [(), ("--epsilon", "4")])
def test_three_hospitals_train_a_model_together(network: Network, tmp_path: Path, epsilon: tuple[str, ...]):
    """Asked for, granted by policy, trained by secure sums, paid; the card names every source, with and without ε."""
    app = app_in(tmp_path)
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
    app = app_in(tmp_path)
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
