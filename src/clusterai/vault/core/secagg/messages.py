"""What a round of secure aggregation says, and the limits of each part.

    server                                         member
    Invite(spec)                            ─────>  checks what is summed, with whom, for whom
                                            <─────  Advert: two fresh X25519 keys, signed
    Neighbours(adverts)                     ─────>
                                            <─────  Dealt: shares of its two secrets, sealed to each neighbour
    Boxes(what neighbours sealed to it)     ─────>
                                            <─────  Masked: the masked vector, and a signed claim of it
    Roll(dealers, claims)                   ─────>
                                            <─────  Endorsement: "this roll, and no other"
    Endorsed(a quorum's endorsements)       ─────>
                                            <─────  Opened: its own mask, shares of one secret of each neighbour

Everything signed is the BLAKE3 digest of canonical bytes that name the round, and a round is the digest of its `Spec`: a
signature says nothing in another round, and members who were shown two specs are in two rounds. Members are numbers:
positions in `graph.members(spec)`.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from clusterai.protocol.canonical import decode, digest
from clusterai.protocol.ids import Digest

MAX_MEMBERS = 4096
MAX_NEIGHBOURS = 512
MAX_LENGTH = 2**24
MAX_WEIGHT = 2**40
CHUNK = 512
"""Values under one leaf of a commitment: what a replay opens of each member at once."""

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes20 = Annotated[bytes, Meta(min_length=20, max_length=20)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=65, max_length=65)]
Index = Annotated[int, Meta(ge=0, lt=MAX_MEMBERS)]
Box = Annotated[bytes, Meta(min_length=76, max_length=76)]
"""4 bytes of the dealer's number, 32 of shares, 24 of nonce, 16 of authenticator."""


class _Part(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    """As arrays: a roll of a thousand claims would spend a third of itself on the names of their fields."""


class Spec(_Part, frozen=True):
    """One sum: of what, among whom. Members check it before anything of theirs is used."""

    server: Bytes20
    nonce: Bytes32
    cohort: Annotated[tuple[Bytes20, ...], Meta(min_length=2, max_length=MAX_MEMBERS)]
    """Everyone who may take part, sorted; with several groups, of all groups together."""
    beacon: Bytes32
    """Public randomness from after the cohort was fixed: it draws groups and neighbours."""
    groups: Annotated[int, Meta(ge=1, le=MAX_MEMBERS)]
    group: Annotated[int, Meta(ge=0, lt=MAX_MEMBERS)]
    length: Annotated[int, Meta(ge=1, le=MAX_LENGTH)]
    bits: Annotated[int, Meta(ge=2, le=64)]
    """Values are summed modulo 2^bits."""
    degree: Annotated[int, Meta(ge=0, le=MAX_NEIGHBOURS)]
    """Neighbours of each member, even; 0 = all others."""
    threshold: Annotated[int, Meta(ge=1, le=MAX_MEMBERS)]
    """Neighbours whose shares open a secret."""
    purpose: Bytes32
    """What the caller's contract calls this sum: a job's round, a query. Opaque here."""
    expires_s: Annotated[int, Meta(ge=0, lt=2**53)]

    def round(self) -> Digest:
        return digest(self)


class Invite(_Part, frozen=True):
    spec: Spec


class Advert(_Part, frozen=True):
    round: Bytes32
    member: Index
    mask_key: Bytes32
    seal_key: Bytes32
    signature: Signature


class Neighbours(_Part, frozen=True):
    round: Bytes32
    adverts: Annotated[tuple[tuple[Index, Bytes32, Bytes32, Signature], ...], Meta(max_length=MAX_MEMBERS)]
    """Number, mask key, seal key and signature of each neighbour who advertised, by rising number."""


class Dealt(_Part, frozen=True):
    """To each neighbour who advertised, by rising number: its sealed shares, and digests of both that hold the dealer to them."""

    round: Bytes32
    boxes: Annotated[tuple[tuple[Index, Box, Bytes16, Bytes16], ...], Meta(max_length=MAX_MEMBERS)]
    signature: Signature


class Boxes(_Part, frozen=True):
    """(dealer, box, the two digests that the dealer signed) of each neighbour who dealt, by rising number."""

    round: Bytes32
    boxes: Annotated[tuple[tuple[Index, Box, Bytes16, Bytes16], ...], Meta(max_length=MAX_MEMBERS)]


class Claim(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A member's word: this is my masked vector, and it counts so much."""

    member: Index
    commitment: Bytes32
    """Binds the vector's Merkle root and the seed of the member's own mask: `primitives.commitment`."""
    weight: Annotated[int, Meta(ge=0, le=MAX_WEIGHT)]
    signature: Signature


class Masked(_Part, frozen=True):
    round: Bytes32
    claim: Claim
    own: Bytes32
    """Digest of the own mask's seed."""
    rubbish: Annotated[tuple[Index, ...], Meta(max_length=MAX_MEMBERS)]
    """Dealers whose box didn't hold what they signed; their shares won't be opened here."""
    vector: Annotated[bytes, Meta(max_length=8 * MAX_LENGTH)]


class Roll(_Part, frozen=True):
    """Whose vectors are summed, and who dealt; signed by the server: two of one round prove that it lied."""

    round: Bytes32
    dealers: Annotated[tuple[Index, ...], Meta(max_length=MAX_MEMBERS)]
    claims: Annotated[tuple[Claim, ...], Meta(max_length=MAX_MEMBERS)]
    signature: Signature


class Endorsement(_Part, frozen=True):
    round: Bytes32
    signature: Signature


class Endorsed(_Part, frozen=True):
    round: Bytes32
    endorsements: Annotated[tuple[tuple[Index, Signature], ...], Meta(max_length=MAX_MEMBERS)]


class Opened(_Part, frozen=True):
    """The own mask's seed, and of each neighbour who dealt one share: of its own mask if it is on the roll, else of its
    pairwise key. Never both."""

    round: Bytes32
    own: Bytes16
    shares: Annotated[tuple[tuple[Index, Bytes16], ...], Meta(max_length=MAX_MEMBERS)]


class Refused(_Part, frozen=True):
    round: Bytes32
    code: Annotated[str, Meta(max_length=40)]
    detail: Annotated[str, Meta(max_length=400)]


ToMember = Invite | Neighbours | Boxes | Roll | Endorsed
ToServer = Advert | Dealt | Masked | Endorsement | Opened | Refused
_TO_MEMBER: Any = ToMember
_TO_SERVER: Any = ToServer
MAX_FRAME_BYTES = 64 * 1024 * 1024
"""What a call to a vault carries; 2^24 values of 26 bits are 52 MiB."""


def to_member(data: bytes) -> ToMember:
    """Decode what a server asks.

    Raises:
        Malformed: not a frame of this protocol.
    """
    return decode(data, _TO_MEMBER, MAX_FRAME_BYTES)


def to_server(data: bytes) -> ToServer:
    """Decode what a member answers.

    Raises:
        Malformed: not a frame of this protocol.
    """
    return decode(data, _TO_SERVER, MAX_FRAME_BYTES)


class _AdvertClaim(_Part, frozen=True, tag="secagg/advert/1"):
    round: bytes
    member: int
    mask_key: bytes
    seal_key: bytes


class _DealtClaim(_Part, frozen=True, tag="secagg/dealt/1"):
    round: bytes
    member: int
    digests: tuple[tuple[int, bytes, bytes], ...]


class _MaskedClaim(_Part, frozen=True, tag="secagg/masked/1"):
    round: bytes
    member: int
    commitment: bytes
    weight: int


class _RollClaim(_Part, frozen=True, tag="secagg/roll/1"):
    round: bytes
    dealers: tuple[int, ...]
    claims: tuple[tuple[int, bytes, int], ...]


class _Endorses(_Part, frozen=True, tag="secagg/endorse/1"):
    round: bytes
    roll: bytes


def advert_digest(round_id: bytes, member: int, mask_key: bytes, seal_key: bytes) -> Digest:
    return digest(_AdvertClaim(round_id, member, mask_key, seal_key))


def dealt_digest(round_id: bytes, member: int, digests: tuple[tuple[int, bytes, bytes], ...]) -> Digest:
    return digest(_DealtClaim(round_id, member, digests))


def claim_digest(round_id: bytes, member: int, commitment: bytes, weight: int) -> Digest:
    return digest(_MaskedClaim(round_id, member, commitment, weight))


def roll_digest(round_id: bytes, dealers: tuple[int, ...], claims: tuple[Claim, ...]) -> Digest:
    """Without the signatures: what the roll says, so that a re-signed claim makes no second roll of it."""
    return digest(_RollClaim(round_id, dealers, tuple((c.member, c.commitment, c.weight) for c in claims)))


def endorsement_digest(round_id: bytes, roll: Digest) -> Digest:
    return digest(_Endorses(round_id, roll))
