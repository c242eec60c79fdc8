"""A gateway process that knows the tests' kind, and stand-ins that hold a vault each on this process's side of real links."""

import asyncio
import base64
import json
import time
from typing import Any

from clusterai.protocol import canonical
from clusterai.protocol.calls import CallPart, CallRefused, Gathered, OfferData, ReplyPart, cut
from clusterai.protocol.ids import Address, Digest, Role, checksummed, hex0x
from clusterai.protocol.messages import (
    Announce,
    Answer,
    Finished,
    Frame,
    ModelOffer,
    Refused,
    Tokens,
    Work,
)
from clusterai.protocol.statements import Receipt, signing_digest
from clusterai.protocol.vaults import dataset_id, subject
from clusterai.work.engine import TokenEvent, Unfit
from clusterai.work.service import Declined
from tests.rooms.gateway.bed import Bed, Person
from tests.rooms.gateway.standin import StandIn
from tests.rooms.vaults import echo
from tests.rooms.vaults.listings import listed

USE_WEI, MILLI_WEI = 1_000, 2


class VaultStandIn(StandIn):
    """One provider with a data set of its own; its service is the tests' kind's."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.dataset = dataset_id(self.owner, "hearts")
        self.subject = subject(self.dataset, "echo")
        self.service = echo.Service(self.dataset)
        self.calls: list[bytes] = []
        self.gone: list[bytes] = []
        self.dies_in_call = False
        self.silent = False
        self._gathered: dict[bytes, Gathered] = {}

    def _up(self, peer: Address, role: Role) -> None:
        assert self.service.engine is not None
        offer = ModelOffer(self.service.engine.model, "hearts/echo", MILLI_WEI, USE_WEI, 8)
        self.send(Announce((offer,), 0, 0, False))
        said = listed(self._key, self._domain, "hearts", self.owner, text="of hearts")
        self.send(OfferData((said,), (), (self.subject,)))
        self.up.set()

    def _frame(self, peer: Address, frame: Frame) -> None:
        match frame:
            case CallPart():
                gathered = self._gathered.setdefault(frame.call, Gathered())
                whole = gathered.add(frame.part, frame.parts, frame.body)
                if whole is not None:
                    self.calls.append(whole)
                    self._spawn(self._called(frame, whole))
            case CallRefused(call):
                self.gone.append(call)
            case _:
                super()._frame(peer, frame)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _called(self, call: CallPart, body: bytes) -> None:
        if self.dies_in_call:
            self.dies_in_call = False
            asyncio.get_running_loop().create_task(self.stop())
            return
        if self.silent:
            return
        try:
            answer = await self.service.answer(Address(call.sender), body)
        except Declined as error:
            self.send(CallRefused(call.call, error.code, error.detail))
            return
        except ZeroDivisionError:
            self.send(CallRefused(call.call, "surprise", "a code of its own"))
            return
        parts = cut(answer)
        for at, part in enumerate(parts):
            self.send(ReplyPart(call.call, at, len(parts), part))
            assert self._link is not None
            await self._link.drained(self._gateway)

    async def _answer(self, work: Work) -> None:
        order, request = canonical.digest(work.order), echo.decode(work.request)
        assert self.service.engine is not None
        try:
            stream = self.service.engine.submit(request)
        except Unfit as error:
            self.send(Refused(order, "bad_request", str(error), 0))
            return
        tokens = [it.token async for it in stream if isinstance(it, TokenEvent)]
        if self.manners.dies_after is not None:
            self.manners.dies_after = None
            asyncio.get_running_loop().create_task(self.stop())
            return
        if "tokens" in self.manners.lies:
            tokens = self.manners.lies["tokens"]
        self.send(Tokens(order, 0, tuple(tokens), (), ()))
        counted = echo.recount(request, tuple(tokens))
        receipt = Receipt(
            order,
            self.owner,
            work.order.gateway,
            work.order.model,
            Answer(tuple(tokens), "stop").digest(),
            *counted,
            counted[0] * MILLI_WEI + counted[1] * USE_WEI,
            int(time.time()) // self._epoch_s,
        )
        self.send(Finished(receipt, self._key.sign(signing_digest(receipt, self._domain)), "stop", 0))


class CallBed(Bed):
    """As `Bed`, of vaults."""

    GATEWAY = "tests.rooms.vaults.echogateway"
    standins: list[VaultStandIn]  # pyright: ignore[reportIncompatibleVariableOverride]

    def __enter__(self) -> "CallBed":
        super().__enter__()
        return self

    async def _standin(self, person: Person) -> StandIn:
        standin = VaultStandIn(
            person.owner.address,
            person.hot,
            self.gateway.owner.address,
            f"wss://127.0.0.1:{self.link_port}/",
            self.network.chain_id,
            self.network.contracts.registry,
            self.network.rules.epoch_s,
        )
        standin.start()
        return standin

    def known(self, standin: StandIn) -> bool:
        """Its data too, which it tells of after its offers."""
        assert isinstance(standin, VaultStandIn)
        holders = [
            holder
            for it in self.get("/v1/clusterai/data")["data"]
            if it["dataset"] == hex0x(standin.dataset)
            for holder in it["holders"]
        ]
        return super().known(standin) and checksummed(standin.owner) in holders

    def call(
        self, subject: Digest, body: bytes, key: str | None = None, query: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        path = f"/v1/clusterai/calls/0x{subject.hex()}{query}"
        status, headers, raw = self.fetch("POST", path, body, key or self.key)
        return status, {name.lower(): value for name, value in headers.items()}, raw

    def order(
        self, subject: Digest, request: Any, body: dict[str, Any] | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        asked = {
            "kind": "echo",
            "request": base64.b64encode(canonical.encode(request)).decode(),
            **(body or {}),
        }
        status, _, raw = self.fetch(
            "POST", f"/v1/clusterai/orders/0x{subject.hex()}", json.dumps(asked).encode(), self.key, **headers
        )
        return status, json.loads(raw)
