"""Secure aggregation's cryptography, by PyNaCl, `cryptography` and pycryptodome.

Shamir's field in pycryptodome is GF(2^128): secrets and shares are 16 bytes, whence the 16-byte seeds. Its `combine` takes
exactly as many shares as the threshold, does not notice wrong ones (callers check what comes out against a commitment), and
is pure Python: 7 ms for 7 shares, 44 ms for 41.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from Crypto.Protocol.SecretSharing import Shamir
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

_shamir: Any = Shamir
"""Its stub knows no default arguments."""
_ZEROS = bytes(1 << 20)


class Libraries:
    """`vault.core.secagg.primitives.Primitives`."""

    def random(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def public(self, secret: bytes) -> bytes:
        return crypto_scalarmult_base(secret)

    def agree(self, secret: bytes, public: bytes) -> bytes | None:
        try:
            return crypto_scalarmult(secret, public)
        except (CryptoError, ValueError, TypeError):
            return None

    def seal(self, secret: bytes, public: bytes, plain: bytes) -> bytes:
        return bytes(Box(PrivateKey(secret), PublicKey(public)).encrypt(plain))

    def unseal(self, secret: bytes, public: bytes, box: bytes) -> bytes | None:
        try:
            return Box(PrivateKey(secret), PublicKey(public)).decrypt(box)
        except (CryptoError, ValueError, TypeError):
            return None

    def stream(self, key: bytes, start: int, size: int) -> bytes:
        assert start % 16 == 0
        counter = (start // 16).to_bytes(16)
        encryptor = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()
        return encryptor.update(_ZEROS[:size] if size <= len(_ZEROS) else bytes(size))

    def split(self, threshold: int, count: int, secret: bytes) -> tuple[bytes, ...]:
        if threshold == 1:
            return (secret,) * count
        shares: list[tuple[int, bytes]] = _shamir.split(threshold, count, secret)
        return tuple(share for _, share in shares)

    def combine(self, shares: Mapping[int, bytes]) -> bytes:
        return _shamir.combine(list(shares.items()))
