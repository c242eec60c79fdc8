"""A ClientApp's reply as a vector of whole numbers that can be added up behind masks, and sums as a reply again.

    without ε    n · round(Δ / step), …     n                            n · round(metric / METRIC_STEP), …   (64 places)
    with ε       Σ over blocks of round(clip(Δ) / step)  + noise         number of blocks; no metrics

Δ is the parameters that came back less those that were sent, clipped to the norm bound *here*, at the vault: what the requester's
program does with its numbers, no update is longer than that. n is the weight that the app says (examples), bounded by the rows that are there.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clusterai.work.training.core.bounds import MOST_METRICS
from clusterai.work.training.inside.records import Record, Records

Whole = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]

LEVELS = 1 << 22
"""Of a coordinate between 0 and the norm bound, where there is no noise."""
MOST_WEIGHT = 1 << 20
MOST_METRIC = float(1 << 12)
METRIC_STEP = 2.0**-20
MOST_PARAMETERS = 7_000_000

JOIN = "\x1f"
"""Between a record's name and a metric's."""
OLDER_WEIGHTS = ("fitres.num_examples", "evaluateres.num_examples")
OLDER_METRICS = ("fitres.metrics", "evaluateres.metrics")
"""Records of Flower's older API; what their metrics are in, is a record of configuration."""


class Unusable(ValueError):
    """The reply can't be summed: {why}."""


class Layout(msgspec.Struct, frozen=True):
    """How parameters lie in the vector, as the message that was sent has them.

    Attributes:
        record: the name of the message's record of arrays.
        names, shapes, dtypes: of its arrays.
    """

    record: str
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)


def layout_of(message: Records) -> Layout | None:
    """Of the one record of arrays in a message; None where there is none, or several."""
    found = [(name, items) for name, (kind, items) in message.items() if kind == "arrays"]
    if len(found) != 1:
        return None
    name, items = found[0]
    arrays = {key: np.asarray(item) for key, item in items.items()}
    return Layout(
        name,
        tuple(arrays),
        tuple(array.shape for array in arrays.values()),
        tuple(array.dtype.str for array in arrays.values()),
    )


def flat(record: Record, layout: Layout) -> Real:
    """
    Raises:
        Unusable: other names or shapes, or numbers that are none.
    """
    _, items = record
    if set(items) != set(layout.names):
        raise Unusable("a training reply holds arrays of the same names as the message")
    parts: list[Real] = []
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        array = np.asarray(items[name])
        if array.shape != shape:
            raise Unusable(f"{name!r} has the shape {array.shape}, and was sent with {shape}")
        parts.append(array.astype(np.float64).ravel())
    joined = np.concatenate(parts) if parts else np.zeros(0)
    if not np.isfinite(joined).all():
        raise Unusable("it holds numbers that are infinite, or none")
    return joined


def clipped(update: Real, norm: float) -> tuple[Real, bool]:
    """An update no longer than `norm`, and whether it was."""
    length = float(np.linalg.norm(update))
    if length <= norm:
        return update, False
    return update * (norm / length), True


class Contribution(msgspec.Struct, frozen=True):
    """What one vault puts into the sum.

    Attributes:
        metrics: names of the metrics, in the order of their places.
        clipped: the update was longer than the bound.
    """

    vector: Any
    metrics: tuple[str, ...]
    clipped: bool


def reply_arrays(reply: Records) -> Record | None:
    found = [record for record in reply.values() if record[0] == "arrays"]
    if len(found) > 1:
        raise Unusable("it holds several records of arrays")
    return found[0] if found else None


def reply_metrics(reply: Records, weight_key: str, most_weight: int) -> tuple[dict[str, float], int]:
    """Its metrics without the weight, and the weight, bounded. Lists are left out: they aren't numbers to be summed.

    In replies of Flower's older API the number of examples stands in a record of its own.
    """
    metrics: dict[str, float] = {}
    weight: float = 1.0
    for name, (kind, items) in reply.items():
        if kind == "arrays":
            continue
        for key, value in items.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if key == weight_key or (name in OLDER_WEIGHTS and key == "num_examples"):
                weight = float(value)
            elif kind == "metrics" or name in OLDER_METRICS:
                metrics[f"{name}{JOIN}{key}"] = float(value)
    if len(metrics) > MOST_METRICS or any(len(key) > 128 for key in metrics):
        raise Unusable(f"it holds {len(metrics)} metrics; at most {MOST_METRICS} with short names are summed")
    if not math.isfinite(weight) or weight < 0:
        raise Unusable("its weight is no number of examples")
    return metrics, max(0, min(round(weight), most_weight, MOST_WEIGHT))


def contribution(
    message: Records, reply: Records, *, norm: float, weight_key: str, most_weight: int
) -> Contribution:
    """Without ε: the vault's own weight times its update and its metrics.

    Args:
        most_weight: the vault's rows.

    Raises:
        Unusable.
    """
    metrics, weight = reply_metrics(reply, weight_key, most_weight)
    arrays, layout = reply_arrays(reply), layout_of(message)
    cut = False
    parts: list[Whole] = []
    if arrays is not None:
        if layout is None:
            raise Unusable("it holds arrays, and the message held none to compare them with")
        update, cut = clipped(flat(arrays, layout) - flat(message[layout.record], layout), norm)
        parts.append(np.rint(update * (LEVELS / norm)).astype(np.int64) * weight)
    names = tuple(sorted(metrics))
    places = np.zeros(MOST_METRICS, np.int64)
    for at, name in enumerate(names):
        value = metrics[name] if math.isfinite(metrics[name]) else 0.0
        places[at] = weight * round(max(-MOST_METRIC, min(MOST_METRIC, value)) / METRIC_STEP)
    return Contribution(np.concatenate([*parts, np.array([weight], np.int64), places]), names, cut)


def blocked(
    message: Records, replies: Sequence[Records | None], *, norm: float, step: float, noise: Whole
) -> Contribution:
    """With ε: the sum of all blocks' clipped updates, and noise in it.

    A block that failed, or answered nonsense, counts as one that changed nothing: that it failed is its rows' secret too.

    Raises:
        Unusable: the message holds no arrays.
    """
    layout = layout_of(message)
    if layout is None:
        raise Unusable("a round with ε sums parameters, and the message held none")
    base = flat(message[layout.record], layout)
    total = np.zeros(layout.size, np.int64)
    for reply in replies:
        try:
            arrays = reply_arrays(reply) if reply is not None else None
            if arrays is None:
                continue
            update, _ = clipped(flat(arrays, layout) - base, norm)
        except Unusable:
            continue
        total += np.rint(update / step).astype(np.int64)
    return Contribution(np.concatenate([total + noise, np.array([len(replies)], np.int64)]), (), False)


def length_of(message: Records, training: bool, private: bool) -> int:
    """How long the vectors of a round are."""
    layout = layout_of(message)
    size = layout.size if layout is not None and training else 0
    return size + 1 + (0 if private else MOST_METRICS)


class Mean(msgspec.Struct, frozen=True):
    """What a sum says: the mean update's parameters, the weight in all, and the metrics' means.

    Attributes:
        length: of the mean update.
    """

    arrays: Record | None
    weight: int
    metrics: dict[str, float]
    length: float


def applied(message: Records, update: Real, weight: int, metrics: dict[str, float]) -> Mean:
    """As a mean: what came of several sums."""
    layout = layout_of(message)
    assert layout is not None, "there was something to update"
    moved = unflat(flat(message[layout.record], layout) + update, layout)
    return Mean(moved, weight, metrics, float(np.linalg.norm(update)))


def mean_of(
    message: Records, total: Whole, *, step: float, training: bool, metrics: Sequence[str], clip: float = 0.0
) -> Mean | None:
    """The mean out of a sum of vectors; None where nobody has any examples.

    Args:
        step: of one coordinate.
        clip: if not 0, a mean that is longer is cut to it, which no honest mean without noise needs.
    """
    layout = layout_of(message) if training else None
    size = layout.size if layout is not None else 0
    weight = int(total[size])
    if weight <= 0:
        return None
    arrays: Record | None = None
    length = 0.0
    if layout is not None:
        update = total[:size].astype(np.float64) * (step / weight)
        if clip:
            update, _ = clipped(update, clip)
        length = float(np.linalg.norm(update))
        arrays = unflat(flat(message[layout.record], layout) + update, layout)
    places = total[size + 1 :]
    means = {name: float(places[at]) * METRIC_STEP / weight for at, name in enumerate(metrics[: len(places)])}
    return Mean(arrays, weight, means, length)


def unflat(values: Real, layout: Layout) -> Record:
    """A record of arrays, from what `flat` makes of one."""
    items: dict[str, Any] = {}
    at = 0
    for name, shape, dtype in zip(layout.names, layout.shapes, layout.dtypes, strict=True):
        size = math.prod(shape)
        kind = np.dtype(dtype) if np.dtype(dtype).kind == "f" else np.dtype(np.float64)
        items[name] = values[at : at + size].reshape(shape).astype(kind)
        at += size
    return "arrays", items
