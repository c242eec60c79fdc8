"""What the mesh costs: throughput and round trip between two hosts, over WireGuard and over the bare wire between them, in turn.

    python -m bench.mesh [--seconds 3] [--rounds 5] [--delay-ms 0 --loss 0 --mbit 0]

Two network namespaces joined by a veth pair, or, where a delay of each way, a share of lost packets or a rate is given, by a wire that is as bad; as root. The relay runs in the first one's namespace. Prints each figure and its ratio to
the bare wire's, medians of the rounds.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path

from pyroute2 import netns

from clusterai.mesh import Device, Member, RelayServer, endpoints, keypair, net_of
from clusterai.protocol.ids import Digest
from tests.rooms.mesh.wire import Wire

HOLD = [sys.executable, "-c", "import sys; sys.stdin.read()"]
LEASE = Digest(b"\x42" * 32)
SINK = """
import socket, sys, time
with socket.create_server((sys.argv[1], 9)) as it:
    print("ready", flush=True)
    link, _ = it.accept()
    begin, total = time.perf_counter(), 0
    while data := link.recv(1 << 20):
        total += len(data)
    print(total * 8 / (time.perf_counter() - begin) / 1e6, flush=True)
"""
SEND = """
import socket, sys, time
data = bytes(1 << 18)
with socket.create_connection((sys.argv[1], 9)) as it:
    until = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < until:
        it.sendall(data)
"""
ECHO = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
    it.bind((sys.argv[1], 7))
    print("ready", flush=True)
    while True:
        data, source = it.recvfrom(100)
        it.sendto(data, source)
"""
TRIPS = """
import socket, statistics, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
    it.connect((sys.argv[1], 7)); it.settimeout(2); found = []
    for _ in range(int(sys.argv[2])):
        begin = time.perf_counter(); it.send(b"x")
        try:
            it.recv(10)
        except TimeoutError:
            continue  # lost, one way or the other
        found.append(time.perf_counter() - begin)
print(statistics.median(found) * 1e3)
"""


class Host:
    def __init__(self) -> None:
        self._held = subprocess.Popen(["unshare", "--net", *HOLD], stdin=subprocess.PIPE)
        mine = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self._held.pid}/ns/net").readlink() == mine:
            time.sleep(0.01)
        self.pid = self._held.pid
        self.namespace = f"/proc/{self.pid}/ns/net"
        self.enter = ("nsenter", "-t", str(self.pid), "-n")

    def run(self, *words: str) -> str:
        return subprocess.run([*self.enter, *words], check=True, capture_output=True, text=True).stdout

    def start(self, text: str, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*self.enter, sys.executable, "-c", text, *words], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    def close(self) -> None:
        self._held.kill()
        self._held.wait()


def throughput(one: Host, two: Host, address: str, seconds: float) -> float:
    """Mbit/s of one TCP stream to `address` of the second host."""
    sink = two.start(SINK, address)
    one.run(sys.executable, "-c", SEND, address, str(seconds))
    assert sink.stdout
    found = float(sink.stdout.readline())
    sink.wait()
    return found


def trip_ms(one: Host, two: Host, address: str, trips: int) -> float:
    echo = two.start(ECHO, address)
    try:
        return float(one.run(sys.executable, "-c", TRIPS, address, str(trips)))
    finally:
        echo.kill()
        echo.wait()


async def meshed(one: Host, two: Host) -> tuple[RelayServer, list[Device], float]:
    begin = time.perf_counter()
    relay = RelayServer("0.0.0.0", "10.88.0.1")
    net = net_of(LEASE)
    members = [Member(place, keypair(bytes([place + 1]) * 32)[1]) for place in range(2)]
    netns.pushns(one.namespace)
    try:
        ports = await relay.open(LEASE, members)
    finally:
        netns.popns()
    devices: list[Device] = []
    listens: list[int] = []
    for member, host in zip(members, (one, two), strict=True):
        device = await Device.open(f"cab{host.pid}", host.enter)
        devices.append(device)
        await device.settle(net.address(member.place), 24, origin=host.namespace)
        peers = endpoints(net, member, members, ports[member.place])
        listens.append(await device.configure(keypair(bytes([member.place + 1]) * 32)[0], peers))
    took = time.perf_counter() - begin
    await devices[0].move(members[1].key, ("10.88.0.2", listens[1]))
    await devices[1].move(members[0].key, ("10.88.0.1", listens[0]))
    return relay, devices, took


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--mbit", type=float, default=0.0)
    parser.add_argument("--trips", type=int, default=2000)
    asked = parser.parse_args()
    one, two = Host(), Host()
    wire = None
    if asked.delay_ms or asked.loss or asked.mbit:
        wire = Wire((one.namespace, "eth0"), (two.namespace, "eth0"))
        wire.carry(asked.delay_ms, asked.loss, asked.mbit or 1000.0)
    else:
        one.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(two.pid))
    for host, address in ((one, "10.88.0.1"), (two, "10.88.0.2")):
        host.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        host.run("ip", "link", "set", "lo", "up")
    relay, devices, took = await meshed(one, two)
    ways = {"bare wire": "10.88.0.2", "mesh": net_of(LEASE).address(1)}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    trips: dict[str, list[float]] = {way: [] for way in ways}
    try:
        print(f"two interfaces made, addressed and configured: {took * 1e3:.0f} ms (measured)")
        for _ in range(asked.rounds):
            for way, address in ways.items():
                trips[way].append(await asyncio.to_thread(trip_ms, one, two, address, asked.trips))
                rates[way].append(await asyncio.to_thread(throughput, one, two, address, asked.seconds))
        for way in ways:
            rate, trip = statistics.median(rates[way]), statistics.median(trips[way])
            print(
                f"{way:9}: {rate:7.0f} Mbit/s ({rate / statistics.median(rates['bare wire']):.3f} x), round trip {trip:.3f} ms "
                f"({trip / statistics.median(trips['bare wire']):.1f} x; {asked.rounds} rounds, measured)"
            )
    finally:
        for device in devices:
            await device.close()
        relay.end()
        if wire is not None:
            wire.close()
        one.close()
        two.close()


if __name__ == "__main__":
    asyncio.run(main())
