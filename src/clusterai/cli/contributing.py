"""`clusterai data contribution`: an appraisal made from a study's files; the same files give the same digest on every machine."""

import csv
import math
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from clusterai.audit.core.contribution import (
    Appraisal,
    Contribution,
    NotTheStudys,
    Rows,
    Study,
    appraise,
    radius_of,
    rows_of,
)
from clusterai.cli.failure import Exit, Failure
from clusterai.protocol import ids

MOST_FILE_BYTES = 256 << 20

Floats = NDArray[np.float64]


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One contributor's file."""

    owner: str
    rows: str


class StudyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A study as its owner writes it down; paths are of the file's own folder.

    Attributes:
        held_out: table of rows that nobody contributed, with names in its first line.
        label: the column to be told; all others are features, and numbers.
        contributions: in the order of their commitments on chain.
        beacon: 32 bytes from after the last of them.
        radius_steps: None: as the held-out rows say.
    """

    held_out: str
    label: str
    contributions: Annotated[tuple[Given, ...], Meta(min_length=1, max_length=4_096)]
    beacon: str
    pot_wei: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    neighbours: Annotated[int, Meta(ge=1, le=1_000)] = 5
    radius_steps: Annotated[int, Meta(ge=0, le=65_535)] | None = None


class Table(msgspec.Struct, frozen=True):
    names: tuple[str, ...]
    values: Floats
    labels: list[str]


def appraised(path: Path) -> Appraisal:
    """
    Raises:
        Failure: a file is missing or isn't what it should be; it says which.
    """
    try:
        study = msgspec.json.decode(path.read_bytes(), type=StudyFile)
        beacon = ids.digest(study.beacon)
        owners = [ids.address(it.owner) for it in study.contributions]
    except OSError as error:
        raise Failure(f"{path} can't be read", error.strerror or "", code=Exit.NOT_FOUND) from None
    except (msgspec.MsgspecError, ids.BadId) as error:
        raise Failure(
            f"{path} is no study", str(error), "see docs/explanation/contribution.md", Exit.USAGE
        ) from None
    folder = path.parent
    held = _table(folder / study.held_out, study.label)
    classes = {label: at for at, label in enumerate(sorted(set(held.labels)))}
    if len(classes) < 2:
        raise Failure(f"{study.held_out} has one label", next="held-out rows have two labels or more")
    centre, spread = _scale(held.values)

    def whole(table: Table, name: str) -> Rows:
        if sorted(table.names) != sorted(held.names):
            raise Failure(f"{name} has other columns than {study.held_out}", ", ".join(table.names[:8]))
        values = table.values[:, [table.names.index(it) for it in held.names]]
        # A label that no held-out row has is never right.
        labels = np.array([classes.get(it, len(classes)) for it in table.labels], np.int64)
        return rows_of((values - centre) / spread, labels)

    try:
        held_rows = whole(held, study.held_out)
        parts = [
            Contribution(owner, whole(_table(folder / it.rows, study.label), it.rows))
            for owner, it in zip(owners, study.contributions, strict=True)
        ]
        radius = radius_of(held_rows) if study.radius_steps is None else study.radius_steps
        fixed = Study(held_rows.digest(), len(classes), study.neighbours, min(radius, 65_535), study.pot_wei)
        return appraise(fixed, parts, held_rows, beacon)
    except (NotTheStudys, ValueError) as error:
        raise Failure(f"{path} can't be appraised", str(error)) from None


def _table(path: Path, label: str) -> Table:
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise Failure(f"{path} is larger than {MOST_FILE_BYTES >> 20} MiB", next="give fewer rows")
        with path.open(newline="", encoding="utf-8-sig") as file:
            names, *lines = list(csv.reader(file)) or [[]]
    except OSError as error:
        raise Failure(f"{path} can't be read", error.strerror or "", code=Exit.NOT_FOUND) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise Failure(f"{path} is no table", str(error)) from None
    if label not in names or len(set(names)) != len(names) or len(names) < 2:
        raise Failure(f"{path} has no column {label!r}, or one twice", f"its columns: {', '.join(names[:8])}")
    at = names.index(label)
    try:
        rows = [[float(it) for place, it in enumerate(line) if place != at] for line in lines if line]
        values = np.array(rows, np.float64).reshape(len(rows), len(names) - 1)
        labels = [line[at] for line in lines if line]
    except (ValueError, IndexError) as error:
        raise Failure(f"{path} has a line that isn't numbers and a label", str(error)) from None
    return Table(tuple(it for place, it in enumerate(names) if place != at), values, labels)


def _scale(values: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of each column, by sums that are exact: another machine gets the same."""
    centre: list[float] = []
    spread: list[float] = []
    for column in values.T.tolist():
        mean = math.fsum(column) / len(column)
        deviation = math.sqrt(math.fsum((it - mean) ** 2 for it in column) / len(column))
        centre.append(mean)
        spread.append(deviation if math.isfinite(deviation) and deviation > 0 else 1.0)
    return np.array(centre), np.array(spread)
