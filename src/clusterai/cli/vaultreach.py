"""How commands reach vaults and data sets: by name or id, through a gateway that needn't be trusted."""

from collections.abc import AsyncIterator
from typing import Protocol

from clusterai.cli.failure import Exit, Failure
from clusterai.protocol.ids import Address, BadId, Digest, hex0x
from clusterai.protocol.ids import digest as read_digest
from clusterai.sdk.identity import Identity
from clusterai.sdk.vaults import Done, Listed


class Reach(Protocol):
    """`sdk.vaults.Vaults`, as far as it is used here; tests have one without a network."""

    def find(self, text: str = "") -> AsyncIterator[Listed]: ...
    async def dataset(self, dataset: Digest) -> Listed: ...
    async def ask(self, identity: Identity, data: Listed, kind: str, body: bytes) -> bytes: ...
    async def order(
        self,
        about: Digest,
        kind: str,
        request: bytes,
        max_price_wei: int | None = None,
        provider: Address | None = None,
        key: str = "",
    ) -> Done: ...


async def listed_as(reach: Reach, wanted: str) -> Listed:
    """The data set of that name or id.

    Raises:
        Failure: there is none, there are several, or its listing isn't its owner's word.
        Untrue: its card isn't what its owner signed.
    """
    try:
        dataset = read_digest(wanted)
    except BadId:
        named = [it async for it in reach.find(wanted) if it.name == wanted.lower()]
        if len(named) != 1:
            raise Failure(
                f"{len(named) or 'no'} data sets are called {wanted}",
                next=f"name it by its id, such as {hex0x(named[0].dataset)}"
                if named
                else "clusterai data search",
                code=Exit.NOT_FOUND,
            ) from None
        # Looked at once more by its id: that is where it is asked whose word it is.
        dataset = named[0].dataset
    return await reach.dataset(dataset)
