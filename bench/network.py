"""Tokens a second through the whole network, beside llama.cpp's own server: same GGUF, same threads, as many slots as streams.

    python -m venv /tmp/llamacpp && /tmp/llamacpp/bin/pip install xllamacpp==2026.10.11549
    python bench/network.py --peer /tmp/llamacpp/bin/python

Ours is `clusterai up --nodes 1`: HTTP, metering, signatures, links, journals, the verifiable sampler, epochs and audits are all on, and
the processor time is that of chain, gateway, node and validator together. Theirs is the server alone. Prompts, lengths and
sampling are those of bench/engine.py.
"""

# ruff: noqa: E402 - another bench is used here too, from the repository's root
import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

import httpx

from bench.engine import STREAMS, Measured, Once, all_of, cpu_of, report, run_theirs
from clusterai.models import ModelStore
from clusterai.runtime.adapters.config import default_models

MODEL = "smollm2-135m"


def cli(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "clusterai.cli", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"clusterai {' '.join(words)}: {done.stderr[-2000:]}")
    return done.stdout


def through(client: httpx.AsyncClient, ends: tuple[int, ...]) -> Once:
    async def once(prompt: list[int], wanted: int) -> tuple[int, float]:
        began_s, first_s, count = time.perf_counter(), 0.0, 0
        body = {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": wanted,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 1.0,
            "top_p": 1.0,
            "seed": prompt[0],
            "logit_bias": {str(token): -100 for token in ends},
        }
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if response.is_error:
                raise SystemExit((await response.aread()).decode())
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    first_s = first_s or time.perf_counter() - began_s
                    usage = json.loads(line[6:]).get("usage")
                    count = usage["completion_tokens"] if usage else count
        return count, first_s

    return once


async def run_network(folder: Path, port: int, ends: tuple[int, ...]) -> dict[str, Measured]:
    ready: dict[str, Any] = json.loads(
        cli("up", "--data", str(folder), "--port", str(port), "--nodes", "1", "--detach", "--json")
    )
    try:
        status = json.loads(cli("status", "--data", str(folder), "--json"))
        pids = [one["pid"] for one in status["services"]]
        limits = httpx.Limits(max_connections=64)
        headers = {"authorization": f"Bearer {ready['openai_api_key']}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=600, limits=limits, headers=headers
        ) as client:
            return await all_of(through(client, ends), lambda: sum(map(cpu_of, pids)), STREAMS)
    finally:
        cli("down", "--data", str(folder))


async def main() -> None:
    parser = argparse.ArgumentParser(description="The whole network beside llama.cpp's server")
    parser.add_argument("--peer", type=Path, help="a Python that has xllamacpp")
    parser.add_argument("--port", type=int, default=21_230)
    chosen = parser.parse_args()
    model = ModelStore(default_models()).get(MODEL)
    ends = tuple(sorted(model.tokenizer().vocabulary.ends))
    with tempfile.TemporaryDirectory() as folder:
        mine = await run_network(Path(folder), chosen.port, ends)
    peer = await run_theirs(model, chosen.peer, chosen.port + 10, 1) if chosen.peer else {}
    print("one thread each; tokens/s by the clock, (per processor second of all processes), first token")
    report("network", mine, peer)


if __name__ == "__main__":
    asyncio.run(main())
