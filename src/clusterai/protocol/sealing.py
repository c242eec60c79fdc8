"""What a sealed call says inside: who asks, whom to answer, and that it is asked once.

    body of a call = seal(vault's key, canonical bytes of SealedCall)        nobody else reads it, gateways neither
    its answer     = box(vault's key ↔ reply_to, nonce || plain bytes)       nobody else can have made it

The signature is the requester's over these fields, and names the data set and the network: what was said to one vault can't be said again to
another. `nonce` and both times make it one call: a vault takes none that is over, none from before it was started, and none twice.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.calls import MOST_CALL_BYTES
from clusterai.protocol.eip712 import Domain, struct_hash, type_hash, typed_digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import signed_by
from clusterai.protocol.statements import U40, AddressBytes, DigestBytes, SignatureBytes

NONCE_BYTES = 32
LONGEST_S = 600
"""Between a call's issue and its end: for so long its nonce is remembered."""
MOST_SEALED_BYTES = MOST_CALL_BYTES - 1024
"""What a body may have, so that its seal still fits a call."""


class SealedCall(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """
    Attributes:
        signer: whose signature this is.
        reply_to: the X25519 key that the answer is sealed to.
        body: what the service reads.
    """

    dataset: DigestBytes
    signer: AddressBytes
    reply_to: DigestBytes
    nonce: DigestBytes
    issued_s: U40
    expires_s: U40
    body: Annotated[bytes, Meta(max_length=MOST_SEALED_BYTES)]
    signature: SignatureBytes = bytes(65)

    TYPE = type_hash(
        "SealedCall(bytes32 dataset,address signer,bytes32 replyTo,bytes32 nonce,uint40 issuedAt,uint40 expiresAt,bytes32 body)"
    )

    def signing_digest(self, network: Domain) -> Digest:
        hashed = struct_hash(
            self.TYPE,
            self.dataset,
            self.signer,
            self.reply_to,
            self.nonce,
            self.issued_s,
            self.expires_s,
            canonical.content_digest(self.body),
        )
        return typed_digest(network.separator(), hashed)

    def holds(self, network: Domain) -> bool:
        """Whether its signer signed it."""
        return signed_by(Address(self.signer), self.signing_digest(network), self.signature)


def decode_call(data: bytes) -> SealedCall:
    """
    Raises:
        Malformed: too long, of another shape, or not canonical.
    """
    return canonical.decode(data, SealedCall, MOST_CALL_BYTES)
