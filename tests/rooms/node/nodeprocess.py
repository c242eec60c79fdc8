"""A node as a real process, beside a stub gateway."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from clusterai.node.adapters.watch import Status
from clusterai.node.core.leasebook import LeaseBook
from clusterai.node.core.leases import Made
from clusterai.protocol.ids import Digest
from clusterai.runtime.adapters.journal import SqliteJournal
from tests.rooms.node.stubgateway import Gateway, prepare

SOURCE = Path(__file__).parents[3] / "src"
STOP_S = 120


class Node:
    def __init__(self, config: Path) -> None:
        self.config = config
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        log = (self.config.parent / "log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "clusterai.node", "--config", str(self.config)),
            stderr=log,
            stdout=log,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
        log.close()

    async def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        async with asyncio.timeout(STOP_S):
            return await self.process.wait()

    def records(self) -> list[object]:
        """The journal as it lies on disk."""
        journal = SqliteJournal(self.config.parent / "data" / "journal.sqlite")
        decoder = msgspec.msgpack.Decoder(LeaseBook.RECORDS)
        records: list[object] = [decoder.decode(record) for record in journal.load()]
        journal.close()
        return records

    def status(self) -> Status:
        return msgspec.json.decode((self.config.parent / "data" / "status.json").read_bytes(), type=Status)

    def logged(self) -> str:
        return (self.config.parent / "log").read_text()


@asynccontextmanager
async def network(
    folder: Path, told_s: int | None = None, **settings: Any
) -> AsyncGenerator[tuple[Gateway, Node]]:
    """A stub gateway and a node that last heard of the chain at `told_s`, which is now unless said otherwise."""
    gateway = Gateway(folder / "gateway", time.time)
    await gateway.server.start()
    node = Node(prepare(folder, gateway.url, told_s or int(time.time()), **settings))
    await node.start()
    try:
        yield gateway, node
    finally:
        await node.end(signal.SIGKILL)
        await gateway.server.close()


def made(node: Node) -> list[Digest]:
    """Orders of all receipts that were ever made, repeats included."""
    return [Digest(record.receipt.order) for record in node.records() if isinstance(record, Made)]
