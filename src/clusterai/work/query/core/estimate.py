"""What a requester makes of what was released: aggregates with intervals, over one vault or several.

All of it is arithmetic on released numbers, which costs no budget. People of different vaults are taken to be different ones, so counts
and sums add up, and the budget of each vault is its own affair. Intervals come from drawing the noise again, many times: its
distribution is public. They cover the noise alone, not what a sample leaves open, nor what clipping changed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clusterai.work.query.core.measuring import STEPS, points_of
from clusterai.work.query.core.plan import Measure, Moment, Output, Plan, Rank, Whole, width
from clusterai.work.query.core.release import Budget, Released, noises

SURE = 0.95
MOST_DRAWS, LEAST_DRAWS = 2_000, 200
_CELLS = 2_000_000

Floats = NDArray[np.float64]


class Estimate(msgspec.Struct, frozen=True):
    """A number of the answer; None where there is none. `low`, `high`: where the exact value lies, with a certainty of 95 %."""

    value: float | None
    low: float | None = None
    high: float | None = None


Cell = str | Estimate | tuple[Estimate, ...]


class Answered(msgspec.Struct, frozen=True):
    """One vault's part."""

    plan: Plan
    released: Released


def estimated(parts: Sequence[Answered]) -> list[tuple[Cell, ...]]:
    """Rows of the answer, one a group, in the order of the plan's outputs.

    Raises:
        ValueError: the parts answer different questions: other groups, other columns.
    """
    plan = parts[0].plan
    for part in parts[1:]:
        if part.plan.keys != plan.keys or part.plan.outputs != plan.outputs:
            raise ValueError("these vaults declare other groups or bounds: ask each alone, and join by hand")
    cells = max(1, plan.groups * sum(map(width, plan.measures)))
    draws = min(MOST_DRAWS, max(LEAST_DRAWS, _CELLS // cells))
    random = np.random.default_rng(0)
    possible = [_possible(part, draws, random) for part in parts]
    columns = [_column(output, parts, possible) for output in plan.outputs]
    return [tuple(column[group] for column in columns) for group in range(plan.groups)]


def _possible(part: Answered, draws: int, random: np.random.Generator) -> list[Floats]:
    """Of each measure what was released, and behind it what it may have been: (1 + draws, groups, width)."""
    found: list[Floats] = []
    measures = part.plan.measures
    for measure, noise, values in zip(
        measures, noises(part.plan, part.released.budget), part.released.values, strict=True
    ):
        shape = (part.plan.groups, width(measure))
        told = np.array(values, np.float64).reshape(shape)
        match noise.how:
            case "draw":
                away = np.zeros((draws, *shape))
            case "laplace":
                away = random.laplace(0.0, float(noise.scale), (draws, *shape))
            case "gauss":
                away = random.normal(0.0, float(noise.scale) ** 0.5, (draws, *shape))
        found.append(_decoded(measure, np.concatenate([told[None], told - away])))
    return found


def _decoded(measure: Measure, values: Floats) -> Floats:
    return values * (float(measure.span) / STEPS) if isinstance(measure, (Moment, Whole)) else values


def _column(output: Output, parts: Sequence[Answered], possible: Sequence[list[Floats]]) -> list[Cell]:
    plan = parts[0].plan
    if not output.function:
        return [plan.labels(group)[output.uses[0]] for group in range(plan.groups)]
    if output.function == "quantile":
        return _quantiles(output, parts)
    values = _function(output, parts, possible)
    low, high = np.quantile(values[1:], [(1 - SURE) / 2, (1 + SURE) / 2], axis=0)
    estimates = [
        [
            Estimate(*(float(side[group, at]) for side in (values[0], low, high)))
            for at in range(values.shape[2])
        ]
        for group in range(plan.groups)
    ]
    return [tuple(row) if output.function == "histogram" else row[0] for row in estimates]


def _quantiles(output: Output, parts: Sequence[Answered]) -> list[Cell]:
    """Of one vault; quantiles of several can't be joined, a histogram's bins can."""
    plan = parts[0].plan
    rank = plan.measures[output.uses[0]]
    assert isinstance(rank, Rank)
    if len(parts) > 1:
        return [Estimate(None) for _ in range(plan.groups)]
    points = points_of(rank)
    # A vault may say anything, so its number of a point is taken into the range.
    told = np.clip(parts[0].released.values[output.uses[0]], 0, rank.points - 1)
    return [Estimate(float(points[at])) for at in told]


def _function(output: Output, parts: Sequence[Answered], possible: Sequence[list[Floats]]) -> Floats:
    if output.function in ("count", "histogram") or len(output.uses) == 1:
        return np.sum([values[output.uses[0]] for values in possible], axis=0)
    first = parts[0].plan.measures[output.uses[1]]
    assert isinstance(first, Moment)
    middle = float(first.centre)
    count = np.zeros_like(possible[0][output.uses[0]])
    total, squares = count.copy(), count.copy()
    lows: list[float] = []
    highs: list[float] = []
    for part, values in zip(parts, possible, strict=True):
        moment = part.plan.measures[output.uses[1]]
        assert isinstance(moment, Moment)
        rows, sums = values[output.uses[0]], values[output.uses[1]]
        shift = float(moment.centre) - middle
        count += rows
        total += sums + shift * rows
        lows.append(float(moment.centre - moment.half))
        highs.append(float(moment.centre + moment.half))
        if len(output.uses) == 3:
            square = part.plan.measures[output.uses[2]]
            assert isinstance(square, Moment)
            about = values[output.uses[2]] + float(square.offset) * rows
            squares += about + 2 * shift * sums + shift * shift * rows
    if output.function == "sum":
        return total + middle * count
    low, high = min(lows), max(highs)
    # Fewer than one row is noise: an average of nothing may be anything that was declared.
    rows = np.maximum(count, 1.0)
    mean = np.clip(total / rows, low - middle, high - middle)
    if output.function == "avg":
        return mean + middle
    spread = np.clip(squares / rows - mean * mean, 0.0, (high - low) ** 2 / 4)
    if output.function in ("variance", "stddev"):
        spread = spread * rows / np.maximum(rows - 1, 1.0)
    return np.sqrt(spread) if output.function.startswith("stddev") else spread


def expected(plan: Plan, budget: Budget, rows: int) -> list[float | None]:
    """Half of the interval's width that each output will have in a group of so many rows; None where no formula tells.

    It depends on nothing secret, so it can be shown before anything is paid.
    """
    found: list[float | None] = []
    kinds = noises(plan, budget)

    def half(at: int) -> float:
        noise, measure = kinds[at], plan.measures[at]
        # 95 % of a Laplace distribution lie within 3.0 scales, of a normal one within 1.96 deviations.
        size = 2.995732 * float(noise.scale) if noise.how == "laplace" else 1.959964 * noise.spread
        return size * (float(measure.span) / STEPS if isinstance(measure, (Moment, Whole)) else 1.0)

    for output in plan.outputs:
        uses = output.uses
        match output.function:
            case "count" | "histogram":
                found.append(half(uses[0]))
            case "sum" if len(uses) == 1:
                found.append(half(uses[0]))
            case "sum":
                measure = plan.measures[uses[1]]
                assert isinstance(measure, Moment)
                found.append((half(uses[1]) ** 2 + (float(measure.centre) * half(uses[0])) ** 2) ** 0.5)
            case "avg":
                measure = plan.measures[uses[1]]
                assert isinstance(measure, Moment)
                # Values in the middle between centre and bound.
                error = (half(uses[1]) ** 2 + (float(measure.half) / 2 * half(uses[0])) ** 2) ** 0.5
                found.append(min(error / max(rows, 1), float(measure.half)))
            case _:
                found.append(None)
    return found


def told(cells: tuple[Cell, ...], names: Sequence[str]) -> Mapping[str, Any]:
    """A row for JSON."""
    return {name: msgspec.to_builtins(cell) for name, cell in zip(names, cells, strict=True)}
