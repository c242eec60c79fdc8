"""Vectors of integers modulo 2^bits: packing, masks, commitments.

On the wire a value takes exactly `bits` bits, little-endian in both senses; in memory the next larger of 32 and 64, whose
natural overflow is a multiple of the modulus. A mask is a key stream read as such words: its low bits are what is used.
"""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clusterai.protocol import merkle
from clusterai.protocol.canonical import content_digest
from clusterai.protocol.ids import Digest
from clusterai.vault.core.secagg.messages import CHUNK
from clusterai.vault.core.secagg.primitives import Primitives

Words = npt.NDArray[np.unsignedinteger[Any]]
_BLOCK = 1 << 16
_STREAM = 1 << 18
"""Values whose mask is made at once: 1 or 2 MiB of key stream, which stays in the cache."""


def word(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    return np.dtype("<u4") if bits <= 32 else np.dtype("<u8")


def packed_size(length: int, bits: int) -> int:
    return (length * bits + 7) // 8


def wrap(values: npt.NDArray[np.int64], bits: int) -> Words:
    """Signed integers as residues."""
    raw = values.astype(np.int64).view(np.uint64)
    return reduce(raw.astype(word(bits)), bits)


def lift(values: Words, bits: int) -> npt.NDArray[np.int64]:
    """Residues as the signed integers nearest to zero: [-2^(bits-1), 2^(bits-1))."""
    spare = np.uint64(64 - bits)
    return (values.astype(np.uint64) << spare).view(np.int64) >> np.int64(spare)


def reduce(values: Words, bits: int) -> Words:
    if bits == values.dtype.itemsize * 8:
        return values
    return values & values.dtype.type((1 << bits) - 1)


def pack(values: Words, bits: int) -> bytes:
    """Raises nothing: values above the modulus lose their high bits."""
    width = values.dtype.itemsize
    if bits == width * 8:
        return values.astype(word(bits)).tobytes()
    parts: list[bytes] = []
    for start in range(0, len(values), _BLOCK):
        block = np.ascontiguousarray(values[start : start + _BLOCK]).view(np.uint8).reshape(-1, width)
        spread = np.unpackbits(block, axis=1, bitorder="little")[:, :bits]
        parts.append(np.packbits(spread, axis=None, bitorder="little").tobytes())
    return b"".join(parts)


def unpack(data: bytes, length: int, bits: int) -> Words:
    """The inverse of `pack`; `data` has `packed_size` bytes."""
    kind = word(bits)
    if bits == kind.itemsize * 8:
        return np.frombuffer(data, kind).copy()
    values = np.empty(length, kind)
    raw = np.frombuffer(data, np.uint8)
    for start in range(0, length, _BLOCK):
        count = min(_BLOCK, length - start)
        first = start * bits // 8
        piece = raw[first : first + packed_size(count, bits)]
        spread = np.zeros((count, kind.itemsize * 8), np.uint8)
        spread[:, :bits] = np.unpackbits(piece, count=count * bits, bitorder="little").reshape(count, bits)
        values[start : start + count] = np.packbits(spread, axis=1, bitorder="little").view(kind).reshape(-1)
    return values


def add_mask(total: Words, key: bytes, sign: int, primitives: Primitives, start: int = 0) -> None:
    """Add (sign 1) or take away (-1) a key's mask in place; `total` begins at value `start` of the vector."""
    width = total.dtype.itemsize
    for at in range(0, len(total), _STREAM):
        part = total[at : at + _STREAM]
        stream = primitives.stream(key, (start + at) * width, len(part) * width)
        mask = np.frombuffer(stream, total.dtype)
        if sign > 0:
            np.add(part, mask, out=part)
        else:
            np.subtract(part, mask, out=part)


class Tree(msgspec.Struct, frozen=True):
    """A packed vector's commitment: Merkle over the BLAKE3 digests of its chunks of `CHUNK` values."""

    levels: list[list[bytes]]

    @property
    def root(self) -> Digest:
        return Digest(self.levels[-1][0])

    def path(self, chunk: int) -> tuple[Digest, ...]:
        return merkle.path(self.levels, chunk)


def chunks(length: int) -> int:
    return -(-length // CHUNK)


def chunk_bytes(data: bytes, chunk: int, bits: int) -> bytes:
    size = CHUNK * bits // 8
    return data[chunk * size : (chunk + 1) * size]


def chunk_length(length: int, chunk: int) -> int:
    return min(CHUNK, length - chunk * CHUNK)


def commit(data: bytes, length: int, bits: int) -> Tree:
    leaves = [content_digest(chunk_bytes(data, i, bits)) for i in range(chunks(length))]
    return Tree(merkle.levels(leaves))
