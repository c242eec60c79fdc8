"""Making a vault of what an owner has; and writing anew what follows from its files."""

import contextlib
import hashlib
import secrets
from pathlib import Path

import msgspec

from clusterai.ledger.adapters.network import make_key
from clusterai.runtime.adapters.config import PASSWORD
from clusterai.vault.adapters.cleaning import cleaned_rows
from clusterai.vault.adapters.folder import BadVault, Named, VaultFolder, as_json, write_aside
from clusterai.vault.adapters.importing import Found, read_rows
from clusterai.vault.adapters.piecestore import StoreFault, piece_store, place_in, tried
from clusterai.vault.adapters.storage import Manifest, Storage
from clusterai.vault.core.card import Head, croissant, read_readme, write_readme
from clusterai.vault.core.cleaning import marked
from clusterai.vault.core.mock import mock_csv
from clusterai.vault.core.pieces import pieces_of
from clusterai.vault.core.policy import Policy, write_policy
from clusterai.vault.core.schema import Schema, write_schema

BEGUN = "begun.json"
"""Of a vault that is being made, what `vault.json` says of one that is."""
WORDS = """# {name}

Say here what this data is, how it was collected, from whom, with whose consent, and what it should not be used for.
"""


class VaultExists(ValueError):
    """There is a vault in {folder} already."""


def found_vault(
    root: Path,
    name: str,
    key_file: Path,
    schema: Schema,
    data: Found,
    policy: Policy,
    head: Head | None = None,
    password: str | None = None,
    store: str = "",
) -> VaultFolder:
    """Lay out a vault and put the data in: anonymised where schema or policy say so, and encrypted. Where it was killed halfway, the same again goes on:
    by `begun`, under the same key and in the same place, so that neither is left behind.

    Args:
        key_file: the master key; made if it isn't there.
        store: a URL under which the pieces shall lie, in a place of their own; empty: in the folder.

    Raises:
        VaultExists, BadVault, BadData, BadSchema, BadKeyFile, AnonymiserGone, StoreFault.
    """
    root = root.expanduser().resolve()
    if (root / "vault.json").exists():
        raise VaultExists(f"there is a vault in {root} already")
    policy.check()
    schema = marked(schema, policy)
    schema.check()
    place, half = place_in(store, name) if store else "", begun(root)
    if half is not None and store and half.store.startswith(f"{store.rstrip('/')}/{name}-"):
        place = half.store
    try:
        settings = {"name": name, "key": str(key_file.expanduser().resolve())}
        named = msgspec.convert({**settings, "store": place}, Named)
    except msgspec.ValidationError:
        raise BadVault(
            f"{name!r} can't name a vault: small letters, digits, dot, - and _, 64 at most"
        ) from None
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_aside(root / BEGUN, as_json(named))
    master = make_key(key_file, password).secret()
    if named.store:
        tried(piece_store(root, named.store))
    manifest = _put(root, master, schema, data, named.store)
    # What only tells of the vault comes after the data; `vault.json` makes it one, last.
    for path, content in (
        (root / "README.md", write_readme(head or Head(pretty_name=name), WORDS.format(name=name))),
        (root / "policy.toml", write_policy(policy)),
    ):
        if not path.exists():
            write_aside(path, content)
    _tell(root, name, manifest)
    write_aside(root / "vault.json", as_json(named))
    (root / BEGUN).unlink()
    return VaultFolder(root)


def begun(root: Path) -> Named | None:
    """What a vault that was killed while it was made would have been."""
    try:
        return msgspec.json.decode((root / BEGUN).read_bytes(), type=Named)
    except (OSError, msgspec.MsgspecError):
        return None


def _put(root: Path, master: bytes, schema: Schema, data: Found, url: str) -> Manifest:
    storage = Storage(root / "store", master, url, sweep=True)
    try:
        return storage.write(schema, pieces_of(schema, cleaned_rows(schema, read_rows(data, schema))))
    finally:
        storage.close()


def replace_data(folder: VaultFolder, schema: Schema, data: Found) -> Manifest:
    """Another version of the data, under the same name. Budgets go on: the people in it are the same."""
    manifest = _put(folder.root, folder.master(), marked(schema, folder.policy()), data, folder.named.store)
    _tell(folder.root, folder.named.name, manifest)
    return manifest


def move_pieces(folder: VaultFolder, url: str) -> VaultFolder:
    """All pieces to a place of their own under a URL, or back into the folder where it is empty. Nobody may serve the vault meanwhile.

    Raises:
        BadVault, WrongKey, NoData, Damaged, OSError, StoreFault: they lie where they lay.
    """
    if not url and not folder.named.store:
        return folder
    named = msgspec.structs.replace(folder.named, store=place_in(url, folder.named.name) if url else "")
    storage = Storage(folder.store, folder.master(), folder.named.store)
    there = piece_store(folder.store / "pieces", named.store)
    try:
        tried(there)
        try:
            storage.copy_to(there)
        except BaseException:
            with contextlib.suppress(OSError):
                for address in list(there.addresses()):
                    there.remove(address)
            raise
        # From here on they lie there; a crash before the old ones are gone leaves them, encrypted.
        write_aside(folder.settings, as_json(named))
        with contextlib.suppress(StoreFault):
            storage.take_away()
    finally:
        storage.close()
    return VaultFolder(folder.root)


def _tell(root: Path, name: str, manifest: Manifest) -> None:
    schema = manifest.schema
    mock = mock_csv(schema)
    readme = root / "README.md"
    head, words = read_readme(readme.read_bytes() if readme.exists() else b"")
    told = croissant(name, head, words, schema, manifest.snapshot, hashlib.sha256(mock).hexdigest())
    for path, content in (
        (root / "schema.json", write_schema(schema)),
        (root / "mock.csv", mock),
        (root / "croissant.json", as_json(told)),
    ):
        write_aside(path, content)


def new_key_name() -> str:
    return f"{secrets.token_hex(8)}.key"


__all__ = ["PASSWORD", "VaultExists", "begun", "found_vault", "new_key_name", "replace_data"]
