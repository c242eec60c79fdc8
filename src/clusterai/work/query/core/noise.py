"""Noise over the integers, drawn exactly: no floating point, hence no holes between its values that would tell what it hides.

Rational arithmetic throughout, from the bits of a stream that can be replayed. OpenDP's samplers are the same published algorithms
but take their randomness from the operating system alone, diffprivlib's compute with floats; so they are written here, and tests hold their
distribution against OpenDP's and against the formula.

Source: Canonne, Kamath, Steinke 2020, arXiv:2004.00010, algorithms 1 to 3; McKenna, Sheldon 2020, arXiv:2010.12603, permute-and-flip.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt

from clusterai.work.query.core.stream import Stream


def bernoulli(stream: Stream, chance: Fraction) -> bool:
    """True with that chance; 0 <= chance <= 1."""
    return stream.below(chance.denominator) < chance.numerator


def bernoulli_exp(stream: Stream, minus: Fraction) -> bool:
    """True with the chance exp(-minus); minus >= 0."""
    for _ in range(minus.numerator // minus.denominator):
        if not _bernoulli_exp_fraction(stream, Fraction(1)):
            return False
    return _bernoulli_exp_fraction(stream, minus % 1)


def _bernoulli_exp_fraction(stream: Stream, minus: Fraction) -> bool:
    """The same for 0 <= minus <= 1: the parity of the first failure in a row of ever rarer successes."""
    if minus == 0:
        return True
    tried = 1
    while stream.below(minus.denominator * tried) < minus.numerator:
        tried += 1
    return tried % 2 == 1


def discrete_laplace(stream: Stream, scale: Fraction) -> int:
    """An integer x with a chance proportional to exp(-|x| / scale); scale > 0."""
    numerator, denominator = scale.numerator, scale.denominator
    while True:
        low = stream.below(numerator)
        if not bernoulli_exp(stream, Fraction(low, numerator)):
            continue
        high = 0
        while _bernoulli_exp_fraction(stream, Fraction(1)):
            high += 1
        size = (low + numerator * high) // denominator
        negative = bool(stream.bits(1))
        if size or not negative:  # else zero would come twice as often
            return -size if negative else size


def discrete_gaussian(stream: Stream, variance: Fraction) -> int:
    """An integer x with a chance proportional to exp(-x² / (2 variance)); variance > 0."""
    scale = isqrt(variance.numerator // variance.denominator) + 1
    while True:
        found = discrete_laplace(stream, Fraction(scale))
        away = abs(found) - variance / scale
        if bernoulli_exp(stream, away * away / (2 * variance)):
            return found


def permute_and_flip(stream: Stream, utilities: Sequence[int], step: Fraction) -> int:
    """The index of a good candidate, private as the exponential mechanism and never worse in expectation.

    Args:
        step: of the exponent per unit of utility: epsilon / (2 sensitivity).
    """
    best = max(utilities)
    waiting = list(range(len(utilities)))
    while True:
        # The best candidate is always taken when its turn comes, so this ends.
        at = stream.below(len(waiting))
        candidate = waiting.pop(at)
        if bernoulli_exp(stream, (best - utilities[candidate]) * step):
            return candidate
