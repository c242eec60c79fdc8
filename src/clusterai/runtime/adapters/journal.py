"""A journal in SQLite's write-ahead log.

`synchronous=NORMAL` survives the death of the process at any instruction (the pages are the kernel's by then);
`FULL` also survives the loss of power, for 1-5 ms a commit. Daemons that sign for money of others choose FULL.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal


class JournalLost(Exception):
    """{why}: what was decided can't be written down, so this process ends; started again with room on its disk, it goes on from
    what it had written."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}: what was decided can't be written down, so this process ends; "
            "started again with room on its disk, it goes on from what it had written"
        )


class SqliteJournal:
    """One table of records in one file, one writer.

    Raises:
        JournalLost: it can't be written; from then on nothing is.
    """

    def __init__(self, path: Path, synchronous: Literal["NORMAL", "FULL"] = "NORMAL") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={synchronous}")
        self._db.execute("CREATE TABLE IF NOT EXISTS journal (seq INTEGER PRIMARY KEY, record BLOB NOT NULL)")
        self._lost = ""
        self.appended = self._db.execute("SELECT count(*) FROM journal").fetchone()[0]

    def append(self, records: Sequence[bytes]) -> None:
        # The machine is ahead of a journal that failed once: records behind a gap would be of a history that never was.
        if self._lost:
            raise JournalLost(self._lost)
        try:
            if len(records) == 1:
                # A statement alone is a transaction of its own, in a third of the calls.
                self._db.execute("INSERT INTO journal (record) VALUES (?)", (records[0],))
            else:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(
                    "INSERT INTO journal (record) VALUES (?)", [(record,) for record in records]
                )
                self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._lost = str(error)
            raise JournalLost(self._lost) from None
        self.appended += len(records)

    def sync(self) -> None:
        """From here on, what was appended survives the loss of power too, also with NORMAL."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def load(self) -> list[bytes]:
        return [row[0] for row in self._db.execute("SELECT record FROM journal ORDER BY seq")]

    def replace(self, records: Sequence[bytes]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("DELETE FROM journal")
        self._db.executemany("INSERT INTO journal (record) VALUES (?)", [(record,) for record in records])
        self._db.execute("COMMIT")
        self.appended = len(records)

    def close(self) -> None:
        self._db.close()
