"""Reads what a GGUF file says of itself: metadata and where its tensors are. The weights stay on disk.

The file comes from a stranger. Every length is checked against the bytes that are there before anything is made of it.

Source: the GGUF specification, versions 2 and 3 (ggml-org/ggml, docs/gguf.md).
"""

import struct
from collections.abc import Mapping
from typing import Any

import msgspec

MOST_ENTRIES = 100_000
MOST_ITEMS = 4_000_000
MOST_NESTING = 2

_STRING = 8
_ARRAY = 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}
"""Tensor types by number: name, weights in a block, bytes of a block."""


class BadGguf(ValueError):
    """The file is not a GGUF that can be read; the message says where it breaks. Get it again from its source."""


class Tensor(msgspec.Struct, frozen=True):
    """A tensor's place: `shape` as GGUF writes it (innermost first), `start` from the beginning of the file."""

    name: str
    shape: tuple[int, ...]
    type: int
    start: int
    size: int


class Gguf(msgspec.Struct, frozen=True):
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]

    def text(self, key: str, default: str | None = None) -> str:
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise BadGguf(
                f"metadata {key!r} is missing or not text; convert the model again with a newer converter"
            )
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(key, default)
        if not isinstance(value, int):
            raise BadGguf(
                f"metadata {key!r} is missing or no integer; convert the model again with a newer converter"
            )
        return value


def read(data: bytes | memoryview) -> Gguf:
    """Parse a whole file's bytes (a memory map will do: only the head is touched)."""
    cursor = _Cursor(memoryview(data))
    if bytes(cursor.take(4)) != b"GGUF":
        raise BadGguf("the file doesn't begin with 'GGUF': it is another format; give a .gguf file")
    version = cursor.scalar("I")
    if version not in (2, 3):
        raise BadGguf(f"GGUF version {version} is not 2 or 3; convert the model again")
    tensor_count = cursor.count("Q", MOST_ENTRIES)
    entry_count = cursor.count("Q", MOST_ENTRIES)
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("I"), MOST_NESTING)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= 65_536:
        raise BadGguf(f"alignment {alignment!r} makes no sense; the file is damaged")
    found = [_tensor_head(cursor) for _ in range(tensor_count)]
    base = -(-cursor.at // alignment) * alignment
    tensors: list[Tensor] = []
    for name, shape, kind, offset in found:
        size = _size(name, shape, kind)
        if base + offset + size > len(cursor.data):
            raise BadGguf(f"tensor {name!r} ends past the file's end: the download was cut; get it again")
        tensors.append(Tensor(name, shape, kind, base + offset, size))
    return Gguf(metadata, tuple(tensors))


def _tensor_head(cursor: "_Cursor") -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string()
    shape = tuple(cursor.scalar("Q") for _ in range(cursor.count("I", 4)))
    return name, shape, cursor.scalar("I"), cursor.scalar("Q")


def _size(name: str, shape: tuple[int, ...], kind: int) -> int:
    if kind not in TYPES:
        raise BadGguf(f"tensor {name!r} has type {kind}, which isn't supported; use one of {_names()}")
    _, weights, width = TYPES[kind]
    count = 1
    for side in shape:
        count *= side
    return count // weights * width


def _names() -> str:
    return ", ".join(name for name, _, _ in TYPES.values())


class _Cursor:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> memoryview:
        end = self.at + size
        if end > len(self.data):
            raise BadGguf(
                f"the file ends at byte {len(self.data)} where {size} more were announced: get it again"
            )
        part = self.data[self.at : end]
        self.at = end
        return part

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, code: str, most: int) -> int:
        number = self.scalar(code)
        if number > most:
            raise BadGguf(f"{number} entries announced, at most {most} are sane; the file is damaged")
        return number

    def string(self) -> str:
        return bytes(self.take(self.count("Q", 16_000_000))).decode("utf-8", "surrogateescape")

    def value(self, kind: int, nesting: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind != _ARRAY or nesting == 0:
            raise BadGguf(f"metadata of unknown type {kind}; convert the model again")
        item = self.scalar("I")
        count = self.count("Q", MOST_ITEMS)
        if item in _SCALARS:
            code = f"<{count}{_SCALARS[item]}"
            return list(struct.unpack(code, self.take(struct.calcsize(code))))
        return [self.value(item, nesting - 1) for _ in range(count)]
