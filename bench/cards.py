"""What a machine's card costs: the prover's work and the verifier's, test by test, on this machine's cores; and whom it catches.

    python -m bench.cards [--quick]
    python -m bench.cards --villains 200

Villains are played: machines with a clock of their own, against the examination as it is shipped, but for the chain's link (one BLAKE3 instead
of scrypt, which changes no rule) and the sizes. Of each so many are examined, each by another word. Printed are the share that was caught, and what the rule promises.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
from blake3 import blake3

from clusterai.audit.core import stretches
from clusterai.audit.core.stretches import Sentinel
from clusterai.node.adapters import hardware
from clusterai.node.adapters.exerciser import ONE_THREAD, Exerciser, Order
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.measuring import (
    Echo,
    Echoed,
    Fill,
    Gpu,
    Introduce,
    Multiply,
    Part,
    Result,
    ShowPages,
    Take,
)
from clusterai.protocol.offers import Field
from clusterai.validator.core.examination import Ask, Judge, Outcome, Plan, Reply, examine
from clusterai.work.cluster.inside import sentinel
from tests.rooms.measuring.machine_played import QUICK as QUICK_SENTINEL
from tests.rooms.measuring.machine_played import Played, claims, examined

QUICK = Plan(alone_ms=200, together_ms=200, links=8, fill_core_bytes=16 * 1024**2, stored_bytes=1024**2)


def word(data: bytes) -> Digest:
    return Digest(blake3(b"bench" + data).digest())


def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Seconds by test of the prover, and in all of the verifier."""
    exerciser = Exerciser(folder, hardware.cores())
    # An owner who exaggerates: what is found doesn't follow the claim.
    said = msgspec.structs.replace(hardware.claims(folder, None, 0), memory_kbytes_per_s=10**9)
    prover: dict[str, float] = {}
    verifier_s = 0.0
    sent = 0
    script = examine(plan, word, Sentinel(sentinel.first, sentinel.link))
    value: Any = None
    number = 0
    try:
        while True:
            try:
                wanted = script.send(value)
            except StopIteration as end:
                outcome = end.value
                break
            began_s = time.perf_counter()
            if isinstance(wanted, Judge):
                value = wanted.work()
                verifier_s += time.perf_counter() - began_s
                continue
            number += 1
            seed = word(number.to_bytes(4))
            results = list(answers(exerciser, said, seed, wanted))
            took_s = time.perf_counter() - began_s
            name = type(wanted.test).__name__
            prover[name] = prover.get(name, 0.0) + took_s
            data = b"".join(it.data for it in results if isinstance(it, Part))
            sent += len(data)
            value = Reply(results[0] if results else None, data, max(took_s, 1e-6), seed)
    finally:
        exerciser.close()
    assert isinstance(outcome, Outcome), outcome
    prover_s = sum(prover.values())
    return {
        "cores": said.cores,
        "prover_s": {name: round(took, 3) for name, took in prover.items()},
        "prover_total_s": round(prover_s, 2),
        "verifier_s": round(verifier_s, 3),
        "prover_core_s_per_verifier_s": round(prover_s * said.cores / verifier_s, 1),
        "opened_bytes": sent,
        "found": {it.name: it.found for it in outcome.found},
        "claimed": {it.name: it.claimed for it in outcome.found if it.claimed is not None},
        "memory_summed_plainly_kbytes_per_s": plainly(
            said.cores, plan.fill_core_bytes * said.cores, plan.sweeps
        ),
    }


def plainly(cores: int, size: int, rounds: int) -> int:
    """Thousand bytes a second that numpy sums on as many threads, with nothing to prove: what a sweep is beside."""
    held = [np.ones(size // cores // 8, np.uint64) for _ in range(cores)]
    with ThreadPoolExecutor(cores) as threads:
        began_s = time.perf_counter()
        for _ in range(rounds):
            list(threads.map(np.sum, held))
        return round(rounds * size / (time.perf_counter() - began_s) / 1000)


class MakesUp(Played):
    """Makes up a share of its chain's stretches, to be told as so much faster."""

    def __init__(self, share: float, trial: int) -> None:
        super().__init__(claims())
        self._share, self._lots = share, Random(trial)
        self.links_per_s = round(self.links_per_s / (1 - share))

    def chain(self, seed: Digest, core: int, count: int) -> tuple[bytes, ...]:
        value, made = QUICK_SENTINEL.first(seed, core), list[bytes]()
        for _ in range(count):
            if self._lots.random() < self._share:
                value = blake3(value).digest()
            else:
                for _ in range(stretches.STRETCH):
                    value = QUICK_SENTINEL.link(value, seed)
            made.append(value)
        return tuple(made)


class Holds(Played):
    """Holds a share of the memory that it claims; the other pages are gone when they are asked for."""

    def __init__(self, share: float, trial: int) -> None:
        super().__init__(claims())
        self._share, self._lots = share, Random(trial)

    def fill(self, seed: Digest, test: Fill) -> tuple[Any, float]:
        self._held = [self._lots.random() < self._share for _ in range(test.pages)]
        return super().fill(seed, test)

    def showpages(self, seed: Digest, test: ShowPages) -> tuple[Any, float]:
        shown = self.filled[test.chain].show(test.pages)
        drawn = tuple(
            tuple(
                it if self._held[it.page] else msgspec.structs.replace(it, data=bytes(len(it.data)))
                for it in trio
            )
            for trio in shown.drawn
        )
        return canonical.encode(msgspec.structs.replace(shown, drawn=drawn)), 0.1


class Poses(Played):
    """Has no card; its cores answer for one, `share` of them at once."""

    def __init__(self, share: float, trial: int) -> None:
        del trial
        super().__init__(claims(gpus=(Gpu("h100", "GPU-1", 80 * 2**30),)))
        self._share = share

    def multiply(self, seed: Digest, test: Multiply) -> tuple[Any, float]:
        result, took_s = self.multiplied(seed, test)
        return result, took_s / self.said.cores / self._share if test.gpu else took_s


VILLAINS: list[tuple[str, Callable[[float, int], Played], tuple[float, ...], Callable[[Outcome], bool], Callable[[float], float]]] = [
    ("makes up a share of its chain", MakesUp, (0.02, 0.05, 0.1, 0.25, 0.5), lambda it: it.links_per_s_milli == 0, lambda share: 1 - (1 - share) ** 6),
    ("holds a share of its memory", Holds, (0.99, 0.95, 0.9, 0.75, 0.5), lambda it: bool(it.fields & Field.MEMORY), lambda share: 1 - share**12),
    ("poses as a card with its cores", Poses, (0.5, 1.0), lambda it: not it.fields & Field.GPU or not it.gpus, lambda _: 1.0),
]  # fmt: skip


def villains(trials: int) -> list[dict[str, Any]]:
    """Each at each of its shares: how many of so many were caught, and how many the rule promises at least."""
    found: list[dict[str, Any]] = []
    for name, made, shares, caught, promised in VILLAINS:
        for share in shares:
            came = [
                examined(made(share, trial), word=lambda data, trial=trial: word(data + trial.to_bytes(4)))
                for trial in range(trials)
            ]
            count = sum(isinstance(it, Outcome) and caught(it) for it in came)
            found.append(
                {
                    "villain": name,
                    "share": share,
                    "caught": count / trials,
                    "promised": round(promised(share), 3),
                }
            )
    return found


def answers(exerciser: Exerciser, said: Any, seed: Digest, wanted: Ask) -> list[Result]:
    match wanted.test:
        case Introduce():
            return [said]
        case Echo():
            return [Echoed()]
        case Take(_, last):
            return [Echoed()] if last else []
        case test:
            return list(exerciser.do(Order(seed, test)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tests, to see that it runs")
    parser.add_argument("--villains", type=int, metavar="N", help="examine N of each villain instead")
    chosen = parser.parse_args()
    if chosen.villains:
        print(json.dumps(villains(chosen.villains), indent=2))
        return
    quick = chosen.quick
    assert ONE_THREAD.items() <= os.environ.items(), (
        f"set {' '.join(f'{k}={v}' for k, v in ONE_THREAD.items())} before"
    )
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(QUICK if quick else Plan(), Path(folder)), indent=2))


if __name__ == "__main__":
    main()
