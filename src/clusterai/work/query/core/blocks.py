"""Sample and aggregate: privacy for a program that nobody can read.

People are split into blocks by a keyed hash, the program runs on each block by itself, and of the numbers that it gives, clipped to declared
bounds, the mean leaves, with noise. One person is in one block, so whatever the program does with that person, one of k numbers moves within its
bounds: a step of 1/k of the range. A block whose program fails, is late or gives nonsense counts as the middle, so that failing tells no more
than any other number would.

Source: Nissim, Raskhodnikova, Smith 2007, "Smooth sensitivity and sampling in private data analysis"; Mohan et al. 2012, GUPT.
"""

import csv
import hashlib
import hmac
import io
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clusterai.work.query.core.estimate import Estimate
from clusterai.work.query.core.measuring import STEPS
from clusterai.work.query.core.noise import discrete_laplace
from clusterai.work.query.core.release import MICRO, MOST_VALUE
from clusterai.work.query.core.stream import Stream

MOST_RESULT_BYTES = 16_384
RESULT = "result.json"
ROWS = "rows.csv"
_NUMBERS = msgspec.json.Decoder(list[float])


def block_of(seed: bytes, unit: str, blocks: int) -> int:
    """Where a person's rows go; nobody without the seed can know, and no other person moves it.

    2^64 is no multiple of most `blocks`: their sizes differ by less than one part in 2^55.
    """
    drawn = hmac.digest(seed, b"clusterai block " + unit.encode(), hashlib.sha256)
    return int.from_bytes(drawn[:8], "big") % blocks


def blocks_of(seed: bytes, units: Sequence[str], blocks: int) -> NDArray[np.int64]:
    """Of each row."""
    known = {unit: block_of(seed, unit, blocks) for unit in dict.fromkeys(units)}
    return np.array([known[unit] for unit in units], np.int64)


def csv_of(names: Sequence[str], columns: Sequence[NDArray[Any]], rows: NDArray[np.int64]) -> bytes:
    """A block as the program gets it: a header, then rows; null is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    taken = [column[rows] for column in columns]
    for at in range(len(rows)):
        writer.writerow([_cell(column[at]) for column in taken])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    number: Any = value
    return repr(float(number)) if isinstance(value, (float, np.floating)) else str(number)


def steps_of(said: bytes | None, bounds: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """What a block's program gave, in steps between each number's bounds; the middle where it gave nothing of use.

    Args:
        said: the bytes of its result, a JSON list of as many numbers as there are bounds; None where there is no result.
        bounds: in millionths.
    """
    middle = (STEPS // 2,) * len(bounds)
    if said is None or len(said) > MOST_RESULT_BYTES:
        return middle
    try:
        numbers = _NUMBERS.decode(said)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError):
        return middle
    if len(numbers) != len(bounds) or not all(map(math.isfinite, numbers)):
        return middle
    found: list[int] = []
    for number, (low, high) in zip(numbers, bounds, strict=True):
        low_at, high_at = low / MICRO, high / MICRO
        share = (min(max(number, low_at), high_at) - low_at) / (high_at - low_at)
        found.append(max(0, min(STEPS, round(share * STEPS))))
    return tuple(found)


def noise_scale(epsilon_micro: int, numbers: int) -> Fraction:
    """Of each number's sum over blocks: one person moves one block by the whole range at most, and ε is split over the numbers."""
    return Fraction(STEPS * numbers * MICRO, epsilon_micro)


def noisy_sums(given: Sequence[tuple[int, ...]], epsilon_micro: int, stream: Stream) -> tuple[int, ...]:
    """What leaves, of what each block gave."""
    scale = noise_scale(epsilon_micro, len(given[0]))
    sums = [sum(steps[at] for steps in given) for at in range(len(given[0]))]
    return tuple(max(-MOST_VALUE, min(MOST_VALUE, it + discrete_laplace(stream, scale))) for it in sums)


def means_of(
    sums: Sequence[int], bounds: Sequence[tuple[int, int]], blocks: int, epsilon_micro: int
) -> tuple[Estimate, ...]:
    """What a requester makes of it: each number's mean over blocks, with where it lies without the noise, 95 times of 100."""
    found: list[Estimate] = []
    half = math.log(20) * float(noise_scale(epsilon_micro, len(bounds)))
    for told, (low, high) in zip(sums, bounds, strict=True):
        low_at, span = low / MICRO, (high - low) / MICRO
        value, least, most = (
            low_at + span * min(1.0, max(0.0, it / (STEPS * blocks)))
            for it in (told, told - half, told + half)
        )
        found.append(Estimate(value, least, most))
    return tuple(found)
