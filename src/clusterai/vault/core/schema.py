"""What the columns of a vault are: declared by its owner, published, and never computed again from the data behind it.

Everything here is public: names, kinds, bounds, categories. Bounds are what a differentially private sum is calibrated to, so a value
outside of them is clamped by whoever computes, and whoever declares them tells the world that much. `unit` names the column that says whose row it
is; the budget protects all rows of one person, `unit_rows` of them at most.
"""

import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest

MOST_COLUMNS = 1_024
MOST_CATEGORIES = 1_024
MOST_BOUND = 1e18
MOST_SCHEMA_BYTES = 1 << 20
EPOCH_DAY = datetime.date(1970, 1, 1)

Kind = Literal["int", "float", "text", "bool", "category", "date", "array"]
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,62}\Z")]
Words = Annotated[str, Meta(max_length=256)]
Anonymised = Literal["", "usual", "strict"]
Value = int | float | str | bool | None
"""A cell as it is read and written: dates are ISO texts."""


class BadSchema(ValueError):
    """The schema can't be used: {why}."""


class Column(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One column.

    Attributes:
        access: `public` may be shown as it is, whoever asks; `private` leaves the vault through the budget alone.
        low, high: of numbers, and of dates as ISO texts; inclusive. For a text, `high` is its most characters.
        categories: of a category, all values that there are.
        shape, dtype: of each row of an array.
        anonymised: personal data was taken out of this text before it was put in, as well as that can be done.
        guessed: bounds or categories were taken from the data when the vault was made, and its owner let them stand.
    """

    name: Name
    kind: Kind
    about: Words = ""
    access: Literal["private", "public"] = "private"
    nullable: bool = False
    low: int | float | str | None = None
    high: int | float | str | None = None
    categories: Annotated[tuple[Words, ...], Meta(max_length=MOST_CATEGORIES)] = ()
    shape: Annotated[tuple[Annotated[int, Meta(ge=1, le=1 << 20)], ...], Meta(max_length=4)] = ()
    dtype: Literal["", "uint8", "int64", "float32", "float64"] = ""
    anonymised: Anonymised = ""
    guessed: bool = False

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Of a number, a bool, or a date in days since 1970; None where none were declared."""
        if self.kind == "bool":
            return (0.0, 1.0)
        if self.low is None or self.high is None or self.kind not in ("int", "float", "date"):
            return None
        if self.kind == "date":
            return float(days(str(self.low))), float(days(str(self.high)))
        return float(self.low), float(self.high)

    def check(self) -> None:
        """
        Raises:
            BadSchema.
        """
        if self.kind in ("int", "float", "date"):
            for bound in (self.low, self.high):
                if bound is not None and isinstance(bound, str) != (self.kind == "date"):
                    raise BadSchema(f"column {self.name}: a bound of kind {self.kind} can't be {bound!r}")
            if (self.low is None) != (self.high is None):
                raise BadSchema(f"column {self.name}: give both low and high, or neither")
            found = self.bounds
            if found is not None and not found[0] <= found[1]:
                raise BadSchema(f"column {self.name}: low {self.low} is above high {self.high}")
            if found is not None and not -MOST_BOUND < found[0] <= found[1] < MOST_BOUND:
                raise BadSchema(f"column {self.name}: bounds are within ±{MOST_BOUND:g}")
        if (self.kind == "category") != bool(self.categories):
            raise BadSchema(f"column {self.name}: categories belong to kind category, and to it alone")
        if len(set(self.categories)) != len(self.categories):
            raise BadSchema(f"column {self.name}: a category stands twice")
        if self.anonymised and self.kind != "text":
            raise BadSchema(f"column {self.name}: only texts are anonymised")
        if (self.kind == "array") != bool(self.shape and self.dtype):
            raise BadSchema(f"column {self.name}: shape and dtype belong to kind array, and to it alone")


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All columns of a vault.

    Attributes:
        unit: the column that says whose a row is; empty where each row is somebody else's.
        unit_rows: how many rows of one person a computation may count: what a person can move at most.
    """

    columns: Annotated[tuple[Column, ...], Meta(min_length=1, max_length=MOST_COLUMNS)]
    unit: Annotated[str, Meta(max_length=63)] = ""
    unit_rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 1

    def column(self, name: str) -> Column:
        """
        Raises:
            KeyError: there is none of that name.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def check(self) -> None:
        """
        Raises:
            BadSchema.
        """
        for column in self.columns:
            column.check()
        if len({name.lower() for name in self.names}) != len(self.columns):
            raise BadSchema("two columns have one name (upper and lower case are not told apart)")
        if self.unit and self.unit not in self.names:
            raise BadSchema(f"the unit {self.unit} is no column")

    def digest(self) -> Digest:
        return canonical.content_digest(msgspec.json.encode(self))


def days(text: str) -> int:
    """Days since 1970 of an ISO date.

    Raises:
        BadSchema.
    """
    try:
        return (datetime.date.fromisoformat(text) - EPOCH_DAY).days
    except ValueError:
        raise BadSchema(f"{text[:40]!r} is no date such as 2026-03-31") from None


def read_schema(data: bytes) -> Schema:
    """
    Raises:
        BadSchema: too long, not JSON, another shape, or it contradicts itself.
    """
    if len(data) > MOST_SCHEMA_BYTES:
        raise BadSchema(f"it has {len(data)} bytes, and {MOST_SCHEMA_BYTES} are the most")
    try:
        schema = msgspec.json.decode(data, type=Schema)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise BadSchema(str(error)) from None
    schema.check()
    return schema


def write_schema(schema: Schema) -> bytes:
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


class BadCell(ValueError):
    """{text!r} is no {kind}: column {name}."""

    def __init__(self, column: Column, text: object) -> None:
        # Never the value: an error may travel further than the data may.
        super().__init__(
            f"column {column.name} holds a value that is no {column.kind}, of {len(str(text))} characters"
        )


_TRUE, _FALSE = {"true", "1", "yes", "t", "y"}, {"false", "0", "no", "f", "n"}


def cell(column: Column, given: Value) -> Value:
    """A cell as the column says, from a text (of a CSV) or a JSON value. Empty is null.

    Raises:
        BadCell: of another kind, null where that isn't declared, or a category that isn't.
    """
    if given is None or given == "":
        if not column.nullable and not (column.kind == "text" and given == ""):
            raise BadCell(column, given)
        return "" if column.kind == "text" and not column.nullable else None
    try:
        return _read(column, given)
    except (ValueError, OverflowError):
        raise BadCell(column, given) from None


def _read(column: Column, given: int | float | str | bool) -> Value:
    match column.kind:
        case "int":
            whole = int(given)
            if (isinstance(given, float) and not given.is_integer()) or not -(2**63) < whole < 2**63:
                raise ValueError
            return whole
        case "float":
            return float(given)
        case "bool":
            text = str(given).strip().lower()
            if text not in _TRUE | _FALSE:
                raise ValueError
            return text in _TRUE
        case "date":
            return datetime.date.fromisoformat(str(given).strip()[:10]).isoformat()
        case "category":
            if str(given) not in column.categories:
                raise ValueError
            return str(given)
        case "text":
            return str(given)
        case "array":
            raise ValueError
