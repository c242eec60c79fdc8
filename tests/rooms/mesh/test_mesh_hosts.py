"""The mesh between hosts of its own network: through the relay, direct where it works, closed to strangers, gone at its end."""

import asyncio
import hashlib
import signal
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pyroute2 import netns

from clusterai.mesh import Device, Member, NoWireGuard, Paths, Peer, RelayServer, endpoints, keypair, net_of
from clusterai.mesh.core.uapi import leaving
from clusterai.protocol.ids import Digest
from tests.rooms.mesh.hosts import ECHO, Host, Internet, hears

LEASE = Digest(b"\x21" * 32)
NET = net_of(LEASE)
DEADLINE_S = 120.0


def secret(place: int) -> bytes:
    return bytes([place + 1]) * 32


class Mesh:
    """Members of one lease on given hosts, with a relay on another."""

    def __init__(self, relay_host: Host, relay_address: str, hosts: Sequence[Host]) -> None:
        self._relay_host = relay_host
        self.relay = RelayServer("0.0.0.0", relay_address)
        self.hosts = hosts
        self.devices: list[Device] = []
        self.paths: list[Paths] = []
        self.members = [Member(place, keypair(secret(place))[1]) for place in range(len(hosts))]

    async def begin(self) -> None:
        netns.pushns(self._relay_host.namespace)
        try:
            ports = await self.relay.open(LEASE, self.members)
        finally:
            netns.popns()
        for member, host in zip(self.members, self.hosts, strict=True):
            device = await Device.open(f"ca{host.pid}", host.enter)
            self.devices.append(device)
            await device.settle(NET.address(member.place), 24, origin=host.namespace)
            peers = endpoints(NET, member, self.members, ports.get(member.place, {}))
            await device.configure(keypair(secret(member.place))[0], peers)
            relayed = {self.members[place].key: at for place, at in ports.get(member.place, {}).items()}
            self.paths.append(Paths(relayed))

    async def turn(self) -> None:
        """One look of every member at its ways, with what the relay tells them."""
        outside = self.relay.table.outside(LEASE)
        now_s = asyncio.get_running_loop().time()
        for device, paths in zip(self.devices, self.paths, strict=True):
            for place, at in outside.items():
                paths.seen_outside(self.members[place].key, at)
            for move in paths.step(await device.states(), now_s):
                await device.move(move.key, move.endpoint)

    def direct(self, here: int, there: int) -> bool:
        return self.paths[here].is_direct(self.members[there].key)

    async def close(self) -> None:
        for device in self.devices:
            await device.close()
        self.relay.end()


@asynccontextmanager
async def meshed(internet: Internet, hosts: Sequence[Host]) -> AsyncGenerator[Mesh]:
    relay, address = internet.host()
    mesh = Mesh(relay, address, hosts)
    echoes: list[subprocess.Popen[str]] = []
    try:
        await mesh.begin()
        for place, host in enumerate(hosts):
            echo = host.start(ECHO, NET.address(place))
            echoes.append(echo)
            assert echo.stdout
            assert await asyncio.to_thread(echo.stdout.readline) == "ready\n"
        yield mesh
    finally:
        for echo in echoes:
            echo.kill()
            echo.communicate()
        await mesh.close()


async def until(said: str, done: Callable[[], Awaitable[bool]]) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await done():  # noqa: ASYNC110  what is waited for is outside of this process
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"in vain: {said}") from None


async def hear_each_other(mesh: Mesh, *pairs: tuple[int, int]) -> None:
    for here, there in pairs:
        heard = await asyncio.to_thread(hears, mesh.hosts[here], NET.address(there))
        assert heard, f"{here} doesn't hear {there}"


@pytest.fixture
def internet():
    made = Internet()
    yield made
    made.close()


def test_members_meet_through_the_relay_and_then_go_direct(internet: Internet):
    """Two open hosts and one behind a NAT hear each other at once, find direct ways, and keep them when the relay is gone."""

    async def play() -> None:
        hosts = [internet.host()[0], internet.host()[0], internet.behind_nat()[0]]
        async with meshed(internet, hosts) as mesh:
            pairs = ((0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1))
            await hear_each_other(mesh, *pairs)

            async def all_direct() -> bool:
                await mesh.turn()
                return all(mesh.direct(*pair) for pair in pairs)

            await until("all ways to be direct", all_direct)
            mesh.relay.end()
            await hear_each_other(mesh, *pairs)

    asyncio.run(play())


def test_two_symmetric_nats_stay_on_the_relay(internet: Internet):
    """Where no direct way exists the relay goes on, and comes back after every try."""

    async def play() -> None:
        hosts = [internet.behind_nat(symmetric=True)[0], internet.behind_nat(symmetric=True)[0]]
        async with meshed(internet, hosts) as mesh:
            await hear_each_other(mesh, (0, 1), (1, 0))
            tried = False

            async def given_up() -> bool:
                nonlocal tried
                await mesh.turn()
                states = await mesh.devices[0].states()
                relayed = states[0].endpoint is not None and states[0].endpoint[0] == "10.77.0.3"
                tried |= not relayed
                return tried and relayed

            await until("a try, and the relay again", given_up)
            await hear_each_other(mesh, (0, 1), (1, 0))
            assert not mesh.direct(0, 1)

    asyncio.run(play())


def test_strangers_and_former_members_are_shut_out(internet: Internet):
    """A host that isn't in the lease reaches nobody in it, and a member that left is heard no more."""

    async def play() -> None:
        hosts = [internet.host()[0], internet.host()[0]]
        stranger, _ = internet.host()
        async with meshed(internet, hosts) as mesh:
            await hear_each_other(mesh, (0, 1))
            assert not await asyncio.to_thread(hears, stranger, NET.address(0), 2)
            other = await Device.open(f"ca{stranger.pid}", stranger.enter)
            try:
                await other.settle(NET.address(5), 24, origin=stranger.namespace)
                ports = {1: ("10.77.0.4", 9)}
                await other.configure(
                    keypair(secret(9))[0], endpoints(NET, Member(5, b""), mesh.members[1:], ports)
                )
                state = (await mesh.devices[1].states())[0].endpoint
                assert state is not None
                (peer,) = endpoints(NET, Member(5, b""), mesh.members[1:], {1: (state[0], state[1])})
                await other.move(peer.key, state)
                assert not await asyncio.to_thread(hears, stranger, NET.address(1), 4)
            finally:
                await other.close()
            await mesh.devices[1].say(leaving(mesh.members[0].key))
            assert not await asyncio.to_thread(hears, hosts[0], NET.address(1), 4)

    asyncio.run(play())


def test_a_partition_heals(internet: Internet):
    """A member whose plug was pulled is heard again when it is in, without anybody's doing."""

    async def play() -> None:
        hosts = [internet.host()[0], internet.host()[0]]
        async with meshed(internet, hosts) as mesh:
            await hear_each_other(mesh, (0, 1))
            internet.part(hosts[1], apart=True)
            assert not await asyncio.to_thread(hears, hosts[0], NET.address(1), 3)
            internet.part(hosts[1], apart=False)

            async def heard() -> bool:
                await mesh.turn()
                return await asyncio.to_thread(hears, hosts[0], NET.address(1), 1)

            await until("the member to be heard again", heard)

    asyncio.run(play())


FETCH = """
import hashlib, socket, sys
with socket.create_connection((sys.argv[1], 9), timeout=100) as it:
    got = hashlib.sha256()
    while data := it.recv(65_536):
        got.update(data)
print(got.hexdigest())
"""
SERVE = """
import socket, sys
with socket.create_server((sys.argv[1], 9)) as it:
    print("ready", flush=True)
    link, _ = it.accept()
    link.sendall(bytes(range(256)) * 500)
    link.close()
"""


def test_a_mesh_over_a_bad_link(internet: Internet):
    """Behind a NAT, 150 ms and 4 Mbit/s away a member is met directly; with a twentieth of the packets lost all that is sent comes whole; cut off and back it is heard again."""

    async def play() -> None:
        far, wire = internet.far_away()
        wire.carry(delay_ms=75, mbit=4)
        hosts = [internet.host()[0], far]
        async with meshed(internet, hosts) as mesh:
            await hear_each_other(mesh, (0, 1), (1, 0))

            async def direct() -> bool:
                await mesh.turn()
                return mesh.direct(0, 1) and mesh.direct(1, 0)

            await until("a direct way", direct)
            wire.carry(delay_ms=75, loss=0.05, mbit=4)
            served = hosts[1].start(SERVE, NET.address(1))
            assert served.stdout
            assert await asyncio.to_thread(served.stdout.readline) == "ready\n"
            came = await asyncio.to_thread(hosts[0].python, FETCH, NET.address(1))
            served.communicate()
            assert came.strip() == hashlib.sha256(bytes(range(256)) * 500).hexdigest()
            wire.carry(loss=1)
            assert not await asyncio.to_thread(hears, hosts[0], NET.address(1), 3)
            wire.carry(delay_ms=75, mbit=4)

            async def heard() -> bool:
                await mesh.turn()
                return await asyncio.to_thread(hears, hosts[0], NET.address(1), 1)

            await until("the member to be heard again", heard)

    asyncio.run(play())


def test_nothing_of_a_mesh_is_left(internet: Internet):
    """After the lease its interfaces, processes and control sockets are gone, and a second one of the same name can be made."""

    async def play() -> None:
        host, _ = internet.host()
        for _ in range(2):
            device = await Device.open("ca-again", host.enter)
            await device.settle(NET.address(0), 24, origin=host.namespace)
            assert "ca-again" in host.run("ip", "link")
            with pytest.raises(NoWireGuard, match="is there already"):
                await Device.open("ca-again", host.enter)
            await device.close()
            assert "ca-again" not in host.run("ip", "link")

    asyncio.run(play())
    assert not Path("/var/run/wireguard/ca-again.sock").exists()


def test_the_interface_lives_in_the_tenants_namespace_alone(internet: Internet):
    """Moved into the tenant's namespace it carries the mesh there, while its packets leave by the machine's network."""

    async def play() -> None:
        machine, _ = internet.host()
        tenant = Host()
        other, _ = internet.host()
        try:
            async with meshed(internet, [other]) as mesh:
                port = await mesh.devices[0].configure(keypair(secret(0))[0], ())
                (key,) = [it.key for it in mesh.members]
                device = await Device.open(f"ca{machine.pid}", machine.enter)
                try:
                    await device.settle(NET.address(1), 24, tenant.namespace, machine.namespace)
                    await device.configure(
                        keypair(secret(1))[0], [Peer(key, (NET.address(0),), ("10.77.0.2", port))]
                    )
                    them = Peer(keypair(secret(1))[1], (NET.address(1),))
                    await mesh.devices[0].configure(keypair(secret(0))[0], [them], port)
                    assert await asyncio.to_thread(hears, tenant, NET.address(0))
                    assert not await asyncio.to_thread(hears, machine, NET.address(0), 2)
                    assert "10.77" not in tenant.run("ip", "addr")
                finally:
                    await device.close()
        finally:
            tenant.close()

    asyncio.run(play())


def test_to_settle_an_interface_ends_nobody(internet: Internet):
    """A daemon that listens for the signal to end hears none: a helper that was ended by one once shared its pipe."""
    heard: list[int] = []

    async def play() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: heard.append(signal.SIGTERM))
        (origin, _), (tenant, _) = internet.host(), internet.host()
        device = await Device.open(f"ca{origin.pid}", origin.enter)
        try:
            await device.settle(NET.address(0), 24, tenant.namespace, origin.namespace)
            await asyncio.sleep(0)
        finally:
            await device.close()
            loop.remove_signal_handler(signal.SIGTERM)

    asyncio.run(play())
    assert heard == []
