"""Participants of the simulated network and their keys.

Signatures here are keyed hashes that anybody could forge, in the shape of real ones (65 bytes, v of 27), at a tenth of
the time. Nobody in the simulation forges; the real scheme has vectors and properties of its own.
"""

from blake3 import blake3

from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.signing import BadSignature


class Key:
    """What `protocol.signing.Key` is for real."""

    __slots__ = ("address",)

    def __init__(self, name: str) -> None:
        self.address = Address(blake3(name.encode()).digest(20))

    def sign(self, digest: Digest) -> bytes:
        return self.address + blake3(self.address + digest).digest(44) + b"\x1b"


def recover(digest: Digest, signature: bytes) -> Address:
    """Who signed; raises as `protocol.signing.recover` does."""
    signer = Address(signature[:20])
    if len(signature) != 65 or signature[20:64] != blake3(signer + digest).digest(44):
        raise BadSignature(BadSignature.__doc__)
    return signer


def signer_of(digest: Digest, signature: bytes) -> Address:
    """As the chain's ecrecover: nobody is the zero address."""
    try:
        return recover(digest, signature)
    except BadSignature:
        return ZERO_ADDRESS


class Party:
    """One owner with one hot key. `name` is for people: `provider-0`."""

    __slots__ = ("hot", "name", "owner")

    def __init__(self, name: str) -> None:
        self.name = name
        self.owner = Key(f"owner of {name}")
        self.hot = Key(f"hot key of {name}")

    @property
    def address(self) -> Address:
        """How frames name this party."""
        return self.owner.address

    def __repr__(self) -> str:
        return self.name
