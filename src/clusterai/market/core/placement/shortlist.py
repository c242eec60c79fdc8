"""From 100,000 candidates to at most 200 among which the best group stands, in milliseconds.

Space is cut into cubes of some sizes. In each cube the k of least weight (burden, and what their access lines cost a group) are a
group; its extent bounds its diameter from above, so each cube gives a group that could be rented, and a bound on the best one's:

    U = least over cubes of   burdens of its k lightest + us_wei x (extent + heights)

Whoever can't be part of a group of cost U is left out, which changes nothing (`exact.py` has the proof in words). Around the most
promising cubes the shortlist takes whom a group there would want: cheap ones within its extent, and close ones.

The pass over all candidates is one sort by weight, and one radix sort by cube for each size.
"""

import numpy as np
from numpy.typing import NDArray

from clusterai.market.core.placement.problem import Ints

MOST = 200
SIDE_US = 1_500.0
DOUBLINGS = (0, 2, 4, 6)
"""Cubes of 1.5, 6, 24 and 96 ms."""
SHARES = (0.2, 0.12, 0.1, 0.1, 0.08, 0.08, 0.06, 0.06, 0.05, 0.05, 0.05, 0.05)
"""Of the shortlist, for each of the most promising cubes."""
CUBES = len(SHARES)

Floats = NDArray[np.float32]


def shortlist(
    burden: Ints,
    place: Floats,
    operator: NDArray[np.int32],
    nodes: int,
    us_wei: int,
    most_per_operator: int | None,
    most: int = MOST,
) -> Ints:
    """Rows (of these arrays) that stay, ascending.

    Args:
        place: (n, 4) x, y, z, height in microseconds.
    """
    size = len(burden)
    if size <= most:
        return np.arange(size)
    # A diameter is at least the two largest heights, so each member's height costs at least two k-th parts of itself.
    share = (place[:, 3].astype(np.float64) * (2 * us_wei / nodes)).astype(np.int64) if nodes > 1 else 0
    weight: Ints = burden + share
    order = _ascending(weight)
    if nodes == 1 or us_wei == 0:
        return np.sort(_spread_out(order, operator, most, most_per_operator))
    search = _Search(order, weight, burden, place, operator, nodes, us_wei, most_per_operator)
    cubes = search.cubes()
    if not cubes:
        return np.sort(_spread_out(order, operator, most, most_per_operator))
    chosen: list[int] = []
    seen: set[int] = set()
    for share, (_, members) in zip(SHARES, cubes, strict=False):
        want = min(most, len(chosen) + max(2 * nodes, round(share * most)))
        for row in _around(members, search.order, burden, place, us_wei, search.reach, most):
            if len(chosen) >= want:
                break
            if row not in seen:
                seen.add(row)
                chosen.append(row)
    return np.sort(np.asarray(chosen, np.int64))


def around(members: Ints, cost: int, burden: Ints, place: Floats, us_wei: int, most: int = MOST) -> Ints:
    """The shortlist around a group that is known: for a second look with all places given to its neighbourhood.

    Args:
        cost: of the group; who can't be in a better one is left out.
    """
    nodes = len(members)
    least = np.partition(burden, nodes - 1)[:nodes]
    affordable = np.flatnonzero(burden <= cost - int(least.sum() - least.max()))
    reach = (cost - int(least.sum())) / us_wei
    rows = _around(members, affordable, burden, place, us_wei, reach, most)
    return np.unique(np.r_[members, np.asarray(rows[: most - nodes], np.int64)])


def _spread_out(order: Ints, operator: NDArray[np.int32], most: int, cap: int | None) -> Ints:
    """The first of `order`, of each operator no more than may be taken."""
    if cap is None:
        return order[:most]
    by_operator = order[_stable(operator[order])]
    grouped = operator[by_operator]
    begins = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    rank = np.arange(len(order)) - np.repeat(begins, np.diff(np.r_[begins, len(grouped)]))
    allowed = np.zeros(int(order.max()) + 1, bool)
    allowed[by_operator[rank < cap]] = True
    return order[allowed[order]][:most]


def _stable(keys: NDArray[np.int32]) -> Ints:
    """A stable sort of non-negative 32-bit keys in two passes of 16 bits, each a radix sort."""
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    high = (keys >> 16).astype(np.uint16)
    if high.any():
        order = order[np.argsort(high[order], kind="stable")]
    return order


def _ascending(keys: Ints) -> Ints:
    """A stable sort: where they fit, keys and rows are sorted as one number, at several times the speed."""
    low = int(keys.min())
    bits = len(keys).bit_length()
    if (int(keys.max()) - low).bit_length() + bits > 62:
        return np.argsort(keys, kind="stable")
    return np.sort((keys - low << bits) + np.arange(len(keys))) & ((1 << bits) - 1)


class _Search:
    """Groups in cubes of all sizes; `order` shrinks to whom the best of them leaves a chance."""

    def __init__(
        self,
        order: Ints,
        weight: Ints,
        burden: Ints,
        place: Floats,
        operator: NDArray[np.int32],
        nodes: int,
        us_wei: int,
        cap: int | None,
    ) -> None:
        self.order = order
        self._weight = weight
        self.reach = float("inf")
        self._burden, self._place, self._operator = burden, place, operator
        self._nodes, self._us_wei = nodes, us_wei
        self._cap = cap if cap is not None and cap < nodes else None
        self._least = int(np.partition(burden, nodes - 1)[:nodes].sum())
        self._lightest = int(weight[order[: nodes - 1]].sum())

    def cubes(self) -> list[tuple[int, Ints]]:
        """(upper bound of its group's cost, its rows), the most promising first."""
        found: list[tuple[int, Ints]] = []
        cells = np.floor(self._place[self.order, :3].T / np.float32(SIDE_US)).astype(np.int32)
        spread: _FewOfEach | None = None
        for doublings in DOUBLINGS:
            cells = cells[:, : len(self.order)]
            if self._cap is not None and spread is None:
                spread = _FewOfEach(self._operator[self.order], self._cap)
            # Cubes share a 16-bit number now and then; their group then looks worse than it is, and no bound is broken.
            x, y, z = cells >> doublings
            number = ((x * 31_337 ^ y * 7_919 ^ z * 101) & 0xFFFF).astype(np.uint16)
            rows = self.order
            if spread is not None:
                kept = spread(number)
                rows, number = rows[kept], number[kept]
            found += self._groups(rows, number)
            if found:
                self._cut(min(cost for cost, _ in found))
        found.sort(key=lambda it: (it[0], it[1].tolist()))
        distinct: list[tuple[int, Ints]] = []
        taken: set[int] = set()
        for cost, members in found:
            # The same place at another size adds nothing.
            if taken.isdisjoint(members.tolist()) and len(distinct) < CUBES:
                distinct.append((cost, members))
                taken.update(members.tolist())
        return distinct

    def _groups(self, rows: Ints, number: NDArray[np.uint16]) -> list[tuple[int, Ints]]:
        """The best few cubes of one size: the first of each cube's rows, which are sorted by weight."""
        by_cube = np.argsort(number, kind="stable")
        number = number[by_cube]
        begins = np.flatnonzero(np.r_[True, number[1:] != number[:-1]])
        begins = begins[np.diff(np.r_[begins, len(number)]) >= self._nodes]
        members = rows[by_cube[begins[:, None] + np.arange(self._nodes)]]
        at = self._place[members]
        extent = np.sqrt(((at[:, :, :3].max(axis=1) - at[:, :, :3].min(axis=1)) ** 2).sum(axis=1))
        width = (extent + 2 * at[:, :, 3].max(axis=1)).astype(np.float64)
        cost = self._burden[members].sum(axis=1) + (width * self._us_wei).astype(np.int64)
        return [(int(cost[it]), members[it]) for it in np.argsort(cost, kind="stable")[:CUBES]]

    def _cut(self, bound: int) -> None:
        """Leave out who is in no group of cost `bound`: too dear with even the cheapest others."""
        most = bound - self._lightest
        self.order = self.order[: int(np.searchsorted(self._weight[self.order], most, "right"))]
        self.reach = (bound - self._least) / self._us_wei


class _FewOfEach:
    """Of rows sorted by weight: the first `cap` of each operator in each cube, in the same order."""

    def __init__(self, operator: NDArray[np.int32], cap: int) -> None:
        self._by = _stable(operator)
        self._operator = operator[self._by]
        self._cap = cap

    @property
    def size(self) -> int:
        return len(self._by)

    def __call__(self, number: NDArray[np.uint16]) -> Ints:
        if len(number) < self.size:
            # Rows were cut off at the end since: those of `number` are the first.
            here = self._by < len(number)
            self._by, self._operator = self._by[here], self._operator[here]
        inner = np.argsort(number[self._by], kind="stable")
        by, owner = self._by[inner], self._operator[inner]
        cube = number[by]
        # Sorted by cube and operator: the one `cap` before is of both the same, then this one is too many.
        cap = self._cap
        fits = np.ones(len(by), np.bool_)
        fits[cap:] = (cube[cap:] != cube[:-cap]) | (owner[cap:] != owner[:-cap])
        kept = np.zeros(len(by), np.bool_)
        kept[by[fits]] = True
        return np.flatnonzero(kept)


def _around(
    members: Ints, rows: Ints, burden: Ints, place: Floats, us_wei: int, reach: float, most: int
) -> list[int]:
    """Whom a group at this place would want, alternating the cheap within its extent and the close."""
    at = place[members]
    centre = (at[:, :3].max(axis=0) + at[:, :3].min(axis=0)) / 2
    away = np.zeros(len(rows), np.float32)
    for axis in range(3):
        away += (place[rows, axis] - centre[axis]) ** 2
    away = np.sqrt(away) + place[rows, 3]
    mine = np.sqrt(((at[:, :3] - centre) ** 2).sum(axis=1)) + at[:, 3]
    radius = float(mine.max())
    # Nobody further away than that is in an affordable group with one at the centre.
    inside = away <= max(2 * reach, radius)
    rows, away = rows[inside], away[inside].astype(np.float64)
    want = burden[rows].astype(np.float64) + us_wei * np.maximum(0.0, 2 * (away - radius))
    ranked = [_first(want, rows, most), _first(away, rows, most)]
    return [int(row) for pair in zip(*ranked, strict=True) for row in pair]


def _first(keys: NDArray[np.float64], rows: Ints, most: int) -> Ints:
    """The rows of the smallest keys in order; equal keys in the order of rows."""
    if len(keys) > most:
        last = np.partition(keys, most - 1)[most - 1]
        few = np.flatnonzero(keys <= last)
    else:
        few = np.arange(len(keys))
    return rows[few[np.argsort(keys[few], kind="stable")][:most]]
