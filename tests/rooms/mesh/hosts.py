"""Several hosts on one machine: network namespaces around a switch, some behind a NAT of their own.

    host a ── switch ── host b          10.77.0.0/24: the internet between them
                └── nat c ── host c     192.168.7.0/24: what is behind c's NAT, over a bad wire (`wire.py`) where it is far away

A namespace lives as long as the process that holds it; `Internet.close` ends them all, and with them every interface.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.rooms.mesh.wire import Wire

HOLD = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


class Host:
    """One network namespace."""

    def __init__(self) -> None:
        self._held = subprocess.Popen(["unshare", "--net", *HOLD], stdin=subprocess.PIPE)
        mine = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self._held.pid}/ns/net").readlink() == mine:
            assert self._held.poll() is None, "a network namespace needs root, or user namespaces"
        self.ip("link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        return self._held.pid

    @property
    def namespace(self) -> str:
        return f"/proc/{self.pid}/ns/net"

    @property
    def enter(self) -> tuple[str, ...]:
        return ("nsenter", "-t", str(self.pid), "-n")

    def run(self, *command: str) -> str:
        return run(*self.enter, *command)

    def ip(self, *words: str) -> None:
        self.run("ip", *words)

    def python(self, text: str, *arguments: str) -> str:
        """Run a program there to its end."""
        return self.run(sys.executable, "-c", text, *arguments)

    def start(self, text: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.enter, sys.executable, "-c", text, *arguments], stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        self._held.kill()
        self._held.wait()
        assert self._held.stdin
        self._held.stdin.close()


class Internet:
    """A switch with hosts around it."""

    def __init__(self) -> None:
        assert shutil.which("ip"), "iproute2 is needed: apt-get install iproute2"
        self._hosts: list[Host] = []
        self._wires: list[Wire] = []
        self._count = 0
        self.switch = self._host()
        self.switch.ip("link", "add", "sw", "type", "bridge")
        self.switch.ip("link", "set", "sw", "up")

    def _host(self) -> Host:
        host = Host()
        self._hosts.append(host)
        return host

    def _wire(self, inner: Host, name: str, address: str, outer: Host, port: str) -> None:
        inner.ip("link", "add", name, "type", "veth", "peer", "name", port, "netns", str(outer.pid))
        inner.ip("addr", "add", address, "dev", name)
        inner.ip("link", "set", name, "up")
        outer.ip("link", "set", port, "up")

    def host(self) -> tuple[Host, str]:
        """A host with an address of its own out there."""
        self._count += 1
        host, address = self._host(), f"10.77.0.{self._count}"
        self._wire(host, "eth0", f"{address}/24", self.switch, f"p{self._count}")
        self.switch.ip("link", "set", f"p{self._count}", "master", "sw")
        return host, address

    def far_away(self) -> tuple[Host, Wire]:
        """A host behind a NAT, and the wire between the two."""
        nat, _ = self.host()
        inner = self._host()
        wire = Wire((inner.namespace, "eth0"), (nat.namespace, "in0"))
        self._wires.append(wire)
        inner.ip("addr", "add", "192.168.7.2/24", "dev", "eth0")
        inner.ip("link", "set", "eth0", "up")
        nat.ip("link", "set", "in0", "up")
        self._translate(inner, nat)
        return inner, wire

    def behind_nat(self, symmetric: bool = False) -> tuple[Host, Host]:
        """A host that can only call out, and its NAT. A symmetric one takes another port for each place it calls."""
        nat, _ = self.host()
        inner = self._host()
        self._wire(inner, "eth0", "192.168.7.2/24", nat, "in0")
        self._translate(inner, nat, symmetric)
        return inner, nat

    def _translate(self, inner: Host, nat: Host, symmetric: bool = False) -> None:
        nat.ip("addr", "add", "192.168.7.1/24", "dev", "in0")
        inner.ip("route", "add", "default", "via", "192.168.7.1")
        nat.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        masquerade = ["-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE"]
        nat.run("iptables", *masquerade, *(["--random-fully"] if symmetric else []))
        nat.run(
            "iptables",
            "-A",
            "FORWARD",
            "-i",
            "eth0",
            "-m",
            "conntrack",
            "--ctstate",
            "ESTABLISHED,RELATED",
            "-j",
            "ACCEPT",
        )
        nat.run("iptables", "-A", "FORWARD", "-i", "eth0", "-j", "DROP")

    def part(self, host: Host, apart: bool) -> None:
        """Pull a host's plug, or put it in again."""
        host.ip("link", "set", "eth0", "down" if apart else "up")

    def close(self) -> None:
        for wire in self._wires:
            wire.close()
        for host in self._hosts:
            host.close()


ECHO = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
    it.bind((sys.argv[1], 7))
    print("ready", flush=True)
    while True:
        data, source = it.recvfrom(2000)
        it.sendto(data, source)
"""
CALL = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
    it.settimeout(0.5)
    for _ in range(int(sys.argv[2])):
        try:
            it.sendto(b"hello", (sys.argv[1], 7))
            if it.recv(10) == b"hello":
                print("heard")
                break
        except OSError:
            pass
    else:
        print("silence")
"""


def hears(host: Host, address: str, tries: int = 120) -> bool:
    """Whether an echo comes back from there, within half as many seconds."""
    return host.python(CALL, address, str(tries)).strip() == "heard"
