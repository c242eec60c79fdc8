"""Membership inference against federated models, before and with ε: `python -m bench.membership [--runs 48] [--svg FILE]`.

The likelihood-ratio attack (LiRA, Carlini et al. 2022, arXiv:2112.03570), online: many runs of the same federated training, each on a random half of 400 digits; for one run, all
others are its shadows. Of each row, the logit of the model's confidence in its label has one normal distribution over the shadows that had it and another over those
that hadn't; how much likelier the first makes what is seen is the score. Beside it the older attack, by the loss alone. Every run is attacked once.

Logistic regression over three vaults on 256 random Fourier features of the pixels: 2,570 parameters for 200 rows, so it can learn them by heart. Noise in shares, which
is all the noise that a sum needs and no more. Accuracy on the 1,397 rows that no run has.
"""

import argparse
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from bench.bars import Bar, draw
from bench.federated import Rows, accuracy, federated

Real = npt.NDArray[np.float64]
POOL, FEATURES, VAULTS = 400, 256, 3
LOW_FPR = 0.01


class Told(msgspec.Struct, frozen=True):
    """`auc`: 0.5 tells nothing. `caught`: of the members, where 1 % of the others are taken for members; 0.01 tells nothing."""

    auc: float
    caught: float


def told(members: Real, others: Real) -> Told:
    order = np.sort(others)
    below = np.searchsorted(order, members, side="left") + np.searchsorted(order, members, side="right")
    limit = np.quantile(others, 1 - LOW_FPR, method="higher")
    return Told(float(below.mean() / (2 * len(others))), float((members > limit).mean()))


def runs_of(epsilon: float | None, count: int) -> tuple[Real, npt.NDArray[np.bool_], float]:
    """Of each run, each row's logit, and whether it was in; and the mean accuracy."""
    load: Any = load_digits
    found = load()
    draw_ = np.random.default_rng(7)
    order = draw_.permutation(len(found.target))
    pixels, labels = np.asarray(found.data)[order] / 16, np.asarray(found.target)[order].astype(np.int64)
    waves, shift = draw_.normal(0, 0.5, (64, FEATURES)), draw_.uniform(0, 2 * np.pi, FEATURES)
    x = np.hstack([np.sqrt(2 / FEATURES) * 4 * np.cos(pixels @ waves + shift), np.ones((len(pixels), 1))])
    inside = np.zeros((count, POOL), np.bool_)
    logits, right = np.zeros((count, POOL)), np.zeros(count)
    for at in range(count):
        inside[at, draw_.permutation(POOL)[: POOL // 2]] = True
        rows = np.concatenate([np.flatnonzero(~inside[at]), np.flatnonzero(inside[at])])
        norm = 20.0 if epsilon is None else 2.0
        given = Rows("", x[rows], labels[rows], np.zeros(POOL, np.int64), POOL // 2, 10, 1.0, norm)
        rounds = 20 if epsilon is None else 0
        _, model = federated(given, True, epsilon, at, together=True, vaults=VAULTS, rounds=rounds)
        scores = x[:POOL] @ model
        own = scores[np.arange(POOL), labels[:POOL]]
        scores[np.arange(POOL), labels[:POOL]] = -np.inf
        top = scores.max(axis=1)
        logits[at] = own - top - np.log(np.exp(scores - top[:, None]).sum(axis=1))
        right[at] = accuracy(model, x[POOL:], labels[POOL:])
    return logits, inside, float(right.mean())


def likelihoods(logits: Real, inside: npt.NDArray[np.bool_]) -> Real:
    """Each run's rows, by how much likelier the shadows that had them make what is seen."""
    found = np.zeros(logits.shape)
    for at in range(len(logits)):
        others = np.arange(len(logits)) != at
        told_: list[Real] = []
        for had in (inside, ~inside):
            there = had & others[:, None]
            count = there.sum(axis=0)
            mean = np.where(there, logits, 0).sum(axis=0) / count
            spread = np.sqrt((np.where(there, logits - mean, 0) ** 2).sum(axis=0) / (count - 1)) + 1e-6
            told_.append(-0.5 * ((logits[at] - mean) / spread) ** 2 - np.log(spread))
        found[at] = told_[0] - told_[1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=48)
    parser.add_argument("--svg", type=Path)
    asked = parser.parse_args()
    print("| | accuracy | by the loss: area, caught at 1 % | likelihood ratio: area, caught at 1 % |")
    print("|---|---|---|---|")
    drawn: list[Bar] = []
    for epsilon in (None, 8.0, 4.0, 1.0):
        logits, inside, right = runs_of(epsilon, asked.runs)
        plain = told(logits[inside], logits[~inside])
        ratios = likelihoods(logits, inside)
        sharp = told(ratios[inside], ratios[~inside])
        name = "no ε" if epsilon is None else f"ε {epsilon:g}"
        print(
            f"| {name} | {right:.3f} | {plain.auc:.3f}, {plain.caught:.3f} | {sharp.auc:.3f}, {sharp.caught:.3f} |",
            flush=True,
        )
        drawn.append(Bar(f"{name}, accuracy {right:.2f}"))
        for attack, it in (("by the loss", plain), ("likelihood ratio", sharp)):
            drawn.append(Bar(attack, it.caught, it.caught, it.caught, f"{it.caught:.3f}, area {it.auc:.3f}"))
    draw(asked.svg, drawn, "members caught where 1 % of the others are taken for members; 0.01 tells nothing")


if __name__ == "__main__":
    main()
