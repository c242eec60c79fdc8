"""Holders as this machine reaches them: any HTTP server that sends ranges, and any place that fsspec opens.

Everything that a holder says is a stranger's: status, lengths, bytes. `Web` never follows a redirect, never
decompresses, asks for exact ranges and takes exactly as much, and its connections go only to addresses that were judged by
`core.reach`, whatever a name resolves to.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from clusterai.content.core import reach

CONNECT_S = 10.0
STALL_S = 10.0
"""Without a byte for so long, a request is broken off."""
LEAST_RATE = 16 << 10
"""Bytes a second: slower on the whole, and a request is broken off too; one byte a second isn't alive."""
CHUNK = 1 << 16


class HolderFault(OSError):
    """The holder did not send what it was asked for: {why}."""


class Source(Protocol):
    """One holder."""

    name: str
    hands: int
    """requests at a time"""

    def read(self, path: str, start: int, size: int, whole: int) -> AsyncGenerator[bytes, None]:
        """Exactly `size` bytes of a file of `whole` bytes, in chunks of any size.

        Raises:
            HolderFault: anything else came.
        """
        ...

    async def small(self, path: str, most: int) -> bytes:
        """A file whose size isn't known, up to `most` bytes.

        Raises:
            HolderFault: it has none, or a larger one.
        """
        ...

    async def close(self) -> None: ...


class _Judged(AbstractResolver):
    """Names become only addresses that may be dialled; the connection goes to what is returned here."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        public = [it for it in found if reach.is_public(it["host"])]
        if not public:
            raise OSError(errno.EACCES, f"{host} resolves to addresses of a private network only")
        return public

    async def close(self) -> None:
        await self._inner.close()


class Web:
    """What all HTTP holders of one fetch share. Use `async with`.

    Args:
        private: addresses of one's own network may be dialled too: for holders that a person named.
    """

    def __init__(self, *, private: bool = False, resolver: AbstractResolver | None = None) -> None:
        self._private = private
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Web":
        inner = self._resolver or ThreadedResolver()
        connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=0,
            resolver=inner if self._private else _Judged(inner),
            use_dns_cache=False,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=STALL_S),
            headers={"Accept-Encoding": "identity", "User-Agent": "clusterai"},
            read_bufsize=1 << 18,
            max_line_size=4096,
            max_field_size=8190,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def holder(self, url: str, hands: int = 4) -> "WebHolder":
        """
        Raises:
            Unreachable: it is no URL that is dialled.
        """
        assert self._session is not None, "used within `async with`"
        return WebHolder(self._session, reach.base(url, private=self._private), hands, private=self._private)


class WebHolder:
    """Files under a base URL, by ranges."""

    def __init__(self, session: aiohttp.ClientSession, base: str, hands: int, *, private: bool) -> None:
        self.name = base
        self.hands = hands
        self._session = session
        self._private = private

    async def read(self, path: str, start: int, size: int, whole: int) -> AsyncGenerator[bytes, None]:
        end = start + size - 1
        left = size
        try:
            async with (
                asyncio.timeout(STALL_S + CONNECT_S + size / LEAST_RATE),
                self._session.get(
                    self._url(path), headers={"Range": f"bytes={start}-{end}"}, allow_redirects=False
                ) as response,
            ):
                _check(response, start, end, whole)
                async for chunk in response.content.iter_chunked(CHUNK):
                    if len(chunk) > left:
                        raise HolderFault(f"{self.name} sent more than it was asked for")
                    left -= len(chunk)
                    yield chunk
                    if not left:
                        break
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _fault(self.name, error) from None
        if left:
            raise HolderFault(f"{self.name} ended {left} bytes too early")

    async def small(self, path: str, most: int) -> bytes:
        found = bytearray()
        try:
            async with (
                asyncio.timeout(STALL_S + CONNECT_S + most / LEAST_RATE / 16),
                self._session.get(self._url(path), allow_redirects=False) as response,
            ):
                if (
                    response.status != 200
                    or response.headers.get("Content-Encoding", "identity") != "identity"
                ):
                    raise HolderFault(f"{self.name} answers {response.status} for {path}")
                async for chunk in response.content.iter_chunked(CHUNK):
                    found += chunk
                    if len(found) > most:
                        raise HolderFault(f"{self.name} sends more than {most} bytes for {path}")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _fault(self.name, error) from None
        return bytes(found)

    async def close(self) -> None:
        """The session is everybody's."""

    def _url(self, path: str) -> URL:
        url = URL(f"{self.name}/{quote(path)}", encoded=True)
        # aiohttp asks no resolver about an address that is spelt out, so it is judged here, as aiohttp read it.
        host = url.host or ""
        if not self._private and reach.is_literal(host) and not reach.is_public(host):
            raise HolderFault(f"{host} is an address of a private network")
        return url


class Opened:
    """Any URL that fsspec opens: s3://bucket/prefix, file:///folder, memory://. Only for holders that a person named:
    a listing must not make anyone read their own files."""

    def __init__(self, url: str, hands: int = 4, options: dict[str, Any] | None = None) -> None:
        import fsspec  # pyright: ignore[reportMissingTypeStubs]

        if "::" in url:
            raise HolderFault(f"{url!r} is a chain of file systems: name one")
        self.name = url.rstrip("/")
        self.hands = hands
        fs, root = fsspec.core.url_to_fs(self.name, **(options or {}))  # pyright: ignore[reportUnknownVariableType]
        self._fs: Any = fs
        self._root = str(root)  # pyright: ignore[reportUnknownArgumentType]

    async def read(self, path: str, start: int, size: int, whole: int) -> AsyncGenerator[bytes, None]:
        data = await self._cat(path, start, start + size, STALL_S + size / LEAST_RATE)
        if len(data) != size:
            raise HolderFault(f"{self.name} sent {len(data)} bytes of {path}, asked for {size}")
        yield data

    async def small(self, path: str, most: int) -> bytes:
        data = await self._cat(path, 0, most + 1, STALL_S + most / LEAST_RATE / 16)
        if len(data) > most:
            raise HolderFault(f"{self.name} has more than {most} bytes in {path}")
        return data

    async def close(self) -> None:
        """fsspec keeps file systems for the whole process."""

    async def _cat(self, path: str, start: int, end: int, timeout_s: float) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                # By name: s3fs has a version before them.
                found = await asyncio.to_thread(
                    self._fs.cat_file, f"{self._root}/{path}", start=start, end=end
                )
                return bytes(found)
        except Exception as error:  # each of fsspec's file systems raises its own
            raise _fault(self.name, error) from None


def open_source(url: str, web: Web, options: dict[str, Any] | None = None) -> Source:
    """A holder that a person named.

    Raises:
        HolderFault: nothing here opens such a URL: `pip install clusterai[data]` for s3://.
        Unreachable: see `core.reach`.
    """
    if url.startswith(("http://", "https://")):
        return web.holder(url)
    try:
        return Opened(url, options=options)
    except (ImportError, ValueError) as error:
        raise HolderFault(f"{url}: {error}; for s3:// install clusterai[data]") from None


def _check(response: aiohttp.ClientResponse, start: int, end: int, whole: int) -> None:
    """
    Raises:
        HolderFault: it isn't the range.
    """
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise HolderFault("it sends files compressed")
    size = end - start + 1
    if response.status == 206:
        told = response.headers.get("Content-Range", "")
        if told not in (f"bytes {start}-{end}/{whole}", f"bytes {start}-{end}/*"):
            raise HolderFault(f"it sends the range {told[:60]!r}, asked for {start}-{end}/{whole}")
    elif response.status != 200 or size != whole:
        raise HolderFault(f"it answers {response.status}")
    if response.content_length not in (None, size):
        raise HolderFault(f"it announces {response.content_length} bytes, asked for {size}")


def _fault(name: str, error: Exception) -> HolderFault:
    if isinstance(error, HolderFault):
        return error
    if isinstance(error, TimeoutError):
        return HolderFault(f"{name} is too slow")
    return HolderFault(f"{name}: {str(error) or type(error).__name__}"[:300])
