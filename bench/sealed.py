"""What it costs to compute without seeing: `python bench/sealed.py [--repeat 20] [--values 100000 1000000] [--parties 10 100] [--keys] [--svg FOLDER]`.

1. Sealed inference with the two models that come along: time of each side, bytes each way, error against the model in the clear.
2. With --keys: what rotations and relinearisation would add, which sealed inference does without: sizes of the keys.
3. Sums of vectors over parties: in the clear, by masks (`vault.core.secagg`, the machines of a round without a wire) and by CKKS, where parties
   share a key and the server adds. One core does everybody's part in turn; times are per party and for the server.
"""

import argparse
import asyncio
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.sidebyside import side_by_side
from clusterai.models.store import ModelStore, StoredModel
from clusterai.vault.core.secagg import graph
from clusterai.vault.core.secagg.collector import Summed
from clusterai.work.loading import load_engine
from clusterai.work.sealed.adapters.ckks import Scheme
from clusterai.work.sealed.adapters.requester import questions
from clusterai.work.sealed.core.model import plain_outputs, read_shape, read_weights
from clusterai.work.sealed.core.security import RINGS
from tests.rooms.secagg.played import Table

T = TypeVar("T")
VALUE_BITS = 16
"""Of a party's values, as in secure aggregation's default."""


def timed(work: Callable[[], T]) -> tuple[T, float]:
    began_s = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began_s


class Once:
    """One request through all hands."""

    def __init__(self, model: StoredModel, engine: Any, rows: NDArray[np.float64]) -> None:
        shape = read_shape(model.paths["shape.json"].read_bytes())
        matrix = read_weights(model.paths["weights.json"].read_bytes(), shape)
        asked, encrypt_s = timed(lambda: questions(bytes(model.address), shape, rows)[0])
        answer, evaluate_s = timed(lambda: asyncio.run(engine.evaluate(asked.request)))
        found, decrypt_s = timed(lambda: asked.read(answer))
        plain, clear_s = timed(lambda: plain_outputs(shape, matrix, rows))
        self.times_s = (encrypt_s, evaluate_s, decrypt_s, clear_s)
        self.error = float(np.abs(found.raw - plain).max())
        self.sent, self.received = len(asked.request.canonical()), len(answer)


def inference(repeat: int) -> None:
    print(
        "| model | inputs a request | request | answer | encrypt | evaluate | decrypt | in the clear | largest error |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder))
        for name in ("sealed-breast-cancer", "sealed-digits"):
            model = store.get(name)
            shape = read_shape(model.paths["shape.json"].read_bytes())
            engine = load_engine(store, model)
            count, wide = shape.layout().inputs, len(shape.features)
            values = np.clip(rng.normal(0.5, 0.3, (repeat, count, wide)), 0, 1)
            done = [Once(model, engine, np.array(shape.centre) + np.array(shape.spread) * x) for x in values]
            times = [
                f"{1e3 * statistics.median(it):.2f} ms"
                for it in zip(*(it.times_s for it in done), strict=True)
            ]
            sent, received = f"{done[0].sent / 1e3:.1f} kB", f"{done[0].received / 1e3:.1f} kB"
            row(name, count, sent, received, *times, f"{max(it.error for it in done):.1e}")


def keys() -> None:
    """By TenSEAL's own context: what a requester would have to give each provider and auditor once."""
    tenseal: Any = importlib.import_module("tenseal")
    print("\n| degree | primes | relinearisation key | Galois keys | made in |")
    print("|---|---|---|---|---|")
    for degree, bits in ((4_096, [40, 29, 40]), (8_192, [40, 30, 30, 30, 40]), (16_384, [60, *[40] * 6, 60])):
        context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=bits)

        def size(context: Any = context, **which: bool) -> int:
            none = {
                f"save_{it}_key{'s' * (it != 'secret' and it != 'public')}": False
                for it in ("secret", "public", "galois", "relin")
            }
            return len(context.serialize(**none | which))

        relin = size(save_relin_keys=True)
        _, spent_s = timed(context.generate_galois_keys)
        galois = size(save_galois_keys=True)
        print(f"| {degree} | {bits} | {relin / 1e6:.1f} MB | {galois / 1e6:.0f} MB | {spent_s:.2f} s |")


TIMES: dict[str, list[float | None]] = {}
BYTES: dict[str, list[float | None]] = {}
"""For the plots: everybody's time together, in the clear, by masks, by CKKS; and what a party sends."""


def told(length: int, count: int, seconds: float, megabytes: float) -> None:
    name = f"{count} x {length:,}"
    TIMES.setdefault(name, []).append(seconds)
    BYTES.setdefault(name, []).append(megabytes)


def drawn_to(folder: Path) -> None:
    ways = ("in the clear", "masks", "CKKS, one key")
    title = "A sum of all: seconds of one core, everybody's part, parties x values"
    (folder / "sealed-sums.svg").write_text(side_by_side(title, TIMES, ways, unit=" s", log=True))
    title = "The same: megabytes that a party sends"
    (folder / "sealed-bytes.svg").write_text(side_by_side(title, BYTES, ways, unit=" MB", log=True))


def sums(values: list[int], parties: list[int], most: int) -> None:
    print("\n| values | parties | way | a party | server | bytes a party | exact |")
    print("|---|---|---|---|---|---|---|")
    for length in values:
        for count in parties:
            if length * count > most:
                print(f"| {length} | {count} | | left out: --most is {most} | | | |")
                continue
            clear(length, count)
            masked(length, count)
            encrypted(length, count)


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def drawn(length: int, party: int) -> NDArray[np.int64]:
    top = 2 ** (VALUE_BITS - 1) - 1
    return np.random.default_rng(party).integers(-top, top, length, endpoint=True)


def clear(length: int, count: int) -> None:
    parts = [drawn(length, it) for it in range(count)]
    _, spent_s = timed(lambda: np.sum(parts, axis=0))
    told(length, count, spent_s, 2 * length / 1e6)
    row(length, count, "in the clear", "-", f"{spent_s:.3f} s", f"{2 * length / 1e6:.2f} MB", "yes")


def masked(length: int, count: int) -> None:
    """All of a round: keys, shares, masks, the roll, and the sum."""
    degree, threshold = (0, graph.quorum(count)) if count <= 10 else graph.sparse(count, max(1, count // 10))
    bits = VALUE_BITS + count.bit_length()
    table = Table(count, length, degree=degree, threshold=threshold, bits=bits)
    members = [0.0]
    ask = table.asked

    def asked(send: Any) -> Any:
        found, spent_s = timed(lambda: ask(send))
        members[0] += spent_s
        return found

    table.asked = asked  # pyright: ignore[reportAttributeAccessIssue]
    outcome, spent_s = timed(table.play)
    assert isinstance(outcome, Summed), outcome
    right = bool(np.array_equal(outcome.values, table.expected(())))
    told(length, count, spent_s, bits * length / 8 / 1e6)
    sent = f"{bits * length / 8 / 1e6:.2f} MB"
    row(length, count, f"masks, {degree or count - 1} neighbours", f"{members[0] / count:.2f} s",
        f"{spent_s - members[0]:.2f} s", sent, "yes" if right else "NO")  # fmt: skip


def encrypted(length: int, count: int) -> None:
    ring = RINGS[8_192]
    scheme = Scheme(ring)
    shared = scheme.keys()
    parts = [drawn(length, it) for it in range(count)]
    chunks = -(-length // ring.degree)
    party_s = server_s = 0.0
    worst = 0.0
    scale = 2**20
    for at in range(chunks):
        pieces = [np.zeros(ring.degree, np.int64) for _ in range(count)]
        for piece, part in zip(pieces, parts, strict=True):
            cut = part[at * ring.degree : (at + 1) * ring.degree]
            piece[: len(cut)] = cut * scale
        sent, spent_s = timed(lambda pieces=pieces: [shared.encrypt(it) for it in pieces])
        party_s += spent_s
        total, spent_s = timed(lambda sent=sent: scheme.summed([scheme.loaded(it) for it in sent]))
        server_s += spent_s
        off = shared.decrypt(total) / scale - sum(pieces) / scale
        worst = max(worst, float(np.abs(off).max()))
    told(length, count, party_s + server_s, chunks * ring.ciphertext_bytes / 1e6)
    row(length, count, "CKKS, one shared key", f"{party_s / count:.2f} s", f"{server_s:.2f} s",
        f"{chunks * ring.ciphertext_bytes / 1e6:.2f} MB", f"to {worst:.0e}, whole after rounding")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--values", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--parties", type=int, nargs="*", default=[10, 100])
    parser.add_argument(
        "--most", type=int, default=10_000_000, help="values times parties: they are all held in memory"
    )
    parser.add_argument("--keys", action="store_true")
    parser.add_argument("--svg", type=Path, help="where plots of the sums are put")
    arguments = parser.parse_args()
    inference(arguments.repeat)
    if arguments.keys:
        keys()
    sums(arguments.values, arguments.parties, arguments.most)
    if arguments.svg is not None:
        drawn_to(arguments.svg)
