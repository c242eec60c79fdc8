"""The model, and where rows come from."""

from pathlib import Path

import numpy as np
from flwr.app import Context

PIXELS, CLASSES = 64, 10


def load_rows(context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Rows of this node: below `data-path` where that is said, else a share of scikit-learn's set."""
    if "data-path" in context.node_config:
        folder = Path(str(context.node_config["data-path"]))
        digit = np.loadtxt(folder / "data.csv", dtype=int, delimiter=",", skiprows=1, ndmin=1)
        with np.load(folder / "arrays.npz") as arrays:
            return arrays["pixels"] / 16.0, digit
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    mine = slice(
        int(context.node_config.get("partition-id", 0)),
        None,
        int(context.node_config.get("num-partitions", 1)),
    )
    return pixels[mine] / 16.0, digit[mine]


def first_model() -> dict[str, np.ndarray]:
    return {"weights": np.zeros((PIXELS, CLASSES)), "bias": np.zeros(CLASSES)}


def probabilities(model: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    scores = pixels @ model["weights"] + model["bias"]
    scores -= scores.max(axis=1, keepdims=True)
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def fit(
    model: dict[str, np.ndarray], pixels: np.ndarray, digit: np.ndarray, epochs: int, rate: float
) -> dict[str, np.ndarray]:
    """Gradient descent over batches of 32, in the order of the rows."""
    weights, bias = model["weights"].copy(), model["bias"].copy()
    wanted = np.eye(CLASSES)[digit]
    for _ in range(epochs):
        for at in range(0, len(pixels), 32):
            batch = pixels[at : at + 32]
            wrong = (probabilities({"weights": weights, "bias": bias}, batch) - wanted[at : at + 32]) / len(
                batch
            )
            weights -= rate * batch.T @ wrong
            bias -= rate * wrong.sum(axis=0)
    return {"weights": weights, "bias": bias}


def measure(model: dict[str, np.ndarray], pixels: np.ndarray, digit: np.ndarray) -> dict[str, float]:
    found = probabilities(model, pixels)
    return {
        "loss": float(-np.log(found[np.arange(len(digit)), digit] + 1e-12).mean()),
        "accuracy": float((found.argmax(axis=1) == digit).mean()),
    }
