"""One round's group sums into one mean, and what each group's sum looks like.

    sum of a group ──> mean ──> beyond? (longer than any honest mean, or of a weight that no honest members have: proof that one cheated)
                                  no ──> the rule over groups' means (median, trimmed mean, multi-Krum), each group one vote

With groups every vault counts 1, so a group's weight is at most the number of its members: who claims more is proven to be there. Metrics
are medians over the groups, since a metric behind a mask can be any number.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from clusterai.vault.core.secagg.robust import Rule, TooFewGroups, combine
from clusterai.work.training.core import vector
from clusterai.work.training.inside.records import Records

Verdict = Literal["", "beyond", "apart", "empty"]


class Judged(msgspec.Struct, frozen=True):
    """
    Attributes:
        mean: to be applied; None where no group has any examples.
        verdicts: of each group. "apart" is a hint only.
        products: inner products of the updates of those groups that aren't beyond or empty, in their order; empty without parameters.
        each: every such group's own mean; None for the others.
    """

    mean: vector.Mean | None
    verdicts: tuple[Verdict, ...]
    products: tuple[tuple[float, ...], ...]
    each: tuple[vector.Mean | None, ...]


def judged(
    message: Records,
    totals: Sequence[vector.Whole],
    most: Sequence[int],
    *,
    step: float,
    training: bool,
    metrics: Sequence[str],
    bounds: Sequence[float],
    rule: Rule,
) -> Judged:
    """
    Args:
        totals: each group's sum.
        most: the largest weight that each group's members can have.
        step: of one coordinate.
        bounds: how long each group's mean may be.
    """
    layout = vector.layout_of(message) if training else None
    size = layout.size if layout is not None else 0
    weights = [int(total[size]) for total in totals]
    verdicts: list[Verdict] = ["" if 0 < w <= top else "beyond" for w, top in zip(weights, most, strict=True)]
    for at, weight in enumerate(weights):
        if weight == 0:
            verdicts[at] = "empty"
    updates = np.zeros((len(totals), size))
    for at, total in enumerate(totals):
        if not verdicts[at]:
            updates[at] = total[:size].astype(np.float64) * (step / weights[at])
            if np.linalg.norm(updates[at]) > bounds[at]:
                verdicts[at] = "beyond"
    good = [at for at, verdict in enumerate(verdicts) if not verdict]
    each = tuple(
        vector.mean_of(message, total, step=step, training=training, metrics=metrics) if at in good else None
        for at, total in enumerate(totals)
    )
    told = {
        name: float(np.median([mean.metrics[name] for mean in each if mean is not None]))
        for name in metrics
        if good
    }
    weight = sum(weights[at] for at in good)
    if layout is None:
        mean = vector.Mean(None, weight, told, 0.0) if good else None
        return Judged(mean, tuple(verdicts), (), each)
    if not good:
        # A round in which every group is proven bad moves nothing; it tells who.
        silent = all(verdict == "empty" for verdict in verdicts)
        still = None if silent else vector.applied(message, np.zeros(size), 1, told)
        return Judged(still, tuple(verdicts), (), each)
    kept = updates[good]
    try:
        # Lengths were judged above, with what rounding and noise add.
        combined = combine(kept, float("inf"), rule)
        update = combined.update
        for at in combined.apart:
            verdicts[good[at]] = "apart"
    except TooFewGroups:
        # A third of the vaults may drop out, and be dropped: what is left is still worth its mean, which is bounded.
        update = kept.mean(axis=0)
    return Judged(
        vector.applied(message, update, weight, told),
        tuple(verdicts),
        tuple(tuple(float(product) for product in row) for row in kept @ kept.T),
        each,
    )
