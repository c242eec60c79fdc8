"""The sentinel: on every core a sequential memory-hard chain at the lowest priority, inside the tenant's sandbox.

    python sentinel.py 0 1 2 3          one chain each on these cores
    <- a line: 64 hex digits, the seed from now on                    (nothing else is read)
    -> a line: {"links": [c0, c1, ...], "values": ["hex", ...]}

What is told is how the chains stand under the seed of the line before; the first line is answered by nothing. With a new seed every chain
begins anew, with its next link; one that hasn't come to it yet stands at nought.

A link is scrypt (N 1024, r 8: 1 MiB, some milliseconds) of the value before, so a chain can't be cut into parts, nor run ahead of a
seed it doesn't know, and whoever has the values can do any stretch again:

    value' = scrypt(password = value, salt = seed)

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
_SEED = struct.Struct("<32s32s")
_CELL = struct.Struct("<Q32s32sQ")
"""links, seed, value, links again. What is written while it is read shows two halves that differ."""


def link(value: bytes, seed: bytes) -> bytes:
    """One link of a chain."""
    return hashlib.scrypt(value, salt=seed, n=N, r=R, p=P, dklen=VALUE_BYTES)


def first(seed: bytes, core: int) -> bytes:
    """The value before a chain's first link: of the seed and its core, counted from 0 among those that are rented."""
    return hashlib.sha256(b"clusterai sentinel" + seed + core.to_bytes(4, "big")).digest()


def _chain(core: int, at: int, shared: mmap.mmap) -> None:
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    offset = _SEED.size + at * _CELL.size
    seed, value, links = b"", b"", 0
    while True:
        newest = _newest(shared)
        if newest != seed:
            seed, value, links = newest, first(newest, at), 0
        value = link(value, seed)
        links += 1
        shared[offset : offset + _CELL.size] = _CELL.pack(links, seed, value, links)


def _newest(shared: mmap.mmap) -> bytes:
    while True:
        seed, again = _SEED.unpack(shared[: _SEED.size])
        if seed == again:
            return seed


def _read(shared: mmap.mmap, at: int, seed: bytes) -> tuple[int, bytes]:
    offset = _SEED.size + at * _CELL.size
    while True:
        cell = shared[offset : offset + _CELL.size]
        links, under, value, again = _CELL.unpack(cell)
        if links == again and shared[offset : offset + _CELL.size] == cell:
            return (links, value) if under == seed else (0, first(seed, at))


def main(cores: list[int]) -> None:
    seed = bytes.fromhex(sys.stdin.readline(65).strip())
    shared = mmap.mmap(-1, _SEED.size + len(cores) * _CELL.size)
    shared[: _SEED.size] = _SEED.pack(seed, seed)
    children: list[int] = []
    for at, core in enumerate(cores):
        child = os.fork()
        if child == 0:
            try:
                _chain(core, at, shared)
            finally:
                os._exit(1)
        children.append(child)
    try:
        for line in sys.stdin:
            cells = [_read(shared, at, seed) for at in range(len(cores))]
            told = {"links": [links for links, _ in cells], "values": [value.hex() for _, value in cells]}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            seed = bytes.fromhex(line.strip())
            shared[: _SEED.size] = _SEED.pack(seed, seed)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main([int(core) for core in sys.argv[1:]])
