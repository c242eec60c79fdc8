"""One WireGuard interface: made by `wireguard-go`, spoken to over its socket, addressed inside a network namespace.

The interface's UDP socket stays where it was made, on the machine's own network; the interface itself is moved into the tenant's
namespace. So the tenant sees the mesh and nothing else, and the machine's network doesn't see the mesh.
"""

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from pyroute2 import IPRoute, NetlinkError, netns

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

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    @property
    def pid(self) -> int:
        """Of what carries its packets."""
        return self._process.pid

    @classmethod
    async def open(cls, name: str, enter: Sequence[str] = ()) -> "Device":
        """
        Args:
            name: of the interface; at most 15 characters, and no other's on this machine.
            enter: a command line that runs another in the network where packets are to leave, `nsenter -t PID -n`; empty for this one.

        Raises:
            NoWireGuard: what is missing.
        """
        program = shutil.which("wireguard-go")
        if program is None:
            raise NoWireGuard("wireguard-go isn't installed: apt-get install wireguard-go")
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
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        with contextlib.suppress(FileNotFoundError, PermissionError):
            (SOCKETS / f"{self.name}.sock").unlink()

    async def _say(self, text: bytes) -> bytes:
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
            _inside(origin, lambda: move(target.fileno()))
    _inside(namespace or origin, raise_it)


def _inside(namespace: str | None, work: Callable[[], None]) -> None:
    """Do it in another network namespace: in a thread of its own, which ends there.

    Not by `IPRoute(netns=…)`: that forks a helper and ends it by SIGTERM, and as the helper has our signal pipe, our event loop hears that
    signal as its own.
    """
    if namespace is None:
        return work()
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            netns.setns(namespace, flags=0)
            work()
        except (NetlinkError, OSError, LookupError) as error:
            failed.append(error)

    thread = threading.Thread(target=enter, name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return None


def _index(routes: IPRoute, name: str) -> int:
    for found in cast("list[int]", routes.link_lookup(ifname=name)):
        return found
    raise LookupError(f"no interface {name}")
