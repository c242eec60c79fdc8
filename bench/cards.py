"""What a machine's card costs: the prover's work and the verifier's, test by test, on this machine's cores.

python -m bench.cards [--quick]
"""

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from blake3 import blake3

from clusterai.audit.core.stretches import Sentinel
from clusterai.node.adapters import hardware
from clusterai.node.adapters.exerciser import ONE_THREAD, Exerciser, Order
from clusterai.protocol.ids import Digest
from clusterai.protocol.measuring import Echo, Echoed, Introduce, Part, Result, Take
from clusterai.validator.core.examination import Ask, Judge, Outcome, Plan, Reply, examine
from clusterai.work.cluster.inside import sentinel

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
    quick = parser.parse_args().quick
    assert ONE_THREAD.items() <= os.environ.items(), (
        f"set {' '.join(f'{k}={v}' for k, v in ONE_THREAD.items())} before"
    )
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(QUICK if quick else Plan(), Path(folder)), indent=2))


if __name__ == "__main__":
    main()
