"""Blobs by content: what jobs read, what they leave, verified each time it is read.

    ROOT/ab/cd…ef      one blob, named by its BLAKE3 digest, read-only
    ROOT/new-…         being written; renamed into place when whole, swept away when its writer died

A name is 64 hex digits and nothing else, so that no peer can choose a path. Links are never followed, in neither
direction: a tenant's `out` is walked by descriptors, and what is no plain file is not taken.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from clusterai.protocol.ids import Digest

CHUNK = 1 << 20


class NoSuchBlob(LookupError):
    """No blob {digest} here: upload it, or fetch it from who has it."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"no blob {digest.hex()} here: upload it, or fetch it from who has it")


class Damaged(ValueError):
    """Blob {digest} changed on disk; it was set aside. Fetch it again."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"blob {digest.hex()} changed on disk and was removed: fetch it again")


class StoreFull(OSError):
    """{size} more bytes would exceed the store's {quota}: delete blobs, or raise the quota."""

    def __init__(self, size: int, quota: int) -> None:
        super().__init__(
            f"{size} more bytes would exceed the store's {quota}: delete blobs, or raise the quota"
        )


class BlobStore:
    """One folder of blobs. Several processes may share it; the quota is then each one's own view, renewed at start."""

    def __init__(self, root: Path, quota_bytes: int = 64 << 30, blob_bytes: int = 16 << 30) -> None:
        """
        Args:
            quota_bytes: the most that all blobs may take.
            blob_bytes: the most that one may.
        """
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = root
        self.scratch: Path | None = None
        """Where a run may lay out what it takes from here; None for the run's own folder."""
        self._quota = quota_bytes
        self._largest = blob_bytes
        self._lock = threading.Lock()
        for leftover in root.glob("new-*"):
            leftover.unlink(missing_ok=True)
        self._used = sum(path.lstat().st_size for path in root.glob("??/*"))

    @property
    def used_bytes(self) -> int:
        return self._used

    def path(self, digest: Digest) -> Path:
        assert len(digest) == 32
        text = digest.hex()
        return self.root / text[:2] / text[2:]

    def __contains__(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: Digest) -> int:
        """Raises: NoSuchBlob."""
        try:
            return self.path(digest).lstat().st_size
        except FileNotFoundError:
            raise NoSuchBlob(digest) from None

    def put(self, data: bytes) -> Digest:
        """Raises: StoreFull."""
        return self.write([data])

    def put_file(self, source: Path) -> Digest:
        """Take a file's bytes as they are now. A link is refused (OSError), not followed.

        Raises: StoreFull.
        """
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return self.put_descriptor(descriptor)
        finally:
            os.close(descriptor)

    def put_descriptor(self, descriptor: int) -> Digest:
        """The same of an open file; anything but a plain file is an OSError."""
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a plain file")
        return self.write(iter(lambda: os.read(descriptor, CHUNK), b""))

    def write(self, chunks: Iterable[bytes]) -> Digest:
        """Store what streams in, hashing as it comes; nothing is kept if the stream or the disk breaks off.

        Raises: StoreFull.
        """
        temporary = self.root / f"new-{os.getpid()}-{threading.get_ident()}-{os.urandom(8).hex()}"
        hasher, size = blake3(), 0

        def hashed() -> Iterator[bytes]:
            for chunk in chunks:
                hasher.update(chunk)
                yield chunk

        try:
            with temporary.open("xb", buffering=0) as file:
                for chunk in self._sealed(hashed()):
                    size += len(chunk)
                    if size > self._largest or self._used + size > self._quota:
                        raise StoreFull(size, min(self._largest, self._quota))
                    view = memoryview(chunk)
                    while view:
                        view = view[file.write(view) :]
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
            digest = Digest(hasher.digest())
            self._adopt(temporary, digest, size)
            return digest
        finally:
            temporary.unlink(missing_ok=True)

    def _sealed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """What is written for what came: here, the same."""
        return chunks

    def _content(self, descriptor: int) -> Iterator[bytes]:
        """What was put in, from what is on disk.

        Raises: ValueError, where it can be told that it was changed.
        """
        return iter(lambda: os.read(descriptor, CHUNK), b"")

    def _adopt(self, temporary: Path, digest: Digest, size: int) -> None:
        place = self.path(digest)
        place.parent.mkdir(exist_ok=True, mode=0o700)
        with self._lock:
            if not place.exists():
                if self._used + size > self._quota:
                    raise StoreFull(size, self._quota)
                self._used += size
            temporary.replace(place)

    def read(self, digest: Digest, limit: int = 256 << 20) -> bytes:
        """All of a blob, verified.

        Raises: NoSuchBlob, Damaged; ValueError if it is longer than `limit`.
        """
        if (size := self.size(digest)) > limit:
            raise ValueError(
                f"blob {digest.hex()} has {size} bytes, more than the {limit} that may be read at once"
            )
        return b"".join(self._verified(digest))

    def stream(self, digest: Digest) -> Iterator[bytes]:
        """A blob in pieces, verified before the first is handed out.

        Raises: NoSuchBlob, Damaged.
        """
        self.verify(digest)
        with self._open(digest) as descriptor:
            yield from self._content(descriptor)

    def verify(self, digest: Digest) -> None:
        """Raises: NoSuchBlob, Damaged."""
        for _ in self._verified(digest):
            pass

    def _verified(self, digest: Digest) -> Iterator[bytes]:
        """A blob's pieces; only when they end are they known to be its own."""
        hasher = blake3()
        with self._open(digest) as descriptor:
            try:
                for chunk in self._content(descriptor):
                    hasher.update(chunk)
                    yield chunk
            except ValueError:
                hasher.reset()
        if hasher.digest() != digest:
            self.delete(digest)
            raise Damaged(digest)

    def link(self, digest: Digest, place: Path) -> None:
        """Make a verified blob appear at `place`, as a copy: a hard link would let the two change together.

        Raises: NoSuchBlob, Damaged.
        """
        with place.open("xb") as file:
            for chunk in self.stream(digest):
                file.write(chunk)
            os.fchmod(file.fileno(), 0o444)

    def delete(self, digest: Digest) -> None:
        with contextlib.suppress(FileNotFoundError), self._lock:
            size = self.path(digest).lstat().st_size
            self.path(digest).unlink()
            self._used -= size

    @contextlib.contextmanager
    def _open(self, digest: Digest) -> Generator[int]:
        try:
            descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoSuchBlob(digest) from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)
