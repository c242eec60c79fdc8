"""Flower's records as bytes that both sides can trust to be data: no pickle, no protobuf, no code.

    b"CFR1" · length of the header (4 bytes) · header, JSON · blobs, one after another

This file is read on both sides of the sandbox's wall, with different versions of everything, so it needs the standard library and numpy
only. What comes out of a sandbox was written by a stranger's program: `decode` bounds it, and makes nothing but arrays of plain numbers,
numbers, texts and bytes.
"""

import json
import struct
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

MAGIC = b"CFR1"
DTYPES = ("<f2", "<f4", "<f8", "|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8")
MOST_BYTES = 60 << 20
"""Of one message's records: a call carries 64 MiB."""
MOST_HEADER = 4 << 20
MOST_RECORDS = 64
MOST_ITEMS = 10_000
"""In one record."""
MOST_NAME = 256
MOST_LIST = 10_000
MOST_DIMENSIONS = 8

Array: TypeAlias = npt.NDArray[Any]
Scalar: TypeAlias = int | float | bool | str | bytes
Item: TypeAlias = Array | int | float | bool | str | bytes | list[Scalar]
Record: TypeAlias = tuple[str, dict[str, Item]]
"""(`arrays`, `metrics` or `config`, its items)."""
Records: TypeAlias = dict[str, Record]
KINDS = ("arrays", "metrics", "config")


class BadRecords(ValueError):
    """These bytes are no records: {why}."""


def encode(records: Records) -> bytes:
    """
    Raises:
        BadRecords: something that records can't hold.
    """
    blobs: list[bytes] = []
    header = [
        [name, kind, [[key, _spelled(item, blobs)] for key, item in items.items()]]
        for name, (kind, items) in records.items()
    ]
    head = json.dumps(header, separators=(",", ":")).encode()
    return b"".join((MAGIC, struct.pack(">I", len(head)), head, *blobs))


def _spelled(item: Item, blobs: list[bytes]) -> list[Any]:
    if isinstance(item, np.ndarray):
        plain = np.ascontiguousarray(item)
        plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
        if plain.dtype.str not in DTYPES:
            raise BadRecords(f"an array of {plain.dtype}; numbers and bools can be sent")
        blobs.append(plain.tobytes())
        return ["a", plain.dtype.str, list(item.shape)]
    if isinstance(item, bytes):
        blobs.append(item)
        return ["y", len(item)]
    if isinstance(item, list):
        return ["l", [_spelled(one, blobs) for one in item]]
    if isinstance(item, bool):
        return ["b", item]
    if isinstance(item, int):
        return ["i", str(item)]
    if isinstance(item, float):
        return ["f", item.hex()]
    return ["s", str(item)]


def decode(data: bytes, most_bytes: int = MOST_BYTES) -> Records:
    """
    Raises:
        BadRecords: longer than `most_bytes`, or not what `encode` makes.
    """
    if len(data) > most_bytes:
        raise BadRecords(f"{len(data)} bytes, at most {most_bytes} are taken")
    if len(data) < 8 or data[:4] != MAGIC:
        raise BadRecords("they don't begin as records do")
    (length,) = struct.unpack(">I", data[4:8])
    if length > MOST_HEADER or 8 + length > len(data):
        raise BadRecords("the header is cut off, or too long")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        raise BadRecords("the header is no JSON") from None
    reader = _Reader(memoryview(data)[8 + length :])
    found: Records = {}
    for entry in _list(header, MOST_RECORDS):
        name, kind, items = _parts(entry, 3)
        if kind not in KINDS or _name(name) in found:
            raise BadRecords(f"a record of kind {str(kind)[:20]!r}, or a name twice")
        record: dict[str, Item] = {}
        for pair in _list(items, MOST_ITEMS):
            key, spelled = _parts(pair, 2)
            if _name(key) in record:
                raise BadRecords(f"the name {key!r} stands twice")
            item = reader.item(spelled)
            if isinstance(item, np.ndarray) != (kind == "arrays"):
                raise BadRecords(f"{key!r} doesn't belong into {kind}")
            record[key] = item
        found[name] = (kind, record)
    reader.end()
    return found


class _Reader:
    def __init__(self, blobs: memoryview) -> None:
        self._blobs = blobs
        self._at = 0

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._blobs) - self._at:
            raise BadRecords("blobs are cut off")
        self._at += size
        return bytes(self._blobs[self._at - size : self._at])

    def end(self) -> None:
        if self._at != len(self._blobs):
            raise BadRecords(f"{len(self._blobs) - self._at} bytes that nothing names")

    def item(self, spelled: Any, depth: int = 0) -> Item:
        parts = _list(spelled, 3)
        match parts:
            case ["a", str(dtype), shape] if depth == 0:
                return self._array(dtype, _list(shape, MOST_DIMENSIONS))
            case ["y", int(size)]:
                return self.take(size)
            case ["l", items] if depth == 0:
                return cast("list[Scalar]", [self.item(one, 1) for one in _list(items, MOST_LIST)])
            case ["b", bool(value)]:
                return value
            case ["i", str(text)]:
                return _integer(text)
            case ["f", str(text)]:
                try:
                    return float.fromhex(text)
                except (ValueError, OverflowError):
                    raise BadRecords("a number that is none") from None
            case ["s", str(text)]:
                return text
            case _:
                raise BadRecords(f"an item {str(parts)[:60]!r}")

    def _array(self, dtype: str, shape: list[Any]) -> Array:
        if dtype not in DTYPES:
            raise BadRecords(f"an array of {dtype[:20]!r}")
        count = 1
        for side in shape:
            if type(side) is not int or not 0 <= side <= MOST_BYTES:
                raise BadRecords("an array's side is out of bounds")
            count *= side
            if count > MOST_BYTES:
                raise BadRecords("an array is too large")
        kind = np.dtype(dtype)
        data = self.take(count * kind.itemsize)
        if dtype == "|b1" and data.strip(b"\0\1"):
            raise BadRecords("an array of bools holds others")
        return np.frombuffer(data, kind).reshape(shape).copy()


def _list(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(cast("list[Any]", value)) > most:
        raise BadRecords(f"a list of at most {most} is missing")
    return cast("list[Any]", value)


def _parts(value: Any, count: int) -> list[Any]:
    parts = _list(value, count)
    if len(parts) != count:
        raise BadRecords(f"{len(parts)} parts, {count} are due")
    return parts


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_NAME:
        raise BadRecords("a name is missing, or too long")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit():
        raise BadRecords("a whole number that is none")
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise BadRecords("a whole number of more than 64 bits")
    return value
