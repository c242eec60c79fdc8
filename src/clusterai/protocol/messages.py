"""The frames on a link, and the values whose digests are signed.

A link joins a gateway with one peer (provider or validator) that dialled it. Frames are tagged structs; a
frame that doesn't decode closes the link. Validators reach providers by `Relay`: the gateway carries the body
without reading it (it is sealed where it holds a transcript).

    provider          gateway                      validator
       |--- Announce --->|                              |
       |<-- Work --------|                              |
       |--- Tokens* ---->|                              |
       |--- Finished --->|   receipt                    |
       |<-- Pay ---------|   voucher                    |
       |<========== Relay(AskEpoch) ===================>|
       |=========== Relay(EpochOpened) ===============> |
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol.calls import CallFrame
from clusterai.protocol.canonical import digest
from clusterai.protocol.eip712 import Domain, typed_digest
from clusterai.protocol.ids import Digest
from clusterai.protocol.jobs import JobFrame, JobRelayed
from clusterai.protocol.measuring import MeasureFrame, MeasureRelayed
from clusterai.protocol.offering import OfferingFrame
from clusterai.protocol.rentals import RentFrame
from clusterai.protocol.statements import (
    U32,
    U40,
    U63,
    AddressBytes,
    ChannelConfig,
    DigestBytes,
    Order,
    Receipt,
    SignatureBytes,
    Voucher,
    Wei,
)

Text = Annotated[str, Meta(max_length=2_000)]
Blob = Annotated[bytes, Meta(max_length=3 * 1024 * 1024)]
I31 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**24)]

MAX_RECEIPTS_PER_EPOCH = 8_192
"""Receipts of one provider in one epoch, `Court.MAX_RECEIPTS`: 8,192 x 242 bytes with signatures is half a frame, and
without them they fit an answer on chain."""


class Answer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a provider produced; its digest stands in the receipt. `reason`: "stop" or "length"."""

    tokens: Annotated[tuple[TokenId, ...], Meta(max_length=131_072)]
    reason: Annotated[str, Meta(max_length=16)]

    def digest(self) -> Digest:
        return digest(self)


class ModelOffer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A model that a provider serves, its price per token, and how many streams it runs at once."""

    model: DigestBytes
    name: Annotated[str, Meta(max_length=128)]
    input_price_wei: Wei
    output_price_wei: Wei
    slots: U32


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all frames: a MessagePack map with the tag under `type`."""


class Announce(_Frame, frozen=True):
    """Provider: what I serve now. Sent after the greeting and whenever it changes."""

    offers: Annotated[tuple[ModelOffer, ...], Meta(max_length=64)]
    running: U32
    queued: U32
    paused: bool


class OpenChannel(_Frame, frozen=True):
    """Gateway: the channel through which I pay you; its deposit can be read on chain."""

    config: ChannelConfig


class Work(_Frame, frozen=True):
    """Gateway: do this. `request` is the canonical bytes whose digest the order carries."""

    order: Order
    signature: SignatureBytes
    kind: Annotated[str, Meta(max_length=32)]
    request: Blob


class Tokens(_Frame, frozen=True):
    """Provider: the next tokens of an order, from position `start` on.

    `logprobs_milli` is as long as `tokens` or empty; `top` holds per token the alternatives asked for, as
    (token, logprob in thousandths).
    """

    order: DigestBytes
    start: U32
    tokens: Annotated[tuple[TokenId, ...], Meta(max_length=4096)]
    logprobs_milli: Annotated[tuple[I31, ...], Meta(max_length=4096)]
    top: Annotated[tuple[tuple[tuple[TokenId, I31], ...], ...], Meta(max_length=4096)]


class Finished(_Frame, frozen=True):
    """Provider: done; the receipt and why the answer ended."""

    receipt: Receipt
    signature: SignatureBytes
    reason: Annotated[str, Meta(max_length=16)]
    cached_units: U32


class Refused(_Frame, frozen=True):
    """Provider: I don't do this order, or couldn't end it; nothing is owed.

    `code` is of a closed list: busy, unknown_model, underpaid, bad_request, bad_signature, expired, unfunded, credit,
    paused, engine_failed, shutting_down, cancelled (before anything was produced).
    """

    order: DigestBytes
    code: Annotated[str, Meta(max_length=32)]
    detail: Text
    retry_after_ms: U32


class Cancel(_Frame, frozen=True):
    """Gateway: stop, and send a receipt for what was produced.

    With `tokens`, the answer was over when it had so many and nobody wants what came after them: the receipt covers no more.
    """

    order: DigestBytes
    tokens: U32 | None = None


class Pay(_Frame, frozen=True):
    """Gateway: the channel's newest voucher, covering the receipt of `order`."""

    order: DigestBytes
    voucher: Voucher
    signature: SignatureBytes


class Dispute(_Frame, frozen=True):
    """Gateway: I don't pay this receipt, because …: answer_mismatch, usage_mismatch, wrong_price, over_cap,
    bad_signature."""

    order: DigestBytes
    code: Annotated[str, Meta(max_length=32)]
    detail: Text


class Ping(_Frame, frozen=True):
    """Either side, every 2 s: liveness; the echo of `sent_ms` measures the round trip."""

    sent_ms: U63
    running: U32
    queued: U32


class Pong(_Frame, frozen=True):
    sent_ms: U63


class AskEpoch(_Frame, frozen=True):
    """Validator to provider: open an epoch: all receipts, and the transcripts of `drawn`.

    `seal_to` is the validator's X25519 key; transcripts come sealed to it. Signed under the network's domain
    over the digest of the other fields.
    """

    validator: AddressBytes
    provider: AddressBytes
    epoch: U40
    drawn: Annotated[tuple[U32, ...], Meta(max_length=MAX_RECEIPTS_PER_EPOCH)]
    seal_to: DigestBytes
    signature: SignatureBytes

    def signing_digest(self, network: Domain) -> Digest:
        """What the validator's hot key signs: these fields with an empty signature, under the network's domain."""
        return typed_digest(network.separator(), digest(msgspec.structs.replace(self, signature=bytes(65))))


class Transcript(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All that is needed to audit one receipt: the order as the gateway signed it, its request, the answer."""

    order: Order
    order_signature: SignatureBytes
    kind: Annotated[str, Meta(max_length=32)]
    request: Blob
    answer: Answer


class EpochOpened(_Frame, frozen=True):
    """Provider to validator: an epoch's receipts in commitment order, with (index, sealed transcript) of drawn ones."""

    provider: AddressBytes
    epoch: U40
    receipts: Annotated[tuple[Receipt, ...], Meta(max_length=MAX_RECEIPTS_PER_EPOCH)]
    signatures: Annotated[tuple[SignatureBytes, ...], Meta(max_length=MAX_RECEIPTS_PER_EPOCH)]
    sealed: Annotated[tuple[tuple[U32, Blob], ...], Meta(max_length=MAX_RECEIPTS_PER_EPOCH)]


class Relay(_Frame, frozen=True):
    """Carried by a gateway between two peers linked to it; `sender` is set by the gateway, not believed."""

    sender: AddressBytes
    to: AddressBytes
    body: Blob


class Unreachable(_Frame, frozen=True):
    """Gateway: nobody of that address is linked here now."""

    to: AddressBytes


Frame = (
    Announce
    | OpenChannel
    | Work
    | Tokens
    | Finished
    | Refused
    | Cancel
    | Pay
    | Dispute
    | Ping
    | Pong
    | Relay
    | Unreachable
    | JobFrame
    | RentFrame
    | OfferingFrame
    | MeasureFrame
    | CallFrame
)
"""What may stand on a link."""

Relayed = AskEpoch | EpochOpened | JobRelayed | MeasureRelayed
"""What may stand in a `Relay.body`."""
