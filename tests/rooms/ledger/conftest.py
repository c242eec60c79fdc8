"""Two chains with one suite: the embedded one and anvil, each a real process on a loopback port."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest
from web3 import Web3

from clusterai.ledger import artifacts
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.deployer import deploy, place
from clusterai.ledger.adapters.embedded.genesis import Allocation, Genesis
from clusterai.ledger.adapters.jsonrpc import JsonRpc, Request
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.adapters.outbox import NO_FEES
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.rules import LOCAL
from clusterai.protocol.ids import Address, digest
from clusterai.protocol.signing import Key

CHAIN_ID = 31415
ROOT = Path(__file__).parents[3]
ANVIL = ROOT / "contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
TOY: dict[str, Any] = json.loads((Path(__file__).parent / "toy.json").read_text())
"""`toy.sol` compiled by solc 0.8.37 (optimizer 200 runs, cancun, no metadata hash)."""

RICH = [Key(bytes.fromhex(text)) for text in (
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
)]  # fmt: skip
"""anvil's well-known development accounts; the embedded chain's test genesis funds the same."""

GENESIS = Genesis(tuple(Allocation(key.address, 10_000 * 10**18) for key in RICH))


class Process:
    """A chain as a process that we can ask, end and kill."""

    def __init__(self, command: list[str], announces: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        assert self.popen.stdout is not None
        self.out: IO[str] = self.popen.stdout
        for line in self.out:
            if found := re.search(announces, line):
                self.url = f"http://127.0.0.1:{found[1]}"
                # anvil writes of every request: a full pipe would stop it
                self._drain = threading.Thread(target=self.out.read, daemon=True)
                self._drain.start()
                return
        self.popen.kill()
        self.popen.wait(timeout=120)
        self.out.close()
        raise AssertionError(f"{command[0]} ended before it listened")

    def kill(self) -> None:
        self.popen.kill()
        self._reap()

    def end(self) -> int:
        self.popen.terminate()
        return self._reap()

    def _reap(self) -> int:
        code = self.popen.wait(timeout=120)
        self._drain.join()
        self.out.close()
        return code


def start_embedded(data: Path, *options: str, interval_s: float = 0.0) -> Process:
    module = "clusterai.ledger.adapters.embedded"
    funded = [text for key in RICH for text in ("--fund", key.address.hex())]
    fixed = ["--data", str(data), "--port", "0", "--block-interval", str(interval_s), *funded]
    return Process([sys.executable, "-m", module, *fixed, *options], r"listening on 127\.0\.0\.1:(\d+)")


def start_anvil() -> Process:
    assert ANVIL.exists(), "anvil isn't installed: run `npm ci` in contracts/"
    fees = ["--gas-price", "0", "--base-fee", "0"]
    options = ["--port", "0", "--chain-id", str(CHAIN_ID), "--hardfork", "cancun", "--accounts", "3"]
    return Process([str(ANVIL), *options, *fees], r"Listening on 127\.0\.0\.1:(\d+)")


@pytest.fixture(scope="session", params=["embedded", "anvil"])
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Either chain, without empty blocks, so that both make blocks for transactions only."""
    embedded = request.param == "embedded"
    process = start_embedded(tmp_path_factory.mktemp("chain")) if embedded else start_anvil()
    yield process
    process.end()


@pytest.fixture(scope="session")
def web3(chain: Process) -> Iterator[Web3]:
    provider = Web3.HTTPProvider(chain.url)
    yield Web3(provider)
    provider._request_session_manager.session_cache.clear()  # pyright: ignore[reportPrivateUsage]


def address_of(text: str) -> Address:
    return Address(bytes.fromhex(text[2:]))


@pytest.fixture
def kills() -> int:
    """How often the embedded chain is killed in its test: CLUSTERAI_KILLS, or a few."""
    return int(os.environ.get("CLUSTERAI_KILLS", "8"))


OWNER = Key(b"\x71" * 32)
"""Deploys the network's contracts in tests and holds all tokens."""


class World(msgspec.Struct, frozen=True):
    """A chain with the network's contracts on it."""

    process: Process
    network: Network
    is_anvil: bool

    def client(self) -> ChainClient:
        return ChainClient(self.network)


async def _settle(process: Process, is_anvil: bool) -> World:
    plan = local_plan(artifacts.load, OWNER.address)
    async with JsonRpc([process.url]) as rpc:
        if is_anvil:
            await place(rpc, plan)
            await deploy(rpc, OWNER, plan, CHAIN_ID, NO_FEES)
        start, genesis = await rpc.batch(
            [Request("eth_blockNumber", ()), Request("eth_getBlockByNumber", ("0x0", False))]
        )
    network = Network(
        chain_id=CHAIN_ID,
        rpc_urls=(process.url,),
        contracts=plan.addresses,
        genesis=digest(genesis["hash"]),
        rules=LOCAL,
        start_block=int(start, 16) + 1,
    )
    return World(process, network, is_anvil)


def start_world(is_anvil: bool, data: Path) -> World:
    process = start_anvil() if is_anvil else start_embedded(data, "--deployer", OWNER.address.hex())
    try:
        return asyncio.run(_settle(process, is_anvil))
    except BaseException:
        process.kill()
        raise


@pytest.fixture(scope="module", params=["embedded", "anvil"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Either chain with the real contracts, without empty blocks."""
    world = start_world(request.param == "anvil", tmp_path_factory.mktemp("world"))
    yield world
    world.process.end()


@pytest.fixture(scope="module")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A chain that can be made to reorganise and to lose transactions."""
    world = start_world(is_anvil=True, data=tmp_path_factory.mktemp("anvil"))
    yield world
    world.process.end()
