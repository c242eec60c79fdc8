"""A data set as a value: files, sizes, and the BLAKE3 of each piece; its address is the digest of that.

    address = BLAKE3 of the canonical bytes of the Manifest

A piece is `piece_bytes` of one file (the last one is what is left), so any server that can send a range of a file can
hold a data set without knowing of us, and each piece is checked as it comes. A manifest is a stranger's: nothing is taken
from it before all of it was checked, and what its sizes promise is bounded.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from clusterai.content.core import paths
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest

HASH_BYTES = 32
PIECE_BYTES = 1 << 20
LEAST_PIECE_BYTES = 1 << 16
MOST_PIECE_BYTES = 1 << 24
MOST_FILES = 65_536
MOST_BYTES = 1 << 46
"""64 TiB."""
MOST_MANIFEST_BYTES = 32 << 20
"""A million pieces: 1 TB of pieces of 1 MiB, 16 TB of the largest."""


class BadManifest(ValueError):
    """No manifest of a data set: {why}."""


class File(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One file. `pieces` are the BLAKE3 hashes of its pieces one after the other."""

    path: Annotated[str, Meta(min_length=1, max_length=paths.MOST_BYTES)]
    size: Annotated[int, Meta(ge=0, le=MOST_BYTES)]
    pieces: Annotated[bytes, Meta(max_length=MOST_MANIFEST_BYTES)]


class Piece(NamedTuple):
    """Where one piece lies. `file` is its number in the manifest, `start` and `size` are bytes of it."""

    file: int
    start: int
    size: int
    digest: bytes


class Manifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="content.1"):
    """Files sorted by path; pieces are numbered through all of them, in their order."""

    piece_bytes: Annotated[int, Meta(ge=LEAST_PIECE_BYTES, le=MOST_PIECE_BYTES)]
    files: Annotated[tuple[File, ...], Meta(max_length=MOST_FILES)]

    def __post_init__(self) -> None:
        if self.piece_bytes & (self.piece_bytes - 1):
            raise BadManifest(f"pieces have a power of two of bytes, not {self.piece_bytes}")
        before = ""
        for file in self.files:
            if file.path <= before:
                raise BadManifest(f"{file.path[:80]!r} is listed out of order, or twice")
            before = paths.checked(file.path)
            if len(file.pieces) != HASH_BYTES * -(-file.size // self.piece_bytes):
                raise BadManifest(f"{file.path[:80]!r} has {file.size} bytes and hashes for another size")
        paths.check_together(file.path for file in self.files)
        if self.size > MOST_BYTES:
            raise BadManifest(f"{self.size} bytes are more than {MOST_BYTES}")

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def count(self) -> int:
        """Number of pieces."""
        return sum(len(file.pieces) for file in self.files) // HASH_BYTES

    def pieces(self) -> Iterator[Piece]:
        for number, file in enumerate(self.files):
            for index in range(len(file.pieces) // HASH_BYTES):
                start = index * self.piece_bytes
                size = min(self.piece_bytes, file.size - start)
                yield Piece(number, start, size, file.pieces[HASH_BYTES * index : HASH_BYTES * (index + 1)])

    def address(self) -> Digest:
        return canonical.digest(self)


def encode(manifest: Manifest) -> bytes:
    """
    Raises:
        BadManifest: it has too many pieces: use larger ones.
    """
    raw = canonical.encode(manifest)
    if len(raw) > MOST_MANIFEST_BYTES:
        raise BadManifest(
            f"it has {len(raw)} bytes, at most {MOST_MANIFEST_BYTES} are read: use larger pieces"
        )
    return raw


def decode(raw: bytes, address: Digest | None = None) -> Manifest:
    """
    Args:
        address: what these bytes must be.

    Raises:
        BadManifest: anything about them is wrong.
    """
    if len(raw) > MOST_MANIFEST_BYTES:
        raise BadManifest(f"{len(raw)} bytes, the limit is {MOST_MANIFEST_BYTES}")
    if address is not None and canonical.content_digest(raw) != address:
        raise BadManifest(f"it isn't the one of address 0x{address.hex()}")
    try:
        return canonical.decode(raw, Manifest, MOST_MANIFEST_BYTES)
    except (canonical.Malformed, paths.BadPath, RecursionError) as error:
        raise BadManifest(str(error)) from None
