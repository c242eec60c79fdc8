"""The requester's side: encrypts on its own machine with a key for one request, and reads the answer.

One key a request costs milliseconds and saves two worries: what two answers under one key would say together, and that a decrypted
CKKS number, told to others, says something of the key (Li and Micciancio, Eurocrypt 2021): it says something of a key that is gone.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from clusterai.work.packed import MOST_BYTES
from clusterai.work.sealed.adapters.ckks import Keys, Scheme
from clusterai.work.sealed.core.layout import input_polynomials, outputs_of
from clusterai.work.sealed.core.model import Shape, linked, terms_of
from clusterai.work.sealed.spec import Sealed

Floats = NDArray[np.float64]


class NotTheAnswer(ValueError):
    """These bytes aren't an answer to this request."""


class Outputs(msgspec.Struct, frozen=True):
    """(inputs, outputs) each: as the model gives them, and after its link (`core.model.linked`)."""

    raw: Floats
    values: Floats


class Question(msgspec.Struct, frozen=True):
    """One request on its way, with the key that alone reads its answer."""

    request: Sealed
    shape: Shape
    inputs: int
    keys: Keys

    def read(self, answer: bytes) -> Outputs:
        """
        Raises:
            NotTheAnswer: of another length.
            NoCiphertext: a residue beyond the modulus.
        """
        size, plan = self.shape.ring.ciphertext_bytes, self.shape.layout()
        if len(answer) != plan.answered * size:
            raise NotTheAnswer(f"{len(answer)} bytes came, an answer has {plan.answered * size}")
        plain = np.array([self.keys.decrypt(answer[at : at + size]) for at in range(0, len(answer), size)])
        raw = outputs_of(plan, plain, self.inputs) / 2.0 ** (self.shape.input_bits + self.shape.weight_bits)
        return Outputs(raw, linked(self.shape, raw))


def questions(model: bytes, shape: Shape, rows: Floats) -> list[Question]:
    """As few requests as hold all inputs (inputs, features), in order.

    Raises:
        ValueError: an input that the model wasn't made for; nothing has been encrypted then.
    """
    plan = shape.layout()
    assert plan.answered * shape.ring.ciphertext_bytes <= MOST_BYTES
    terms = terms_of(shape, rows)
    scheme = Scheme(shape.ring)
    found: list[Question] = []
    for start in range(0, len(rows), plan.inputs):
        part = terms[start : start + plan.inputs]
        keys = scheme.keys()
        ciphertexts = tuple(keys.encrypt(it) for it in input_polynomials(plan, part))
        request = Sealed(model, shape.degree, ciphertexts, plan.answered)
        found.append(Question(request, shape, len(part), keys))
    return found
