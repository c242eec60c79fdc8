"""The frames by which machines are offered to a gateway.

    node                    gateway
      |--- Offered ----------->|     a signed `MachineOffer`; again before it expires, and whenever it changes
      |<-- OfferTurned --------|     why it isn't listed
      |--- Carded ------------>|     the machine's card, whenever it changes

What was taken isn't answered. The statement is its canonical bytes, as chapter 8 has them, so that whoever lists it checks it
itself.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol.offers import MOST_BYTES, MOST_CARD_BYTES
from clusterai.protocol.statements import U40, U63, SignatureBytes


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base, as in `messages`."""


class Offered(_Frame, frozen=True):
    """Provider: rent this machine. The offer replaces the last one of its node, and may be sent again as it is."""

    offer: Annotated[bytes, Meta(max_length=MOST_BYTES)]
    signature: SignatureBytes


class OfferTurned(_Frame, frozen=True):
    """Gateway: I don't list it. `reason`: malformed, forged, unknown, stale, own, staked, full, busy, other.

    Attributes:
        serial: of the offer; 0 where it couldn't be read.
        now_s: by the gateway's clock, since clocks are the most frequent cause.
    """

    serial: U63
    reason: Annotated[str, Meta(max_length=32)]
    detail: Annotated[str, Meta(max_length=500)]
    now_s: U40


class Carded(_Frame, frozen=True):
    """Provider: my machine's card, for whoever asks you for it. Each measurement and attestation in it carries its own signature."""

    card: Annotated[bytes, Meta(max_length=MOST_CARD_BYTES)]


OfferingFrame = Offered | OfferTurned | Carded
"""What may stand on a link, beside `messages.Frame`."""
