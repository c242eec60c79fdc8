"""Differential privacy of a sum to which each member adds its own share of the noise, inside the mask.

Nobody adds all the noise, so nobody can take it off; and the server sees only the noised sum. Shares are discrete Gaussians.
They are sized for the fewest members that a sum may have, less those who might add none (`colluders`): if all stay, there
is more noise than the promise needs, and `rho` of the members present says by how much less was spent.

    each member adds variance v;  h = members on the roll - colluders >= quorum - colluders = h0
    v = sigma^2 / h0, so that h0 of them make sigma^2, and h of them sigma^2 * h / h0

A sum of discrete Gaussians is not one, but so near that it costs `tau`:

    eps = min( sqrt(D^2 / (h v) + tau d / 2),  D / sqrt(h v) + tau sqrt(d) ),   tau = 10 sum_{k<h} exp(-2 pi^2 v k / (k + 1))
    rho = eps^2 / 2                          (zero-concentrated DP; D: L2 sensitivity, d: length, all in integer units)

Source: Kairouz, Liu, Steinke 2021, arXiv:2102.06387, theorem 1. Conversion to (epsilon, delta): `adapters/noising.py`, by OpenDP.
"""

import math
from collections.abc import Callable

import msgspec

LEAST_VARIANCE = 4.0
"""Below it tau isn't negligible; the grid must be finer then."""
NEVER = 2.0**-40


class TooCoarse(ValueError):
    """Each member's noise has variance {variance} in steps of the grid; {least} is needed: take more bits for a value."""

    def __init__(self, variance: float) -> None:
        super().__init__(
            f"each member's noise has variance {variance:.3g} in steps of the grid; {LEAST_VARIANCE} is needed: "
            "take more bits for a value"
        )


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What each member of a sum adds to each integer."""

    variance: float
    sensitivity: float
    length: int
    least: int
    """Honest members that the promise counts on."""

    def rho(self, honest: int | None = None) -> float:
        """What a sum with so many honest members costs; by default, with the fewest."""
        return concentrated(
            self.variance, self.sensitivity, self.length, self.least if honest is None else honest
        )

    def margin(self, members: int) -> int:
        """What the noise of all adds to the largest sum; exceeded with chance 2^-40. A wrap would spoil, not reveal."""
        spread = 2 * self.variance * members * math.log(2 * self.length / NEVER)
        return math.ceil(math.sqrt(spread))


def concentrated(variance: float, sensitivity: float, length: int, honest: int) -> float:
    """rho of a sum of `honest` discrete Gaussians of `variance` each."""
    total = honest * variance
    tau = 10 * sum(math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, honest))
    by_root = math.sqrt(sensitivity**2 / total + tau * length / 2)
    by_sum = sensitivity / math.sqrt(total) + tau * math.sqrt(length)
    return min(by_root, by_sum) ** 2 / 2


def share(rho: float, sensitivity: float, length: int, quorum: int, colluders: int = 0) -> Share:
    """The least noise of each member so that any sum costs at most `rho`.

    Raises:
        TooCoarse: the noise is too small for the grid to be a Gaussian's.
    """
    least = max(1, quorum - colluders)
    return Share(
        _least_variance(lambda v: concentrated(v, sensitivity, length, least) <= rho),
        sensitivity,
        length,
        least,
    )


def _least_variance(enough: Callable[[float], bool]) -> float:
    high = LEAST_VARIANCE
    while not enough(high):
        high *= 2
    low = LEAST_VARIANCE
    if enough(low):
        # Finer than asked for is not a fault of privacy; but the caller asked for less noise than the grid can carry.
        raise TooCoarse(low)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
