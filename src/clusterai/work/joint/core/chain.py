"""A key that nobody holds, carried by somebody nobody trusts: what vaults sign while they make it, and check before they use it.

    links     each vault adds its share to the key of those before it, and signs which key it got and which it gave
    claims    each encrypts its share under the last key, and signs the ciphertexts' digest
    opening   each opens the sum of exactly these ciphertexts, of everyone in the round, once

The requester carries keys and ciphertexts. Without the links it could put a key of its own at the end, and read everyone; without the claims it could
have one vault's ciphertext opened for a sum. A vault that lies while the key is made isn't found by this (it could add the inverse of all before it): vaults are taken to follow
the protocol here, and their own noise is what protects if they don't.
"""

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
