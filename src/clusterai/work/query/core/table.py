"""Columns as a vault hands them over, read into numbers: a cell that the schema doesn't allow counts as null, never as an error.

An error would tell something about the data to who asked.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterai.vault.core.schema import Column, Schema
from clusterai.work.query.core.plan import Both, Compare, Either, Filter, IsNull, Key, Negated, OneOf

Raw = NDArray[Any]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]


class Table:
    """Rows that are asked, by column.

    Args:
        columns: name to array, as `Vault.columns` gives them; all of one length.
    """

    def __init__(self, schema: Schema, columns: Mapping[str, Raw], rows: int) -> None:
        assert all(len(column) == rows for column in columns.values())
        self.rows = rows
        self._schema, self._raw = schema, columns
        self._read: dict[str, tuple[Floats, Flags]] = {}

    def numbers(self, name: str) -> tuple[Floats, Flags]:
        """(values, whether there is one); categories by their place, dates in days, bools as 0 and 1."""
        if name not in self._read:
            self._read[name] = numbers_of(self._schema.column(name), self._raw[name])
        return self._read[name]

    def units(self, name: str) -> Codes:
        """Whose each row is, as numbers; a row without a unit is its own."""
        raw = self._raw[name]
        empty = _empty(raw)
        texts = np.where(empty, "", raw.astype(str)) if raw.dtype == object else raw.astype(str)
        _, codes = np.unique(texts, return_inverse=True)
        codes = codes.astype(np.int64)
        codes[empty] = len(codes) + np.flatnonzero(empty)
        return codes

    def groups(self, keys: tuple[Key, ...]) -> Codes:
        """The number of each row's group, -1 where it belongs to none."""
        found = np.zeros(self.rows, np.int64)
        outside = np.zeros(self.rows, np.bool_)
        for key in keys:
            values, there = self.numbers(key.column)
            column = self._schema.column(key.column)
            bounds = column.bounds
            if key.buckets:
                assert bounds is not None, "buckets are parts of declared bounds"
                at = bins_of(values, bounds[0], bounds[1], key.buckets)
            else:
                at = (values - (bounds[0] if column.kind == "int" and bounds else 0)).astype(np.int64)
            outside |= ~there | (at < 0) | (at >= len(key.labels))
            found = found * len(key.labels) + np.where(outside, 0, at)
        found[outside] = -1
        return found

    def kept(self, where: Filter | None) -> Flags:
        """Rows for which the filter is true; what compares with null is neither true nor false, as in SQL."""
        if where is None:
            return np.ones(self.rows, np.bool_)
        return self._truth(where)[0]

    def _truth(self, where: Filter) -> tuple[Flags, Flags]:
        """(true, false)"""
        match where:
            case Both(parts) | Either(parts):
                both = isinstance(where, Both)
                truths = [self._truth(part) for part in parts]
                yes = np.stack([it[0] for it in truths])
                no = np.stack([it[1] for it in truths])
                all_of, any_of = np.logical_and.reduce, np.logical_or.reduce
                return (all_of(yes), any_of(no)) if both else (any_of(yes), all_of(no))
            case Negated(part):
                yes, no = self._truth(part)
                return no, yes
            case IsNull(name):
                there = self.numbers(name)[1]
                return ~there, there
            case OneOf(name, wanted):
                values, there = self.numbers(name)
                found = np.isin(values, [self._constant(name, value) for value in wanted])
                return found & there, ~found & there
            case Compare(name, how, value):
                values, there = self.numbers(name)
                constant = self._constant(name, value)
                found: Flags
                match how:
                    case "=":
                        found = values == constant
                    case "<>":
                        found = values != constant
                    case "<":
                        found = values < constant
                    case "<=":
                        found = values <= constant
                    case ">":
                        found = values > constant
                    case ">=":
                        found = values >= constant
                return found & there, ~found & there

    def _constant(self, name: str, value: Any) -> float:
        column = self._schema.column(name)
        return float(column.categories.index(value)) if column.kind == "category" else float(value)


def numbers_of(column: Column, raw: Raw) -> tuple[Floats, Flags]:
    """See `Table.numbers`."""
    empty = _empty(raw)
    values = np.zeros(len(raw), np.float64)
    if column.kind == "category":
        texts = np.where(empty, "", raw).astype(str)
        different, codes = np.unique(texts, return_inverse=True)
        places = {category: at for at, category in enumerate(column.categories)}
        values = np.array([places.get(str(text), -1) for text in different], np.float64)[codes]
        return values, ~empty & (values >= 0)
    if column.kind == "date":
        if raw.dtype.kind in "iuf":
            values = raw.astype(np.float64)
        else:
            texts = np.where(empty, "1970-01-01", raw.astype(str) if raw.dtype.kind == "M" else raw)
            values = texts.astype("datetime64[D]").astype(np.int64).astype(np.float64)
    elif raw.dtype == object:
        values = np.where(empty, 0, raw).astype(np.float64)
    else:
        values = raw.astype(np.float64)
    there = ~empty & ~np.isnan(values)
    return np.where(there, values, 0.0), there


def bins_of(values: Floats, low: float, high: float, bins: int) -> Codes:
    """Which of equal parts of the bounds; what lies outside belongs to the outermost."""
    share = (np.clip(values, low, high) - low) / (high - low)
    return np.minimum((share * bins).astype(np.int64), bins - 1)


def _empty(raw: Raw) -> Flags:
    if raw.dtype == object:
        return np.array([value is None or value != value for value in raw], np.bool_)
    if raw.dtype.kind == "f":
        return np.isnan(raw)
    if raw.dtype.kind == "M":
        return np.isnat(raw)
    return np.zeros(len(raw), np.bool_)
