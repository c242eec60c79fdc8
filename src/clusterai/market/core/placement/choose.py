"""Which k of n: stars, then swaps. Finding the group of least diameter is NP-hard; this is milliseconds, and mostly exact.

1. **Stars.** Around each candidate, for some radii: the k of least burden within. With distances that keep the triangle
   inequality a star of radius r has at most the diameter 2r, and some star holds the best group.
2. **Swaps.** From the best few: replace a member by an outsider of the same part, whichever of all k x n swaps improves most,
   until none does.

Limits are kept by order: first what exceeds them least, then what costs least; so a search may pass through groups that
exceed one. Ties go to the candidate that stands first, and candidates stand in the order of their ids.

`bench/placement.py` measures both against proven optima.
"""

from typing import NamedTuple

import numpy as np

from clusterai.market.core.placement.problem import Flags, Group, Ints, Problem

RADII = 10
STARTS = 8
"""Stars from which swaps begin."""
CENTRES = 64
"""Candidates around which stars are built: those with the closest neighbours for their burden."""
MOST_SWAPS = 200


class Standing(NamedTuple):
    """How good a group is: by how much it exceeds limits, in parts of each limit; then its cost."""

    excess: float
    cost: int


def choose(problem: Problem, starts: int = STARTS) -> Group | None:
    """The best group that was found, or None: then there may still be one, but it is unlikely."""
    return next(iter(ranked(problem, starts)), None)


def ranked(problem: Problem, starts: int = STARTS) -> list[Group]:
    """Permitted groups, each the best that swaps lead to from somewhere, the best first."""
    if (problem.able.sum(axis=1) < np.asarray(problem.counts)).any():
        return []
    found: dict[tuple[tuple[int, ...], ...], Group] = {}
    for seats in _stars(problem, starts):
        group = improve(problem, seats)
        if problem.permits(group):
            found[group.seats] = group
    return sorted(found.values(), key=lambda it: (it.cost, it.seats))


def standing(problem: Problem, group: Group) -> Standing:
    return Standing(
        _over(group.diameter_us, problem.most_rtt_us) + _over(group.price_wei, problem.most_price_wei),
        group.cost,
    )


def _over(value: int, most: int | None) -> float:
    return 0.0 if most is None else max(0.0, value / most - 1.0)


# --- stars ---


def _stars(problem: Problem, starts: int) -> list[list[list[int]]]:
    """The most promising beginnings, best first, each as rows by part."""
    simple = len(problem.counts) == 1
    built = _simple_stars(problem, starts) if simple else _mixed_stars(problem)
    ranked: dict[tuple[int, ...], tuple[Standing, list[list[int]]]] = {}
    for seats in built:
        group = problem.group(seats)
        ranked.setdefault(tuple(sorted(group.members)), (standing(problem, group), seats))
    order = sorted(ranked.items(), key=lambda item: (item[1][0], item[0]))
    return [seats for _, (_, seats) in order[:starts]]


def _simple_stars(problem: Problem, starts: int) -> list[list[list[int]]]:
    """One part: every centre at once. Rows of the matrices are centres, columns candidates by burden."""
    (nodes,) = problem.counts
    rows = np.flatnonzero(problem.able[0])
    rows = rows[np.argsort(problem.burden[rows], kind="stable")]
    rtt = problem.rtt[np.ix_(rows, rows)]
    burden = problem.burden[rows]
    ranked = np.sort(rtt, axis=1)
    promising = ranked[:, nodes - 1] * problem.us_wei + burden
    centres = np.sort(np.argsort(promising, kind="stable")[:CENTRES])
    rtt, ranked = rtt[centres], ranked[centres]
    cap = problem.most_per_operator
    spread = _Spread(problem.operator[rows], cap) if cap is not None and cap < nodes else None
    found: list[tuple[int, int, Ints]] = []
    for rank in np.unique(np.geomspace(nodes, len(rows), RADII).round().astype(int)):
        radius = ranked[:, rank - 1]
        inside = rtt <= radius[:, None]
        if spread is not None:
            inside = spread(inside)
        taken = inside & (np.cumsum(inside, axis=1, dtype=np.int16) <= nodes)
        full = np.flatnonzero(taken.sum(axis=1) == nodes)
        if not len(full):
            continue
        members = np.nonzero(taken[full])[1].reshape(len(full), nodes)
        reach: Ints = np.take_along_axis(rtt[full], members, axis=1).max(axis=1)
        cost: Ints = burden[members].sum(axis=1) + problem.us_wei * reach
        if problem.most_rtt_us is not None:
            # A star whose radius alone is too large can't be repaired by much.
            cost = np.where(reach > problem.most_rtt_us, cost + 2**60, cost)
        best = np.argsort(cost, kind="stable")[: 2 * starts]
        found += [(int(cost[at]), int(rank), members[at]) for at in best]
    found.sort(key=lambda it: it[:2])
    return [[[int(rows[column]) for column in members]] for _, _, members in found[: 4 * starts]]


class _Spread:
    """Leaves in each row of a matrix at most `most` columns of each operator, the first ones."""

    def __init__(self, operator: Ints, most: int) -> None:
        self._most = most
        self._order = np.argsort(operator, kind="stable")
        self._back = np.argsort(self._order, kind="stable")
        grouped = operator[self._order]
        begins = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
        self._begin = np.repeat(begins, np.diff(np.r_[begins, len(grouped)]))

    def __call__(self, inside: Flags) -> Flags:
        grouped = inside[:, self._order]
        count = np.zeros((len(grouped), grouped.shape[1] + 1), np.int16)
        np.cumsum(grouped, axis=1, dtype=np.int16, out=count[:, 1:])
        within = count[:, 1:] - count[:, self._begin]
        return (grouped & (within <= self._most))[:, self._back]


def _mixed_stars(problem: Problem) -> list[list[list[int]]]:
    """Several parts: one by one around the centres that are cheapest to reach, the scarcest part served first."""
    anyone = np.flatnonzero(problem.able.any(axis=0))
    parts = sorted(range(len(problem.counts)), key=lambda at: (int(problem.able[at].sum()), at))
    order = anyone[np.argsort(problem.burden[anyone], kind="stable")]
    ranked = np.sort(problem.rtt[np.ix_(anyone, anyone)], axis=1)
    near = ranked[:, min(problem.nodes, len(anyone)) - 1]
    promising = near * problem.us_wei + problem.burden[anyone] * problem.nodes
    stars: list[list[list[int]]] = []
    for at in np.argsort(promising, kind="stable")[:CENTRES]:
        centre = int(anyone[at])
        for rank in np.unique(np.geomspace(problem.nodes, len(anyone), RADII).round().astype(int)):
            within = order[problem.rtt[centre, order] <= ranked[at, min(int(rank), len(anyone)) - 1]]
            seats = _serve(problem, parts, within)
            if seats is not None:
                stars.append(seats)
    return stars


def _serve(problem: Problem, parts: list[int], within: Ints) -> list[list[int]] | None:
    """The least burdens for each part in turn, or None if one isn't filled."""
    cap = problem.most_per_operator or problem.nodes
    seats: list[list[int]] = [[] for _ in parts]
    used: set[int] = set()
    held: dict[int, int] = {}
    for part in parts:
        for row in within[problem.able[part, within]].tolist():
            operator = int(problem.operator[row])
            if len(seats[part]) == problem.counts[part]:
                break
            if row not in used and held.get(operator, 0) < cap:
                seats[part].append(row)
                used.add(row)
                held[operator] = held.get(operator, 0) + 1
        if len(seats[part]) < problem.counts[part]:
            return None
    return seats


# --- swaps ---


def improve(problem: Problem, seats: list[list[int]]) -> Group:
    """Swap while it helps, always the swap that helps most."""
    members = np.asarray([row for part in seats for row in part])
    part_of = np.asarray([at for at, part in enumerate(seats) for _ in part])
    group = _group(problem, members, part_of)
    for _ in range(MOST_SWAPS):
        swap = _best_swap(problem, members, part_of)
        if swap is None:
            break
        trial = members.copy()
        trial[swap[0]] = swap[1]
        changed = _group(problem, trial, part_of)
        if standing(problem, changed) >= standing(problem, group):
            break
        members, group = trial, changed
    return group


def _group(problem: Problem, members: Ints, part_of: Ints) -> Group:
    return problem.group([members[part_of == at].tolist() for at in range(len(problem.counts))])


def _best_swap(problem: Problem, members: Ints, part_of: Ints) -> tuple[int, int] | None:
    """Which member to replace by whom, all k x n swaps at once; None if nobody may enter."""
    nodes = len(members)
    to_members = problem.rtt[:, members]
    inner = to_members[members]
    # Of each outsider, the furthest member without the one that leaves: the furthest, or the second where that one leaves.
    if nodes > 1:
        furthest = to_members.argmax(axis=1)
        first = to_members.max(axis=1)
        second = np.partition(to_members, nodes - 2, axis=1)[:, nodes - 2]
        reach = np.where(furthest[None, :] == np.arange(nodes)[:, None], second[None, :], first[None, :])
        # Without one member the widest pair remains, unless that member is one of the two.
        rest = np.full(nodes, inner.max())
        for end in divmod(int(inner.argmax()), nodes):
            others = np.arange(nodes) != end
            rest[end] = inner[others][:, others].max(initial=0)
        diameter = np.maximum(reach, rest[:, None])
    else:
        diameter = np.zeros((1, len(problem.burden)), np.int64)
    burden = problem.burden[members].sum() - problem.burden[members][:, None] + problem.burden[None, :]
    cost = burden + problem.us_wei * diameter
    allowed = problem.able[part_of].copy()
    allowed[:, members] = False
    cap = problem.most_per_operator
    if cap is not None and cap < nodes:
        theirs = problem.operator[members]
        held = (problem.operator[None, :] == theirs[:, None]).sum(axis=0)
        leaving = problem.operator[None, :] == theirs[:, None]
        allowed &= held[None, :] - leaving < cap
    if not allowed.any():
        return None
    if problem.most_rtt_us is not None or problem.most_price_wei is not None:
        excess = np.zeros(cost.shape)
        if problem.most_rtt_us is not None:
            excess += np.maximum(0.0, diameter / problem.most_rtt_us - 1.0)
        if problem.most_price_wei is not None:
            price = problem.price[members].sum() - problem.price[members][:, None] + problem.price[None, :]
            excess += np.maximum(0.0, price / problem.most_price_wei - 1.0)
        excess = np.where(allowed, excess, np.inf)
        allowed &= excess <= excess.min()
    at = int(np.where(allowed, cost, np.iinfo(np.int64).max).argmin())
    return divmod(at, len(problem.burden))
