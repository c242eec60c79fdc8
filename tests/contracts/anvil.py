"""Anvil with the rules of Prague, with the same door as `BytecodeChain`: for contracts that need EIP-2537."""

import asyncio
import re
import subprocess
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from clusterai.ledger.adapters.deployer import deploy, place
from clusterai.ledger.adapters.jsonrpc import JsonRpc
from clusterai.ledger.core.abi import Codec
from clusterai.ledger.core.calls import Call
from clusterai.ledger.core.deploy import Plan
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.transaction import Fees
from clusterai.ledger.core.twin import BlockContext, Refused
from clusterai.protocol.ids import Address, hex0x
from clusterai.protocol.signing import Key

ANVIL = Path(__file__).parents[2] / "contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
NO_FEES = Fees(0, 0)
GAS = 12_000_000


class AnvilChain:
    """A chain at `url` with a plan's contracts; a block a transaction, at the second that is asked for."""

    def __init__(self, url: str, plan: Plan) -> None:
        self.url = url
        self.plan = plan
        self.codec = Codec(plan.addresses)
        self.gas_used = 0
        self.prevrandao = bytes(32)
        self._client = httpx.Client(base_url=url)
        self.ask("anvil_autoImpersonateAccount", True)
        self.ask("evm_setAutomine", False)

    def close(self) -> None:
        self._client.close()

    def ask(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self._client.post("", json=body).json()
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def execute(self, call: Call, sender: Address, block: BlockContext) -> tuple[Event, ...] | Refused:
        """The block's number and randomness are the chain's own; the latter is told afterwards."""
        to, data = self.codec.encode(call)
        self.ask("evm_setNextBlockTimestamp", block.timestamp_s)
        sent = {
            "from": hex0x(sender),
            "to": hex0x(to),
            "data": hex0x(data),
            "gas": hex(GAS),
            "gasPrice": "0x0",
        }
        sent_as = self.ask("eth_sendTransaction", sent)
        self.ask("evm_mine")
        receipt = self.ask("eth_getTransactionReceipt", sent_as)
        self.gas_used = int(receipt["gasUsed"], 16)
        self.prevrandao = _raw(self.ask("eth_getBlockByNumber", receipt["blockNumber"], False)["mixHash"])
        if receipt["status"] == "0x0":
            trace = self.ask("debug_traceTransaction", sent_as, {"tracer": "callTracer"})
            return Refused(self.codec.revert(_raw(trace.get("output", "0x"))))
        found = (
            self.codec.event(
                Address(_raw(log["address"])), tuple(map(_raw, log["topics"])), _raw(log["data"])
            )
            for log in receipt["logs"]
        )
        return tuple(event for event in found if event is not None)


def _raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


@contextmanager
def anvil(plan: Plan, deployer: Key, chain_id: int, start_s: int) -> Generator[AnvilChain]:
    """A chain whose clock stands at `start_s`, with the contracts of a local plan."""
    assert ANVIL.exists(), "anvil isn't installed: run `npm ci` in contracts/"
    options = [
        "--port",
        "0",
        "--chain-id",
        str(chain_id),
        "--hardfork",
        "prague",
        "--timestamp",
        str(start_s),
    ]
    fees = ["--gas-price", "0", "--base-fee", "0"]
    with subprocess.Popen([ANVIL, *options, *fees], stdout=subprocess.PIPE, text=True) as process:
        drain: threading.Thread | None = None
        try:
            assert process.stdout is not None
            lines = (re.search(r"Listening on (127\.0\.0\.1:\d+)", line) for line in process.stdout)
            url = "http://" + next(found for found in lines if found).group(1)
            # anvil writes of every request: a full pipe would stop it
            drain = threading.Thread(target=process.stdout.read, daemon=True)
            drain.start()
            asyncio.run(_settle(url, plan, deployer, chain_id))
            with closing(AnvilChain(url, plan)) as chain:
                yield chain
        finally:
            process.kill()
            process.wait(timeout=120)
            if drain is not None:
                drain.join()


async def _settle(url: str, plan: Plan, deployer: Key, chain_id: int) -> None:
    async with JsonRpc([url]) as rpc:
        await place(rpc, plan)
        await deploy(rpc, deployer, plan, chain_id, NO_FEES)
