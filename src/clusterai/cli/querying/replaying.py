"""A query once more, from the vault's rows and its noise key: what was answered then must come out to the byte.

It shows that noise wasn't chosen and numbers weren't made up, to who holds the data. That the data is true it doesn't show.
"""

import asyncio
import base64
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest, hex0x
from clusterai.protocol.vaults import Operation
from clusterai.sandbox import CannotSandbox
from clusterai.vault.adapters.bookkeeping import read_book
from clusterai.vault.adapters.folder import BadVault, VaultFolder
from clusterai.vault.adapters.piecestore import StoreFault
from clusterai.vault.adapters.storage import Damaged, NoData, Storage, WrongKey
from clusterai.vault.core.book import VaultBook
from clusterai.vault.core.noisekey import noise_key, noise_seed
from clusterai.vault.core.pieces import joined
from clusterai.work.query.adapters.blocks import Programs, averaged
from clusterai.work.query.adapters.computing import needed, replayed, result_of
from clusterai.work.query.core.plan import RefusedQuery
from clusterai.work.query.core.sql import plan_of
from clusterai.work.query.spec import QuerySpec, Result, decode_query

MOST_FILE = 64 << 20


class Replayed(msgspec.Struct, frozen=True):
    """What came of one query.

    Attributes:
        logged: the result in the vault's log of uses; None where the log has no use of this query.
    """

    query: str
    result: str
    logged: str | None

    @property
    def same(self) -> bool:
        return self.result == self.logged


def specs_of(file: Path) -> list[QuerySpec]:
    """Queries that `clusterai query --json` wrote down.

    Raises:
        Failure.
    """
    try:
        if file.stat().st_size > MOST_FILE:
            raise ValueError(f"it has more than {MOST_FILE} bytes")
        told = msgspec.json.decode(file.read_bytes(), type=_File)
        return [decode_query(base64.b64decode(it.request, validate=True)) for it in told.vaults]
    except (OSError, ValueError, Malformed, msgspec.MsgspecError) as error:
        raise Failure(
            f"{file} isn't what clusterai query --json writes", str(error), code=Exit.USAGE
        ) from None


class _Vault(msgspec.Struct):
    request: str


class _File(msgspec.Struct):
    vaults: list[_Vault]


def replay(folder: VaultFolder, specs: list[QuerySpec]) -> list[Replayed]:
    """Those of the queries that this vault's data answers.

    Raises:
        Failure: it answers none of them, or can't be read.
    """
    try:
        master = folder.master()
        book = read_book(folder)
        storage = Storage(folder.store, master, folder.named.store)
    except (BadVault, WrongKey) as error:
        raise Failure("the vault can't be read", str(error)) from None
    try:
        if storage.manifest is None:
            raise Failure("there is no data in this vault")
        mine = [it for it in specs if it.snapshot == storage.manifest.snapshot]
        if not mine:
            raise Failure(
                "these queries are of other data",
                f"the vault's snapshot is {hex0x(storage.manifest.snapshot)}",
                code=Exit.NOT_FOUND,
            )
        return [_replayed(it, storage, book, master) for it in mine]
    except (NoData, Damaged, StoreFault) as error:
        raise Failure("the vault's data can't be read", str(error)) from None
    finally:
        storage.close()


def _replayed(spec: QuerySpec, storage: Storage, book: VaultBook, master: bytes) -> Replayed:
    query = spec.digest()
    result = _result(spec, storage, book, noise_seed(noise_key(master), query, spec.nonce))
    logged = next((it.result for it in book.uses() if it.order == query), None)
    return Replayed(hex0x(query), hex0x(result.digest()), None if logged is None else hex0x(Digest(logged)))


def _result(spec: QuerySpec, storage: Storage, book: VaultBook, seed: bytes) -> Result:
    assert storage.manifest is not None
    schema = storage.manifest.schema

    def columns(names: tuple[str, ...]) -> dict[str, Any]:
        return joined(schema, storage.pieces(names), names)

    if spec.operation == Operation.QUERY:
        try:
            return replayed(spec, schema, columns(needed(plan_of(spec.sql, schema), schema)), seed)
        except RefusedQuery as error:
            raise Failure("this was never answered", str(error), code=Exit.UNTRUE) from None
    if spec.operation != Operation.CODE:
        raise Failure("what a program made for review isn't done again")
    entry = book.entry_of(Digest(spec.grant))
    if entry is None or not entry.code:
        raise Failure("the program isn't kept any more", "its grant ended")
    with tempfile.TemporaryDirectory(prefix="clusterai-replay-") as place:
        try:
            programs = Programs(Path(place))
        except CannotSandbox as error:
            raise Failure("programs can't be run here", str(error)) from None
        told = asyncio.run(averaged(programs, spec, schema, columns(schema.names), seed, entry.code))
    return result_of(spec, schema, seed, told)
