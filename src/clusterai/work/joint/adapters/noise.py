"""A vault's own noise: how much hides a person, and the same again from the same seed.

Whom a study's cohort holds is the requester's choice, and addresses cost nothing: members of its own would add no noise, and tell it what all others sum to.
So each vault counts on nobody's noise but its own, and what leaves it is (ε, δ)-private by itself, masks or none.

What ε protects is a person: the schema's privacy unit, of whose rows the first `unit_rows` count.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from clusterai.protocol.ids import Digest
from clusterai.vault.adapters.noising import rho_for
from clusterai.vault.core.schema import Schema
from clusterai.vault.core.secagg import joint
from clusterai.vault.core.secagg.noise import Share, share
from clusterai.vault.core.secagg.quantise import modulus_bits
from clusterai.work.joint.core.chain import MASK_BITS, MASKS
from clusterai.work.joint.spec import MICRO, PICO, Question, commitment
from clusterai.work.query.core.noise import discrete_gaussian
from clusterai.work.query.core.stream import Stream

MOST_UNIT_ROWS = 1_000
SALT = b"salt"
"""In place of a nonce: the seed that a share's commitment is salted by."""


@lru_cache(256)
def own_noise(question: Question, epsilon_micro: int, delta_pico: int, unit_rows: int = 1) -> Share | None:
    """Of each integer of a vault's vector; None without ε.

    Raises:
        ValueError: so small an ε takes more noise than can be drawn.
    """
    if not epsilon_micro:
        return None
    rho = rho_for(epsilon_micro / MICRO, delta_pico / PICO)
    return share(rho, joint.sensitivity(question, unit_rows), joint.length(question), 1)


def least_bits(question: Question, epsilon_micro: int, delta_pico: int, members: int) -> int:
    """Of the modulus: rows without end, and the noise of everyone at its largest.

    Raises:
        ValueError: 64 bits don't hold it.
    """
    own = own_noise(question, epsilon_micro, delta_pico, MOST_UNIT_ROWS)
    return modulus_bits(members, joint.largest(joint.MAX_ROWS) + (0 if own is None else own.margin(members)))


def noised(values: joint.Integers, own: Share, seed: bytes) -> joint.Integers:
    """With noise of `own` on each; who holds the seed draws the same."""
    stream, variance = Stream(seed, "joint share"), Fraction(math.ceil(own.variance))
    drawn = [discrete_gaussian(stream, variance) for _ in values]
    return values + np.asarray(drawn, np.int64)


def needed(question: Question, schema: Schema) -> tuple[str, ...]:
    """Columns to read for a share."""
    unit = (schema.unit,) if schema.unit else ()
    return tuple(dict.fromkeys([*(it.column for it in joint.ranges(question)), *unit]))


def share_of(
    question: Question,
    epsilon_micro: int,
    delta_pico: int,
    schema: Schema,
    columns: Mapping[str, Any],
    seed: bytes,
) -> joint.Integers:
    """A vault's share, of its rows and its noise: what it gives, and what an audit makes again.

    Args:
        columns: those that are `needed`.
        seed: of the order and the study's nonce.
    """
    if schema.unit:
        keep = joint.bounded(columns[schema.unit], schema.unit_rows)
        columns = {name: np.asarray(column)[keep] for name, column in columns.items()}
    values = joint.contribution(question, columns)
    own = own_noise(question, epsilon_micro, delta_pico, schema.unit_rows)
    return values if own is None else noised(values, own, seed)


def mask(seed: bytes) -> joint.Integers:
    """What hides a vault's tally; an audit makes it again.

    Args:
        seed: of the order and the key that the vault's link made: under two keys one mask would hide nothing.
    """
    stream = Stream(seed, "joint mask")
    return np.asarray([stream.bits(MASK_BITS) for _ in range(MASKS)], np.int64)


def pledged(values: joint.Integers, salt: bytes) -> Digest:
    """What the use of a share commits to."""
    return commitment(salt, np.asarray(values).astype("<i8").tobytes())
