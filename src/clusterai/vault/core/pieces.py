"""Rows in columns: how a piece of a vault is written, and what programs get of it.

| kind | on disk | in memory |
|---|---|---|
| int | 8 bytes each | int64; float64 with NaN where nulls may be |
| float | 8 bytes | float64; null is NaN |
| bool | 1 byte | bool; float64 with NaN where nulls may be |
| date | 4 bytes, days since 1970 | datetime64[D]; null is NaT |
| category | 4 bytes, its place in the schema | object: str or None |
| text | its characters | object: str or None |
| array | its elements | (rows, *shape) of its dtype |

Nothing decides here by a value: a piece is as long as its rows make it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clusterai.vault.core.schema import Column, Schema, Value, days

PIECE_ROWS = 4_096
PIECE_BYTES = 4 << 20
"""A piece ends at whichever comes first."""
_INT_NULL = -(2**63)
_DATE_NULL = -(2**31)

Raw = bytes | list[str | None]


class Piece(msgspec.Struct, frozen=True):
    """So many rows. `columns`: each as it lies in the file."""

    rows: int
    columns: dict[str, Raw]


class BadPiece(ValueError):
    """A piece isn't of this schema: {why}."""


def pieces_of(schema: Schema, rows: Iterable[Mapping[str, Any]]) -> Iterator[Piece]:
    """Rows, whose cells were read by `schema.cell` (arrays: numpy arrays), in pieces."""
    held: list[Mapping[str, Any]] = []
    size = 0
    row_bytes = sum(
        _width(column) * int(np.prod(column.shape or (1,), dtype=np.int64)) for column in schema.columns
    )
    texts = [column.name for column in schema.columns if column.kind == "text"]
    for row in rows:
        held.append(row)
        size += row_bytes + sum(len(row[name] or "") for name in texts)
        if len(held) >= PIECE_ROWS or size >= PIECE_BYTES:
            yield _piece(schema, held)
            held, size = [], 0
    if held:
        yield _piece(schema, held)


def _width(column: Column) -> int:
    return {"uint8": 1, "float32": 4}.get(column.dtype, 8)


def _piece(schema: Schema, rows: list[Mapping[str, Any]]) -> Piece:
    return Piece(
        len(rows),
        {column.name: _raw(column, [row[column.name] for row in rows]) for column in schema.columns},
    )


def _raw(column: Column, cells: list[Any]) -> Raw:
    match column.kind:
        case "int":
            return np.array([_INT_NULL if it is None else it for it in cells], "<i8").tobytes()
        case "float":
            return np.array([np.nan if it is None else it for it in cells], "<f8").tobytes()
        case "bool":
            return bytes(2 if it is None else int(it) for it in cells)
        case "date":
            return np.array([_DATE_NULL if it is None else days(it) for it in cells], "<i4").tobytes()
        case "category":
            place = {name: at for at, name in enumerate(column.categories)}
            return np.array([-1 if it is None else place[it] for it in cells], "<i4").tobytes()
        case "text":
            return list(cells)
        case "array":
            return np.ascontiguousarray(np.stack(cells), dtype=np.dtype(column.dtype)).tobytes()


def encode_piece(piece: Piece) -> bytes:
    return msgspec.msgpack.encode(piece)


def decode_piece(schema: Schema, data: bytes, names: Sequence[str] | None = None) -> Piece:
    """
    Raises:
        BadPiece.
    """
    try:
        piece = msgspec.msgpack.decode(data, type=Piece)
    except msgspec.MsgspecError as error:
        raise BadPiece(str(error)) from None
    wanted = schema.names if names is None else names
    if not set(wanted) <= set(piece.columns):
        raise BadPiece("a piece lacks a column")
    return Piece(piece.rows, {name: piece.columns[name] for name in wanted})


def read(column: Column, raw: Raw) -> NDArray[Any]:
    """A column of a piece as programs get it; see the module's table."""
    if column.kind == "text":
        return _objects(raw)
    assert isinstance(raw, bytes), "only texts are lists"
    match column.kind:
        case "int":
            whole = np.frombuffer(raw, "<i8")
            return np.where(whole == _INT_NULL, np.nan, whole) if column.nullable else whole.astype(np.int64)
        case "float":
            return np.frombuffer(raw, "<f8").astype(np.float64)
        case "bool":
            flags = np.frombuffer(raw, np.uint8)
            return np.where(flags == 2, np.nan, flags.astype(float)) if column.nullable else flags == 1
        case "date":
            since = np.frombuffer(raw, "<i4")
            dates = since.astype("datetime64[D]")
            dates[since == _DATE_NULL] = np.datetime64("NaT")
            return dates
        case "category":
            places = np.frombuffer(raw, "<i4")
            return np.array([*column.categories, None], dtype=object)[places]
        case "array":
            return np.frombuffer(raw, np.dtype(column.dtype)).reshape(-1, *column.shape)


def _objects(cells: Iterable[Any]) -> NDArray[Any]:
    listed = list(cells)
    found = np.empty(len(listed), dtype=object)
    found[:] = listed
    return found


def joined(schema: Schema, pieces: Iterable[Piece], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Whole columns."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for piece in pieces:
        for name in names:
            parts[name].append(read(schema.column(name), piece.columns[name]))
    return {
        name: np.concatenate(found)
        if found
        else read(schema.column(name), [] if schema.column(name).kind == "text" else b"")
        for name, found in parts.items()
    }


def rows_of(schema: Schema, pieces: Iterable[Piece]) -> Iterator[dict[str, Value]]:
    """Rows as they are written to a CSV: without arrays; dates as ISO texts."""
    plain = [column for column in schema.columns if column.kind != "array"]
    for piece in pieces:
        columns = {column.name: read(column, piece.columns[column.name]) for column in plain}
        for at in range(piece.rows):
            yield {column.name: _cell(column, columns[column.name][at]) for column in plain}


def _cell(column: Column, value: Any) -> Value:
    if value is None or (column.kind == "date" and np.isnat(value)):
        return None
    if column.kind in ("text", "category"):
        return str(value)
    if column.kind == "date":
        return str(value)
    if value != value:
        return None
    return {"int": int, "float": float, "bool": bool}[column.kind](value)
