"""Data sets as tests list them."""

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.calls import DataListing
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Listing, dataset_id


def listed(
    key: Key,
    network: Domain,
    name: str,
    owner: Address | None = None,
    serial: int = 1,
    dataset: Digest | None = None,
    **card: object,
) -> DataListing:
    """A data set of `owner` (the key's own address where none is given), as its holder sends it."""
    owner = owner or key.address
    written = msgspec.json.encode({"name": name, **card})
    listing = Listing(
        dataset or dataset_id(owner, name),
        owner,
        canonical.content_digest(written),
        bytes(32),
        bytes(32),
        bytes(32),
        serial,
    )
    return DataListing(canonical.encode(listing), key.sign(listing.signing_digest(network)), written)
