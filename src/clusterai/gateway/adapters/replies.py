"""Idempotency-Key: a request that is sent again gets the first answer again, also after a restart, and pays once.

    new ──> running ──> kept (status, headers, body)
              │ asked again: 409            │ asked again with the same body: the same answer; with another: 422
              └ the process died: `lost` if it was charged (the answer is gone, the receipt isn't), else new

Only answers that did something are kept: who was refused may try again with the same key.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from clusterai.gateway.core.faults import Fault
from clusterai.protocol.canonical import content_digest
from clusterai.protocol.ids import Digest

KEEP_S = 24 * 3600
MOST_REPLY = 8 * 1024 * 1024
MOST_KEY = 255

Header = tuple[bytes, bytes]
Charged = Callable[[Digest], str | None]
"""A request's name to the id of a receipt that it was charged by, if it was."""


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: list[Header]
    body: bytes


class Replies:
    """The kept answers of one gateway."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS replies (name BLOB PRIMARY KEY, body BLOB NOT NULL, at_s INTEGER NOT NULL,"
            " reply BLOB)"
        )
        self._running: set[bytes] = set()

    def begin(self, account: Digest, key: str, body: bytes, charged: Charged) -> tuple[Digest, Reply | None]:
        """Claim the key for this request, or get the answer that it already has.

        Args:
            charged: whether a request of that name was charged before; asked for those that a crash left running.

        Raises:
            Fault: 400 an unusable key, 409 it runs now or its answer was lost, 422 another body.
        """
        if not 0 < len(key) <= MOST_KEY:
            raise Fault(
                400,
                "invalid_request_error",
                "invalid_idempotency_key",
                f"Idempotency-Key: 1 to {MOST_KEY} characters",
            )
        name = self.name_of(account, key)
        digest = content_digest(body)
        if name in self._running:
            raise Fault(
                409,
                "invalid_request_error",
                "idempotency_key_in_use",
                "a request with this Idempotency-Key runs now: wait for its answer",
                retry_after_s=1.0,
            )
        row = self._db.execute("SELECT body, reply FROM replies WHERE name = ?", (name,)).fetchone()
        if row is not None:
            if row[0] != digest:
                raise Fault(
                    422,
                    "invalid_request_error",
                    "idempotency_key_reused",
                    "this Idempotency-Key was used with another body: use a new key for a new request",
                )
            if row[1] is not None:
                return name, msgspec.msgpack.decode(row[1], type=Reply)
            if (receipt := charged(name)) is not None:
                raise Fault(
                    409,
                    "invalid_request_error",
                    "answer_lost",
                    f"this request was answered and charged, then the gateway restarted; its receipt is {receipt}",
                    retry=False,
                )
        self._db.execute(
            "INSERT OR REPLACE INTO replies (name, body, at_s, reply) VALUES (?, ?, ?, NULL)",
            (name, digest, int(time.time())),
        )
        self._running.add(name)
        return name, None

    @staticmethod
    def name_of(account: Digest, key: str) -> Digest:
        """What a request is remembered by, and its charge tagged with."""
        return content_digest(account + key.encode("utf-8", "surrogateescape"))

    def keep(self, name: Digest, reply: Reply) -> None:
        self._running.discard(name)
        if len(reply.body) <= MOST_REPLY:
            self._db.execute(
                "UPDATE replies SET reply = ? WHERE name = ?", (msgspec.msgpack.encode(reply), name)
            )

    def forget(self, name: Digest) -> None:
        """It came to nothing: the key is free again."""
        self._running.discard(name)
        self._db.execute("DELETE FROM replies WHERE name = ? AND reply IS NULL", (name,))

    def sweep(self) -> None:
        """Drop what is older than a day; called now and then."""
        self._db.execute("DELETE FROM replies WHERE at_s < ?", (int(time.time()) - KEEP_S,))

    def close(self) -> None:
        self._db.close()
