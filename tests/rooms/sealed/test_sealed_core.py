"""Rings, ciphertexts' bytes, where numbers lie, and models: what is refused, and that sums come out."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.work.sealed.core import security, wire
from clusterai.work.sealed.core.layout import (
    Layout,
    TooWide,
    input_polynomials,
    layout,
    outputs_of,
    weight_polynomials,
)
from clusterai.work.sealed.core.model import (
    BadModel,
    Linear,
    Shape,
    Squares,
    linked,
    plain_outputs,
    read_shape,
    read_weights,
    terms_of,
)
from clusterai.work.sealed.core.security import RINGS, Ring
from clusterai.work.sealed.core.slots import coefficients_of, slots_of

SMALL = RINGS[2_048]


def shape_of(features: int = 3, outputs: int = 1, order: int = 1, **more: object) -> Shape:
    fields: dict[str, object] = {
        "features": [f"f{at}" for at in range(features)],
        "outputs": [f"o{at}" for at in range(outputs)],
        "centre": [0.0] * features,
        "spread": [1.0] * features,
        "bound": 4.0,
        "link": "identity",
        "order": order,
        "degree": 2_048,
        "input_bits": 20,
        "weight_bits": 12,
    }
    return msgspec.convert(fields | more, Shape)


# --- rings ---


@pytest.mark.parametrize("degree", RINGS)
def test_every_ring_has_128_bits_of_security(degree: int):
    """Each ring's modulus is prime, fits its transform, and is no longer than the standard's table allows."""
    assert security.weakness(RINGS[degree]) is None


@pytest.mark.parametrize(
    ("ring", "why"),
    [
        (Ring(2_048, 72_057_594_037_641_217), "128 bits of security allow 54"),
        (Ring(512, 12_289), "isn't in the standard's table"),
        (Ring(2_048, SMALL.prime - 2), "isn't 1 modulo"),
        (Ring(2_048, 4_097), "isn't prime"),
        (Ring(4_096, (1 << 60) + 33), "don't fit 7 bytes"),
    ],
)
def test_weak_rings_are_named(ring: Ring, why: str):
    """Too long a modulus, an unknown degree, no prime, or one without a transform: each is refused with its reason."""
    assert why in (security.weakness(ring) or "")


# --- bytes ---


@given(st.integers(0, SMALL.prime - 1), st.integers(0, 4_095))
def test_residues_come_out_as_they_went_in(value: int, place: int):
    """A ciphertext's bytes and its residues say the same."""
    residues = np.arange(4_096, dtype=np.uint64)
    residues[place] = value
    data = wire.bytes_of(SMALL, residues)
    assert len(data) == SMALL.ciphertext_bytes
    assert np.array_equal(wire.residues_of(SMALL, data), residues)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 bytes"),
        (bytes(SMALL.ciphertext_bytes - 1), "bytes; at degree"),
        (b"\xff" * SMALL.ciphertext_bytes, "below the modulus"),
        (bytes(SMALL.ciphertext_bytes), "hides nothing"),
        (
            SMALL.prime.to_bytes(7, "little") + bytes(SMALL.ciphertext_bytes - 8) + b"\x01",
            "below the modulus",
        ),
    ],
)
def test_a_strangers_bytes_are_refused(data: bytes, why: str):
    """Another length, a residue that isn't one, or a ciphertext that hides nothing never reach the library."""
    with pytest.raises(wire.NoCiphertext, match=why):
        wire.residues_of(SMALL, data)


# --- where numbers lie ---


@given(st.sampled_from([64, 256]), st.integers(1, 40), st.integers(1, 12), st.randoms(use_true_random=False))
def test_a_product_of_polynomials_holds_every_output(degree: int, terms: int, outputs: int, chance: object):
    """Multiplying modulo X^degree + 1 gives inputs times weights at the places that the layout names."""
    plan = layout(degree, terms, outputs)
    rng = np.random.default_rng(getattr(chance, "getrandbits")(32))  # noqa: B009
    rows = rng.integers(-99, 99, (plan.inputs, terms))
    matrix = rng.integers(-99, 99, (outputs, terms))
    asked, weights = input_polynomials(plan, rows), weight_polynomials(plan, matrix)
    found = np.zeros((plan.answered, degree))
    for group in range(plan.answered):
        for at in range(plan.asked):
            whole = np.append(np.convolve(asked[at], weights[group, at]), 0)
            found[group] += whole[:degree] - whole[degree:]
    assert np.array_equal(outputs_of(plan, found, plan.inputs), rows @ matrix.T)


def test_the_layout_takes_the_fewest_ciphertexts():
    """Thirty features fill one ciphertext with 66 inputs; 2,145 products and ten outputs take three, and two come back."""
    assert layout(2_048, 31, 1) == Layout(2_048, 31, 1, 31, 1, 66)
    plan = layout(4_096, 2_145, 10)
    assert (plan.asked, plan.answered, plan.inputs) == (3, 2, 1)
    with pytest.raises(TooWide):
        layout(2_048, 2_000_000, 3)


@given(st.integers(1, 2**39), st.integers(0, 2_047))
def test_coefficients_survive_the_transform(value: int, place: int):
    """Whole numbers come back from slots as the same whole numbers."""
    coefficients = np.zeros(2_048)
    coefficients[place], coefficients[-1 - place] = value, -value
    back = coefficients_of(slots_of(coefficients))
    assert np.array_equal(np.rint(back), coefficients)


# --- models ---


def test_a_network_of_squares_is_its_quadratic_form():
    """The matrix over products of features gives exactly what the two layers give."""
    shape = shape_of(4, 3, 2, weight_bits=24)
    rng = np.random.default_rng(5)
    u, v = rng.integers(-200, 200, (6, 5)), rng.integers(-200, 200, (3, 7))
    rows = [tuple(map(int, row)) for row in u], [tuple(map(int, row)) for row in v]
    network = Squares(8, tuple(rows[0]), tuple(rows[1]))
    matrix = read_weights(msgspec.json.encode(network), shape)
    x = rng.uniform(-2, 2, (7, 4))
    wide = np.rint(np.hstack([x, np.ones((7, 1))]) * 2**20) / 2**20
    hidden = (wide @ (u / 256).T) ** 2
    expected = np.hstack([hidden, np.ones((7, 1))]) @ (v / 256).T
    assert np.abs(plain_outputs(shape, matrix, x) - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"degree": 1_024}, "degree"),
        ({"order": 3}, "order"),
        ({"spread": [1.0, 0.0, 1.0]}, "above 0"),
        ({"centre": [0.0]}, "one centre"),
        ({"bound": 0}, "bound"),
        ({"input_bits": 60}, "input_bits"),
        ({"more": 1}, "unknown field"),
        ({"link": "logistic", "outputs": ["a", "b"]}, "one output"),
        (
            {"features": ["f"] * 500, "centre": [0] * 500, "spread": [1] * 500, "order": 2, "degree": 8_192},
            "the limit is",
        ),
        (
            {"features": ["f"] * 900, "centre": [0] * 900, "spread": [1] * 900, "order": 2, "degree": 8_192},
            "don't fit",
        ),
    ],
)
def test_hostile_shapes_are_refused(change: dict[str, object], why: str):
    """No shape gets through that names other parameters than ours, or more than an order carries."""
    raw = msgspec.json.encode(msgspec.to_builtins(shape_of()) | change)
    with pytest.raises(BadModel, match=why):
        read_shape(raw)


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        (b"[]", "Expected"),
        (Linear(((1, 2, 3),)), "rows of 4"),
        (Linear(((1, 2, 3, 4), (1, 2, 3, 4))), "2 rows"),
        (Linear(((2**40, 2**40, 0, 1),)), "exceed the modulus"),
        (Linear(((0, 0, 0, 0),)), "no weights"),
        (Squares(8, ((1, 2, 3, 4),), ((1, 2),)), "order 2"),
    ],
)
def test_hostile_weights_are_refused(weights: bytes | Linear | Squares, why: str):
    """Weights of another shape, none, or such as could overflow an output never make an engine."""
    raw = weights if isinstance(weights, bytes) else msgspec.json.encode(weights)
    with pytest.raises(BadModel, match=why):
        read_weights(raw, shape_of())


@pytest.mark.parametrize(
    ("row", "why"),
    [([1.0, 2.0], "3 numbers"), ([1.0, 2.0, 9.0], "f2 is 9"), ([1.0, float("nan"), 0.0], "missing")],
)
def test_inputs_beyond_the_model_are_refused_before_encryption(row: list[float], why: str):
    """Whoever asks hears which feature lies outside, instead of getting an answer to another question."""
    with pytest.raises(ValueError, match=why):
        terms_of(shape_of(), np.array([row]))


def test_links_are_applied_to_outputs():
    """A logistic link gives one probability, softmax gives shares that add up to one."""
    assert linked(shape_of(link="logistic"), np.array([[0.0]]))[0, 0] == 0.5
    shares = linked(shape_of(outputs=3, link="softmax"), np.array([[1.0, 1.0, 1000.0]]))
    assert shares.sum() == pytest.approx(1)
    assert shares[0, 2] == pytest.approx(1)
