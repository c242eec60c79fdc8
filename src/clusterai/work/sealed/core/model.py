"""What a model for sealed inputs is: a shape that its users need, and weights that only providers and auditors do.

    shape.json      features, how they are scaled, what the outputs are called, ring, precision
    weights.json    order 1: one matrix, for linear and logistic models
                    order 2: a dense network of one hidden layer with the square as activation

Such a network is a quadratic form of its input: output o = sum over hidden units j of v[o, j] (u[j] . (x, 1))^2 = (x, 1)' Q[o] (x, 1). So
whoever asks sends the products of every two of his inputs, encrypted, and the provider adds them up with Q: one multiplication deep, like
a linear model. Deeper networks would need evaluation keys of tens of megabytes with each requester, and the room refuses them.

All weights are integers, so two machines can't differ in rounding them.
"""

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from clusterai.work.packed import MOST_BYTES
from clusterai.work.sealed.core.layout import Layout, TooWide, layout
from clusterai.work.sealed.core.security import RINGS, Ring, weakness
from clusterai.work.sealed.spec import MOST_CIPHERTEXTS, MOST_REQUEST_BYTES

MOST_SHAPE_BYTES = 256 * 1024
MOST_WEIGHTS_BYTES = 4 * 1024 * 1024
MOST_FEATURES, MOST_OUTPUTS, MOST_HIDDEN = 2_048, 256, 512

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Label = Annotated[str, Meta(min_length=1, max_length=64)]
Weight = Annotated[int, Meta(ge=-(2**40), le=2**40)]
Row = Annotated[tuple[Weight, ...], Meta(min_length=1, max_length=MOST_FEATURES + 1)]


class BadModel(ValueError):
    """This can't be served to sealed inputs: {why}."""


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a requester must know, and nothing of the weights.

    Attributes:
        centre, spread: a feature goes in as (value - centre) / spread.
        bound: scaled features beyond this are refused before they are encrypted.
        link: what the requester does with the outputs after he has decrypted them.
        order: 1, or 2 where products of every two features are sent.
        input_bits, weight_bits: of fraction.
    """

    features: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=MOST_FEATURES)]
    outputs: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=MOST_OUTPUTS)]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    bound: Annotated[float, Meta(gt=0, le=1e6)]
    link: Literal["identity", "logistic", "softmax"]
    order: Literal[1, 2]
    degree: Literal[2_048, 4_096, 8_192]
    input_bits: Annotated[int, Meta(ge=8, le=40)]
    weight_bits: Annotated[int, Meta(ge=4, le=40)]

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.centre) == len(self.spread):
            raise ValueError("each feature has one centre and one spread")
        if not np.isfinite([*self.centre, *self.spread]).all() or min(self.spread) <= 0:
            raise ValueError("centres and spreads are finite, spreads above 0")
        if self.link == "logistic" and len(self.outputs) != 1:
            raise ValueError("a logistic model has one output")

    @property
    def terms(self) -> int:
        """Numbers of one input as they are sent, the constant 1 among them."""
        wide = len(self.features) + 1
        return wide if self.order == 1 else wide * (wide + 1) // 2

    @property
    def ring(self) -> Ring:
        return RINGS[self.degree]

    def layout(self) -> Layout:
        return layout(self.degree, self.terms, len(self.outputs))


class Linear(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="linear"):
    """`rows`: for each output a weight for each feature and one for the constant, in parts of 2^-weight_bits."""

    rows: Annotated[tuple[Row, ...], Meta(min_length=1, max_length=MOST_OUTPUTS)]


class Squares(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="squares"):
    """A network of one hidden layer: both layers with a last weight for the constant, in parts of 2^-`bits`."""

    bits: Annotated[int, Meta(ge=4, le=16)]
    hidden: Annotated[tuple[Row, ...], Meta(min_length=1, max_length=MOST_HIDDEN)]
    rows: Annotated[tuple[Row, ...], Meta(min_length=1, max_length=MOST_OUTPUTS)]


Weights = Linear | Squares


def read_shape(raw: bytes) -> Shape:
    """
    Raises:
        BadModel: no shape, or one whose parameters aren't safe or whose inputs don't fit.
    """
    if len(raw) > MOST_SHAPE_BYTES:
        raise BadModel(f"a shape of {len(raw)} bytes; the limit is {MOST_SHAPE_BYTES}")
    try:
        shape = msgspec.json.decode(raw, type=Shape)
        plan, size = shape.layout(), shape.ring.ciphertext_bytes
    except (msgspec.MsgspecError, TooWide, ValueError) as error:
        raise BadModel(str(error)) from None
    if (why := weakness(shape.ring)) is not None:
        raise BadModel(why)
    if plan.asked > MOST_CIPHERTEXTS or plan.asked * size > MOST_REQUEST_BYTES:
        raise BadModel(f"a request would have {plan.asked * size} bytes; the limit is {MOST_REQUEST_BYTES}")
    if plan.answered * size > MOST_BYTES:
        raise BadModel(f"an answer would have {plan.answered * size} bytes; the limit is {MOST_BYTES}")
    return shape


def read_weights(raw: bytes, shape: Shape) -> Ints:
    """The model as one matrix (outputs, terms), in parts of 2^-weight_bits.

    Raises:
        BadModel: no weights, not of this shape, or so large that an output could exceed the modulus.
    """
    if len(raw) > MOST_WEIGHTS_BYTES:
        raise BadModel(f"weights of {len(raw)} bytes; the limit is {MOST_WEIGHTS_BYTES}")
    try:
        weights: Weights = msgspec.json.decode(raw, type=Linear | Squares)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadModel(str(error)) from None
    wide = len(shape.features) + 1
    if len(weights.rows) != len(shape.outputs):
        raise BadModel(f"{len(weights.rows)} rows of weights for {len(shape.outputs)} outputs")
    match weights:
        case Linear(rows):
            if shape.order != 1 or any(len(row) != wide for row in rows):
                raise BadModel(f"a linear model of this shape has order 1 and rows of {wide}")
            matrix = np.array(rows, np.int64)
        case Squares(bits, hidden, rows):
            if shape.order != 2 or any(len(row) != wide for row in hidden):
                raise BadModel(f"a network of this shape has order 2 and hidden rows of {wide}")
            if any(len(row) != len(hidden) + 1 for row in rows):
                raise BadModel(f"rows of the last layer have {len(hidden) + 1} weights")
            matrix = _quadratic(bits, hidden, rows, shape.weight_bits)
    largest = shape.bound if shape.order == 1 else max(1.0, shape.bound**2)
    most = int(np.abs(matrix).sum(axis=1).max()) * max(1.0, largest) * 2**shape.input_bits
    if most >= shape.ring.prime / 4:
        raise BadModel("an output may exceed the modulus: fewer bits, a smaller bound, or smaller weights")
    if not matrix.any(axis=1).all():
        raise BadModel("an output has no weights")
    return matrix


def _quadratic(
    bits: int, hidden: tuple[tuple[int, ...], ...], rows: tuple[tuple[int, ...], ...], to_bits: int
) -> Ints:
    """Q of the network, over the products in the order of `terms`; whole numbers throughout (Python's, which don't overflow)."""
    u, v = np.array(hidden, object), np.array(rows, object)
    first, second = np.triu_indices(u.shape[1])
    products = u[:, first] * u[:, second] * np.where(first == second, 1, 2).astype(object)
    exact = v[:, :-1].dot(products)
    exact[:, -1] += v[:, -1] << (2 * bits)
    shift = 3 * bits - to_bits
    scaled = exact << -shift if shift <= 0 else (exact + (1 << (shift - 1))) >> shift
    if max(abs(int(value)) for value in scaled.ravel()) > 2**40:
        raise BadModel("weights of the network's quadratic form exceed 2^40")
    return scaled.astype(np.int64)


def terms_of(shape: Shape, rows: Floats) -> Ints:
    """What is encrypted for inputs (inputs, features): (inputs, terms), in parts of 2^-input_bits.

    Raises:
        ValueError: a value is missing, not finite, or beyond the bound that the model was made for.
    """
    if rows.ndim != 2 or rows.shape[1] != len(shape.features):
        raise ValueError(f"each input has {len(shape.features)} numbers, not {rows.shape[-1]}")
    if not np.isfinite(rows).all():
        raise ValueError("an input has a number that is missing or infinite")
    scaled = (rows - np.array(shape.centre)) / np.array(shape.spread)
    number, feature = np.unravel_index(int(np.abs(scaled).argmax()), scaled.shape)
    if abs(scaled[number, feature]) > shape.bound:
        raise ValueError(
            f"input {number}: {shape.features[feature]} is {rows[number, feature]:g}, beyond what the model was made for"
            f" ({shape.centre[feature]:g} and {shape.bound:g} times {shape.spread[feature]:g} more or less)"
        )
    wide = np.hstack([scaled, np.ones((len(rows), 1))])
    if shape.order == 2:
        first, second = np.triu_indices(wide.shape[1])
        wide = wide[:, first] * wide[:, second]
    return np.rint(wide * 2**shape.input_bits).astype(np.int64)


def plain_outputs(shape: Shape, matrix: Ints, rows: Floats) -> Floats:
    """What the model says of inputs in the clear: (inputs, outputs), before the link."""
    return (terms_of(shape, rows) / 2**shape.input_bits) @ (matrix / 2**shape.weight_bits).T


def linked(shape: Shape, outputs: Floats) -> Floats:
    """Probabilities, where the model has such; done by the requester, in the clear, so no polynomial stands in for them."""
    match shape.link:
        case "identity":
            return outputs
        case "logistic":
            return 1 / (1 + np.exp(-np.clip(outputs, -500, 500)))
        case "softmax":
            grown = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            return grown / grown.sum(axis=1, keepdims=True)
