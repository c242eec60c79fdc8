"""Orders as vaults take them: signed by the requester that a grant names, whoever carries and pays for them."""

from typing import Protocol, TypeVar

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain, typed_digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key, signed_by

S = TypeVar("S", bound="SignedOrder")


class _Signed(Protocol):
    @property
    def requester(self) -> bytes: ...
    @property
    def signature(self) -> bytes: ...
    def signing_digest(self, network: Domain) -> Digest: ...


class SignedOrder(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A request that has a `requester`, and ends with its `signature`."""

    def canonical(self) -> bytes:
        return canonical.encode(self)

    def digest(self) -> Digest:
        """What the order's `request` is, and its name in the log of uses."""
        return canonical.digest(self)

    def signing_digest(self, network: Domain) -> Digest:
        """What the requester signs: all fields with an empty signature, under the network's domain."""
        unsigned = msgspec.structs.replace(self, signature=bytes(65))
        return typed_digest(network.separator(), canonical.digest(unsigned))

    def signed(self: S, key: Key, network: Domain) -> S:
        return msgspec.structs.replace(self, signature=key.sign(self.signing_digest(network)))

    def is_signed(self: _Signed, network: Domain) -> bool:
        return signed_by(Address(self.requester), self.signing_digest(network), self.signature)
