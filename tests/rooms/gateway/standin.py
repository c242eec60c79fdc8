"""A provider for tests: takes every order, answers with the tiny model, and misbehaves when told to."""

import asyncio
import time
from typing import Any

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Role
from clusterai.protocol.messages import (
    Announce,
    Answer,
    Cancel,
    Dispute,
    Finished,
    Frame,
    ModelOffer,
    Pay,
    Refused,
    Tokens,
    Work,
)
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import Receipt, network_domain, signing_digest
from clusterai.runtime.adapters.link import LinkClient
from clusterai.runtime.core.greeting import Identity
from clusterai.work.inference import KIND
from clusterai.work.inference.adapters.tiny import TinyEngine
from clusterai.work.inference.core import tiny
from clusterai.work.inference.engine import Busy, Finish, Unfit

PRICE = 3


class Manners(msgspec.Struct):
    """How it behaves; may be changed while it runs.

    Attributes:
        pause_s: between tokens.
        dies_after: tokens of an order after which its connection breaks, as if its process was killed; once.
        stalls_after: tokens of an order after which it says nothing more of it.
        refuses: code of a refusal for every order.
        spurns: orders with these seeds are refused for good, as soon as more than `paid_wei` was paid.
        lies: fields of a receipt that are replaced.
        ignores_stops: its engine knows no stop strings.
    """

    pause_s: float = 0.0
    dies_after: int | None = None
    stalls_after: int | None = None
    refuses: str = ""
    spurns: tuple[int, ...] = ()
    paid_wei: int = 0
    lies: dict[str, Any] = msgspec.field(default_factory=dict)
    ignores_stops: bool = False


class StandIn:
    """One provider, linked to one gateway."""

    def __init__(
        self,
        owner: Address,
        key: Key,
        gateway: Address,
        url: str,
        chain_id: int,
        registry: Address,
        epoch_s: int,
    ) -> None:
        self.owner = owner
        self.manners = Manners()
        self.work: list[Work] = []
        self.paid_wei = 0
        self.disputes: list[str] = []
        self._key = key
        self._gateway = gateway
        self._domain = network_domain(chain_id, registry)
        self._epoch_s = epoch_s
        self._url = url
        self._engine = TinyEngine(tiny.ADDRESS)
        self._running: dict[bytes, Any] = {}
        self._cancelled: dict[bytes, int | None] = {}
        """to the number of tokens that are wanted"""
        self._tasks: set[asyncio.Task[None]] = set()
        self._life: asyncio.Task[None] | None = None
        self._me = Identity(owner, Role.PROVIDER, self._domain, key.sign)
        self._link: LinkClient | None = None
        self.up = asyncio.Event()
        self._stopped = False
        self._paid = asyncio.Event()

    def start(self) -> None:
        self._stopped = False
        self._link = LinkClient(
            {self._gateway: self._url},
            self._me,
            lambda hot, role: self._gateway,
            self._up,
            self._down,
            self._frame,
        )
        self._life = asyncio.get_running_loop().create_task(self._link.run())

    async def stop(self) -> None:
        """The connection ends, and with it all that ran."""
        assert self._life is not None
        # At once: the gateway may notice, and its client look here, long before the connection is over on this side.
        self._stopped = True
        self.up.clear()
        for task in list(self._tasks):
            task.cancel()
        self._life.cancel()
        await asyncio.wait((self._life,))

    async def again(self) -> None:
        """Come back if it was stopped, when the last connection is over; one that was only lost comes back by itself."""
        if self._stopped:
            assert self._life is not None
            await asyncio.wait((self._life,))
            self.start()
        await self.up.wait()

    def send(self, frame: Frame) -> None:
        """Say something to the gateway."""
        assert self._link is not None
        self._link.send(self._gateway, frame)

    def _up(self, peer: Address, role: Role) -> None:
        self.send(Announce((ModelOffer(tiny.ADDRESS, "tiny", PRICE, PRICE, 32),), 0, 0, False))
        self.up.set()

    def _down(self, peer: Address, why: str) -> None:
        self.up.clear()

    def _frame(self, peer: Address, frame: Frame) -> None:
        match frame:
            case Work():
                self.work.append(frame)
                task = asyncio.get_running_loop().create_task(self._answer(frame))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Cancel(order, most):
                if (running := self._running.get(order)) is not None:
                    running.cancel()
                    self._cancelled[order] = most
            case Pay(_, voucher, _):
                self.paid_wei = voucher.amount_wei
                self._paid.set()
            case Dispute(_, code, _):
                self.disputes.append(code)
            case _:
                pass

    async def _answer(self, work: Work) -> None:
        order = canonical.digest(work.order)
        manners = self.manners
        if manners.refuses:
            self.send(Refused(order, manners.refuses, "as told", 200))
            return
        generation = KIND.decode(work.request)
        if generation.sampling.seed in manners.spurns:
            while self.paid_wei <= manners.paid_wei:
                self._paid.clear()
                await self._paid.wait()
            self.send(Refused(order, "bad_request", "not this one", 0))
            return
        stops = () if manners.ignores_stops else generation.stop
        try:
            stream = self._engine.submit(msgspec.structs.replace(generation, stop=stops))
        except Unfit as error:
            self.send(Refused(order, "bad_request", str(error), 0))
            return
        except Busy:
            self.send(Refused(order, "busy", "", 200))
            return
        self._running[order] = stream
        tokens: list[int] = []
        reason = "stop"
        async for event in stream:
            if isinstance(event, Finish) or order in self._cancelled:
                reason = event.reason if isinstance(event, Finish) else "cancelled"
                break
            said = () if event.logprob is None else (round(event.logprob * 1000),)
            top = (tuple((token, round(value * 1000)) for token, value in event.top),) if event.top else ()
            self.send(Tokens(order, len(tokens), (event.token,), said, top))
            tokens.append(event.token)
            if manners.stalls_after == len(tokens):
                return
            if manners.dies_after == len(tokens):
                manners.dies_after = None
                asyncio.get_running_loop().create_task(self.stop())
                return
            if manners.pause_s:
                await asyncio.sleep(manners.pause_s)
        del self._running[order]
        answer = tuple(tokens)[: self._cancelled.get(order)]
        self.send(self._receipt(work, order, answer, reason, generation))

    def _receipt(
        self, work: Work, order: bytes, tokens: tuple[int, ...], reason: str, generation: Any
    ) -> Finished:
        input_units, output_units = KIND.recount(generation, tokens)
        fields: dict[str, Any] = {
            "order": order,
            "provider": self.owner,
            "gateway": self._gateway,
            "model": work.order.model,
            "answer": Answer(tokens, reason).digest(),
            "input_units": input_units,
            "output_units": output_units,
            "amount_wei": (input_units + output_units) * PRICE,
            "epoch": int(time.time()) // self._epoch_s,
        }
        receipt = Receipt(**{**fields, **self.manners.lies})
        return Finished(receipt, self._key.sign(signing_digest(receipt, self._domain)), reason, 0)
