"""Data as whole numbers, so that everybody who appraises it again gets the same distances to the last bit.

Features are scaled by the study and rounded to steps of 1/256 within +-16; labels are classes. Products and sums of such numbers stay
below 2^53, so a machine's floating-point library computes them exactly, in whatever order it adds.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

STEPS = 256
"""Of one unit of a scaled feature: its standard deviation, say."""
MOST_STEPS = 4_095
MOST_FEATURES = 4_096
MOST_ROWS = 1 << 18
MOST_CLASSES = 1_024
_BLOCK = 1 << 23
"""Distances held at once."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Rows(msgspec.Struct, frozen=True):
    """Some rows of one schema: `features` (rows, features) in steps, `labels` (rows,) from 0."""

    features: Ints
    labels: Ints

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.labels.shape != (len(self.features),):
            raise ValueError("rows are a table of features and one label for each")
        if len(self.features) > MOST_ROWS or not 1 <= self.features.shape[1] <= MOST_FEATURES:
            raise ValueError(f"at most {MOST_ROWS} rows of 1 to {MOST_FEATURES} features")
        if self.features.size and np.abs(self.features).max() > MOST_STEPS:
            raise ValueError(f"features are within {MOST_STEPS} steps of 0")
        if self.labels.size and not 0 <= self.labels.min() <= self.labels.max() < MOST_CLASSES:
            raise ValueError(f"labels are 0 to {MOST_CLASSES - 1}")

    def __len__(self) -> int:
        return len(self.features)

    def chosen(self, which: Ints | NDArray[np.bool_]) -> "Rows":
        return Rows(self.features[which], self.labels[which])

    def digest(self) -> bytes:
        """BLAKE3 over shape and numbers: what a contributor commits to before anybody appraises."""
        shape = np.array(self.features.shape, "<i8").tobytes()
        numbers = self.features.astype("<i8").tobytes() + self.labels.astype("<i8").tobytes()
        return blake3(shape + numbers).digest()


def rows_of(features: Floats, labels: Ints) -> Rows:
    """Scaled features (mean 0, deviation 1, or the study's own scale) as whole numbers; extremes are cut off."""
    steps = np.rint(np.clip(np.nan_to_num(features) * STEPS, -MOST_STEPS, MOST_STEPS)).astype(np.int64)
    return Rows(steps, labels.astype(np.int64))


def joined(parts: list[Rows]) -> Rows:
    return Rows(np.concatenate([it.features for it in parts]), np.concatenate([it.labels for it in parts]))


def squares(left: Ints, right: Ints) -> Iterator[tuple[int, Ints]]:
    """Squared distances, block by block: (number of the first row of `left`, (rows of the block, rows of `right`))."""
    columns = right.astype(np.float64)
    lengths = (columns**2).sum(axis=1)
    step = max(1, _BLOCK // max(1, len(right)))
    for start in range(0, len(left), step):
        block = left[start : start + step].astype(np.float64)
        own = (block**2).sum(axis=1)[:, None]
        yield start, (own + lengths - 2 * (block @ columns.T)).astype(np.int64)
