"""From a polynomial's coefficients to what SEAL's CKKS encoder takes, and back.

The encoder wants the polynomial's values at half of the odd powers of a root of unity (its "slots"), in the order of the powers of 3; we
want to choose the coefficients, since a product of polynomials adds up products of coefficients without any rotation. The two
are one Fourier transform apart. Integers of less than 2^40 come out as they went in: rounding absorbs the transform's error.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]


def slots_of(coefficients: Floats) -> Complexes:
    """(degree,) to (degree / 2,)."""
    degree = len(coefficients)
    places, twist = _places(degree)
    values = np.fft.ifft(coefficients * twist) * degree
    return values[(places - 1) // 2]


def coefficients_of(slots: Complexes) -> Floats:
    """(degree / 2,) to (degree,)."""
    degree = 2 * len(slots)
    places, twist = _places(degree)
    values = np.empty(degree, np.complex128)
    values[(places - 1) // 2] = slots
    values[(2 * degree - places - 1) // 2] = np.conj(slots)
    return np.real(np.fft.fft(values) / degree / twist)


@cache
def _places(degree: int) -> tuple[NDArray[np.int64], Complexes]:
    places = np.ones(degree // 2, np.int64)
    for at in range(1, degree // 2):
        places[at] = places[at - 1] * 3 % (2 * degree)
    return places, np.exp(1j * np.pi * np.arange(degree) / degree)
