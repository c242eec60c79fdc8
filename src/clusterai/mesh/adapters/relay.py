"""The relay as a server: a UDP port for each ordered pair of a lease's members. See `core/forwarding.py`."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from clusterai.mesh.core.forwarding import MOST_BYTES, Port, Table
from clusterai.mesh.core.members import Member
from clusterai.mesh.core.uapi import Endpoint
from clusterai.protocol.ids import Digest


class RelayServer:
    """Forwards what members of open leases send each other.

    Args:
        host: where it listens.
        shown: the address that members reach it at; `host` where nothing else is said.
    """

    def __init__(self, host: str, shown: str | None = None, table: Table | None = None) -> None:
        self.table = table or Table()
        self._host = host
        self._shown = shown or host
        self._open: dict[Port, asyncio.DatagramTransport] = {}

    async def open(self, lease: Digest, members: Sequence[Member]) -> Mapping[int, Mapping[int, Endpoint]]:
        """Ports for a lease: by sender's place, where it sends what is for a receiver's place.

        Again for other members, those who stay keep theirs.
        """
        loop = asyncio.get_running_loop()
        found: dict[int, dict[int, Endpoint]] = {}
        try:
            ports = self.table.open(lease, members)
            for port in [it for it in self._open if it.lease == lease and it not in ports]:
                self._open.pop(port).close()
            for port in ports:
                transport = self._open.get(port)
                if transport is None:
                    transport, _ = await loop.create_datagram_endpoint(
                        lambda port=port: _Listener(self, port), local_addr=(self._host, 0)
                    )
                    self._open[port] = transport
                number = transport.get_extra_info("sockname")[1]
                found.setdefault(port.sender, {})[port.receiver] = (self._shown, number)
        except OSError:
            self.close(lease)
            raise
        return found

    def close(self, lease: Digest) -> None:
        """The lease is over."""
        self.table.close(lease)
        for port in [it for it in self._open if it.lease == lease]:
            self._open.pop(port).close()

    def end(self) -> None:
        for lease in {port.lease for port in self._open}:
            self.close(lease)

    def forward(self, port: Port, source: Endpoint, datagram: bytes) -> None:
        if len(datagram) > MOST_BYTES:
            return
        found = self.table.take(port, source, datagram, asyncio.get_running_loop().time())
        if found is not None and (transport := self._open.get(found.port)) is not None:
            transport.sendto(datagram, found.to)


class _Listener(asyncio.DatagramProtocol):
    def __init__(self, server: RelayServer, port: Port) -> None:
        self._server = server
        self._port = port

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._server.forward(self._port, (str(addr[0]), int(addr[1])), data)
