"""Who the members of a secure sum are: vaults of different owners, each with something to lose, and not the requester's own in disguise.

A sum hides a vault among the others in it, and the requester names them. Addresses are free: a cohort of one vault and a hundred keys of the
requester's hides nothing. So each member comes with a **membership**, by which the hot key of a registered provider says "this member is my
data set's", and a vault gives nothing into a cohort in which one isn't, or in which fewer owners stand than its policy wants.

What is left to who attacks: to register as many owners, stake for each, and list data for each.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.ledger.core.standing import Standing
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, checksummed, hex0x
from clusterai.protocol.money import show
from clusterai.protocol.signing import BadSignature, Key, recover
from clusterai.vault.core.secagg.messages import Bytes20, Bytes32

MOST_MEMBERSHIP_BYTES = 256
Membership = Annotated[bytes, Meta(max_length=MOST_MEMBERSHIP_BYTES)]
"""A `Member` in canonical bytes, as messages carry it."""


class Member(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """
    Attributes:
        member: the address of the key that signs for the data set in secure sums.
        signature: by a hot key of the data set's owner.
    """

    dataset: Bytes32
    member: Bytes20
    signature: Annotated[bytes, Meta(min_length=65, max_length=65)]


def _said(network: Domain, dataset: bytes, member: bytes) -> Digest:
    return canonical.content_digest(b"clusterai sum member 1" + network.separator() + dataset + member)


def membership(key: Key, network: Domain, dataset: Digest, member: Address) -> bytes:
    """What a vault's hot key says of the key that it signs sums with. It may be shown to anyone, any number of times."""
    return canonical.encode(Member(dataset, member, key.sign(_said(network, dataset, member))))


def signed(raw: bytes, network: Domain) -> tuple[Member, Address]:
    """A membership and the hot key that signed it.

    Raises:
        Malformed: it is none.
    """
    found = canonical.decode(raw, Member, MOST_MEMBERSHIP_BYTES)
    try:
        return found, recover(_said(network, found.dataset, found.member), found.signature)
    except BadSignature as error:
        raise canonical.Malformed(str(error)) from None


def objection(
    found: Sequence[tuple[Member, Standing]], least_owners: int, least_stake_wei: int
) -> str | None:
    """Why these members are no cohort; None where they are one."""
    seen: dict[Address, Digest] = {}
    for it, standing in found:
        what, owner = hex0x(Digest(it.dataset))[:18], standing.owner
        if not any(owner) or standing.lister != owner:
            return f"{what} isn't listed on chain by whom its key acts for"
        if standing.barred or standing.frozen:
            return f"{what} is of a convicted vault"
        if not standing.provides or standing.stake_wei < max(1, least_stake_wei):
            return f"the owner of {what} has {show(standing.stake_wei)} at stake, and {show(max(1, least_stake_wei))} is the least"
        if owner in seen:
            return f"two vaults of one owner, {checksummed(owner)}: it knows both of their shares"
        seen[owner] = Digest(it.dataset)
    if len(seen) < least_owners:
        return f"vaults of {len(seen)} owners, and {least_owners} are the least"
    return None
