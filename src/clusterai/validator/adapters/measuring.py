"""The half of a validator that measures machines: its machine with a journal and a driver of its own, and threads for its checks."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import structlog

from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.market.core.directory import Directory
from clusterai.protocol.ids import Address, hex0x
from clusterai.protocol.messages import Relay, Unreachable
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.runtime.machine import Linked, Received, Send, Unlinked
from clusterai.validator.core.measurer import Measurer, MeasurerSettings, Told, Work, Worked

OWN_KEYS = "measure-"

log: structlog.stdlib.BoundLogger = structlog.get_logger("measuring")


class Measuring:
    """One validator's. `send` gives a frame to a gateway, `submit` a call to the chain."""

    def __init__(
        self,
        folder: Path,
        settings: MeasurerSettings,
        synchronous: Literal["NORMAL", "FULL"],
        send: Callable[[Address, Any], object],
        submit: Callable[[Submit], None],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._send, self._submit = send, submit
        self._journal = SqliteJournal(folder / "journal.sqlite", synchronous)
        self.measurer = Measurer(settings, Directory())
        self.driver = Driver(self.measurer, self._journal, self._perform)
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._journal.close()

    def hear(self, event: Any) -> bool:
        """Take an event; whether it was of no concern to anyone else."""
        match event:
            case Mined(key) | Reverted(key):
                return key.startswith(OWN_KEYS)
            case Received(_, Relay() | Unreachable()) | Linked() | Unlinked():
                self.driver.handle(event)
            case Received():
                pass
            case _:
                self.driver.handle(event)
        return False

    def _perform(self, effect: Any) -> None:
        match effect:
            case Send(to, frame):
                self._send(to, frame)
            case Submit():
                self._submit(effect)
            case Work():
                task = asyncio.get_running_loop().create_task(self._work(effect))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Told(what, owner, detail):
                log.info(what, owner=hex0x(owner), detail=detail)
            case _:
                raise AssertionError(f"nobody performs {effect!r}")

    async def _work(self, wanted: Work) -> None:
        value = await asyncio.to_thread(wanted.work)
        self.driver.handle(Worked(wanted.owner, wanted.number, value))
