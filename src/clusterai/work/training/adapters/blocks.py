"""A vault's rows dealt into blocks: folders as the vault mounts them, each with a part of the rows, all rows of one person in one of them.

Which block a person is in follows from the vault's own key, so that no requester can arrange who is with whom. The schema is the same in
all of them: it is public.
"""

import csv
import hmac
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

TABLE, ARRAYS, SCHEMA = "data.csv", "arrays.npz", "schema.json"


class Undealable(ValueError):
    """These rows can't be dealt into blocks: {why}."""


def block_of(key: bytes, person: bytes, blocks: int) -> int:
    return int.from_bytes(hmac.digest(key, person, "sha256")[:8]) % blocks


def deal(source: Path, target: Path, blocks: int, unit: str, key: bytes) -> list[Path]:
    """The blocks' folders, in `target`.

    Args:
        source: as `vault.adapters.mounting` lays it out.
        unit: the column that says whose a row is; empty: each row is somebody else's.
        key: the vault's, for this run.

    Raises:
        Undealable.
    """
    if blocks == 1:
        return [_whole(source, target / "0")]
    folders = [target / str(at) for at in range(blocks)]
    for folder in folders:
        folder.mkdir(parents=True, mode=0o755)
        if (source / SCHEMA).exists():
            (folder / SCHEMA).write_bytes((source / SCHEMA).read_bytes())
    where: list[int] = []
    with ExitStack() as stack:
        rows = csv.reader(stack.enter_context((source / TABLE).open(newline="")))
        outs = [
            csv.writer(stack.enter_context((folder / TABLE).open("w", newline="")), lineterminator="\n")
            for folder in folders
        ]
        empty: list[str] = []
        header = next(rows, empty)
        if unit and unit not in header:
            raise Undealable(f"there is no column {unit!r}, which says whose a row is")
        at = header.index(unit) if unit else -1
        for out in outs:
            out.writerow(header)
        for number, row in enumerate(rows):
            person = row[at].encode() if unit else number.to_bytes(8)
            where.append(block_of(key, person, blocks))
            outs[where[-1]].writerow(row)
    if (source / ARRAYS).exists():
        _deal_arrays(source / ARRAYS, folders, where)
    return folders


def _whole(source: Path, folder: Path) -> Path:
    """The same files, by other names."""
    folder.mkdir(parents=True, mode=0o755)
    for file in source.iterdir():
        (folder / file.name).hardlink_to(file)
    return folder


def _deal_arrays(file: Path, folders: list[Path], where: list[int]) -> None:
    with np.load(file, allow_pickle=False) as found:
        arrays: dict[str, Any] = {name: found[name] for name in found.files}
    placed = np.array(where, np.int64)
    if any(len(array) != len(placed) for array in arrays.values()):
        raise Undealable("arrays and the table have different numbers of rows")
    for at, folder in enumerate(folders):
        mine = {name: array[placed == at] for name, array in arrays.items()}
        with (folder / ARRAYS).open("wb") as out:
            np.savez(out, **mine)  # pyright: ignore[reportArgumentType]
