"""Trains the two small models for sealed inputs that come with this package, and writes their files and cards.

    pip install scikit-learn==1.9.1
    python scripts/train_sealed.py

Data: breast cancer Wisconsin (569 x 30, CC BY 4.0) and the handwritten digits (1,797 x 64, CC BY 4.0) of scikit-learn. A fifth is held out.
"""

import importlib
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from clusterai.models.core.card import Card, File, Manifest, write_card
from clusterai.work.sealed.core.model import (
    Linear,
    Shape,
    Squares,
    plain_outputs,
    read_shape,
    read_weights,
)

Floats = NDArray[np.float64]
MODELS = Path(__file__).parent.parent / "src/clusterai/models"


def held_out(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.default_rng(1).permutation(count)
    return order[count // 5 :], order[: count // 5]


def bits(values: Floats, fraction: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(it) for it in row) for row in np.rint(values * 2**fraction).astype(int))


def write(name: str, shape: Shape, weights: Linear | Squares, x: Floats, y: NDArray[np.int64]) -> None:
    folder = MODELS / "sealed" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shape.json").write_bytes(msgspec.json.format(msgspec.json.encode(shape)) + b"\n")
    (folder / "weights.json").write_bytes(msgspec.json.encode(weights) + b"\n")
    raw = {role: (folder / role).read_bytes() for role in ("shape.json", "weights.json")}
    manifest = Manifest(tuple(File(role, len(raw[role]), blake3(raw[role]).digest()) for role in sorted(raw)))
    card = Card(
        name=name, model="0x" + manifest.address().hex(), licence="apache-2.0", kind="sealed",
        architecture="logistic" if shape.order == 1 else "square", context=shape.layout().inputs,
        input_wei=200_000, output_wei=200_000,
    )  # fmt: skip
    (MODELS / "cards" / f"{name}.json").write_bytes(write_card(card))
    matrix = read_weights(raw["weights.json"], read_shape(raw["shape.json"]))
    said = plain_outputs(shape, matrix, x)
    guess = (said[:, 0] > 0).astype(int) if shape.link == "logistic" else said.argmax(axis=1)
    print(f"{name}: {(guess == y).mean():.4f} of {len(y)} held out; {shape.layout()}")


def breast_cancer(datasets: Any, linear: Any) -> None:
    data = datasets.load_breast_cancer()
    x, y = np.asarray(data.data, float), np.asarray(data.target)
    train, test = held_out(len(x))
    centre, spread = x[train].mean(axis=0).round(6), x[train].std(axis=0).round(6)
    fitted = linear.LogisticRegression(C=0.5, max_iter=5_000).fit((x[train] - centre) / spread, y[train])
    row = np.hstack([fitted.coef_, fitted.intercept_[:, None]])
    shape = Shape(
        features=tuple(map(str, data.feature_names)), outputs=("benign",), centre=tuple(map(float, centre)),
        spread=tuple(map(float, spread)), bound=30.0, link="logistic", order=1, degree=2_048, input_bits=24,
        weight_bits=16,
    )  # fmt: skip
    write("sealed-breast-cancer", shape, Linear(bits(row, 16)), x[test], y[test])


def digits(datasets: Any, hidden: int = 32, steps: int = 1_500) -> None:
    """Adam on the squares' own gradients; sixteen levels of grey go in as 0 to 1."""
    data = datasets.load_digits()
    x, y = np.asarray(data.data, float) / 16, np.asarray(data.target)
    train, test = held_out(len(x))
    rng = np.random.default_rng(2)
    wide = np.hstack([x, np.ones((len(x), 1))])
    u, v = rng.normal(0, 0.15, (hidden, 65)), rng.normal(0, 0.1, (10, hidden + 1))
    moments = [(np.zeros_like(it), np.zeros_like(it)) for it in (u, v)]
    for step in range(1, steps + 1):
        chosen = rng.choice(train, 128)
        before = wide[chosen] @ u.T
        grown = np.hstack([before**2, np.ones((len(chosen), 1))])
        out = grown @ v.T
        share = np.exp(out - out.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        share[np.arange(len(chosen)), y[chosen]] -= 1
        share /= len(chosen)
        back = (share @ v[:, :-1]) * 2 * before
        rate = 0.01 * 0.5 * (1 + math.cos(math.pi * step / steps))
        slopes = (back.T @ wide[chosen] + 1e-4 * u, share.T @ grown + 1e-4 * v)
        for value, slope, (first, second) in zip((u, v), slopes, moments, strict=True):
            first *= 0.9
            first += 0.1 * slope
            second *= 0.999
            second += 0.001 * slope**2
            value -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    shape = Shape(
        features=tuple(f"pixel {at // 8},{at % 8}" for at in range(64)), outputs=tuple("0123456789"),
        centre=(0.0,) * 64, spread=(16.0,) * 64, bound=1.0, link="softmax", order=2, degree=4_096, input_bits=24,
        weight_bits=16,
    )  # fmt: skip
    write("sealed-digits", shape, Squares(12, bits(u, 12), bits(v, 12)), x[test] * 16, y[test])


if __name__ == "__main__":
    datasets = importlib.import_module("sklearn.datasets")
    breast_cancer(datasets, importlib.import_module("sklearn.linear_model"))
    digits(datasets)
