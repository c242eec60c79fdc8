"""What each group's sum was worth to a round, on rows that no vault gave: the model half a round on, moved a little more or less along the group's mean.

With a smooth metric (a loss) that slope is the group's part of the Aumann-Shapley value of the round: parts of all groups add up to what the
round bettered, and a group's part is the mean of its members' parts, whoever else was drawn into it. So parts of single members, which nobody
saw, follow from many rounds' groups by least squares (`audit.core.contribution.runs`). Of a metric with steps (an accuracy) it is a rougher guess.
"""

import math
from collections.abc import Mapping, Sequence

from clusterai.work.training.core import vector
from clusterai.work.training.inside.records import Records

NUDGE = 0.25
"""Of a group's mean, to either side."""


def probes(message: Records, mean: vector.Mean | None, own: vector.Mean | None) -> tuple[Records, ...]:
    """The models to be evaluated for one group, forward and back; none where its sum wasn't used."""
    layout = vector.layout_of(message)
    if mean is None or own is None or layout is None or mean.arrays is None or own.arrays is None:
        return ()
    base = vector.flat(message[layout.record], layout)
    middle = (base + vector.flat(mean.arrays, layout)) / 2
    update = NUDGE * (vector.flat(own.arrays, layout) - base)
    return tuple({"arrays": vector.unflat(model, layout)} for model in (middle + update, middle - update))


def least_rounds(vaults: int, groups: int) -> int:
    """In which groups' sums are enough to tell what each vault added: three for every two (`audit.core.contribution.runs`)."""
    return -(-3 * vaults // (2 * groups))


def worth(told: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each metric's slope, from what was said of both probes."""
    forward, back = told
    found = {name: (forward[name] - back[name]) / (2 * NUDGE) for name in forward if name in back}
    return {name: value for name, value in found.items() if math.isfinite(value)}
