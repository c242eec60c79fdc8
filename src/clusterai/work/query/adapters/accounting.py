"""What (ε, δ) is worth in zero-concentrated privacy, and what many queries cost together, by OpenDP.

The library is loaded where δ is used, and nowhere else. Its arithmetic rounds to the safe side; ours rounds budgets down and costs up.
"""

import importlib
from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Any

from clusterai.work.query.core.release import MICRO, MOST_RHO_NANO, NANO

PICO = 10**12


def _curve(rho: float) -> Any:
    """The privacy curve of what is rho-zCDP."""
    prelude: Any = importlib.import_module("opendp.prelude")

    prelude.enable_features("contrib")
    # A Gaussian mechanism of this scale is rho-zCDP at sensitivity 1, whatever else is; the curve follows from rho alone.
    space = prelude.atom_domain(T=int), prelude.absolute_distance(T=float)
    mechanism: Any = prelude.m.make_gaussian(*space, scale=(1 / (2 * rho)) ** 0.5)
    return prelude.c.make_zCDP_to_approxDP(mechanism).map(1.0)


@lru_cache(1024)
def rho_nano(epsilon_micro: int, delta_pico: int) -> int:
    """The largest rho, in billionths, that is (ε, δ)-private; 0 where δ is 0."""
    if not delta_pico:
        return 0
    low, high = 0, MOST_RHO_NANO
    while high - low > 1:
        middle = (low + high) // 2
        if _curve(middle / NANO).epsilon(delta_pico / PICO) * MICRO <= epsilon_micro:
            low = middle
        else:
            high = middle
    return low


def together_micro(spent_micro: Sequence[int], delta_pico: int) -> int:
    """What queries of these ε cost together at a total δ, each chosen after the answers to those before it, rounded up.

    Their plain sum, or less: what is ε-private is ε²/2-concentrated, and those add up.
    """
    plain = sum(spent_micro)
    rho = sum((epsilon / MICRO) ** 2 for epsilon in spent_micro) / 2
    if not delta_pico or rho <= 0:
        return plain
    return min(plain, ceil(_curve(rho * (1 + 1e-12)).epsilon(delta_pico / PICO) * MICRO))
