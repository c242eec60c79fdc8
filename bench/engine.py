"""The engine alone, beside llama.cpp's server in the same run: same GGUF, same threads, as many slots as streams.

    python -m venv /tmp/llamacpp && /tmp/llamacpp/bin/pip install xllamacpp==2026.10.11549
    python bench/engine.py --peer /tmp/llamacpp/bin/python

Both draw 64 tokens from the whole vocabulary at temperature 1 for prompts of about 60 tokens, none shared, ends ignored.
Rates are given per second of the clock and per second of processor time that the server's process took: the second
hardly changes on a machine that does other things as well, so ratios are of those.
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import httpx
import msgspec

from clusterai.models import ModelStore, StoredModel
from clusterai.work.inference import Generation, Sampling
from clusterai.work.inference.adapters.load import load_engine
from clusterai.work.inference.engine import Engine, TokenEvent

STREAMS = (1, 4, 16, 32)
TOKENS = 64
PREFILL = 1024

PEER = """
import sys, time
import xllamacpp as x
path, port, threads, slots = sys.argv[1], *map(int, sys.argv[2:])
params = x.CommonParams()
params.model.path = path
params.hostnames = ["127.0.0.1"]
params.port = port
params.n_parallel = slots
params.n_ctx = 1280 * slots
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.cache_prompt = False
params.n_gpu_layers = 0
params.cache_ram_mib = 0
server = x.Server(params)
print("ready", flush=True)
sys.stdin.read()
"""


class Measured(msgspec.Struct, frozen=True):
    """Tokens a second by the clock and by the processor, and the median time to the first token."""

    wall_rate: float
    cpu_rate: float
    first_s: float


Once = Callable[[list[int], int], Awaitable[tuple[int, float]]]
"""(prompt, tokens wanted) to tokens got, and seconds to the first."""


async def measure(once: Once, prompts: list[list[int]], wanted: int, cpu_s: Callable[[], float]) -> Measured:
    began_s, cpu_began_s = time.perf_counter(), cpu_s()
    done = await asyncio.gather(*(once(prompt, wanted) for prompt in prompts))
    spent_s, cpu_spent_s = time.perf_counter() - began_s, cpu_s() - cpu_began_s
    count = sum(got for got, _ in done) if wanted > 1 else sum(map(len, prompts))
    return Measured(count / spent_s, count / max(cpu_spent_s, 0.01), median(first for _, first in done))


def prompts(streams: int, size: int, salt: int) -> list[list[int]]:
    """Arbitrary words, no two prompts alike from the first token on."""
    return [
        [1000 + salt * 97 + at * 31, *((n * 7919 + at) % 40_000 + 300 for n in range(size - 1))]
        for at in range(streams)
    ]


def ours(engine: Engine) -> Once:
    bias = tuple((token, -100_000) for token in sorted(engine.words.ends))

    async def once(prompt: list[int], wanted: int) -> tuple[int, float]:
        began_s, first_s, count = time.perf_counter(), 0.0, 0
        sampling = Sampling(seed=prompt[0], logit_bias=bias)
        async for event in engine.submit(
            Generation(engine.model, tuple(prompt), sampling, max_tokens=wanted)
        ):
            if isinstance(event, TokenEvent):
                first_s = first_s or time.perf_counter() - began_s
                count += 1
        return count, first_s

    return once


def theirs(client: httpx.AsyncClient) -> Once:
    async def once(prompt: list[int], wanted: int) -> tuple[int, float]:
        began_s, first_s, count = time.perf_counter(), 0.0, 0
        body = {
            "prompt": prompt,
            "n_predict": wanted,
            "stream": True,
            "cache_prompt": False,
            "ignore_eos": True,
            "temperature": 1.0,
            "samplers": ["temperature"],
            "seed": prompt[0],
            "return_tokens": True,
        }
        async with client.stream("POST", "/completion", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line[6:])
                    if not event.get("stop"):
                        first_s = first_s or time.perf_counter() - began_s
                        count += len(event.get("tokens") or [0])
        return count, first_s

    return once


def cpu_of(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def all_of(once: Once, cpu_s: Callable[[], float], streams: tuple[int, ...]) -> dict[str, Measured]:
    await measure(once, prompts(1, 60, 99), 8, cpu_s)
    results = {"prefill": await measure(once, prompts(1, PREFILL, 50), 1, cpu_s)}
    for count in streams:
        results[str(count)] = await measure(once, prompts(count, 60, count), TOKENS, cpu_s)
    return results


async def run_ours(store: ModelStore, model: StoredModel, threads: int) -> dict[str, Measured]:
    engine = load_engine(store, model, threads=threads, slots=max(STREAMS))
    results = await all_of(ours(engine), time.process_time, STREAMS)
    await engine.close()
    return results


async def run_theirs(model: StoredModel, peer: Path, port: int, threads: int) -> dict[str, Measured]:
    results: dict[str, Measured] = {}
    for at, slots in enumerate(STREAMS):
        command = [str(peer), "-c", PEER, str(model.weights), str(port + at), str(threads), str(slots)]
        server = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert server.stdout is not None
        try:
            if "ready" not in (server.stdout.readline() or ""):
                raise SystemExit("llama.cpp's server didn't start; see its own messages with -c")
            limits = httpx.Limits(max_connections=64, max_keepalive_connections=0)
            address = f"http://127.0.0.1:{port + at}"
            async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client:
                once = theirs(client)
                found = await all_of(once, lambda pid=server.pid: cpu_of(pid), (slots,))
                results |= found if at == 0 else {str(slots): found[str(slots)]}
        finally:
            server.kill()
            server.wait()
    return results


def report(who: str, mine: dict[str, Measured], peer: dict[str, Measured]) -> None:
    """One line a row; ratios by the clock, and in brackets per processor second."""
    for name, one in mine.items():
        line = f"{name:>8}: {who} {one.wall_rate:7.1f} ({one.cpu_rate:7.1f}) {one.first_s * 1000:6.0f} ms"
        if (other := peer.get(name)) is not None:
            theirs = f"{other.wall_rate:7.1f} ({other.cpu_rate:7.1f}) {other.first_s * 1000:6.0f} ms"
            ratio = f"{one.wall_rate / other.wall_rate:5.2f} ({one.cpu_rate / other.cpu_rate:5.2f})"
            line += f"   llama.cpp {theirs}   ratio {ratio}"
        print(line)


async def main() -> None:
    parser = argparse.ArgumentParser(description="The engine beside llama.cpp's server")
    parser.add_argument("--peer", type=Path, help="a Python that has xllamacpp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--port", type=int, default=21_210)
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "clusterai-models")
    chosen = parser.parse_args()
    store = ModelStore(chosen.store)
    model = store.get("smollm2-135m")
    mine = await run_ours(store, model, chosen.threads)
    peer = await run_theirs(model, chosen.peer, chosen.port, chosen.threads) if chosen.peer else {}
    print(f"{chosen.threads} thread(s); tokens/s by the clock, (per processor second), first token")
    report("ours", mine, peer)


if __name__ == "__main__":
    asyncio.run(main())
