"""What people may look up later: receipts, what the chain said about them, and transcripts under lock.

A projection, never asked before money moves. Rows are written in batches off the request's path; the receipts of a batch
that a crash swallowed are still in the Meter's journal and are written again at the start. Transcripts are kept encrypted, under
a key per account derived from the gateway's own, until `keep_s` is over: enough to replay any audit.
"""

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from clusterai.gateway.core.moneystate import Charged, Refund
from clusterai.ledger.core import events
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.protocol.messages import Transcript

FLUSH_S = 0.2
MOST_PENDING = 20_000
"""Rows in memory; beyond, the newest transcripts are dropped (receipts are in the journal anyway)."""
MOST_RECENT = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (id BLOB PRIMARY KEY, account BLOB NOT NULL, provider BLOB NOT NULL,
    epoch INTEGER NOT NULL, at_s INTEGER NOT NULL, tag BLOB NOT NULL, refunded_wei INTEGER NOT NULL DEFAULT 0,
    record BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS receipts_by_account ON receipts (account, at_s);
CREATE INDEX IF NOT EXISTS receipts_by_tag ON receipts (tag) WHERE length(tag) > 0;
CREATE TABLE IF NOT EXISTS transcripts (id BLOB PRIMARY KEY, account BLOB NOT NULL, at_s INTEGER NOT NULL,
    sealed BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS transcripts_by_age ON transcripts (at_s);
CREATE TABLE IF NOT EXISTS epochs (provider BLOB NOT NULL, epoch INTEGER NOT NULL, state TEXT NOT NULL,
    detail TEXT NOT NULL, block INTEGER NOT NULL, PRIMARY KEY (provider, epoch));
CREATE TABLE IF NOT EXISTS happened (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, at_s INTEGER NOT NULL,
    block INTEGER NOT NULL, detail TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), block INTEGER NOT NULL);
"""

SHOWN = (
    events.Registered
    | events.Bonded
    | events.Slashed
    | events.Deposited
    | events.Claimed
    | events.Settled
    | events.Barred
    | events.Reclaimed
    | events.EpochCommitted
    | events.BeaconRecorded
    | events.Voted
    | events.Convicted
    | events.EpochCleared
    | events.Challenged
    | events.ChallengeAnswered
    | events.Equivocated
    | events.Funded
)
"""Chain events that an observer is shown."""


class Archive:
    """Rows of one gateway.

    Args:
        path: the SQLite file, readable by its owner alone.
        secret: 32 bytes that transcripts' keys are derived from.
        keep_s: age after which transcripts are deleted.
    """

    def __init__(self, path: Path, secret: bytes, keep_s: int = 7 * 24 * 3600) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(_SCHEMA)
        self._lock = threading.Lock()
        self._secret = secret
        self._keep_s = keep_s
        self._charges: list[tuple[Charged, Transcript | None]] = []
        self._refunds: list[Refund] = []
        self._blocks: list[tuple[int, int, list[Any]]] = []
        self._batch: list[Any] = []
        row = self._db.execute("SELECT block FROM place").fetchone()
        self._block = -1 if row is None else int(row[0])
        self.recent: deque[dict[str, Any]] = deque(maxlen=MOST_RECENT)
        """what just happened, for live views: `seq` rises without gaps within one process"""
        self._seq = 0
        self._news = asyncio.Event()

    # --- what comes in ---

    def charged(self, record: Charged, transcript: Transcript | None) -> None:
        if len(self._charges) >= MOST_PENDING:
            transcript = None
        self._charges.append((record, transcript))
        receipt = record.receipt
        self._tell(
            "receipt",
            {
                "id": hex0x(receipt.order),
                "provider": hex0x(receipt.provider),
                "input_units": receipt.input_units,
                "output_units": receipt.output_units,
                "price_wei": receipt.amount_wei,
                "epoch": receipt.epoch,
            },
        )

    def refunded(self, refund: Refund) -> None:
        self._refunds.append(refund)
        self._tell(
            "refund",
            {
                "id": hex0x(refund.order),
                "provider": hex0x(refund.provider),
                "account": hex0x(refund.account),
                "amount_wei": refund.amount_wei,
            },
        )

    def chain(self, event: Any) -> None:
        """A chain event; those of blocks that were read before are passed over."""
        match event:
            case events.Block(number, timestamp_s):
                batch, self._batch = self._batch, []
                if number > self._block:
                    self._block = number
                    if batch:
                        self._blocks.append((number, timestamp_s, batch))
                        for it in batch:
                            self._tell(type(it).__name__, _detail(it), number)
            case events.RolledBack():
                self._batch = []
            case _ if isinstance(event, SHOWN):
                self._batch.append(event)
            case _:
                pass

    def _tell(self, kind: str, detail: dict[str, Any], block: int | None = None) -> None:
        self._seq += 1
        self.recent.append(
            {"seq": self._seq, "kind": kind, "at_s": int(time.time()), "block": block, "detail": detail}
        )
        self._news.set()

    async def news(self) -> None:
        """Wait until something was told after this call."""
        self._news.clear()
        await self._news.wait()

    # --- writing ---

    async def flush_forever(self) -> None:
        """One of the daemon's TaskGroup."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                if self._charges or self._refunds or self._blocks:
                    await asyncio.to_thread(self.flush)
        finally:
            self.flush()

    def flush(self) -> None:
        """Write all that is pending, in one transaction. Any thread may call."""
        with self._lock:
            charges, self._charges = self._charges, []
            refunds, self._refunds = self._refunds, []
            blocks, self._blocks = self._blocks, []
            if not (charges or refunds or blocks):
                return
            sealed = [
                (it.receipt.order, it.account, it.at_s, self._seal(it, transcript))
                for it, transcript in charges
                if transcript is not None
            ]
            self._db.execute("BEGIN IMMEDIATE")
            self._insert([it for it, _ in charges])
            self._db.executemany("INSERT OR IGNORE INTO transcripts VALUES (?, ?, ?, ?)", sealed)
            self._db.executemany(
                "UPDATE receipts SET refunded_wei = ? WHERE id = ?",
                [(it.amount_wei, it.order) for it in refunds],
            )
            for number, timestamp_s, batch in blocks:
                self._write_block(number, timestamp_s, batch)
            self._db.execute("COMMIT")

    def recover(self, records: Iterable[Any], refunds: Iterable[Refund] = ()) -> None:
        """Write the receipts of a journal that aren't here yet."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._insert([it for it in records if isinstance(it, Charged)])
            self._db.executemany(
                "UPDATE receipts SET refunded_wei = ? WHERE id = ?",
                [(it.amount_wei, it.order) for it in refunds],
            )
            self._db.execute("COMMIT")

    def sweep(self) -> None:
        with self._lock:
            self._db.execute("DELETE FROM transcripts WHERE at_s < ?", (int(time.time()) - self._keep_s,))

    def close(self) -> None:
        self.flush()
        self._db.close()

    def _insert(self, charges: Sequence[Charged]) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO receipts (id, account, provider, epoch, at_s, tag, record) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    it.receipt.order,
                    it.account,
                    it.receipt.provider,
                    it.receipt.epoch,
                    it.at_s,
                    it.tag,
                    canonical.encode(it),
                )
                for it in charges
            ],
        )

    def _write_block(self, number: int, timestamp_s: int, batch: list[Any]) -> None:
        for event in batch:
            kind = str(type(event).__name__)
            detail = msgspec.json.encode(_detail(event)).decode()
            self._db.execute(
                "INSERT INTO happened (kind, at_s, block, detail) VALUES (?, ?, ?, ?)",
                (kind, timestamp_s, number, detail),
            )
            state = _STATES.get(kind)
            if state is not None:
                self._db.execute(
                    "INSERT INTO epochs VALUES (?, ?, ?, ?, ?) ON CONFLICT (provider, epoch) DO UPDATE SET"
                    " state = excluded.state, detail = excluded.detail, block = excluded.block",
                    (event.provider, event.epoch, state, detail, number),
                )
        self._db.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (number,))

    # --- transcripts ---

    def _key(self, account: bytes) -> bytes:
        return blake3(self._secret + account, derive_key_context="clusterai transcript key 1").digest()

    def _seal(self, record: Charged, transcript: Transcript) -> bytes:
        nonce = os.urandom(12)
        return nonce + AESGCM(self._key(record.account)).encrypt(
            nonce, canonical.encode(transcript), record.receipt.order
        )

    def transcript(self, order: Digest, account: Digest) -> Transcript | None:
        """The account's own transcript of a receipt, while it is kept."""
        self.flush()
        with self._lock:
            row = self._db.execute(
                "SELECT sealed FROM transcripts WHERE id = ? AND account = ?", (order, account)
            ).fetchone()
        if row is None:
            return None
        try:
            plain = AESGCM(self._key(account)).decrypt(row[0][:12], row[0][12:], order)
        except InvalidTag:
            return None  # the secret was replaced: what was sealed under the old one is gone
        return canonical.decode(plain, Transcript)

    # --- reading ---

    def receipt(self, order: Digest) -> tuple[Charged, int] | None:
        """A receipt and what was refunded of it."""
        rows = self._rows("SELECT record, refunded_wei FROM receipts WHERE id = ?", (order,))
        return (_charged(rows[0][0]), int(rows[0][1])) if rows else None

    def receipts(
        self, account: Digest, limit: int, before_s: int | None = None, provider: Address | None = None
    ) -> list[tuple[Charged, int]]:
        """Newest first."""
        rows = self._rows(
            "SELECT record, refunded_wei FROM receipts WHERE account = ? AND (? IS NULL OR at_s < ?)"
            " AND (? IS NULL OR provider = ?) ORDER BY at_s DESC, rowid DESC LIMIT ?",
            (account, before_s, before_s, provider, provider, limit),
        )
        return [(_charged(record), int(refunded)) for record, refunded in rows]

    def charged_by(self, tag: bytes) -> str | None:
        """The id of a receipt of the request that the desk named so, if its account pays for it."""
        rows = self._rows("SELECT id FROM receipts WHERE tag = ? AND refunded_wei = 0 LIMIT 1", (tag,))
        return hex0x(rows[0][0]) if rows else None

    def count(self, tag: bytes) -> int:
        """How many receipts were kept under this tag."""
        return int(
            self._rows("SELECT count(*) FROM receipts WHERE tag = ? AND length(tag) > 0", (tag,))[0][0]
        )

    def tagged(self, tag: bytes) -> list[Charged]:
        """The receipts that were kept under this tag."""
        found = self._rows("SELECT record FROM receipts WHERE tag = ? AND length(tag) > 0", (tag,))
        return [_charged(record) for (record,) in found]

    def epoch(self, provider: bytes, epoch: int) -> dict[str, Any] | None:
        """What the chain says of a provider's epoch: state committed, cleared, or convicted."""
        rows = self._rows(
            "SELECT state, detail, block FROM epochs WHERE provider = ? AND epoch = ?", (provider, epoch)
        )
        if not rows:
            return None
        return {"state": rows[0][0], "block": rows[0][2], "detail": msgspec.json.decode(rows[0][1])}

    def epochs(self, limit: int) -> list[dict[str, Any]]:
        """Newest first."""
        rows = self._rows(
            "SELECT provider, epoch, state, block, detail FROM epochs ORDER BY epoch DESC, block DESC LIMIT ?",
            (limit,),
        )
        return [
            {
                "provider": hex0x(row[0]),
                "epoch": row[1],
                "state": row[2],
                "block": row[3],
                "detail": msgspec.json.decode(row[4]),
            }
            for row in rows
        ]

    def happened(self, kinds: Sequence[str], limit: int) -> list[dict[str, Any]]:
        """Chain events, newest first; of all kinds when none is named."""
        marks = ",".join("?" * len(kinds))
        where = f"WHERE kind IN ({marks})" if kinds else ""
        rows = self._rows(
            f"SELECT seq, kind, at_s, block, detail FROM happened {where} ORDER BY seq DESC LIMIT ?",  # noqa: S608
            (*kinds, limit),
        )
        return [
            {
                "seq": row[0],
                "kind": row[1],
                "at_s": row[2],
                "block": row[3],
                "detail": msgspec.json.decode(row[4]),
            }
            for row in rows
        ]

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        self.flush()
        with self._lock:
            return self._db.execute(query, values).fetchall()


_charged = msgspec.msgpack.Decoder(Charged).decode
"""Our own rows, perhaps written before a field was added: not held to the canonical form of today."""
_STATES = {"EpochCommitted": "committed", "EpochCleared": "cleared", "Convicted": "convicted"}


def _detail(event: Any) -> dict[str, Any]:
    """An event's fields as JSON has them."""
    return {
        name: hex0x(value[:256]) if isinstance(value, bytes) else value
        for name, value in msgspec.structs.asdict(event).items()
    }
