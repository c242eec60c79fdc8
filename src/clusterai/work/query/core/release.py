"""From a budget to noise, and from exact measures to what may leave.

The budget is split evenly over the measures. Without δ each measure gets discrete Laplace noise, which makes its share of ε exactly; with δ
discrete Gaussian noise, where that is less for this plan: shares of rho, the budget of zero-concentrated privacy that (ε, δ) is worth, add
up instead. Neither choice looks at data, so a requester knows the noise before it pays.
"""

from fractions import Fraction
from math import isqrt
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from clusterai.work.query.core.measuring import Ints, Reach, reach
from clusterai.work.query.core.noise import discrete_gaussian, discrete_laplace, permute_and_flip
from clusterai.work.query.core.plan import MOST_CELLS, Measure, Plan, Rank
from clusterai.work.query.core.stream import Stream

MICRO, NANO = 10**6, 10**9
LEAST_EPSILON_MICRO, MOST_EPSILON_MICRO = 1_000, 20_000_000
MOST_RHO_NANO = 10**12
MOST_VALUE = 2**62
"""What would be larger is cut off there, after the noise."""

Mechanism = Literal["laplace", "gauss"]


class Noise(msgspec.Struct, frozen=True):
    """What is done to one measure: noise of this scale, or a draw whose exponent has this step per unit of utility.

    Attributes:
        scale: of Laplace noise; of Gaussian noise its variance; of a draw the step.
    """

    how: Literal["laplace", "gauss", "draw"]
    scale: Fraction

    @property
    def spread(self) -> float:
        """Standard deviation, of noise."""
        return float(self.scale) ** 0.5 if self.how == "gauss" else float(self.scale) * 2**0.5


class Budget(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How a plan's ε is used.

    Attributes:
        rho_nano: in billionths, with Gaussian noise; 0 with Laplace noise.
        delta_pico: what of the δ that was allowed is used: all of it with Gaussian noise, none with Laplace noise.
    """

    mechanism: Mechanism
    epsilon_micro: Annotated[int, Meta(ge=LEAST_EPSILON_MICRO, le=MOST_EPSILON_MICRO)]
    delta_pico: Annotated[int, Meta(ge=0, le=10**8)]
    rho_nano: Annotated[int, Meta(ge=0, le=MOST_RHO_NANO)]


def budget_of(plan: Plan, epsilon_micro: int, delta_pico: int = 0, rho_nano: int = 0) -> Budget:
    """The better of both mechanisms for a plan.

    Args:
        rho_nano: what (ε, δ) is worth, rounded down (`adapters.accounting.rho_nano`); 0 where δ is.
    """
    pure = Budget("laplace", epsilon_micro, 0, 0)
    if not delta_pico or not rho_nano:
        return pure
    gauss = Budget("gauss", epsilon_micro, delta_pico, rho_nano)
    spreads = [
        [noise.spread for noise in noises(plan, budget) if noise.how != "draw"] for budget in (pure, gauss)
    ]
    return gauss if sum(spreads[1]) < sum(spreads[0]) else pure


def noises(plan: Plan, budget: Budget) -> list[Noise]:
    """For each measure of the plan."""
    return [_noise(measure, reach(plan, measure), budget, len(plan.measures)) for measure in plan.measures]


def _noise(measure: Measure, most: Reach, budget: Budget, shares: int) -> Noise:
    if budget.mechanism == "laplace":
        epsilon = Fraction(budget.epsilon_micro, MICRO * shares)
    else:
        rho = Fraction(budget.rho_nano, NANO * shares)
        if not isinstance(measure, Rank):
            return Noise("gauss", Fraction(most.l2_squared) / (2 * rho))
        # What is ε-private is ε²/2-concentrated, so this share of rho allows a draw of the root of 2 rho, rounded down.
        epsilon = Fraction(isqrt(int(2 * rho * MICRO * MICRO)), MICRO)
    if isinstance(measure, Rank):
        return Noise("draw", epsilon / (2 * most.l1))
    return Noise("laplace", most.l1 / epsilon)


Cells = Annotated[
    tuple[Annotated[int, Meta(ge=-MOST_VALUE, le=MOST_VALUE)], ...], Meta(max_length=MOST_CELLS)
]


class Released(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What leaves: each measure's noisy values by group, flat; of a `Rank`, the numbers of the points that were drawn."""

    budget: Budget
    values: Annotated[tuple[Cells, ...], Meta(max_length=256)]


def released(plan: Plan, exact: list[Ints], budget: Budget, stream: Stream) -> Released:
    """Add the noise."""
    found: list[tuple[int, ...]] = []
    for values, noise in zip(exact, noises(plan, budget), strict=True):
        match noise.how:
            case "draw":
                cells = [permute_and_flip(stream, [int(it) for it in row], noise.scale) for row in values]
            case "laplace":
                cells = [int(it) + discrete_laplace(stream, noise.scale) for it in values]
            case "gauss":
                cells = [int(it) + discrete_gaussian(stream, noise.scale) for it in values]
        found.append(tuple(max(-MOST_VALUE, min(MOST_VALUE, it)) for it in cells))
    return Released(budget, tuple(found))
