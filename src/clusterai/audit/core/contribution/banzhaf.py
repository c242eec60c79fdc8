"""What each contributor is worth to any model: Data Banzhaf, every utility used for everyone (maximum sample reuse).

    value of i = mean utility of the sets with i  -  mean utility of the sets without i

Each set takes each contributor by the toss of a coin that a beacon decides, so the sets can be drawn again by anyone. Where only sums over
groups are seen (masked updates), the same difference over the rounds' random groups estimates the value for groups of that size: what a
member adds to a group of m. It needs no update of any single member. Neither is proof against splitting a set among
several names: `neighbours` is; use this where a model must be trained, and where names are staked.

Source: Wang and Jia 2023, arXiv:2205.15466.
"""

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from clusterai.protocol.keccak import keccak

MOST_SETS = 1 << 16
MOST_CONTRIBUTORS = 4_096

Sets = NDArray[np.bool_]
Utility = Callable[[tuple[int, ...]], int]
"""The contributors of a set (numbers, rising) to how good a model of theirs is, as a whole number: right answers on held-out rows."""


class Estimate(msgspec.Struct, frozen=True):
    """A contributor's value in thousandths of the utility's unit, and its standard error.

    `error_milli` is -1 where there were too few sets with or without him to tell.
    """

    value_milli: int
    error_milli: int


def drawn_sets(beacon: bytes, sets: int, contributors: int) -> Sets:
    """(sets, contributors): who is in which. In pairs, a set and its complement, so that everyone is in exactly half."""
    assert 1 <= sets <= MOST_SETS
    assert 1 <= contributors <= MOST_CONTRIBUTORS
    wide = -(-contributors // 8)
    found = np.zeros((sets, contributors), np.bool_)
    for at in range(0, sets, 2):
        coins = b"".join(
            keccak(b"clusterai coalition" + beacon + at.to_bytes(8, "big") + block.to_bytes(4, "big"))
            for block in range(-(-wide // 32))
        )
        row = np.unpackbits(np.frombuffer(coins[:wide], np.uint8))[:contributors].astype(np.bool_)
        found[at] = row
        if at + 1 < sets:
            found[at + 1] = ~row
    return found


def banzhaf(beacon: bytes, sets: int, contributors: int, utility: Utility) -> list[Estimate]:
    """Values of contributors 0, 1, …; `utility` is called once for each different set."""
    chosen = drawn_sets(beacon, sets, contributors)
    known: dict[bytes, int] = {}
    found: list[int] = []
    for row in chosen:
        key = row.tobytes()
        if key not in known:
            known[key] = utility(tuple(np.flatnonzero(row).tolist()))
        found.append(known[key])
    return reused(chosen, found)


def from_groups(
    groups: Sequence[Sequence[int]], utilities: Sequence[int], contributors: int
) -> list[Estimate]:
    """Values from what groups' sums were worth: one entry for each group of each round.

    Args:
        groups: members of a group, whose sum alone was seen.
        utilities: of the model with that sum, less that of the model before it.
    """
    member = np.zeros((len(groups), contributors), np.bool_)
    for at, group in enumerate(groups):
        member[at, list(group)] = True
    return reused(member, utilities)


def reused(member: Sets, utilities: Sequence[int]) -> list[Estimate]:
    """The difference of means for each column of `member`; whole numbers, so that everyone gets the same."""
    assert len(member) == len(utilities)
    return [_difference(column, utilities) for column in member.T]


def _difference(column: NDArray[np.bool_], utilities: Sequence[int]) -> Estimate:
    inside = [value for value, is_in in zip(utilities, column, strict=True) if is_in]
    outside = [value for value, is_in in zip(utilities, column, strict=True) if not is_in]
    if len(inside) < 2 or len(outside) < 2:
        return Estimate(0, -1)
    top = 1000 * (sum(inside) * len(outside) - sum(outside) * len(inside))
    value = top // (len(inside) * len(outside))
    return Estimate(value, math.isqrt(_spread_micro(inside) + _spread_micro(outside)))


def _spread_micro(values: list[int]) -> int:
    """The variance of their mean, in millionths."""
    count, total = len(values), sum(values)
    return (
        1_000_000 * (count * sum(it * it for it in values) - total * total) // (count * count * (count - 1))
    )
