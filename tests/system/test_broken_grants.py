"""`kill -9` in the life of a grant, between real processes: chain, gateway and the vault's node, each in each of its phases.

One grant is played, in which at each step one process dies; `CLUSTERAI_EVERY=1` plays all three, after which each has died at each step.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterai.ledger.core import events
from clusterai.protocol.access import Standing
from clusterai.protocol.ids import Digest, hex0x
from clusterai.sdk.vaults import ApiError, Vaults
from clusterai.vault.adapters.bookkeeping import read_book
from clusterai.vault.adapters.folder import VaultFolder
from clusterai.vault.core.policy import MICRO
from tests.system import gauntlet
from tests.system.gauntlet import Step
from tests.system.onchain import Onchain
from tests.system.running import Network, until
from tests.system.vaulted import MILLI_WEI, USE_WEI, Requester, vault_at

pytestmark = [pytest.mark.system, pytest.mark.long]

SQL = "select ward, count(*) as patients from hearts group by ward"
PRICE_WEI = 100 * MILLI_WEI + USE_WEI
STEPS = (Step("asked"), Step("granted"), Step("used"), Step("revoked"), Step("ended"))
ROUNDS = gauntlet.rounds(STEPS, ("chain", "vault", "gateway"))
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grants")


@pytest.fixture(scope="module")
def vault(folder: Path) -> VaultFolder:
    return vault_at(folder)


@pytest.fixture(scope="module")
def network(folder: Path, vault: VaultFolder) -> Iterator[Network]:
    running = Network(folder / "data", vaults=[vault.root])
    try:
        yield running.up()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def onchain(network: Network) -> Iterator[Onchain]:
    following = Onchain(network)
    yield following
    following.close()


@pytest.mark.parametrize("victims", ROUNDS, ids=lambda victims: f"first-{victims[0]}")
def test_a_grant_outlives_whatever_dies_in_each_of_its_phases(
    network: Network, onchain: Onchain, vault: VaultFolder, victims: list[str]
):
    """It stands once, its use spends and costs once, and once it is revoked it ends once and nothing more is answered."""

    def on_chain(kind: type, grant: Digest) -> int:
        return sum(isinstance(it, kind) and it.grant == grant for it in list(onchain.told))

    async def main() -> None:
        async with Vaults(
            network.ready["openai_base_url"], network.ready["openai_api_key"], PATIENCE_S
        ) as vaults:
            (data,) = [it async for it in vaults.find("hearts")]
            one = Requester(vaults, data)
            killing = Killing(network, network.service_of(hex0x(data.listing.owner)), victims)
            before_wei = network.http("account")["charged_wei"]

            request = one.asks(time.time())
            assert isinstance(await one.told(request), Standing)
            await killing.at("asked")
            grant = await one.until_granted(request)
            await asyncio.to_thread(until, "the licence", lambda: on_chain(events.AccessGranted, grant))
            await killing.at("granted")

            spec = one.query(grant, SQL)
            asking = asyncio.create_task(one.order(spec, f"one-{grant.hex()}"))
            await asyncio.to_thread(until, "ε to be spent", lambda: spec.digest() in orders(vault))
            await killing.at("used")
            done = await asking
            one.read(spec, done.answer)
            await killing.until_back()
            assert done.charged_wei == network.http("account")["charged_wei"] - before_wei == PRICE_WEI

            await asyncio.to_thread(revoke, vault, grant)
            await killing.at("revoked")
            await asyncio.to_thread(until, "its end", lambda: on_chain(events.GrantEnded, grant))
            await killing.at("ended")
            await killing.until_back()
            with pytest.raises(ApiError, match="revoked"):
                await one.order(one.query(grant, SQL))
            assert network.http("account")["charged_wei"] - before_wei == PRICE_WEI
            assert (on_chain(events.AccessGranted, grant), on_chain(events.GrantEnded, grant)) == (1, 1)
            mine = [it.epsilon_micro for it in read_book(vault).uses() if it.grant == grant]
            assert mine == [MICRO // 10]

    asyncio.run(main())


class Killing:
    """Who dies at which step."""

    def __init__(self, network: Network, node: str, victims: list[str]) -> None:
        self._network = network
        self._names = [node if victim == "vault" else victim for victim in victims]
        self._dead: dict[str, int] = {}

    async def at(self, step: str) -> None:
        name = self._names[[it.name for it in STEPS].index(step)]
        print(f"{name} when it was {step}")
        self._dead[name] = await asyncio.to_thread(self._network.kill, name)

    async def until_back(self) -> None:
        dead, self._dead = self._dead, {}
        for name, restarts in dead.items():
            await asyncio.to_thread(self._network.until_back, name, restarts)


def orders(vault: VaultFolder) -> set[bytes]:
    return {bytes(it.order) for it in read_book(vault).uses()}


def revoke(vault: VaultFolder, grant: Digest) -> None:
    words = ("vault", "revoke", str(vault.root), hex0x(grant), "--yes", "--json")
    command = [sys.executable, "-m", "clusterai.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "revoked"
