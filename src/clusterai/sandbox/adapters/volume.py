"""A lease's data at rest, under a key that dies with the lease.

What a tenant brings and leaves is written to the node's disk in no other form than encrypted: each blob as a stream of
XChaCha20-Poly1305 pieces (libsodium's secretstream, which notices pieces that are cut off, repeated or exchanged), under a
name that only the key's holder can compute. The key is made here, is never written, and is gone when the lease ends
or the process dies: what is left on the disk, or in a backup of it, is noise.

    protected          from whoever gets the disk, a copy of it, or the node's folder, after the lease or without its process
    not protected      from whoever controls the running machine: root can read a process's memory, and the job's volume is
                       memory too. Against the machine's owner only hardware with encrypted memory helps.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3
from nacl import bindings
from nacl.exceptions import CryptoError

from clusterai.protocol.ids import Digest
from clusterai.sandbox.adapters.store import CHUNK, BlobStore, NoSuchBlob

_HEADER = bindings.crypto_secretstream_xchacha20poly1305_HEADERBYTES
_EXTRA = bindings.crypto_secretstream_xchacha20poly1305_ABYTES
_MORE = bindings.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
_LAST = bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
MEMORY = Path("/dev/shm")  # noqa: S108


class LeaseEnded(NoSuchBlob):
    """The lease ended, and its key with it: what it held can't be read any more."""


class LeaseStore(BlobStore):
    """A blob store for one lease. Given to a run as its `store`, inputs and outputs are never on disk in the clear.

    A verified input is laid out for its task in memory (`/dev/shm`), not on disk. Swap, where there is some, must be
    encrypted too: `doctor` looks.
    """

    def __init__(self, root: Path, quota_bytes: int = 64 << 30, blob_bytes: int = 16 << 30) -> None:
        # What a lease before this one left can't be read by anybody.
        shutil.rmtree(root, ignore_errors=True)
        super().__init__(root, quota_bytes, blob_bytes)
        self._key: bytes | None = os.urandom(32)
        self.scratch = MEMORY if MEMORY.is_dir() else None

    def end(self) -> None:
        """Forget the key, then delete what it opened. The first is enough; the second gives the space back."""
        self._key = None
        shutil.rmtree(self.root, ignore_errors=True)
        self._used = 0

    def _secret(self) -> bytes:
        if self._key is None:
            raise LeaseEnded(Digest(bytes(32)))
        return self._key

    def path(self, digest: Digest) -> Path:
        assert len(digest) == 32
        name = blake3(digest, key=self._secret()).hexdigest()
        return self.root / name[:2] / name[2:]

    def size(self, digest: Digest) -> int:
        stored = super().size(digest) - _HEADER
        return stored - _EXTRA * -(-stored // (CHUNK + _EXTRA))

    def _sealed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        state = bindings.crypto_secretstream_xchacha20poly1305_state()
        yield bindings.crypto_secretstream_xchacha20poly1305_init_push(state, self._secret())
        held = bytearray()
        for chunk in chunks:
            held += chunk
            while len(held) > CHUNK:
                yield bindings.crypto_secretstream_xchacha20poly1305_push(
                    state, bytes(held[:CHUNK]), None, _MORE
                )
                del held[:CHUNK]
        yield bindings.crypto_secretstream_xchacha20poly1305_push(state, bytes(held), None, _LAST)

    def _content(self, descriptor: int) -> Iterator[bytes]:
        state = bindings.crypto_secretstream_xchacha20poly1305_state()
        tag = _MORE
        try:
            header = os.read(descriptor, _HEADER)
            bindings.crypto_secretstream_xchacha20poly1305_init_pull(state, header, self._secret())
            while piece := _full(descriptor, CHUNK + _EXTRA):
                if tag == _LAST:
                    raise ValueError("it goes on after its end")
                plain, tag = bindings.crypto_secretstream_xchacha20poly1305_pull(state, piece, None)
                yield plain
        except (CryptoError, RuntimeError) as error:
            raise ValueError(str(error)) from None
        if tag != _LAST:
            raise ValueError("it was cut off")


def _full(descriptor: int, size: int) -> bytes:
    """The next `size` bytes, fewer only at the end."""
    pieces: list[bytes] = []
    while size and (piece := os.read(descriptor, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def swap_is_encrypted(swaps: Path = Path("/proc/swaps")) -> bool | None:
    """Whether pages of memory can reach a disk in the clear: None if there is no swap."""
    try:
        devices = [line.split()[0] for line in swaps.read_text().splitlines()[1:]]
    except OSError:
        return None
    return (
        all(device.startswith(("/dev/dm-", "/dev/mapper/", "/dev/zram")) for device in devices)
        if devices
        else None
    )
