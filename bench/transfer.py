"""Fetching a data set from one and from three holders, beside plain HTTP: curl from nginx.

    python -m bench.transfer [--megabytes 256] [--megabits 200] [--rounds 3] [--json] [--svg FILE]       as root; nginx, curl, ip and tc installed

Twice: over loopback, where the processors are the limit, and with each holder behind an uplink of its own (a network
namespace with a token bucket), which is what holders are like. A fetch hashes every piece; curl hashes nothing. Times are of the
transfer alone, without starting the programs; all of them write into the same folder.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from bench.bars import Bar, draw

PORT = 21740
NGINX = """daemon off; worker_processes 1; error_log stderr crit; pid {root}/nginx.pid;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {root}/b; proxy_temp_path {root}/p;
fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
server {{ listen {host}:{port}; root {data}; }} }}
"""


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def uplink(number: int, megabits: int) -> Generator[tuple[list[str], str]]:
    """A host of its own: the words before a command that runs there, and its address."""
    name, here, there = f"bt{number}", f"btv{number}", f"10.77.{number}.2"
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", here, "type", "veth", "peer", "name", "up0", "netns", name)
        run("ip", "addr", "add", f"10.77.{number}.1/24", "dev", here)
        run("ip", "link", "set", here, "up")
        inside = ["ip", "netns", "exec", name]
        run(*inside, "ip", "addr", "add", f"{there}/24", "dev", "up0")
        run(*inside, "ip", "link", "set", "up0", "up")
        run(*inside, "ip", "link", "set", "lo", "up")
        run(
            *inside,
            "tc",
            "qdisc",
            "add",
            "dev",
            "up0",
            "root",
            "tbf",
            "rate",
            f"{megabits}mbit",
            "burst",
            "256kb",
            "latency",
            "50ms",
        )
        yield inside, there
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", here], check=False, capture_output=True)


@contextlib.contextmanager
def served(command: list[str], ready: str | None, cwd: Path) -> Generator[None]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd) as process:
        try:
            if ready is None:
                assert process.stdout
                process.stdout.readline()
            else:
                subprocess.run(
                    [
                        "curl",
                        "-s",
                        "--retry",
                        "50",
                        "--retry-connrefused",
                        "--retry-delay",
                        "1",
                        "-o",
                        "/dev/null",
                        ready,
                    ],
                    check=True,
                )
            yield
        finally:
            process.terminate()


class Bench:
    def __init__(self, root: Path, megabytes: int, rounds: int) -> None:
        self.root, self.rounds = root, rounds
        self.data = root / "set"
        self.data.mkdir()
        block = os.urandom(1 << 20)
        with (self.data / "data.bin").open("wb") as file:
            for number in range(megabytes):
                file.write(number.to_bytes(8, "big") + block[8:])
        self.size = megabytes << 20
        run(
            sys.executable,
            "-m",
            "clusterai.cli",
            "data",
            "publish",
            str(self.data),
            "--offline",
            "--name",
            "bench",
        )
        self.env = {**os.environ, "XDG_DATA_HOME": str(root / "home")}

    def nginx(self, inside: list[str], host: str, port: int) -> contextlib.AbstractContextManager[None]:
        place = self.root / f"nginx-{host}-{port}"
        place.mkdir(exist_ok=True)
        conf = place / "nginx.conf"
        conf.write_text(NGINX.format(root=place, host=host, port=port, data=self.data))
        return served(
            [*inside, "nginx", "-c", str(conf), "-p", str(place)], f"http://{host}:{port}/README", self.root
        )

    def ours(self, inside: list[str], host: str, port: int) -> contextlib.AbstractContextManager[None]:
        command = [*inside, sys.executable, "-m", "clusterai.cli", "data", "hold", str(self.data), "--quiet"]
        return served([*command, "--listen", f"{host}:{port}"], None, self.root)

    def curl(self, url: str) -> float:
        """MB/s."""
        out = run("curl", "-s", "-o", str(self.root / "curl.bin"), "-w", "%{time_total}", f"{url}/data.bin")
        (self.root / "curl.bin").unlink()
        return self.size / float(out) / 1e6

    def fetched(self, *urls: str) -> tuple[float, float]:
        """MB/s, and bytes that came for each byte of the set."""
        to = self.root / "to"
        shutil.rmtree(to, ignore_errors=True)
        command = [sys.executable, "-m", "clusterai.cli", "data", "fetch", urls[0], "--to", str(to), "--json"]
        for url in urls[1:]:
            command += ["--holder", url]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=self.env)
        told: dict[str, Any] = json.loads(done.stdout)
        shutil.rmtree(to)
        return told["mb_per_s"], sum(share["bytes"] for share in told["holders"]) / self.size

    def rates(self, kinds: dict[str, Any]) -> dict[str, dict[str, float]]:
        """Each in turn, so that what else the machine does falls on all of them."""
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
        for _ in range(self.rounds):
            for name, once in kinds.items():
                found[name].append(once())
        return {
            name: {
                "mb_per_s": round(statistics.median(rate for rate, _ in got), 1),
                "least": round(min(rate for rate, _ in got), 1),
                "most": round(max(rate for rate, _ in got), 1),
                "bytes_per_byte": round(max(factor for _, factor in got), 3),
            }
            for name, got in found.items()
        }

    def measured(self, insides: list[list[str]], hosts: list[str]) -> dict[str, dict[str, float]]:
        with contextlib.ExitStack() as stack:
            plain: list[str] = []
            held: list[str] = []
            for number, (inside, host) in enumerate(zip(insides, hosts, strict=True)):
                for urls, serve, port in (
                    (plain, self.nginx, PORT + number),
                    (held, self.ours, PORT + 10 + number),
                ):
                    stack.enter_context(serve(inside, host, port))
                    urls.append(f"http://{host}:{port}")
            found = self.rates(
                {
                    "curl from nginx": lambda: (self.curl(plain[0]), 1.0),
                    "fetch from 1 nginx": lambda: self.fetched(plain[0]),
                    "fetch from 1 holder": lambda: self.fetched(held[0]),
                    "fetch from 3 nginx": lambda: self.fetched(*plain),
                    "fetch from 3 holders": lambda: self.fetched(*held),
                }
            )
        base = found["curl from nginx"]["mb_per_s"]
        return {name: {**it, "ratio": round(it["mb_per_s"] / base, 2)} for name, it in found.items()}


CAPTION = "times curl from nginx at the same place; {megabytes} MiB, median of {rounds}; line: least to most"


def drawn(found: dict[str, dict[str, dict[str, float]]]) -> list[Bar]:
    """Both places on one scale: beside curl."""
    bars: list[Bar] = []
    for where, rows in found.items():
        bars.append(Bar(where))
        base = rows["curl from nginx"]["mb_per_s"]
        for name, it in rows.items():
            least, most = it["least"] / base, it["most"] / base
            bars.append(Bar(name, it["ratio"], least, most, f"{it['ratio']:.2f}: {it['mb_per_s']:.0f} MB/s"))
    return bars


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--megabits", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--svg", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clusterai-transfer-") as root, contextlib.ExitStack() as stack:
        Path(root).chmod(0o755)
        bench = Bench(Path(root), args.megabytes, args.rounds)
        found = {"loopback": bench.measured([[], [], []], ["127.0.0.1"] * 3)}
        uplinks = [stack.enter_context(uplink(number, args.megabits)) for number in (1, 2, 3)]
        shaped = f"uplinks of {args.megabits} Mbit/s"
        found[shaped] = bench.measured([inside for inside, _ in uplinks], [host for _, host in uplinks])
    draw(args.svg, drawn(found), CAPTION.format(megabytes=args.megabytes, rounds=args.rounds))
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for where, rows in found.items():
        print(f"{where}, {args.megabytes} MiB, median of {args.rounds} (least to most)")
        for name, it in rows.items():
            print(
                f"  {name:22} {it['mb_per_s']:8.1f} MB/s  ({it['least']:.0f} to {it['most']:.0f})  x {it['ratio']:.2f}"
                f"  {it['bytes_per_byte']:.2f} bytes came for each"
            )


if __name__ == "__main__":
    main()
