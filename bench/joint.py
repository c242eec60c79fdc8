"""What joint statistics are worth: `python -m bench.joint [--rounds 50]`.

scikit-learn's breast cancer table (569 rows), ten times over with another patient each time, dealt to vaults. Median error against the statistic of all rows in one place, in percent; without ε it is
what rounding leaves. Each vault adds all of its own noise, so more vaults mean more noise: beside it what one place with all rows would need. Then seconds for
a share of 10^5 rows, noise included. Sums are added in the clear here: masks and keys change nothing in them (`bench/secagg.py`).
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer

from clusterai.vault.core.schema import Column, Schema
from clusterai.vault.core.secagg import joint
from clusterai.work.joint.adapters.noise import noised, own_noise
from clusterai.work.joint.core.question import Wanted, question_of
from clusterai.work.joint.core.spread import numbers

DELTA_PICO = 10_000
COPIES = 10
ASKED = {
    "avg, one column": ("select avg(radius)", "avg(radius)"),
    "avg, five columns": (
        "select avg(radius), avg(texture), avg(area), avg(smoothness), avg(concavity)",
        "avg(radius)",
    ),
    "variance": ("select variance(radius)", "variance(radius)"),
    "histogram, 10 cells": ("select histogram(radius, 10)", "12..16"),
    "regression, slope": ("select regression(area, radius)", "radius"),
}
NAMES = {
    "radius": (0, 40),
    "texture": (0, 50),
    "area": (0, 3000),
    "smoothness": (0, 0.3),
    "concavity": (0, 0.6),
}
SCHEMA = Schema(
    columns=tuple(Column(name=it, kind="float", low=low, high=high) for it, (low, high) in NAMES.items())
)


def table() -> dict[str, Any]:
    load: Any = load_breast_cancer
    found = load()
    at = [list(found.feature_names).index(f"mean {it}") for it in NAMES]
    return {it: np.tile(found.data[:, place], COPIES) for it, place in zip(NAMES, at, strict=True)}


def answered(
    wanted: Wanted, rows: dict[str, Any], vaults: int, epsilon_micro: int, seed: int
) -> dict[str, float]:
    own = own_noise(wanted.question, epsilon_micro, DELTA_PICO if epsilon_micro else 0)
    total: Any = 0
    for at in range(vaults):
        values = joint.contribution(wanted.question, {it: column[at::vaults] for it, column in rows.items()})
        if own is not None:
            values = noised(values, own, (seed * 1000 + at + 1).to_bytes(32))
        total = total + values
    return numbers(wanted, total)


def error(sql: str, name: str, rows: dict[str, Any], vaults: int, epsilon_micro: int, rounds: int) -> str:
    wanted = question_of(sql, {"vault": SCHEMA})
    true = numbers(wanted, joint.contribution(wanted.question, rows))[name]
    off: list[float] = []
    for seed in range(rounds if epsilon_micro else 1):
        try:
            found = answered(wanted, rows, vaults, epsilon_micro, seed)[name]
        except joint.TooFewRows:
            found = float("inf")
        off.append(abs(found - true) / abs(true) * 100)
    return f"{statistics.median(off):.2g}"


def share_s(sql: str) -> float:
    wanted = question_of(sql, {"vault": SCHEMA})
    random = np.random.default_rng(1)
    rows = {it: random.uniform(low, high, 100_000) for it, (low, high) in NAMES.items()}
    own = own_noise(wanted.question, 10**6, DELTA_PICO)
    assert own is not None
    began_s = time.process_time()
    noised(joint.contribution(wanted.question, rows), own, bytes(32))
    return time.process_time() - began_s


def main(rounds: int) -> None:
    rows = table()
    print(
        "| | no ε, 3 vaults | ε 1, 3 vaults | ε 1, 10 vaults | ε 1, one place | ε 4, 3 vaults | a share of 10^5 rows |"
    )
    print("|---|---|---|---|---|---|---|")
    for what, (sql, name) in ASKED.items():
        cells = [
            error(sql, name, rows, vaults, epsilon, rounds)
            for vaults, epsilon in ((3, 0), (3, 10**6), (10, 10**6), (1, 10**6), (3, 4 * 10**6))
        ]
        print(f"| {what} | {' | '.join(cells)} | {share_s(sql) * 1e3:.0f} ms |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    main(parser.parse_args().rounds)
