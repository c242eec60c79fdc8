"""The data in the clear, for a program in the sandbox: in memory (`/dev/shm`), for as long as the program runs.

    FOLDER/schema.json   the columns
    FOLDER/data.csv      all columns that are no arrays; null is empty
    FOLDER/arrays.npz    the others, under their names

Memory may be swapped: swap must be encrypted, `clusterai node doctor` looks. Root on the vault's machine reads memory: the vault's owner can always read its data.
"""

import csv
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from clusterai.sandbox.adapters import residue
from clusterai.sandbox.adapters.volume import MEMORY, NO_MEMORY, NoMemoryFolder
from clusterai.vault.core.pieces import Piece, joined, rows_of
from clusterai.vault.core.schema import Schema, write_schema


def prefix(name: str) -> str:
    return f"{residue.prefix()}vault-{name}-"


def lay_out(name: str, schema: Schema, pieces: Iterable[Piece], memory: Path = MEMORY) -> Path:
    """
    Raises:
        NoMemoryFolder: there is no memory file system here, and nothing is laid out on a disk.
    """
    if not memory.is_dir():
        raise NoMemoryFolder(NO_MEMORY)
    residue.guard()
    folder = memory / f"{prefix(name)}{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    try:
        _fill(folder, schema, list(pieces))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _fill(folder: Path, schema: Schema, pieces: list[Piece]) -> None:
    (folder / "schema.json").write_bytes(write_schema(schema))
    names = [column.name for column in schema.columns if column.kind != "array"]
    with (folder / "data.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, names, lineterminator="\n")
        out.writeheader()
        out.writerows(rows_of(schema, pieces))
    arrays = [column.name for column in schema.columns if column.kind == "array"]
    if arrays:
        with (folder / "arrays.npz").open("wb") as file:
            np.savez(file, **joined(schema, pieces, arrays))  # pyright: ignore[reportArgumentType]
    for path in folder.iterdir():
        path.chmod(0o444)


def sweep(name: str, memory: Path = MEMORY) -> None:
    """Remove what this process laid out of this vault, and of all vaults what belongs to no process.

    What another living process laid out stays, also under this vault's name: the same owner's vault in another network on this machine.
    """
    residue.sweep(memory)
    for left in memory.glob(f"{prefix(name)}*"):
        shutil.rmtree(left, ignore_errors=True)
