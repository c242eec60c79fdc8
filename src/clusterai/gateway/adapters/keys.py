"""API keys and the accounts they spend from, in the gateway's SQLite.

A key is shown once, when it is made; the table holds its BLAKE3. (Keys are 32 random bytes: nothing slow is
needed to protect their hashes.) Several processes may write: `clusterai up` makes the first key of a local network
before the gateway runs, so a running gateway looks again for keys that it doesn't know, and forgets what it knows
after some seconds.
"""

import base64
import secrets
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
from blake3 import blake3

from clusterai.gateway.core.limits import Limits, Usage
from clusterai.protocol.ids import Digest

PREFIX = "sk-clusterai-"
SCOPES = ("inference", "read")
"""`inference` spends; `read` sees the account, its receipts and transcripts."""
REMEMBER_S = 5.0
MOST_REMEMBERED = 100_000


class ApiKey(msgspec.Struct, frozen=True):
    """What a key may do. `id` names it in logs and lists; it isn't secret."""

    id: str
    account: Digest
    name: str
    scopes: tuple[str, ...]
    limits: Limits
    created_s: int


class KeyRing:
    """Keys of one gateway.

    Args:
        path: the SQLite file; made if it isn't there, readable by its owner alone.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS keys (hash BLOB PRIMARY KEY, id TEXT NOT NULL UNIQUE, account BLOB NOT NULL,"
            " name TEXT NOT NULL, scopes TEXT NOT NULL, limits BLOB NOT NULL, created_s INTEGER NOT NULL,"
            " revoked_s INTEGER)"
        )
        self._known: dict[str, tuple[float, ApiKey]] = {}
        self._usage: dict[str, Usage] = {}

    def create(
        self,
        name: str,
        account: Digest | None = None,
        scopes: Iterable[str] = SCOPES,
        limits: Limits | None = None,
    ) -> tuple[str, ApiKey]:
        """A new key, and with it a new account unless one is given. The key itself is never seen again.

        Raises:
            ValueError: an unknown scope.
        """
        wanted = tuple(scopes)
        if unknown := set(wanted) - set(SCOPES):
            raise ValueError(f"unknown scope {min(unknown)!r}; there are {', '.join(SCOPES)}")
        secret = PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        key = ApiKey(
            "key_" + secrets.token_hex(8),
            account or Digest(secrets.token_bytes(32)),
            name[:100],
            wanted,
            limits or Limits(),
            int(time.time()),
        )
        self._db.execute(
            "INSERT INTO keys (hash, id, account, name, scopes, limits, created_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                _hash(secret),
                key.id,
                key.account,
                key.name,
                ",".join(key.scopes),
                msgspec.json.encode(key.limits),
                key.created_s,
            ),
        )
        return secret, key

    def find(self, secret: str) -> ApiKey | None:
        """The key, unless it is unknown or revoked."""
        known = self._known.get(secret)
        now_s = time.monotonic()
        if known is not None and now_s < known[0]:
            return known[1]
        row = self._db.execute(
            "SELECT id, account, name, scopes, limits, created_s FROM keys WHERE hash = ? AND revoked_s IS NULL",
            (_hash(secret),),
        ).fetchone()
        if row is None:
            self._known.pop(secret, None)
            return None
        key = _key(row)
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[secret] = (now_s + REMEMBER_S, key)
        return key

    def usage(self, key: ApiKey) -> Usage:
        """The key's buckets; they begin full after a restart."""
        usage = self._usage.get(key.id)
        if usage is None or usage.limits != key.limits:
            usage = self._usage[key.id] = Usage(key.limits)
        return usage

    def revoke(self, key_id: str) -> bool:
        """Whether there was such a key. Running gateways refuse it within seconds."""
        self._known.clear()
        changed = self._db.execute(
            "UPDATE keys SET revoked_s = ? WHERE id = ? AND revoked_s IS NULL", (int(time.time()), key_id)
        )
        return changed.rowcount > 0

    def all(self, account: Digest | None = None) -> list[ApiKey]:
        """Keys that may be used, of one account or of all, oldest first."""
        rows = self._db.execute(
            "SELECT id, account, name, scopes, limits, created_s FROM keys"
            " WHERE revoked_s IS NULL AND (? IS NULL OR account = ?) ORDER BY created_s, id",
            (account, account),
        )
        return [_key(row) for row in rows]

    def close(self) -> None:
        self._db.close()


def _key(row: tuple[str, bytes, str, str, bytes, int]) -> ApiKey:
    limits = msgspec.json.decode(row[4], type=Limits)
    return ApiKey(row[0], Digest(row[1]), row[2], tuple(filter(None, row[3].split(","))), limits, row[5])


def _hash(secret: str) -> bytes:
    return blake3(secret.encode("utf-8", "surrogateescape")).digest()
