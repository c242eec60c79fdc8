"""The half of a node that shows validators what the machine is: hears their tests, does them in a process of its own, signs the answers.

It decides nothing: `core/proving.py` says which tests are done. The process lives as long as tests come, and `IDLE_S` longer.
"""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
import structlog

from clusterai.ledger.core.calls import Mined, Reverted
from clusterai.market.core.directory import Directory
from clusterai.market.core.placement.assigned import Draws
from clusterai.node.adapters.carding import OWN_KEYS
from clusterai.node.adapters.exerciser import LENGTH, ONE_THREAD, Order
from clusterai.node.core.proving import Asked, Decline, Exercise, Exercised, Prover
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role, hex0x
from clusterai.protocol.measuring import (
    Claims,
    Declined,
    Echo,
    Echoed,
    Examine,
    Introduce,
    Measured,
    Result,
    Shown,
    Take,
)
from clusterai.protocol.messages import Relay
from clusterai.protocol.signing import Key, recover
from clusterai.runtime.machine import Received

IDLE_S = 60.0
LONGEST_S = 120.0
"""No test of the protocol's bounds takes longer on a machine worth renting."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("proving")

_HEARD = cast("type[Examine | Measured]", Examine | Measured)
_RESULT: msgspec.msgpack.Decoder[Result] = msgspec.msgpack.Decoder(Result)


class Outlet(Protocol):
    """What it needs of a link."""

    def send(self, gateway: Address, frame: Any) -> bool: ...

    async def drained(self, gateway: Address) -> None: ...


class Proving:
    """One node's. `engaged` says why the machine can't be measured now, "" where it can; `measured` hears what was found."""

    def __init__(
        self,
        me: Address,
        key: Key,
        network: Domain,
        folder: Path,
        cores: list[int],
        claims: Callable[[], Claims],
        engaged: Callable[[], str],
        outlet: Outlet,
        measured: Callable[[Measured], None],
        clock: Callable[[], float],
    ) -> None:
        self._me, self._key, self._network = me, key, network
        self._folder, self._cores, self._claims, self._engaged = folder, cores, claims, engaged
        self._outlet, self._measured, self._clock = outlet, measured, clock
        self.directory = Directory()
        self.draws = Draws(self.directory)
        self.prover = Prover(
            me,
            network,
            recover,
            lambda hot, validator: self.directory.acts_for(hot, validator, Role.VALIDATOR),
            lambda validator, now_s: self.draws.may_measure(me, validator, now_s),
        )
        self._orders: asyncio.Queue[Exercise] = asyncio.Queue(4)
        self._process: Process | None = None

    # --- in ---

    def hear(self, event: Any) -> bool:
        """Take an event; whether it was of no concern to anyone else."""
        match event:
            case Received(gateway, Relay(_, _, body)):
                return self._relayed(gateway, body)
            case Received():
                return False
            case Mined(key) | Reverted(key):
                return key.startswith(OWN_KEYS)
            case _:
                self.directory.apply(event)
                self.draws.apply(event)
                return False

    def may_measure(self, hot: Address, validator: Address) -> bool:
        """Whether this key speaks for a validator that was drawn for this node."""
        acts = self.directory.acts_for(hot, validator, Role.VALIDATOR)
        return acts and self.draws.may_measure(self._me, validator, self._clock())

    def _relayed(self, gateway: Address, body: bytes) -> bool:
        try:
            heard = canonical.decode(body, _HEARD)
        except Malformed:
            return False
        if isinstance(heard, Measured):
            self._measured(heard)
        else:
            self._step(Asked(gateway, heard, self._engaged()))
        return True

    def _step(self, event: Any) -> None:
        for effect in self.prover.step(event, self._clock()):
            match effect:
                case Exercise(gateway, ask):
                    self._begin(gateway, ask)
                case Decline(gateway, ask, answer):
                    log.info("declined", test=type(ask.test).__name__, code=answer.code)
                    self._answer(gateway, ask, answer)
                case _:
                    raise AssertionError(f"nobody performs {effect!r}")

    # --- out ---

    def _begin(self, gateway: Address, ask: Examine) -> None:
        match ask.test:
            case Echo():
                self._answer(gateway, ask, Echoed())
            case Introduce():
                self._answer(gateway, ask, self._claims())
            case Take(_, last):
                if last:
                    self._answer(gateway, ask, Echoed())
            case _:
                try:
                    self._orders.put_nowait(Exercise(gateway, ask))
                except asyncio.QueueFull:
                    self._step(Exercised(Digest(ask.seed)))

    def _answer(self, gateway: Address, ask: Examine, result: Result) -> None:
        shown = Shown(self._me, self._key.address, ask.seed, result, bytes(65))
        signed = msgspec.structs.replace(shown, signature=self._key.sign(shown.signing_digest(self._network)))
        to = Address(ask.validator)
        self._outlet.send(gateway, Relay(self._me, to, canonical.encode(signed)))

    async def run(self) -> None:
        """Do tests until cancelled."""
        try:
            while True:
                try:
                    async with asyncio.timeout(IDLE_S if self._process else None):
                        wanted = await self._orders.get()
                except TimeoutError:
                    await self._end()
                    continue
                await self._exercise(wanted.gateway, wanted.ask)
                self._step(Exercised(Digest(wanted.ask.seed)))
        finally:
            await self._end()

    async def _exercise(self, gateway: Address, ask: Examine) -> None:
        try:
            async with asyncio.timeout(LONGEST_S):
                await self._do(gateway, ask)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, msgspec.DecodeError) as error:
            log.warning(
                "test_broke", test=type(ask.test).__name__, why=repr(error), validator=hex0x(ask.validator)
            )
            await self._end()
            self._answer(gateway, ask, Declined("unable", "the test broke off"))

    async def _do(self, gateway: Address, ask: Examine) -> None:
        process = await self._started()
        source, sink = process.stdout, process.stdin
        assert source is not None, "it was started with a pipe"
        assert sink is not None, "it was started with a pipe"
        order = canonical.encode(Order(Digest(ask.seed), ask.test))
        sink.write(LENGTH.pack(len(order)) + order)
        await sink.drain()
        while length := LENGTH.unpack(await source.readexactly(LENGTH.size))[0]:
            result = _RESULT.decode(await source.readexactly(length))
            await self._outlet.drained(gateway)
            self._answer(gateway, ask, result)

    async def _started(self) -> Process:
        if self._process is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "clusterai.node.adapters.exerciser",
                str(self._folder),
                *map(str, self._cores),
                stdin=PIPE,
                stdout=PIPE,
                env=os.environ | ONE_THREAD | self._cards(),
            )
        return self._process

    def _cards(self) -> dict[str, str]:
        """Torch counts cards as the claims do: those that are lent, in the driver's order."""
        uuids = [it.uuid for it in self._claims().gpus]
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(uuids)} if uuids else {}

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
