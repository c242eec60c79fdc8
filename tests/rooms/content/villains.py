"""Holders for tests: one that is honest, and those that aren't, each with a name."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import numpy as np

from clusterai.content import Holder, HolderLimits, Manifest, scan, write_manifest

PIECE = 1 << 16

Act = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Called with a request's head."""


def data_set(folder: Path, seed: int = 1) -> Manifest:
    """About 30 pieces in five files, one of them empty."""
    draw = np.random.default_rng(seed)
    for name, size in {
        "a/train.bin": 20 * PIECE + 17,
        "a/test.bin": 5 * PIECE,
        "b.csv": 1000,
        "empty": 0,
        "ünicode name.txt": 3 * PIECE - 1,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.bytes(size))
    manifest = scan(folder, PIECE)
    write_manifest(folder, manifest)
    return manifest


@contextlib.asynccontextmanager
async def honest(folder: Path, manifest: Manifest, limits: HolderLimits | None = None) -> AsyncGenerator[str]:
    holder = Holder(folder, manifest, limits)
    port = await holder.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await holder.stop()


@contextlib.asynccontextmanager
async def villain(act: Act) -> AsyncGenerator[str]:
    """A server that reads a head and then does what `act` does."""
    tasks: set[asyncio.Task[None]] = set()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await act(head, reader, writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def asked(head: bytes) -> tuple[str, int, int]:
    """Path, first byte and last byte of a request."""
    lines = head.decode().split("\r\n")
    path = lines[0].split(" ")[1]
    for line in lines:
        if line.lower().startswith("range:"):
            first, last = line.split("=")[1].split("-")
            return path, int(first), int(last)
    return path, 0, 0


def partial(head: bytes, manifest: Manifest, announced: int | None = None) -> bytes:
    """The head of an answer that fits the request."""
    from urllib.parse import unquote

    path, first, last = asked(head)
    whole = next(file.size for file in manifest.files if file.path == unquote(path).lstrip("/"))
    size = last - first + 1 if announced is None else announced
    return (
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{whole}\r\nContent-Length: {size}\r\n\r\n"
    ).encode()
