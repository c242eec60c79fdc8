"""Where numbers lie in polynomials, so that one product computes a whole layer for several inputs, without rotations.

With `d` terms of input (the constant 1 is the last) and `m` outputs,

    A(X) = sum over inputs s, terms i    x[s, i]  X^(s m d + i)
    B(X) = sum over outputs j, terms i   w[j, i]  X^(j d + d - 1 - i)

have a product whose coefficient at s m d + j d + d - 1 is the sum of w[j, i] x[s, i], and nothing else: another pair of terms lands
there only if it is the same pair, as long as (inputs) * m * d <= degree. Wrapping round X^degree = -1 falls on coefficients
below d - 1, which hold no output. (Huang et al., Cheetah, USENIX Security 2022, section 3.)

What doesn't fit one polynomial is cut into chunks of terms, each a ciphertext of the request, and groups of outputs, each one of the
answer; products of one group are added up. Rotations would need keys of 6 MB (degree 4,096) to 33 MB (8,192) with each requester.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Layout(msgspec.Struct, frozen=True):
    """
    Attributes:
        terms, outputs: d and m.
        chunk: terms in one ciphertext of the request.
        group: outputs in one ciphertext of the answer.
        inputs: how many inputs one request takes.
    """

    degree: int
    terms: int
    outputs: int
    chunk: int
    group: int
    inputs: int

    @property
    def asked(self) -> int:
        """Ciphertexts of a request."""
        return -(-self.terms // self.chunk)

    @property
    def answered(self) -> int:
        """Ciphertexts of an answer."""
        return -(-self.outputs // self.group)


class TooWide(ValueError):
    """{terms} terms don't fit a ring of degree {degree}: take a larger degree, fewer features, or order 1."""


def layout(degree: int, terms: int, outputs: int) -> Layout:
    """The layout with the fewest ciphertexts; both sides derive it from the model's shape.

    Raises:
        TooWide: there is none.
    """
    if terms * outputs <= degree:
        return Layout(degree, terms, outputs, terms, outputs, degree // (terms * outputs))
    fits = [
        Layout(degree, terms, outputs, min(terms, degree // group), group, 1)
        for group in range(1, min(outputs, degree) + 1)
    ]
    best = min(fits, key=lambda it: (it.asked + it.answered, it.asked))
    if best.asked * best.chunk < terms or best.asked + best.answered > 32:
        raise TooWide(
            f"{terms} terms don't fit a ring of degree {degree}: take a larger degree, fewer features, or order 1"
        )
    return best


def input_polynomials(plan: Layout, rows: Ints) -> Ints:
    """(inputs, terms) to (asked, degree)."""
    assert rows.shape[1] == plan.terms
    assert 1 <= rows.shape[0] <= plan.inputs
    found = np.zeros((plan.asked, plan.degree), np.int64)
    for at in range(plan.asked):
        part = rows[:, at * plan.chunk : (at + 1) * plan.chunk]
        for number, row in enumerate(part):
            start = number * plan.group * plan.chunk
            found[at, start : start + len(row)] = row
    return found


def weight_polynomials(plan: Layout, matrix: Ints) -> Ints:
    """(outputs, terms) to (answered, asked, degree)."""
    assert matrix.shape == (plan.outputs, plan.terms)
    found = np.zeros((plan.answered, plan.asked, plan.degree), np.int64)
    for output in range(plan.outputs):
        group, place = divmod(output, plan.group)
        for at in range(plan.asked):
            part = matrix[output, at * plan.chunk : (at + 1) * plan.chunk]
            end = place * plan.chunk + plan.chunk
            found[group, at, end - len(part) : end] = part[::-1]
    return found


def outputs_of(plan: Layout, polynomials: Floats, inputs: int) -> Floats:
    """(answered, degree) to (inputs, outputs)."""
    assert polynomials.shape == (plan.answered, plan.degree)
    found = np.empty((inputs, plan.outputs))
    for number in range(inputs):
        for output in range(plan.outputs):
            group, place = divmod(output, plan.group)
            at = number * plan.group * plan.chunk + place * plan.chunk + plan.chunk - 1
            found[number, output] = polynomials[group, at]
    return found
