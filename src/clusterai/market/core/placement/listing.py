"""Offers that can be placed now, by price and then by id, page by page; a page moves when offers do, never by another page."""

from typing import NamedTuple

import numpy as np

from clusterai.market.core.placement.index import Columns, Index
from clusterai.market.core.placement.offers import Offer
from clusterai.market.core.placement.problem import Ints
from clusterai.market.core.placement.request import Request
from clusterai.protocol.ids import Address


class Place(NamedTuple):
    """Of an offer in the order of the list."""

    price_wei: int
    node: Address


class Page(NamedTuple):
    """`suitable` counts all that fit, on this page or not; `next` is where to go on, None at the end."""

    offers: tuple[tuple[Offer, int], ...]
    """with the measured round trip to whoever keeps the index in microseconds, 0 unknown"""
    suitable: int
    standing: int
    taken: int
    next: Place | None


def page(index: Index, request: Request, now_s: float, limit: int, after: Place | None = None) -> Page:
    """What suits the first part of `request`, `limit` at most, behind `after`."""
    c = index.columns
    standing = c.alive & (c.expires > now_s) & (c.issued <= now_s)
    mask = index.able(request.parts[0].need, request, now_s)
    suitable = int(mask.sum())
    rows = np.flatnonzero(mask if after is None else mask & (c.price >= after.price_wei))
    if after is not None:
        tie = int.from_bytes(after.node[:8])
        same = (c.price[rows] == after.price_wei) & (c.tie[rows] <= tie)
        beyond = [index.offer(int(row)).node > after.node for row in rows[same & (c.tie[rows] == tie)]]
        behind = ~same
        behind[same & (c.tie[rows] == tie)] = beyond
        rows = rows[behind]
    ranked = sorted(
        ((index.offer(int(row)), int(c.link[row])) for row in _first(c, rows, limit)),
        key=lambda it: (it[0].price_wei, it[0].node),
    )[:limit]
    more = len(rows) > limit
    end = Place(ranked[-1][0].price_wei, ranked[-1][0].node) if more else None
    return Page(tuple(ranked), suitable, int(standing.sum()), int((standing & c.taken).sum()), end)


def _first(c: Columns, rows: Ints, most: int) -> Ints:
    """Those that can be among the first `most`: of equal prices the lowest ids, so that equal prices by the thousand cost nothing."""
    if len(rows) <= most:
        return rows
    price = c.price[rows]
    last = np.partition(price, most - 1)[most - 1]
    less, equal = rows[price < last], rows[price == last]
    left = most - len(less)
    if len(equal) > left:
        tie = c.tie[equal]
        equal = equal[tie <= np.partition(tie, left - 1)[left - 1]]
    return np.concatenate((less, equal))
