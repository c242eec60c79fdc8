"""Data at rest: rows in pieces, each encrypted under the vault's key of this epoch, each named by the BLAKE3 digest of what lies on disk.

    master key (a file elsewhere) ──wraps──> key of the epoch ──encrypts──> pieces/ab/cd…ef, here or at a URL (`piecestore`)
                                 └─encrypts──> manifest: schema, salt, the pieces in order

A thief of the disk without the master key's file reads nothing: neither rows nor their number nor the columns that aren't published. A new epoch writes all
pieces anew beside the old ones, changes the manifest and the keys in one transaction, and only then deletes the old: a crash in between leaves one whole
version. The snapshot is a Merkle root over salted hashes of the plain pieces: it names a version, survives re-keying, and can't be guessed at.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from blake3 import blake3
from msgspec import Meta
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random

from clusterai.protocol import merkle
from clusterai.protocol.ids import Digest
from clusterai.protocol.statements import DigestBytes
from clusterai.vault.adapters.piecestore import Gone, PieceStore, StoreFault, piece_store
from clusterai.vault.core.pieces import Piece, decode_piece, encode_piece
from clusterai.vault.core.schema import Schema

MOST_PIECES = 1 << 20
_SCHEMA = """
create table if not exists epoch_key (epoch integer primary key, wrapped blob not null);
create table if not exists manifest (one integer primary key check (one = 1), box blob not null);
"""


class WrongKey(ValueError):
    """The vault in {folder} is under another key: name the file that it was made with."""


class NoData(LookupError):
    """There is no data in {folder}: clusterai vault init {folder} --from FILE."""


class Damaged(ValueError):
    """A piece of the vault changed on disk, or is gone: restore {folder}/pieces from a backup."""


class Placed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A piece where it lies."""

    address: DigestBytes
    rows: int
    size: int


class Manifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the pieces are, together.

    Attributes:
        leaves: the salted hash of each plain piece.
    """

    schema: Schema
    salt: DigestBytes
    epoch: int
    pieces: Annotated[tuple[Placed, ...], Meta(max_length=MOST_PIECES)]
    leaves: Annotated[tuple[DigestBytes, ...], Meta(max_length=MOST_PIECES)]

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)

    @property
    def snapshot(self) -> Digest:
        return merkle.root([Digest(leaf) for leaf in self.leaves])


class Storage:
    """One vault's data. Reading is safe from several threads; one process writes."""

    def __init__(self, folder: Path, master: bytes, url: str = "", sweep: bool = False) -> None:
        """
        Args:
            master: 32 bytes.
            url: where the pieces lie; empty: in the folder.
            sweep: delete what a crash left: for the process that serves the vault.

        Raises:
            WrongKey.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._pieces: PieceStore = piece_store(folder / "pieces", url)
        self._master = SecretBox(blake3(master, derive_key_context="clusterai vault storage 1").digest())
        self._lock = threading.RLock()
        self._db = sqlite3.connect(folder / "keys.sqlite", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            self._db.execute(f"pragma {pragma}")
        self._db.executescript(_SCHEMA)
        self._keys: dict[int, bytes] = {}
        self.manifest: Manifest | None = None
        try:
            self._read()
        except CryptoError:
            self._db.close()
            raise WrongKey(
                f"the vault in {folder} is under another key: name the file that it was made with"
            ) from None
        if sweep:
            with contextlib.suppress(
                StoreFault
            ):  # a store that is away for now keeps no vault from being opened
                self.sweep()

    def _read(self) -> None:
        self._keys = {
            epoch: self._master.decrypt(wrapped)
            for epoch, wrapped in self._db.execute("select epoch, wrapped from epoch_key").fetchall()
        }
        row = self._db.execute("select box from manifest").fetchone()
        if row is not None:
            self.manifest = msgspec.msgpack.decode(self._master.decrypt(row[0]), type=Manifest)

    @property
    def epoch(self) -> int:
        return self._whole().epoch

    def _whole(self) -> Manifest:
        if self.manifest is None:
            raise NoData(
                f"there is no data in {self._folder}: clusterai vault init {self._folder} --from FILE"
            )
        return self.manifest

    def sweep(self) -> None:
        """Delete pieces that the manifest doesn't name.

        Raises:
            OSError.
        """
        with self._lock:
            known = (
                {bytes(piece.address) for piece in self.manifest.pieces} if self.manifest else set[bytes]()
            )
        lying = set(self._pieces.addresses())
        # Where some of ours are missing, we may be an old copy of the vault's folder: what the newer one needs isn't ours to delete.
        if known <= lying:
            for address in sorted(lying - known):
                self._pieces.remove(address)

    # --- writing ---

    def write(self, schema: Schema, pieces: Iterable[Piece]) -> Manifest:
        """A new version of the data, instead of the one before."""
        epoch = 0 if self.manifest is None else self.manifest.epoch
        key = self._keys.get(epoch) or random(SecretBox.KEY_SIZE)
        salt = random(32)
        placed: list[Placed] = []
        leaves: list[bytes] = []
        with self._swept():
            for piece in pieces:
                plain = encode_piece(piece)
                leaves.append(leaf_of(salt, len(leaves), plain))
                placed.append(self._put(key, plain, piece.rows))
        manifest = Manifest(schema, salt, epoch, tuple(placed), tuple(leaves))
        self._switch(manifest, {epoch: key})
        return manifest

    def rekey(self, epoch: int) -> None:
        """All pieces under a new key, and the old ones gone. Again for the same epoch, nothing is left to do."""
        now = self._whole()
        if now.epoch >= epoch:
            return
        old, key = self._keys[now.epoch], random(SecretBox.KEY_SIZE)
        with self._swept():
            placed = [self._put(key, self._open(old, piece), piece.rows) for piece in now.pieces]
        self._switch(msgspec.structs.replace(now, epoch=epoch, pieces=tuple(placed)), {epoch: key})

    def _put(self, key: bytes, plain: bytes, rows: int) -> Placed:
        box = bytes(SecretBox(key).encrypt(plain))
        address = blake3(box).digest()
        self._pieces.put(address, box)
        return Placed(address, rows, len(box))

    @contextlib.contextmanager
    def _swept(self) -> Generator[None]:
        """Where writing ends halfway, what was written is taken away again: the place may be full."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self.sweep()
            raise

    def _switch(self, manifest: Manifest, keys: dict[int, bytes]) -> None:
        sealed = bytes(self._master.encrypt(msgspec.msgpack.encode(manifest)))
        with self._lock:
            self._db.execute("begin immediate")
            self._db.execute("delete from epoch_key")
            for epoch, key in keys.items():
                self._db.execute(
                    "insert into epoch_key values (?, ?)", (epoch, bytes(self._master.encrypt(key)))
                )
            self._db.execute("insert or replace into manifest values (1, ?)", (sealed,))
            self._db.execute("commit")
            # The old wrapped keys may still stand in the write-ahead log.
            self._db.execute("pragma wal_checkpoint(truncate)").fetchall()
            self._keys, self.manifest = dict(keys), manifest
        with contextlib.suppress(StoreFault):  # the next one deletes them; their key is gone
            self.sweep()

    # --- reading ---

    def stored(self, address: bytes) -> bytes:
        """A piece as it lies there: what may be handed to whoever asks, since it is worth nothing without the key.

        Raises:
            Damaged, StoreFault.
        """
        try:
            box = self._pieces.get(address)
        except StoreFault:
            raise
        except (Gone, OSError):
            raise Damaged(f"a piece is gone: restore {self._pieces.place} from a backup") from None
        if blake3(box).digest() != address:
            raise Damaged(f"a piece changed where it lies: restore {self._pieces.place} from a backup")
        return box

    def reach(self) -> None:
        """Look whether the data can be read now, by its first piece.

        Raises:
            Damaged, StoreFault.
        """
        now = self.manifest
        try:
            for piece in () if now is None else now.pieces[:1]:
                self._pieces.look(piece.address)
        except Gone:
            if now is self.manifest:  # else it was re-keyed meanwhile
                raise Damaged(f"a piece is gone: restore {self._pieces.place} from a backup") from None

    def copy_to(self, other: PieceStore) -> None:
        """All pieces as they are, checked.

        Raises:
            Damaged, OSError.
        """
        for piece in self._whole().pieces:
            other.put(piece.address, self.stored(piece.address))

    def take_away(self) -> None:
        """Delete all pieces: they lie elsewhere now.

        Raises:
            OSError.
        """
        for address in list(self._pieces.addresses()):
            self._pieces.remove(address)

    def key(self) -> tuple[int, bytes]:
        """The epoch and its content key: what a sold copy is opened with."""
        with self._lock:
            epoch = self._whole().epoch
            return epoch, self._keys[epoch]

    def copied(self) -> tuple[Manifest, bytes]:
        """What a copy is and the key that opens it, of one epoch.

        Raises:
            NoData.
        """
        with self._lock:
            now = self._whole()
            return now, self._keys[now.epoch]

    def _open(self, key: bytes, piece: Placed) -> bytes:
        try:
            return SecretBox(key).decrypt(self.stored(piece.address))
        except CryptoError:
            raise Damaged(f"a piece doesn't open: restore {self._pieces.place} from a backup") from None

    def pieces(self, names: Sequence[str] | None = None) -> Iterator[Piece]:
        """All pieces in order, with these columns or all.

        Raises:
            NoData, Damaged, StoreFault.
        """
        count, at = len(self._whole().pieces), 0
        while at < count:
            now, key = self.copied()
            try:
                plain = self._open(key, now.pieces[at])
            except Damaged:
                if now is self.manifest:
                    raise
                continue  # re-keyed meanwhile: it lies elsewhere
            yield decode_piece(now.schema, plain, names)
            at += 1

    def verify(self) -> None:
        """Read all of it, and compare with what was put in.

        Raises:
            NoData, Damaged.
        """
        now, key = self.copied()
        for at, piece in enumerate(now.pieces):
            if leaf_of(now.salt, at, self._open(key, piece)) != now.leaves[at]:
                raise Damaged(f"a piece isn't what was put in: restore {self._pieces.place} from a backup")

    def close(self) -> None:
        self._db.close()


def leaf_of(salt: bytes, index: int, plain: bytes) -> bytes:
    """The leaf of the snapshot that a plain piece makes: nobody without the salt can try guesses at it."""
    key = blake3(index.to_bytes(8), key=salt).digest()
    return blake3(plain, key=key).digest()
