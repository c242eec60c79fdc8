"""Calls that only the vault reads, from whoever signed them, once; and answers that only they read.

Nothing is remembered over a restart: a call that was signed before the vault was started is refused, and its requester signs it anew. So a gateway that kept a
call can't have it answered, or paid from a budget, a second time.
"""

from collections import OrderedDict

import msgspec
from blake3 import blake3
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey, SealedBox

from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.sealing import LONGEST_S, decode_call
from clusterai.vault.core.terms import Denied

SKEW_S = 30
"""How far a requester's clock may be ahead of ours."""
MOST_NONCES = 100_000
"""Remembered until their calls are over: 166 calls a second for ten minutes."""


class Asked(msgspec.Struct, frozen=True):
    """A sealed call, opened.

    Attributes:
        signer: who signed it; not who the gateway says it came from.
        reply_to: the X25519 key that the answer is sealed to.
    """

    signer: Address
    reply_to: bytes
    nonce: Digest
    body: bytes


class Seals:
    """A vault's X25519 key, and which calls it has seen.

    Args:
        secret: the vault's master key; its own X25519 key follows from it.
    """

    def __init__(self, secret: bytes, dataset: Digest, network: Domain, started_s: float) -> None:
        self._key = seal_key(secret)
        self._box = SealedBox(self._key)
        self._dataset = dataset
        self._network = network
        self._started_s = started_s
        self._seen: OrderedDict[Digest, tuple[int, Digest | None]] = OrderedDict()

    @property
    def seal_to(self) -> bytes:
        return bytes(self._key.public_key)

    def opened(self, body: bytes, now_s: float, order: Digest | None = None) -> Asked:
        """
        Args:
            order: what the call came with, where it came with one. The same call may come again with the same order, and with no other.

        Raises:
            Denied: malformed, dataset, signature, expired, replayed, busy.
        """
        try:
            call = decode_call(self._box.decrypt(body))
        except (CryptoError, Malformed, ValueError, TypeError):
            raise Denied(
                "malformed", "this isn't a call sealed to this vault: use the key in its card"
            ) from None
        if call.dataset != self._dataset:
            raise Denied("dataset", "the call is for another data set")
        if not call.holds(self._network):
            raise Denied("signature", "the call isn't signed by its signer, or for another network")
        if not call.issued_s <= call.expires_s <= call.issued_s + LONGEST_S or call.issued_s > now_s + SKEW_S:
            raise Denied("expired", f"a call lives {LONGEST_S} s at most: is your clock right?")
        if now_s >= call.expires_s:
            raise Denied("expired", "the call is over: sign it anew")
        if call.issued_s < int(self._started_s):
            raise Denied("expired", "the vault was started after the call was signed: sign it anew")
        self._once(Digest(call.nonce), call.expires_s, order, now_s)
        return Asked(Address(call.signer), call.reply_to, Digest(call.nonce), call.body)

    def _once(self, nonce: Digest, expires_s: int, order: Digest | None, now_s: float) -> None:
        known = self._seen.get(nonce)
        if known is not None:
            if order is not None and known[1] == order:
                return
            raise Denied("replayed", "this call was answered already: sign it anew")
        if len(self._seen) >= MOST_NONCES:
            self._seen = OrderedDict((it, was) for it, was in self._seen.items() if was[0] > now_s)
            if len(self._seen) >= MOST_NONCES:
                raise Denied("busy", "too many calls at once: try again in some minutes")
        self._seen[nonce] = (expires_s, order)

    def sealed(self, to: bytes | Asked, data: bytes) -> bytes:
        """For whoever asked, or for the holder of an X25519 key; only this vault can have made it."""
        key, nonce = (to.reply_to, to.nonce) if isinstance(to, Asked) else (to, ZERO_DIGEST)
        return bytes(Box(self._key, PublicKey(key)).encrypt(nonce + data))


def seal_key(secret: bytes) -> PrivateKey:
    """A vault's X25519 key, from its master key."""
    return PrivateKey(blake3(secret, derive_key_context="clusterai vault seal 1").digest())
