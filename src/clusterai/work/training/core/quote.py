"""The most that a whole run can cost, from what vaults ask, so that a price which can't suffice is refused before any ε is spent."""

import math
from collections.abc import Sequence

from clusterai.work.training.core import privacy


def uses(rounds: int, *, private: bool) -> int:
    """Orders at each vault, at most: with ε none tells metrics, so nobody is asked to evaluate."""
    return rounds * (1 if private else 2)


def most_wei(prices: Sequence[tuple[int, int]], rounds: int, epsilon: float | None, delta: float) -> int:
    """What `--max-price` must be for a run of which no round fails. It costs less: a round after the first spends less ε than its order allows.

    Each round shares what is left of the price evenly, and each order may cost as much as a first one. So the last round needs that much for the dearest
    vault, as often as there are vaults, after what those before it cost.

    Args:
        prices: of each vault: of a thousandth of ε, and of a use.
    """
    thousandths = 0
    if epsilon is not None:
        planned = rounds + (1 if rounds > 1 else 0)
        multiplier = privacy.multiplier_for(epsilon, planned, delta)
        spent = privacy.epsilon_of(multiplier, rounds - 1, delta) + privacy.epsilon_of(multiplier, 1, delta)
        # Each order is paid in whole thousandths, rounded up.
        thousandths = math.ceil(1_000 * spent) + rounds
    times = uses(rounds, private=epsilon is not None)
    return len(prices) * max((thousandths * milli + times * use for milli, use in prices), default=0)
