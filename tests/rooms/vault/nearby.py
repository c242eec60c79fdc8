"""A gateway without a network: it carries calls to the desks of vaults in this process."""

import base64
from collections.abc import AsyncIterator, Callable

import msgspec

from clusterai.protocol.canonical import decode
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest, hex0x
from clusterai.protocol.vaults import Listing, subject
from clusterai.sdk.identity import Identity
from clusterai.sdk.vaults import ApiError, Listed, read
from clusterai.sdk.vaultshapes import DataAway, Dataset, Served
from tests.rooms.vault.vaultbed import NETWORK, Bed


class Nearby:
    """
    Attributes:
        cards: what it does to cards that it shows.
    """

    def __init__(self, *beds: Bed) -> None:
        self.beds = {bed.vault.dataset: bed for bed in beds}
        self.cards: Callable[[bytes], bytes] = bytes

    def listed(self, bed: Bed) -> Listed:
        said, policy = bed.vault.listing(), bed.vault.policy
        listing = decode(said.listing, Listing)
        told = Dataset(
            dataset=hex0x(bed.vault.dataset),
            owner=hex0x(bed.owner),
            serial=listing.serial,
            snapshot=hex0x(listing.snapshot),
            policy=hex0x(policy.digest()),
            card=msgspec.Raw(self.cards(said.card)),
            listing=base64.b64encode(said.listing).decode(),
            signature=hex0x(said.signature),
            holders=(),
            serves=(
                Served(
                    kind="query",
                    subject=hex0x(subject(bed.vault.dataset, "query")),
                    provider="0x" + "aa" * 20,
                    price_wei=policy.use_wei,
                    epsilon_price_wei=policy.milli_epsilon_wei,
                    slots=1,
                ),
            ),
        )
        return read(told, NETWORK)

    async def network(self) -> Domain:
        return NETWORK

    async def find(self, text: str = "", owner: Address | None = None) -> AsyncIterator[Listed]:
        for bed in self.beds.values():
            if text in bed.vault.name and owner in (None, bed.owner):
                yield self.listed(bed)

    async def dataset(self, dataset: Digest) -> Listed:
        if dataset not in self.beds:
            raise ApiError(404, "not_found", "no linked provider has this data set")
        return self.listed(self.beds[dataset])

    async def away(self, name: str) -> tuple[DataAway, ...]:
        return ()

    async def ask(self, identity: Identity, data: Listed, kind: str, body: bytes) -> bytes:
        assert kind == "vault"
        bed = self.beds[data.dataset]
        question = identity.sealed(data.dataset, data.seal_to, NETWORK, body, bed.now_s)
        return identity.opened(
            data.seal_to, await bed.desk.answer(ZERO_ADDRESS, question.body), question.nonce
        )
