"""What a group's machines are paid: one price for all, the lowest bid that lost.

    bids ascending   b_1 <= b_2 <= ... <= b_k <= b_(k+1)          the k lowest win, each is paid min(b_(k+1), reserve)

Who bids its true cost can't do better: its own bid never sets what it is paid, only whether it wins, and it wins just when the
price covers its cost. Of one operator one bid counts, its lowest, so that nobody sets its own price with a second machine.
More bids never raise the price.

Who may bid was decided without looking at bids (`place.py`'s shortlist by place and kind), or truth wouldn't pay. Machines that
are rented one by one, or now, have the posted price of their offer instead: there the operator carries the risk of its own number.

What an operator under two names can do: sell two machines to one group where the rule says one, or hold one back so that the
other is paid up to the next bid. The first is what stakes are for (`docs/explanation/placement.md`), the second is bounded by the
reserve.

Source: Vickrey 1961; the uniform (k+1)-price auction for single-unit bidders.
"""

from collections.abc import Iterable

import msgspec

from clusterai.protocol.ids import Address


class Bid(msgspec.Struct, frozen=True):
    """`price_wei` of an hour, for this machine in this group."""

    node: Address
    operator: Address
    price_wei: int


class Sale(msgspec.Struct, frozen=True):
    winners: tuple[Bid, ...]
    price_wei: int
    """what each of the winners is paid an hour"""


class TooFew(msgspec.Struct, frozen=True):
    """Not enough operators bid at most the reserve."""

    bidders: int


def sell(bids: Iterable[Bid], nodes: int, reserve_wei: int) -> Sale | TooFew:
    """
    Args:
        reserve_wei: the most that the renter pays for one machine; bids above it don't count.
    """
    best: dict[Address, Bid] = {}
    for bid in bids:
        if bid.price_wei > reserve_wei:
            continue
        mine = best.get(bid.operator)
        if mine is None or (bid.price_wei, bid.node) < (mine.price_wei, mine.node):
            best[bid.operator] = bid
    ranked = sorted(best.values(), key=lambda bid: (bid.price_wei, bid.node))
    if len(ranked) < nodes:
        return TooFew(len(ranked))
    price = ranked[nodes].price_wei if len(ranked) > nodes else reserve_wei
    return Sale(tuple(ranked[:nodes]), price)
