"""A vault's folder: what its owner edits, what is sealed, and how commands reach the process that serves it.

    DIR/vault.json      name, which file holds the master key, where the pieces lie
    DIR/README.md       data card: Hugging Face's keys, then words          edited by the owner
    DIR/schema.json     columns                                             edited before the data is put in
    DIR/policy.toml     who may do what, for how much                       edited by the owner
    DIR/mock.csv        the mock twin
    DIR/croissant.json  the card for machines
    DIR/store/          the data, encrypted; only the wrapped keys, where its pieces lie at a URL
    DIR/state/          the journal, encrypted
    DIR/desk/           commands of the owner, and what came of them
    DIR/held/           what programs left for review, encrypted, until the owner has read it

The master key lies outside of the folder: a copy of the folder alone shows nothing but what is published. It is a key file as all others: with a password
(`CLUSTERAI_KEY_PASSWORD`) it is a keystore, and the whole disk shows nothing.

Commands are files, and not a socket: one that was written while nobody served the vault is carried out when somebody does, the folder's permissions are
all the protection it needs, and a command of one name is carried out once, because the book's own steps are idempotent. Reading asks nobody: it
replays the journal.
"""

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import msgspec
from blake3 import blake3
from msgspec import Meta
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from clusterai.ledger.adapters.network import BadKeyFile, load_key
from clusterai.runtime.adapters import filelock
from clusterai.runtime.adapters.config import PASSWORD
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.vault.core.policy import BadPolicy, Policy, read_policy
from clusterai.vault.core.schema import BadSchema, Schema, read_schema

PATIENCE_S = 3.0
"""For whoever only looks whether the vault is served."""
INNER = ".vault"
"""Where a vault lies that was made of the very folder its data lies in."""
MOST_COMMAND_BYTES = 16 * 1024


PLACE = r"\A[^@?#]*\Z"
"""No part of a URL that may hold a password: it would stand in logs."""


class NoVault(LookupError):
    """There is no vault in {folder}: clusterai vault init {folder} --from FILE."""


class BadVault(ValueError):
    """The vault in {folder} can't be opened: {why}."""


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`vault.json`.

    Attributes:
        store: URL at which the encrypted pieces lie (`piecestore`); empty: in the folder.
    """

    name: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")]
    key: str
    store: Annotated[str, Meta(max_length=1_024, pattern=PLACE)] = ""
    format: Literal[1] = 1


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an owner wants. `target` is the request's, the grant's or the order's id in hex."""

    act: Literal["approve", "deny", "revoke", "release", "withhold"]
    target: Annotated[str, Meta(pattern=r"\A(0x)?[0-9a-f]{64}\Z")]
    note: Annotated[str, Meta(max_length=2_000)] = ""
    reason: Annotated[int, Meta(ge=0, le=255)] = 0


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What came of it: `state` of the request now, or why not."""

    ok: bool
    state: str = ""
    code: str = ""
    detail: str = ""


class VaultFolder:
    """Where a vault lies."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            NoVault, BadVault.
        """
        folder = folder.expanduser().resolve()
        self.root = folder / INNER if (folder / INNER / "vault.json").exists() else folder
        self.settings = self.root / "vault.json"
        self.readme = self.root / "README.md"
        self.schema_file = self.root / "schema.json"
        self.policy_file = self.root / "policy.toml"
        self.mock = self.root / "mock.csv"
        self.croissant = self.root / "croissant.json"
        self.store = self.root / "store"
        self.state = self.root / "state"
        self.journal_file = self.state / "journal.sqlite"
        self.desk = self.root / "desk"
        self.held = self.root / "held"
        self.lock = self.root / "served.lock"
        try:
            self.named = msgspec.json.decode(self.settings.read_bytes(), type=Named)
        except FileNotFoundError:
            raise NoVault(
                f"there is no vault in {folder}: clusterai vault init {folder} --from FILE"
            ) from None
        except (OSError, msgspec.MsgspecError) as error:
            raise BadVault(f"{self.settings} can't be read: {error}") from None

    @property
    def key_file(self) -> Path:
        return (self.root / Path(self.named.key).expanduser()).resolve()

    def master(self) -> bytes:
        """
        Raises:
            BadVault: the key's file can't be read.
        """
        try:
            return load_key(self.key_file, os.environ.get(PASSWORD)).secret()
        except BadKeyFile as error:
            raise BadVault(f"the vault's key can't be read: {error}") from None

    def schema(self) -> Schema:
        """
        Raises:
            BadVault.
        """
        try:
            return read_schema(self.schema_file.read_bytes())
        except (OSError, BadSchema) as error:
            raise BadVault(f"{self.schema_file} can't be used: {error}") from None

    def policy(self) -> Policy:
        """
        Raises:
            BadVault.
        """
        try:
            return read_policy(self.policy_file.read_bytes())
        except (OSError, BadPolicy) as error:
            raise BadVault(f"{self.policy_file} can't be used: {error}") from None

    def journal(self, master: bytes) -> "SealedJournal":
        return SealedJournal(self.journal_file, master)

    def serve(self) -> IO[bytes]:
        """Hold the vault, until what is returned is closed or the process dies: one process writes its journal.

        Raises:
            BadVault: another process serves it.
        """
        file = self.lock.open("ab")
        if not filelock.hold(file, PATIENCE_S):
            file.close()
            raise BadVault(f"another process serves the vault in {self.root}: end that one first")
        return file

    def is_served(self) -> bool:
        try:
            with self.lock.open("rb") as file:
                return not filelock.is_free(file)
        except FileNotFoundError:
            return False
        except OSError:
            return True

    # --- the desk ---

    def order(self, command: Command) -> str:
        """Leave a command for whoever serves the vault; its name."""
        self.desk.mkdir(exist_ok=True, mode=0o700)
        name = secrets.token_hex(8)
        write_aside(self.desk / f"{name}.json", msgspec.json.encode(command))
        return name

    def outcome(self, name: str) -> Outcome | None:
        """What came of it; None as long as nobody has carried it out."""
        try:
            return msgspec.json.decode((self.desk / f"{name}.done").read_bytes(), type=Outcome)
        except (OSError, msgspec.MsgspecError):
            return None

    def take_back(self, name: str) -> None:
        (self.desk / f"{name}.done").unlink(missing_ok=True)

    def commands(self) -> list[tuple[str, Command | None]]:
        """Those that wait, oldest first; None for one that can't be read."""
        found: list[tuple[str, Command | None]] = []
        with contextlib.suppress(FileNotFoundError):
            waiting = sorted(self.desk.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
            for path in waiting:
                command = None
                with contextlib.suppress(OSError, msgspec.MsgspecError):
                    if path.stat().st_size <= MOST_COMMAND_BYTES:
                        command = msgspec.json.decode(path.read_bytes(), type=Command)
                found.append((path.stem, command))
        return found

    def answer(self, name: str, outcome: Outcome) -> None:
        write_aside(self.desk / f"{name}.done", msgspec.json.encode(outcome))
        (self.desk / f"{name}.json").unlink(missing_ok=True)


class SealedJournal(SqliteJournal):
    """A journal whose records are encrypted: who asked for what is nobody's business who gets the disk."""

    def __init__(self, path: Path, master: bytes) -> None:
        super().__init__(path, "FULL")
        self._box = _journal_box(master)

    def append(self, records: Sequence[bytes]) -> None:
        super().append([bytes(self._box.encrypt(record)) for record in records])

    def load(self) -> list[bytes]:
        """
        Raises:
            BadVault: it is under another key, or was changed.
        """
        return _opened(self._box, super().load())

    def replace(self, records: Sequence[bytes]) -> None:
        super().replace([bytes(self._box.encrypt(record)) for record in records])


def read_records(path: Path, master: bytes) -> list[bytes]:
    """A journal's records, read beside the process that writes it.

    Raises:
        BadVault.
    """
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = [row[0] for row in db.execute("select record from journal order by seq")]
    return _opened(_journal_box(master), rows)


def _journal_box(master: bytes) -> SecretBox:
    return SecretBox(blake3(master, derive_key_context="clusterai vault journal 1").digest())


def _opened(box: SecretBox, sealed: Sequence[bytes]) -> list[bytes]:
    try:
        return [box.decrypt(record) for record in sealed]
    except CryptoError:
        raise BadVault("the vault's journal is under another key, or was changed") from None


def write_aside(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Whole or not at all, and durable."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def as_json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
