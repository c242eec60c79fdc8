"""A wire between two network namespaces that loses, delays and limits what it carries, as a link across a country does.

    host a: tun ── this program: a queue each way, losses drawn from a seed ── tun :host b

Kernels without `sch_netem` have no other way; it carries some ten Mbit/s. A wire lives as long as its process.
"""

import contextlib
import fcntl
import heapq
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

from pyroute2 import netns

TUNSETIFF, TUN_NO_HEADER = 0x400454CA, 0x1001
ROOT = Path(__file__).parents[3]
QUEUED_S = 0.2
"""What a router holds at most; beyond, packets are lost."""


class Wire:
    """Args:
    one, other: (namespace as a path, the interface's name there); addresses are the caller's affair.
    """

    def __init__(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        command = [sys.executable, "-m", "tests.rooms.mesh.wire", *one, *other]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n", "a tun device needs root, and /dev/net/tun"

    def carry(self, delay_ms: float = 0.0, loss: float = 0.0, mbit: float = 1000.0) -> None:
        """From now on; the delay is of each way, `loss` a share of the packets: 1 cuts the wire."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{delay_ms} {loss} {mbit}\n")
        assert self._process.stdout.readline() == "set\n"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def _opened(namespace: str, name: str) -> int:
    netns.pushns(namespace)
    try:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), TUN_NO_HEADER))
    finally:
        netns.popns()
    return tun


def _carry(one: int, other: int) -> None:
    drawn, numbers = random.Random(1), count()
    delay_s, loss, bytes_s = 0.0, 0.0, 1e9 / 8
    under_way: list[tuple[float, int, int, bytes]] = []
    free_s = {one: 0.0, other: 0.0}
    ready = selectors.DefaultSelector()
    for end in (one, other, sys.stdin.fileno()):
        ready.register(end, selectors.EVENT_READ)
    while True:
        wait_s = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for key, _ in ready.select(wait_s):
            if key.fd == sys.stdin.fileno():
                words = sys.stdin.readline().split()
                if not words:
                    return
                delay_s, loss, bytes_s = float(words[0]) / 1e3, float(words[1]), float(words[2]) * 1e6 / 8
                print("set", flush=True)
                continue
            packet, now_s = os.read(key.fd, 65_536), time.monotonic()
            begins_s = max(now_s, free_s[key.fd])
            if drawn.random() >= loss and begins_s - now_s <= QUEUED_S:
                free_s[key.fd] = begins_s + len(packet) / bytes_s
                to = other if key.fd == one else one
                heapq.heappush(under_way, (free_s[key.fd] + delay_s, next(numbers), to, packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, to, packet = heapq.heappop(under_way)
            # Its interface may not be up yet, or any more.
            with contextlib.suppress(OSError):
                os.write(to, packet)


if __name__ == "__main__":
    ends = _opened(sys.argv[1], sys.argv[2]), _opened(sys.argv[3], sys.argv[4])
    print("ready", flush=True)
    _carry(*ends)
