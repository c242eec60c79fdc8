"""Keeps the renter's end of a lease's mesh: an interface in this machine's network while the rental lasts, and nothing of it afterwards.

    gateway ── who is in the mesh, every LOOK_S ──> mates, each vouched for ──> peers of the device
                                                     └─ seen ──> Paths: direct where that works, else the relay

What carries the packets dies with this process (`setpriv --pdeathsig`), so a keeper that is killed leaves no interface; its rules in the
packet filter are taken away by whoever begins next (`sweep`).
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, Protocol

from clusterai.cli.renting.folder import KeeperPhase, KeeperState, RentalFolder, unheld
from clusterai.cli.renting.vouched import Forged, Mate, mates
from clusterai.cli.renting.wall import NoWall, lower_wall, raise_wall
from clusterai.mesh import KERNEL, Device, NoWireGuard, Paths, Peer, keypair, net_of
from clusterai.mesh.adapters.device import SOCKETS
from clusterai.mesh.core.uapi import Endpoint, Malformed, joining, leaving
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.sdk import ApiError, Unreachable
from clusterai.sdk.rentalshapes import Rental

LOOK_S = 2.0
STEP_S = 0.5
PREFIX_BITS = 24
CAP_NET_ADMIN = 12
AWAY_S = 600.0
"""So long behind the booked end, a gateway that doesn't answer isn't waited for any more."""


class Mesher(Protocol):
    """What a keeper asks of a gateway (`sdk.rentals.Rentals`)."""

    def show(self, rental: str, /) -> Rental: ...

    def meet(self, rental: str, key: str, /) -> Rental: ...


class Held(Exception):
    """Another keeper runs for this rental."""


def interface_of(lease: Digest) -> str:
    """Its name: at most 15 characters."""
    return f"clr{lease.hex()[:10]}"


def missing() -> tuple[str, str] | None:
    """Why this machine can't be an end of the mesh, and the cure; None where it can."""
    in_kernel = KERNEL.has()
    for program, package in (
        *(() if in_kernel else (("wireguard-go", "wireguard-go"),)),
        ("setpriv", "util-linux"),
        ("nsenter", "util-linux"),
        ("iptables", "iptables"),
    ):
        if shutil.which(program) is None:
            return f"{program} isn't installed", f"apt-get install {package}"
    if not in_kernel and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun can't be opened", "modprobe tun, and let this user read and write it"
    if not _may_administer():
        return "a network interface needs root, or CAP_NET_ADMIN", "sudo -E"
    return None


def _may_administer() -> bool:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_NET_ADMIN & 1)
    return False


async def sweep(data: Path) -> None:
    """What killed keepers left: rules for interfaces that are gone, and their sockets' names."""
    for state in unheld(data):
        if not state.interface.startswith("clr") or not state.interface.isalnum():
            continue
        await lower_wall(state.interface, _enter(state.namespace))
        await asyncio.to_thread(KERNEL.remove, state.interface, state.namespace or None)
        with contextlib.suppress(OSError):
            (SOCKETS / f"{state.interface}.sock").unlink()


def _enter(namespace: str) -> tuple[str, ...]:
    return ("nsenter", f"--net={namespace}") if namespace else ()


class Keeper:
    """One rental's. Run it until it returns.

    Args:
        planned: the plan's machines; empty where it was booked elsewhere.
        namespace: where the interface is, as a path; empty for this machine's own network.
        origin: where its packets leave, as a path; empty for this machine's own network.
    """

    def __init__(
        self,
        rentals: Mesher,
        folder: RentalFolder,
        network: Domain,
        planned: Collection[Address],
        namespace: str = "",
        origin: str = "",
    ) -> None:
        self._rentals, self._folder, self._network, self._planned = rentals, folder, network, planned
        self._namespace, self._origin = namespace, origin
        self._lease = folder.lease
        self._name = interface_of(self._lease)
        self._private, self._public = keypair(folder.secret())
        self._peers: dict[bytes, Peer] = {}
        self._places: dict[bytes, int] = {}
        self._paths = Paths({})
        self._device: Device | None = None
        self._told: KeeperState | None = None
        self._replaced: set[bytes] = set()

    async def run(self) -> KeeperPhase:
        """Until the rental ends (`over`), the task is cancelled, or it can't go on (`failed`). Only one keeper runs for a rental."""
        if not self._folder.hold():
            raise Held
        try:
            self._tell("starting")
            await self._kept()
            self._tell("over")
            return "over"
        except Forged as error:
            self._tell("forged", str(error))
            return "forged"
        except (NoWireGuard, NoWall, Malformed, ApiError, Unreachable) as error:
            self._tell("failed", str(error))
            return "failed"
        except asyncio.CancelledError:
            self._tell("over", "ended from here")
            raise
        finally:
            await self._close()
            self._folder.let_go()

    async def _kept(self) -> None:
        it = await asyncio.to_thread(self._rentals.meet, hex0x(self._lease), hex0x(self._public))
        await self._begin(it)
        loop = asyncio.get_running_loop()
        looked_s = loop.time()
        while it.state != "ended":
            await self._take(it)
            while loop.time() - looked_s < LOOK_S:
                await self._step(it)
                await asyncio.sleep(STEP_S)
            looked_s = loop.time()
            it = await self._look(it)

    async def _look(self, before: Rental) -> Rental:
        """A gateway that restarts is waited for: what runs in the mesh doesn't need it."""
        try:
            return await asyncio.to_thread(self._rentals.show, hex0x(self._lease))
        except Unreachable as error:
            print(f"{error}", flush=True)
            if time.time() > before.until_s + AWAY_S:
                raise
        except ApiError as error:
            if error.status < 500:
                raise
        return before

    # --- the interface ---

    async def _begin(self, it: Rental) -> None:
        net = net_of(self._lease)
        address = net.address(len(it.machines))
        with contextlib.suppress(OSError):
            # A killed keeper's; its process died with it, and we hold the lock.
            (SOCKETS / f"{self._name}.sock").unlink()
        await lower_wall(self._name, _enter(self._namespace))
        enter = [*_enter(self._origin), "setpriv", "--pdeathsig", "KILL"]
        await asyncio.to_thread(KERNEL.remove, self._name, self._namespace or self._origin or None)
        self._device = await Device.open(self._name, enter, self._origin or None)
        await raise_wall(self._name, _enter(self._namespace or self._origin))
        await self._device.configure(self._private, ())
        await self._device.settle(address, PREFIX_BITS, self._namespace or None, self._origin or None)
        print(f"{self._name} has {address}", flush=True)
        self._tell("meshed", address=address)

    async def _close(self) -> None:
        if self._device is not None:
            await self._device.close()
            self._device = None
        await lower_wall(self._name, _enter(self._namespace or self._origin))

    # --- who is in it ---

    async def _take(self, it: Rental) -> None:
        """Peers as the gateway tells of them now. Sessions of those who stay go on.

        Raises:
            Forged.
        """
        assert self._device is not None
        mine = [member.key for member in it.members if member.place == len(it.machines)]
        if mine and mine != [hex0x(self._public)]:
            raise NoWireGuard(
                "another machine became the renter's end of this rental: clusterai rent connect takes it back"
            )
        found = mates(it, self._lease, self._network, self._planned)
        peers = {mate.member.key: await self._peer(mate) for mate in found}
        if peers != self._peers:
            for key in self._peers.keys() - peers.keys():
                await self._device.say(leaving(key))
            for key, peer in peers.items():
                if self._peers.get(key) != peer:
                    await self._device.say(joining(peer))
                    print(
                        f"place {self._place(found, key)}: {key.hex()[:16]} through {peer.endpoint}",
                        flush=True,
                    )
            relays: dict[bytes, Endpoint] = {
                key: peer.endpoint for key, peer in peers.items() if peer.endpoint is not None
            }
            self._peers, self._paths = peers, Paths(relays)
            self._places = {mate.member.key: mate.member.place for mate in found}
        for mate in found:
            if mate.is_replacement and mate.member.key not in self._replaced:
                self._replaced.add(mate.member.key)
                print(
                    f"place {mate.member.place}: another machine than the plan's, as the gateway says",
                    flush=True,
                )
            if mate.seen is not None:
                self._paths.seen_outside(mate.member.key, mate.seen)

    @staticmethod
    def _place(found: Sequence[Mate], key: bytes) -> int:
        return next(mate.member.place for mate in found if mate.member.key == key)

    async def _peer(self, mate: Mate) -> Peer:
        known = self._peers.get(mate.member.key)
        host, port = mate.relay
        address = net_of(self._lease).address(mate.member.place)
        if known is not None and known.endpoint == (host, port):
            return known
        return Peer(mate.member.key, (address,), (await _looked_up(host), port))

    # --- ways ---

    async def _step(self, it: Rental) -> None:
        assert self._device is not None
        states = await self._device.states()
        for move in self._paths.step(states, asyncio.get_running_loop().time()):
            await self._device.move(move.key, move.endpoint)
        ways: dict[int, Literal["direct", "relay", "silent"]] = {}
        for state in states:
            if (place := self._places.get(state.key)) is not None:
                is_direct = self._paths.is_direct(state.key)
                ways[place] = "direct" if is_direct else "relay" if state.handshake_s else "silent"
        head = ways.get(0, "silent")
        address = net_of(self._lease).address(len(it.machines))
        self._tell("connected" if head != "silent" else "meshed", address=address, ways=ways)

    def _tell(
        self,
        phase: KeeperPhase,
        detail: str = "",
        address: str = "",
        ways: dict[int, Literal["direct", "relay", "silent"]] | None = None,
    ) -> None:
        told = KeeperState(
            pid=os.getpid(),
            interface=self._name,
            namespace=self._namespace,
            phase=phase,
            detail=detail[:500],
            address=address,
            ways=dict(sorted((ways or {}).items())),
        )
        if told != self._told:
            self._told = told
            self._folder.write_state(told)
            if detail:
                print(f"{phase}: {detail}", flush=True)


async def _looked_up(host: str) -> str:
    """
    Raises:
        NoWireGuard: nobody knows it.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise NoWireGuard(f"the relay {host[:100]!r} can't be found: {error}") from None
    return str(found[0][4][0])


async def keep(keeper: Keeper) -> KeeperPhase:
    """Run it until it returns or this process is told to end."""
    task = asyncio.ensure_future(keeper.run())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return "over"
