"""The key that a vault's noise is drawn from, and the seed that each order gets of it.

The key's commitment stands on chain, so that nobody could choose any noise, and an auditor who is given rows and key computes a query's or a
program's answer again (`clusterai vault replay`).
"""

import hashlib
import hmac

from blake3 import blake3

from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak


def noise_key(master: bytes) -> bytes:
    return blake3(master, derive_key_context="clusterai vault noise 1").digest()


def noise_commit(key: bytes) -> Digest:
    return Digest(keccak(key))


def noise_seed(key: bytes, order: bytes, beacon: bytes) -> bytes:
    """32 bytes."""
    return hmac.new(key, b"clusterai noise 1" + order + beacon, hashlib.sha256).digest()
