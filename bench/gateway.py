"""What the gateway adds to a request, beside LiteLLM's proxy, in one run.

    python bench/gateway.py [--rounds 5] [--requests 200] [--litellm /path/to/venv/bin/litellm]

Three ways to the same one-token answer, each in processes of its own, asked in turns so that a busy machine is unfair to all:

    direct   client ──> stub that speaks OpenAI
    ours     client ──> gateway ──TLS link──> node with the tiny engine; orders, receipts, vouchers and journals on
    litellm  client ──> LiteLLM proxy ──> the same stub; no keys, no database, no logging

Ours includes the node's own work (checking the order, the engine, signing the receipt, its journal); the stub does none.
Overhead is a way's time less the direct one's. LiteLLM is left out where it isn't installed.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from clusterai.gateway.core.limits import Limits
from tests.ports import free_port
from tests.rooms.gateway.bed import Bed

STUB = """
import json, uvicorn
BODY = json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": " hi"}, "logprobs": None,
    "finish_reason": "length"}], "usage": {"prompt_tokens": 22, "completion_tokens": 1, "total_tokens": 23}}).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
uvicorn.run(app, port=%d, http="httptools", loop="uvloop", log_level="error", access_log=False, lifespan="off")
"""
ASK = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 1,
    "temperature": 0,
}


class Way:
    """One way to an answer."""

    def __init__(self, name: str, port: int, key: str, pids: list[int]) -> None:
        self.name, self.port, self.pids = name, port, pids
        body = json.dumps(ASK).encode()
        self.request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
        )
        self.times_ms: dict[int, list[float]] = {}
        self.rates: dict[int, list[float]] = {}
        self.cpu_s: dict[int, list[float]] = {}

    async def run(self, requests: int, at_once: int) -> None:
        before, began = sum(map(_cpu_s, self.pids)), time.perf_counter()
        share = max(1, requests // at_once)
        times = await asyncio.gather(*(self._ask(share) for _ in range(at_once)))
        took = time.perf_counter() - began
        self.times_ms.setdefault(at_once, []).extend(1000 * it for line in times for it in line)
        self.rates.setdefault(at_once, []).append(share * at_once / took)
        used = sum(map(_cpu_s, self.pids)) - before
        self.cpu_s.setdefault(at_once, []).append(used / (share * at_once))

    async def _ask(self, count: int) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        times: list[float] = []
        for _ in range(count):
            began = time.perf_counter()
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            at = lower.index(b"content-length:") + 15
            await reader.readexactly(int(lower[at : lower.index(b"\r\n", at)]))
            times.append(time.perf_counter() - began)
            assert b" 200 " in head[:20], head
        writer.close()
        return times


def _cpu_s(pid: int) -> float:
    """User and system time of a process and all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


def _litellm(path: str, stub: int, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    config, port = folder / "litellm.yaml", free_port()
    config.write_text(
        "model_list:\n  - model_name: tiny\n    litellm_params:\n      model: openai/tiny\n"
        f"      api_base: http://127.0.0.1:{stub}/v1\n      api_key: none\n"
        "general_settings:\n  disable_spend_logs: true\n  dangerously_permit_weak_or_unset_master_key: true\nlitellm_settings:\n  telemetry: false\n  num_retries: 0\n"
    )
    command = [
        path,
        "--config",
        str(config),
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--telemetry",
        "False",
    ]
    return _start(command, folder / "litellm.log"), port


async def _answers(port: int, seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return True
    return False


def _print(ways: list[Way], at_once: int) -> None:
    direct = ways[0]
    base = statistics.median(direct.times_ms[at_once])
    print(f"\n{at_once} at once{'':12}p50 ms    p99 ms   overhead p50 ms     req/s   CPU ms/request")
    for way in ways:
        times = sorted(way.times_ms[at_once])
        p50, p99 = statistics.median(times), times[int(len(times) * 0.99)]
        rate, cpu = statistics.median(way.rates[at_once]), statistics.median(way.cpu_s[at_once])
        print(f"  {way.name:16}{p50:9.2f} {p99:9.2f} {p50 - base:17.2f} {rate:9.0f} {1000 * cpu:16.2f}")
    if len(ways) == 3:
        ours, theirs = ways[1], ways[2]
        over_ours = statistics.median(ours.times_ms[at_once]) - base
        over_theirs = statistics.median(theirs.times_ms[at_once]) - base
        rates = statistics.median(ours.rates[at_once]) / statistics.median(theirs.rates[at_once])
        print(f"  overhead ours / LiteLLM {over_ours / over_theirs:.2f}    req/s ours / LiteLLM {rates:.2f}")


async def _measure(ways: list[Way], rounds: int, requests: int, sizes: list[int]) -> None:
    for way in ways:
        await way.run(20, 1)
        way.times_ms, way.rates, way.cpu_s = {}, {}, {}
    for _ in range(rounds):
        for size in sizes:
            for way in ways:
                await way.run(requests, size)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200, help="per way, round and concurrency")
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--litellm", default=shutil.which("litellm"), help="LiteLLM's command")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        stub = _start([sys.executable, "-c", STUB % port], folder / "stub.log")
        others: list[Any] = [stub]
        try:
            with Bed(folder / "network", providers=0, nodes=1) as bed:
                key, _ = bed.ring.create("bench", bed.account, limits=Limits(0, 0, 0))
                ways = [
                    Way("direct", port, "none", [stub.pid]),
                    Way("ours", bed.port, key, [bed.pid("gateway"), bed.pid("node-0")]),
                ]
                if options.litellm:
                    proxy, its_port = _litellm(options.litellm, port, folder)
                    others.append(proxy)
                    if asyncio.run(_answers(its_port, 90)):
                        ways.append(Way("litellm", its_port, "none", [proxy.pid, stub.pid]))
                    else:
                        print("LiteLLM didn't start:", (folder / "litellm.log").read_text()[-500:])
                asyncio.run(_answers(port, 10))
                asyncio.run(_measure(ways, options.rounds, options.requests, options.at_once))
                print(
                    f"medians over {options.rounds} rounds of {options.requests} requests, in turns; journals survive kill -9"
                )
                for size in options.at_once:
                    _print(ways, size)
                account = bed.get("/v1/clusterai/account", key)
                print(f"\nall of ours were charged and vouchered: {account['charged_wei']} wei")
        finally:
            for process in others:
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
