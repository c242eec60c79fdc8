"""The frames by which requesters reach private data: calls that a gateway carries unread, and what data there is.

    requester      gateway                      provider (a vault)
       |            |<-- OfferData* --------------|   signed listings, each with its card
       |-- HTTP --->|--- CallPart* -------------->|   of one call, in order, to the provider that offers its subject
       |            |<-- ReplyPart* --------------|   or
       |            |<-- CallRefused -------------|
       |            |--- CallRefused ------------>|   nobody waits for the answer any more

A **call** is a question that isn't paid: asking for access, keys, bulk. Its body is opaque, and sealed between requester and vault
where it is worth sealing. What is paid goes as an order of a kind, as any work. A **subject** is what a provider offers: the
same 32 bytes that stand as the model in its offers.

Parts come in order, as links deliver them; who gets one out of turn ends the call, since what it would make of them is nothing.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol.canonical import Malformed
from clusterai.protocol.statements import U32, AddressBytes, DigestBytes, SignatureBytes

MOST_PART_BYTES = 1024 * 1024
PART_BYTES = 256 * 1024
"""What we send in one part, so that pings and answers of others pass between two parts of a long call."""
MOST_CALL_BYTES = 64 * 1024 * 1024
"""Each way."""
MOST_PARTS = 1024
MOST_CARD_BYTES = 128 * 1024
MOST_LISTING_BYTES = 4 * 1024
MOST_LISTINGS = 16
"""In one frame; all of them are still less than a frame may hold."""

MOST_SUBJECTS = 1024

CallId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Part = Annotated[int, Meta(ge=0, le=MOST_PARTS - 1)]
Parts = Annotated[int, Meta(ge=1, le=MOST_PARTS)]
Body = Annotated[bytes, Meta(max_length=MOST_PART_BYTES)]


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base, as in `messages`."""


class CallPart(_Frame, frozen=True):
    """Gateway: part `part` of `parts` of a call.

    Attributes:
        call: sixteen random bytes, the gateway's name for it.
        sender: whom the requester says that it is; zeros: it doesn't say. What the body's own seal proves counts.
    """

    call: CallId
    subject: DigestBytes
    sender: AddressBytes
    part: Part
    parts: Parts
    body: Body


class ReplyPart(_Frame, frozen=True):
    """Provider: part of the answer."""

    call: CallId
    part: Part
    parts: Parts
    body: Body


class CallRefused(_Frame, frozen=True):
    """Provider: no answer comes, because …; gateway: nobody waits for it.

    `code` is of a closed list: unknown_subject, busy, too_large, malformed, denied, failed, too_slow, shutting_down, gone (the gateway's).
    """

    call: CallId
    code: Annotated[str, Meta(max_length=32)]
    detail: Annotated[str, Meta(max_length=2_000)]


class DataListing(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One data set as its owner lists it.

    Attributes:
        listing: the statement `vaults.Listing` in canonical bytes, so that whoever lists it checks it itself.
        signature: by a hot key of the listing's owner, who needn't be the provider that sends it.
        card: a JSON object, and what the listing's digest of a card is of. By its `name` and the owner the data set's id is what it
            has to be (`vaults.dataset_id`): else anybody could list another's.
    """

    listing: Annotated[bytes, Meta(max_length=MOST_LISTING_BYTES)]
    signature: SignatureBytes
    card: Annotated[bytes, Meta(max_length=MOST_CARD_BYTES)]


class OfferData(_Frame, frozen=True):
    """Provider: data that can be had or asked here. Listings add up: a newer one of a data set takes the older one's place.

    Attributes:
        withdrawn: data sets that this provider has no more.
        subjects: all that it answers calls about; it replaces what was said before.
    """

    listings: Annotated[tuple[DataListing, ...], Meta(max_length=MOST_LISTINGS)]
    withdrawn: Annotated[tuple[DigestBytes, ...], Meta(max_length=256)]
    subjects: Annotated[tuple[DigestBytes, ...], Meta(max_length=MOST_SUBJECTS)]


CallFrame = CallPart | ReplyPart | CallRefused | OfferData
"""What may stand on a link, beside `messages.Frame`."""


def cut(body: bytes) -> list[bytes]:
    """A body in parts as they are sent; at least one, be it empty.

    Raises:
        ValueError: it is longer than a call may be.
    """
    if len(body) > MOST_CALL_BYTES:
        raise ValueError(
            f"{len(body)} bytes, a call has at most {MOST_CALL_BYTES} each way: send less at once"
        )
    return [body[at : at + PART_BYTES] for at in range(0, len(body), PART_BYTES)] or [b""]


class Gathered:
    """The parts of one body, as they come. Holds no more than what came.

    Args:
        most_bytes: what the whole may have.
    """

    def __init__(self, most_bytes: int = MOST_CALL_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bodies: list[bytes] = []
        self._parts: int | None = None
        self.held_bytes = 0

    def add(self, part: U32, parts: U32, body: bytes) -> bytes | None:
        """The whole body with its last part; None before.

        Raises:
            Malformed: the part is out of turn, says another number of parts, or is too much.
        """
        if self._parts is None:
            self._parts = parts
        if parts != self._parts or part != len(self._bodies) or part >= parts:
            raise Malformed(
                f"part {part} of {parts} came where part {len(self._bodies)} of {self._parts} was due"
            )
        if parts > 1 and not body:
            raise Malformed("an empty part of several")
        if self.held_bytes + len(body) > self._most_bytes:
            raise Malformed(f"more than {self._most_bytes} bytes: send less at once")
        self._bodies.append(body)
        self.held_bytes += len(body)
        if len(self._bodies) < parts:
            return None
        return b"".join(self._bodies)
