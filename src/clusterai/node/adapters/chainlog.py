"""What the chain has told so far, on disk: a node that restarts while the chain is away still knows who is who.

The lease book's view of the chain isn't journaled; it is made anew from the chain's events at every start. This file
replays them in milliseconds, each at the time when it was heard (so that the chain's clock goes on from there), and the
follower goes on where it ended.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from clusterai.ledger.adapters.follower import Cursor
from clusterai.ledger.core.events import Block, Event
from clusterai.protocol.ids import Digest

_SCHEMA = """
create table if not exists meta (name text primary key, value blob not null) without rowid;
create table if not exists batch (seq integer primary key, at_s real not null, events blob not null);
"""


class OtherNetwork(ValueError):
    """{path} belongs to another network. Use another data folder for this one."""


class ChainLog:
    """Batches of events as the follower delivered them, and its cursor behind the last."""

    def __init__(self, path: Path, genesis: Digest) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._encoder = msgspec.msgpack.Encoder()
        self._events: msgspec.msgpack.Decoder[list[Event]] = msgspec.msgpack.Decoder(list[Event])
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        # The chain still knows what a power cut takes away here.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._last_is_bare = False
        self._db.execute("insert or ignore into meta values ('genesis', ?)", (genesis,))
        if self._db.execute("select value from meta where name = 'genesis'").fetchone()[0] != genesis:
            self._db.close()
            raise OtherNetwork(f"{path} belongs to another network: use another data folder for this one")

    def events(self) -> Iterator[tuple[float, Event]]:
        """(when it was heard, event), in order."""
        for at_s, batch in self._db.execute("select at_s, events from batch order by seq"):
            for event in self._events.decode(batch):
                yield at_s, event

    def cursor(self) -> Cursor | None:
        row = self._db.execute("select value from meta where name = 'cursor'").fetchone()
        return None if row is None else msgspec.msgpack.decode(row[0], type=Cursor)

    def append(self, events: Sequence[Event], cursor: Cursor, at_s: float) -> None:
        """Write down a batch. Blocks without events replace each other: a year of them would else be 16 million rows."""
        bare = all(isinstance(event, Block) for event in events)
        self._db.execute("begin immediate")
        if bare and self._last_is_bare:
            self._db.execute("delete from batch where seq = (select max(seq) from batch)")
        self._last_is_bare = bare
        batch = self._encoder.encode(list(events))
        self._db.execute("insert into batch (at_s, events) values (?, ?)", (at_s, batch))
        self._db.execute("insert or replace into meta values ('cursor', ?)", (self._encoder.encode(cursor),))
        self._db.execute("commit")

    def forget(self) -> None:
        """Start over: the chain rolled back further than can be undone."""
        self._db.execute("begin immediate")
        self._db.execute("delete from batch")
        self._db.execute("delete from meta where name = 'cursor'")
        self._db.execute("commit")

    def close(self) -> None:
        self._db.close()
