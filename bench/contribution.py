"""What contributors of data are worth: `python bench/contribution.py [--svg FILE] [--rows 1000 10000]`.

1. Contributors of handwritten digits (scikit-learn's, 1,797 x 64) of known quality: clean, noisy, copied, with labels turned, made up, empty. Value,
   share, and whether slashing is proposed; as the noise that a copier adds grows, what he earns.
2. Data Banzhaf over the same contributors, with the classifier retrained for each set; and what a split among ten names gets by each.
3. pyDVL 0.10's KNN-Shapley on the same rows: rank correlation and time. In an environment of its own: python scripts/install.py peers pydvl
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.bars import Bar, draw
from clusterai.audit.core.contribution import (
    Appraised,
    Contribution,
    Rows,
    Study,
    appraise,
    banzhaf,
    radius_of,
    rows_of,
)
from clusterai.audit.core.contribution.neighbours import UNIT, row_values
from clusterai.audit.core.contribution.whole import squares
from clusterai.protocol.ids import Address
from scripts import install

BEACON = b"\x11" * 32
CLASSES, NEIGHBOURS = 10, 5
POT = 10**9
EACH = 140
THEIRS = """
import sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from pydvl.valuation import Dataset, KNNShapleyValuation
if len(sys.argv) == 2:
    digits = load_digits()
    np.savez(sys.argv[1], x=digits.data, y=digits.target)
else:
    given = np.load(sys.argv[1])
    held = Dataset(given["u"], given["v"])
    valuation = KNNShapleyValuation(KNeighborsClassifier(n_neighbors=5), held, progress=False)
    began = time.perf_counter()
    valuation.fit(Dataset(given["x"], given["y"]))
    took = time.perf_counter() - began
    np.savez(sys.argv[2], values=valuation.result.values, indices=valuation.result.indices, took=took)
"""


def peer() -> Path:
    python = install.peer(install.PEERS / "pydvl.txt", install.HOME / "peers" / "pydvl")
    assert python is not None, "python scripts/install.py peers pydvl"
    return python


def digits() -> Rows:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.npz"
        subprocess.run([peer(), "-c", THEIRS, path], check=True)
        given = np.load(path)
        order = np.random.default_rng(0).permutation(len(given["y"]))
        return rows_of((given["x"][order] - 4.9) / 6.0, given["y"][order])


def noisy(rows: Rows, deviation: float, seed: int) -> Rows:
    noise = np.random.default_rng(seed).normal(0, deviation * 256, rows.features.shape)
    return Rows(np.clip(np.rint(rows.features + noise), -4_095, 4_095).astype(np.int64), rows.labels)


def turned(rows: Rows, share: float, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    which = rng.random(len(rows)) < share
    other = (rows.labels + rng.integers(1, CLASSES, len(rows))) % CLASSES
    return Rows(rows.features, np.where(which, other, rows.labels))


def cast(rows: Rows) -> dict[str, Rows]:
    parts = [rows.chosen(np.arange(at * EACH, (at + 1) * EACH)) for at in range(9)]
    rng = np.random.default_rng(3)
    made_up = Rows(rng.integers(-300, 500, parts[0].features.shape), rng.integers(0, CLASSES, EACH))
    return {
        "clean A": parts[0], "clean B": parts[1], "clean C": parts[2], "noise 0.5": noisy(parts[3], 0.5, 1),
        "noise 1.5": noisy(parts[4], 1.5, 2), "copy of A": parts[0], "copy, noise 0.1": noisy(parts[0], 0.1, 3),
        "30 % turned": turned(parts[5], 0.3, 4), "random labels": turned(parts[6], 0.9, 5),
        "all turned": turned(parts[7], 1.0, 6), "made up": made_up, "empty": parts[8].chosen(np.arange(0)),
    }  # fmt: skip


def study(held: Rows, quality_milli: int = 0, sure_milli: int = 0) -> Study:
    return Study(held.digest(), CLASSES, NEIGHBOURS, radius_of(held), POT, quality_milli, sure_milli)


def appraised(
    parts: list[Rows], held: Rows, quality_milli: int = 0, sure_milli: int = 0
) -> tuple[Appraised, ...]:
    named = [Contribution(Address(at.to_bytes(20)), it) for at, it in enumerate(parts)]
    return appraise(study(held, quality_milli, sure_milli), named, held, BEACON).contributors


def classifier(parts: list[Rows], held: Rows) -> Any:
    """Held-out rows told right by five nearest neighbours of a set of contributors; a set without rows guesses."""
    blocks = [np.vstack([it for _, it in squares(held.features, part.features)]) for part in parts]

    def utility(chosen: tuple[int, ...]) -> int:
        labels = np.concatenate([parts[at].labels for at in chosen]) if chosen else np.zeros(0, np.int64)
        if len(labels) < NEIGHBOURS:
            return len(held) // CLASSES
        near = np.argpartition(np.hstack([blocks[at] for at in chosen]), NEIGHBOURS - 1, axis=1)
        votes = labels[near[:, :NEIGHBOURS]]
        best = np.array([np.bincount(row, minlength=CLASSES).argmax() for row in votes])
        return int((best == held.labels).sum())

    return utility


def compared(rows: Rows, held: Rows) -> tuple[float, float, float]:
    """(rank correlation, our seconds, pyDVL's)."""
    began_s = time.perf_counter()
    ours = row_values(rows, held, CLASSES, NEIGHBOURS, BEACON).sum(axis=0)
    took_s = time.perf_counter() - began_s
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        scaled = [it.astype(np.float64) / 256 for it in (rows.features, held.features)]
        np.savez(given, x=scaled[0], y=rows.labels, u=scaled[1], v=held.labels)
        subprocess.run([peer(), "-c", THEIRS, given, found], check=True)
        theirs = np.load(found)
    values = np.empty(len(rows))
    values[theirs["indices"]] = theirs["values"]
    return _ranks(ours, values), took_s, float(theirs["took"])


def _ranks(left: NDArray[Any], right: NDArray[Any]) -> float:
    return float(np.corrcoef(left.argsort().argsort(), right.argsort().argsort())[0, 1])


def main(sizes: list[int], svg: Path | None) -> None:
    rows = digits()
    held = rows.chosen(np.arange(9 * EACH, len(rows)))
    parts = cast(rows)
    began_s = time.perf_counter()
    found = appraised(list(parts.values()), held)
    took_s = time.perf_counter() - began_s
    sets = 512
    began_s = time.perf_counter()
    ours = banzhaf(BEACON, sets, len(parts), classifier(list(parts.values()), held))
    banzhaf_s = time.perf_counter() - began_s
    print(
        f"{sum(map(len, parts.values()))} rows, {len(held)} held out; radius {radius_of(held)} steps; KNN-Shapley {took_s:.2f} s, Banzhaf {sets} sets {banzhaf_s:.1f} s\n"
    )
    print(
        "| contributor | own rows | value (rows told right) | standard error | quality | share | half by quality | slashing proposed | Banzhaf |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    weighed = appraised(list(parts.values()), held, 500)
    for name, it, half, other in zip(parts, found, weighed, ours, strict=True):
        print(
            f"| {name} | {it.own} | {it.value / UNIT:.1f} | {it.error / UNIT:.1f} | {it.quality_milli / 1000:.0%} |"
            f" {it.share_wei / POT:.1%} | {half.share_wei / POT:.1%} |"
            f" {'yes' if it.poison else ''} | {other.value_milli / 1000:.2f} ± {other.error_milli / 1000:.2f} |"
        )  # fmt: skip
    copiers(rows, held)
    split(rows, held)
    print("\n| rows | held out | rank correlation | ours | pyDVL | ratio |\n|---|---|---|---|---|---|")
    for size in (len(rows) - len(held), *sizes):
        many = rows.chosen(np.arange(size) % (9 * EACH))
        if size > 9 * EACH:
            many = noisy(many, 0.3, 8)
        agree, mine_s, theirs_s = compared(many, held)
        print(
            f"| {size} | {len(held)} | {agree:.3f} | {mine_s:.2f} s | {theirs_s:.2f} s | {theirs_s / mine_s:.1f} |"
        )
    drawn = [
        Bar(name, it.value / UNIT, (it.value - it.error) / UNIT, (it.value + it.error) / UNIT)
        for name, it in zip(parts, found, strict=True)
    ]
    draw(svg, drawn, "held-out rows told right; line: one standard error")


def copiers(rows: Rows, held: Rows) -> None:
    parts = [rows.chosen(np.arange(at * EACH, (at + 1) * EACH)) for at in range(3)]
    print("\n| copy of A with noise | rows kept | copier's share | A's share |\n|---|---|---|---|")
    for deviation in (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0, 2.0):
        found = appraised([*parts, noisy(parts[0], deviation, 9)], held)
        print(
            f"| {deviation} | {found[3].own} | {found[3].share_wei / POT:.1%} | {found[0].share_wei / POT:.1%} |"
        )


def split(rows: Rows, held: Rows) -> None:
    parts = [rows.chosen(np.arange(at * EACH, (at + 1) * EACH)) for at in range(3)]
    pieces = [parts[0].chosen(np.arange(at, EACH, 10)) for at in range(10)]
    one, ten = appraised(parts, held), appraised([*pieces, *parts[1:]], held)
    print("\n| labels turned | by quality | as one name | as ten |\n|---|---|---|---|")
    for share in (0.0, 0.3, 0.5):
        bad = turned(parts[0], share, 4)
        dealt = [bad.chosen(np.arange(at, EACH, 10)) for at in range(10)]
        for weight in (0, 500):
            single = appraised([bad, *parts[1:]], held, weight)[0].share_wei
            many_wei = sum(it.share_wei for it in appraised([*dealt, *parts[1:]], held, weight)[:10])
            print(f"| {share:.0%} | {weight / 1000:.0%} | {single / POT:.2%} | {many_wei / POT:.2%} |")
    print("\n| labels turned | sure | as one name | as three | as eight |\n|---|---|---|---|---|")
    for share in (0.0, 0.3, 0.5, 0.6):
        for sure in (0, 3_000):
            mean: list[float] = []
            for names in (1, 3, 8):
                got: list[float] = []
                for seed in range(4, 9):
                    bad = turned(parts[0], share, seed)
                    dealt = [bad.chosen(np.arange(at, EACH, names)) for at in range(names)]
                    found = appraised([*dealt, *parts[1:]], held, 0, sure)
                    got.append(sum(it.share_wei for it in found[:names]) / POT)
                mean.append(float(np.mean(got)))
            print(f"| {share:.0%} | {sure / 1000:.0f} | " + " | ".join(f"{it:.1%}" for it in mean) + " |")
    alone = banzhaf(BEACON, 512, 3, classifier(parts, held))
    many = banzhaf(BEACON, 512, 12, classifier([*pieces, *parts[1:]], held))
    print("\n| way | as one name | as ten | ratio |\n|---|---|---|---|")
    together = sum(it.share_wei for it in ten[:10])
    print(
        f"| KNN-Shapley | {one[0].share_wei / POT:.2%} | {together / POT:.2%} | {together / one[0].share_wei:.4f} |"
    )
    before = alone[0].value_milli / sum(it.value_milli for it in alone)
    after = sum(it.value_milli for it in many[:10]) / sum(it.value_milli for it in many)
    print(f"| Banzhaf, normalised | {before:.2%} | {after:.2%} | {after / before:.4f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000])
    arguments = parser.parse_args()
    main(arguments.rows, arguments.svg)
