"""What somebody signs who wants unspent credit back: who owes it, whose it is, where it goes, how much, and until when.

Typed data, so that a wallet shows its owner these fields, and so that nobody can use the signature for anything else: not at
another gateway or on another chain, not for another account or recipient, and not twice (its digest is its name).
"""

import msgspec

from clusterai.protocol.eip712 import Domain, struct_hash, type_hash, typed_digest
from clusterai.protocol.ids import Digest
from clusterai.protocol.statements import U40, AddressBytes, DigestBytes, Wei


class Withdrawal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Pay me back what is left of this account.

    Attributes:
        gateway: its owner.
        most_wei: no more than this; all that may be withdrawn, where that is less.
        nonce: random; makes equal wishes different ones.
    """

    gateway: AddressBytes
    account: DigestBytes
    to: AddressBytes
    most_wei: Wei
    expires_s: U40
    nonce: DigestBytes

    TYPE = type_hash(
        "Withdrawal(address gateway,bytes32 account,address to,uint128 most,uint40 expiresAt,bytes32 nonce)"
    )

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE, self.gateway, self.account, self.to, self.most_wei, self.expires_s, self.nonce
        )

    def name(self, network: Domain) -> Digest:
        """What is signed, in the network's domain; also what the withdrawal is called ever after."""
        return typed_digest(network.separator(), self.struct())
