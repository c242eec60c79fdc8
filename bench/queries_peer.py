"""What `bench.queries` asks of an environment of its own: scikit-learn's tables, and diffprivlib's answers to the same questions.

.venv/peers/privacy/bin/python bench/queries_peer.py ROUNDS     JSON on stdout
"""

import importlib
import json
import sys
import time
import warnings
from typing import Any

import numpy as np

warnings.simplefilter("ignore")
tools: Any = importlib.import_module("diffprivlib.tools")
datasets: Any = importlib.import_module("sklearn.datasets")

EPSILONS = (0.1, 1.0, 4.0)
TABLES = {
    "breast_cancer": ("mean radius", 0.0, 40.0),
    "diabetes": ("target", 0.0, 400.0),
    "wine": ("alcohol", 10.0, 16.0),
    "digits": ("pixel_3_4", 0.0, 16.0),
}
"""A column of each, with bounds that one would declare without having looked."""


def columns(name: str) -> tuple[Any, Any]:
    """(the column, the groups): classes, or for `diabetes` the sex."""
    loaded: Any = getattr(datasets, f"load_{name}")()
    if name == "diabetes":
        return loaded.target, (loaded.data[:, 1] > 0).astype(int)
    return loaded.data[:, list(loaded.feature_names).index(TABLES[name][0])], loaded.target


def answers(x: Any, groups: Any, low: float, high: float, epsilon: float, seed: int) -> dict[str, Any]:
    within = {"epsilon": epsilon, "bounds": (low, high), "random_state": seed}
    return {
        "count": lambda: tools.histogram(
            groups,
            epsilon=epsilon,
            bins=int(groups.max()) + 1,
            range=(0, int(groups.max()) + 1),
            random_state=seed,
        )[0],
        "avg": lambda: tools.mean(x, **within),
        "variance": lambda: tools.var(x, **within),
        "sum": lambda: tools.sum(x, **within),
        "histogram": lambda: tools.histogram(
            x, epsilon=epsilon, bins=10, range=(low, high), random_state=seed
        )[0],
        "median": lambda: tools.quantile(x, 0.5, **within),
    }


def main(rounds: int) -> None:
    told: dict[str, Any] = {}
    for name, (_, low, high) in TABLES.items():
        x, groups = columns(name)
        found: list[dict[str, Any]] = []
        for epsilon in EPSILONS:
            for seed in range(rounds):
                for what, ask in answers(x, groups, low, high, epsilon, seed).items():
                    began = time.perf_counter()
                    value = ask()
                    took = time.perf_counter() - began
                    found.append(
                        {
                            "what": what,
                            "epsilon": epsilon,
                            "value": np.ravel(value).tolist(),
                            "ms": took * 1000,
                        }
                    )
        told[name] = {"x": x.tolist(), "groups": groups.tolist(), "low": low, "high": high, "answers": found}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
