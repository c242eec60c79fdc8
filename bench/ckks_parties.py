"""Sums under threshold CKKS, everybody's part in turn in one process: `PYTHON-WITH-OPENFHE bench/ckks_parties.py PARTIESxVALUES[xLARGEST] …`.

Started by `bench/secagg.py --parts ckks`. Needs `openfhe` and `numpy` and nothing of ours but the file that each party runs (`ckks_party.py`), so that it runs in the Python that has them. Every
message is encoded and decoded as between machines. Values go through in lots of blocks, so that a hundred parties' ciphertexts needn't lie in memory at once.
"""
# pyright: basic, reportMissingImports=false

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src" / "clusterai" / "vault" / "adapters"))
import ckks_party

LOT = 16
"""Blocks of 2^13 values at a time."""


def run(count: int, length: int, largest: float) -> None:
    parties = [ckks_party.Party() for _ in range(count)]
    took: dict[str, float] = dict.fromkeys(("key", "encrypt", "add", "open", "fuse", "clear"), 0.0)

    def do(what: str, party: ckks_party.Party, parts: list[bytes], **asked: object) -> list[bytes]:
        began = time.perf_counter()
        back = party.do({"do": what, **asked}, parts)[1]
        took[what] += time.perf_counter() - began
        return back

    public = do("key", parties[0], [])
    for party in parties[1:]:
        public = do("key", party, public)
    drawn = np.random.default_rng(0)
    sent = opened = 0
    worst, missing = 0.0, "nothing decrypts"
    for start in range(0, length, LOT * parties[0].slots):
        size = min(LOT * parties[0].slots, length - start)
        true, total = np.zeros(size), []
        for party in parties:
            values = drawn.uniform(-largest, largest, size)
            began = time.perf_counter()
            true += values
            took["clear"] += time.perf_counter() - began
            given = do("encrypt", party, [*public, values.astype("<f8").tobytes()])
            sent += sum(map(len, given))
            total = do("add", party, [*total, *given], blocks=len(given)) if total else given
        shares = [do("open", party, total, lead=at == 0) for at, party in enumerate(parties)]
        opened += sum(map(len, shares[-1]))
        flat = [block for share in shares for block in share]
        got = np.frombuffer(do("fuse", parties[0], flat, blocks=len(total), length=size)[0], "<f8")
        worst = max(worst, float(np.abs(got - true).max()))
        if start == 0:
            try:
                do("fuse", parties[0], flat[: -len(total)], blocks=len(total), length=size)
                missing = "DECRYPTS"
            except RuntimeError:
                pass
    key, server = took["key"] / count, took["add"] + took["fuse"]
    print(
        f"| {count} x {length:,} | {largest:g} | {took['clear']:.2f} s | {key:.3f}, {took['encrypt'] / count:.2f}, {took['open'] / count:.2f} s "
        f"| {server:.1f} s | {sum(took.values()):.0f} s | {sent / count / 1e6:.1f} + {opened / 1e6:.1f} MB | {worst:.0e} | {missing} |",
        flush=True,
    )


if __name__ == "__main__":
    print(
        "| parties x values | largest | in the clear | a party: key, encrypt, open | add and put together | all | a party sends | largest error | one share missing |"
    )
    for asked in sys.argv[1:]:
        count, length, *largest = asked.split("x")
        run(int(count), int(length), float(largest[0]) if largest else 1.0)
