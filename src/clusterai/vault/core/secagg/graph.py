"""Who is in which group, who is whose neighbour, and how many of them it takes.

Groups and neighbours are drawn by a beacon: order by BLAKE3 of beacon and address. A group is every g-th of that order;
its graph a ring in a second such order, where each is joined to the degree/2 nearest on both sides (Bell et al. 2020,
SecAgg+: a randomly permuted Harary graph). Nobody chooses a neighbour who can't choose the beacon, *if the cohort was fixed
before it was known*: addresses cost nothing, and whoever may add members afterwards places them where it likes.

Two numbers keep a round safe:

quorum     two thirds of the members. So many must be summed, and so many must endorse one roll before any member opens a
           share. A server with c colluding members can have two rolls endorsed only if n + c >= 2 * quorum.
threshold  shares that open one secret. Fewer colluding neighbours learn nothing of it; fewer live ones end the round.
"""

import math
from functools import lru_cache

from blake3 import blake3

from clusterai.protocol.ids import Address
from clusterai.vault.core.secagg.messages import MAX_NEIGHBOURS, Spec

SAFE = 2.0**-40
"""Chance, over the beacon, that some member's neighbours can betray it."""
LIVE = 2.0**-20
"""Chance that a third dropping out at random ends a round."""


def quorum(members: int) -> int:
    """Two thirds, rounded up: a third may drop out."""
    return members - members // 3


def colluders_tolerated(members: int) -> int:
    """Members who may conspire with a server that lies to the others, without one input leaking."""
    return max(0, 2 * quorum(members) - members - 1)


def groups(cohort: tuple[bytes, ...], beacon: bytes, count: int) -> tuple[tuple[Address, ...], ...]:
    """`count` groups whose sizes differ by one at most, each sorted."""
    drawn = sorted(cohort, key=lambda who: blake3(b"secagg/group" + beacon + who).digest())
    return tuple(tuple(sorted(Address(who) for who in drawn[i::count])) for i in range(count))


@lru_cache(maxsize=64)
def members(spec: Spec) -> tuple[Address, ...]:
    return groups(spec.cohort, spec.beacon, spec.groups)[spec.group]


@lru_cache(maxsize=64)
def neighbourhoods(spec: Spec) -> tuple[tuple[int, ...], ...]:
    """For each member, its neighbours by rising number. Mutual; never itself."""
    everyone = members(spec)
    count = len(everyone)
    if not spec.degree or spec.degree >= count - 1:
        return tuple(tuple(j for j in range(count) if j != i) for i in range(count))
    ring = sorted(range(count), key=lambda i: blake3(b"secagg/graph" + spec.beacon + everyone[i]).digest())
    found: list[tuple[int, ...]] = [()] * count
    for at, i in enumerate(ring):
        steps = (step for step in range(-spec.degree // 2, spec.degree // 2 + 1) if step)
        found[i] = tuple(sorted(ring[(at + step) % count] for step in steps))
    return tuple(found)


def neighbours(spec: Spec, member: int) -> tuple[int, ...]:
    return neighbourhoods(spec)[member]


def _tail(population: int, marked: int, drawn: int, least: int) -> float:
    """P[at least `least` marked among `drawn` without replacement]."""
    ways = math.comb(population, drawn)
    total = sum(
        math.comb(marked, k) * math.comb(population - marked, drawn - k)
        for k in range(max(least, 0), min(marked, drawn) + 1)
    )
    return float(total / ways) if total else 0.0


def betrayal(count: int, degree: int, threshold: int, colluders: int) -> float:
    """Chance that, with `colluders` at random places, some member has `threshold` of them as neighbours, or the honest
    two thirds fall into parts whose sums could be told apart.

    Source: Bell et al. 2020, section 3, by exact hypergeometric tails and a union bound.
    """
    if not degree or degree >= count - 1:
        return 0.0 if colluders < threshold else 1.0
    opened = count * _tail(count - 1, colluders, degree, threshold)
    gone = min(count - 1, colluders + count // 3)
    parted = (
        count * math.comb(gone, degree // 2) / math.comb(count, degree // 2) if gone >= degree // 2 else 0.0
    )
    return min(1.0, opened + float(parted))


def stall(count: int, degree: int, threshold: int) -> float:
    """Chance that, after a third dropped out at random, some secret has too few living shares."""
    if not degree or degree >= count - 1:
        return 0.0 if threshold <= quorum(count) else 1.0
    alive = quorum(count)
    return min(1.0, count * (1.0 - _tail(count - 1, alive - 1, degree, threshold)))


class TooMany(ValueError):
    """No graph of at most {neighbours} neighbours keeps {count} members safe from {colluders} colluders."""

    def __init__(self, count: int, colluders: int) -> None:
        super().__init__(
            f"no graph of at most {MAX_NEIGHBOURS} neighbours keeps {count} members safe from {colluders} colluders: "
            "tolerate fewer, or sum in groups"
        )


@lru_cache(maxsize=256)
def sparse(count: int, colluders: int) -> tuple[int, int]:
    """The lightest (degree, threshold) for which `betrayal` and `stall` are below `SAFE` and `LIVE`.

    Everyone with everyone is degree 0; it is chosen where the graph would be nearly that.

    Raises:
        TooMany: none within `MAX_NEIGHBOURS`.
    """
    for degree in range(8, min(count - 1, MAX_NEIGHBOURS + 1), 2):
        for threshold in range(degree // 3, 2 * degree // 3 + 1):
            if betrayal(count, degree, threshold, colluders) <= SAFE:
                if stall(count, degree, threshold) <= LIVE:
                    return degree, threshold
                break
    if count - 1 > MAX_NEIGHBOURS or colluders >= quorum(count):
        raise TooMany(count, colluders)
    return 0, quorum(count)
