"""Ethereum's serialisation, strictly: every value has one spelling, and bytes in another are refused.

By hand because the `rlp` package takes four times as long, and both ends of the chain's wire need it for every
transaction. Source: Ethereum yellow paper, appendix B.
"""

from typing import TypeAlias

Rlp: TypeAlias = "bytes | list[Rlp]"

_MAX_DEPTH = 4
"""An access list inside a transaction needs three."""


class BadRlp(ValueError):
    """These bytes are no RLP: {why}."""


def integer_bytes(value: int) -> bytes:
    """Shortest big-endian form; zero is no bytes at all."""
    return value.to_bytes((value.bit_length() + 7) // 8)


def encode_rlp(item: Rlp) -> bytes:
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _length(len(item), 0x80) + item
    body = b"".join(map(encode_rlp, item))
    return _length(len(body), 0xC0) + body


def decode_rlp(data: bytes) -> Rlp:
    """The one item that `data` is.

    Raises:
        BadRlp: cut short, followed by more, not in the shortest form, or nested too deep.
    """
    item, end = _decode(data, 0, len(data), 0)
    if end != len(data):
        raise BadRlp("rlp: bytes after the end")
    return item


def _length(size: int, offset: int) -> bytes:
    if size < 56:
        return bytes((offset + size,))
    digits = integer_bytes(size)
    return bytes((offset + 55 + len(digits),)) + digits


def _decode(data: bytes, at: int, limit: int, depth: int) -> tuple[Rlp, int]:
    if at >= limit or depth > _MAX_DEPTH:
        raise BadRlp("rlp: too short or too deep")
    head = data[at]
    if head < 0x80:
        return data[at : at + 1], at + 1
    offset = 0x80 if head < 0xC0 else 0xC0
    start, end = _span(data, at, limit, head - offset)
    if offset == 0x80:
        body = data[start:end]
        if len(body) == 1 and body[0] < 0x80:
            raise BadRlp("rlp: a small byte with a length")
        return body, end
    items: list[Rlp] = []
    while start < end:
        item, start = _decode(data, start, end, depth + 1)
        items.append(item)
    return items, end


def _span(data: bytes, at: int, limit: int, size: int) -> tuple[int, int]:
    start = at + 1
    if size >= 56:
        digits = data[start : start + size - 55]
        start += size - 55
        size = int.from_bytes(digits)
        if start > limit or digits[:1] == b"\0" or size < 56:
            raise BadRlp("rlp: a length that is not the shortest")
    if start + size > limit:
        raise BadRlp("rlp: a length past the end")
    return start, start + size
