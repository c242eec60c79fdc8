"""The cryptography that a round is given: all of it other people's (`adapters/masking.py`), none written here."""

from collections.abc import Mapping
from typing import Protocol

from blake3 import blake3


class Primitives(Protocol):
    """What a member or a server of a round needs from libraries."""

    def random(self, size: int) -> bytes: ...

    def public(self, secret: bytes) -> bytes:
        """X25519: 32 bytes of 32."""
        ...

    def agree(self, secret: bytes, public: bytes) -> bytes | None:
        """X25519: the 32 bytes that both ends reach; None for a point of small order."""
        ...

    def seal(self, secret: bytes, public: bytes, plain: bytes) -> bytes:
        """Authenticated encryption between two key pairs: 40 bytes longer."""
        ...

    def unseal(self, secret: bytes, public: bytes, box: bytes) -> bytes | None: ...

    def stream(self, key: bytes, start: int, size: int) -> bytes:
        """`size` bytes of the key stream of a 32-byte key from byte `start`, a multiple of 16."""
        ...

    def split(self, threshold: int, count: int, secret: bytes) -> tuple[bytes, ...]:
        """Shamir shares 1 … count of 16 bytes."""
        ...

    def combine(self, shares: Mapping[int, bytes]) -> bytes:
        """The secret of exactly `threshold` shares by their numbers from 1."""
        ...


def mask_secret(seed: bytes) -> bytes:
    """The X25519 secret of a member's pairwise masks: 16 bytes are shared, 32 derived."""
    return blake3(seed, derive_key_context="clusterai 2026-11-22 secagg mask secret").digest()


def own_key(round_id: bytes, seed: bytes) -> bytes:
    """Key of the mask that only its member knows."""
    return blake3(round_id + seed, derive_key_context="clusterai 2026-11-22 secagg own mask").digest()


def pair_key(round_id: bytes, shared: bytes, low: int, high: int) -> bytes:
    """Key of the mask between two members, the same from both ends."""
    pair = low.to_bytes(4) + high.to_bytes(4)
    return blake3(
        round_id + shared + pair, derive_key_context="clusterai 2026-11-22 secagg pair mask"
    ).digest()


def share_digest(round_id: bytes, giver: int, taker: int, kind: bytes, share: bytes) -> bytes:
    """Holds a dealer to a share that it sealed to `taker`. A share is uniform, so its digest hides it."""
    ends = giver.to_bytes(4) + taker.to_bytes(4)
    context = "clusterai 2026-11-22 secagg share"
    return blake3(round_id + ends + kind + share, derive_key_context=context).digest(16)


def own_digest(round_id: bytes, member: int, seed: bytes) -> bytes:
    return blake3(
        round_id + member.to_bytes(4) + seed, derive_key_context="clusterai 2026-11-22 secagg own seed"
    ).digest()


def commitment(round_id: bytes, root: bytes, own: bytes) -> bytes:
    """What a member's claim signs: its masked vector's Merkle root, and the digest of its own mask's seed."""
    return blake3(round_id + root + own, derive_key_context="clusterai 2026-11-22 secagg commitment").digest()
