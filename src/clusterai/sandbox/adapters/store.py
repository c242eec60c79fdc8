"""Blobs by content: what jobs read, what they leave, verified each time it is read.

    ROOT/ab/cd…ef      one blob, named by its BLAKE3 digest, read-only
    ROOT/new-…         being written; renamed into place when whole, swept away when its writer died
    ROOT/grow-…        what grows over several processes' lives (`growing.py`): a blob that comes in parts, a log

A name is 64 hex digits and nothing else, so that no peer can choose a path. Links are never followed, in neither
direction: a tenant's `out` is walked by descriptors, and what is no plain file is not taken.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from clusterai.protocol.ids import Digest

CHUNK = 1 << 20
SPARE_BYTES = 64 << 20
"""What a daemon's stores leave of a disk to the journals beside them, which have to say that it is full, and answer for what is open."""


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


class DiskFull(StoreFull):
    """This machine's disk is full: whoever runs it has to make room."""

    def __init__(self) -> None:
        OSError.__init__(self, "this machine's disk is full: whoever runs it has to make room")
        self.errno = errno.ENOSPC


class Quota:
    """What one store, or several together, may take of a disk."""

    def __init__(self, most_bytes: int, spare_bytes: int = 0) -> None:
        """
        Args:
            spare_bytes: stay free on the disk, whatever the quota would allow.
        """
        self.most_bytes = most_bytes
        self.spare_bytes = spare_bytes
        self.used_bytes = 0
        self._lock = threading.Lock()

    def check(self, size: int) -> None:
        """Raises: StoreFull."""
        if self.used_bytes + size > self.most_bytes:
            raise StoreFull(size, self.most_bytes)

    def take(self, size: int) -> None:
        """Raises: StoreFull."""
        with self._lock:
            self.check(size)
            self.used_bytes += size

    def give(self, size: int) -> None:
        with self._lock:
            self.used_bytes -= size


class BlobStore:
    """One folder of blobs. Several processes may share it; the quota is then each one's own view, renewed at start."""

    head_bytes = 0
    """Before a blob's first piece on disk."""
    extra_bytes = 0
    """Of each piece on disk, beside its plain bytes."""

    def __init__(self, root: Path, quota: int | Quota = 64 << 30, blob_bytes: int = 16 << 30) -> None:
        """
        Args:
            quota: the most bytes that all blobs may take, here or, as a `Quota`, in all stores that share it.
            blob_bytes: the most that one may.
        """
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = root
        self.scratch: Path | None = None
        """Where a run may lay out what it takes from here; None for the run's own folder."""
        self._quota = quota if isinstance(quota, Quota) else Quota(quota)
        self._largest = blob_bytes
        self._lock = threading.Lock()
        self._is_over = False
        for leftover in root.glob("new-*"):
            leftover.unlink(missing_ok=True)
        self._used = sum(path.lstat().st_size for mask in ("??/*", "grow-*") for path in root.glob(mask))
        # What lies here lies here, also when the quota was lowered meanwhile.
        self._quota.give(-self._used)

    @property
    def used_bytes(self) -> int:
        return self._used

    def take(self, size: int, written: int = 0) -> None:
        """Count so many more bytes, of which some lie there already.

        Raises: StoreFull; NoSuchBlob, in a store that is closed for good.
        """
        with self._lock:
            if self._is_over:
                raise NoSuchBlob(Digest(bytes(32)))
            self._has_room(size - written)
            self._quota.take(size)
            self._used += size

    def give(self, size: int) -> None:
        """Count so many fewer."""
        with self._lock:
            if not self._is_over:
                self._quota.give(size)
                self._used -= size

    def give_all(self) -> None:
        """Count nothing of it any more, whatever still writes."""
        self.give(self._used)
        self._is_over = True

    # -- how it lies on disk: here as it is, in a lease's store sealed ------------------------------------------------

    def head(self) -> bytes:
        """What a new blob begins with on disk."""
        return b""

    def seal(self, head: bytes, index: int, last: bool, data: bytes, about: bytes = b"") -> bytes:
        """A piece as it lies on disk; `about` is bound to it."""
        return data

    def unseal(self, head: bytes, index: int, last: bool, piece: bytes, about: bytes = b"") -> bytes:
        """A piece as it was put in.

        Raises: ValueError, where it can be told that it was changed.
        """
        return piece

    def aside(self, name: str) -> Path:
        """Where something of that name may grow."""
        return self.root / f"grow-{blake3(name.encode()).hexdigest()}"

    def path(self, digest: Digest) -> Path:
        assert len(digest) == 32
        text = digest.hex()
        return self.root / text[:2] / text[2:]

    def digests(self) -> list[Digest]:
        """Of all blobs, where names tell them."""
        found = (path.parent.name + path.name for path in self.root.glob("??/*"))
        return [Digest(bytes.fromhex(name)) for name in found]

    def __contains__(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: Digest) -> int:
        """Raises: NoSuchBlob."""
        try:
            return self._plain_bytes(self.path(digest).lstat().st_size)
        except FileNotFoundError:
            raise NoSuchBlob(digest) from None

    def _plain_bytes(self, stored: int) -> int:
        stored -= self.head_bytes
        return stored - self.extra_bytes * -(-stored // (CHUNK + self.extra_bytes))

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

        pieces = self._sealed(self.head(), hashed())
        try:
            with temporary.open("xb", buffering=0) as file:
                for piece in pieces:
                    size += len(piece)
                    self.check(size)
                    write_all(file.fileno(), piece)
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
            digest = Digest(hasher.digest())
            self.take(size, written=size)
            self.adopt(temporary, digest, size)
            return digest
        except FileNotFoundError:
            self.head()  # A lease that ended meanwhile took its folder along, and says so.
            raise
        except OSError as error:
            raise told(error) from None
        finally:
            temporary.unlink(missing_ok=True)

    def check(self, size: int, counted: int = 0) -> None:
        """Raises: StoreFull, where a blob of that size on disk, `counted` of which is in the quota, has no room."""
        if size > self._largest:
            raise StoreFull(size, self._largest)
        self._quota.check(size - counted)
        self._has_room(0)

    def _has_room(self, size: int) -> None:
        if not (spare := self._quota.spare_bytes):
            return
        disk = os.statvfs(self.root)
        if disk.f_bavail * disk.f_frsize < spare + size:
            raise DiskFull

    def _sealed(self, head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """What is written for what came."""
        yield head
        held = bytearray()
        index = 0
        for chunk in chunks:
            held += chunk
            while len(held) > CHUNK:
                yield self.seal(head, index, False, bytes(held[:CHUNK]))
                del held[:CHUNK]
                index += 1
        yield self.seal(head, index, True, bytes(held))

    def content(self, descriptor: int) -> Iterator[bytes]:
        """What was put in, from what is on disk.

        Raises: ValueError, where it can be told that it was changed.
        """
        stored = os.fstat(descriptor).st_size - self.head_bytes
        head = full(descriptor, self.head_bytes)
        last = max(1, -(-stored // (CHUNK + self.extra_bytes))) - 1
        for index in range(last + 1):
            yield self.unseal(head, index, index == last, full(descriptor, CHUNK + self.extra_bytes))

    def adopt(self, temporary: Path, digest: Digest, size: int) -> None:
        """Give a whole file of this store its name; its size was counted when it was written."""
        place = self.path(digest)
        place.parent.mkdir(exist_ok=True, mode=0o700)
        with self._lock:
            known = place.exists()
            temporary.replace(place)
        if known:
            self.give(size)

    def read_at(self, digest: Digest, offset: int, most: int) -> bytes:
        """Some bytes of a blob, at most `most` and at most a chunk, without reading what is before them; whoever gets them checks the
        whole by its digest.

        Raises: NoSuchBlob; Damaged, where it can be told.
        """
        index, skipped = divmod(offset, CHUNK)
        size = self.size(digest)
        if offset >= size:
            return b""
        with self._open(digest) as descriptor:
            head = full(descriptor, self.head_bytes)
            os.lseek(descriptor, self.head_bytes + index * (CHUNK + self.extra_bytes), os.SEEK_SET)
            piece = full(descriptor, CHUNK + self.extra_bytes)
            try:
                plain = self.unseal(head, index, (index + 1) * CHUNK >= size, piece)
            except ValueError:
                raise Damaged(digest) from None
        return plain[skipped : skipped + most]

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
            yield from self.content(descriptor)

    def verify(self, digest: Digest) -> None:
        """Raises: NoSuchBlob, Damaged."""
        for _ in self._verified(digest):
            pass

    def _verified(self, digest: Digest) -> Iterator[bytes]:
        """A blob's pieces; only when they end are they known to be its own."""
        hasher = blake3()
        with self._open(digest) as descriptor:
            try:
                for chunk in self.content(descriptor):
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
        with contextlib.suppress(FileNotFoundError):
            with self._lock:
                size = self.path(digest).lstat().st_size
                self.path(digest).unlink()
            self.give(size)

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


def told(error: OSError) -> OSError:
    """The same, or that the disk is full, in words."""
    if isinstance(error, StoreFull):
        return error
    return DiskFull() if error.errno in (errno.ENOSPC, errno.EDQUOT) else error


def full(descriptor: int, size: int) -> bytes:
    """The next `size` bytes, fewer only at the end."""
    pieces: list[bytes] = []
    while size and (piece := os.read(descriptor, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
