"""Brings drand's pulses: fetches from relays what the machine asks for. Does nothing where the chain's own beacon draws."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import structlog

from clusterai.audit.adapters.drand import NoPulse, fetch
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.ledger.core.rules import Rules
from clusterai.protocol.ids import Address
from clusterai.runtime.machine import Tick
from clusterai.validator.core.pulses import KEY, Fetch, Fetched, NotFetched, Pulses

DEADLINE_S = 10.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("pulses")


class PulseBringer:
    """One validator's. `submit` gives a call to the chain, `client` asks relays; its owner closes it."""

    def __init__(
        self,
        me: Address,
        rules: Rules,
        relays: Sequence[str],
        client: httpx.AsyncClient,
        submit: Callable[[Submit], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._given = rules.beacon
        self._relays = relays
        self._client = client
        self._submit = submit
        self._clock = clock
        self._machine = rules.beacon and Pulses(me, rules.beacon, rules.epoch_s, rules.window_s)
        self._due: asyncio.Queue[Fetch] = asyncio.Queue(64)

    @property
    def trouble(self) -> str:
        return self._machine.trouble if self._machine else ""

    def hear(self, event: Any) -> bool:
        """Take an event; whether it was of no concern to anyone else."""
        own = isinstance(event, Mined | Reverted)
        if own and not event.key.startswith(KEY):
            return False
        if isinstance(event, Reverted):
            log.info("refused", call=event.key, why=event.reason)
        self._step(event)
        return own

    async def run(self) -> None:
        """Fetch one pulse after the other, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(1.0):
                    asked = await self._due.get()
            except TimeoutError:
                self._step(Tick())
            else:
                self._step(await self._fetch(asked.round))

    async def _fetch(self, number: int) -> Fetched | NotFetched:
        assert self._given is not None, "asked by the machine only"
        try:
            async with asyncio.timeout(DEADLINE_S):
                pulse, _ = await fetch(self._client, self._given, number, self._relays)
        except (NoPulse, TimeoutError) as error:
            log.warning("no pulse", round=number, why=str(error))
            return NotFetched(number, str(error) or "no relay answered in time")
        return Fetched(pulse)

    def _step(self, event: Any) -> None:
        if self._machine is None:
            return
        for effect in self._machine.step(event, self._clock()):
            match effect:
                case Fetch():
                    if not self._due.full():  # the machine asks again
                        self._due.put_nowait(effect)
                case Submit():
                    log.info("submit", call=effect.key)
                    self._submit(effect)
                case _:
                    raise AssertionError(f"nobody performs {effect}")
