"""A holder's server: what it gives, what it refuses, and what strangers can't take of it."""

import asyncio
import contextlib
from pathlib import Path

import httpx
import pytest

from clusterai.content import Holder, HolderLimits, NotPublishable
from tests.rooms.content.villains import PIECE, data_set, honest


def _asked(source: Path, path: str, **headers: str) -> httpx.Response:
    manifest = data_set(source)

    async def play() -> httpx.Response:
        async with honest(source, manifest) as url, httpx.AsyncClient(trust_env=False) as client:
            return await client.get(url + path, headers=headers)

    return asyncio.run(play())


@pytest.mark.parametrize(
    ("span", "want"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=990-2000", (990, 1000)),
        ("bytes=-5", (995, 1000)),
        ("bytes=7-", (7, 1000)),
    ],
)
def test_ranges(tmp_path: Path, span: str, want: tuple[int, int]) -> None:
    """First and last byte, from a byte on, the last bytes."""
    got = _asked(tmp_path, "/b.csv", Range=span)
    assert got.status_code == 206
    assert got.content == (tmp_path / "b.csv").read_bytes()[want[0] : want[1]]
    assert got.headers["Content-Range"] == f"bytes {want[0]}-{want[1] - 1}/1000"


@pytest.mark.parametrize(
    "span", ["bytes=1000-", "bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b", "bytes=--5"]
)
def test_ranges_that_are_none(tmp_path: Path, span: str) -> None:
    """Outside of the file, several, no numbers."""
    assert _asked(tmp_path, "/b.csv", Range=span).status_code == 416


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/%2e%2e/secret",
        "//etc/passwd",
        "/.clusterai/have",
        "/secret",
        "/",
        "/a",
        "/\x00",
        "/%ff",
    ],
)
def test_only_what_the_manifest_names(tmp_path: Path, path: str) -> None:
    """Other files in the folder stay private, whatever the path is spelt like."""
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "secret").write_text("x")
    manifest = data_set(source)
    (source / "secret").write_text("x")

    async def play() -> bytes:
        async with honest(source, manifest) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            got = await reader.read()
            writer.close()
            return got

    assert asyncio.run(play()).split(b" ")[1] in (b"404", b"400")


def test_files_manifest_and_empty_ones(tmp_path: Path) -> None:
    """Whole files, one after the other on one connection; HEAD; a method that isn't served."""
    manifest = data_set(tmp_path)

    async def play() -> None:
        async with honest(tmp_path, manifest) as url, httpx.AsyncClient(trust_env=False) as client:
            for file in manifest.files:
                got = await client.get(f"{url}/{file.path}")
                assert (got.status_code, got.content) == (200, (tmp_path / file.path).read_bytes())
            got = await client.head(f"{url}/b.csv")
            assert (got.status_code, got.headers["Content-Length"], got.content) == (200, "1000", b"")
            assert (await client.get(f"{url}/.clusterai/manifest")).content
            assert (await client.delete(f"{url}/b.csv")).status_code == 405
            assert (await client.post(f"{url}/b.csv", content=bytes(100_000))).status_code in (405, 413)

    asyncio.run(play())


def test_a_file_that_changed_is_not_served(tmp_path: Path) -> None:
    """An honest holder isn't taken for a corrupt one: it answers 503, and doesn't start over a spoilt folder."""
    manifest = data_set(tmp_path)

    async def play() -> None:
        async with honest(tmp_path, manifest) as url, httpx.AsyncClient(trust_env=False) as client:
            (tmp_path / "b.csv").write_bytes(bytes(1000))
            assert (await client.get(f"{url}/b.csv")).status_code == 503
            assert (await client.get(f"{url}/empty")).status_code == 200

    asyncio.run(play())
    with pytest.raises(NotPublishable, match=r"b\.csv"):
        Holder(tmp_path, manifest)


def test_one_address_holds_so_many_connections(tmp_path: Path) -> None:
    """A flood of connections leaves room for others; the one too many is closed unanswered."""
    manifest = data_set(tmp_path)

    async def play() -> None:
        async with honest(tmp_path, manifest, HolderLimits(per_address=3)) as url:
            port = int(url.rpartition(":")[2])
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            for _, writer in held:
                writer.write(b"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n")
            for reader, _ in held:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            reader, extra = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                assert await reader.read(1) == b""
            extra.close()
            held[0][1].close()
            await held[0][1].wait_closed()
            for _, writer in held:
                writer.close()

    asyncio.run(play())


@pytest.mark.parametrize("sent", [b"GET /b.csv HTT", b"", b"GET /" + b"a" * 100])
def test_a_head_that_never_ends_is_cut_off(tmp_path: Path, sent: bytes) -> None:
    """A slow-loris client is let go after its time."""
    manifest = data_set(tmp_path)

    async def play() -> bytes:
        async with honest(tmp_path, manifest, HolderLimits(head_s=0.05)) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(sent)
            got = await reader.read()
            writer.close()
            return got

    assert asyncio.run(play()) == b""


def test_a_head_that_is_too_large(tmp_path: Path) -> None:
    """It is answered 431 and the connection closed."""
    manifest = data_set(tmp_path)

    async def play() -> bytes:
        async with honest(tmp_path, manifest) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000)
            got = await reader.read(12)
            writer.close()
            return got

    assert asyncio.run(play()) in (b"HTTP/1.1 431", b"HTTP/1.1 400")


def test_a_reader_that_does_not_read_is_let_go(tmp_path: Path) -> None:
    """A connection that is held open without reading doesn't hold it for ever."""
    (tmp_path / "big").write_bytes(bytes(64 << 20))
    from clusterai.content import scan

    manifest = scan(tmp_path, PIECE)

    async def play() -> None:
        limits = HolderLimits(head_s=0.05, least_rate=1 << 30)
        holder = Holder(tmp_path, manifest, limits)
        port = await holder.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
        while not holder.connections:  # noqa: ASYNC110  until it was accepted
            await asyncio.sleep(0)
        async with asyncio.timeout(120):
            await holder.idle()
        assert holder.bytes_sent < 64 << 20
        writer.transport.abort()
        del reader
        await holder.stop()

    asyncio.run(play())
