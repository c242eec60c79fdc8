"""What a requester keeps of a run, so that it may be killed between any two lines and the same command goes on.

    FOLDER/run.json          the run, its vaults and grants, which number its next round has, what failed rounds cost
    FOLDER/underway.json     the round that is being asked for: asked again with the same words, it is answered and paid as it was
    FOLDER/sum.sqlite        its secure sums (of further groups: sum-1.sqlite …): their specs, and who has said what
    FOLDER/running           held by the process that works here

A round's number is used once: taken durably, then named in `underway.json`, and only then told to anybody. The number of a round whose
words would be others now, say because the app draws by the clock, isn't used again.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import IO

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.runtime.adapters import filelock
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
        self._open: dict[int, SqliteJournal] = {}

    def hold(self) -> None:
        """
        Raises:
            InUse.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held = (self.folder / "running").open("ab")
        if not filelock.hold(self._held):
            self._held.close()
            raise InUse(self.folder)

    def close(self) -> None:
        self._close_sums()
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

    # --- its secure sums: `rounds.Sums` ---

    def specs(self, number: int) -> tuple[Spec, ...]:
        """
        Raises:
            sqlite3.DatabaseError: it isn't what was written.
        """
        if not self._sum.exists():
            return ()
        with contextlib.closing(sqlite3.connect(self._sum)) as db:
            try:
                rows = db.execute(
                    "SELECT spec FROM sum WHERE number = ? ORDER BY place", (number,)
                ).fetchall()
            except sqlite3.OperationalError:
                return ()  # killed before it was written
        with contextlib.suppress(Malformed):
            return tuple(canonical.decode(row[0], Spec, MAX_FRAME_BYTES) for row in rows)
        return ()

    def begin(self, number: int, specs: tuple[Spec, ...]) -> None:
        self._forget_sum()
        with contextlib.closing(sqlite3.connect(self._sum)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute(
                "CREATE TABLE sum (number INTEGER, place INTEGER, spec BLOB NOT NULL, PRIMARY KEY (number, place))"
            )
            rows = [(number, spec.group, canonical.encode(spec)) for spec in specs]
            db.executemany("INSERT INTO sum VALUES (?, ?, ?)", rows)
            db.commit()

    def journal(self, number: int, group: int) -> Journal:
        """The first group's lies beside the specs, the others' in files of their own."""
        assert len(self.specs(number)) > group, "begun before"
        if group not in self._open:
            place = self._sum if not group else self._sum.with_name(f"sum-{group}.sqlite")
            self._open[group] = SqliteJournal(place, "FULL")
        return self._open[group]

    def _close_sums(self) -> None:
        for journal in self._open.values():
            journal.close()
        self._open = {}

    def _forget_sum(self) -> None:
        self._close_sums()
        for place in (*self.folder.glob("sum.sqlite*"), *self.folder.glob("sum-[0-9]*.sqlite*")):
            place.unlink(missing_ok=True)


def sources_in(folder: Path) -> tuple[lineage.Source, ...]:
    """The vaults of the run that a folder holds, in the run's order; none where it holds none.

    Raises:
        ValueError: it isn't what was written.
    """
    kept = Checkpoint(folder).kept()
    if kept is None:
        return ()
    of = {it.subject: it for it in kept.sources}
    try:
        return tuple(of[subject] for subject in run_of(kept).subjects)
    except KeyError:
        raise ValueError("it names a vault of which it says nothing") from None


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
