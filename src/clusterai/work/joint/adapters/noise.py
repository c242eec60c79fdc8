"""A vault's own noise: how much hides a person, and the same again from the same seed.

Whom a study's cohort holds is the requester's choice, and addresses cost nothing: members of its own would add no noise, and tell it what all others sum to.
So each vault counts on nobody's noise but its own, and what leaves it is (ε, δ)-private by itself, masks or none.

What ε protects is a person: the schema's privacy unit, of whose rows the first `unit_rows` count.
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np

from clusterai.vault.adapters.noising import rho_for
from clusterai.vault.core.secagg import joint
from clusterai.vault.core.secagg.noise import Share, share
from clusterai.vault.core.secagg.quantise import modulus_bits
from clusterai.work.joint.spec import MICRO, PICO, Question
from clusterai.work.query.core.noise import discrete_gaussian
from clusterai.work.query.core.stream import Stream

MOST_UNIT_ROWS = 1_000


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
