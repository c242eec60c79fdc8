"""What a requester keeps of a run, so that it may be killed between any two lines and the same command goes on.

    FOLDER/run.json          the run, its vaults and grants, which number its next round has, what failed rounds cost
    FOLDER/underway.json     the round that is being asked for: asked again with the same words, it is answered and paid as it was
    FOLDER/sum.sqlite        its secure sum: its spec, and who has said what
    FOLDER/running           held by the process that works here

A round's number is used once: taken durably, then named in `underway.json`, and only then told to anybody. The number of a round whose
words would be others now, say because the app draws by the clock, isn't used again.
"""

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import IO

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.runtime.machine import Journal
from clusterai.vault.core.secagg.messages import MAX_FRAME_BYTES, Spec
from clusterai.work.training.core import lineage
from clusterai.work.training.spec import Run


class InUse(RuntimeError):
    """Another process trains in {folder}: let it end first."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"another process trains in {folder}: let it end first")


class Kept(msgspec.Struct, frozen=True):
    """`run.json`.

    Attributes:
        run: in canonical bytes, as hex.
        sources: with the grants.
        wasted: parts of rounds of which no sum came; what they cost was paid, and their ε is spent.
    """

    run: str
    number: int
    sources: tuple[lineage.Source, ...] = ()
    wasted: tuple[lineage.Part, ...] = ()


class Underway(msgspec.Struct, frozen=True):
    """`underway.json`: a round, as it is told to vaults.

    Attributes:
        exchange: which of the app's it is.
        left_wei: what all of it may cost; orders say their share of it, so it stays.
    """

    exchange: int
    number: int
    message: bytes
    type: str
    group: str
    among: tuple[bytes, ...]
    left_wei: int | None


class Checkpoint:
    """A run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place, self._underway = folder / "run.json", folder / "underway.json"
        self._sum = folder / "sum.sqlite"
        self._held: IO[bytes] | None = None
        self._open: SqliteJournal | None = None

    def hold(self) -> None:
        """
        Raises:
            InUse.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held = (self.folder / "running").open("ab")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._held.close()
            raise InUse(self.folder) from None

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        if self._held is not None:
            self._held.close()

    # --- the run ---

    def kept(self) -> Kept | None:
        """
        Raises:
            msgspec.MsgspecError: it isn't what was written.
        """
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.decode(self._place.read_bytes(), type=Kept)
        return None

    def keep(self, kept: Kept) -> None:
        write(self._place, msgspec.json.encode(kept))

    # --- the round that is under way ---

    def underway(self) -> Underway | None:
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            return msgspec.json.decode(self._underway.read_bytes(), type=Underway)
        return None

    def set_out(self, underway: Underway) -> None:
        write(self._underway, msgspec.json.encode(underway))

    def arrived(self) -> None:
        """The app's exchange is kept: nothing of the round is needed any more."""
        self._underway.unlink(missing_ok=True)
        self._forget_sum()

    # --- its secure sum: `rounds.Sums` ---

    def spec(self, number: int) -> Spec | None:
        """
        Raises:
            sqlite3.DatabaseError: it isn't what was written.
        """
        if not self._sum.exists():
            return None
        with contextlib.closing(sqlite3.connect(self._sum)) as db:
            try:
                row = db.execute("SELECT spec FROM sum WHERE number = ?", (number,)).fetchone()
            except sqlite3.OperationalError:
                return None  # killed before it was written
        with contextlib.suppress(Malformed):
            return None if row is None else canonical.decode(row[0], Spec, MAX_FRAME_BYTES)
        return None

    def begin(self, number: int, spec: Spec) -> None:
        self._forget_sum()
        with contextlib.closing(sqlite3.connect(self._sum)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("CREATE TABLE sum (number INTEGER PRIMARY KEY, spec BLOB NOT NULL)")
            db.execute("INSERT INTO sum VALUES (?, ?)", (number, canonical.encode(spec)))
            db.commit()

    def journal(self, number: int) -> Journal:
        assert self.spec(number) is not None, "begun before"
        if self._open is None:
            self._open = SqliteJournal(self._sum, "FULL")
        return self._open

    def _forget_sum(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        for name in ("sum.sqlite", "sum.sqlite-wal", "sum.sqlite-shm"):
            (self.folder / name).unlink(missing_ok=True)


def grants_in(folder: Path) -> dict[Digest, Digest]:
    """Under which grant each vault takes part in the run that a folder holds, by the parties' subjects; none where it holds none."""
    try:
        kept = Checkpoint(folder).kept()
    except msgspec.MsgspecError:
        return {}
    return {} if kept is None else {Digest(it.subject): Digest(it.grant) for it in kept.sources}


def run_of(kept: Kept) -> Run:
    """
    Raises:
        Malformed, ValueError.
    """
    return canonical.decode(bytes.fromhex(kept.run), Run)


def write(place: Path, data: bytes) -> None:
    """Whole, or not at all, and durable."""
    aside = place.with_name(f".{place.name}.new")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(place)
