"""The sentinel: on every core a sequential memory-hard chain at the lowest priority, inside the tenant's sandbox.

    python sentinel.py 0 1 2 3          one chain each on these cores
    <- a line: 64 hex digits, the newest beacon                       (nothing else is read)
    -> a line: {"links": [c0, c1, ...], "since": [s0, s1, ...], "values": ["hex", ...]}

`links` and `values` are as the chains stand, `since` how many links each had when it took up the beacon of the line before. The first
line is the lease's seed, and is answered by nothing.

A link is scrypt (N 1024, r 8: 1 MiB, some milliseconds) of the value before, so a chain can't be cut into parts, nor run ahead of a
beacon it doesn't know, and whoever has the values can do any stretch again:

    value' = scrypt(password = value, salt = newest beacon)

It uses the standard library alone, as it runs in images that have nothing else. Under SCHED_IDLE it gets what the tenant leaves.
"""

import contextlib
import hashlib
import json
import mmap
import os
import signal
import struct
import sys

N, R, P = 1024, 8, 1
VALUE_BYTES = 32
_BEACON = struct.Struct("<32s32s")
_CELL = struct.Struct("<QQ32sQ")
"""links, since, value, links again. What is written while it is read shows two halves that differ."""


def link(value: bytes, beacon: bytes) -> bytes:
    """One link of a chain."""
    return hashlib.scrypt(value, salt=beacon, n=N, r=R, p=P, dklen=VALUE_BYTES)


def first(seed: bytes, core: int) -> bytes:
    """The value before a chain's first link: of the lease's seed and its core."""
    return hashlib.sha256(b"clusterai sentinel" + seed + core.to_bytes(4, "big")).digest()


def _chain(core: int, at: int, shared: mmap.mmap, seed: bytes) -> None:
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    value, links, since, beacon = first(seed, core), 0, 0, seed
    offset = _BEACON.size + at * _CELL.size
    while True:
        newest = _beacon(shared)
        if newest != beacon:
            beacon, since = newest, links
        value = link(value, beacon)
        links += 1
        shared[offset : offset + _CELL.size] = _CELL.pack(links, since, value, links)


def _beacon(shared: mmap.mmap) -> bytes:
    while True:
        beacon, again = _BEACON.unpack(shared[: _BEACON.size])
        if beacon == again:
            return beacon


def _read(shared: mmap.mmap, at: int) -> tuple[int, int, bytes]:
    offset = _BEACON.size + at * _CELL.size
    while True:
        cell = shared[offset : offset + _CELL.size]
        links, since, value, again = _CELL.unpack(cell)
        if links == again and shared[offset : offset + _CELL.size] == cell:
            return links, since, value


def main(cores: list[int]) -> None:
    seed = bytes.fromhex(sys.stdin.readline(65).strip())
    shared = mmap.mmap(-1, _BEACON.size + len(cores) * _CELL.size)
    shared[: _BEACON.size] = _BEACON.pack(seed, seed)
    children: list[int] = []
    for at, core in enumerate(cores):
        child = os.fork()
        if child == 0:
            try:
                _chain(core, at, shared, seed)
            finally:
                os._exit(1)
        children.append(child)
    try:
        for line in sys.stdin:
            cells = [_read(shared, at) for at in range(len(cores))]
            told = {
                "links": [links for links, _, _ in cells],
                "since": [since for _, since, _ in cells],
                "values": [value.hex() for _, _, value in cells],
            }
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            beacon = bytes.fromhex(line.strip())
            shared[: _BEACON.size] = _BEACON.pack(beacon, beacon)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main([int(core) for core in sys.argv[1:]])
