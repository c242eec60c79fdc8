"""A bought copy on its buyer's side: encrypted pieces become rows, each checked against what the owner signed before a byte is written."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from clusterai.protocol import merkle
from clusterai.protocol.copies import KeyGiven
from clusterai.protocol.ids import Digest
from clusterai.vault.adapters.storage import leaf_of
from clusterai.vault.core.pieces import Piece, decode_piece, rows_of
from clusterai.vault.core.schema import BadSchema, Schema, read_schema


class NotTheData(ValueError):
    """What was given isn't the data that the listing names: {why}. The sale can be disputed; nothing was written."""


def checked(given: KeyGiven, snapshot: Digest) -> Schema:
    """
    Args:
        snapshot: as the listing signed it.

    Raises:
        NotTheData.
    """
    if merkle.root([Digest(piece.leaf) for piece in given.pieces]) != snapshot:
        raise NotTheData("its pieces make another snapshot than was signed")
    try:
        return read_schema(given.schema)
    except BadSchema as error:
        raise NotTheData(str(error)) from None


def write(given: KeyGiven, schema: Schema, box_of: Callable[[bytes], bytes], target: Path) -> int:
    """Open all pieces into one CSV, which appears when it is whole; its rows.

    Args:
        box_of: the encrypted bytes of an address.

    Raises:
        NotTheData. ValueError: `target` is there already.
    """
    aside = target.with_name(f".{target.name}.new")
    try:
        with aside.open("w", newline="") as file:
            count = lay(schema, _opened(given, schema, box_of), file)
            file.flush()
            os.fsync(file.fileno())
        target.hardlink_to(aside)
    except FileExistsError:
        raise ValueError(f"{target} is there already") from None
    finally:
        aside.unlink(missing_ok=True)
    return count


def lay(schema: Schema, pieces: Iterable[Piece], file: IO[str]) -> int:
    """Pieces as the CSV that a buyer gets, to the byte; its rows."""
    names = [column.name for column in schema.columns if column.kind != "array"]
    out = csv.DictWriter(file, names)
    out.writeheader()
    count = 0
    for row in rows_of(schema, pieces):
        out.writerow(row)
        count += 1
    return count


def _opened(given: KeyGiven, schema: Schema, box_of: Callable[[bytes], bytes]) -> Iterator[Piece]:
    opener = SecretBox(given.key)
    for at, piece in enumerate(given.pieces):
        try:
            plain = opener.decrypt(box_of(piece.address))
        except CryptoError:
            raise NotTheData(f"piece {at} doesn't open with the key that was given") from None
        if leaf_of(given.salt, at, plain) != piece.leaf:
            raise NotTheData(f"piece {at} opens to something else than was signed")
        yield decode_piece(schema, plain)
