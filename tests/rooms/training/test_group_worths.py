"""What a group's sum was worth, by an evaluation of the model a little forward and back along it."""

import numpy as np
import pytest

from clusterai.audit.core.contribution import Seen, added
from clusterai.work.training.core import vector, worth
from clusterai.work.training.inside.records import Records

BASE = np.array([1.0, -2.0, 0.5])


def message(model: vector.Real) -> Records:
    return {"arrays": ("arrays", {"model": model})}


def moved(update: vector.Real) -> vector.Mean:
    return vector.applied(message(BASE), update, 1, {})


def loss(model: Records) -> dict[str, float]:
    _, items = model["arrays"]
    return {"loss": float(np.sum(np.asarray(items["model"]) ** 2))}


def test_worths_of_groups_add_up_to_what_the_round_changed():
    """Of a smooth metric, each group has the part of its mean in the mean of all."""
    updates = [np.array([-0.4, 0.2, 0.0]), np.array([0.1, 0.3, -0.1])]
    mean = moved(np.mean(updates, axis=0))
    parts = [
        worth.worth([loss(it) for it in worth.probes(message(BASE), mean, moved(update))])["loss"]
        for update in updates
    ]
    assert mean.arrays is not None
    changed = loss({"arrays": mean.arrays})["loss"] - loss(message(BASE))["loss"]
    assert np.mean(parts) == pytest.approx(changed)


def test_fewer_rounds_than_are_asked_for_tell_nothing():
    """The training room warns of what the auditors' room refuses."""
    for members, groups in ((9, 3), (12, 4), (7, 2)):
        seen = Seen(tuple(tuple(range(at, members, groups)) for at in range(groups)), (1.0,) * groups)
        least = worth.least_rounds(members, groups)
        assert added([seen] * (least - 1), members) is None
        assert added([seen] * least, members) is not None
