"""One WireGuard interface: the kernel's own where it has one, else `wireguard-go`'s; spoken to in one language, addressed inside a network
namespace.

The interface's UDP socket stays where it was made, on the machine's own network; the interface itself is moved into the tenant's
namespace. So the tenant sees the mesh and nothing else, and the machine's network doesn't see the mesh.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pyroute2 import IPRoute, NetlinkError

from clusterai.mesh.adapters.inside import inside
from clusterai.mesh.adapters.kernel import KERNEL, Kernel
from clusterai.mesh.core.uapi import (
    ASKING,
    Endpoint,
    Peer,
    PeerState,
    accepted,
    listening,
    moving,
    setting,
    told,
)

SOCKETS = Path("/var/run/wireguard")
STARTS_S = 10.0
ANSWERS_S = 5.0
MOST_REPLY = 1 << 20
MTU = 1380
"""1500 less IPv6, UDP and WireGuard's own 32 bytes, and some for what providers of access take."""


class NoWireGuard(Exception):
    """This machine can't make WireGuard interfaces; the message says what is missing and what to do."""


class Device:
    """An interface that lives until `close`. Made by `open`."""

    def __init__(
        self, name: str, carrier: asyncio.subprocess.Process | Kernel, network: str | None = None
    ) -> None:
        self.name = name
        self._carrier = carrier
        self._network = network

    @property
    def in_kernel(self) -> bool:
        return not isinstance(self._carrier, asyncio.subprocess.Process)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of what carries its packets; nothing where the kernel does."""
        return (self._carrier.pid,) if isinstance(self._carrier, asyncio.subprocess.Process) else ()

    @classmethod
    async def open(
        cls, name: str, enter: Sequence[str] = (), origin: str | None = None, kernel: Kernel | None = KERNEL
    ) -> "Device":
        """
        Args:
            name: of the interface; at most 15 characters, and no other's on this machine.
            enter: a command line that runs another in the network where packets are to leave, `nsenter -t PID -n`; empty for this one.
            origin: the same network, as a path; None for this one.
            kernel: asked first; None for wireguard-go alone.

        Raises:
            NoWireGuard: what is missing.
        """
        # A network that only a command line knows is out of the kernel's reach.
        known = origin is not None or "nsenter" not in enter
        if kernel is not None and known and await asyncio.to_thread(kernel.make, name, origin):
            return cls(name, kernel, origin)
        return await cls._in_user_space(name, enter)

    @classmethod
    async def _in_user_space(cls, name: str, enter: Sequence[str]) -> "Device":
        program = shutil.which("wireguard-go")
        if program is None:
            raise NoWireGuard(
                "this kernel has no WireGuard, and wireguard-go isn't installed: apt-get install wireguard-go"
            )
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise NoWireGuard(
                "/dev/net/tun can't be opened: modprobe tun, and let this user read and write it"
            )
        control = SOCKETS / f"{name}.sock"
        if control.exists():
            raise NoWireGuard(f"an interface {name} is there already: end what holds {control}")
        process = await asyncio.create_subprocess_exec(
            *enter,
            program,
            "-f",
            name,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={"LOG_LEVEL": "error", "PATH": os.environ.get("PATH", "")},
        )
        device = cls(name, process)
        try:
            async with asyncio.timeout(STARTS_S):
                while not control.exists():
                    if process.returncode is not None:
                        assert process.stderr is not None
                        said = (await process.stderr.read(4096)).decode(errors="replace").strip()
                        raise NoWireGuard(f"wireguard-go ended: {said[-300:] or process.returncode}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            await device.close()
            raise NoWireGuard(f"wireguard-go didn't answer within {STARTS_S:.0f} s") from None
        except NoWireGuard:
            await device.close()
            raise
        return device

    async def settle(
        self, address: str, prefix: int, namespace: str | None = None, origin: str | None = None
    ) -> None:
        """Give the interface its address and raise it, in another network namespace if one is named.

        Args:
            namespace: as a path, `/proc/PID/ns/net`.
            origin: where `open` made it, if not here.

        Raises:
            NoWireGuard: the kernel refused.
        """
        try:
            await asyncio.to_thread(_settled, self.name, address, prefix, namespace, origin)
        except (NetlinkError, OSError, LookupError) as error:
            raise NoWireGuard(f"the kernel refused an address for {self.name}: {error}") from None
        self._network = namespace or origin

    async def configure(self, private: bytes, peers: Sequence[Peer], port: int = 0) -> int:
        """Keys and peers, in place of any before; the UDP port it listens at."""
        accepted(await self._say(setting(private, port, peers)))
        return listening(await self._say(ASKING))

    async def states(self) -> tuple[PeerState, ...]:
        return told(await self._say(ASKING))

    async def move(self, key: bytes, endpoint: Endpoint) -> None:
        accepted(await self._say(moving(key, endpoint)))

    async def say(self, text: bytes) -> None:
        """Any other change, as core/uapi.py writes it."""
        accepted(await self._say(text))

    async def close(self) -> None:
        """The interface and its process are gone."""
        if not isinstance(self._carrier, asyncio.subprocess.Process):
            await asyncio.to_thread(self._carrier.remove, self.name, self._network)
            return
        if self._carrier.returncode is None:
            self._carrier.terminate()
            try:
                await asyncio.wait_for(self._carrier.wait(), 5)
            except TimeoutError:
                self._carrier.kill()
                await self._carrier.wait()
        with contextlib.suppress(FileNotFoundError, PermissionError):
            (SOCKETS / f"{self.name}.sock").unlink()

    async def _say(self, text: bytes) -> bytes:
        if not isinstance(self._carrier, asyncio.subprocess.Process):
            try:
                return await asyncio.to_thread(self._carrier.say, self.name, self._network, text)
            except OSError as error:
                raise NoWireGuard(f"{self.name} doesn't answer: {error}") from None
        try:
            async with asyncio.timeout(ANSWERS_S):
                reader, writer = await asyncio.open_unix_connection(str(SOCKETS / f"{self.name}.sock"))
                try:
                    writer.write(text)
                    await writer.drain()
                    return await reader.readuntil(b"\n\n")
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise NoWireGuard(f"{self.name} doesn't answer: {error or 'too slow'}") from None


def _settled(name: str, address: str, prefix: int, namespace: str | None, origin: str | None) -> None:
    def move(target: int) -> None:
        with IPRoute() as routes:
            routes.link("set", index=_index(routes, name), net_ns_fd=target)

    def raise_it() -> None:
        with IPRoute() as routes:
            index = _index(routes, name)
            routes.addr("add", index=index, address=address, prefixlen=prefix)
            routes.link("set", index=index, mtu=MTU, state="up")

    if namespace is not None:
        with Path(namespace).open() as target:
            inside(origin, lambda: move(target.fileno()))
    inside(namespace or origin, raise_it)


def _index(routes: IPRoute, name: str) -> int:
    for found in cast("list[int]", routes.link_lookup(ifname=name)):
        return found
    raise LookupError(f"no interface {name}")
