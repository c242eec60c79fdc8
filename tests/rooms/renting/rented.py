"""Machines that are rented, played by stand-ins on real links: they open, join and say that they are ready, and err when told to."""

import asyncio
import time
from typing import Any

import msgspec

from clusterai.mesh import Device, Member, endpoints, keypair, net_of
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import Announce, ModelOffer, Work
from clusterai.protocol.offering import Offered
from clusterai.protocol.offers import MachineOffer, signed_digest
from clusterai.protocol.rentals import (
    AskStayLog,
    EndStay,
    JoinStay,
    MeshKey,
    OpenStay,
    StayBroke,
    StayLogged,
    StayOpened,
    StayReady,
    StayTold,
    stay_model,
)
from clusterai.protocol.statements import network_domain
from clusterai.work.inference.core import tiny
from tests.rooms.gateway.bed import TOKEN, Bed, Person
from tests.rooms.gateway.standin import PRICE, StandIn
from tests.rooms.mesh.hosts import Host

LOG = b"ray started\n" + b"x" * 70_000 + b"\nthe end\n"


class Tempers(msgspec.Struct):
    """How it behaves as a rented machine.

    Attributes:
        refuses: code with which it refuses to open, `times` times.
        lingers: it opens and never says that it is ready.
        is_mute: its log isn't told.
    """

    refuses: str = ""
    times: int = 1
    lingers: bool = False
    is_mute: bool = False


class RentedStandIn(StandIn):
    """Also a machine that can be rented."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tempers = Tempers()
        self.opened: list[OpenStay] = []
        self.models: set[bytes] = set()
        self.home: Host | None = None
        """where it has a real end of the mesh, if it has one"""
        self.device: Device | None = None
        self.joined: list[JoinStay] = []
        self.ended: list[EndStay] = []

    def _frame(self, peer: Any, frame: Any) -> None:
        match frame:
            case OpenStay():
                self._open(frame)
            case JoinStay():
                self.joined.append(frame)
                if self.home is not None:
                    self._tasks.add(asyncio.get_running_loop().create_task(self._mesh(frame, self.home)))
                elif not self.tempers.lingers:
                    self._ready(frame)
            case AskStayLog():
                if not self.tempers.is_mute:
                    data = LOG[frame.start : frame.start + (1 << 16)]
                    start = min(frame.start, len(LOG))
                    said = StayLogged(frame.lease, frame.generation, start, len(LOG), data)
                    self.send(self._any(said))
            case EndStay():
                self.ended.append(frame)
            case Work() if frame.order.model in self.models:
                pass  # It is silent for the few seconds that a test takes.
            case _:
                super()._frame(peer, frame)

    def _ready(self, frame: JoinStay) -> None:
        self._lend(frame)
        self.send(self._any(StayReady(frame.lease, frame.generation, (("mesh", 7), ("ray", 900)))))

    async def _mesh(self, frame: JoinStay, home: Host) -> None:
        """Its end of the mesh, in its home."""
        net = net_of(Digest(frame.lease))
        me = next(Member(it.place, it.key) for it in frame.members if it.relay is None)
        is_first = self.device is None
        if self.device is None:
            self.device = await Device.open(f"rs{home.pid}")
            await self.device.settle(net.address(me.place), 24, home.namespace)
        members = [Member(it.place, it.key) for it in frame.members]
        relay = {it.place: it.relay for it in frame.members if it.relay is not None}
        private = keypair(self.secret(frame.lease, frame.generation))[0]
        await self.device.configure(private, endpoints(net, me, members, relay))
        if is_first:
            self._ready(frame)

    async def leave(self) -> None:
        if self.device is not None:
            await self.device.close()
            self.device = None

    def _open(self, frame: OpenStay) -> None:
        self.opened.append(frame)
        if self.tempers.refuses and self.tempers.times:
            self.tempers.times -= 1
            broke = StayBroke(frame.lease, frame.generation, self.tempers.refuses, "as [told]")
            self.send(self._any(broke))
            return
        key = keypair(self.secret(frame.lease, frame.generation))[1]
        said = MeshKey(frame.lease, frame.place, frame.generation, self._key.address, key)
        signature = self._key.sign(said.signing_digest(self._domain))
        self.send(self._any(StayOpened(frame.lease, frame.place, frame.generation, key, signature)))

    def secret(self, lease: bytes, generation: int) -> bytes:
        """Of its end of the mesh, the same whenever it is asked."""
        return bytes(it ^ generation for it in self._key.address + lease[:12])

    def _lend(self, frame: JoinStay) -> None:
        place = next(it.place for it in frame.members if it.relay is None)
        model = stay_model(frame.lease, place, frame.generation)
        self.models.add(model)
        offers = (
            ModelOffer(tiny.ADDRESS, "tiny", PRICE, PRICE, 32),
            ModelOffer(model, "cluster", 0, TOKEN // 36_000, 1),
        )
        self.send(Announce(offers, 0, 0, False))

    def tell(self, frame: StayTold) -> None:
        self.send(self._any(frame))

    @staticmethod
    def _any(frame: Any) -> Any:
        return frame


class RentBed(Bed):
    """A gateway with machines on offer.

    Args:
        machines: how many.
    """

    def __init__(self, folder: Any, machines: int = 3, **settings: Any) -> None:
        super().__init__(folder, providers=machines, wallets=False, **settings)

    async def _standin(self, person: Person) -> RentedStandIn:
        standin = RentedStandIn(
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

    def machine(self, at: int) -> RentedStandIn:
        found = self.standins[at]
        assert isinstance(found, RentedStandIn)
        return found

    def offer(self, at: int, **changes: Any) -> None:
        """Its machine stands on offer, at 1 token an hour more for each."""
        person, now_s = self.people[at], int(time.time())
        fields: dict[str, Any] = {
            "node": person.hot.address,
            "operator": person.owner.address,
            "serial": time.time_ns() // 1_000,
            "hardware": "x86-64-v3",
            "cpu_milli": 4_000,
            "memory_bytes": 2**33,
            "disk_bytes": 2**36,
            "gpu": "",
            "gpus": 0,
            "region": "eu",
            "bandwidth_kbps": 100_000,
            "price_wei": TOKEN * (at + 1),
            "issued_s": now_s,
            "expires_s": now_s + 600,
        }
        statement = MachineOffer(**(fields | changes))
        domain = network_domain(self.network.chain_id, self.network.contracts.registry)
        signature = person.hot.sign(signed_digest(statement, domain))

        async def say() -> None:
            self.standins[at].send(Offered(canonical.encode(statement), signature))

        self.run(say())

    def tell(self, machine: RentedStandIn, frame: Any) -> None:
        """It says something to the gateway, on its own loop."""

        async def say() -> None:
            machine.send(frame)

        self.run(say())

    def standing(self) -> int:
        found = self.get("/v1/clusterai/offers")
        return found["standing"] - found["taken"]

    def offer_all(self) -> None:
        """Every machine, and nobody's."""
        for at, standin in enumerate(self.standins):
            self.machine(at).tempers = Tempers()
            self.run(standin.again())
            self.offer(at)
        self.until(lambda: self.standing() == len(self.people), "offers")
