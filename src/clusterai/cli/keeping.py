"""The owner's side of a vault: making one, looking at its book, leaving commands at its desk."""

import os
import time
from pathlib import Path
from typing import IO, NoReturn

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.ledger.adapters.network import BadKeyFile
from clusterai.protocol.canonical import decode
from clusterai.protocol.ids import hex0x
from clusterai.protocol.money import BadAmount, parse
from clusterai.protocol.vaults import Listing, Operation, Revoked
from clusterai.runtime.adapters.config import PASSWORD
from clusterai.vault.adapters import founding, importing
from clusterai.vault.adapters.anonymising import AnonymiserGone
from clusterai.vault.adapters.bookkeeping import read_book
from clusterai.vault.adapters.folder import INNER, BadVault, Command, NoVault, Outcome, VaultFolder
from clusterai.vault.adapters.importing import BadData, Found
from clusterai.vault.adapters.outputs import Outputs
from clusterai.vault.adapters.piecestore import StoreFault, place_in
from clusterai.vault.adapters.reviewing import release_of
from clusterai.vault.adapters.storage import Damaged, NoData, Storage, WrongKey
from clusterai.vault.core.book import VaultBook
from clusterai.vault.core.cleaning import marked
from clusterai.vault.core.disclosure import Finding
from clusterai.vault.core.policy import BadPolicy, Policy, anonymising, read_policy
from clusterai.vault.core.schema import BadSchema, Schema, read_schema
from clusterai.vault.core.terms import Entry

ANSWERED_S = 15.0
POLL_S = 0.05


class Wish(msgspec.Struct, frozen=True):
    """What `clusterai vault init` was told."""

    folder: Path
    source: Path | None
    name: str | None
    schema: Path | None
    policy: Path | None
    unit: str | None
    unit_rows: int
    key: Path | None
    anonymise: str = ""
    price: str | None = None
    epsilon_price: str | None = None
    free: bool = False
    store: str | None = None


class Plan(msgspec.Struct, frozen=True):
    """What would be made. `notes`: what its owner should know of how columns were taken."""

    root: Path
    name: str
    key: Path
    schema: Schema
    policy: Policy
    data: Found
    notes: tuple[str, ...] = ()
    store: str = ""


class Row(msgspec.Struct, frozen=True):
    """A request as people and programs are shown it."""

    request: str
    grant: str | None
    state: str
    requester: str
    operation: str
    epsilon: float
    spent_epsilon: float
    uses: int
    used: int
    price_wei: int
    expires_s: int
    asked_s: int
    automatic: bool
    code: str | None
    code_bytes: int
    purpose: str
    note: str


class Used(msgspec.Struct, frozen=True):
    """A use as people and programs are shown it; `index` is None while it is open."""

    index: int | None
    order: str
    grant: str
    requester: str
    epsilon: float
    delta: float
    at_s: int
    result: str | None
    price_wei: int


def default_keys() -> Path:
    from platformdirs import user_config_path

    return Path(os.environ.get("CLUSTERAI_VAULT_KEYS") or user_config_path("clusterai") / "vaults")


def plan(wish: Wish) -> Plan:
    """
    Raises:
        Failure: there is a vault already, or the data, the schema or the policy can't be used.
    """
    given = wish.folder.expanduser().resolve()
    source = (wish.source or given).expanduser().resolve()
    # Where the folder itself holds the data, the vault lies inside of it, out of the data's way.
    root = given / INNER if source == given else given
    if (root / "vault.json").exists():
        raise Failure(f"there is a vault in {root} already", next=f"clusterai vault show {given}")
    if source == given and not given.is_dir():
        raise Failure(
            f"there is no data in {given}",
            next=f"clusterai vault init {wish.folder} --from FILE.csv",
            code=Exit.NOT_FOUND,
        )
    name = wish.name or _plain(given.name)
    try:
        data = importing.find(source)
        notes: list[str] = []
        schema = (
            importing.guess(data, notes.append)
            if wish.schema is None
            else read_schema(wish.schema.expanduser().read_bytes())
        )
        if wish.unit is not None:
            schema = msgspec.structs.replace(schema, unit=wish.unit, unit_rows=wish.unit_rows)
            schema.check()
        policy = _priced(wish) if wish.policy is None else read_policy(wish.policy.expanduser().read_bytes())
        if wish.anonymise:
            policy = anonymising(policy, wish.anonymise)
        schema = marked(schema, policy)
    except BadData as error:
        raise Failure("the data can't be used", str(error), "correct it, then the same again") from None
    except BadSchema as error:
        raise Failure(
            "the schema can't be used", str(error), "correct it, then the same again", Exit.USAGE
        ) from None
    except BadPolicy as error:
        raise Failure(
            "the policy can't be used", str(error), "correct it, then the same again", Exit.USAGE
        ) from None
    except OSError as error:
        raise Failure(f"{error.filename} can't be read", error.strerror or "", code=Exit.NOT_FOUND) from None
    half = founding.begun(root)
    key = wish.key or (default_keys() / founding.new_key_name() if half is None else Path(half.key))
    store = _placed(wish.store or "", name)
    if store and policy.residency:
        notes.append(
            f"the policy keeps the rows in {', '.join(policy.residency)}: nobody but you knows where {store} stands"
        )
    return Plan(root, name, key.expanduser().resolve(), schema, policy, data, tuple(notes), store)


def _placed(url: str, name: str) -> str:
    """
    Raises:
        Failure: it is no place that keeps anything.
    """
    if not url:
        return ""
    try:
        place_in(url, name)
    except StoreFault as error:
        raise Failure("the pieces can't lie there", str(error), code=Exit.USAGE) from None
    if url.startswith("memory:"):
        raise Failure(
            "the pieces can't lie there",
            "memory is gone when this command ends",
            "name a bucket or a folder",
            Exit.USAGE,
        )
    return url


def _priced(wish: Wish) -> Policy:
    """The usual policy, with the price that its owner named.

    Raises:
        Failure: none was named, and free wasn't said either: nobody gives data away by forgetting a number.
    """
    if wish.free == (wish.price is not None or wish.epsilon_price is not None):
        raise Failure(
            "say what a use costs, or that it costs nothing",
            "both were said" if wish.free else "a policy without a price gives everything away",
            "--price AMOUNT, --epsilon-price AMOUNT, or --free; or --policy FILE",
            Exit.USAGE,
        )
    try:
        use_wei, epsilon_wei = parse(wish.price or "0"), parse(wish.epsilon_price or "0")
    except BadAmount as error:
        raise Failure("the price can't be used", str(error), code=Exit.USAGE) from None
    return Policy(use_wei=use_wei, milli_epsilon_wei=-(-epsilon_wei // 1_000))


def _plain(text: str) -> str:
    kept = "".join(it if it.isascii() and (it.isalnum() or it in "._-") else "-" for it in text.lower())
    return kept.strip("._-")[:64] or "vault"


def made(it: Plan) -> VaultFolder:
    """
    Raises:
        Failure: as `plan`, or the key can't be used.
    """
    try:
        return founding.found_vault(
            it.root,
            it.name,
            it.key,
            it.schema,
            it.data,
            it.policy,
            password=os.environ.get(PASSWORD),
            store=it.store,
        )
    except StoreFault as error:
        raise Failure("the pieces can't lie there", str(error), "correct it, then the same again") from None
    except (BadData, BadVault) as error:
        raise Failure("the vault can't be made", str(error)) from None
    except WrongKey as error:
        raise Failure("there is half a vault already", str(error), f"rm -r {it.root}/store") from None
    except AnonymiserGone as error:
        raise Failure(
            "the texts can't be anonymised", str(error), "python scripts/install.py peers anonymise"
        ) from None
    except BadKeyFile as error:
        raise Failure("the vault's key can't be used", str(error), "name another --key") from None


def moved(folder: VaultFolder, url: str) -> VaultFolder:
    """Move the pieces to a URL, or back into the folder where it is empty.

    Raises:
        Failure: it is served, or one of the two places can't be used.
    """
    _placed(url, folder.named.name)
    with _unserved(folder):
        try:
            return founding.move_pieces(folder, url)
        except (BadVault, WrongKey, NoData, Damaged) as error:
            raise Failure("the pieces can't be moved", str(error), "they lie where they lay") from None
        except OSError as error:
            raise Failure(
                "the pieces can't be moved", str(error), "they lie where they lay; the same again goes on"
            ) from None


def _unserved(folder: VaultFolder) -> IO[bytes]:
    """
    Raises:
        Failure: it is served.
    """
    try:
        return folder.serve()
    except BadVault as error:
        raise Failure(
            "a vault's data can't be changed while it is served",
            str(error),
            "clusterai node drain, or clusterai down",
            Exit.BUSY,
        ) from None


class Replaced(msgspec.Struct, frozen=True):
    """A new version of a vault's data."""

    name: str
    rows: int
    snapshot: str
    before: str


def replaced(folder: VaultFolder, source: Path, schema_file: Path | None) -> Replaced:
    """Put a new version of the data in. Grants, budgets and the log go on; the name of the version is another.

    Args:
        schema_file: the columns, where they are others now; None: as they were.

    Raises:
        Failure: it is served, or the data isn't of this schema.
    """
    with _unserved(folder):
        _, before, _ = rows_stored(folder)
        try:
            schema = (
                folder.schema() if schema_file is None else read_schema(schema_file.expanduser().read_bytes())
            )
            manifest = founding.replace_data(folder, schema, importing.find(source))
        except (BadData, BadSchema, BadVault, WrongKey, StoreFault) as error:
            raise Failure("the data can't be replaced", str(error), "what was there stays") from None
        except AnonymiserGone as error:
            raise Failure(
                "the texts can't be anonymised", str(error), "python scripts/install.py peers anonymise"
            ) from None
        except OSError as error:
            raise Failure(
                f"{error.filename} can't be read", error.strerror or "", code=Exit.NOT_FOUND
            ) from None
    return Replaced(folder.named.name, manifest.rows, hex0x(manifest.snapshot), before)


def opened(folder: Path) -> VaultFolder:
    """
    Raises:
        Failure: there is no vault.
    """
    try:
        return VaultFolder(folder)
    except NoVault:
        raise Failure(
            f"there is no vault in {folder}",
            next=f"clusterai vault init {folder} --from FILE.csv",
            code=Exit.NOT_FOUND,
        ) from None
    except BadVault as error:
        raise Failure("the vault can't be opened", str(error)) from None


def book(folder: VaultFolder) -> VaultBook:
    """
    Raises:
        Failure: the key or a file of the owner's can't be used.
    """
    try:
        return read_book(folder)
    except BadVault as error:
        unusable(error)


def rows_stored(folder: VaultFolder) -> tuple[int, str, int]:
    """How many rows, the snapshot, and how many bytes they take on disk.

    Raises:
        Failure.
    """
    try:
        storage = Storage(folder.store, folder.master(), folder.named.store)
    except (BadVault, WrongKey) as error:
        unusable(error)
    try:
        whole = storage.manifest
        if whole is None:
            return 0, "", 0
        return whole.rows, hex0x(whole.snapshot), sum(piece.size for piece in whole.pieces)
    finally:
        storage.close()


def unusable(error: Exception) -> NoReturn:
    raise Failure(
        "the vault can't be opened", str(error), "a keystore's password comes from CLUSTERAI_KEY_PASSWORD"
    )


def listing(folder: VaultFolder) -> Listing | None:
    """What was last listed; None before it is served for the first time."""
    path = folder.state / "listing"
    return decode(path.read_bytes(), Listing) if path.exists() else None


def rows(it: VaultBook, now_s: float) -> list[Row]:
    """All requests, oldest first."""
    return [_row(entry, now_s, it.why_waiting(entry)) for entry in it.entries.values()]


def _row(entry: Entry, now_s: float, why_waiting: str) -> Row:
    request, decided = entry.signed.request, entry.decided
    state = entry.state
    if state == "granted" and now_s >= request.expires_s:
        state = "expired"
    note = why_waiting if decided is None else decided.note
    if state == "revoked":
        note = Revoked(entry.ended_reason).name.lower() if entry.ended_reason else "the chain refused it"
    return Row(
        hex0x(entry.request),
        None if entry.grant is None else hex0x(entry.grant),
        state,
        hex0x(request.requester),
        Operation(request.operation).name.lower(),
        request.epsilon_micro / 1e6,
        entry.spent_micro / 1e6,
        request.uses,
        entry.uses,
        request.price_wei,
        request.expires_s,
        entry.asked_s,
        decided is not None and decided.automatic,
        hex0x(request.code) if any(request.code) else None,
        len(entry.code),
        entry.purpose,
        note,
    )


def uses(it: VaultBook) -> list[Used]:
    """All uses, oldest first."""
    found: list[Used] = []
    # Letting an output go is a use that nobody ordered.
    unpaid = {release_of(row.order) for row in it.uses()}
    for row in it.uses():
        entry = it.entry_of(row.grant)
        decided = None if entry is None else entry.decided
        price_wei = 0
        if decided is not None and row.order not in unpaid:
            price_wei = decided.use_wei + -(-row.epsilon_micro // 1_000) * decided.milli_epsilon_wei
        found.append(
            Used(
                row.index if row.index >= 0 else None,
                hex0x(row.order),
                hex0x(row.grant),
                hex0x(row.requester),
                row.epsilon_micro / 1e6,
                row.delta_pico / 1e12,
                row.at_s,
                None if row.result is None or not any(row.result) else hex0x(row.result),
                price_wei,
            )
        )
    return found


class Lying(msgspec.Struct, frozen=True):
    """An output that a program left for review."""

    order: str
    grant: str
    requester: str
    state: str
    bytes: int
    at_s: int
    findings: tuple[Finding, ...]
    note: str


def outputs(folder: VaultFolder) -> list[tuple[Lying, bytes]]:
    """All of them with what they hold, oldest first.

    Raises:
        Failure.
    """
    try:
        found = Outputs(folder.held, folder.master()).all()
    except BadVault as error:
        unusable(error)
    return [
        (
            Lying(
                hex0x(it.order),
                hex0x(it.grant),
                hex0x(it.requester),
                it.state,
                len(it.output),
                it.at_s,
                it.findings,
                it.note,
            ),
            it.output,
        )
        for it in found
    ]


def output(folder: VaultFolder, text: str) -> tuple[Lying, bytes]:
    """The one whose order begins so.

    Raises:
        Failure: none, or several.
    """
    wanted = text.lower().removeprefix("0x")
    found = [it for it in outputs(folder) if it[0].order[2:].startswith(wanted)]
    if len(found) != 1:
        raise Failure(
            f"{len(found) or 'no'} outputs begin with {text}",
            next=f"clusterai vault outputs {folder.root} lists them",
            code=Exit.NOT_FOUND,
        )
    return found[0]


def printable(data: bytes) -> str:
    """A stranger's bytes on a terminal: only what prints, so that no escape sequence hides a line."""
    text = data.decode(errors="backslashreplace")
    safe = "".join(it if it.isprintable() or it in "\n\t" else f"\\x{ord(it):02x}" for it in text)
    return safe if safe.endswith("\n") else safe + "\n"


def one(folder: VaultFolder, text: str, of: str) -> Row:
    """The request that a person means by how its id begins, or its grant's.

    Raises:
        Failure: none, or several.
    """
    wanted = text.lower().removeprefix("0x")
    listed = rows(book(folder), time.time())
    ids = [(it, it.grant if of == "grant" else it.request) for it in listed]
    found = [it for it, name in ids if name is not None and name[2:].startswith(wanted)]
    if of == "grant" and not found:
        found = [it for it in listed if it.grant is not None and it.request[2:].startswith(wanted)]
    if len(found) == 1:
        return found[0]
    raise Failure(
        f"no {of} begins with {text}" if not found else f"{len(found)} of them begin with {text}",
        next=f"clusterai vault inbox {folder.root} --all lists them",
        code=Exit.NOT_FOUND,
    )


def command(folder: VaultFolder, told: Command) -> Outcome | None:
    """Leave it at the desk, and wait for what comes of it; None where nobody serves the vault now: then it waits there.

    Raises:
        Failure: the vault refused, or who serves it doesn't answer.
    """
    name = folder.order(told)
    if not folder.is_served():
        return None
    ends_s = time.monotonic() + ANSWERED_S
    while (outcome := folder.outcome(name)) is None:
        if not folder.is_served():
            return None
        if time.monotonic() > ends_s:
            raise Failure(
                "the process that serves the vault doesn't take notice",
                f"the command lies in {folder.desk / (name + '.json')} and is carried out when it does",
                "read the node's log",
            )
        time.sleep(POLL_S)
    folder.take_back(name)
    if not outcome.ok:
        raise Failure(
            f"not done: {outcome.detail}", outcome.code, f"clusterai vault inbox {folder.root} --all"
        )
    return outcome
