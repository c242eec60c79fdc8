"""The embedded chain beside anvil, in one run: `python bench/chain.py [--transactions 2000]`.

1. Transactions per second: token transfers, signed beforehand, (a) one by one, (b) from 32 connections, (c) in JSON
   arrays of 50; then (d) through the outbox, which estimates, signs, writes down, sends and waits for each.
2. Events per second that a follower reads from the past into a list.
3. Seconds from start to listening of an embedded chain that holds so many transactions.

An acknowledged transaction is on disk on the embedded chain, and in memory on anvil. "CPU" is the processor time that
the chain's process took for each transaction, which a busy machine doesn't change much.
"""

# ruff: noqa: E402 - the tests' own chains are started here too, from the repository's root
import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.follower import Cursor, LogFollower
from clusterai.ledger.adapters.jsonrpc import JsonRpc, Request
from clusterai.ledger.adapters.outbox import NO_FEES, Outbox, transact
from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.ledger.core.events import Event, Transferred
from clusterai.ledger.core.transaction import sign_transaction
from clusterai.protocol.ids import Address, hex0x
from clusterai.protocol.signing import Key
from tests.rooms.ledger.conftest import CHAIN_ID, OWNER, Process, World, start_embedded, start_world

SENDERS = 32
SOMEBODY = Address(b"\x88" * 20)


def signed(client: ChainClient, keys: Sequence[Key], nonces: dict[bytes, int], count: int) -> list[str]:
    raws: list[str] = []
    for at in range(count):
        key = keys[at % len(keys)]
        to, data = client.codec.encode(calls.Transfer(Address(os.urandom(20)), 1))
        raws.append(
            hex0x(sign_transaction(key, CHAIN_ID, nonces[key.address], to, data, 200_000, NO_FEES).raw)
        )
        nonces[key.address] += 1
    return raws


async def one_by_one(rpc: JsonRpc, raws: Sequence[str]) -> None:
    for raw in raws:
        await rpc.ask("eth_sendRawTransaction", raw)


async def from_many(rpc: JsonRpc, raws: Sequence[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for at in range(SENDERS):
            group.create_task(one_by_one(rpc, raws[at::SENDERS]))


async def in_arrays(rpc: JsonRpc, raws: Sequence[str]) -> None:
    for at in range(0, len(raws), 50):
        await rpc.batch([Request("eth_sendRawTransaction", (raw,)) for raw in raws[at : at + 50]])


async def mined(client: ChainClient, keys: Sequence[Key], nonces: dict[bytes, int]) -> None:
    """Everything is in blocks: anvil acknowledges before it mines."""
    for key in keys:
        while await nonce(client, key) < nonces[key.address]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def nonce(client: ChainClient, key: Key) -> int:
    return int(await client.rpc.ask("eth_getTransactionCount", hex0x(key.address), "latest"), 16)


async def through_outbox(client: ChainClient, key: Key, count: int, folder: Path) -> None:
    done = asyncio.Event()
    told: list[Mined | Reverted] = []

    def tell(outcome: Mined | Reverted) -> None:
        told.append(outcome)
        if len(told) == count:
            done.set()

    outbox = Outbox(client, key, folder / f"{os.urandom(4).hex()}.sqlite", tell, poll_s=0.005)
    for at in range(count):
        outbox.submit(Submit(str(at), calls.Transfer(SOMEBODY, 1 + at)))
    work = asyncio.create_task(outbox.run())
    await done.wait()
    work.cancel()
    await asyncio.wait([work])
    outbox.close()
    assert all(isinstance(one, Mined) for one in told)


def cpu_s(world: World) -> float:
    return process_cpu_s(world.process)


def process_cpu_s(process: Process) -> float:
    """Processor time of the chain's process so far."""
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def timed(work: Awaitable[None], *rest: Callable[[], Awaitable[None]]) -> float:
    start_s = time.perf_counter()
    await work
    for more in rest:
        await more()
    return time.perf_counter() - start_s


async def measure(world: World, count: int, folder: Path) -> dict[str, float]:
    rates: dict[str, float] = {}
    async with ChainClient(world.network, JsonRpc(world.network.rpc_urls, deadline_s=60)) as client:
        keys = [Key(bytes([0x51, at]) * 16) for at in range(SENDERS)]
        await transact(client, OWNER, *[calls.Transfer(key.address, 10**12) for key in keys])
        nonces = {bytes(key.address): 0 for key in keys}
        ways = {"one by one": one_by_one, "32 connections": from_many, "arrays of 50": in_arrays}
        for name, way in ways.items():
            raws = signed(client, keys, nonces, count)
            used_s = cpu_s(world)
            took_s = await timed(way(client.rpc, raws), lambda: mined(client, keys, nonces))
            rates[f"tx/s, {name}"] = count / took_s
            rates[f"CPU us, {name}"] = (cpu_s(world) - used_s) / count * 1e6
        used_s = cpu_s(world)
        rates["tx/s, outbox"] = count / await timed(through_outbox(client, keys[0], count, folder))
        rates["CPU us, outbox"] = (cpu_s(world) - used_s) / count * 1e6
        events: list[Event] = []
        follower = LogFollower(
            client, lambda new, _: events.extend(new), Cursor(world.network.start_block - 1)
        )
        start_s, own_s, used_s = time.perf_counter(), time.process_time(), cpu_s(world)
        while await follower.step():
            pass
        took_s = time.perf_counter() - start_s
        own_s, used_s = time.process_time() - own_s, cpu_s(world) - used_s
        found = sum(isinstance(event, Transferred) for event in events)
        assert found >= 4 * count
        rates["events/s, follower"] = found / took_s
        rates["CPU us, event, chain"] = used_s / found * 1e6
        rates["CPU us, event, follower"] = own_s / found * 1e6
    return rates


async def fill(url: str, world: World, count: int, seed: int) -> None:
    """Put `count` transfers to new addresses onto a chain: each makes a storage slot."""
    async with ChainClient(world.network, JsonRpc([url])) as client:
        keys = [Key(bytes([0x52, seed, at, 1]) * 8) for at in range(16)]
        await transact(client, OWNER, *[calls.Transfer(key.address, 10**12) for key in keys])
        await in_arrays(client.rpc, signed(client, keys, {bytes(key.address): 0 for key in keys}, count))


def start_up(counts: Sequence[int], folder: Path) -> dict[str, float]:
    """Process start to listening, the median of three."""
    seconds: dict[str, float] = {}
    world = start_world(is_anvil=False, data=folder)
    process, held = world.process, 0
    for at, count in enumerate(counts):
        asyncio.run(fill(process.url, world, count - held, at))
        held = count
        took_s: list[float] = []
        used_s: list[float] = []
        for _ in range(3):
            process.kill()
            start_s = time.perf_counter()
            process = start_embedded(folder)
            took_s.append(time.perf_counter() - start_s)
            used_s.append(process_cpu_s(process))
        seconds[f"start-up s, {count} transactions"] = statistics.median(took_s)
        seconds[f"CPU s, start-up, {count} transactions"] = statistics.median(used_s)
    process.end()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for peer in ("embedded", "anvil"):
            world = start_world(is_anvil=peer == "anvil", data=folder / "chain")
            try:
                for what, rate in asyncio.run(measure(world, args.transactions, folder)).items():
                    rows.setdefault(what, {})[peer] = round(rate)
            finally:
                world.process.end()
        started = start_up([0, 1_000, 10_000, 30_000], folder / "start")
    for row in rows.values():
        row["ratio"] = round(row["embedded"] / max(row["anvil"], 1), 2)
    rows |= {what: {"embedded": round(value, 2)} for what, value in started.items()}
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'':36}{'embedded':>10}{'anvil':>10}{'ratio':>8}")
    for what, row in rows.items():
        print(f"{what:36}{row['embedded']:>10}{row.get('anvil', ''):>10}{row.get('ratio', ''):>8}")


if __name__ == "__main__":
    main()
