"""Sealed boxes: anyone seals to a public key, only its holder opens. Source: libsodium `crypto_box_seal`, by PyNaCl.

The box says nothing of who sealed it; what is inside must prove itself by digests and signatures.
"""

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox


class SealKey:
    """An X25519 key pair that never shows its secret but to a key file."""

    __slots__ = ("_box", "_secret", "public")

    def __init__(self, secret: bytes) -> None:
        self._secret = PrivateKey(secret)
        self._box = SealedBox(self._secret)
        self.public = bytes(self._secret.public_key)

    @classmethod
    def fresh(cls) -> "SealKey":
        return cls(bytes(PrivateKey.generate()))

    def secret(self) -> bytes:
        return bytes(self._secret)

    def unseal(self, sealed: bytes) -> bytes | None:
        """The plain bytes; None where they weren't sealed to this key, or were changed."""
        try:
            return self._box.decrypt(sealed)
        except (CryptoError, ValueError, TypeError):
            return None

    def __repr__(self) -> str:
        return f"SealKey({self.public.hex()})"


def seal(plain: bytes, to: bytes) -> bytes:
    """Seal to an X25519 public key of 32 bytes."""
    return SealedBox(PublicKey(to)).encrypt(plain)
