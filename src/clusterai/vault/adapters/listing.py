"""What gateways are told of a vault: its card, and a listing that names the card and is signed."""

from pathlib import Path

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.calls import DataListing
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Listing
from clusterai.vault.adapters.folder import write_aside


def signed_listing(said: Listing, card: bytes, key: Key, network: Domain) -> DataListing:
    return DataListing(canonical.encode(said), key.sign(said.signing_digest(network)), card)


def numbered(said: Listing, path: Path, now_s: float) -> Listing:
    """With a serial one more than the last, where this one says something else; kept in the file."""
    last = canonical.decode(path.read_bytes(), Listing) if path.exists() else None
    if last is not None and msgspec.structs.replace(last, serial=0) == said:
        return last
    serial = max(int(now_s), 0 if last is None else last.serial + 1)
    numbered = msgspec.structs.replace(said, serial=serial)
    write_aside(path, canonical.encode(numbered))
    return numbered
