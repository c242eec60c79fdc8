"""What becomes whole over time, and is kept over a process's end: a blob that comes in parts, and a list that is appended to.

Both lie in a store as that keeps its blobs: in a lease's store sealed, under names that tell nothing, and counted in its quota.
"""

import os
from collections.abc import Iterator

from blake3 import blake3

from clusterai.protocol.ids import Digest
from clusterai.sandbox.adapters.store import CHUNK, BlobStore, full, told, write_all

MOST_RECORD_BYTES = 4 << 20
_LENGTH = 4


class Incoming:
    """A blob on its way in. What came is on disk but for less than a chunk at its end."""

    def __init__(self, store: BlobStore, digest: Digest) -> None:
        self._store, self._digest = store, digest
        self._path = store.aside(f"incoming {digest.hex()}")
        self._held = bytearray()
        self._index = 0
        self._head = b""
        self._stored = 0
        piece = CHUNK + store.extra_bytes
        if self._path.is_file():
            before = self._path.stat().st_size
            self._index = max(0, before - store.head_bytes) // piece
            self._stored = store.head_bytes + self._index * piece
            with self._path.open("r+b") as file:
                self._head = file.read(store.head_bytes)
                if self._index:
                    file.truncate(self._stored)
            if not self._index:
                self._path.unlink()
                self._stored, self._head = 0, b""
            store.give(before - self._stored)

    @property
    def size(self) -> int:
        return self._index * CHUNK + len(self._held)

    def add(self, data: bytes, *, more: bool) -> None:
        """The bytes that come next; `more` says that they aren't the last.

        Raises: StoreFull.
        """
        self._held += data
        while len(self._held) > CHUNK or (more and len(self._held) == CHUNK):
            self._write(bytes(self._held[:CHUNK]), last=False)
            del self._held[:CHUNK]

    def _write(self, data: bytes, *, last: bool) -> None:
        store = self._store
        begins = not self._stored
        if begins:
            self._head = store.head()
        piece = store.seal(self._head, self._index, last, data)
        if begins:
            piece = self._head + piece
        store.check(self._stored + len(piece), self._stored)
        store.take(len(piece))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.lseek(descriptor, self._stored, os.SEEK_SET)
            write_all(descriptor, piece)
            if last:
                os.fchmod(descriptor, 0o444)
                os.fsync(descriptor)
        except OSError as error:
            store.give(len(piece))
            raise told(error) from None
        finally:
            os.close(descriptor)
        self._stored += len(piece)
        self._index += 1

    def finish(self) -> bool:
        """It is all there: into the store, if it has its digest; else it is gone. Whether it had.

        Raises: StoreFull.
        """
        self._write(bytes(self._held), last=True)
        hasher = blake3()
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for chunk in self._store.content(descriptor):
                hasher.update(chunk)
        except ValueError:
            hasher.reset()
        finally:
            os.close(descriptor)
        if hasher.digest() != self._digest:
            self.discard()
            return False
        self._store.adopt(self._path, self._digest, self._stored)
        return True

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self._store.give(self._stored)
        self._held.clear()
        self._index = self._stored = 0


class Appended:
    """A list of records in a file. A torn last one was never there."""

    def __init__(self, store: BlobStore, name: str) -> None:
        self._store, self._name = store, name.encode()
        self._path = store.aside(f"appended {name}")
        self._at: list[int] = []
        self._end = 0
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        with self._path.open("rb") as file:
            while len(raw := file.read(_LENGTH)) == _LENGTH:
                length = int.from_bytes(raw)
                if length > MOST_RECORD_BYTES or self._end + _LENGTH + length > size:
                    break
                self._at.append(self._end)
                self._end += _LENGTH + length
                file.seek(self._end)
        if self._end < size:
            os.truncate(self._path, self._end)
            store.give(size - self._end)

    def __len__(self) -> int:
        return len(self._at)

    @property
    def stored_bytes(self) -> int:
        return self._end

    def append(self, data: bytes, *, durable: bool = True) -> None:
        """Raises: StoreFull."""
        store, head = self._store, self._store.head()
        sealed = head + store.seal(head, 0, True, data, self._about(len(self._at)))
        assert len(sealed) <= MOST_RECORD_BYTES
        raw = len(sealed).to_bytes(_LENGTH) + sealed
        store.take(len(raw))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.lseek(descriptor, self._end, os.SEEK_SET)
            write_all(descriptor, raw)
            if durable:
                os.fsync(descriptor)
        except OSError as error:
            # What was written of it is torn, and the next one is laid over it.
            store.give(len(raw))
            raise told(error) from None
        finally:
            os.close(descriptor)
        self._at.append(self._end)
        self._end += len(raw)

    def _about(self, index: int) -> bytes:
        return self._name + index.to_bytes(8)

    def record(self, index: int) -> bytes:
        """Raises: ValueError, where it can be told that it was changed; NoSuchBlob, when the lease ended."""
        end = self._at[index + 1] if index + 1 < len(self._at) else self._end
        head_bytes = self._store.head_bytes
        descriptor = os.open(
            self._store.aside(f"appended {self._name.decode()}"), os.O_RDONLY | os.O_NOFOLLOW
        )
        try:
            os.lseek(descriptor, self._at[index] + _LENGTH, os.SEEK_SET)
            raw = full(descriptor, end - self._at[index] - _LENGTH)
        finally:
            os.close(descriptor)
        return self._store.unseal(raw[:head_bytes], 0, True, raw[head_bytes:], self._about(index))

    def records(self) -> Iterator[bytes]:
        """All of them; those behind a changed one don't count."""
        for index in range(len(self._at)):
            try:
                yield self.record(index)
            except ValueError:
                return

    def cut(self, count: int) -> None:
        """Keep the first so many."""
        if count >= len(self._at):
            return
        kept = self._at[count]
        if kept:
            os.truncate(self._path, kept)
        else:
            self._path.unlink(missing_ok=True)
        self._store.give(self._end - kept)
        self._at, self._end = self._at[:count], kept
