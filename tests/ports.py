"""Ports for the servers that tests start, below those that the kernel gives to whoever calls out.

A port that the kernel picked (`bind` to 0) is free at that moment only: before a server listens there, or while it is
killed and started again, any connection of any process may be given it. And what two processes of tests look for at the
same moment both find free, so each takes a block of its own, held by a lock that ends with the process.
"""

import fcntl
import os
import socket
import tempfile
from pathlib import Path

FIRST, SIZE, BLOCKS = 10_000, 400, 50


class Block:
    """Ports `first` to `first + SIZE - 1`, given in turn, so that none comes again soon."""

    def __init__(self) -> None:
        self._at = 0
        for block in range(BLOCKS):
            lock = os.open(
                Path(tempfile.gettempdir()) / f"clusterai-test-ports-{os.getuid()}-{block}",
                os.O_CREAT | os.O_RDWR | os.O_CLOEXEC,
                0o600,
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._lock, self.first = lock, FIRST + block * SIZE
            return
        raise AssertionError(f"{BLOCKS} processes of tests hold ports")

    def take(self, count: int = 1) -> int:
        """The first of `count` free ports in a row."""
        for _ in range(SIZE):
            if self._at + count > SIZE:
                self._at = 0
            port = self.first + self._at
            if all(is_free(port + beside) for beside in range(count)):
                self._at += count
                return port
            self._at += 1
        raise AssertionError(f"no {count} free ports in a row from {self.first} on")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_blocks: list[Block] = []


def free_port(count: int = 1) -> int:
    """The first of `count` ports in a row, this process's own."""
    if not _blocks:
        _blocks.append(Block())
    return _blocks[0].take(count)
