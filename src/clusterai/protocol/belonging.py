"""Whose machine an account is: what an owner of several machines and each machine's account say together.

    Belonging   the owner's key        "that account's machine is mine"
                the account's key      "and I say so too"

A machine is one account: its stake, its link and its pay are known by it. Who owns several lets one of them count for
all, so that whoever wants machines of different people gets them. Neither side can say it alone: a stranger isn't drawn into a
name, and a name isn't borrowed. It carries no right: who shows one can neither spend nor sign for the other.
"""

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain, struct_hash, type_hash, typed_digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key, signed_by
from clusterai.protocol.statements import U40, AddressBytes, SignatureBytes

MOST_BELONGING_BYTES = 256
MOST_BELONGING_S = 1_000 * 86_400
SKEW_S = 30
"""How far clocks may differ: it is shown right after it was signed."""


class Belonging(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`account`'s machine is `owner`'s; both signed the same digest, each by its own key and not by a delegated one."""

    owner: AddressBytes
    account: AddressBytes
    issued_s: U40
    expires_s: U40
    owner_signature: SignatureBytes
    account_signature: SignatureBytes

    TYPE = type_hash("Belonging(address owner,address account,uint40 issuedAt,uint40 expiresAt)")

    def struct(self) -> Digest:
        return struct_hash(self.TYPE, self.owner, self.account, self.issued_s, self.expires_s)

    def signing_digest(self, network: Domain) -> Digest:
        """What both sign, in the network's domain."""
        return typed_digest(network.separator(), self.struct())


def belong(owner: Key, account: Key, network: Domain, issued_s: int, expires_s: int) -> Belonging:
    """By whoever has both keys."""
    blank = Belonging(owner.address, account.address, issued_s, expires_s, bytes(65), bytes(65))
    digest = blank.signing_digest(network)
    return msgspec.structs.replace(
        blank, owner_signature=owner.sign(digest), account_signature=account.sign(digest)
    )


def owner_of(it: Belonging | None, account: Address, network: Domain, now_s: float) -> Address | None:
    """Whose `account` is, if this says so now; `None` where it says nothing that holds."""
    if it is None or it.account != account or it.owner == account:
        return None
    if not it.issued_s - SKEW_S <= now_s < it.expires_s <= it.issued_s + MOST_BELONGING_S:
        return None
    digest = it.signing_digest(network)
    owner = Address(it.owner)
    if signed_by(owner, digest, it.owner_signature) and signed_by(account, digest, it.account_signature):
        return owner
    return None


def decode_belonging(data: bytes) -> Belonging:
    """
    Raises:
        Malformed: too long, of another shape, or not canonical.
    """
    return canonical.decode(data, Belonging, MOST_BELONGING_BYTES)
