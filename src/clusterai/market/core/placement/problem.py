"""The choice itself, as numbers: n candidates, their burdens, their round trips, and what a group must keep to.

Heuristic (`choose.py`) and exact solver (`market/adapters/exact.py`) take the same `Problem` and are judged by the same
`Group`, so that one can be measured against the other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from clusterai.market.core.placement.request import MOST_RTT_US

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

FAR_US = MOST_RTT_US
"""Of a pair about which nothing is known: further than any limit."""


class Problem(NamedTuple):
    """Candidates in the order of their ids, so that ties are broken the same everywhere.

    Attributes:
        price: (n,) of an hour.
        burden: (n,) price plus what the renter says unreliability costs.
        rtt: (n, n) microseconds, symmetric, zeros on the diagonal.
        operator: (n,) small numbers, one for each owner, as operators are counted.
        counts: machines of each part.
        able: (parts, n) who may serve in which part.
        most_per_operator: `None` asks nothing, and so the other limits.
    """

    price: Ints
    burden: Ints
    rtt: Ints
    operator: Ints
    counts: tuple[int, ...]
    able: Flags
    us_wei: int
    most_per_operator: int | None = None
    most_rtt_us: int | None = None
    most_price_wei: int | None = None

    @property
    def nodes(self) -> int:
        return sum(self.counts)

    def diameter(self, members: Sequence[int]) -> int:
        rows = np.asarray(members)
        return int(self.rtt[np.ix_(rows, rows)].max())

    def group(self, seats: Sequence[Sequence[int]]) -> "Group":
        members = [row for part in seats for row in part]
        diameter = self.diameter(members)
        return Group(
            tuple(tuple(sorted(part)) for part in seats),
            int(self.burden[members].sum()) + self.us_wei * diameter,
            diameter,
            int(self.price[members].sum()),
        )

    def permits(self, group: "Group") -> bool:
        """Whether a group keeps to everything that was asked; the one definition of it."""
        members = group.members
        operators = self.operator[list(members)]
        return (
            len(set(members)) == len(members)
            and tuple(len(part) for part in group.seats) == self.counts
            and all(self.able[at, list(part)].all() for at, part in enumerate(group.seats))
            and (
                self.most_per_operator is None
                or int(np.unique(operators, return_counts=True)[1].max()) <= self.most_per_operator
            )
            and (self.most_rtt_us is None or group.diameter_us <= self.most_rtt_us)
            and (self.most_price_wei is None or group.price_wei <= self.most_price_wei)
        )

    def least(self) -> int:
        """No group has less burden: of each part the smallest, every limit ignored."""
        return sum(self._least_of(at, count) for at, count in enumerate(self.counts))

    def least_with(self) -> Ints:
        """(n,) no group with this candidate has less burden; in the part where it displaces most."""
        all_parts = self.least()
        result = np.full(len(self.burden), np.iinfo(np.int64).max)
        for at, count in enumerate(self.counts):
            others = all_parts - self._least_of(at, count) + self._least_of(at, count - 1)
            result[self.able[at]] = np.minimum(result, self.burden + others)[self.able[at]]
        return result

    def _least_of(self, part: int, count: int) -> int:
        return int(np.sort(self.burden[self.able[part]])[:count].sum())


class Group(msgspec.Struct, frozen=True):
    """Rows of a problem that together serve, by part, and what they cost."""

    seats: tuple[tuple[int, ...], ...]
    cost: int
    """what is minimised, in the smallest unit per hour"""
    diameter_us: int
    price_wei: int

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(row for part in self.seats for row in part)
