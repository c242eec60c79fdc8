"""A request and all offers in, a plan out: filter, shortlist, choose, look again around what was chosen.

    offers ──masks──> candidates ──coordinates──> <= 200 ──stars, swaps──> group ──its neighbourhood──> again ──> Plan

Equal inputs give equal plans, whatever the order in which offers came. Nothing here reserves: `book.py` does, before a plan is
shown.
"""

from typing import NamedTuple

import msgspec
import numpy as np

from clusterai.market.core.placement.choose import improve, ranked
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.offers import Offer
from clusterai.market.core.placement.problem import Flags, Group, Ints, Problem
from clusterai.market.core.placement.request import Request, faults
from clusterai.market.core.placement.roundtrips import RoundTrips, predicted
from clusterai.market.core.placement.shortlist import MOST, around, shortlist
from clusterai.protocol.ids import Address

LOOKS = 3
"""How often the shortlist moves to where a group is, at most."""
NEIGHBOURHOODS = 3
"""Of how many groups."""


class Plan(msgspec.Struct, frozen=True):
    """A group that can be booked at these very offers.

    Attributes:
        parts: the offers by part of the request.
        pairs_measured, pairs: round trips that were measured, of all within the group; the others are predicted.
        cost_wei: what the choice minimised, per hour.
        seat_wei: what each machine is paid an hour where that is one price for all; None is each its own.
    """

    parts: tuple[tuple[Offer, ...], ...]
    price_wei: int
    diameter_us: int
    pairs_measured: int
    pairs: int
    cost_wei: int
    candidates: int
    seat_wei: int | None = None

    @property
    def offers(self) -> tuple[Offer, ...]:
        return tuple(offer for part in self.parts for offer in part)

    @property
    def nodes(self) -> tuple[Address, ...]:
        return tuple(offer.node for offer in self.offers)


class NoPlan(msgspec.Struct, frozen=True):
    """Nothing was found among so many machines that satisfy what is asked of each by itself; `explain.py` says why."""

    candidates: int
    faults: tuple[str, ...] = ()


class Shortlist(NamedTuple):
    """The problem that is left, with the rows of the index that its candidates are, and which round trips are measured."""

    problem: Problem
    few: Ints
    """their positions among all candidates"""
    rows: Ints
    measured: Flags


class Candidates(NamedTuple):
    """All machines that could serve, in the order of their ids."""

    rows: Ints
    able: Flags
    """(parts, n)"""
    burden: Ints


def place(index: Index, request: Request, trips: RoundTrips | None, now_s: float) -> Plan | NoPlan:
    """The best plan that was found. `trips` are the round trips that were measured, if any."""
    if wrong := tuple(faults(request)):
        return NoPlan(0, wrong)
    everyone = candidates(index, request, now_s)
    listed = problem_of(index, request, everyone, first_rows(index, request, everyone), trips, now_s)
    groups = ranked(listed.problem)
    found = len(everyone.rows)
    if not groups:
        return NoPlan(found)
    best = listed, groups[0]
    if found > MOST and request.nodes > 1 and request.us_wei:
        # The neighbourhood of the second best may hold a better one than that of the best.
        looks = [
            _look_around(index, request, everyone, listed, it, trips, now_s) for it in groups[:NEIGHBOURHOODS]
        ]
        best = min(looks, key=lambda it: it[1].cost)
    return _plan(index, *best, found)


def _look_around(
    index: Index,
    request: Request,
    everyone: Candidates,
    listed: Shortlist,
    group: Group,
    trips: RoundTrips | None,
    now_s: float,
) -> tuple[Shortlist, Group]:
    """Move the shortlist to where the group is and go on swapping, while that helps."""
    place = index.columns.place[everyone.rows]
    for _ in range(LOOKS):
        at = listed.few[list(group.members)]
        near = around(at, group.cost, everyone.burden, place, request.us_wei)
        again = problem_of(index, request, everyone, near, trips, now_s)
        better = improve(again.problem, _same(listed, again, group))
        if not again.problem.permits(better) or better.cost >= group.cost:
            break
        listed, group = again, better
    return listed, group


def candidates(index: Index, request: Request, now_s: float) -> Candidates:
    masks: Flags = np.asarray([index.able(part.need, request, now_s) for part in request.parts])
    rows = index.rows(np.logical_or.reduce(masks))
    return Candidates(rows, masks[:, rows], index.burden(rows, request.ppm_wei))


def first_rows(index: Index, request: Request, everyone: Candidates, most: int = MOST) -> Ints:
    """Which of the candidates are looked at first, as positions among them: of each part its share."""
    c = index.columns
    worths = [request.us_wei if request.nodes > 1 else 0]
    if request.most_rtt_us is not None and request.nodes > 1 and len(everyone.burden):
        # A limit that mustn't be exceeded: half of the list as if filling it cost as much as the machines do.
        worths.append(int(np.median(everyone.burden)) * request.nodes // request.most_rtt_us)
    chosen: list[Ints] = []
    for at, part in enumerate(request.parts):
        mine = np.flatnonzero(everyone.able[at])
        rows = everyone.rows[mine]
        share = most * part.nodes // request.nodes
        for us_wei in worths:
            few = shortlist(
                everyone.burden[mine],
                c.place[rows],
                c.counts_as[rows],
                part.nodes,
                us_wei,
                request.most_per_operator,
                max(part.nodes, share // len(worths)),
            )
            chosen.append(mine[few])
    return np.unique(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def problem_of(
    index: Index, request: Request, everyone: Candidates, few: Ints, trips: RoundTrips | None, now_s: float
) -> Shortlist:
    """The problem among `few` of the candidates, with measured round trips where there are some."""
    c = index.columns
    rows = everyone.rows[few]
    rtt = predicted(c.place[rows]) if request.close else np.zeros((len(rows), len(rows)), np.int64)
    measured = np.zeros(rtt.shape, bool)
    if trips is not None and request.nodes > 1:
        measured = trips.fill([index.offer(int(row)).node for row in rows], rtt, now_s)
    _, operator = np.unique(c.counts_as[rows], return_inverse=True)
    problem = Problem(
        c.price[rows],
        everyone.burden[few],
        rtt,
        operator.astype(np.int64),
        tuple(part.nodes for part in request.parts),
        everyone.able[:, few],
        request.us_wei,
        request.most_per_operator,
        request.most_rtt_us,
        request.most_price_wei,
    )
    return Shortlist(problem, few, rows, measured)


def _same(before: Shortlist, after: Shortlist, group: Group) -> list[list[int]]:
    """The group's seats as rows of another shortlist that has all its members."""
    at = {int(row): position for position, row in enumerate(after.rows)}
    return [[at[int(before.rows[row])] for row in part] for part in group.seats]


def _plan(index: Index, listed: Shortlist, group: Group, found: int) -> Plan:
    members = np.asarray(group.members)
    pairs = len(members) * (len(members) - 1) // 2
    known = int(listed.measured[np.ix_(members, members)].sum()) // 2
    parts = tuple(tuple(index.offer(int(listed.rows[row])) for row in part) for part in group.seats)
    return Plan(parts, group.price_wei, group.diameter_us, known, pairs, group.cost, found)
