"""Frames between the ServerApp's process and ours: a JSON head and blobs, each with its length before it.

frame: length of the head (4 bytes) · head · for each number in head["sizes"]: a blob
"""

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

MOST_HEAD = 4 << 20
MOST_BLOBS = 1024
MOST_BLOB = 64 << 20


class Closed(EOFError):
    """The other side is gone."""


def packed(head: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    text = json.dumps({**head, "sizes": [len(blob) for blob in blobs]}).encode()
    return b"".join((struct.pack(">I", len(text)), text, *blobs))


def head_of(text: bytes) -> tuple[dict[str, Any], list[int]]:
    """
    Raises:
        ValueError: not a frame's head.
    """
    parsed: Any = json.loads(text)
    if not isinstance(parsed, dict):
        raise TypeError("not a frame's head")
    head = cast("dict[str, Any]", parsed)
    listed: Any = head.pop("sizes", None)
    if not isinstance(listed, list):
        raise TypeError("a frame's head says the sizes of its blobs")
    sizes = cast("list[Any]", listed)
    if len(sizes) > MOST_BLOBS:
        raise ValueError("too many blobs")
    if any(type(size) is not int or not 0 <= size <= MOST_BLOB for size in sizes):
        raise ValueError("a blob's size is out of bounds")
    return head, sizes


def send(stream: BinaryIO, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    stream.write(packed(head, blobs))
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]]:
    """
    Raises:
        Closed.
    """
    (length,) = struct.unpack(">I", _exactly(stream, 4))
    if length > MOST_HEAD:
        raise ValueError("a frame's head is too long")
    head, sizes = head_of(_exactly(stream, length))
    return head, [_exactly(stream, size) for size in sizes]


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise Closed("the other side is gone")
    return data
