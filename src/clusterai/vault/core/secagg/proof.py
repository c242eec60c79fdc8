"""What a server leaves of a sum for whoever asks later: the signed transcript, and chunks of it opened.

The chunks are drawn by the transcript's own digest, all of them where there are few. A server that left a member out, counted one twice or weighed one
otherwise is false in every chunk. One that would change a few values of many could try nonces until their chunk isn't drawn: against that
members draw chunks for themselves while the round runs (`checking`).
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.vault.core.secagg.primitives import Primitives
from clusterai.vault.core.secagg.transcript import Fault, Opening, Transcript, drawn_chunks, fault, replay

SHOWN = 16
"""Chunks, or all there are."""
MAX_PROOF_BYTES = 64 * 1024 * 1024


class Proof(msgspec.Struct, frozen=True, tag="secagg/proof/1", forbid_unknown_fields=True):
    transcript: Transcript
    openings: Annotated[tuple[Opening, ...], Meta(max_length=SHOWN)]


def shown_chunks(transcript: Transcript) -> tuple[int, ...]:
    return drawn_chunks(transcript, b"", SHOWN)


def proof_fault(proof: Proof, primitives: Primitives) -> Fault | None:
    """What is wrong with it; None says that the sum is that of the members on the roll, each once, as they signed."""
    found = fault(proof.transcript, primitives)
    if found is not None:
        return found
    if tuple(it.chunk for it in proof.openings) != shown_chunks(proof.transcript):
        return Fault("shape", "not the chunks that the transcript draws")
    for opening in proof.openings:
        found = replay(proof.transcript, opening, primitives)
        if found is not None:
            return found
    return None
