"""How much noise, and what it costs: ε over all rounds of a run.

Whoever's program it is, it may answer anything for the rows that it sees. So it never sees all of them: the vault deals its rows into
blocks, all rows of one person into the same, runs the program once for each, alone, and clips each block's update to length C. One
person more, less or other changes one block's update, by 2C at most. Noise of deviation z · 2C in the sum of all vaults makes each round a
Gaussian mechanism of multiplier z, and T of them one of z / √T.

Each vault adds all of it in whole numbers; or, where owners trust each other's vaults, a share of deviation z · 2C / √t, where t is the number
of vaults that must remain for a round to count: the sum has enough when no more drop out than may, and none colludes. A colluding vault knows its own
share, so the guarantee against c of them is that of z · √((t-c)/t), and none where all others are the requester's.
Sums of discrete Gaussians this wide are discrete Gaussians to within 10^-100 (Kairouz et al. 2021, arXiv:2102.06387, theorem 1).

Source of the exact curve: Balle and Wang 2018, arXiv:1805.06530, theorem 8.
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

SHARE_STEPS = 1 << 16
"""A share's deviation in steps of the grid: rounding is 10^-5 of the noise."""
TAIL = 9.0
"""Deviations beyond which nothing is drawn: 2^-62 of all."""
MICRO, PICO = 1_000_000, 1_000_000_000_000


def delta_of(epsilon: float, multiplier: float, rounds: int) -> float:
    """The least δ at which so many rounds are (ε, δ)-private."""
    mu = math.sqrt(rounds) / multiplier
    return _tail(epsilon / mu - mu / 2) - math.exp(min(700.0, epsilon)) * _tail(epsilon / mu + mu / 2)


def _tail(x: float) -> float:
    """Of the standard normal, above x."""
    return 0.5 * math.erfc(x / math.sqrt(2))


def epsilon_of(multiplier: float, rounds: int, delta: float) -> float:
    """The least ε at which so many rounds are (ε, δ)-private, from above.

    Args:
        multiplier: the noise's deviation over what one person can change.
    """
    if rounds == 0:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(high, multiplier, rounds) > delta:
        low, high = high, 2 * high
        if high > 1e6:
            return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        if delta_of(middle, multiplier, rounds) > delta:
            low = middle
        else:
            high = middle
    return high


def multiplier_for(epsilon: float, rounds: int, delta: float) -> float:
    """The least multiplier, from above, with which so many rounds cost no more than ε."""
    low, high = 1e-3, 1.0
    while epsilon_of(high, rounds, delta) > epsilon:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        if epsilon_of(middle, rounds, delta) > epsilon:
            low = middle
        else:
            high = middle
    return high


def epsilon_micro(noise_milli: int, rounds: int, delta_pico: int) -> int:
    """ε of the first `rounds` rounds in millionths, rounded up: what a vault has spent after them."""
    found = epsilon_of(noise_milli / 1000, rounds, delta_pico / PICO)
    return math.ceil(found * MICRO) if math.isfinite(found) else 2**62


def step_of(norm: float, noise_milli: int, threshold: int) -> float:
    """What one step of the grid is, so that a share's deviation is `SHARE_STEPS` steps."""
    return noise_milli / 1000 * 2 * norm / math.sqrt(threshold) / SHARE_STEPS


def widened(noise_milli: int, size: int, threshold: int) -> int:
    """The multiplier that is accounted, in thousandths, down: rounding may move an update by half a step in each coordinate."""
    multiplier = noise_milli / 1000
    rounding = math.sqrt(size) * multiplier / (math.sqrt(threshold) * SHARE_STEPS)
    return math.floor(noise_milli / (1 + rounding))


@cache
def _table() -> npt.NDArray[np.float64]:
    """Of |k| for a discrete Gaussian of deviation `SHARE_STEPS`: the distribution function."""
    k = np.arange(int(TAIL * SHARE_STEPS) + 1, dtype=np.float64)
    mass = np.exp(-(k**2) / (2.0 * SHARE_STEPS**2))
    mass[1:] *= 2
    return np.cumsum(mass) / mass.sum()


def discrete_gaussian(stream: bytes, count: int) -> npt.NDArray[np.int64]:
    """`count` draws of deviation `SHARE_STEPS`, by inversion.

    Args:
        stream: 8 bytes a draw, of a cipher's key stream: who doesn't have the key can't foretell the noise.
    """
    words = np.frombuffer(stream, "<u8", count)
    size = np.searchsorted(_table(), (words >> 11).astype(np.float64) * 2.0**-53, side="right")
    sign = 1 - 2 * (words & 1).astype(np.int64)
    return size.astype(np.int64) * sign
