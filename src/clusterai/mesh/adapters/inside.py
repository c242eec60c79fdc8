"""To do something in another network namespace."""

import socket
import threading
from collections.abc import Callable

from pyroute2 import NetlinkError, netns


def datagrams(namespace: str) -> socket.socket:
    """A UDP socket in another network namespace, which lives on as long as it does."""
    made: list[socket.socket] = []
    inside(namespace, lambda: made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    made[0].setblocking(False)
    return made[0]


def inside(namespace: str | None, work: Callable[[], None]) -> None:
    """Do it there: in a thread of its own, which ends there; here where none is named.

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
