"""Randomness that can be replayed: a secret seed, and a stream of bits from it for each purpose.

The stream is the key stream of AES-256 in counter mode, as the library `cryptography` makes it. Whoever lacks the seed can't tell
it from true randomness; whoever holds it, an auditor or the owner of a replica, draws the same noise again.
"""

import hashlib
import hmac

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

_PIECE = bytes(4096)


class Stream:
    """Bits of one purpose.

    Args:
        seed: 32 bytes, secret.
        purpose: streams of different purposes are independent.
    """

    def __init__(self, seed: bytes, purpose: str) -> None:
        assert len(seed) == 32
        key = hmac.digest(seed, b"clusterai stream " + purpose.encode(), hashlib.sha256)
        # A key serves one stream, so its counter may begin at zero.
        self._encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
        self._bits, self._count = 0, 0

    def take(self, size: int) -> bytes:
        """The next bytes; bits left over from `bits` are not among them."""
        return self._encryptor.update(bytes(size))

    def bits(self, count: int) -> int:
        """A number of so many bits."""
        while self._count < count:
            self._bits = (self._bits << 8 * len(_PIECE)) | int.from_bytes(
                self._encryptor.update(_PIECE), "big"
            )
            self._count += 8 * len(_PIECE)
        self._count -= count
        found = self._bits >> self._count
        self._bits &= (1 << self._count) - 1
        return found

    def below(self, limit: int) -> int:
        """Evenly from 0 … limit - 1, exactly: what falls outside is drawn again."""
        assert limit > 0
        size = (limit - 1).bit_length()
        while (found := self.bits(size)) >= limit:
            pass
        return found

    def words(self, count: int) -> NDArray[np.uint64]:
        """Many numbers of 64 bits at once."""
        return np.frombuffer(self.take(8 * count), dtype="<u8")
