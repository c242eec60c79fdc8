"""A key that nobody holds, carried by somebody nobody trusts: what vaults sign while they make it, and check before they use it.

    links     each vault adds its share to the key of those before it, and signs which key it got and which it gave
    claims    each encrypts its share under the last key, and signs the ciphertexts' digest
    opening   each opens the sum of exactly these ciphertexts, of everyone in the round, once
    tallies   each signs what its share and its mask come to under weights that were drawn after the opening

The requester carries keys and ciphertexts. Without the links it could put a key of its own at the end, and read everyone; without the claims it could
have one vault's ciphertext opened for a sum. A vault that lies while the key is made isn't found by this (it could add the inverse of all before it): vaults are taken to follow
the protocol here, and their own noise is what protects if they don't.

Without the tallies a vault could open falsely, or encrypt something else than it pledged, and move the sum unseen. With them it must sign a false number too, and
`clusterai vault replay` makes the true one of the vault's rows and noise key. A tally says nothing of a share: the mask in it, new for each key, is even over all numbers, and
only the masks' sum is opened.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.signing import Key, signed_by
from clusterai.protocol.statements import AddressBytes, DigestBytes, SignatureBytes

MOST_PARTIES = 32
"""Everyone gets everyone's ciphertexts in one call."""
PRIME = 2**63 - 25
"""Of the tallies. Sums are within ±2^62, so no shift of one is a multiple of it."""
MASKS, MASK_BITS = 3, 56
"""A mask's numbers. Together they are even over the remainders but for 2^-105, and those of `MOST_PARTIES` add up as shares do."""
Place = Annotated[int, Meta(ge=0, lt=MOST_PARTIES)]
Cohort = Annotated[tuple[AddressBytes, ...], Meta(min_length=3, max_length=MOST_PARTIES)]


class _Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    def unsigned(self) -> Digest:
        return canonical.digest(msgspec.structs.replace(self, signature=bytes(65)))


class Link(_Signed, frozen=True, array_like=True, tag="joint.link.1"):
    """One vault's share of the key: digests of the key before it (zeros for the first) and after it."""

    round: DigestBytes
    place: Place
    before: DigestBytes
    after: DigestBytes
    signature: SignatureBytes = bytes(65)

    def signed(self, key: Key) -> "Link":
        return msgspec.structs.replace(self, signature=key.sign(self.unsigned()))


class Claim(_Signed, frozen=True, array_like=True, tag="joint.claim.1"):
    """One vault's ciphertexts under the key of that digest."""

    round: DigestBytes
    place: Place
    key: DigestBytes
    blocks: DigestBytes
    signature: SignatureBytes = bytes(65)

    def signed(self, key: Key) -> "Claim":
        return msgspec.structs.replace(self, signature=key.sign(self.unsigned()))


class Tally(_Signed, frozen=True, array_like=True, tag="joint.tally.1"):
    """One vault's share and mask under the weights of a seed.

    Attributes:
        order: whose share it is.
        made: the key that this vault's link made; its mask is drawn by it.
        opened: digest of everyone's part of the opening. The seed is drawn after it.
        value: `tallied` of share and mask.
    """

    order: DigestBytes
    round: DigestBytes
    place: Place
    made: DigestBytes
    opened: DigestBytes
    seed: DigestBytes
    value: Annotated[int, Meta(ge=0, lt=PRIME)]
    signature: SignatureBytes = bytes(65)

    def signed(self, key: Key) -> "Tally":
        return msgspec.structs.replace(self, signature=key.sign(self.unsigned()))


def tallied(masked: Sequence[int], seed: bytes) -> int:
    """The weighted sum of a share and its mask, as a remainder. That of a sum is the sum of its parts', in remainders.

    Two shares that differ have the same one by chance in 1 of `PRIME` seeds, whatever was done to their masks.
    """
    drawn = hashlib.shake_256(b"clusterai joint tally" + seed).digest(16 * (len(masked) - MASKS))
    weights = [int.from_bytes(drawn[at : at + 16]) for at in range(0, len(drawn), 16)]
    weights += [1 << MASK_BITS * at for at in range(MASKS)]
    return sum(weight * int(value) for weight, value in zip(weights, masked, strict=True)) % PRIME


def false_tally(tally: Tally, who: bytes, wanted: Tally) -> str | None:
    """Why this isn't that vault's word on what was asked; None where it is. Whether its number is true shows to who has rows and noise key.

    Args:
        wanted: what it must be but for number and signature.
    """
    if msgspec.structs.replace(tally, value=wanted.value, signature=wanted.signature) != wanted:
        return "its tally is of another opening or seed"
    if not signed_by(Address(who), tally.unsigned(), tally.signature):
        return "its tally isn't signed by the key that it signs sums with"
    return None


def round_of(study: bytes, cohort: Sequence[bytes]) -> Digest:
    """One study over these vaults in this order."""
    return canonical.content_digest(b"clusterai joint round" + study + b"".join(cohort))


def blocks_digest(blocks: Sequence[bytes]) -> Digest:
    return canonical.content_digest(b"".join(canonical.content_digest(it) for it in blocks))


def broken_link(round_: bytes, cohort: Sequence[bytes], links: Sequence[Link]) -> str | None:
    """Why these aren't the first links of this round's chain; None where they are."""
    if len(links) > len(cohort):
        return "more links than vaults"
    before = ZERO_DIGEST
    for at, link in enumerate(links):
        if (
            link.round != round_
            or link.place != at
            or not signed_by(Address(cohort[at]), link.unsigned(), link.signature)
        ):
            return f"link {at} isn't signed by the vault at that place, for this round"
        if link.before != before:
            return f"link {at} adds to another key than link {at - 1} made"
        before = Digest(link.after)
    return None


def false_claim(
    round_: bytes,
    cohort: Sequence[bytes],
    key: bytes,
    claims: Sequence[Claim],
    blocks: Sequence[Sequence[bytes]],
) -> str | None:
    """Why these aren't everyone's ciphertexts, each once; None where they are."""
    if not len(claims) == len(blocks) == len(cohort):
        return "not one claim of every vault of the round"
    for at, (claim, given) in enumerate(zip(claims, blocks, strict=True)):
        if (
            claim.round != round_
            or claim.place != at
            or claim.key != key
            or not signed_by(Address(cohort[at]), claim.unsigned(), claim.signature)
        ):
            return f"claim {at} isn't signed by the vault at that place, for this round and key"
        if claim.blocks != blocks_digest(given):
            return f"the ciphertexts at place {at} aren't those that were claimed"
        if len(given) != len(blocks[0]):
            return "ciphertexts of different lengths"
    return None
