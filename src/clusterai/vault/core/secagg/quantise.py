"""From real vectors to integers that can be summed, and back: clip, scale, round, weigh.

    update --clip to L2 norm `clip`--> --each value to +-reach--> --times levels/reach, rounded--> --times weight--> integers
                                                                                         and the weight itself, last

The weight stands in the vector, multiplied in by the member: a server can't weigh. The sum of the last value is the sum of
weights, so that a weighted mean needs nothing that wasn't summed. The modulus holds the largest sum that honest members can
reach; a dishonest one may wrap it, which is one of the ways to poison that norm bounds of groups are for.
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from clusterai.vault.core.secagg import graph
from clusterai.vault.core.secagg.messages import Spec

Reals = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class DoesNotFit(ValueError):
    """{members} members of up to {largest} each need {bits} bits; 64 is the most: fewer levels or smaller weights."""

    def __init__(self, members: int, largest: int, bits: int) -> None:
        super().__init__(
            f"{members} members of up to {largest} each need {bits} bits; 64 is the most: fewer levels or smaller weights"
        )


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How values are clipped and rounded; the same for all members of a sum."""

    clip: float
    """Bound of one contribution's L2 norm."""
    value_bits: int = 16
    reach: float | None = None
    """Bound of one value; `clip` where not given. Smaller is finer."""
    most_weight: int = 1
    stochastic: bool = False
    """Rounded up as often as the remainder says, so that a mean has no bias; else to the nearest."""

    @property
    def levels(self) -> int:
        return 2 ** (self.value_bits - 1) - 1

    @property
    def step(self) -> float:
        return (self.clip if self.reach is None else self.reach) / self.levels

    @property
    def largest(self) -> int:
        return self.levels * self.most_weight

    def norm(self, length: int) -> float:
        """The most that one contribution of weight 1 can measure, in steps: rounding lengthens."""
        return self.clip / self.step + math.sqrt(length) * (1.0 if self.stochastic else 0.5)


def modulus_bits(members: int, largest: int) -> int:
    """The fewest bits in which a signed sum of `members` values of magnitude `largest` can't wrap.

    Raises:
        DoesNotFit: more than 64.
    """
    bits = max(2, (2 * members * largest).bit_length())
    if bits > 64:
        raise DoesNotFit(members, largest, bits)
    return bits


def clipped(update: Reals, clip: float) -> Reals:
    """At most `clip` long. Not finite is not a number to sum: it becomes zero.

    Source: Abadi et al. 2016, the clipping of one contribution.
    """
    finite = np.where(np.isfinite(update), update, 0.0).astype(np.float64)
    top = float(np.max(np.abs(finite), initial=0.0))
    # The norm of huge values would overflow, and a clipped infinity is no direction.
    norm = top * float(np.linalg.norm(finite / top)) if top > 0 else 0.0
    return finite if norm <= clip else finite / norm * clip


def encode(update: Reals, grid: Grid, weight: int = 1, seed: int = 0) -> Integers:
    """`len(update) + 1` integers: weighted values, and the weight.

    Args:
        seed: of the stochastic rounding; it hides nothing.
    """
    assert 0 <= weight <= grid.most_weight
    scaled = np.clip(clipped(update, grid.clip) / grid.step, -grid.levels, grid.levels)
    if grid.stochastic:
        below = np.floor(scaled)
        up = np.random.Generator(np.random.PCG64(seed)).random(len(scaled)) < scaled - below
        rounded = below + up
    else:
        rounded = np.rint(scaled)
    return np.append(rounded.astype(np.int64) * weight, np.int64(weight))


def decode_sum(total: Integers, grid: Grid) -> tuple[Reals, int]:
    """The weighted sum in the update's own unit, and the sum of weights."""
    return total[:-1].astype(np.float64) * grid.step, int(total[-1])


def decode_mean(total: Integers, grid: Grid) -> Reals:
    """The weighted mean; zeros where the weights sum to nothing."""
    values, weight = decode_sum(total, grid)
    return values / weight if weight > 0 else np.zeros_like(values)


def plan(
    server: bytes,
    cohort: tuple[bytes, ...],
    *,
    length: int,
    largest: int,
    nonce: bytes,
    beacon: bytes,
    purpose: bytes,
    expires_s: int,
    groups: int = 1,
    group: int = 0,
    colluders: float = 0.1,
) -> Spec:
    """A round's terms: a modulus that the sum can't wrap, and the lightest graph that is safe.

    Args:
        cohort: addresses of members' signing keys, in any order.
        length: integers in a vector, the weight included.
        largest: magnitude of one of them.
        nonce: 32 fresh bytes.
        beacon: public randomness from after the cohort was fixed.

    Raises:
        DoesNotFit: no modulus of 64 bits holds the sum.
        TooMany: no graph is safe.
    """
    drawn = graph.groups(tuple(sorted(cohort)), beacon, groups)
    count = len(drawn[group])
    degree, threshold = graph.sparse(count, int(colluders * count))
    return Spec(
        server=server,
        nonce=nonce,
        cohort=tuple(sorted(cohort)),
        beacon=beacon,
        groups=groups,
        group=group,
        length=length,
        bits=modulus_bits(count, largest),
        degree=degree,
        threshold=threshold,
        purpose=purpose,
        expires_s=expires_s,
    )
