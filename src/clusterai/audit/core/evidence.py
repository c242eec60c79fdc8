"""What a verdict's evidence digest stands for.

The Court adds up votes of equal statements, so honest validators must arrive at the same digest by themselves: it covers
what was judged, not the floats that each measured. For a receipt that is the whole case, which nobody can digest
without having had the transcript; for an epoch's list, its commitment.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import Answer, Blob, Transcript
from clusterai.protocol.statements import (
    U32,
    U40,
    AddressBytes,
    DigestBytes,
    Order,
    Receipt,
    SignatureBytes,
)


class _Evidence(msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True):
    pass


class Case(_Evidence, frozen=True, array_like=True):
    """One receipt and everything that its digests bind, without signatures (which have no single spelling)."""

    receipt: Receipt
    order: Order
    kind: Annotated[str, Meta(max_length=32)]
    request: Blob
    answer: Answer


class ListCase(_Evidence, frozen=True, array_like=True):
    """A commitment whose list was judged, or of which something was withheld."""

    provider: AddressBytes
    epoch: U40
    root: DigestBytes
    index: U32


class ClearedCase(_Evidence, frozen=True, array_like=True):
    """A commitment of which all drawn receipts were right."""

    root: DigestBytes
    drawn: tuple[U32, ...]


class Bundle(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What a validator keeps of one drawn receipt, for replay: `canonical.encode` of it is an evidence file.

    `index` and `path` place the receipt under `root`, if the list or an opening on chain showed the path.
    """

    root: DigestBytes
    index: U32
    count: U32
    receipt: Receipt
    signature: SignatureBytes
    path: Annotated[tuple[DigestBytes, ...], Meta(max_length=32)]
    transcript: Transcript


def case_of(receipt: Receipt, transcript: Transcript) -> Digest:
    """Evidence digest of a verdict of fraud on one receipt."""
    return canonical.digest(
        Case(receipt, transcript.order, transcript.kind, transcript.request, transcript.answer)
    )
