"""What is asked for: a model's outputs for inputs that only the requester can read.

The order carries the ciphertexts themselves, so a transcript is all that an audit needs, on chain too: 1.5 MB fit an answer to a
challenge, and a request is at most 688 kB. An answer is one `messages.Answer` with the outputs' ciphertexts as packed bytes
(`work.packed`), at most 390 kB.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.work.packed import MOST_BYTES
from clusterai.work.request import OutOfRange, within
from clusterai.work.sealed.core.security import RINGS, Ring
from clusterai.work.sealed.core.wire import NoCiphertext, residues_of

MOST_REQUEST_BYTES = 700 * 1024
MOST_CIPHERTEXTS = 24
"""Of a request: as many of the smallest as fit."""


class Sealed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="sealed.1"):
    """Outputs of one model for one ciphertext or a few, which hold as many inputs as the model's layout takes.

    Attributes:
        model: content address of shape and weights, 32 bytes.
        degree: of the ring, which says all parameters.
        ciphertexts: as `core.wire` spells them.
        answers: how many ciphertexts come back; the model's layout says how many.
    """

    model: bytes
    degree: Literal[2_048, 4_096, 8_192]
    ciphertexts: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=MOST_CIPHERTEXTS)]
    answers: int

    def __post_init__(self) -> None:
        within("length of model address in bytes", len(self.model), 32, 32)
        within("answers", self.answers, 1, MOST_BYTES // self.ring.ciphertext_bytes)
        size = self.ring.ciphertext_bytes
        within("bytes of all ciphertexts", size * len(self.ciphertexts), 1, MOST_REQUEST_BYTES)
        for ciphertext in self.ciphertexts:
            try:
                residues_of(self.ring, ciphertext)
            except NoCiphertext as error:
                raise OutOfRange("a ciphertext", str(error), "residues", "residues") from None

    @property
    def ring(self) -> Ring:
        return RINGS[self.degree]

    @property
    def answer_bytes(self) -> int:
        return self.answers * self.ring.ciphertext_bytes

    def canonical(self) -> bytes:
        """What travels beside an order and what its digest covers."""
        return canonical.encode(self)

    def digest(self) -> Digest:
        return canonical.digest(self)


def decode_sealed(raw: bytes) -> Sealed:
    """Read a stranger's request; every residue is looked at.

    Raises:
        canonical.Malformed: too long, no such request, out of range, or not in canonical form.
    """
    return canonical.decode(raw, Sealed, MOST_REQUEST_BYTES + 1024)
