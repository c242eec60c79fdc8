"""A holder: a small HTTP server for one data set, as strangers may reach it.

It serves the manifest, the card, and the files that the manifest names: nothing else that lies in the folder, and no file that
changed since it was hashed, so that an honest holder isn't taken for a corrupt one. GET and HEAD, one range at a time. Heads are read by h11 within a few
seconds and kilobytes, connections are counted in all and per address, and who reads too slowly is let go.
"""

import asyncio
import contextlib
import ssl
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

import h11
import msgspec

from clusterai.content.adapters.folder import MANIFEST, NotPublishable, is_intact
from clusterai.content.core import paths
from clusterai.content.core.manifest import Manifest, encode

CHUNK = 1 << 18
CARD_FILES = (f"{paths.OWN}/croissant.json", f"{paths.OWN}/README.md", f"{paths.OWN}/listing")
MOST_CARD_BYTES = 1 << 20


class HolderLimits(msgspec.Struct, frozen=True):
    """What strangers may take of this machine."""

    connections: int = 256
    per_address: int = 32
    head_bytes: int = 8192
    head_s: float = 10.0
    """for a request's head to come whole, and for the next one to begin"""
    least_rate: int = 16 << 10
    """bytes a second; slower readers are let go"""
    rate: int = 0
    """bytes a second in all; 0 is as fast as it goes"""
    requests: int = 10_000
    """on one connection"""


class _Refused(Exception):
    def __init__(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.headers = headers or {}


class _Served(msgspec.Struct, frozen=True):
    path: Path
    size: int
    mtime_ns: int


class Holder:
    """Serves `folder` as `manifest` describes it.

    Raises:
        NotPublishable: the folder isn't what the manifest says.
    """

    def __init__(self, folder: Path, manifest: Manifest, limits: HolderLimits | None = None) -> None:
        self.limits = limits or HolderLimits()
        self.bytes_sent = 0
        self._files: dict[str, _Served] = {}
        before = {file.path: _stamp(folder / file.path) for file in manifest.files}
        wrong = is_intact(folder, manifest)
        if wrong is not None:
            raise NotPublishable(f"{wrong!r} isn't what the manifest says: publish the folder anew")
        for file in manifest.files:
            found = before[file.path]
            assert found is not None, "it was just read"
            self._files[file.path] = _Served(folder / file.path, file.size, found)
        self._small = {MANIFEST: encode(manifest)}
        for name in CARD_FILES:
            path = folder / name
            if path.is_file() and path.stat().st_size <= MOST_CARD_BYTES:
                self._small[name] = path.read_bytes()
        self._per_address: dict[str, int] = {}
        self._connections = 0
        self._budget_s = 0.0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """The port that it listens on."""
        self._server = await asyncio.start_server(
            self._met, host, port, limit=self.limits.head_bytes * 2, ssl=tls, backlog=128
        )
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        return self._connections

    async def idle(self) -> None:
        """Until nobody is connected."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a connection is met in a task"
        peer = writer.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        if (
            self._connections >= self.limits.connections
            or self._per_address.get(address, 0) >= self.limits.per_address
        ):
            writer.transport.abort()
            return
        self._connections += 1
        self._per_address[address] = self._per_address.get(address, 0) + 1
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # it went away, was too slow, or we stop: nobody is owed anything
        finally:
            self._tasks.discard(task)
            self._connections -= 1
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self.limits.head_bytes)
        for _ in range(self.limits.requests):
            try:
                async with asyncio.timeout(self.limits.head_s):
                    request = await self._head(connection, reader)
            except h11.RemoteProtocolError as error:
                if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    await self._say(connection, writer, error.error_status_hint, "malformed", close=True)
                return
            if request is None:
                return
            try:
                await self._answer(connection, writer, request)
            except _Refused as refused:
                await self._say(connection, writer, refused.status, str(refused), more=refused.headers)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _head(self, connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
        request: h11.Request | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(4096)
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                return request
            elif isinstance(event, h11.Data):
                raise h11.RemoteProtocolError("a body", error_status_hint=413)
            else:
                return None

    async def _answer(
        self, connection: h11.Connection, writer: asyncio.StreamWriter, request: h11.Request
    ) -> None:
        if request.method not in (b"GET", b"HEAD"):
            raise _Refused(405, "GET or HEAD", {"Allow": "GET, HEAD"})
        path = unquote(request.target.decode("ascii", "replace").partition("?")[0], errors="replace").lstrip(
            "/"
        )
        headers = {name.lower(): value for name, value in request.headers}
        small = self._small.get(path)
        if small is not None:
            first, count = _range(headers.get(b"range"), len(small))
            await self._begin(connection, writer, first, count, len(small), headers)
            if request.method == b"GET":
                writer.write(connection.send(h11.Data(small[first : first + count])) or b"")
            await self._end(connection, writer, count)
            return
        served = self._files.get(path)
        if served is None:
            raise _Refused(404, "no such file in this data set")
        if _stamp(served.path) != served.mtime_ns:
            raise _Refused(503, "the file changed since it was hashed; its holder must publish anew")
        first, count = _range(headers.get(b"range"), served.size)
        with served.path.open("rb") as file:
            await self._begin(connection, writer, first, count, served.size, headers)
            if request.method == b"GET":
                await self._send(connection, writer, file, first, count)
            await self._end(connection, writer, 0)

    async def _begin(
        self,
        connection: h11.Connection,
        writer: asyncio.StreamWriter,
        first: int,
        count: int,
        whole: int,
        asked: dict[bytes, bytes],
    ) -> None:
        headers = [
            ("Content-Length", str(count)),
            ("Accept-Ranges", "bytes"),
            ("Content-Type", "application/octet-stream"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        partial = b"range" in asked and count > 0
        if partial:
            headers.append(("Content-Range", f"bytes {first}-{first + count - 1}/{whole}"))
        head = connection.send(h11.Response(status_code=206 if partial else 200, headers=headers)) or b""
        writer.write(head)
        await self._drained(writer, len(head))

    async def _send(
        self, connection: h11.Connection, writer: asyncio.StreamWriter, file: BinaryIO, first: int, count: int
    ) -> None:
        """By the kernel, a chunk at a time, so that the rate and the reader's pace are seen between."""
        loop = asyncio.get_running_loop()
        sent = 0
        while sent < count:
            size = min(CHUNK, count - sent)
            await self._paced(size)
            async with asyncio.timeout(self.limits.head_s + size / self.limits.least_rate):
                done = await loop.sendfile(writer.transport, file, first + sent, size)
            if done != size:
                raise OSError("the file became shorter")
            sent += size
            self.bytes_sent += size
        # h11 counts what it was promised; the bytes themselves went past it.
        if count:
            connection.send_with_data_passthrough(h11.Data(_Counted(count)))  # pyright: ignore[reportArgumentType]

    async def _end(self, connection: h11.Connection, writer: asyncio.StreamWriter, size: int) -> None:
        connection.send(h11.EndOfMessage())
        await self._drained(writer, size)

    async def _drained(self, writer: asyncio.StreamWriter, size: int) -> None:
        async with asyncio.timeout(self.limits.head_s + size / self.limits.least_rate):
            await writer.drain()

    async def _paced(self, size: int) -> None:
        """One clock for all connections: each chunk books its time on the wire behind the last one's."""
        if not self.limits.rate:
            return
        now = time.monotonic()
        begin = max(now, self._budget_s)
        self._budget_s = begin + size / self.limits.rate
        if begin > now:
            await asyncio.sleep(begin - now)

    async def _say(
        self,
        connection: h11.Connection,
        writer: asyncio.StreamWriter,
        status: int,
        why: str,
        close: bool = False,
        more: dict[str, str] | None = None,
    ) -> None:
        body = why.encode() + b"\n"
        headers = [
            ("Content-Length", str(len(body))),
            ("Content-Type", "text/plain; charset=utf-8"),
            *(more or {}).items(),
        ]
        if close:
            headers.append(("Connection", "close"))
        if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        with contextlib.suppress(h11.LocalProtocolError):
            writer.write(connection.send(h11.Response(status_code=status, headers=headers)) or b"")
            writer.write(connection.send(h11.Data(body)) or b"")
            connection.send(h11.EndOfMessage())
        await self._drained(writer, len(body))


class _Counted:
    """Stands for bytes that sendfile sent: h11 asks for nothing but their number."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def _stamp(path: Path) -> int | None:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return None


def _range(header: bytes | None, whole: int) -> tuple[int, int]:
    """First byte and number of bytes that are asked for.

    Raises:
        _Refused: not one range, or outside of the file.
    """
    if header is None:
        return 0, whole
    text = header.decode("ascii", "replace").strip()
    unit, _, span = text.partition("=")
    first, dash, last = span.partition("-")
    if unit.strip().lower() != "bytes" or not dash or "," in span or len(span) > 40:
        raise _Refused(416, "one range of bytes at a time", {"Content-Range": f"bytes */{whole}"})
    try:
        if first.strip():
            begin = int(first)
            end = min(int(last) if last.strip() else whole - 1, whole - 1)
        else:
            begin, end = max(0, whole - int(last)), whole - 1
    except ValueError:
        raise _Refused(416, "no range of bytes", {"Content-Range": f"bytes */{whole}"}) from None
    if not 0 <= begin <= end < whole:
        raise _Refused(416, "outside of the file", {"Content-Range": f"bytes */{whole}"})
    return begin, end - begin + 1
