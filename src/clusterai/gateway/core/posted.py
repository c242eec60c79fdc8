"""Listings of publishers without a node: brought by HTTP, kept for a day, and brought again by whoever still holds the data.

    POST ──> decoded, signed, named as `shelf` checks any listing ──> on the shelf for LISTED_S, among a few of its account's

Public data is served by holders of its own (`clusterai.content`), so nobody linked has to stand behind it; the account that brings a listing
does, with a bounded number. On the shelf it stands under a name of that account, which no provider's address can be.
"""

from clusterai.gateway.core.shelf import Shelf, Shelved
from clusterai.protocol import canonical
from clusterai.protocol.calls import MOST_CARD_BYTES, MOST_LISTING_BYTES, DataListing
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.vaults import Listing

LISTED_S = 24 * 3600
ACCOUNT_LISTINGS = 64
MOST_LISTINGS = 10_000
MOST_BODY = MOST_CARD_BYTES + MOST_LISTING_BYTES + 256
_MARK = b"posted:\0"


class Posted:
    """What was brought by HTTP."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._until: dict[tuple[Address, Digest], int] = {}

    def take(self, account: Digest, raw: bytes, now_s: int) -> tuple[Digest, int] | str:
        """The data set and until when it is listed; or why it isn't."""
        self.expire(now_s)
        try:
            said = canonical.decode(raw, DataListing, MOST_BODY)
            dataset = Digest(canonical.decode(said.listing, Listing, MOST_LISTING_BYTES).dataset)
        except Malformed as error:
            return f"no listing: {error}"
        holder = _name(account)
        mine = sum(name == holder for name, _ in self._until)
        if (holder, dataset) not in self._until and (
            mine >= ACCOUNT_LISTINGS or len(self._until) >= MOST_LISTINGS
        ):
            return f"an account lists {ACCOUNT_LISTINGS} data sets at a time, all of them {MOST_LISTINGS}"
        why = self._shelf.brought(holder, said)
        if why is not None:
            return why
        self._until[(holder, dataset)] = now_s + LISTED_S
        return dataset, now_s + LISTED_S

    def expire(self, now_s: int) -> None:
        for (holder, dataset), until_s in list(self._until.items()):
            if until_s <= now_s:
                del self._until[(holder, dataset)]
                self._shelf.given_up(holder, dataset)


def providers(it: Shelved) -> list[Address]:
    """Linked providers that have it, without those who only listed it."""
    return [holder for holder in it.holders if not holder.startswith(_MARK)]


def _name(account: Digest) -> Address:
    return Address(_MARK + account[:12])
