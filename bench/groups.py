"""Federated training over random groups, with vaults that cheat: `python -m bench.groups [--seeds 6] [--rounds 20] [--deals iid,1.0,0.3] [--poison]`.

Multinomial logistic regression on scikit-learn's digits over twelve vaults in four groups, with the vaults' and the requester's own arithmetic
(`work/training/core`): clipping, whole numbers, sums of groups, what is combined and who is named; without processes and masks, which change no bit
of a sum. Whoever is named is done without from the next round on, as long as a third at most is missing. Accuracy on 400 rows that no vault has.

`--poison` in its place: 10 and 30 % of twenty vaults poison a model of 1,970 parameters (MNIST as in `bench/federated.py`, a thousand images a vault), in one
sum and in six groups, without ε and with ε = 4, all of the noise at each vault. Accuracy on 10,000 images that no vault has.

Rows are dealt at random, or by labels: a Dirichlet distribution of concentration 1 (uneven) or 0.3 (most vaults lack most digits).
"""

import argparse
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from bench.federated import Rows, accuracy, gradient_steps, mnist
from bench.shipped import MNIST, folder_of
from clusterai.audit.core.contribution import Seen
from clusterai.protocol.ids import Address
from clusterai.vault.core.secagg import graph
from clusterai.work.training.adapters.noise import drawn
from clusterai.work.training.core import grouping, measure, privacy, vector, worth
from clusterai.work.training.core.evidence import Evidence, Group
from clusterai.work.training.inside.records import Records
from clusterai.work.training.spec import Run

Real = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

HELD, NORM, STEPS = 400, 2.0, 5
CHEATS = (
    "skips",
    "repeats",
    "stale",
    "echo",
    "onward",
    "noise",
    "opposite",
    "collapse",
    "boost",
    "weight",
    "labels",
)
"""What each sends: nothing; its first update; its first model; the model's own last movement, half as long again; the model's whole way so far, as long
as the bound; noise as long as the bound; its update turned round at the bound; the way back to
an empty model at the bound; twenty times its update turned round; a weight of a thousand; what it learns from wrong labels."""


class Played(msgspec.Struct, frozen=True):
    """`named`: vault → the round after which it was done without, and the reason.

    Attributes:
        seen: of each round, what its groups were worth by the loss on rows that no vault has; `lengths` of their means.
    """

    cheats: tuple[int, ...]
    named: dict[int, tuple[int, str]]
    accuracy: float
    seen: tuple[Seen, ...] = ()
    lengths: tuple[tuple[float, ...], ...] = ()


def rows() -> tuple[Real, Labels]:
    load: Any = load_digits
    found = load()
    pixels = np.asarray(found.data) / 16
    return np.hstack([pixels, np.ones((len(pixels), 1))]), np.asarray(found.target)


def dealt(labels: Labels, vaults: int, deal: str, draw: np.random.Generator) -> list[Labels]:
    kept = draw.permutation(len(labels))[HELD:]
    if deal == "iid":
        return [np.asarray(part) for part in np.array_split(kept, vaults)]
    found: list[list[int]] = [[] for _ in range(vaults)]
    for label in range(10):
        these = kept[labels[kept] == label]
        cuts = (np.cumsum(draw.dirichlet([float(deal)] * vaults)) * len(these)).astype(int)[:-1]
        for own, part in zip(found, np.split(these, cuts), strict=True):
            own.extend(part.tolist())
    return [np.array(own if len(own) > 3 else kept[:5].tolist()) for own in found]


def learnt(model: Real, x: Real, y: Labels) -> Real:
    wanted = np.eye(10)[y]
    for _ in range(STEPS):
        scores = x @ model
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        model = model - x.T @ (powers / powers.sum(axis=1, keepdims=True) - wanted) / len(x)
    return model


def message(model: Real) -> Records:
    return {"arrays": ("arrays", {"model": model})}


def honest(model: Real, x: Real, y: Labels) -> vector.Whole:
    reply: Records = {**message(learnt(model, x, y)), "metrics": ("metrics", {"num-examples": len(y)})}
    made = vector.contribution(message(model), reply, norm=NORM, weight_key="num-examples", most_weight=1)
    return np.asarray(made.vector)


def sent(
    cheat: str, models: list[Real], x: Real, y: Labels, kept: list[Any], draw: np.random.Generator
) -> vector.Whole:
    """A cheat's vector: its own daemon says it, so nothing of it is clipped by us.

    Args:
        models: as the vaults got them, the last of them to be trained.
    """
    model = models[-1]
    given = honest(model, x, 9 - y if cheat == "labels" else y)
    size, step = model.size, NORM / vector.LEVELS
    update: Real = given[:size].astype(np.float64) * step
    if not kept:
        kept.append((update, update + model.ravel()))
    match cheat:
        case "skips":
            update = update * 0
        case "repeats":
            update = kept[0][0]
        case "stale":
            update, _ = vector.clipped(kept[0][1] - model.ravel(), NORM)
        case "echo" if len(models) > 1:
            update, _ = vector.clipped((model - models[-2]).ravel() * 1.5, NORM)
        case "onward" if len(models) > 1:
            update, _ = vector.clipped((model - models[0]).ravel() * 1e3, NORM)
        case "noise":
            update, _ = vector.clipped(draw.normal(0, 1, size) * 1e3, NORM)
        case "opposite":
            update, _ = vector.clipped(update * -1e3, NORM)
        case "collapse":
            update, _ = vector.clipped((model.ravel() + 1e-6 * update) * -1e3, NORM)
        case "boost":
            update = update * -20
        case "weight":
            given[size] = 1000
        case _:
            pass
    given[:size] = np.rint(update / step).astype(np.int64)
    return given


def played(
    cheat: str,
    seed: int,
    *,
    vaults: int = 12,
    groups: int = 4,
    rounds: int = 20,
    cheats: int = 2,
    deal: str = "iid",
    worths: bool = False,
) -> Played:
    """One run. With `groups` 1: one sum, nobody named, as without `--groups`."""
    draw = np.random.default_rng(seed)
    x, y = rows()
    mine = dealt(y, vaults, deal, draw)
    held = np.setdiff1d(np.arange(len(y)), np.concatenate(mine))
    bad = tuple(sorted(draw.choice(vaults, cheats, replace=False).tolist())) if cheat else ()
    name = {at: Address(at.to_bytes(20)) for at in range(vaults)}
    model = np.zeros((x.shape[1], 10))
    kept: dict[int, list[Any]] = {at: [] for at in bad}
    evidence = Evidence()
    named: dict[int, tuple[int, str]] = {}
    models: list[Real] = [model]
    seen: list[Seen] = []
    lengths: list[tuple[float, ...]] = []
    for number in range(1, rounds + 1):
        alive = [at for at in range(vaults) if at not in named]
        given = {
            at: sent(cheat, models, x[mine[at]], y[mine[at]], kept[at], draw)
            if at in bad
            else honest(model, x[mine[at]], y[mine[at]])
            for at in alive
        }
        count = max(1, min(groups, len(alive) // 3))
        drawn = graph.groups(tuple(name[at] for at in alive), draw.bytes(32), count)
        members = [[int.from_bytes(who) for who in group] for group in drawn]
        totals = [np.sum([given[at] for at in group], axis=0) for group in members]
        if groups == 1:
            mean = vector.mean_of(
                message(model), totals[0], step=NORM / vector.LEVELS, training=True, metrics=(), clip=NORM
            )
        else:
            found = grouping.judged(
                message(model),
                totals,
                [len(group) for group in members],
                step=NORM / vector.LEVELS,
                training=True,
                metrics=(),
                bounds=[NORM * 1.001] * len(members),
                rule="median",
            )
            mean = found.mean
            if worths:
                used = [(tuple(who), own) for who, own in zip(members, found.each, strict=True) if own]
                slopes = [slope(message(model), mean, own, x[held], y[held]) for _, own in used]
                seen.append(Seen(tuple(who for who, _ in used), tuple(slopes)))
                lengths.append(tuple(own.length for _, own in used))
            evidence.saw(
                [Group(group, b"", said) for group, said in zip(drawn, found.verdicts, strict=True)],
                found.products,
            )
            for who, why in evidence.named().items():
                at = int.from_bytes(who)
                if at not in named and vaults - len(named) > vaults - vaults // 3:
                    named[at] = (number, why)
        assert mean is not None
        assert mean.arrays is not None
        model = np.asarray(mean.arrays[1]["model"])
        models.append(model)
    right = float(((x[held] @ model).argmax(axis=1) == y[held]).mean())
    return Played(bad, named, right, tuple(seen), tuple(lengths))


def slope(given: Records, mean: vector.Mean | None, own: vector.Mean, x: Real, y: Labels) -> float:
    """How much less loss a group's sum was worth, as `train federated --worth` has the app say it."""
    told: list[dict[str, float]] = []
    for probe in worth.probes(given, mean, own):
        scores = x @ np.asarray(probe["arrays"][1]["model"])
        scores -= scores.max(axis=1, keepdims=True)
        sure = scores[np.arange(len(y)), y] - np.log(np.exp(scores).sum(axis=1))
        told.append({"loss": -float(sure.mean())})
    return -worth.worth(told)["loss"] if told else 0.0


POISONED, IMAGES, BLOCK, DELTA_PICO = 20, 1_000, 10, 10**7
"""Vaults, images of each, images of a block with ε, and δ = 10^-5."""
POISONS = ("opposite", "labels", "boost")


def run_of(epsilon: float | None, groups: int, rounds: int) -> Run:
    """As a requester would order it."""
    noise = int(1000 * privacy.multiplier_for(epsilon, rounds, DELTA_PICO / 1e12)) + 1 if epsilon else 0
    return Run(
        nonce=bytes(32),
        app=bytes(32),
        requester=bytes(20),
        config=b"",
        weight="num-examples",
        subjects=tuple(at.to_bytes(32) for at in range(POISONED)),
        members=tuple(at.to_bytes(20) for at in range(POISONED)),
        norm_micro=int(NORM * 10**6),
        noise_milli=noise,
        delta_pico=DELTA_PICO if noise else 0,
        blocks=IMAGES // BLOCK if noise else 1,
        masked=True,
        groups=groups,
    )


def given_of(run: Run, model: Real, x: Real, y: Labels, rows: Rows, seed: bytes, poison: str) -> vector.Whole:
    """What a vault puts behind the mask. Who turns its update round leaves out the noise, which would only hide its poison."""
    labels = 9 - y if poison == "labels" else y
    replies = [
        message(gradient_steps(model, part, own, 10, rows.steps, rows.rate))
        for part, own in zip(np.split(x, run.blocks), np.split(labels, run.blocks), strict=True)
    ]
    size, step = model.size, measure.step_of(run)
    if run.noise_milli:
        noise = drawn(seed, size) * (poison not in ("opposite", "boost"))
        made = vector.blocked(message(model), replies, norm=NORM, step=step, noise=noise)
    else:
        reply: Records = {**replies[0], "metrics": ("metrics", {"num-examples": 1})}
        made = vector.contribution(message(model), reply, norm=NORM, weight_key="num-examples", most_weight=1)
    given = np.asarray(made.vector).copy()
    if poison in ("opposite", "boost"):
        update = given[:size].astype(np.float64)
        times = 20 if poison == "boost" else 1
        given[:size] = np.rint(update * (-times * run.blocks * NORM / step / np.linalg.norm(update)))
    return given


def poisoned(
    rows: Rows, poison: str, bad: int, groups: int, epsilon: float | None, *, seed: int, rounds: int
) -> Played:
    """One run over `POISONED` vaults, of which the first `bad` poison."""
    draw = np.random.default_rng(seed)
    run = run_of(epsilon, groups, rounds)
    mine = np.split(rows.held + draw.permutation(len(rows.y) - rows.held)[: POISONED * IMAGES], POISONED)
    place = {Address(who): at for at, who in enumerate(run.members)}
    model, evidence, named = np.zeros((rows.x.shape[1], 10)), Evidence(), dict[int, tuple[int, str]]()
    for number in range(1, rounds + 1):
        alive = tuple(who for who, at in place.items() if at not in named)
        seeds = {who: draw.bytes(32) for who in alive}
        given = {
            who: given_of(
                run,
                model,
                rows.x[mine[place[who]]],
                rows.y[mine[place[who]]],
                rows,
                seeds[who],
                poison if place[who] < bad else "",
            )
            for who in alive
        }
        cohorts = graph.groups(alive, draw.bytes(32), max(1, min(groups, len(alive) // 3)))
        totals = [np.sum([given[who] for who in cohort], axis=0) for cohort in cohorts]
        found = measure.found(
            run, "median", message(model), totals, [len(it) for it in cohorts], (), training=True
        )
        assert found.mean is not None
        assert found.mean.arrays is not None
        model = np.asarray(found.mean.arrays[1]["model"])
        if groups == 1:
            continue
        evidence.saw(
            [Group(cohort, b"", said) for cohort, said in zip(cohorts, found.verdicts, strict=True)],
            found.products,
        )
        for who, why in evidence.named().items():
            if place[who] not in named and len(named) < POISONED // 3:
                named[place[who]] = (number, why)
    held = slice(0, rows.held)
    return Played(tuple(range(bad)), named, accuracy(model, rows.x[held], rows.y[held]))


def poison_table(seeds: int, rounds: int) -> None:
    rows = mnist(folder_of(MNIST))
    print("| ε | poison | poisoners | one sum | six groups | named | honest named |")
    print("|---|---|---|---|---|---|---|")
    for epsilon in (None, 4.0):
        for poison, bad in (("nobody", 0), *((it, bad) for it in POISONS for bad in (2, 6))):
            alone, runs = (
                [
                    poisoned(rows, poison, bad, groups, epsilon, seed=seed, rounds=rounds)
                    for seed in range(seeds)
                ]
                for groups in (1, 6)
            )
            caught = sum(at < bad for run in runs for at in run.named)
            wrong = sum(at >= bad for run in runs for at in run.named)
            print(
                f"| {epsilon or '∞'} | {poison} | {bad / POISONED:.0%} | {np.mean([it.accuracy for it in alone]):.3f} "
                f"| {np.mean([it.accuracy for it in runs]):.3f} | {caught} of {bad * seeds} | {wrong} of {(POISONED - bad) * seeds} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--deals", default="iid,1.0,0.3")
    parser.add_argument("--poison", action="store_true")
    asked = parser.parse_args()
    if asked.poison:
        poison_table(asked.seeds, asked.rounds)
        return
    print("| rows | two of twelve | one sum | groups | named | after rounds | honest named |")
    print("|---|---|---|---|---|---|---|")
    for deal in asked.deals.split(","):
        for cheat in ("", *CHEATS):
            alone = [
                played(cheat, seed, groups=1, rounds=asked.rounds, deal=deal) for seed in range(asked.seeds)
            ]
            runs = [played(cheat, seed, rounds=asked.rounds, deal=deal) for seed in range(asked.seeds)]
            caught = [run.named[at][0] for run in runs for at in run.cheats if at in run.named]
            cheats = sum(len(run.cheats) for run in runs)
            wrong = sum(at not in run.cheats for run in runs for at in run.named)
            when = f"{np.mean(caught):.0f}" if caught else ""
            print(
                f"| {deal} | {cheat or 'nobody'} | {np.mean([run.accuracy for run in alone]):.3f} | {np.mean([run.accuracy for run in runs]):.3f} "
                f"| {len(caught)} of {cheats} | {when} | {wrong} of {12 * len(runs) - cheats} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
