"""A node as a real process on a real chain, which is killed and comes back while the node works."""

import asyncio
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.jsonrpc import JsonRpc
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.adapters.outbox import transact
from clusterai.ledger.core import calls
from clusterai.ledger.core.rules import LOCAL
from clusterai.protocol.ids import ZERO_DIGEST, Role, digest
from tests.rooms.node.nodeprocess import SOURCE, network
from tests.rooms.node.stubgateway import (
    BALANCE_WEI,
    CHAIN_ID,
    CONFIG,
    CONTRACTS,
    DEPLOYER,
    GATEWAY_HOT,
    GATEWAY_OWNER,
    NETWORK,
    NODE,
    NODE_HOT,
    NODE_OWNER,
)


class Chain:
    """The embedded chain on a port that it keeps over restarts."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = 0
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "clusterai.ledger.adapters.embedded"),
            *("--data", str(self.data), "--port", str(self.port), "--block-interval", "1"),
            *("--deployer", "0x" + DEPLOYER.address.hex()),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(120):
            while found := await self.process.stdout.readline():
                if match := re.search(rb"listening on 127\.0\.0\.1:(\d+)", found):
                    self.port = int(match[1])
                    return
        raise AssertionError("the chain ended before it listened")

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


async def settle_in(client: ChainClient) -> None:
    """Everyone registered, hot keys bound by their consent, a channel funded."""
    channels = client.network.contracts.channels
    for owner, hot, role in (
        (NODE_OWNER, NODE_HOT, Role.PROVIDER),
        (GATEWAY_OWNER, GATEWAY_HOT, Role.GATEWAY),
    ):
        bound = calls.delegate(owner.address, hot.address, hot.sign, NETWORK)
        await transact(client, owner, calls.Register(int(role), ZERO_DIGEST), bound)
    await transact(client, DEPLOYER, calls.Approve(channels, BALANCE_WEI), calls.Deposit(CONFIG, BALANCE_WEI))


def test_what_is_earned_reaches_the_chain_though_the_chain_dies(tmp_path: Path) -> None:
    """Orders are served before, during and after the chain's death; then everything is committed and claimed."""

    async def test() -> None:
        chain = Chain(tmp_path / "chain")
        await chain.start()
        try:
            async with JsonRpc((chain.url,)) as rpc:
                block = await rpc.ask("eth_getBlockByNumber", "0x0", False)
            genesis = digest(block["hash"])
            manifest = Network(
                chain_id=CHAIN_ID, rpc_urls=(chain.url,), contracts=CONTRACTS, genesis=genesis, rules=LOCAL
            )
            async with ChainClient(manifest) as client:
                await settle_in(client)
                where: dict[str, Any] = {"rpc_url": chain.url, "genesis": genesis, "told": False}
                async with network(tmp_path, **where) as (gateway, node):
                    await gateway.serving()

                    async def serve(count: int) -> None:
                        orders = [gateway.order(seed=seed, max_tokens=5) for seed in range(count)]
                        await gateway.until(lambda: all(ordered.over for ordered in orders))
                        assert all(ordered.finished for ordered in orders), [it.refused for it in orders]

                    await serve(5)
                    await chain.kill()
                    await serve(5)
                    began_s = time.time()
                    # An epoch ends while nobody can be told of it.
                    while int(time.time()) // LOCAL.epoch_s == int(began_s) // LOCAL.epoch_s:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                    await serve(5)
                    await chain.start()
                    async with asyncio.timeout(150):
                        while True:
                            committed = await client.read("Court", "committedTotal", NODE)
                            claimed = await client.read("Channels", "claimedTotal", NODE)
                            if committed == claimed == gateway.vouched_wei:
                                break
                            await asyncio.sleep(0.2)
                    assert node.status().chain_trouble == ""
        finally:
            await chain.kill()

    async def within() -> None:
        async with asyncio.timeout(400):
            await test()

    asyncio.run(within())
