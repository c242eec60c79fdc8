"""A mock twin: rows that look like a vault's and know nothing of it, for others to write their programs against.

They follow from the declared schema and a seed, and from nothing else: this module can't be handed the data. So a mock tells of the data what
the schema tells, no correlation, no frequency, no mean.
"""

import csv
import datetime
import io
from random import Random
from typing import Any

from clusterai.vault.core.schema import EPOCH_DAY, Column, Schema, Value

MOCK_ROWS = 100
NULLS = 0.05
"""Of a nullable column: often enough that a program meets one."""
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heron", "iris", "juniper")


def mock_rows(
    schema: Schema, rows: int = MOCK_ROWS, seed: int = 0, arrays: bool = True
) -> list[dict[str, Any]]:
    """Rows of the schema's columns; arrays as nested lists. The same for the same schema, count and seed, on every machine."""
    found: list[dict[str, Any]] = []
    drawn = Random(f"clusterai mock {seed} {schema.digest().hex()}")  # noqa: S311  nothing here is secret
    for at in range(rows):
        row: dict[str, Any] = {}
        for column in schema.columns:
            if column.kind == "array" and not arrays:
                continue
            if column.name == schema.unit:
                row[column.name] = _unit(column, at // schema.unit_rows)
            else:
                row[column.name] = _mock(column, drawn)
        found.append(row)
    return found


def mock_csv(schema: Schema, rows: int = MOCK_ROWS, seed: int = 0) -> bytes:
    """The same as CSV. Columns of arrays aren't in it: they are files of their own in a vault, too."""
    names = [column.name for column in schema.columns if column.kind != "array"]
    text = io.StringIO()
    out = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    out.writeheader()
    out.writerows(mock_rows(schema, rows, seed, arrays=False))
    return text.getvalue().encode()


def _unit(column: Column, person: int) -> Value:
    if column.kind == "int":
        low = int(column.low) if isinstance(column.low, int | float) else 0
        return low + person
    if column.kind == "category":
        return column.categories[person % len(column.categories)]
    return f"person-{person}" if column.kind == "text" else None


def _mock(column: Column, drawn: Random) -> Any:
    if column.nullable and drawn.random() < NULLS:
        return None
    low, high = column.bounds or (0.0, 100.0)
    match column.kind:
        case "int":
            return drawn.randint(int(low), int(high))
        case "float":
            return round(drawn.uniform(low, high), 6)
        case "bool":
            return drawn.random() < 0.5
        case "category":
            return drawn.choice(column.categories)
        case "date":
            if column.bounds is None:
                low, high = 10_957.0, 21_914.0
            return (EPOCH_DAY + datetime.timedelta(days=drawn.randint(int(low), int(high)))).isoformat()
        case "text":
            most = int(column.high) if isinstance(column.high, int | float) else 40
            return " ".join(drawn.choices(_WORDS, k=5))[: max(1, most)]
        case "array":
            return _array(column.shape, column.dtype, drawn)


def _array(shape: tuple[int, ...], dtype: str, drawn: Random) -> Any:
    if not shape:
        if dtype == "uint8":
            return drawn.randrange(256)
        return drawn.randrange(1_000) if dtype == "int64" else round(drawn.random(), 6)
    return [_array(shape[1:], dtype, drawn) for _ in range(shape[0])]
