"""A lease's data at rest, under a key that dies with the lease.

What a tenant brings and leaves is written to the node's disk in no other form than encrypted: each blob as pieces of
XChaCha20-Poly1305 that can't be cut off, repeated or exchanged, any of which can be read by itself, under a name that only the key's
holder can compute. The key is made here. `Volumes` keeps it wrapped under a key of the node, so that a node that crashed can go on
and serve auditors; when the lease ends it is destroyed, and what is left on the disk, or in a backup of it, is noise.

    protected          from whoever gets the disk, a copy of it, or the node's folder, after the lease or without the node's key
    not protected      from whoever controls the running machine: root can read a process's memory, and the job's volume is
                       memory too. Against the machine's owner only hardware with encrypted memory helps.

The pieces are the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015, as in age and Tink): the nonce is a random prefix of
the blob, the piece's number, and whether it is the last.
"""

import os
import shutil
import sqlite3
from pathlib import Path

from blake3 import blake3
from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from clusterai.protocol.ids import Digest
from clusterai.sandbox.adapters.store import BlobStore, NoSuchBlob, Quota

_PREFIX = 16
KEY_BYTES = 32
MEMORY = Path("/dev/shm")  # noqa: S108
NO_MEMORY = (
    f"{MEMORY} is not here, and a tenant's inputs are laid out nowhere else: mount -t tmpfs tmpfs {MEMORY}"
)


class LeaseEnded(NoSuchBlob):
    """The lease ended, and its key with it: what it held can't be read any more."""


class NoMemoryFolder(OSError):
    """Inputs would have to be laid out on a disk in the clear: mount a tmpfs where `MEMORY` says."""


class WrongKey(ValueError):
    """The volumes in {path} were kept under another key of this node. Use that key, or another data folder."""


class LeaseStore(BlobStore):
    """A blob store for one lease. Given to a run as its `store`, inputs and outputs are never on disk in the clear.

    A verified input is laid out for its task in memory (`/dev/shm`), not on disk. Swap, where there is some, must be
    encrypted too: `doctor` looks.
    """

    head_bytes = _PREFIX
    extra_bytes = bindings.crypto_aead_xchacha20poly1305_ietf_ABYTES

    def __init__(
        self,
        root: Path,
        quota: int | Quota = 64 << 30,
        blob_bytes: int = 16 << 30,
        key: bytes | None = None,
    ) -> None:
        """
        Args:
            key: of a lease that goes on; a new one without it.

        Raises:
            NoMemoryFolder.
        """
        if not MEMORY.is_dir():
            raise NoMemoryFolder(NO_MEMORY)
        if key is None:
            # What a lease before this one left can't be read by anybody.
            shutil.rmtree(root, ignore_errors=True)
        super().__init__(root, quota, blob_bytes)
        self._key: bytes | None = os.urandom(KEY_BYTES) if key is None else key
        self.scratch = MEMORY

    def end(self) -> None:
        """Forget the key, then delete what it opened. The first is enough; the second gives the space back."""
        self._key = None
        shutil.rmtree(self.root, ignore_errors=True)
        self.give_all()

    def _secret(self) -> bytes:
        if self._key is None:
            raise LeaseEnded(Digest(bytes(32)))
        return self._key

    def path(self, digest: Digest) -> Path:
        assert len(digest) == 32
        name = blake3(digest, key=self._secret()).hexdigest()
        return self.root / name[:2] / name[2:]

    def aside(self, name: str) -> Path:
        return self.root / f"grow-{blake3(name.encode(), key=self._secret()).hexdigest()}"

    def head(self) -> bytes:
        self._secret()
        return os.urandom(_PREFIX)

    def seal(self, head: bytes, index: int, last: bool, data: bytes, about: bytes = b"") -> bytes:
        nonce = head + index.to_bytes(7) + bytes((last,))
        return bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(data, about, nonce, self._secret())

    def unseal(self, head: bytes, index: int, last: bool, piece: bytes, about: bytes = b"") -> bytes:
        nonce = head + index.to_bytes(7) + bytes((last,))
        if len(nonce) != 24:
            raise ValueError("it has no beginning")
        try:
            return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(piece, about, nonce, self._secret())
        except (CryptoError, ValueError, TypeError) as error:
            raise ValueError(str(error)) from None


class Volumes:
    """The stores of all leases of a node, each with its key, under one quota.

        master (of the node's key, in memory) ──wraps──> key of the lease ──encrypts──> its volume

    Args:
        secret: of the node; the master key is derived from it. A disk without it shows nothing.
    """

    def __init__(self, folder: Path, secret: bytes, quota: Quota) -> None:
        """
        Raises:
            WrongKey.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._quota = quota
        self._master = SecretBox(blake3(secret, derive_key_context="clusterai lease volumes 1").digest())
        self._open: dict[Digest, LeaseStore] = {}
        path = folder / "keys.sqlite"
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # A lease whose key a power failure took can't be shown to auditors, which costs the stake: full, once a lease.
        for statement in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            self._db.execute(f"pragma {statement}")
        self._db.execute(
            "create table if not exists lease_key (lease blob primary key, wrapped blob not null)"
        )
        kept: set[str] = set()
        for lease, wrapped in self._db.execute("select lease, wrapped from lease_key").fetchall():
            try:
                key = self._master.decrypt(wrapped)
            except CryptoError:
                self._db.close()
                raise WrongKey(
                    f"the volumes in {folder} were kept under another key of this node: use that key, or another data folder"
                ) from None
            kept.add(lease.hex())
            self._open[Digest(lease)] = LeaseStore(folder / lease.hex(), quota, key=key)
        for left in folder.iterdir():
            if left.is_dir() and left.name not in kept:
                shutil.rmtree(left, ignore_errors=True)

    def of(self, lease: Digest) -> LeaseStore:
        """Its store, made where it has none; the key is durable before anything is sealed with it."""
        store = self._open.get(lease)
        if store is None:
            key = os.urandom(KEY_BYTES)
            shutil.rmtree(self._folder / lease.hex(), ignore_errors=True)
            self._db.execute("insert into lease_key values (?, ?)", (lease, bytes(self._master.encrypt(key))))
            store = self._open[lease] = LeaseStore(self._folder / lease.hex(), self._quota, key=key)
        return store

    def leases(self) -> tuple[Digest, ...]:
        return tuple(self._open)

    def end(self, lease: Digest) -> None:
        """Destroy a lease's key, and then what it opened. A process that dies in between finishes it when it starts again."""
        self._db.execute("delete from lease_key where lease = ?", (lease,))
        # The wrapped key may still stand in the write-ahead log.
        self._db.execute("pragma wal_checkpoint(truncate)").fetchall()
        store = self._open.pop(lease, None)
        if store is not None:
            store.end()

    def close(self) -> None:
        self._db.close()


def memory_bytes(folder: Path, mounts: Path = Path("/proc/mounts")) -> int:
    """How much the memory file system at a folder holds; 0 where none is mounted there."""
    try:
        kinds = {line.split()[1]: line.split()[2] for line in mounts.read_text().splitlines()}
        space = os.statvfs(folder)
    except OSError:
        return 0
    return space.f_blocks * space.f_frsize if kinds.get(str(folder)) in ("tmpfs", "ramfs") else 0


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
