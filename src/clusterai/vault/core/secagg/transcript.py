"""What a server says of a round, signed; and how anyone finds that it is false.

A transcript holds all that the server unmasked with: members' signed adverts and claims, the endorsed roll, the seeds that
were opened. Whoever holds it can regenerate every mask. `Opening` adds, for one chunk of values, each member's masked
values with the path to the root that the member itself signed; then the chunk's sum follows by arithmetic, and is compared
with what stands under the server's root:

    sum[chunk] = sum of masked[chunk] - own masks - pairwise masks with those who dealt and then dropped out

A server that left a member out, counted one twice or weighed it otherwise has a false sum in *every* chunk where that member
isn't zero: one chunk, drawn by a beacon after the transcript, catches it. One that changed few values is caught as often as
their chunk is drawn; `check every chunk` is open to whoever takes the traffic. What is published beyond the sum is what
the server knew already: it tells nobody more than server and sum.
"""

from typing import Annotated

import msgspec
import numpy as np
from blake3 import blake3
from msgspec import Meta

from clusterai.protocol import merkle
from clusterai.protocol.canonical import content_digest, digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import signed_by
from clusterai.vault.core.secagg import graph, vectors
from clusterai.vault.core.secagg.member import advert_true, endorsements_fault, roll_fault
from clusterai.vault.core.secagg.messages import (
    MAX_LENGTH,
    MAX_MEMBERS,
    Advert,
    Bytes16,
    Bytes32,
    Index,
    Roll,
    Signature,
    Spec,
    roll_digest,
)
from clusterai.vault.core.secagg.primitives import (
    Primitives,
    commitment,
    mask_secret,
    own_digest,
    own_key,
    pair_key,
)

MAX_TRANSCRIPT_BYTES = 4 * 1024 * 1024


class Transcript(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    spec: Spec
    roll: Roll
    endorsements: Annotated[tuple[tuple[Index, Signature], ...], Meta(max_length=MAX_MEMBERS)]
    adverts: Annotated[tuple[Advert, ...], Meta(max_length=MAX_MEMBERS)]
    """Of all dealers, in the roll's order."""
    roots: Annotated[tuple[Bytes32, ...], Meta(max_length=MAX_MEMBERS)]
    """Of the masked vectors, in the order of the claims."""
    own: Annotated[tuple[Bytes16, ...], Meta(max_length=MAX_MEMBERS)]
    """Seeds of the summed members' own masks, in the same order."""
    dropped: Annotated[tuple[tuple[Index, Bytes16], ...], Meta(max_length=MAX_MEMBERS)]
    """Seeds of the pairwise keys of dealers who are not summed, where a summed member is their neighbour."""
    sum_root: Bytes32
    signature: Signature

    @property
    def weights(self) -> dict[Address, int]:
        """Who is in the sum, with the weight that it declared."""
        everyone = graph.members(self.spec)
        return {everyone[claim.member]: claim.weight for claim in self.roll.claims}


class Opening(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """One chunk: each member's masked values and path, in the order of the claims, and the sum's."""

    chunk: Annotated[int, Meta(ge=0, lt=MAX_LENGTH)]
    parts: Annotated[
        tuple[tuple[bytes, Annotated[tuple[Bytes32, ...], Meta(max_length=32)]], ...],
        Meta(max_length=MAX_MEMBERS),
    ]
    total: bytes
    path: Annotated[tuple[Bytes32, ...], Meta(max_length=32)]


class Fault(msgspec.Struct, frozen=True):
    """The server's: a code, and what a person reads."""

    code: str
    detail: str


class _Says(msgspec.Struct, frozen=True, tag="secagg/transcript/1"):
    round: bytes
    roll: bytes
    rest: bytes
    sum_root: bytes


def transcript_digest(transcript: Transcript) -> Digest:
    """What the server signs: everything but its signature."""
    round_id = transcript.spec.round()
    unsigned = msgspec.structs.replace(transcript, signature=bytes(65))
    roll = roll_digest(round_id, transcript.roll.dealers, transcript.roll.claims)
    return digest(_Says(round_id, roll, digest(unsigned), transcript.sum_root))


def needed(spec: Spec, roll: Roll) -> tuple[int, ...]:
    """Dealers who dropped out and whose pairwise masks stand in a summed vector."""
    summed = {claim.member for claim in roll.claims}
    return tuple(
        j for j in roll.dealers if j not in summed and any(i in summed for i in graph.neighbours(spec, j))
    )


def fault(transcript: Transcript, primitives: Primitives) -> Fault | None:
    """What is wrong with a transcript by itself; None says that seeds, claims and endorsements fit together."""
    spec, roll = transcript.spec, transcript.roll
    round_id, members = spec.round(), graph.members(spec)
    if not signed_by(Address(spec.server), transcript_digest(transcript), transcript.signature):
        return Fault("unsigned", "the server did not sign this")
    wrong = roll_fault(spec, roll) or endorsements_fault(spec, roll, transcript.endorsements)
    if wrong is not None:
        return Fault("roll", wrong)
    if len(transcript.roots) != len(roll.claims) or len(transcript.own) != len(roll.claims):
        return Fault("shape", "a root and a seed belong to each claim")
    for claim, root, seed in zip(roll.claims, transcript.roots, transcript.own, strict=True):
        own = own_digest(round_id, claim.member, seed)
        if commitment(round_id, root, own) != claim.commitment:
            return Fault("seed", f"member {claim.member} committed to another vector or another mask")
    if tuple(advert.member for advert in transcript.adverts) != roll.dealers:
        return Fault("shape", "the adverts are not the dealers'")
    for advert in transcript.adverts:
        if advert.round != round_id or not advert_true(members, advert):
            return Fault("advert", f"member {advert.member} never advertised this")
    if tuple(j for j, _ in transcript.dropped) != needed(spec, roll):
        return Fault("shape", "not the seeds of those who dropped out")
    keys = {advert.member: advert.mask_key for advert in transcript.adverts}
    for claim in roll.claims if transcript.dropped else ():
        # An honest server lets nobody in with such a key; one that conspires with its owner would.
        if primitives.agree(bytes(31) + b"\x01", keys[claim.member]) is None:
            return Fault("advert", f"member {claim.member} advertised a key that nobody can agree with")
    for j, seed in transcript.dropped:
        if primitives.public(mask_secret(seed)) != keys[j]:
            return Fault("seed", f"this was not member {j}'s pairwise key")
    return None


def fault_for(transcript: Transcript, endorsed: Digest | None) -> Fault | None:
    """A member's own question: is this the roll that I endorsed? None where it endorsed none."""
    told = roll_digest(transcript.spec.round(), transcript.roll.dealers, transcript.roll.claims)
    if endorsed is not None and told != endorsed:
        return Fault("equivocation", "another roll than the one that this vault was shown and endorsed")
    return None


def unmask(
    spec: Spec,
    roll: Roll,
    own: dict[int, bytes],
    dropped: dict[int, bytes],
    mask_keys: dict[int, bytes],
    total: vectors.Words,
    primitives: Primitives,
    start: int = 0,
) -> None:
    """Take all masks out of a sum of masked vectors, in place, from value `start` on."""
    round_id = spec.round()
    for seed in own.values():
        vectors.add_mask(total, own_key(round_id, seed), -1, primitives, start)
    for j, seed in dropped.items():
        secret = mask_secret(seed)
        for i in graph.neighbours(spec, j):
            if i not in own:
                continue
            shared = primitives.agree(secret, mask_keys[i])
            assert shared is not None, "`fault` and the server let nobody in whose key is of small order"
            low, high = sorted((i, j))
            # Member i added with the sign of its place; it comes out with the opposite one.
            sign = -1 if i == low else 1
            vectors.add_mask(total, pair_key(round_id, shared, low, high), sign, primitives, start)


def replay(transcript: Transcript, opening: Opening, primitives: Primitives) -> Fault | None:
    """Whether the sum's chunk is what the members' own masked values add up to; `fault` found nothing before."""
    spec, roll, chunk = transcript.spec, transcript.roll, opening.chunk
    count = vectors.chunks(spec.length)
    if chunk >= count or len(opening.parts) != len(roll.claims):
        return Fault("shape", "an opening has one part for each claim, of a chunk that there is")
    length = vectors.chunk_length(spec.length, chunk)
    size = vectors.packed_size(length, spec.bits)
    total = np.zeros(length, vectors.word(spec.bits))
    for claim, root, (part, path) in zip(roll.claims, transcript.roots, opening.parts, strict=True):
        held = [Digest(step) for step in path]
        if len(part) != size or not merkle.verify(Digest(root), content_digest(part), chunk, count, held):
            return Fault("opening", f"not what member {claim.member} committed to")
        total += vectors.unpack(part, length, spec.bits)
    own = {claim.member: seed for claim, seed in zip(roll.claims, transcript.own, strict=True)}
    keys = {advert.member: advert.mask_key for advert in transcript.adverts}
    start = chunk * vectors.CHUNK
    unmask(spec, roll, own, dict(transcript.dropped), keys, total, primitives, start)
    packed = vectors.pack(vectors.reduce(total, spec.bits), spec.bits)
    held = [Digest(step) for step in opening.path]
    root = Digest(transcript.sum_root)
    if not merkle.verify(root, content_digest(opening.total), chunk, count, held):
        return Fault("opening", "not what stands under the sum's root")
    if opening.total != packed:
        return Fault("sum", f"chunk {chunk} is not the sum of the members on the roll")
    return None


def sum_fault(transcript: Transcript, packed: bytes) -> Fault | None:
    """Whether the sum that the server handed out is the one it signed."""
    spec = transcript.spec
    if len(packed) != vectors.packed_size(spec.length, spec.bits):
        return Fault("shape", "a sum of another length")
    if vectors.commit(packed, spec.length, spec.bits).root != transcript.sum_root:
        return Fault("sum", "another sum than the one under the signed root")
    return None


def drawn_chunks(transcript: Transcript, beacon: bytes, count: int) -> tuple[int, ...]:
    """Chunks to open, drawn by public randomness that came after the transcript; without repetition."""
    there = vectors.chunks(transcript.spec.length)
    seed = blake3(b"secagg/chunks" + transcript_digest(transcript) + beacon).digest()
    order = sorted(range(there), key=lambda chunk: blake3(seed + chunk.to_bytes(4)).digest())
    return tuple(sorted(order[:count]))
