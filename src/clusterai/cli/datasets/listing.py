"""Public data sets at a gateway: signed and listed, found by words, and what a listing says checked before it is used."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from clusterai.cli import reach
from clusterai.cli.failure import Exit, Failure
from clusterai.content.core import card as cards
from clusterai.content.core import paths
from clusterai.protocol import canonical
from clusterai.protocol.calls import DataListing
from clusterai.protocol.ids import ZERO_DIGEST, Digest, hex0x
from clusterai.protocol.vaults import Listing, dataset_id
from clusterai.sdk.client import ApiError, Unreachable
from clusterai.sdk.identity import Identity
from clusterai.sdk.vaults import Listed, Untrue, Vaults

LISTING = f"{paths.OWN}/listing"
MOST_FOUND = 200
AGAIN_S = 3600.0

T = TypeVar("T")


class Row(msgspec.Struct, frozen=True):
    """A data set as a search shows it."""

    dataset: str
    name: str
    title: str
    licence: str
    kind: str
    """files: fetched by anyone; vault: asked, and copied only where it sells copies"""
    bytes: int
    owner: str
    address: str


def at_gateway(data: Path | None, act: Callable[[Vaults], Awaitable[T]], network: Path | None = None) -> T:
    """
    Args:
        network: the manifest by which the chain is asked whose data it is; None: that of this machine's network.

    Raises:
        Failure: there is no gateway, or it refuses, or what it shows isn't what was signed.
    """

    async def play() -> T:
        async with reach.vaults_at(data, network) as vaults:
            return await act(vaults)

    try:
        return asyncio.run(play())
    except Untrue as error:
        raise Failure(str(error), code=Exit.UNTRUE) from None


async def listed(vaults: Vaults, folder: Path, card: bytes, address: Digest, identity: Identity) -> str:
    """Sign it, keep the signed listing beside the data, and list it; the data set's id."""
    network = await vaults.network()
    name = str(msgspec.json.decode(card, type=dict[str, Any])["name"])
    listing = Listing(
        dataset_id(identity.address, name),
        identity.address,
        canonical.content_digest(card),
        address,
        ZERO_DIGEST,
        ZERO_DIGEST,
        int(time.time()),
    )
    said = DataListing(canonical.encode(listing), identity.key.sign(listing.signing_digest(network)), card)
    (folder / LISTING).write_bytes(canonical.encode(said))
    return (await vaults.post(said)).dataset


def kept(folder: Path) -> DataListing | None:
    """What was signed when the folder was published."""
    try:
        return canonical.decode((folder / LISTING).read_bytes(), DataListing)
    except (OSError, canonical.Malformed):
        return None


async def repeated(url: str, key: str, said: DataListing) -> None:
    """A listing lives a day: whoever holds the data brings it again each hour. A gateway that is away is asked the next hour."""
    async with Vaults(url, key) as vaults:
        while True:
            with contextlib.suppress(ApiError, Unreachable):
                await vaults.post(said)
            await asyncio.sleep(AGAIN_S)


async def search(vaults: Vaults, text: str) -> tuple[list[Row], list[Failure]]:
    """What is found, and why other listings aren't shown: they aren't their owners' word."""
    found: list[Row] = []
    false: list[Failure] = []
    async for it in vaults.find(text):
        try:
            await vaults.believed(it)
        except Failure as failure:
            if failure.code != Exit.UNTRUE:
                raise
            false.append(failure)
        else:
            found.append(_row(it))
        if len(found) + len(false) == MOST_FOUND:
            break
    return found, false


async def one(vaults: Vaults, dataset: Digest) -> Listed:
    return await vaults.dataset(dataset)


def holding(it: Listed) -> cards.Holding:
    """Where its bytes are. The address is the one that was signed as the listing's snapshot.

    Raises:
        Failure: it is a vault's, which is asked and not fetched.
    """
    try:
        held = cards.read(it.card)
    except cards.BadCard:
        raise Failure(
            f"{it.name} stays where it lies: its vault answers questions and isn't fetched",
            next=f"clusterai data request {hex0x(it.dataset)}",
        ) from None
    if held.address != it.listing.snapshot:
        raise Failure("its card names another manifest than was signed", code=Exit.UNTRUE)
    return held


def _row(it: Listed) -> Row:
    try:
        held = cards.read(it.card)
        kind, size, address = "files", held.bytes, held.manifest
    except cards.BadCard:
        kind, size, address = "vault", 0, ""
    word = it.card.get
    title = word("alternateName") or word("pretty_name") or it.name
    return Row(
        hex0x(it.dataset),
        it.name,
        str(title),
        str(word("license") or ""),
        kind,
        size,
        hex0x(it.listing.owner),
        address,
    )
