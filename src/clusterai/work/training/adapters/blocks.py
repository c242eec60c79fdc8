"""A vault's rows dealt into blocks: folders of the same files, each with a part of the rows, all rows of one person in one of them.

Which block a person is in follows from the vault's own key, so that no requester can arrange who is with whom. Kinds of files that can be
dealt: CSV, and numpy's archives whose arrays have one row each. Anything else is refused rather than copied whole: what every block sees,
every block can tell.
"""

import csv
import hmac
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np


class Undealable(ValueError):
    """These files can't be dealt into blocks: {why}."""


def block_of(key: bytes, person: bytes, blocks: int) -> int:
    return int.from_bytes(hmac.digest(key, person, "sha256")[:8]) % blocks


def deal(source: Path, target: Path, blocks: int, unit: str, key: bytes) -> list[Path]:
    """The blocks' folders, in `target`.

    Args:
        unit: the column that says whose a row is; empty: each row is somebody else's.
        key: the vault's, for this run.

    Raises:
        Undealable.
    """
    folders = [target / str(at) for at in range(blocks)]
    for folder in folders:
        folder.mkdir(parents=True, mode=0o755)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if not files:
        raise Undealable("there are none")
    for file in files:
        name = file.relative_to(source)
        places = [folder / name for folder in folders]
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
        match file.suffix:
            case ".csv":
                _deal_csv(file, places, unit, key)
            case ".npz":
                _deal_npz(file, places, unit, key)
            case _:
                raise Undealable(f"{name} is neither CSV nor npz")
    return folders


def _deal_csv(file: Path, places: list[Path], unit: str, key: bytes) -> None:
    with ExitStack() as stack:
        rows = csv.reader(stack.enter_context(file.open(newline="")))
        outs = [csv.writer(stack.enter_context(place.open("w", newline=""))) for place in places]
        header = next(rows, None)
        if header is None:
            raise Undealable(f"{file.name} is empty")
        if unit and unit not in header:
            raise Undealable(f"{file.name} has no column {unit!r}, which says whose a row is")
        at = header.index(unit) if unit else -1
        for out in outs:
            out.writerow(header)
        for number, row in enumerate(rows):
            person = row[at].encode() if unit and at < len(row) else number.to_bytes(8)
            outs[block_of(key, person, len(outs))].writerow(row)


def _deal_npz(file: Path, places: list[Path], unit: str, key: bytes) -> None:
    with np.load(file, allow_pickle=False) as found:
        arrays: dict[str, Any] = {name: found[name] for name in found.files}
    lengths = {len(array) if array.ndim else -1 for array in arrays.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise Undealable(f"{file.name} holds arrays of different lengths")
    if unit and unit not in arrays:
        raise Undealable(f"{file.name} has no array {unit!r}, which says whose a row is")
    count = lengths.pop()
    persons = [str(arrays[unit][row]).encode() if unit else row.to_bytes(8) for row in range(count)]
    where = np.array([block_of(key, person, len(places)) for person in persons], np.int64)
    for at, place in enumerate(places):
        np.savez(place, **{name: array[where == at] for name, array in arrays.items()})
