"""The renter's end of the mesh between real hosts: it hears the machines, they can't begin anything with it, and nothing of it stays."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyroute2 import netns

from clusterai.cli.renting.folder import KeeperState, RentalFolder
from clusterai.cli.renting.keeper import Held, Keeper, interface_of, sweep
from clusterai.mesh import Device, Member, RelayServer, endpoints, keypair, net_of
from clusterai.protocol.ids import digest, hex0x
from clusterai.sdk import Unreachable
from clusterai.sdk.rentalshapes import Rental, RentedMachine
from tests.rooms.mesh.hosts import ECHO, Host, Internet, hears
from tests.rooms.renting.told import DOMAIN, LEASE, NODES, machine, public, rental, secret

NET = net_of(LEASE)
RENTER = 2
DEADLINE_S = 120.0
PLAN = tuple(node.address for node in NODES[:2])


class World:
    """A gateway that tells of a rental, its relay, and two machines on hosts of their own."""

    def __init__(self, folder: RentalFolder) -> None:
        self.internet = Internet()
        (self.relay_host, self.relay_address), (self.renter, _) = self.internet.host(), self.internet.host()
        self.hosts: Sequence[Host] = [self.internet.host()[0], self.internet.behind_nat()[0]]
        self.relay = RelayServer("0.0.0.0", self.relay_address)
        self.folder = folder
        self.machines: list[RentedMachine] = [machine(0), machine(1)]
        self.devices: dict[int, Device] = {}
        self.key = b""
        self.told: Rental = rental(self.machines)
        self.is_away = False
        self.sees_outside = False

    # --- as a gateway ---

    def show(self, named: str) -> Rental:
        assert named == hex0x(LEASE)
        if self.is_away:
            raise Unreachable("http://gateway", "gone")
        if self.sees_outside:
            outside = self.relay.table.outside(LEASE)
            members = [msgspec.structs.replace(it, seen=outside.get(it.place)) for it in self.told.members]
            return msgspec.structs.replace(self.told, members=members)
        return self.told

    def meet(self, named: str, key: str) -> Rental:
        self.key = bytes(digest(key))
        asyncio.run_coroutine_threadsafe(self.tell(), self.loop).result(DEADLINE_S)
        return self.show(named)

    async def tell(self) -> None:
        """The mesh as it is now, to everybody in it."""
        members = [Member(it.place, bytes(digest(it.key))) for it in self.machines if it.phase != "lost"]
        if self.key:
            members.append(Member(RENTER, self.key))
        netns.pushns(self.relay_host.namespace)
        try:
            ports = await self.relay.open(LEASE, members)
        finally:
            netns.popns()
        for it in self.machines:
            device = self.devices.get(it.place)
            if device is not None and it.phase != "lost":
                me = Member(it.place, bytes(digest(it.key)))
                peers = endpoints(NET, me, members, ports.get(it.place, {}))
                await device.configure(keypair(secret(it.place, it.generation))[0], peers)
        self.told = rental(self.machines, dict(ports.get(RENTER, {})), self.key or None)

    # --- the machines ---

    async def begin(self) -> None:
        self.loop = asyncio.get_running_loop()
        for place, host in enumerate(self.hosts):
            device = self.devices[place] = await Device.open(f"cm{host.pid}", host.enter)
            await device.settle(NET.address(place), 24, origin=host.namespace)
        await self.tell()

    async def close(self) -> None:
        for device in self.devices.values():
            await device.close()
        self.relay.end()
        self.internet.close()

    # --- the renter's end ---

    def keeper(self) -> Keeper:
        return Keeper(self, self.folder, DOMAIN, PLAN, origin=self.renter.namespace)

    async def until(self, true: Callable[[KeeperState], bool]) -> KeeperState:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                state = self.folder.state()
                if state is not None and true(state):
                    return state
                await asyncio.sleep(0.05)

    def left(self) -> str:
        """What is there of it in the renter's network."""
        links = self.renter.run("ip", "-o", "link")
        rules = self.renter.run("iptables", "-S")
        return "\n".join(it for it in (links + rules).splitlines() if interface_of(LEASE) in it)


def looped(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """On an event loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


@pytest.fixture
def folder(tmp_path: Path) -> RentalFolder:
    return RentalFolder(tmp_path, LEASE)


@asynccontextmanager
async def world(folder: RentalFolder) -> AsyncGenerator[World]:
    it = World(folder)
    echoes: list[subprocess.Popen[str]] = []
    try:
        await it.begin()
        for host in (*it.hosts, it.renter):
            echo = host.start(ECHO, "0.0.0.0")
            echoes.append(echo)
            assert echo.stdout is not None
            assert await asyncio.to_thread(echo.stdout.readline) == "ready\n"
        yield it
    finally:
        for echo in echoes:
            echo.kill()
            echo.wait()
            assert echo.stdout is not None
            echo.stdout.close()
        await it.close()


@asynccontextmanager
async def kept(it: World) -> AsyncGenerator["asyncio.Task[str]"]:
    task: asyncio.Task[str] = asyncio.ensure_future(it.keeper().run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


@looped
async def test_the_machines_are_heard_and_begin_nothing(folder: RentalFolder):
    """Over the relay, then direct; what a machine sends by itself is dropped; at the end neither interface nor rule is left."""
    async with world(folder) as it:
        async with kept(it):
            await it.until(lambda state: "silent" not in state.ways.values() and len(state.ways) == 2)
            for place in (0, 1):
                assert await asyncio.to_thread(hears, it.renter, NET.address(place))
            state = await it.until(lambda state: state.phase == "connected")
            assert (state.address, state.interface) == (NET.address(RENTER), interface_of(LEASE))
            assert not await asyncio.to_thread(hears, it.hosts[0], NET.address(RENTER), 3)
            it.sees_outside = True
            await it.until(lambda state: state.ways.get(0) == "direct")
            assert await asyncio.to_thread(hears, it.renter, NET.address(0))
            assert interface_of(LEASE) in it.left()
        assert it.left() == ""
        assert not folder.is_held()
        state = folder.state()
        assert state is not None
        assert state.phase == "over"


@looped
async def test_a_machine_in_anothers_place_is_heard_and_sessions_of_the_rest_go_on(folder: RentalFolder):
    """Its key is another, of a machine that the plan hadn't; the lost one's counts no more."""
    async with world(folder) as it, kept(it):
        await it.until(lambda state: set(state.ways.values()) <= {"relay", "direct"} and len(state.ways) == 2)
        it.machines[1] = machine(1, phase="lost")
        await it.tell()
        await it.until(lambda state: set(state.ways) == {0})
        assert await asyncio.to_thread(hears, it.renter, NET.address(0))
        it.machines[1] = machine(1, generation=1, node=NODES[6])
        await it.tell()
        await it.until(lambda state: state.ways.get(1) in ("relay", "direct"))
        assert await asyncio.to_thread(hears, it.renter, NET.address(1))


@looped
async def test_a_gateway_that_swaps_a_key_is_left_at_once(folder: RentalFolder):
    """The keeper says which machine it was, takes its interface down, and talks to nobody any more."""
    async with world(folder) as it, kept(it) as task:
        await it.until(lambda state: state.phase == "connected")
        honest = it.told
        villain = msgspec.structs.replace(it.machines[0], key=hex0x(public(40)))
        it.told = rental(
            [villain, it.machines[1]], {0: (it.relay_address, 9), 1: (it.relay_address, 10)}, it.key
        )
        async with asyncio.timeout(DEADLINE_S):
            assert await task == "forged"
        state = await it.until(lambda state: state.phase == "forged")
        assert state.detail.startswith("machine 0: its key isn't signed by")
        assert it.left() == ""
        it.told = honest


@looped
async def test_it_ends_with_its_rental(folder: RentalFolder):
    """By itself, within a look."""
    async with world(folder) as it, kept(it) as task:
        await it.until(lambda state: state.phase == "connected")
        it.told = rental(it.machines, {}, it.key, state="ended", why="released", ended_s=1)
        async with asyncio.timeout(DEADLINE_S):
            assert await task == "over"
        assert it.left() == ""


@looped
async def test_a_gateway_that_is_away_cuts_nobody_off(folder: RentalFolder):
    """The mesh works without it; when it is back, with other relay ports, they are taken up."""
    async with world(folder) as it, kept(it) as task:
        await it.until(lambda state: state.phase == "connected")
        it.is_away = True
        assert await asyncio.to_thread(hears, it.renter, NET.address(0))
        it.relay.close(LEASE)
        await it.tell()
        it.is_away = False
        assert await asyncio.to_thread(hears, it.renter, NET.address(0), 60)
        assert not task.done()


@looped
async def test_one_keeper_runs_for_a_rental(folder: RentalFolder):
    """The second is told so."""
    async with world(folder) as it, kept(it):
        await it.until(lambda state: state.phase == "connected")
        with pytest.raises(Held):
            await Keeper(it, RentalFolder(folder.path.parent.parent, LEASE), DOMAIN, PLAN).run()


@looped
async def test_another_renters_end_takes_it_over(folder: RentalFolder):
    """One whose key isn't the rental's any more ends and says how to take it back."""
    async with world(folder) as it, kept(it) as task:
        await it.until(lambda state: state.phase == "connected")
        it.key = public(41)
        await it.tell()
        async with asyncio.timeout(DEADLINE_S):
            assert await task == "failed"
        state = folder.state()
        assert state is not None
        assert "another machine became the renter's end" in state.detail


KEEP = """
import asyncio, sys
from pathlib import Path
import msgspec
from clusterai.cli.renting.folder import RentalFolder
from clusterai.cli.renting.keeper import Keeper
from clusterai.sdk.rentalshapes import Rental
from tests.rooms.renting.told import DOMAIN, LEASE

class Gateway:
    def show(self, named):
        return msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=Rental)
    def meet(self, named, key):
        return self.show(named)

asyncio.run(Keeper(Gateway(), RentalFolder(Path(sys.argv[1]), LEASE), DOMAIN, ()).run())
"""


@looped
async def test_a_killed_keeper_leaves_no_interface_and_the_next_start_no_rule(
    folder: RentalFolder, tmp_path: Path
):
    """Killed outright: what carried the packets dies with it; the sweep takes the packet filter's rules away."""
    async with world(folder) as it:
        folder.write_secret(secret(RENTER))
        it.key = public(RENTER)
        await it.tell()
        rental_file = tmp_path / "rental.json"
        rental_file.write_bytes(msgspec.json.encode(it.told))
        arguments = (str(tmp_path), str(rental_file))
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                *it.renter.enter,
                sys.executable,
                "-c",
                KEEP,
                *arguments,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
            state = await it.until(lambda state: state.phase == "connected" and folder.is_held())
            os.kill(state.pid, signal.SIGKILL)
            await process.wait()
            await it.until(lambda _: interface_of(LEASE) not in it.renter.run("ip", "-o", "link"))
            assert "DROP" in it.left()
            folder.write_state(msgspec.structs.replace(state, phase="meshed", namespace=it.renter.namespace))
        await sweep(tmp_path)
        assert it.left() == ""
