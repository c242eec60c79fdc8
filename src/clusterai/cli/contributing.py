"""Contributions of data from a study's files: the same files give the same digest on every machine.

    study.json ──> held-out rows, whose scale is everybody's ──> Study: what a pot is put up for
         └──> contributors' tables, in the order of their commitments ──> Appraisal: what its contract is told

What is the study owner's must be right, or there is no study. What is a contributor's may be anything: a table that isn't what was committed
to, or no table, is worth nothing, and everybody else's is worth what it is.
"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated

import msgspec
import numpy as np
from blake3 import blake3
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
from clusterai.protocol.ids import Address, Digest

MOST_FILE_BYTES = 256 << 20

Floats = NDArray[np.float64]


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One contributor.

    Attributes:
        owner: may be left out where `vault` names it, until a pot is opened.
        rows: its table's file.
        vault: name of the vault, OWNER/NAME, or its id that its table is a copy of.
        referrer: the address that brought it, and has a part of its share.
    """

    owner: str = ""
    rows: str = ""
    vault: str = ""
    referrer: str = ""


class StudyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A study as its owner writes it down; paths are of the file's own folder. It names `held_out` and `label`, or `app` and `lineage`.

    Attributes:
        held_out: table of rows that nobody contributed, with names in its first line.
        label: the column to be told; of the others, `features` or all are features, and numbers.
        contributions: in the order of their commitments, unless a pot says another.
        beacon: 32 bytes from after the last of them; a pot's come from the chain.
        radius_steps: None: as the held-out rows say.
        sure: a table counts where its value is above so many of its doubts, 0 to 10; with 0 wherever it is above 0.
        quality: the part of each share that is earned by how clean the rows are, 0 to 1.
        worth: of a federated run, the metric of the app's own evaluation that the pot is shared by, with a minus before it where less is better; without it, by rounds.
        app, requester, lineage: of a federated run (`runpots`): the Flower app's folder, who has it run, and the card of what came of it.
    """

    contributions: Annotated[tuple[Given, ...], Meta(min_length=1, max_length=4_096)]
    held_out: str = ""
    label: str = ""
    app: str = ""
    requester: str = ""
    lineage: str = ""
    worth: Annotated[str, Meta(max_length=128)] = ""
    beacon: str = ""
    pot_wei: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    features: Annotated[tuple[str, ...], Meta(min_length=1, max_length=4_096)] | None = None
    neighbours: Annotated[int, Meta(ge=1, le=1_000)] = 5
    radius_steps: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    quality: Annotated[float, Meta(ge=0, le=1)] = 0.0
    sure: Annotated[float, Meta(ge=0, le=10)] = 3.0


class BadTable(ValueError):
    """{why}"""


class Table(msgspec.Struct, frozen=True):
    names: tuple[str, ...]
    values: Floats
    labels: list[str]


class Terms(msgspec.Struct, frozen=True):
    """What is fixed before anybody joins: `study`'s digest is the pot's; the rest is what it takes to appraise by it."""

    file: StudyFile
    folder: Path
    study: Study
    held_out: Rows
    classes: dict[str, int]
    centre: Floats
    spread: Floats

    def rows(self, data: bytes) -> Rows:
        """A contributor's table.

        Raises:
            BadTable: it isn't one, or has other columns.
        """
        table = table_of(data, self.study.label, self.study.columns)
        # A label that no held-out row has is never right.
        labels = np.array([self.classes.get(it, len(self.classes)) for it in table.labels], np.int64)
        try:
            with np.errstate(all="ignore"):  # what overflows is cut off with all extremes
                return rows_of((table.values - self.centre) / self.spread, labels)
        except ValueError as error:
            raise BadTable(str(error)) from None

    def given(self, owner: Address) -> Given | None:
        """What the study's file says of a participant."""
        return next(
            (it for it in self.file.contributions if it.owner and ids.address(it.owner) == owner), None
        )


class Left(msgspec.Struct, frozen=True):
    """A participant that counts for nothing, and why."""

    owner: Address
    why: str


def study_file(path: Path) -> StudyFile:
    """
    Raises:
        Failure: there is none, or it is none.
    """
    try:
        study = msgspec.json.decode(path.read_bytes(), type=StudyFile)
        for it in study.contributions:
            for text in (it.owner, it.referrer):
                if text:
                    ids.address(text)
        if bool(study.held_out and study.label) == bool(study.app):
            raise BadTable("it names `held_out` and `label`, or `app`")
        for text in (study.held_out, study.app, study.lineage, *(it.rows for it in study.contributions)):
            _within(text)
    except OSError as error:
        raise Failure(f"{path} can't be read", error.strerror or "", code=Exit.NOT_FOUND) from None
    except (msgspec.MsgspecError, ids.BadId, BadTable) as error:
        raise Failure(
            f"{path} is no study", str(error), "see docs/explanation/contribution.md", Exit.USAGE
        ) from None
    return study


def _within(text: str) -> None:
    """A study is passed on: whoever wrote it doesn't say what is read or written elsewhere on others' machines.

    Raises:
        BadTable.
    """
    place = PurePath(text)
    if place.is_absolute() or ".." in place.parts or "\0" in text:
        raise BadTable(f"{text!r} isn't in the study's own folder: copy it there, and name it from there")


def terms_at(path: Path, pot_wei: int | None = None) -> Terms:
    """The study in a file, for a pot of so much.

    Raises:
        Failure: a file is missing or isn't what it should be; it says which.
    """
    file = study_file(path)
    if not file.held_out:
        raise Failure(f"{path} is of a federated run", "it has no rows to appraise", code=Exit.USAGE)
    place = path.parent / file.held_out
    try:
        data = read(place)
        held = table_of(data, file.label, file.features)
    except BadTable as error:
        raise Failure(f"{place} can't be used", str(error)) from None
    classes = {label: at for at, label in enumerate(sorted(set(held.labels)))}
    if len(classes) < 2:
        raise Failure(f"{file.held_out} has one label", next="held-out rows have two labels or more")
    centre, spread = _scale(held.values)
    labels = np.array([classes[it] for it in held.labels], np.int64)
    try:
        rows = rows_of((held.values - centre) / spread, labels)
        radius = radius_of(rows) if file.radius_steps is None else file.radius_steps
        study = msgspec.convert(
            msgspec.to_builtins(
                Study(
                    held_out=rows.digest(),
                    classes=len(classes),
                    neighbours=file.neighbours,
                    radius_steps=min(radius, 65_535),
                    pot_wei=file.pot_wei if pot_wei is None else pot_wei,
                    quality_milli=round(1_000 * file.quality),
                    sure_milli=round(1_000 * file.sure),
                    table=blake3(data).digest(),
                    label=file.label,
                    columns=held.names,
                )
            ),
            Study,
        )
    except ValueError as error:
        raise Failure(f"{path} can't be appraised by", str(error)) from None
    return Terms(file, path.parent, study, rows, classes, centre, spread)


def appraised(path: Path) -> Appraisal:
    """Of a study that says itself who contributed what, and which beacon came after.

    Raises:
        Failure: a file is missing or isn't what it should be; it says which.
    """
    terms = terms_at(path)
    try:
        beacon = ids.digest(terms.file.beacon)
    except ids.BadId:
        raise Failure(
            f"{path} names no beacon", "32 bytes from after the last commitment", code=Exit.USAGE
        ) from None
    parts: list[Contribution] = []
    for it in terms.file.contributions:
        if not it.owner:
            raise Failure(f"{path} is no study", "a contribution without an owner", code=Exit.USAGE)
        try:
            parts.append(Contribution(ids.address(it.owner), terms.rows(read(terms.folder / it.rows))))
        except BadTable as error:
            raise Failure(f"{it.rows} can't be used", str(error)) from None
    try:
        return appraise(terms.study, parts, terms.held_out, beacon)
    except (NotTheStudys, ValueError) as error:
        raise Failure(f"{path} can't be appraised", str(error)) from None


def appraised_for(
    terms: Terms, joined: Sequence[tuple[Address, Digest]], beacon: bytes
) -> tuple[Appraisal, list[Left]]:
    """Of a pot: by who joined it with which rows' digest, in that order.

    Returns:
        The appraisal, and who counts for nothing because his table isn't here, isn't the one that he committed to, or isn't one.
    """
    parts: list[Contribution] = []
    left: list[Left] = []
    for owner, rows in joined:
        try:
            parts.append(Contribution(owner, terms.rows(delivered(terms, owner, rows))))
        except BadTable as error:
            left.append(Left(owner, str(error)))
    return appraise(terms.study, parts, terms.held_out, beacon), left


def delivered(terms: Terms, owner: Address, rows: Digest) -> bytes:
    """
    Raises:
        BadTable: it isn't here, or is another than was committed to.
    """
    given = terms.given(owner)
    if given is None or not given.rows or not (terms.folder / given.rows).exists():
        raise BadTable("it gave no table")
    try:
        data = read(terms.folder / given.rows)
    except Failure as error:
        raise BadTable(error.what) from None
    if blake3(data).digest() != rows:
        raise BadTable("it gave another table than it committed to")
    return data


def read(path: Path) -> bytes:
    """
    Raises:
        Failure: it can't be read, or is too large.
    """
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise Failure(f"{path} is larger than {MOST_FILE_BYTES >> 20} MiB", next="give fewer rows")
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"{path} can't be read", error.strerror or "", code=Exit.NOT_FOUND) from None


def table_of(data: bytes, label: str, features: Sequence[str] | None) -> Table:
    """
    Args:
        features: the columns that count beside the label, in this order; None: all there are.

    Raises:
        BadTable.
    """
    try:
        names, *lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadTable(f"it is no table: {error}") from None
    wanted = [it for it in names if it != label] if features is None else list(features)
    if label not in names or len(set(names)) != len(names) or not wanted or not set(wanted) <= set(names):
        raise BadTable(
            f"no column {label!r}, other columns than are asked for, or one twice: {', '.join(names[:8])}"
        )
    at, places = names.index(label), [names.index(it) for it in wanted]
    try:
        rows = [[float(line[place]) for place in places] for line in lines if line]
        values = np.array(rows, np.float64).reshape(len(rows), len(wanted))
        labels = [line[at] for line in lines if line]
    except (ValueError, IndexError) as error:
        raise BadTable(f"a line isn't numbers and a label: {error}") from None
    return Table(tuple(wanted), values, labels)


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
