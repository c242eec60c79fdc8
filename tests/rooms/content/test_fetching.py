"""Whole data sets over loopback, from honest holders and from villains, each caught for what it does."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from clusterai.content import Fetched, Landing, Manifest, NotWhole, Unreachable, Web, fetch, fetch_manifest
from clusterai.content.adapters import sources
from clusterai.content.adapters.fetching import NoManifest
from clusterai.content.adapters.folder import is_intact
from clusterai.content.adapters.sources import HolderFault, open_source
from tests.rooms.content.villains import PIECE, Act, asked, data_set, honest, partial, villain


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


async def _got(
    manifest: Manifest, to: Path, *urls: str, avoid: frozenset[str] = frozenset(), hands: int = 2
) -> Fetched:
    async with Web(private=True) as web:
        with Landing(to, manifest) as landing:
            holders = [web.holder(url, hands) for url in urls]
            return await fetch(landing, holders, avoid=avoid, run_bytes=2 * PIECE)


def test_one_holder_and_three(source: Path, tmp_path: Path) -> None:
    """Files and their bytes are the same whoever sent which piece; the manifest comes by its address."""
    manifest = data_set(source)

    async def play() -> None:
        async with AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(honest(source, manifest)) for _ in range(3)]
            async with Web(private=True) as web:
                assert await fetch_manifest(manifest.address(), [web.holder(urls[0])]) == manifest
            one = await _got(manifest, tmp_path / "one", urls[0])
            three = await _got(manifest, tmp_path / "three", *urls)
        assert one.bytes == three.bytes == manifest.size
        assert sum(share.bytes for share in three.shares) >= manifest.size
        assert all(share.pieces for share in three.shares)

    asyncio.run(play())
    assert is_intact(tmp_path / "one", manifest) is None
    assert is_intact(tmp_path / "three", manifest) is None


async def _corrupt(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    _, first, last = asked(head)
    writer.write(partial(head, manifest) + bytes(last - first + 1))


async def _truncated(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(partial(head, manifest) + b"half")
    raise ConnectionResetError


async def _endless(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    path, first, last = asked(head)
    whole = next(file.size for file in manifest.files if path.endswith(file.path[-4:]))
    writer.write(f"HTTP/1.1 206 X\r\nContent-Range: bytes {first}-{last}/{whole}\r\n\r\n".encode())
    while True:
        writer.write(bytes(PIECE))
        await writer.drain()


async def _lying_length(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(partial(head, manifest, announced=1 << 50) + bytes(PIECE))


async def _another_range(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\n\r\n0123456789")


async def _whole_file(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789")


async def _redirect(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n")


async def _zipped(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(
        partial(head, manifest).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + bytes(PIECE)
    )


async def _noise(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff" * 5000)
    raise ConnectionResetError


async def _huge_head(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 206 X\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n")


async def _stale(manifest: Manifest, head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


VILLAINS = {
    "corrupt": _corrupt, "truncated": _truncated, "endless": _endless, "lying length": _lying_length,
    "another range": _another_range, "whole file": _whole_file, "redirect": _redirect, "zipped": _zipped, "noise": _noise,
    "huge head": _huge_head, "stale": _stale,
}  # fmt: skip


def _played(manifest: Manifest, name: str) -> Act:
    act: Callable[[Manifest, bytes, asyncio.StreamWriter], Awaitable[None]] = VILLAINS[name]

    async def answer(head: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await act(manifest, head, writer)

    return answer


@pytest.mark.parametrize("name", VILLAINS)
def test_a_villain_beside_an_honest_holder(source: Path, tmp_path: Path, name: str) -> None:
    """The set is whole and right, nothing came of the villain, and only who sent wrong bytes is called corrupt."""
    manifest = data_set(source)

    async def play() -> Fetched:
        async with villain(_played(manifest, name)) as bad, honest(source, manifest) as good:
            return await _got(manifest, tmp_path / "to", bad, good)

    got = asyncio.run(play())
    assert is_intact(tmp_path / "to", manifest) is None
    bad, good = got.shares
    assert bad.bytes == 0
    assert good.state == "good"
    lies = name in ("corrupt", "endless")
    assert (bad.state == "corrupt") == lies
    assert [it.holder for it in got.evidence] == [bad.holder] * len(got.evidence)
    assert bool(got.evidence) == lies


@pytest.mark.parametrize("name", ["corrupt", "redirect", "lying length"])
def test_villains_alone_bring_nothing(
    source: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends and says why, and what is missing is said."""
    monkeypatch.setattr("clusterai.content.core.swarm.REST_S", 0.001)
    manifest = data_set(source)

    async def play() -> None:
        async with villain(_played(manifest, name)) as bad:
            with pytest.raises(NotWhole) as caught:
                await _got(manifest, tmp_path / "to", bad)
        assert caught.value.left == manifest.count
        assert caught.value.shares[0].why

    asyncio.run(play())
    assert not (tmp_path / "to/b.csv").exists()


def test_a_silent_holder_is_left(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who accepts and never answers delays nobody: what it was asked for is taken over."""
    monkeypatch.setattr("clusterai.content.core.swarm.STEAL_S", 0.0)
    manifest = data_set(source)
    done = asyncio.Event()

    async def silent(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()

    async def play() -> Fetched:
        async with villain(silent) as bad, honest(source, manifest) as good, Web(private=True) as web:
            with Landing(tmp_path / "to", manifest) as landing:
                return await fetch(landing, [web.holder(bad, 2), web.holder(good, 2)], run_bytes=2 * PIECE)

    got = asyncio.run(play())
    assert is_intact(tmp_path / "to", manifest) is None
    assert got.shares[0].bytes == 0


def test_a_slow_loris_is_broken_off(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then isn't alive: the whole request has a deadline by its size."""
    monkeypatch.setattr(sources, "STALL_S", 0.05)
    monkeypatch.setattr(sources, "CONNECT_S", 0.05)
    monkeypatch.setattr(sources, "LEAST_RATE", 100 << 20)
    monkeypatch.setattr("clusterai.content.core.swarm.REST_S", 0.001)
    manifest = data_set(source)
    released = asyncio.Event()

    async def loris(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(partial(head, manifest))
        while not released.is_set():
            writer.write(b"\0")
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await released.wait()

    async def play() -> None:
        async with villain(loris) as bad:
            with pytest.raises(NotWhole) as caught:
                await _got(manifest, tmp_path / "to", bad)
            released.set()
        assert "too slow" in caught.value.shares[0].why

    asyncio.run(play())


def test_who_lied_before_is_not_asked(source: Path, tmp_path: Path) -> None:
    """What is remembered of a holder keeps it out of the next fetch."""
    manifest = data_set(source)

    async def play() -> None:
        async with honest(source, manifest) as one, honest(source, manifest) as other:
            got = await _got(manifest, tmp_path / "to", one, other, avoid=frozenset([one]))
            assert [share.bytes for share in got.shares] == [0, manifest.size]

    asyncio.run(play())


def test_a_fetch_that_was_broken_off_goes_on(source: Path, tmp_path: Path) -> None:
    """A holder that dies half way; the second fetch asks for the rest alone."""
    manifest = data_set(source)
    answered = 0

    async def play() -> None:
        async with honest(source, manifest) as good:

            async def dying(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                nonlocal answered
                answered += 1
                if answered > 5:
                    raise ConnectionResetError
                path, first, last = asked(head)
                from urllib.parse import unquote

                raw = (source / unquote(path).lstrip("/")).read_bytes()[first : last + 1]
                writer.write(partial(head, manifest) + raw)

            async with villain(dying) as bad:
                with pytest.raises(NotWhole) as caught:
                    async with asyncio.timeout(60):
                        await _got(manifest, tmp_path / "to", bad, hands=1)
            came = manifest.count - caught.value.left
            assert came == 9
            again = await _got(manifest, tmp_path / "to", good)
            assert again.bytes < manifest.size
            assert again.shares[0].pieces == manifest.count - came

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clusterai.content.core.swarm.REST_S", 0.001)
        asyncio.run(play())
    assert is_intact(tmp_path / "to", manifest) is None


def test_a_wrong_manifest_is_passed_over(source: Path, tmp_path: Path) -> None:
    """A holder of another version, one that sends without end, one that has none: the next one is asked."""
    manifest = data_set(source)

    async def other(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    async def flood(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(PIECE))
            await writer.drain()

    async def play() -> None:
        async with (
            villain(other) as first,
            villain(flood) as second,
            honest(source, manifest) as good,
            Web(private=True) as web,
        ):
            holders = [web.holder(url) for url in (first, second, good)]
            assert await fetch_manifest(manifest.address(), holders, most=1 << 20) == manifest
            with pytest.raises(NoManifest):
                await fetch_manifest(manifest.address(), holders[:2], most=1 << 20)

    asyncio.run(play())


def test_a_name_that_resolves_to_a_private_address_is_not_dialled(source: Path, tmp_path: Path) -> None:
    """The addresses that were judged are those that are dialled; a public name may not lead home."""
    manifest = data_set(source)

    async def play() -> None:
        async with honest(source, manifest) as good:
            port = good.rpartition(":")[2]
            async with Web(resolver=_Home()) as web:
                with pytest.raises(Unreachable):
                    web.holder(good)
                holder = web.holder(f"http://data.example.org:{port}")
                with pytest.raises(NoManifest, match="private"):
                    await fetch_manifest(manifest.address(), [holder])
            async with Web(private=True, resolver=_Home()) as web:
                holder = web.holder(f"http://data.example.org:{port}")
                assert await fetch_manifest(manifest.address(), [holder]) == manifest

    asyncio.run(play())


class _Home(sources.AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host: str, port: int = 0, family: object = None) -> list[sources.ResolveResult]:
        return [sources.ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None: ...


def test_whatever_fsspec_opens_is_a_holder(source: Path, tmp_path: Path) -> None:
    """A folder by file:// beside an HTTP holder; a corrupt one is caught the same way, a chain isn't opened."""
    manifest = data_set(source)
    spoilt = tmp_path / "spoilt"
    data_set(spoilt)
    (spoilt / "a/train.bin").write_bytes(bytes(20 * PIECE + 17))

    async def play() -> None:
        async with Web(private=True) as web, honest(source, manifest) as good:
            urls = [spoilt.as_uri(), source.as_uri(), good]
            with Landing(tmp_path / "to", manifest) as landing:
                got = await fetch(landing, [open_source(url, web) for url in urls], run_bytes=2 * PIECE)
            assert got.shares[0].state == "corrupt"
            with pytest.raises(HolderFault, match="chain"):
                open_source("simplecache::file:///etc", web)
            with pytest.raises(HolderFault, match="clusterai"):
                open_source("nosuch://x", web)

    asyncio.run(play())
    assert is_intact(tmp_path / "to", manifest) is None
