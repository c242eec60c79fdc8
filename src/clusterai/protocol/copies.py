"""What the buyer of a copy says to a vault, inside sealed calls to `subject(dataset, "copy")`, and what it is told.

    AskKey   ──> KeyGiven     the content key of this epoch, and what its pieces are
    AskPiece ──> PieceGiven   one encrypted piece; holders have them too
    any      ──> NotGiven     code and detail as `access.NotGiven`

Pieces are worth nothing without the key, and each is named by the BLAKE3 of its encrypted bytes, so anyone may hold them. What they open to is
checked against the snapshot that the listing signed: leaf i is BLAKE3 of the plain piece, keyed by BLAKE3 of i, keyed by the salt.
"""

from typing import Annotated, cast

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.calls import MOST_CALL_BYTES
from clusterai.protocol.statements import U32, U40, DigestBytes

SUBJECT = "copy"
MOST_PIECES = 1 << 18
MOST_SCHEMA_BYTES = 1 << 20
MOST_PIECE_BYTES = 1 << 24


class _Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class AskKey(_Message, frozen=True):
    grant: DigestBytes


class AskPiece(_Message, frozen=True):
    grant: DigestBytes
    address: DigestBytes


class Sealed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One encrypted piece: BLAKE3 and size of its bytes, the rows in it, and the leaf that its plain bytes make."""

    address: DigestBytes
    size: Annotated[int, Meta(ge=1, le=MOST_PIECE_BYTES)]
    rows: U32
    leaf: DigestBytes


class KeyGiven(_Message, frozen=True):
    """
    Attributes:
        schema: as the owner writes it.
        key: of the pieces, all of one epoch.
    """

    epoch: U40
    key: DigestBytes
    salt: DigestBytes
    schema: Annotated[bytes, Meta(max_length=MOST_SCHEMA_BYTES)]
    pieces: Annotated[tuple[Sealed, ...], Meta(max_length=MOST_PIECES)]


class PieceGiven(_Message, frozen=True):
    box: Annotated[bytes, Meta(max_length=MOST_PIECE_BYTES)]


class CopyNotGiven(_Message, frozen=True):
    code: Annotated[str, Meta(max_length=32)]
    detail: Annotated[str, Meta(max_length=2_000)]


Ask = AskKey | AskPiece
Told = KeyGiven | PieceGiven | CopyNotGiven


def decode_ask(data: bytes) -> Ask:
    """
    Raises:
        Malformed.
    """
    return canonical.decode(data, cast("type[Ask]", Ask), 1024)


def decode_told(data: bytes) -> Told:
    """
    Raises:
        Malformed.
    """
    return canonical.decode(data, cast("type[Told]", Told), MOST_CALL_BYTES)
