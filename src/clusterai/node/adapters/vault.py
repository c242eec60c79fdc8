"""Transcripts on disk: encrypted, under a key of their epoch that is destroyed when nobody can ask any more.

    master (of the hot key, in memory) ──wraps──> key of the epoch ──encrypts──> transcripts

A stolen disk without the key file shows nothing. Deleting a few wrapped bytes makes an epoch unreadable for good, even
where deleted pages of the disk can be recovered.
"""

import sqlite3
from pathlib import Path
from typing import Literal

from blake3 import blake3
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import Transcript

_SCHEMA = """
create table if not exists epoch_key (epoch integer primary key, wrapped blob not null);
create table if not exists transcript (epoch integer not null, order_ blob not null, box blob not null,
    primary key (epoch, order_)) without rowid;
"""


class WrongKey(ValueError):
    """The transcripts in {path} were kept under another hot key. Use that key, or another data folder."""


class Vault:
    """One node's transcripts.

    Args:
        secret: the hot key's secret; the master key is derived from it.
        synchronous: as the journal's, and never weaker: a receipt without its transcript can cost the stake.
    """

    def __init__(self, path: Path, secret: bytes, synchronous: Literal["NORMAL", "FULL"] = "NORMAL") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._master = SecretBox(blake3(secret, derive_key_context="clusterai transcripts 1").digest())
        self._keys: dict[int, SecretBox] = {}
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={synchronous}")
        self._db.execute("PRAGMA secure_delete=ON")
        self._db.executescript(_SCHEMA)
        for epoch, wrapped in self._db.execute("select epoch, wrapped from epoch_key"):
            try:
                self._keys[epoch] = SecretBox(self._master.decrypt(wrapped))
            except CryptoError:
                self._db.close()
                raise WrongKey(
                    f"{path} was kept under another hot key: use that key, or another data folder"
                ) from None

    def put(self, epoch: int, order: Digest, transcript: Transcript) -> None:
        """Durable when it returns. A second time replaces the first."""
        self._db.execute("begin immediate")
        box = self._keys.get(epoch)
        if box is None:
            key = random(SecretBox.KEY_SIZE)
            box = self._keys[epoch] = SecretBox(key)
            self._db.execute("insert into epoch_key values (?, ?)", (epoch, bytes(self._master.encrypt(key))))
        sealed = bytes(box.encrypt(canonical.encode(transcript)))
        self._db.execute("insert or replace into transcript values (?, ?, ?)", (epoch, order, sealed))
        self._db.execute("commit")

    def get(self, epoch: int, order: Digest) -> Transcript | None:
        """None where it was never kept, or is forgotten."""
        box = self._keys.get(epoch)
        row = self._db.execute(
            "select box from transcript where epoch = ? and order_ = ?", (epoch, order)
        ).fetchone()
        if box is None or row is None:
            return None
        return canonical.decode(box.decrypt(row[0]), Transcript, limit=2 * canonical.MAX_FRAME_BYTES)

    def forget(self, epoch: int) -> None:
        """Destroy this epoch and those before it, for good."""
        self._db.execute("begin immediate")
        self._db.execute("delete from epoch_key where epoch <= ?", (epoch,))
        self._db.execute("delete from transcript where epoch <= ?", (epoch,))
        self._db.execute("commit")
        # The wrapped key may still stand in the write-ahead log.
        self._db.execute("pragma wal_checkpoint(truncate)").fetchall()
        self._keys = {kept: box for kept, box in self._keys.items() if kept > epoch}

    def epochs(self) -> tuple[int, ...]:
        return tuple(sorted(self._keys))

    def close(self) -> None:
        self._db.close()
