"""What follows from a run and a message alone: how fine its numbers are, what its rounds cost, how long honest means can be, and what sums come to."""

from collections.abc import Sequence

import numpy as np

from clusterai.vault.core.secagg.robust import Rule
from clusterai.work.training.core import grouping, privacy, vector
from clusterai.work.training.inside.records import Records
from clusterai.work.training.spec import Run


def step_of(run: Run) -> float:
    """Of one coordinate."""
    if run.noise_milli:
        return privacy.step_of(run.norm, run.noise_milli, run.shares)
    return run.norm / vector.LEVELS


def most_micro(run: Run, content: Records) -> int:
    """What a first round costs; later ones cost less, and a vault that was started anew counts from one again."""
    layout = vector.layout_of(content)
    if not run.noise_milli or layout is None:
        return 0
    multiplier = privacy.widened(run.noise_milli, layout.size, run.shares)
    return privacy.epsilon_micro(multiplier, 1, run.delta_pico)


def longest(run: Run, content: Records, clients: int) -> float:
    """The longest mean that honest vaults can make: the bound, and the noise with its tail."""
    layout = vector.layout_of(content)
    size = layout.size if layout is not None else 1
    if not run.noise_milli:
        return float(run.norm * (1 + 1e-6) + step_of(run) * np.sqrt(size) / 2)
    deviation = privacy.SHARE_STEPS * step_of(run) * np.sqrt(clients) / (clients * run.blocks)
    return float(run.norm + deviation * (np.sqrt(size) + 6))


def found(
    run: Run,
    rule: Rule,
    content: Records,
    totals: Sequence[vector.Whole],
    counts: Sequence[int],
    metrics: Sequence[str],
    *,
    training: bool,
) -> grouping.Judged:
    """What a round's sums come to.

    Args:
        totals: one, or one of each group; `counts` of members are in them.
    """
    bounds = [longest(run, content, count) for count in counts]
    step = step_of(run)
    if run.groups == 1:
        clip = bounds[0] if training else 0.0
        mean = vector.mean_of(
            content,
            np.stack(list(totals)).sum(axis=0),
            step=step,
            training=training,
            metrics=tuple(metrics),
            clip=clip,
        )
        return grouping.Judged(mean, ("",), (), (mean,))
    return grouping.judged(
        content,
        totals,
        [count * run.blocks for count in counts],
        step=step,
        training=training,
        metrics=metrics,
        bounds=bounds,
        rule=rule,
    )
