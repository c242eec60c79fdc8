"""The doctor's rows about the machine: each thing that is missing names the command that cures it."""

import contextlib
import errno
import platform
import subprocess
import threading
from collections.abc import Callable, Generator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterai.cli.auditing import judged
from clusterai.mesh.adapters.kernel import Netlink
from clusterai.node import hardware
from clusterai.node.adapters import nvidia
from clusterai.protocol.ids import Address
from clusterai.sandbox import ControlGroups, NoDisk
from tests.rooms.cluster.fakecards import Machine, listing


def always(value: object) -> Callable[..., object]:
    """Whatever it is asked."""

    def answer(*_: object, **__: object) -> object:
        return value

    return answer


@contextlib.contextmanager
def api(headers: Callable[[], dict[str, str]]) -> Generator[str]:
    """A gateway's API that answers everything with 100 kB."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"x" * 100_000
            told = {"content-length": str(len(body)), **headers()}
            self.send_response_only(200)
            for name, value in told.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for _ in range(int(told["content-length"]) // len(body)):
                    self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's own name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_way_to_a_gateway_is_measured_with_an_end():
    """Bandwidth by a bounded transfer; a gateway that tells no date has no row for its clock."""
    with api(dict) as url:
        (row,) = hardware.way(url)
    assert row.state == "green"
    assert "MB fetched" in row.found


@pytest.mark.parametrize(
    ("date", "state"), [("Thu, 01 Jan 1970 00:00:00 GMT", "red"), ("rubbish", None), ("", None)]
)
def test_a_clock_that_is_off_is_red(date: str, state: str | None):
    """Against the gateway's date; what is no date says nothing."""
    with api(lambda: {"date": date}) as url:
        rows = {row.name: row for row in hardware.way(url)}
    found = rows.get("clock (gateway)")
    assert (found and found.state) == state
    assert found is None or "timedatectl" in found.cure


def test_a_gateway_that_never_ends_its_answer_is_left():
    """However much it sends, no more than the bound is taken, and the line is measured all the same."""
    with api(lambda: {"content-length": str(10**15)}) as url:
        (row,) = hardware.way(url)
    assert row.state == "green"


def test_no_gateway_is_said():
    """Nobody at the address: a row with a cure, and no crash."""
    (row,) = hardware.way("http://127.0.0.1:9")
    assert (row.state, bool(row.cure)) == ("yellow", True)


def test_a_disk_is_tried_and_left_as_it_was(tmp_path: Path):
    """Room and speed are told of the folder that will hold the node; nothing stays in it."""
    rows = hardware.disk(tmp_path / "not" / "yet")
    assert [row.name for row in rows] == ["disk", "disk speed"]
    assert "MB/s" in rows[1].found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "state", "cure"),
    [((0.1, 0.2), "yellow", "SSD"), ((10.0, 0.001), "yellow", "quicker"), ((0.1, 0.001), "green", "")],
)
def test_a_slow_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], state: str, cure: str
):
    """Slow commits cost every receipt; slow writing, jobs."""
    monkeypatch.setattr(hardware, "_written", always(seconds))
    row = hardware.disk(tmp_path)[1]
    assert row.state == state
    assert cure in row.cure


def test_a_full_or_foreign_disk_names_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without room it is red; where this user may not write, the command says so."""

    def refused(_: Path) -> tuple[float, float]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(hardware, "_written", refused)
    assert "chown" in hardware.disk(tmp_path)[1].cure
    monkeypatch.setattr(hardware.shutil, "disk_usage", always(SimpleNamespace(free=1)))
    (row,) = hardware.disk(tmp_path)
    assert (row.state, bool(row.cure)) == ("red", True)


CARD = nvidia.Gpu(0, "NVIDIA H100", "570.1", 80 << 30, 700.0, 200.0, 700.0)


@pytest.mark.parametrize(
    ("why", "cure"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch", "reboot"),
        ("its kernel module is loaded, and its library and nvidia-smi aren't installed", "nvidia-utils"),
        ("NVIDIA-SMI has failed", "reinstall"),
    ],
)
def test_a_driver_that_does_not_answer_names_its_cure(monkeypatch: pytest.MonkeyPatch, why: str, cure: str):
    """A GPU without its library, or with another version's."""

    def broken() -> tuple[nvidia.Gpu, ...]:
        raise nvidia.NoDriver(why)

    monkeypatch.setattr(nvidia, "gpus", broken)
    row = hardware.gpu()
    assert row.state == "yellow"
    assert cure in row.cure


def test_no_gpu_is_no_failure(monkeypatch: pytest.MonkeyPatch):
    """A machine without one is as good as another; with one, the card and its driver are told."""
    monkeypatch.setattr(nvidia, "gpus", tuple)
    assert hardware.gpu().state == "green"
    monkeypatch.setattr(nvidia, "gpus", always((CARD,)))
    assert "NVIDIA H100 with 80 GiB, driver 570.1" in hardware.gpu().found


@pytest.mark.parametrize("rents", [True, False])
def test_a_mesh_is_needed_by_who_rents_out(monkeypatch: pytest.MonkeyPatch, rents: bool):
    """Without WireGuard in the kernel or beside it the row is red for them and yellow for others."""
    monkeypatch.setattr(Netlink, "has", always(False))
    monkeypatch.setattr(hardware.shutil, "which", always(None))
    rows = {row.name: row for row in hardware.kernel(rents)}
    assert rows["mesh"].state == ("red" if rents else "yellow")
    assert rows["mesh"].cure == "apt-get install wireguard-go"
    assert rows["container engine"].state == "green"
    monkeypatch.setattr(Netlink, "has", always(True))
    assert {row.name: row for row in hardware.kernel(rents)}["mesh"].state == "green"


def test_who_can_hold_no_cluster_is_told_the_first_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ray, the right to make interfaces, the mesh, control groups: before a stake is put down or a renter refused."""
    assert platform.system() == "Linux"
    home, status = tmp_path / "ray", tmp_path / "status"
    monkeypatch.setattr(hardware, "STATUS", status)
    monkeypatch.setattr(Netlink, "has", always(True))
    status.write_text("Name:\tpython\nCapEff:\t0000000000000000\n")
    missing = hardware.unrentable(home)
    assert missing is not None
    assert f"there is no {home}/bin/python" in missing.found
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").touch()
    missing = hardware.unrentable(home)
    assert missing is not None
    assert "root" in missing.cure
    status.write_text("Name:\tpython\nCapEff:\t0000000000001000\n")
    assert hardware.unrentable(home) is None
    why = hardware.Row("rentals: control groups", "red", "none may be made", "run the node as root")
    assert hardware.unrentable(home, why) == why


def test_control_groups_that_are_not_there_are_told_with_their_cure(monkeypatch: pytest.MonkeyPatch):
    """What a sandbox that stays would be refused for."""
    monkeypatch.setattr(hardware, "ControlGroups", partial(ControlGroups, {}))
    row = hardware.counted()
    assert (row.state, row.found) == ("red", "no memory controller is mounted")
    assert row.cure == "mount it, or run the node under systemd"


def test_what_a_rented_disk_is_is_told_to_who_rents_out(monkeypatch: pytest.MonkeyPatch):
    """Encrypted where it can be had; else memory, with the reason and the cure; nobody else is bothered."""
    found = {row.name: row for row in hardware.kernel(rents=True)}
    assert (found["rented disk"].state, found["rented disk"].cure) == ("green", "")
    missing = NoDisk("gocryptfs isn't installed", "apt-get install gocryptfs")
    monkeypatch.setattr(hardware, "obstacle", always(missing))
    row = {row.name: row for row in hardware.kernel(rents=True)}["rented disk"]
    assert (row.state, row.cure) == ("yellow", missing.cure)
    assert row.found == "volumes of rentals are memory, since gocryptfs isn't installed"
    assert "rented disk" not in {row.name for row in hardware.kernel(rents=False)}


@pytest.mark.parametrize(
    ("knob", "value", "cure"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor"),
        ("kernel/unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "max_user_namespaces"),
        ("none", "", "seccomp"),
    ],
)
def test_namespaces_that_are_refused_name_the_knob(
    monkeypatch: pytest.MonkeyPatch, knob: str, value: str, cure: str
):
    """Which setting of the kernel it is decides the command."""
    refused = subprocess.CompletedProcess([], 1, "", "unshare: Operation not permitted")
    monkeypatch.setattr(hardware.subprocess, "run", always(refused))
    known = {knob: value}
    monkeypatch.setattr(hardware, "_knob", known.get)
    rows = {row.name: row for row in hardware.kernel(rents=False)}
    assert rows["user namespaces"].state == "yellow"
    assert cure in rows["user namespaces"].cure


@pytest.mark.parametrize("name", ["Darwin", "Windows"])
def test_another_system_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, name: str):
    """Jobs and rented clusters are Linux's, and how to have them is said."""
    monkeypatch.setattr(platform, "system", always(name))
    row = hardware.system()
    assert row.state == "yellow"
    assert "jobs" in row.found
    assert "Linux" in row.cure


@pytest.mark.parametrize(("balance", "state"), [(50, "red"), (150, "yellow"), (200, "green")])
def test_a_validators_money_is_held_against_the_largest_bond(balance: int, state: str):
    """One bond is for the audit and another for a dispute; what lacks is named with the key that it goes to."""
    row = judged("bonds", Address(b"v" * 20), balance, 100)
    assert row.state == state
    assert ("send" in row.cure) == (state != "green")


def test_cards_that_can_be_handed_to_a_rental_are_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Otherwise the row says why not, and what cures it; a machine without cards has none."""
    monkeypatch.setattr(nvidia, "gpus", tuple)
    assert hardware.rented_cards() == []
    machine = Machine(tmp_path, 1, monkeypatch)
    monkeypatch.setattr(nvidia, "gpus", always((CARD,)))
    (row,) = hardware.rented_cards([machine.cdi])
    assert row.state == "green"
    machine.says(listing(1, mig=[0]))
    (row,) = hardware.rented_cards([machine.cdi])
    assert (row.state, row.cure) == ("yellow", "nvidia-smi -i 0 -mig 0")
    (machine.cdi / "nvidia.yaml").write_text("kind: [")
    (row,) = hardware.rented_cards([machine.cdi])
    assert row.cure == "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
