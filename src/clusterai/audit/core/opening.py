"""What a provider shows when it opens an epoch, and how that is packed when it must go on chain.

Over a gateway an opening is an `EpochOpened` frame, its transcripts sealed to the validator's X25519 key. In answer
to a challenge it is the bytes of `Court.answerChallenge`, at most 24,576 of them: deflated, then sealed to the
challenger where the provider knows its key (from an earlier `AskEpoch`), else in the open, for a provider whose
every gateway is away must be able to keep its stake.

    answer = 0x01 || sealed(deflated)   |   0x00 || deflated
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Annotated, cast

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical, merkle
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import MAX_RECEIPTS_PER_EPOCH, Transcript
from clusterai.protocol.statements import EPOCH_LIST, DigestBytes, Receipt

MAX_ANSWER_BYTES = 24_576
"""`Court.MAX_SEALED_BYTES`."""

LIST_FITS = 200
"""Receipts of an epoch whose list surely fits an answer: about 90 bytes each don't deflate."""

MAX_UNPACKED_BYTES = canonical.MAX_FRAME_BYTES
_OPEN, _SEALED = b"\x00", b"\x01"

Seal = Callable[[bytes], bytes]
Unseal = Callable[[bytes], bytes | None]
"""The plain bytes, or None where they weren't sealed to us."""


class _Opening(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class ReceiptOpening(_Opening, frozen=True):
    """One receipt, its place in the commitment, and all that is needed to audit it."""

    receipt: Receipt
    path: Annotated[tuple[DigestBytes, ...], Meta(max_length=32)]
    transcript: Transcript


class ListOpening(_Opening, frozen=True):
    """All receipts of the epoch in the order of the commitment."""

    receipts: Annotated[tuple[Receipt, ...], Meta(max_length=MAX_RECEIPTS_PER_EPOCH)]


Opening = ReceiptOpening | ListOpening


class TooLong(ValueError):
    """The answer has {size} bytes; the Court takes {MAX_ANSWER_BYTES}."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the answer has {size} bytes; the Court takes {MAX_ANSWER_BYTES}")


def open_list(receipts: Sequence[Receipt]) -> ListOpening:
    return ListOpening(tuple(receipts))


def open_receipt(receipts: Sequence[Receipt], index: int, transcript: Transcript) -> ReceiptOpening:
    leaves = [receipt.struct() for receipt in receipts]
    return ReceiptOpening(receipts[index], merkle.proof(leaves, index), transcript)


def pack_answer(opening: Opening, seal: Seal | None) -> bytes:
    """What a provider submits to `Court.answerChallenge`.

    Raises:
        TooLong: it doesn't fit on chain.
    """
    deflated = zlib.compress(canonical.encode(opening), 9)
    packed = _OPEN + deflated if seal is None else _SEALED + seal(deflated)
    if len(packed) > MAX_ANSWER_BYTES:
        raise TooLong(len(packed))
    return packed


class ForAnother(Exception):
    """The answer is sealed to another validator."""


def unpack_answer(packed: bytes, unseal: Unseal) -> Opening:
    """Read an answer from the chain.

    Raises:
        ForAnother: sealed, and not to us (or to nobody: it can't be told).
        Malformed: opened, and no opening.
    """
    if packed[:1] == _SEALED:
        deflated = unseal(packed[1:])
        if deflated is None:
            raise ForAnother(ForAnother.__doc__)
    elif packed[:1] == _OPEN:
        deflated = packed[1:]
    else:
        raise Malformed("an answer begins with 0x00 or 0x01")
    return canonical.decode(inflate(deflated), cast("type[Opening]", Opening))


def inflate(deflated: bytes) -> bytes:
    """Inflate a stranger's bytes, never beyond MAX_UNPACKED_BYTES.

    Raises:
        Malformed: not deflated, cut off, followed by more, or too large.
    """
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(deflated, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise Malformed(str(error)) from None
    if not inflater.eof or inflater.unused_data:
        raise Malformed("cut off, too long, or followed by more")
    return plain


def places(opening: ReceiptOpening, root: Digest, index: int, count: int) -> bool:
    """Whether the opening's receipt stands at `index` of the commitment."""
    path = [Digest(step) for step in opening.path]
    return index != EPOCH_LIST and merkle.verify(root, opening.receipt.struct(), index, count, path)
