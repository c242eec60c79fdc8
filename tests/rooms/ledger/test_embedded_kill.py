"""The embedded chain under `kill -9`: what it acknowledged is there after the restart, whatever moment it died."""

import asyncio
import random
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout
from eth_account import Account

from clusterai.protocol.signing import Key
from tests.rooms.ledger.conftest import CHAIN_ID, Process, start_embedded

SENDERS = [Key(bytes([0x61, n]) * 16) for n in range(4)]
TO = b"\x09" * 20


def raw(key: Key, nonce: int) -> str:
    fields = {"to": TO, "nonce": nonce, "gas": 30_000, "value": 0, "chainId": CHAIN_ID}
    fees = {"maxFeePerGas": 0, "maxPriorityFeePerGas": 0}
    return "0x" + bytes(Account.sign_transaction({**fields, **fees}, key.secret()).raw_transaction).hex()


async def ask(session: ClientSession, url: str, method: str, *params: object) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with session.post(url, json=body) as response:
        return (await response.json())["result"]


class Acknowledged:
    """(hash, sender, nonce) of each answer, and an event after `wanted` of them."""

    def __init__(self, wanted: int) -> None:
        self.told: list[tuple[str, bytes, int]] = []
        self.enough = asyncio.Event()
        self._wanted = wanted

    def append(self, one: tuple[str, bytes, int]) -> None:
        self.told.append(one)
        if len(self.told) >= self._wanted:
            self.enough.set()


async def send_until_death(session: ClientSession, url: str, key: Key, acknowledged: Acknowledged) -> None:
    """One client: nonces in order, each after the answer to the one before."""
    nonce = int(await ask(session, url, "eth_getTransactionCount", "0x" + key.address.hex(), "latest"), 16)
    while True:
        try:
            transaction = await ask(session, url, "eth_sendRawTransaction", raw(key, nonce))
        except (ClientError, OSError):
            return
        acknowledged.append((transaction, key.address, nonce))
        nonce += 1


async def life(process: Process, random_: random.Random) -> list[tuple[str, bytes, int]]:
    """Clients send while the process lives; it is killed after a random number of answers and microseconds."""
    acknowledged = Acknowledged(random_.randrange(1, 60))
    async with ClientSession(timeout=ClientTimeout(120)) as session, asyncio.TaskGroup() as group:
        for key in SENDERS:
            group.create_task(send_until_death(session, process.url, key, acknowledged))
        await acknowledged.enough.wait()
        await asyncio.sleep(random_.random() * 0.004)  # the moment of death is what is drawn here
        process.popen.kill()
    process.kill()
    return acknowledged.told


async def verify(process: Process, acknowledged: list[tuple[str, bytes, int]]) -> None:
    async with ClientSession(timeout=ClientTimeout(120)) as session:
        for transaction, _, _ in acknowledged:
            receipt = await ask(session, process.url, "eth_getTransactionReceipt", transaction)
            assert receipt is not None, f"{transaction} was acknowledged and is lost"
            assert receipt["status"] == "0x1"
        for key in SENDERS:
            told = [nonce for _, sender, nonce in acknowledged if sender == key.address]
            count = await ask(
                session, process.url, "eth_getTransactionCount", "0x" + key.address.hex(), "latest"
            )
            # at most the one transaction that was under way may be there beyond those acknowledged
            assert not told or int(count, 16) in (max(told) + 1, max(told) + 2)


def test_kill_9_loses_no_acknowledged_transaction(tmp_path: Path, kills: int):
    """Over many lives that all end in SIGKILL while four clients send, each answer stays true."""
    random_ = random.Random(2024)
    acknowledged: list[tuple[str, bytes, int]] = []
    for _ in range(kills):
        process = start_embedded(tmp_path, interval_s=0.01)
        newest = acknowledged[-200:]
        asyncio.run(verify(process, newest))
        acknowledged += asyncio.run(life(process, random_))
    process = start_embedded(tmp_path)
    asyncio.run(verify(process, acknowledged))
    assert len(acknowledged) >= kills
    assert process.end() == 0
