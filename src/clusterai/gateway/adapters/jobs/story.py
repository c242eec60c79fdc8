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

_SCHEMA = """
create table if not exists event (job blob, seq integer, body blob, primary key (job, seq)) without rowid;
create table if not exists printed (job blob, stream text, task integer, replica integer, bytes integer,
                                    primary key (job, stream, task, replica)) without rowid;
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

    def tell(self, note: Note) -> None:
        """Append, and wake who follows. Log that was told before (a link came back) isn't told again."""
        seq = self.last(note.job) + 1
        if note.kind != "end" and seq > MOST_EVENTS:
            return
        data = self._fresh(note)
        if note.kind == "log" and not data:
            return
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
            text=b64encode(data).decode() if note.kind == "log" else "",
        )
        self._db.execute("insert into event values (?, ?, ?)", (note.job, seq, msgspec.json.encode(event)))
        self._last[note.job] = seq
        self._news[note.job].set()
        del self._news[note.job]

    def _fresh(self, note: Note) -> bytes:
        """What of a piece of log hasn't been told yet."""
        if note.kind != "log":
            return b""
        key = (note.job, note.stream, note.task, note.replica)
        row = self._db.execute(
            "select bytes from printed where job = ? and stream = ? and task = ? and replica = ?", key
        ).fetchone()
        known = row[0] if row else 0
        data = note.data[max(0, known - note.start) :] if note.start <= known else note.data
        if known >= MOST_LOG_BYTES:
            return b""
        until = max(known, note.start + len(note.data))
        self._db.execute("insert or replace into printed values (?, ?, ?, ?, ?)", (*key, until))
        return data

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

    # --- content ---

    def own(self, account: Digest, digests: Iterable[Digest]) -> None:
        """These contents may be read, and used as inputs, by this account."""
        self._db.executemany("insert or ignore into content values (?, ?)", [(account, it) for it in digests])

    def owns(self, account: Digest, digest: Digest) -> bool:
        found = self._db.execute(
            "select 1 from content where account = ? and digest = ?", (account, digest)
        ).fetchone()
        return found is not None
