"""The frames by which leased work is offered, done, watched and audited. The money and the rules stand on chain.

    provider               gateway (requester)                     validator
       |--- Lends -------------->|                                     |
       |                     OpenLease on chain                        |
       |<-- StartLease ----------|                                     |
    AcceptLease on chain         |                                     |
       |--- AskContent --------->|  inputs                             |
       |<-- ContentPart* --------|                                     |
       |--- Progress*, Logged* ->|                                     |
       |<-- AskLog --------------|  what a link that was down lost     |
       |--- Done --------------->|                                     |
    CommitLease on chain         |                                     |
       |<-- AskContent ----------|  outputs                            |
       |=========================== Relay(AskSegment) =================|
       |=========================== Relay(SegmentServed), contents ===>|

The kinds of work are known by name alone; what a spec, an offer or a state says is theirs. Content is asked for by digest in
parts, so that whoever gets it checks it and goes on where it broke off.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol.canonical import digest
from clusterai.protocol.eip712 import Domain, typed_digest
from clusterai.protocol.ids import Digest
from clusterai.protocol.leases import MAX_SEGMENTS, Terms
from clusterai.protocol.statements import U32, U63, AddressBytes, DigestBytes, SignatureBytes, Wei

MOST_PART_BYTES = 1024 * 1024
MOST_LOG_BYTES = 64 * 1024
MOST_SPEC_BYTES = 1024 * 1024

KindName = Annotated[str, Meta(max_length=32)]
Code = Annotated[str, Meta(max_length=32)]
Words = Annotated[str, Meta(max_length=2_000)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base, as in `messages`."""


class Lends(_Frame, frozen=True):
    """Provider: what I lend by the lease now. `offer` is the kind's own, in canonical bytes; empty: nothing of it."""

    kind: KindName
    offer: Annotated[bytes, Meta(max_length=65_536)]
    running: U32
    queued: U32


class Bait(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What makes a lease a trap for auditors who copy: nothing of it is run, and what is committed to looks as if it had been.

    Attributes:
        secret: what the terms' nonce digests, and every other state is made of (`protocol.leases.is_bait`).
        segments: to commit to, as equal work came to.
        run_s: from accepting to committing, as equal work took.
    """

    secret: DigestBytes
    segments: Annotated[int, Meta(ge=1, le=MAX_SEGMENTS)]
    run_s: U32


class StartLease(_Frame, frozen=True):
    """Gateway: this lease stands on chain and names you; here is the work, or, with `bait`, what to commit to instead of doing it.
    Sent again until it is accepted or refused."""

    kind: KindName
    terms: Terms
    spec: Annotated[bytes, Meta(max_length=MOST_SPEC_BYTES)]
    bait: Bait | None


class LeaseRefused(_Frame, frozen=True):
    """Provider: I won't accept it. `code`: full, price, spec, unknown_kind, unknown_image, too_late, not_on_chain, paused,
    shutting_down, bait."""

    lease: DigestBytes
    code: Code
    detail: Words


class Progress(_Frame, frozen=True):
    """Provider: so many segments are done; claimed until the commitment."""

    lease: DigestBytes
    segment: U32
    segments: U32
    units: U63


class Logged(_Frame, frozen=True):
    """Provider: what the program printed, from byte `start` of its stream on, of `total` so far. Nobody vouches for a log."""

    lease: DigestBytes
    start: U63
    is_error: bool
    total: U63
    data: Annotated[bytes, Meta(max_length=MOST_LOG_BYTES)]


class AskLog(_Frame, frozen=True):
    """Gateway: I have the stream up to byte `start`, and you have more of it: one `Logged` comes back, empty at its end."""

    lease: DigestBytes
    is_error: bool
    start: U63


class Done(_Frame, frozen=True):
    """Provider: it ended, and this is what I commit to. `output` digests the listing of what it left."""

    lease: DigestBytes
    output: DigestBytes
    units: U63
    amount_wei: Wei
    exit_code: Annotated[int, Meta(ge=-1, le=255)]
    detail: Words


class Broken(_Frame, frozen=True):
    """Provider: it can't be done, and I gave it up: `code` is the sandbox's own reason, which the tenant reads."""

    lease: DigestBytes
    code: Code
    detail: Words


class AskContent(_Frame, frozen=True):
    """Either side of a lease: a part of what has this digest, from `offset` on."""

    lease: DigestBytes
    content: DigestBytes
    offset: U63


class ContentPart(_Frame, frozen=True):
    lease: DigestBytes
    content: DigestBytes
    offset: U63
    total: U63
    data: Annotated[bytes, Meta(max_length=MOST_PART_BYTES)]


class ContentMissing(_Frame, frozen=True):
    """I don't have it, or it isn't of this lease."""

    lease: DigestBytes
    content: DigestBytes


# --- between provider and auditor, inside a Relay ---


class AskSegment(_Frame, frozen=True):
    """Validator: I am the drawn auditor; show me the start of the drawn segment. Signed by its hot key under the network's
    domain over the digest of the other fields."""

    validator: AddressBytes
    provider: AddressBytes
    lease: DigestBytes
    segment: U32
    seal_to: DigestBytes
    signature: SignatureBytes

    def signing_digest(self, network: Domain) -> Digest:
        return typed_digest(network.separator(), digest(msgspec.structs.replace(self, signature=bytes(65))))


class Segment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The preimage of h_{j-1}, and no more: blindness leaves an auditor nothing to copy.

    The start, h_0, is shown whatever segment is drawn: an auditor who knows the job knows what it has to be, and without it
    work on other inputs, done honestly from there on, would pass.

    Attributes:
        start, start_proof: h_0 and its place in the commitment.
        state: h_{j-1}, which is the digest of its own preimage. It and the spec name all else that is needed to go on from there.
        units: metered before this segment, and the proof that both stand in the commitment.
    """

    spec: Annotated[bytes, Meta(max_length=MOST_SPEC_BYTES)]
    start: DigestBytes
    start_proof: Annotated[tuple[DigestBytes, ...], Meta(max_length=32)]
    state: DigestBytes
    units: U63
    proof: Annotated[tuple[DigestBytes, ...], Meta(max_length=32)]


class SegmentServed(_Frame, frozen=True):
    """Provider: a `Segment`, sealed to the asking validator."""

    lease: DigestBytes
    segment: U32
    sealed: Annotated[bytes, Meta(max_length=MOST_SPEC_BYTES + 1024 * 1024)]


class AskSealed(_Frame, frozen=True):
    """Validator: a part of a content that my segment's state names; signed as `AskSegment`."""

    validator: AddressBytes
    provider: AddressBytes
    lease: DigestBytes
    content: DigestBytes
    offset: U63
    seal_to: DigestBytes
    signature: SignatureBytes

    def signing_digest(self, network: Domain) -> Digest:
        return typed_digest(network.separator(), digest(msgspec.structs.replace(self, signature=bytes(65))))


class SealedPart(_Frame, frozen=True):
    lease: DigestBytes
    content: DigestBytes
    offset: U63
    total: U63
    sealed: Annotated[bytes, Meta(max_length=MOST_PART_BYTES + 64)]


class NotServed(_Frame, frozen=True):
    """Provider to validator: why not. `code`: not_drawn, unknown_lease, missing. It doesn't count for an answer."""

    lease: DigestBytes
    code: Code


JobFrame = (
    Lends
    | StartLease
    | LeaseRefused
    | Progress
    | Logged
    | AskLog
    | Done
    | Broken
    | AskContent
    | ContentPart
    | ContentMissing
)
"""What may stand on a link, beside `messages.Frame`."""

JobRelayed = AskSegment | SegmentServed | AskSealed | SealedPart | NotServed
"""What may stand in a `Relay.body`, beside `messages.Relayed`."""
