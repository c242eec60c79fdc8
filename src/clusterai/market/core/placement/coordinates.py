"""Network coordinates: a place for each machine so that the distance of two places is about their round trip.

    predicted round trip = |x - y| + height_x + height_y          (microseconds; the height is the machine's own access line)

Vivaldi: each machine has a place and an estimate of its own error. A round trip that was measured to another machine is a
spring between the two; the machine moves along it by a share that is large while it knows little and the other knows much.
Nobody needs the whole matrix, and 100,000 machines settle with a few dozen samples each.

What a liar can do, and what bounds it. A peer may lie about its place and its error, and may answer late, never early.
- Its claimed error counts as at least `LEAST_ERROR`, so it weighs no more than a good honest peer;
- one sample moves a machine by no more than `MOST_STEP_US`, however absurd the place that was claimed;
- a sample far off what was predicted is weighed down by as much as it is off, once the machine is sure of its own place.
So the damage grows with the share of samples that liars give, not with the size of their lies. Whoever feeds this takes few
samples of one operator; choosing whom to measure is not this module's affair.

The functions take arrays, so that one machine and 100,000 go through the same lines.

Source: Dabek et al. 2004, Vivaldi; heights as there in section 5.4.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clusterai.market.core.placement.offers import Coordinate

Floats = NDArray[np.float64]

DIMENSIONS = 3
ERROR_GAIN = 0.25
PLACE_GAIN = 0.25
LEAST_ERROR = 0.05
MOST_ERROR = 1.0
LEAST_HEIGHT_US = 10.0
MOST_STEP_US = 20_000.0
TRUST = 4.0
"""A sample counts in full up to so many times one's own error, then by the inverse of what it is off."""
MOST_RTT_US = 2_000_000.0


class Places(NamedTuple):
    """Of n machines: (n, 3) places, (n,) heights, (n,) relative errors."""

    x: Floats
    height: Floats
    error: Floats

    def at(self, rows: NDArray[np.integer]) -> "Places":
        return Places(self.x[rows], self.height[rows], self.error[rows])


def begin(count: int, random: np.random.Generator) -> Places:
    """Machines that know nothing: at the origin, but for a microsecond that tells them apart."""
    return Places(
        random.normal(0.0, 1.0, (count, DIMENSIONS)),
        np.full(count, LEAST_HEIGHT_US),
        np.full(count, MOST_ERROR),
    )


def predict(here: Places, there: Places) -> Floats:
    """Round trips in microseconds, pair by pair."""
    return np.sqrt(((here.x - there.x) ** 2).sum(axis=-1)) + here.height + there.height


def update(here: Places, there: Places, rtt_us: Floats) -> Places:
    """Where `here` stands after it measured `rtt_us` to `there`, pair by pair.

    Args:
        there: as the others claim it; anything that isn't a number, or lies further out than light, is passed over.
        rtt_us: by the clock of `here`; zero, negative or absurd ones are passed over.
    """
    apart = here.x - there.x
    sound = (
        np.isfinite(there.x).all(axis=-1)
        & (np.abs(there.x) <= MOST_RTT_US).all(axis=-1)
        & (there.height >= 0)
        & (there.height <= MOST_RTT_US)
        & (there.error >= 0)
        & (rtt_us > 0)
        & (rtt_us <= MOST_RTT_US)
    )
    apart = np.where(sound[:, None], apart, 0.0)
    rtt = np.where(sound, rtt_us, 1.0)
    heights = here.height + np.where(sound, there.height, 0.0)
    flat = np.sqrt((apart**2).sum(axis=-1))
    predicted = flat + heights
    other = np.clip(np.where(sound, there.error, MOST_ERROR), LEAST_ERROR, MOST_ERROR)
    # In parts of the larger of both, so that close neighbours who begin far apart don't count as absurd.
    off = np.abs(predicted - rtt) / np.maximum(predicted, rtt)
    weight = here.error / (here.error + other)
    # Weighed down by how far it is off, but never while the machine itself knows nothing.
    weight = weight * np.minimum(1.0, TRUST * here.error / np.maximum(off, 1e-9))
    error = np.clip(here.error + ERROR_GAIN * weight * (off - here.error), LEAST_ERROR, MOST_ERROR)
    step = np.clip(PLACE_GAIN * weight * (rtt - predicted), -MOST_STEP_US, MOST_STEP_US)
    # The unit vector of [x - y, height + height], as in the paper: part of the step goes into the height.
    size = np.maximum(predicted, 1e-9)
    x = here.x + (step / size)[:, None] * apart
    height = np.maximum(here.height + step * heights / size, LEAST_HEIGHT_US)
    return Places(
        np.where(sound[:, None], x, here.x),
        np.where(sound, height, here.height),
        np.where(sound, error, here.error),
    )


def coordinate(places: Places, row: int) -> Coordinate:
    x, y, z = (round(float(it)) for it in places.x[row])
    return Coordinate(x, y, z, round(float(places.height[row])))
