"""What a provider shows when it opens an epoch, and how that is packed when it must go on chain.

Over a gateway an opening is an `EpochOpened` frame, its transcripts sealed to the validator's X25519 key. In answer
to a challenge its canonical bytes are cut into parts, and each is a call of `Court.answerChallenge`: deflated, then
sealed to the challenger where the provider knows its key (from an earlier `AskEpoch`), else in the open, for a provider
whose every gateway is away must be able to keep its stake.

    part = 0x01 || sealed(deflated)   |   0x00 || deflated          deflated of bytes [24,000 k, 24,000 (k + 1))

Parts are cut before they are deflated and sealed, each by itself: a provider that died half way and packs anew (boxes
are never the same twice, and it may have lost the challenger's key) gives parts that fit those it gave before.

What an honest provider may ever have to show fits: receipts of an epoch by their number, transcripts because longer
requests are not taken. Bytes count here as they are, whatever they would deflate to.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, cast

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical, merkle
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import MAX_RECEIPTS_PER_EPOCH, Transcript
from clusterai.protocol.statements import EPOCH_LIST, DigestBytes, Receipt

MAX_PART_BYTES = 24_576
"""`Court.MAX_SEALED_BYTES`."""

MAX_PARTS = 64
"""`Court.MAX_PARTS`."""

PART_BYTES = 24_000
"""Of an opening in one part: where nothing deflates, deflating and sealing add 80 bytes."""

MAX_OPENING_BYTES = MAX_PARTS * PART_BYTES

MAX_REQUEST_BYTES = 768 * 1024
"""Of a request whose transcript surely fits, beside 131,072 tokens of five bytes and less than 10 kB of all else."""

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
    """The opening has {size} bytes; an answer holds {MAX_OPENING_BYTES}."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the opening has {size} bytes; an answer holds {MAX_OPENING_BYTES}")


def open_list(receipts: Sequence[Receipt]) -> ListOpening:
    return ListOpening(tuple(receipts))


def open_receipt(receipts: Sequence[Receipt], index: int, transcript: Transcript) -> ReceiptOpening:
    leaves = [receipt.struct() for receipt in receipts]
    return ReceiptOpening(receipts[index], merkle.proof(leaves, index), transcript)


def pack_answer(opening: Opening, seal: Seal | None) -> tuple[bytes, ...]:
    """The parts that a provider submits to `Court.answerChallenge`.

    Raises:
        TooLong: it doesn't fit on chain.
    """
    plain = canonical.encode(opening)
    if len(plain) > MAX_OPENING_BYTES:
        raise TooLong(len(plain))
    cut = [plain[at : at + PART_BYTES] for at in range(0, len(plain), PART_BYTES)]
    deflated = [zlib.compress(piece, 9) for piece in cut]
    return tuple(_OPEN + it if seal is None else _SEALED + seal(it) for it in deflated)


class ForAnother(Exception):
    """The answer is sealed to another validator."""


def unpack_answer(parts: Iterable[bytes], unseal: Unseal) -> Opening:
    """Read an answer from the chain, all of its parts in order.

    Raises:
        ForAnother: a part is sealed, and not to us (or to nobody: it can't be told).
        Malformed: opened, and no opening.
    """
    plain = b"".join(_unpack_part(part, unseal) for part in parts)
    return canonical.decode(plain, cast("type[Opening]", Opening))


def _unpack_part(part: bytes, unseal: Unseal) -> bytes:
    if part[:1] == _SEALED:
        deflated = unseal(part[1:])
        if deflated is None:
            raise ForAnother(ForAnother.__doc__)
    elif part[:1] == _OPEN:
        deflated = part[1:]
    else:
        raise Malformed("a part of an answer begins with 0x00 or 0x01")
    return inflate(deflated)


def inflate(deflated: bytes) -> bytes:
    """Inflate a stranger's bytes, never beyond PART_BYTES.

    Raises:
        Malformed: not deflated, cut off, followed by more, or too large.
    """
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(deflated, PART_BYTES + 1)
    except zlib.error as error:
        raise Malformed(str(error)) from None
    if not inflater.eof or inflater.unused_data or len(plain) > PART_BYTES:
        raise Malformed("cut off, too long, or followed by more")
    return plain


def places(opening: ReceiptOpening, root: Digest, index: int, count: int) -> bool:
    """Whether the opening's receipt stands at `index` of the commitment."""
    path = [Digest(step) for step in opening.path]
    return index != EPOCH_LIST and merkle.verify(root, opening.receipt.struct(), index, count, path)
