"""Reading what an owner has: CSV, JSON lines, a folder of texts, arrays of numpy.

| given | rows | columns |
|---|---|---|
| `x.csv`, `x.tsv` | lines | of its head; cells end at `,`, or at `;` or a tab where the head has no `,` |
| `x.jsonl` | lines | keys of the first line |
| a folder of `*.txt` | files | `name`, `text` |
| `x.npz`, or a folder of them | first axis, one file after another | the arrays' names |

Names become what SQL and programs can say: `Blood Pressure (mm)` is `Blood_Pressure_mm`.

No Parquet: its reader takes 150 MB of disk, five times the rest of this room together. Whoever has it writes CSV: `duckdb -c "copy 'x.parquet' to 'x.csv'"`.

`NA`, `nan`, `null` and their like (`MISSING`) are missing values where a column holds numbers, dates or yes and no; in texts and categories they are what they are.

Kinds can be guessed from the data; so can bounds and categories, and those are published. What was guessed says so.
"""

import csv
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clusterai.vault.core.schema import MOST_BOUND, MOST_COLUMNS, BadCell, BadSchema, Column, Schema, cell

MOST_TEXT_BYTES = 4 << 20
MOST_LINE_BYTES = 64 << 20
MOST_NAME = 63
MISSING = frozenset(("na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", "?", "."))
"""What programs and people write for a missing value, in whatever case."""
_BARE = frozenset(("int", "float", "bool", "date"))
_KEPT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
GUESSED_CATEGORIES = 32
LEAST_OF_A_CATEGORY = 10
"""A value that fewer rows have isn't published as a category: the column is a text then."""

Rows = Iterator[dict[str, Any]]


class BadData(ValueError):
    """The data can't be read: {why}."""


class Found(msgspec.Struct, frozen=True):
    """What lies there.

    Attributes:
        rows: begins anew at each call.
        arrays: columns that are arrays, with the shape of a row and the type.
    """

    columns: tuple[str, ...]
    rows: Callable[[], Rows]
    arrays: dict[str, tuple[tuple[int, ...], str]] = {}
    texts: frozenset[str] = frozenset()


def find(path: Path) -> Found:
    """
    Raises:
        BadData: nothing is there, or nothing that can be read.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise BadData(f"there is no {path}")
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return _csv(path)
        case ".jsonl" | ".ndjson":
            return _jsonl(path)
        case ".npz":
            return _arrays([path])
        case ".txt":
            return _texts([path])
        case ".parquet":
            raise BadData(
                f"{path}: Parquet isn't read; make a CSV of it: duckdb -c \"copy '{path}' to '{path.with_suffix('.csv')}'\""
            )
        case other:
            raise BadData(
                f"{path}: {other or 'no ending'} isn't read, only .csv, .tsv, .jsonl, .txt and .npz{_instead(other)}"
            )


TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".dcm")


def _instead(ending: str) -> str:
    if ending in IMAGES:
        return (
            "; put images into one array, of one size: numpy.savez('images.npz', image=images, label=labels),"
            " where images[0] is the first"
        )
    if ending in (".xls", ".xlsx", ".ods"):
        return "; save the sheet as CSV (UTF-8)"
    return "; one object a line makes .jsonl of it" if ending == ".json" else ""


def _names(path: Path, given: Iterable[str]) -> tuple[str, ...]:
    """Column names that a schema keeps, in the order of the columns.

    Raises:
        BadData: a column has no name, none that has a letter or a digit, or that of another.
    """
    found: dict[str, str] = {}
    names: list[str] = []
    for at, name in enumerate(given, 1):
        if at > MOST_COLUMNS:
            raise BadData(f"{path} has more than {MOST_COLUMNS} columns: keep those that are asked for")
        shown = repr(name if len(name) <= 40 else name[:40] + "…")
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        kept = name if _KEPT.fullmatch(name) else re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")
        kept = f"_{kept}" if kept[:1].isdigit() else kept
        if not kept:
            raise BadData(
                f"{path}: column {at} is called {shown}; give it a name of letters a to z, digits and _"
            )
        if len(kept) > MOST_NAME:
            raise BadData(f"{path}: the name of column {at}, {shown}, has more than {MOST_NAME} characters")
        if kept.lower() in found:
            raise BadData(
                f"{path}: columns {found[kept.lower()]} and {shown} would both be {kept}: rename one"
                " (upper and lower case are not told apart)"
            )
        found[kept.lower()] = shown
        names.append(kept)
    return tuple(names)


def _folder(path: Path) -> Found:
    for kinds, reader in (((".npz",), _arrays), ((".txt",), _texts)):
        files = sorted(it for it in path.iterdir() if it.suffix.lower() in kinds and it.is_file())
        if files:
            return reader(files)
    tables = sorted(it for it in path.iterdir() if it.suffix.lower() in TABLES)
    if len(tables) == 1:
        return find(tables[0])
    if not tables and any(it.suffix.lower() in IMAGES for it in path.iterdir()):
        raise BadData(f"{path} holds images, which aren't read{_instead(IMAGES[0])}")
    raise BadData(f"{path} holds {len(tables)} tables and no .txt or .npz: name the one file with --from")


def _csv(path: Path) -> Found:
    csv.field_size_limit(MOST_TEXT_BYTES)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline(MOST_LINE_BYTES)
            mark = next((it for it in (",", ";", "\t") if it in first), ",")
            file.seek(0)
            head = next(csv.reader(file, delimiter=mark), None)
    except UnicodeDecodeError:
        raise _no_utf8(path) from None
    except csv.Error as error:
        raise BadData(f"{path}, line 1: {error}") from None
    if not head:
        raise BadData(f"{path} has no head: its first line names the columns")
    names = _names(path, head)

    def rows() -> Rows:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=mark)
            try:
                next(reader)
                for cells in reader:
                    if len(cells) != len(names) and cells:
                        raise BadData(
                            f"{path}, line {reader.line_num}: not as many cells as the head has, {len(cells)} for {len(names)}"
                        )
                    if cells:
                        yield dict(zip(names, cells, strict=True))
            except UnicodeDecodeError:
                raise _no_utf8(path) from None
            except csv.Error as error:
                raise BadData(f"{path}, line {reader.line_num}: {error}") from None

    return Found(names, rows)


def _no_utf8(path: Path) -> BadData:
    with path.open("rb") as file:
        was = "UTF-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
    return BadData(
        f"{path} is no UTF-8 text. If it comes from a spreadsheet: iconv -f {was} -t UTF-8 {path} > utf8{path.suffix}"
    )


def _jsonl(path: Path) -> Found:
    def rows() -> Rows:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = msgspec.json.decode(line, type=dict[str, int | float | str | bool | None])
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise BadData(f"{path}, line {number}: {error}") from None
                yield row

    first = next(rows(), None)
    if not first:
        raise BadData(f"{path} has no rows")
    keys = tuple(first)
    names = _names(path, keys)

    def even() -> Rows:
        for number, row in enumerate(rows(), 1):
            if not row.keys() <= first.keys():
                raise BadData(f"{path}, row {number}: a key that the first row doesn't have")
            yield {name: row.get(key) for key, name in zip(keys, names, strict=True)}

    return Found(names, even)


def _texts(files: list[Path]) -> Found:
    def rows() -> Rows:
        for path in files:
            if path.stat().st_size > MOST_TEXT_BYTES:
                raise BadData(f"{path} is larger than {MOST_TEXT_BYTES} bytes: cut it")
            try:
                yield {"name": path.name, "text": path.read_text(encoding="utf-8")}
            except UnicodeDecodeError:
                raise _no_utf8(path) from None

    return Found(("name", "text"), rows, texts=frozenset(("name", "text")))


def _arrays(files: list[Path]) -> Found:
    def opened(path: Path) -> dict[str, Any]:
        if not zipfile.is_zipfile(path):
            raise BadData(f"{path}: this isn't what numpy.savez writes")
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(zip(_names(path, file.files), (file[name] for name in file.files), strict=True))
        except (
            OSError,
            ValueError,
            EOFError,
            MemoryError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise BadData(f"{path}: {error}") from None

    first = opened(files[0])
    if not first or any(it.ndim == 0 for it in first.values()):
        raise BadData(f"{files[0]}: each array's first axis counts the rows")
    arrays = {
        name: (tuple(it.shape[1:]), _dtype(files[0], it.dtype)) for name, it in first.items() if it.ndim > 1
    }

    def rows() -> Rows:
        for path in files:
            found = opened(path)
            lengths = {len(it) for it in found.values()}
            if found.keys() != first.keys() or len(lengths) != 1:
                raise BadData(f"{path}: not the arrays of {files[0]}, or of different lengths")
            for at in range(lengths.pop()):
                yield {name: it[at] if name in arrays else it[at].item() for name, it in found.items()}

    return Found(tuple(first), rows, arrays)


def _dtype(path: Path, dtype: Any) -> str:
    match dtype.kind:
        case "u" if dtype.itemsize == 1:
            return "uint8"
        case "i" | "u" | "b":
            return "int64"
        case "f":
            return "float32" if dtype.itemsize <= 4 else "float64"
        case _:
            raise BadData(f"{path}: arrays of {dtype} can't be kept")


# --- guessing ---


def is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    return value is None or (isinstance(value, str) and (not value or value.strip().lower() in MISSING))


def guess(found: Found, tell: Callable[[str], None] = lambda _: None) -> Schema:
    """Kinds, and proposals for bounds and categories, which are `guessed`: their owner reads them before they are published.

    Args:
        tell: what the owner should know of it, a sentence each, without any value of the data but marks.

    Raises:
        BadData, BadSchema.
    """
    seen = {name: _Seen() for name in found.columns if name not in found.arrays}
    rows = 0
    for row in found.rows():
        rows += 1
        for name, what in seen.items():
            what.add(row[name], rows)
    if not rows:
        raise BadData("there are no rows")
    columns: list[Column] = []
    for name in found.columns:
        if name in found.arrays:
            shape, dtype = found.arrays[name]
            columns.append(Column(name=name, kind="array", shape=shape, dtype=dtype))  # pyright: ignore[reportArgumentType]
        else:
            columns.append(column := seen[name].column(name, name in found.texts))
            if (word := seen[name].word(column)) is not None:
                tell(word)
    try:
        schema = msgspec.convert(msgspec.to_builtins(Schema(columns=tuple(columns))), Schema)
    except msgspec.ValidationError as error:
        raise BadSchema(f"a column can't be kept: {error}") from None
    schema.check()
    return schema


def _fits(kind: Any, value: Any) -> bool:
    """Stricter than reading by a declared schema: `1` is a number before it is a yes."""
    if kind == "bool":
        return isinstance(value, bool) or str(value).lower() in ("true", "false")
    if isinstance(value, bool) or (kind == "date" and len(str(value)) != 10):
        return False
    try:
        got = cell(Column(name="x", kind=kind), value)
    except BadCell:
        return False
    return not isinstance(got, float) or bool(np.isfinite(got))


class _Seen:
    """What a column was seen to hold."""

    def __init__(self) -> None:
        self.could = {"int", "float", "bool", "date"}
        self.empty = False
        self.marks: dict[str, int] = {}
        self.values = self.odd = self.first_odd = 0
        self.counts: dict[str, int] | None = {}
        self.low, self.high = float("inf"), float("-inf")
        self.first, self.last = "", ""
        self.longest = 0

    def add(self, value: Any, row: int) -> None:
        if value is None or value == "":
            self.empty = True
            return
        text = str(value)
        if self.counts is not None:
            self.counts[text] = self.counts.get(text, 0) + 1
            if len(self.counts) > 1_000:
                self.counts = None
        if is_missing(value):
            mark = text.strip()
            self.marks[mark] = self.marks.get(mark, 0) + 1
            return
        self.values += 1
        self.longest = max(self.longest, len(text))
        self.could = {kind for kind in self.could if _fits(kind, value)}
        if not _fits("float", value):
            self.odd += 1
            self.first_odd = self.first_odd or row
        if "float" in self.could:
            number = float(value)
            self.low, self.high = min(number, self.low), max(number, self.high)
        elif "date" in self.could:
            self.first, self.last = min(text, self.first or text), max(text, self.last)

    def word(self, column: Column) -> str | None:
        """What its owner should know of how it is taken."""
        if column.kind in _BARE and self.marks:
            marks = ", ".join(f"{mark} ({count})" for mark, count in sorted(self.marks.items()))
            return f"{column.name}: {marks} count as missing"
        if column.kind in ("text", "category") and 0 < self.odd <= self.values // 2:
            return (
                f"{column.name} is taken as {column.kind}: {self.odd} of its {self.values} values are no numbers, the first in row"
                f" {self.first_odd}; if it should be numbers, leave those empty"
            )
        return None

    def column(self, name: str, is_text: bool) -> Column:
        empty = self.empty or bool(self.marks)
        if self.longest and not is_text:
            if "bool" in self.could:
                return Column(name=name, kind="bool", nullable=empty)
            if "date" in self.could:
                low, high = f"{self.first[:4]}-01-01", f"{self.last[:4]}-12-31"
                return Column(name=name, kind="date", nullable=empty, low=low, high=high, guessed=True)
            if "float" in self.could:
                low, high = _round(self.low, self.high)
                if not -MOST_BOUND < low <= high < MOST_BOUND:
                    # Nobody's sum needs such bounds; whose does, declares narrower ones.
                    return Column(name=name, kind="float", nullable=empty)
                if "int" in self.could:
                    return Column(
                        name=name, kind="int", nullable=empty, low=int(low), high=int(high), guessed=True
                    )
                return Column(name=name, kind="float", nullable=empty, low=low, high=high, guessed=True)
        counts = self.counts
        if (
            not is_text
            and counts
            and len(counts) <= GUESSED_CATEGORIES
            and min(counts.values()) >= LEAST_OF_A_CATEGORY
        ):
            return Column(
                name=name,
                kind="category",
                nullable=self.empty,
                categories=tuple(sorted(counts)),
                guessed=True,
            )
        return Column(name=name, kind="text", nullable=self.empty and not is_text)


def _round(low: float, high: float) -> tuple[float, float]:
    """Outwards, to what says little of the data: 0, and 1, 2 or 5 times a power of ten."""
    top = _nice(max(abs(low), abs(high)))
    return (-top if low < 0 else 0.0), (top if high > 0 else 0.0)


def _nice(value: float) -> float:
    if value == 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    for step in (1, 2, 5, 10):
        if step * power >= value:
            return float(step * power)
    return float(20 * power)


# --- reading by a schema ---


def read_rows(found: Found, schema: Schema) -> Iterable[dict[str, Any]]:
    """Rows whose cells are what the schema says.

    Raises:
        BadData: a column is missing, or a cell is of another kind; the row's number, never its value.
    """
    missing = set(schema.names) - set(found.columns)
    if missing:
        raise BadData(f"the data has no column {min(missing)}, which the schema declares")
    for number, row in enumerate(found.rows(), 1):
        try:
            yield {column.name: _cell(column, row[column.name]) for column in schema.columns}
        except (BadCell, BadData) as error:
            raise BadData(f"row {number}: {error}") from None


def _cell(column: Column, given: Any) -> Any:
    if column.kind in _BARE and is_missing(given):
        if not column.nullable:
            raise BadData(
                f"column {column.name} has a missing value: say `nullable` in its schema, or leave the row out"
            )
        return None
    if column.kind != "array":
        return cell(column, given)
    array = np.asarray(given)
    if array.shape != column.shape:
        raise BadCell(column, "")
    return array.astype(np.dtype(column.dtype))
