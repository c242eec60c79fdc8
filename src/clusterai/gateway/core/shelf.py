"""What data there is, as its owners list it, and who answers calls about it.

    OfferData ──> decoded, signature of the owner's key, card by its digest, serial no lower ──> kept while somebody linked has it

A listing proves who says so, and nothing of the data. Nothing here outlives the process: links fill it again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.calls import MOST_LISTING_BYTES, DataListing, OfferData
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.vaults import Listing, dataset_id

MOST_TEXT = 16 * 1024
"""Characters of a card that a search looks through: anyone may search, and many cards are long."""
FIRST = ("name", "pretty_name", "alternateName", "license", "tags", "keywords", "language", "description")
"""What of a card is looked through before all else."""
MOST_SERIALS = 100_000
"""Data sets whose last serial is remembered after nobody has them any more."""


MOST_AWAY = 1_000
"""Data sets whose last link is remembered for who asks."""


class Left(msgspec.Struct, frozen=True):
    """A data set whose last holder lost its link, and when."""

    dataset: Digest
    owner: Address
    name: str
    at_s: float


class ShelfLimits(msgspec.Struct, frozen=True):
    """
    Attributes:
        most_bytes: of all cards together.
        provider_bytes: of the cards that one provider brought.
        provider_listings: data sets that one provider has.
        most_listings: of all providers together.
    """

    most_bytes: int = 256 << 20
    provider_bytes: int = 16 << 20
    provider_listings: int = 1024
    most_listings: int = 20_000


class Shelved(msgspec.Struct, eq=False):
    """One data set.

    Attributes:
        said: as it came, so that whoever asks can check it.
        card: decoded.
        text: what its card says, in lower case: what a search looks through.
        holders: linked providers that have it; the first brought this listing.
    """

    listing: Listing
    said: DataListing
    card: dict[str, Any]
    text: str
    holders: dict[Address, None]
    brought_by: Address


class Shelf:
    """All data that linked providers offer.

    Args:
        signer: (digest, signature) to who signed, or None.
        owner_of: whom a key may act for.
    """

    def __init__(
        self,
        network: Domain,
        signer: Callable[[Digest, bytes], Address | None],
        owner_of: Callable[[Address], Address | None],
        limits: ShelfLimits | None = None,
    ) -> None:
        self._network = network
        self._signer = signer
        self._owner_of = owner_of
        self._limits = limits or ShelfLimits()
        self.datasets: dict[Digest, Shelved] = {}
        self._serials: OrderedDict[Digest, tuple[int, Digest]] = OrderedDict()
        self._subjects: dict[Address, frozenset[Digest]] = {}
        self.away: OrderedDict[Digest, Left] = OrderedDict()
        self._bytes = 0
        self._brought: dict[Address, int] = {}

    # --- what comes in ---

    def heard(self, provider: Address, offer: OfferData) -> list[str]:
        """Take what can be taken; why the rest isn't, for the log."""
        self._subjects[provider] = frozenset(map(Digest, offer.subjects))
        for dataset in offer.withdrawn:
            self._drop(Digest(dataset), provider)
            self.away.pop(Digest(dataset), None)
        return [why for it in offer.listings if (why := self._take(provider, it)) is not None]

    def brought(self, holder: Address, said: DataListing) -> str | None:
        """Take one listing; why not, or None."""
        return self._take(holder, said)

    def given_up(self, holder: Address, dataset: Digest) -> None:
        self._drop(dataset, holder)

    def unlinked(self, provider: Address, now_s: float = 0.0) -> None:
        """
        Args:
            now_s: of whatever clock; who asks for what is away is told by the same.
        """
        self._subjects.pop(provider, None)
        for dataset, it in [one for one in self.datasets.items() if provider in one[1].holders]:
            self._drop(dataset, provider)
            if dataset not in self.datasets:
                self.away[dataset] = Left(dataset, Address(it.listing.owner), str(it.card["name"]), now_s)
                if len(self.away) > MOST_AWAY:
                    self.away.popitem(last=False)

    def left(self, text: str, owner: Address | None = None) -> Iterator[Left]:
        """What nobody linked has at the moment, of these words in its name."""
        words = text.casefold().split()
        for it in self.away.values():
            if (owner is None or it.owner == owner) and all(word in it.name.casefold() for word in words):
                yield it

    def _take(self, provider: Address, said: DataListing) -> str | None:
        found = self._read(said)
        if isinstance(found, str):
            return found
        listing, card = found
        dataset = Digest(listing.dataset)
        last = self._serials.get(dataset)
        digest = canonical.content_digest(said.listing)
        if last is not None and (
            listing.serial < last[0] or (listing.serial == last[0] and digest != last[1])
        ):
            return f"serial {listing.serial} after {last[0]}: a newer listing has a higher one"
        known = self.datasets.get(dataset)
        if known is not None and known.said.listing == said.listing:
            if provider not in known.holders and self._count(provider) >= self._limits.provider_listings:
                return "this provider has as many data sets as are listed of one"
            known.holders[provider] = None
            return None
        if known is None and self._count(provider) >= self._limits.provider_listings:
            return "this provider has as many data sets as are listed of one"
        if known is None and len(self.datasets) >= self._limits.most_listings:
            return "there is no room for more data sets"
        size = len(said.card)
        freed = 0 if known is None else len(known.said.card)
        mine = self._brought.get(provider, 0) - (
            freed if known is not None and known.brought_by == provider else 0
        )
        if mine + size > self._limits.provider_bytes or self._bytes - freed + size > self._limits.most_bytes:
            return "there is no room for more cards"
        holders: dict[Address, None] = {provider: None}
        if known is not None:
            # Who had the older version has another one: it says so itself when it has the newer.
            self._forget(known)
        shelved = Shelved(listing, said, card, _text(card), holders, provider)
        self.datasets[dataset] = shelved
        self.away.pop(dataset, None)
        self._bytes += size
        self._brought[provider] = self._brought.get(provider, 0) + size
        self._serials[dataset] = (listing.serial, digest)
        self._serials.move_to_end(dataset)
        if len(self._serials) > MOST_SERIALS:
            self._serials.popitem(last=False)
        return None

    def _read(self, said: DataListing) -> tuple[Listing, dict[str, Any]] | str:
        """The statement and its card, or why they aren't what they should be."""
        try:
            listing = canonical.decode(said.listing, Listing, MOST_LISTING_BYTES)
        except Malformed as error:
            return f"no listing: {error}"
        signer = self._signer(listing.signing_digest(self._network), said.signature)
        if signer is None or listing.owner not in (signer, self._owner_of(signer)):
            return "not signed by a key that acts for the owner it names"
        if canonical.content_digest(said.card) != listing.card:
            return "the card isn't the one that the listing names"
        try:
            card = msgspec.json.decode(said.card, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f"the card is no JSON object: {error}"
        if not _is_named(listing, card.get("name")):
            # Else anybody could list somebody else's data set as its own, and with a higher serial take its place.
            return "the data set isn't that of its owner and the card's `name`"
        return listing, card

    def _count(self, provider: Address) -> int:
        return sum(provider in it.holders for it in self.datasets.values())

    def _drop(self, dataset: Digest, provider: Address) -> None:
        known = self.datasets.get(dataset)
        if known is None:
            return
        known.holders.pop(provider, None)
        if not known.holders:
            self._forget(known)

    def _forget(self, known: Shelved) -> None:
        del self.datasets[Digest(known.listing.dataset)]
        size = len(known.said.card)
        self._bytes -= size
        self._brought[known.brought_by] -= size
        if not self._brought[known.brought_by]:
            del self._brought[known.brought_by]

    # --- what is asked ---

    def answerers(self, subject: Digest) -> list[Address]:
        """Linked providers that answer calls about it, in the order in which they came."""
        return [provider for provider, known in self._subjects.items() if subject in known]

    def find(self, text: str = "", owner: Address | None = None) -> Iterator[Shelved]:
        """Data sets whose cards say all of these words somewhere, by their ids."""
        words = text.casefold().split()
        for dataset in sorted(self.datasets):
            it = self.datasets[dataset]
            if (owner is None or it.listing.owner == owner) and all(word in it.text for word in words):
                yield it


def _text(card: dict[str, Any]) -> str:
    """What a search looks through, in lower case."""
    first = msgspec.json.encode([card.get(name) for name in FIRST]).decode()
    return (first + msgspec.json.encode(card).decode())[:MOST_TEXT].casefold()


def _is_named(listing: Listing, name: object) -> bool:
    try:
        return isinstance(name, str) and dataset_id(Address(listing.owner), name) == listing.dataset
    except ValueError:
        return False
