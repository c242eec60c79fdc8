"""What happened to jobs, for those who follow them; and whose content is whose. One SQLite file, of which losing the end costs
only sight: the desk's own journal decides."""

import asyncio
import sqlite3
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec

from clusterai.gateway.core.jobstate import Note
from clusterai.protocol.ids import Digest
from clusterai.sdk.jobshapes import JobEvent

MOST_EVENTS = 100_000
"""Of a job; a program that prints more than that is cut off here, not stopped."""
MOST_LOG_BYTES = 64 * 1024 * 1024
"""Of a stream of a lease. A provider of ours keeps half of that."""

_SCHEMA = """
create table if not exists event (job blob, seq integer, body blob, primary key (job, seq)) without rowid;
create table if not exists logged (lease blob, stream text, bytes integer, primary key (lease, stream)) without rowid;
create table if not exists content (account blob, digest blob, primary key (account, digest)) without rowid;
"""


class Story:
    """Events of jobs by number, from 1; each number is told once and never changes."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for statement in ("pragma journal_mode=wal", "pragma synchronous=normal"):
            self._db.execute(statement)
        self._db.executescript(_SCHEMA)
        self._last: dict[Digest, int] = {}
        self._news: defaultdict[Digest, asyncio.Event] = defaultdict(asyncio.Event)

    def close(self) -> None:
        self._db.close()

    # --- events ---

    def tell(self, note: Note) -> int | None:
        """Append, and wake who follows. Log that was told before isn't told again, nor is any behind a gap.

        Returns:
            Where to ask for more of the log, if its writer has more.
        """
        seq = self.last(note.job) + 1
        if note.kind != "end" and seq > MOST_EVENTS:
            return None
        data = b""
        lacks = None
        if note.kind == "log":
            data, known = self._fresh(note)
            lacks = known if known < min(note.total, MOST_LOG_BYTES) else None
            if not data:
                return lacks
        event = JobEvent(
            seq=seq,
            at_s=int(time.time()),
            kind=note.kind,
            task=note.task,
            replica=note.replica,
            state=note.state,
            segment=note.segment,
            segments=note.segments,
            units=note.units,
            stream=note.stream,
            text=b64encode(data).decode() if note.kind == "log" else note.text,
        )
        self._db.execute("insert into event values (?, ?, ?)", (note.job, seq, msgspec.json.encode(event)))
        self._last[note.job] = seq
        self._news[note.job].set()
        del self._news[note.job]
        return lacks

    def _fresh(self, note: Note) -> tuple[bytes, int]:
        """What of a piece of log hasn't been told yet, and up to where it has been then."""
        known = self.logged(note.lease, note.stream)
        data = note.data[known - note.start :] if note.start <= known < MOST_LOG_BYTES else b""
        if data:
            known += len(data)
            self._db.execute(
                "insert or replace into logged values (?, ?, ?)", (note.lease, note.stream, known)
            )
        return data, known

    def logged(self, lease: Digest, stream: str) -> int:
        """How much of a stream has been told."""
        row = self._db.execute(
            "select bytes from logged where lease = ? and stream = ?", (lease, stream)
        ).fetchone()
        return row[0] if row else 0

    def last(self, job: Digest) -> int:
        if job not in self._last:
            row = self._db.execute("select max(seq) from event where job = ?", (job,)).fetchone()
            self._last[job] = row[0] or 0
        return self._last[job]

    def since(self, job: Digest, after: int, most: int = 500) -> list[tuple[int, bytes]]:
        """Numbers and JSON of what came after a number."""
        return self._db.execute(
            "select seq, body from event where job = ? and seq > ? order by seq limit ?", (job, after, most)
        ).fetchall()

    async def news(self, job: Digest) -> None:
        """Until something more is told of it."""
        await self._news[job].wait()

    def forget(self, job: Digest, leases: Iterable[Digest]) -> None:
        """Nobody will ask for it again."""
        self._db.execute("delete from event where job = ?", (job,))
        self._db.executemany("delete from logged where lease = ?", [(lease,) for lease in leases])
        self._last.pop(job, None)

    # --- content ---

    def own(self, account: Digest, digests: Iterable[Digest]) -> None:
        """These contents may be read, and used as inputs, by this account."""
        self._db.executemany("insert or ignore into content values (?, ?)", [(account, it) for it in digests])

    def owns(self, account: Digest, digest: Digest) -> bool:
        found = self._db.execute(
            "select 1 from content where account = ? and digest = ?", (account, digest)
        ).fetchone()
        return found is not None
