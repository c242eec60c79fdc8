"""Asks the chain what it knows of keys that speak for data."""

from collections.abc import Sequence
from typing import Any

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.artifacts import Name
from clusterai.ledger.core.standing import Standing
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest


async def standings(client: ChainClient, asked: Sequence[tuple[Address, Digest]]) -> list[Standing]:
    """Of each hot key and data set. Two requests, however many are asked.

    Raises:
        ChainDown, RpcRefused, OtherChain.
    """
    owners = await client.read_many([("Registry", "ownerOf", (key,)) for key, _ in asked])
    reads: list[tuple[Name, str, Sequence[Any]]] = []
    reads.extend(("Registry", "participants", (owner,)) for owner in owners)
    reads.extend(("Vaults", "listingOf", (dataset,)) for _, dataset in asked)
    found = await client.read_many(reads)
    count = len(owners)
    return [_read(*told) for told in zip(owners, found[:count], found[count:], strict=True)]


def _read(owner: Address, participant: Any, listing: Any) -> Standing:
    stake_wei, roles, barred, *_ = participant
    lister, frozen, terms = listing
    if lister == ZERO_ADDRESS:
        return Standing(owner, roles, barred, stake_wei)
    return Standing(owner, roles, barred, stake_wei, lister, frozen, terms[4], tuple(terms[:4]))
