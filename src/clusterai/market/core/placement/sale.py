"""A group bought at one price for all: who may bid is decided by kind and place alone, and the bids decide who wins.

    all that suit ──a group as if everyone asked nothing──> its centre ──nearest, one of each operator──> bidders ──sell()──> group

Bids are the posted prices of the offers, which bind; sealed ones would need a round of their own. Since neither the bidders nor the
price of a winner depend on its own bid, asking one's true cost is best, as long as the others' bids stand. Each winner is paid at least
what it asked. It buys truth, not cheapness: the group costs what the cheapest loser would have taken.
"""

import msgspec
import numpy as np

from clusterai.market.core.placement.auction import Bid, TooFew, sell
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.place import NoPlan, Plan, candidates, place
from clusterai.market.core.placement.problem import Ints
from clusterai.market.core.placement.request import Request, faults
from clusterai.market.core.placement.roundtrips import RoundTrips, predicted
from clusterai.protocol.offers import MILLION

BIDDERS_EACH = 3
"""Bidders for each machine that is wanted, where closeness matters: more are cheaper, and further apart."""


def buy(index: Index, request: Request, trips: RoundTrips | None, now_s: float) -> Plan | NoPlan:
    """A group whose machines are all paid `Plan.seat_wei`; of each operator one. The reserve is an equal share of `most_price_wei`."""
    wrong = tuple(faults(request))
    if len(request.parts) != 1 or request.most_price_wei is None:
        wrong += ("one price is for machines of one kind, and needs the most that the group may cost",)
    if wrong or request.most_price_wei is None:
        return NoPlan(0, wrong)
    nodes = request.nodes
    rows = bidders(index, request, trips, now_s)
    offers = {index.offer(int(row)).node: int(row) for row in rows}
    bids = [Bid(node, index.offer(row).counts_as, index.offer(row).price_wei) for node, row in offers.items()]
    sale = sell(bids, nodes, request.most_price_wei // nodes)
    if isinstance(sale, TooFew):
        return NoPlan(len(rows))
    won = np.asarray([offers[bid.node] for bid in sale.winners])
    group = tuple(index.offer(int(row)) for row in won)
    rtt = predicted(index.columns.place[won]) if request.close else np.zeros((nodes, nodes), np.int64)
    measured = (
        trips.fill([it.node for it in group], rtt, now_s) if trips is not None else np.zeros(rtt.shape, bool)
    )
    diameter_us = int(rtt.max())
    if request.most_rtt_us is not None and diameter_us > request.most_rtt_us:
        return NoPlan(len(rows))
    price_wei = sale.price_wei * nodes
    unreliable = int((MILLION - index.columns.reliability[won]).sum())
    cost_wei = price_wei + request.us_wei * diameter_us + request.ppm_wei * unreliable
    pairs = nodes * (nodes - 1) // 2
    return Plan(
        (group,), price_wei, diameter_us, int(measured.sum()) // 2, pairs, cost_wei, len(rows), sale.price_wei
    )


def bidders(index: Index, request: Request, trips: RoundTrips | None, now_s: float) -> Ints:
    """Rows of those who may bid; no price has a part in it."""
    gift = index.copy()
    gift.columns.price[:] = 0
    free = msgspec.structs.replace(request, most_price_wei=None, most_per_operator=1)
    everyone = candidates(index, free, now_s).rows
    c = index.columns
    away = np.zeros(len(everyone))
    most = len(everyone)
    if request.close:
        group = place(gift, free, trips, now_s)
        if isinstance(group, NoPlan):
            return np.zeros(0, np.int64)
        members = [row for node in group.nodes if (row := index.row(node)) is not None]
        centre = c.place[members, :3].astype(np.float64).mean(axis=0)
        away = np.sqrt(((c.place[everyone, :3] - centre) ** 2).sum(axis=1)) + c.place[everyone, 3]
        most = BIDDERS_EACH * request.nodes
        if request.most_rtt_us is not None:
            # Two of them are at most so far apart as both are from the centre.
            within = away <= request.most_rtt_us / 2
            everyone, away = everyone[within], away[within]
    # Rows come in the order of ids; the nearest of each operator stands for it.
    order = np.argsort(away, kind="stable")
    _, first = np.unique(c.counts_as[everyone[order]], return_index=True)
    return everyone[order[np.sort(first)[:most]]]
