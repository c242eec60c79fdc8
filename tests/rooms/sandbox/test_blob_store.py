"""Blobs by content: verified when read, bounded in size, and never reached through a link."""

import errno
import os
from pathlib import Path

import pytest
from blake3 import blake3

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore, Damaged, DiskFull, NoSuchBlob, Quota, StoreFull
from clusterai.sandbox.adapters import growing, store
from clusterai.sandbox.adapters.growing import Appended, Incoming


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    """A blob is named by its BLAKE3 digest and read back whole, in one piece or in several."""
    store = BlobStore(tmp_path)
    data = os.urandom(3 << 20)
    digest = store.write([data[: 1 << 20], data[1 << 20 :]])
    assert digest == blake3(data).digest()
    assert store.read(digest) == data == b"".join(store.stream(digest))
    assert store.size(digest) == store.used_bytes == len(data)
    assert store.put(data) == digest
    assert store.used_bytes == len(data)
    assert BlobStore(tmp_path).used_bytes == len(data)
    store.delete(digest)
    assert digest not in store
    assert store.used_bytes == 0


def test_a_changed_blob_is_found_and_removed(tmp_path: Path) -> None:
    """Bytes that don't match their name are never handed out, and the next read says that they are gone."""
    store = BlobStore(tmp_path)

    def stream(digest: Digest) -> bytes:
        return next(store.stream(digest))

    for read in (store.read, stream, store.verify):
        digest = store.put(b"honest")
        path = store.path(digest)
        path.chmod(0o600)
        path.write_bytes(b"forged")
        with pytest.raises(Damaged):
            read(digest)
        with pytest.raises(NoSuchBlob):
            store.read(digest)


def test_what_is_absent_says_so(tmp_path: Path) -> None:
    """An unknown digest is named with what to do."""
    store = BlobStore(tmp_path)
    for ask in (store.read, store.size, store.verify):
        with pytest.raises(NoSuchBlob, match="upload it"):
            ask(Digest(bytes(32)))


def test_quotas_hold_while_bytes_stream(tmp_path: Path) -> None:
    """An endless stream is cut off at the quota, and nothing of it stays."""
    store = BlobStore(tmp_path, quota=5000, blob_bytes=3000)

    def endless() -> object:
        while True:
            yield bytes(1000)

    with pytest.raises(StoreFull):
        store.write(endless())  # pyright: ignore[reportArgumentType]
    store.put(b"a" * 3000)
    with pytest.raises(StoreFull):
        store.put(b"b" * 2500)
    assert store.used_bytes == 3000
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("new-")] == []


def test_a_full_disk_is_told_and_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the disk ends: nothing is kept or counted of it, it is called by its name, and with room it goes on."""
    blobs = BlobStore(tmp_path)
    data = os.urandom(2 << 20)
    log, incoming = Appended(blobs, "log"), Incoming(blobs, Digest(blake3(data).digest()))
    whole = store.write_all

    def breaks_off(descriptor: int, piece: bytes) -> None:
        whole(descriptor, piece[: len(piece) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        for module in (store, growing):
            full.setattr(module, "write_all", breaks_off)
        for write in (
            lambda: blobs.put(data),
            lambda: log.append(b"a line"),
            lambda: incoming.add(data, more=True),
        ):
            with pytest.raises(DiskFull, match="make room"):
                write()
    assert blobs.used_bytes == 0
    assert len(log) == 0
    log.append(b"b")
    assert list(Appended(blobs, "log").records()) == [b"b"]
    assert blobs.read(blobs.put(data)) == data
    assert not list(tmp_path.glob("new-*"))


def test_room_is_left_for_journals(tmp_path: Path) -> None:
    """A daemon's stores don't take the last of a disk: what beside them says so needs some of it."""
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    with pytest.raises(DiskFull):
        BlobStore(tmp_path / "a", Quota(1 << 30, spare_bytes=2 * free)).put(b"x")
    BlobStore(tmp_path / "b", Quota(1 << 30, spare_bytes=free // 2)).put(b"x")


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Neither a file given as a link nor a link put in a blob's place is read."""
    (tmp_path / "secret").write_bytes(b"key")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    store = BlobStore(tmp_path / "store")
    with pytest.raises(OSError, match=r"symbolic|loop"):
        store.put_file(tmp_path / "link")
    with pytest.raises(OSError, match="plain"):
        store.put_file(tmp_path)
    digest = Digest(blake3(b"key").digest())
    store.path(digest).parent.mkdir(parents=True)
    store.path(digest).symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=r"symbolic|loop"):
        store.read(digest)


def test_what_a_dead_writer_left_is_swept(tmp_path: Path) -> None:
    """A half-written blob of a killed process is gone at the next start."""
    (tmp_path / "new-1-2-aa").write_bytes(b"half")
    BlobStore(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_of_the_same_at_once_are_one(tmp_path: Path) -> None:
    """Writers of equal content don't disturb each other."""
    store = BlobStore(tmp_path)

    def inner() -> object:
        yield b"a"
        store.put(b"ab")
        yield b"b"

    assert store.write(inner()) == store.put(b"ab")  # pyright: ignore[reportArgumentType]
    assert store.used_bytes == 2
