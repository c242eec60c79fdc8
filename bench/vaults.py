"""What a vault costs: putting data in, reading it, keying it anew, spending, opening a call.

    python bench/vaults.py [--rows 200000]

Prints a table. One process, one core; the journal is synced to disk at every spend, so spends a second are the disk's.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import Operation, Revoked
from clusterai.sdk.identity import Identity
from clusterai.vault.adapters.founding import found_vault
from clusterai.vault.adapters.hosting import open_vault
from clusterai.vault.adapters.importing import Found
from clusterai.vault.core.policy import MICRO, Policy
from clusterai.vault.core.schema import Column, Schema
from clusterai.vault.core.terms import AskedFor

OWNER, HOT = Address(b"O" * 20), Key(b"h" * 32)
NETWORK = network_domain(31415, Address(b"R" * 20))
SCHEMA = Schema(
    columns=(
        Column(name="patient", kind="int", low=0, high=1_000_000),
        Column(name="age", kind="int", low=0, high=120),
        Column(name="dose", kind="float", low=0, high=50),
        Column(name="ward", kind="category", categories=("a", "b", "c")),
        Column(name="note", kind="text"),
    ),
    unit="patient",
)


def rows(count: int) -> Any:
    drawn = Random(7)
    for at in range(count):
        yield {
            "patient": at,
            "age": drawn.randrange(100),
            "dose": drawn.random() * 50,
            "ward": "abc"[at % 3],
            "note": "forty characters of a note, more or less",
        }


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    value = act()
    return time.perf_counter() - begin, value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    count = parser.parse_args().rows
    folder = Path(tempfile.mkdtemp(prefix="vaults-"))
    policy = Policy(
        total_epsilon_micro=10**5 * MICRO,
        requester_epsilon_micro=10**5 * MICRO,
        grant_epsilon_micro=10**5 * MICRO,
    )
    data = Found(SCHEMA.names, lambda: rows(count))
    took, place = timed(lambda: found_vault(folder / "v", "bench", folder / "key", SCHEMA, data, policy))
    vault = open_vault(place.root, OWNER, HOT, NETWORK)
    size = sum(size for _, size in vault.stored_pieces())
    print(f"{count} rows, {size / 1e6:.1f} MB encrypted, {len(vault.stored_pieces())} pieces")
    print(f"put in           {count / took:12,.0f} rows/s")
    took, _ = timed(lambda: vault.columns(["age", "dose"]))
    print(f"two columns      {count / took:12,.0f} rows/s  {size / took / 1e6:.0f} MB/s of pieces")
    who = Identity.make()
    signed = who.request(
        vault.dataset,
        NETWORK,
        Operation.QUERY,
        "bench",
        10**5 * MICRO,
        10**6,
        10**9,
        int(time.time()) + 86_400,
    )
    entry = vault.approve(vault.ask(AskedFor(signed, "bench", b"")).request)
    grant = entry.grant
    assert grant is not None
    begin = time.perf_counter()
    for order in range(500):
        _use(vault, grant, order)
    took = time.perf_counter() - begin
    print(f"spend and close  {500 / took:12,.0f} uses/s, one after another")

    def some(first: int) -> None:
        for it in range(10):
            _use(vault, grant, 1_000 + first * 10 + it)

    threads = [threading.Thread(target=some, args=(at,)) for at in range(50)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"                 {500 / (time.perf_counter() - begin):12,.0f} uses/s, from 50 threads")
    bodies = [
        who.sealed(vault.dataset, vault.seal_to, NETWORK, b"x" * 1_000, time.time()).body for _ in range(300)
    ]
    took, _ = timed(lambda: [vault.opened(ZERO_ADDRESS, body) for body in bodies])
    print(f"open a call      {300 / took:12,.0f} calls/s of 1 kB")
    vault.revoke(grant, Revoked.TERMS)
    took, _ = timed(vault.tick)
    print(f"key anew         {size / took / 1e6:12,.0f} MB/s")
    vault.close()
    begin = time.perf_counter()
    vault = open_vault(place.root, OWNER, HOT, NETWORK)
    took = time.perf_counter() - begin
    print(f"open             {took * 1e3:12,.0f} ms with {len(vault.uses())} uses in the journal")
    vault.close()
    shutil.rmtree(folder)


def _use(vault: Any, grant: Digest, order: int) -> None:
    named = Digest(order.to_bytes(32))
    vault.spend(grant, named, 100)
    vault.used(named, named)


if __name__ == "__main__":
    main()
