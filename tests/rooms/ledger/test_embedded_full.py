"""The embedded chain where its disk is full: it says so, ends, and nobody sees what was never written."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession
from eth_account import Account

from clusterai.ledger.adapters.embedded import ChainConfig, Server
from clusterai.ledger.adapters.embedded.journal import UnwrittenJournal
from clusterai.protocol.signing import Key
from tests.rooms.ledger.conftest import CHAIN_ID

SENDER = Key(b"\x61" * 32)


def test_what_could_not_be_written_is_neither_acknowledged_nor_seen(tmp_path: Path):
    """A transaction for which there is no room has no answer, who asks then is sent away, and the process ends with the cause."""
    fees = {"maxFeePerGas": 0, "maxPriorityFeePerGas": 0, "chainId": CHAIN_ID}
    fields = {"to": b"\x09" * 20, "nonce": 0, "gas": 2_000_000, "value": 0, "data": bytes(100_000)}
    signed = Account.sign_transaction({**fields, **fees}, SENDER.secret()).raw_transaction
    sent = {"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": ["0x" + signed.hex()]}
    count = {"method": "eth_getTransactionCount", "params": ["0x" + SENDER.address.hex(), "latest"]}

    async def run() -> None:
        config = ChainConfig(tmp_path, port=0, chain_id=CHAIN_ID, block_interval_s=0)
        async with ClientSession() as session, Server(config) as server:
            url = f"http://127.0.0.1:{server.port}"
            server.chain._journal._db.execute("pragma max_page_count=1")  # pyright: ignore[reportPrivateUsage]
            sending = asyncio.create_task(session.post(url, json=sent))
            with pytest.raises(UnwrittenJournal, match="full"):
                await server.wait()
            async with session.post(url, json=sent | count) as response:
                assert response.status == 503
        with pytest.raises(ClientError):
            await sending

    asyncio.run(asyncio.wait_for(run(), 60))
