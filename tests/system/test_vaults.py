"""A requester's calls and paid queries reach a vault between real processes, and outlive the node's death."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterai.protocol.ids import Address, checksummed, digest, hex0x
from clusterai.sdk.vaults import ApiError, Vaults
from clusterai.work.query.spec import Refusal, decode_said
from tests.system.running import Network
from tests.system.vaulted import MILLI_WEI, USE_WEI, Requester, vault_at

pytestmark = pytest.mark.system

SQL = "select ward, count(*) as patients from hearts group by ward"
PRICE_WEI = 100 * MILLI_WEI + USE_WEI
"""Of a query with ε 0.1."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Two nodes, the first of which holds a vault."""
    folder = tmp_path_factory.mktemp("vaults")
    running = Network(folder / "data", vaults=[vault_at(folder).root])
    try:
        yield running.up()
    finally:
        running.stop()


def client(network: Network, patience_s: float = 120.0) -> Vaults:
    return Vaults(network.ready["openai_base_url"], network.ready["openai_api_key"], patience_s)


async def requester(vaults: Vaults) -> Requester:
    async for data in vaults.find("hearts"):
        return Requester(vaults, data)
    raise AssertionError("the vault is listed when its network is ready")


def spent(network: Network) -> int:
    return network.http("account")["charged_wei"]


def test_a_query_is_granted_answered_paid_and_logged(network: Network):
    """Access is asked for by a sealed call, the query is an order, its answer only its requester's, its receipt charged."""

    async def main() -> None:
        async with client(network) as vaults:
            one = await requester(vaults)
            assert one.data.holders == (checksummed(Address(one.data.listing.owner)),)
            spec = one.query(await one.granted(int(time.time())), SQL)
            before_wei = spent(network)
            done = await one.order(spec, "first")
            _, use = one.read(spec, done.answer)
            assert (use.use.epsilon_micro, use.use.index) == (100_000, 0)
            assert done.receipt is not None
            assert (done.receipt.input_units, done.receipt.output_units) == (100, 1)
            assert done.charged_wei == spent(network) - before_wei == PRICE_WEI
            assert (await one.order(spec, "first")).answer == done.answer
            assert spent(network) - before_wei == PRICE_WEI
            assert await one.uses() == (use,)
            listed = network.http("receipts")["receipts"]
            assert done.receipt.id in [it["id"] for it in listed]

    asyncio.run(main())


def test_without_a_grant_nothing_is_answered_or_charged(network: Network):
    """Another's grant, and a budget that is spent, are refused with the vault's reason."""

    async def main() -> None:
        async with client(network) as vaults:
            one, other = await requester(vaults), await requester(vaults)
            grant = await one.granted(int(time.time()))
            before_wei = spent(network)
            with pytest.raises(ApiError, match="requester"):
                await other.order(other.query(grant, SQL))
            refused = await one.order(one.query(grant, SQL, 6_000_000))
            said = decode_said(refused.answer)
            assert isinstance(said, Refusal)
            assert (said.code, refused.charged_wei) == ("budget", 0)
            assert spent(network) == before_wei

    asyncio.run(main())


def test_a_node_that_is_killed_loses_nothing_and_charges_nothing_twice(network: Network):
    """`kill -9` while queries run: each is answered in the end, spends its ε once, and is charged once."""

    async def main() -> None:
        async with client(network) as vaults:
            one = await requester(vaults)
            grant = await one.granted(int(time.time()))
            before_wei, count = spent(network), 12
            specs = [one.query(grant, SQL) for _ in range(count)]
            asking = [asyncio.create_task(one.order(spec, f"killed-{at}")) for at, spec in enumerate(specs)]
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            node = network.service_of(hex0x(one.data.listing.owner))
            restarts = await asyncio.to_thread(network.kill, node)
            done = await asyncio.gather(*asking)
            await asyncio.to_thread(network.until_back, node, restarts)
            uses = {one.read(spec, it.answer)[1] for spec, it in zip(specs, done, strict=True)}
            assert len(uses) == count
            logged = await one.uses()
            assert {it.use.order for it in logged} == {spec.digest() for spec in specs}
            assert len(logged) == count
            assert max(it.use.grant_spent_micro for it in logged) == 100_000 * count
            assert spent(network) - before_wei == PRICE_WEI * count
            assert sum(it.charged_wei for it in done) == PRICE_WEI * count
            again = await one.order(specs[0], "killed-0")
            assert again.answer == done[0].answer
            assert spent(network) - before_wei == PRICE_WEI * count

    asyncio.run(main())


def serve(network: Network, vault: Path, node: Path, *more: str) -> Any:
    done = network.cli(
        "vault",
        "serve",
        str(vault),
        f"http://127.0.0.1:{network.port}",
        "--folder",
        str(node),
        "--yes",
        "--json",
        *more,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_vault_is_served_by_one_command(network: Network, tmp_path: Path):
    """Keys, registration, stake, configuration and daemon: then it is listed and answers; another vault joins the same node."""
    lungs, kidneys = vault_at(tmp_path, "lungs"), vault_at(tmp_path, "kidneys")
    node = tmp_path / "node"
    assert len(serve(network, lungs.root, node, "--dry-run")["steps"]) == 5
    try:
        first = serve(network, lungs.root, node)
        assert serve(network, lungs.root, node) == first
        second = serve(network, kidneys.root, node)
        assert second["provider"] == first["provider"]
        assert second["dataset"] != first["dataset"]

        async def main() -> None:
            async with client(network) as vaults:
                for told in (first, second):
                    one = Requester(vaults, await vaults.dataset(digest(told["dataset"])))
                    spec = one.query(
                        await one.granted(int(time.time())), SQL.replace("hearts", one.data.name)
                    )
                    done = await one.order(spec)
                    assert one.read(spec, done.answer)[1].use.index == 0
                    assert done.provider == first["provider"]

        asyncio.run(main())
    finally:
        command = [sys.executable, "-m", "clusterai.cli", "node", "drain", "--folder", str(node)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
