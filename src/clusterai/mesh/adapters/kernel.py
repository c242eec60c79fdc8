"""The kernel's own WireGuard: interfaces made and told over netlink, where the kernel has it. Nothing carries packets but the kernel.

An interface sends and receives where it was made, wherever it is moved to afterwards, as wireguard-go's does. It dies with the network
namespace that it is in; one in a lasting network has to be removed.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST
from pyroute2.netlink.generic import wireguard

from clusterai.mesh.adapters.inside import inside
from clusterai.mesh.core.attributes import Attributes, answer, attributes, is_asking
from clusterai.mesh.core.uapi import Malformed

T = TypeVar("T")


class Kernel(Protocol):
    """What a device asks of one. Networks are named by their paths; None is our own."""

    def make(self, name: str, network: str | None) -> bool:
        """Whether it has an interface of this name now; False where the kernel has no WireGuard, or we may not."""
        ...

    def say(self, name: str, network: str | None, text: bytes) -> bytes:
        """A text of core/uapi.py, and the answer to it."""
        ...

    def remove(self, name: str, network: str | None) -> None: ...


class Netlink:
    """The running kernel."""

    def has(self) -> bool:
        """Whether it has WireGuard, and we may use it: known by trying."""
        name = f"ca-has{os.getpid() % 10**8}"
        if not self.make(name, None):
            return False
        self.remove(name, None)
        return True

    def make(self, name: str, network: str | None) -> bool:
        def make() -> None:
            with IPRoute() as routes:
                routes.link("add", ifname=name, kind="wireguard")

        try:
            inside(network, make)
        except (NetlinkError, OSError):
            return False
        return True

    def say(self, name: str, network: str | None, text: bytes) -> bytes:
        return _result(network, lambda: self._ask(name) if is_asking(text) else self._set(name, text))

    def remove(self, name: str, network: str | None) -> None:
        def remove() -> None:
            with IPRoute() as routes:
                for index in cast("list[int]", routes.link_lookup(ifname=name, kind="wireguard")):
                    routes.link("del", index=index)

        # With its network, where that is gone already.
        with contextlib.suppress(NetlinkError, OSError):
            inside(network, remove)

    @staticmethod
    def _set(name: str, text: bytes) -> bytes:
        _request(wireguard.WG_CMD_SET_DEVICE, attributes(name, text), NLM_F_ACK)
        return b"errno=0\n\n"

    @staticmethod
    def _ask(name: str) -> bytes:
        return answer(_request(wireguard.WG_CMD_GET_DEVICE, [("WGDEVICE_A_IFNAME", name)], NLM_F_DUMP))


def message(command: int, told: Attributes) -> Any:
    """Of WireGuard's family of netlink."""
    made: Any = wireguard.wgmsg()
    made["cmd"] = command
    made["version"] = wireguard.WG_GENL_VERSION
    made["attrs"] = told
    return made


def _request(command: int, told: Attributes, flag: int) -> list[Sequence[tuple[str, Any]]]:
    """
    Raises:
        OSError: the kernel refused.
    """
    try:
        with cast("Any", wireguard.WireGuard)() as it:
            found = it.nlm_request(message(command, told), msg_type=it.prid, msg_flags=NLM_F_REQUEST | flag)
            return [part["attrs"] for part in found if flag == NLM_F_DUMP]
    except (NetlinkError, KeyError) as error:
        raise OSError(f"the kernel refused: {error}") from None


def _result(network: str | None, work: Callable[[], T]) -> T:
    found: list[T] = []
    failed: list[Malformed] = []

    def do() -> None:
        try:
            found.append(work())
        except Malformed as error:
            failed.append(error)

    inside(network, do)
    if failed:
        raise failed[0]
    return found[0]


KERNEL = Netlink()
