"""Round trips between nodes that somebody measured; where nobody did, coordinates predict.

Each side of a pair measures by its own clock and can only make it look slower. Of both sides the larger counts: a machine that
adds delay moves itself out of groups, and one that denies delay is contradicted by the other side. One side keeps the least of
what it measured while that is fresh, since only the least is free of queues.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clusterai.market.core.placement.problem import FAR_US, Flags, Ints
from clusterai.protocol.ids import Address

LIFE_S = 3_600.0
MOST_OTHERS = 256
"""That one node may have measured; the oldest gives way."""


class Sample(NamedTuple):
    rtt_us: int
    at_s: float


class RoundTrips:
    """What was measured, by pair; forget a node when its offer goes."""

    def __init__(self) -> None:
        self._by: dict[Address, dict[Address, Sample]] = {}

    def record(self, by: Address, to: Address, rtt_us: int, now_s: float) -> None:
        if by == to or not 0 < rtt_us <= FAR_US:
            return
        mine = self._by.setdefault(by, {})
        self._by.setdefault(to, {})
        old = mine.get(to)
        if old is None or now_s - old.at_s > LIFE_S or rtt_us <= old.rtt_us:
            # A new table each time: one that is being read elsewhere stays as it is.
            mine = {**mine, to: Sample(rtt_us, now_s)}
            if len(mine) > MOST_OTHERS:
                del mine[min(mine, key=lambda it: mine[it].at_s)]
            self._by[by] = mine

    def forget(self, node: Address) -> None:
        self._by.pop(node, None)
        for other, theirs in self._by.items():
            if node in theirs:
                self._by[other] = {name: sample for name, sample in theirs.items() if name != node}

    def between(self, one: Address, other: Address, now_s: float) -> int | None:
        """Microseconds, or None if neither side measured it within `LIFE_S`."""
        found = [
            sample.rtt_us
            for sample in (self._by.get(one, {}).get(other), self._by.get(other, {}).get(one))
            if sample is not None and now_s - sample.at_s <= LIFE_S
        ]
        return max(found) if found else None

    def fill(self, nodes: list[Address], rtt: Ints, now_s: float) -> Flags:
        """Overwrite the predicted round trips of `nodes` by measured ones; says which those are."""
        at = {node: row for row, node in enumerate(nodes)}
        known = np.zeros(rtt.shape, bool)
        for row, node in enumerate(nodes):
            for other in self._by.get(node, {}):
                column = at.get(other)
                measured = None if column is None else self.between(node, other, now_s)
                if column is not None and measured is not None:
                    rtt[row, column] = rtt[column, row] = measured
                    known[row, column] = known[column, row] = True
        return known


def predicted(place: NDArray[np.float32]) -> Ints:
    """(n, n) round trips in microseconds of (n, 4) places: distance and both heights; zeros on the diagonal."""
    x = place[:, :3].astype(np.float64)
    height = place[:, 3].astype(np.float64)
    rtt = np.zeros((len(place), len(place)))
    for axis in range(3):
        rtt += (x[:, None, axis] - x[None, :, axis]) ** 2
    rtt = np.sqrt(rtt) + height[:, None] + height[None, :]
    np.fill_diagonal(rtt, 0.0)
    return np.minimum(np.rint(rtt), FAR_US).astype(np.int64)
