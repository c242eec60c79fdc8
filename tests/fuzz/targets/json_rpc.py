"""What comes in at the embedded chain's door."""

import asyncio
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from clusterai.ledger.adapters.embedded.chain import Chain
from clusterai.ledger.adapters.embedded.methods import Methods
from clusterai.ledger.adapters.embedded.pool import Pool
from clusterai.ledger.adapters.embedded.rpc import Rpc
from tests.rooms.ledger.conftest import CHAIN_ID
from tests.rooms.ledger.test_embedded_fuzz import CODES, TOY_HEX, VALID
from tests.rooms.ledger.test_embedded_journal import GENESIS, SEED, Clock

CALL = {"to": TOY_HEX, "data": "0x18160ddd"}
PARAMS: dict[str, list[Any]] = {
    "eth_getBlockByNumber": ["latest", True],
    "eth_getBalance": [TOY_HEX, "latest"],
    "eth_getStorageAt": [TOY_HEX, "0x0", "latest"],
    "eth_call": [CALL, "latest"],
    "eth_estimateGas": [CALL],
    "eth_getLogs": [{"fromBlock": "0x0", "toBlock": "latest", "address": TOY_HEX, "topics": [None]}],
    "eth_newFilter": [{"fromBlock": "0x0"}],
    "eth_feeHistory": ["0x1", "latest", [50]],
    "eth_getTransactionByHash": ["0x" + "00" * 32],
    "eth_sendRawTransaction": ["0x" + VALID.hex()],
}


class Door:
    """A chain in a folder that goes with the process."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.chain = Chain(Path(self.folder.name) / "chain.sqlite", CHAIN_ID, GENESIS, SEED, self.clock)
        self.failures: list[BaseException] = []
        self.rpc = Rpc(self.chain, Pool(self.chain, self.failures.append).submit, self.clock)
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        self.loop.close()
        self.chain.close()
        self.folder.cleanup()


@cache
def door() -> Door:
    return Door()


def once(data: bytes) -> bool:
    """Any bytes are answered in JSON-RPC, and the chain goes on."""
    raw = door().loop.run_until_complete(door().rpc.answer(data))
    assert door().failures == []
    taken = False
    if raw:
        answer = json.loads(raw)
        for one in answer if isinstance(answer, list) else [answer]:  # pyright: ignore[reportUnknownVariableType]
            assert one["jsonrpc"] == "2.0"
            assert ("result" in one) != ("error" in one)
            assert "result" in one or (one["error"]["code"] in CODES and one["error"]["message"])
            taken = taken or "result" in one
    return taken


def close() -> None:
    door().close()
    door.cache_clear()


def seeds() -> list[bytes]:
    opened = Door()
    names = list(Methods(opened.chain, opened.clock).table())
    opened.close()
    requests = [{"jsonrpc": "2.0", "id": 1, "method": it, "params": PARAMS.get(it, [])} for it in names]
    whole = [json.dumps(it).encode() for it in requests]
    return [*whole, json.dumps(requests[:3]).encode()]
