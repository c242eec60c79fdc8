"""`clusterai rent` as a program, with a real gateway, its relay, and machines with real ends of the mesh: booked, connected, in a shell, released."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroute2 import netns

from clusterai.cli.failure import Exit
from clusterai.work.cluster.inside import shell
from clusterai.work.cluster.spec import SHELL_PORT
from tests.rooms.mesh.hosts import Host
from tests.rooms.renting.rented import RentBed

NAMESPACE = f"renter-{os.getpid()}"
LISTENS = """
import socket, sys, time
for _ in range(200):
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()
        break
    except OSError:
        time.sleep(0.05)
"""

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def homes() -> Iterator[list[Host]]:
    found = [Host(), Host()]
    netns.create(NAMESPACE)
    yield found
    netns.remove(NAMESPACE)
    for it in found:
        it.close()


@pytest.fixture
def bed(tmp_path: Path, homes: list[Host]) -> Iterator[RentBed]:
    it = RentBed(tmp_path, machines=2)
    with it:
        for at, home in enumerate(homes):
            it.machine(at).home = home
        it.offer_all()
        yield it
        for at in range(2):
            it.run(it.machine(at).leave())


@pytest.fixture
def program(bed: RentBed, tmp_path: Path) -> Program:
    environment = os.environ | {
        "CLUSTERAI_BASE_URL": bed.url,
        "OPENAI_API_KEY": bed.key,
        "XDG_DATA_HOME": str(tmp_path / "renter"),
    }
    environment.pop("CLUSTERAI_DATA", None)

    def do(*words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "clusterai.cli", "rent", *words],
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=environment,
        )

    return do


def links() -> str:
    """Interfaces of the renter."""
    return subprocess.run(
        ["ip", "-n", NAMESPACE, "-o", "link"], capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_from_nothing_to_a_shell_and_back(bed: RentBed, program: Program, homes: list[Host], tmp_path: Path):
    """One command books and connects; the shell is the machine's own; releasing leaves nothing here."""
    done = program("--nodes", "2", "--yes", "--json", "--netns", NAMESPACE)
    assert done.returncode == Exit.OK, done.stderr
    told = json.loads(done.stdout)
    it = told["rental"]
    assert told["connected"]
    assert links().count("clr") == 1

    assert "disconnected" in program("disconnect", it["id"]).stdout
    assert "clr" not in links()
    again = program("connect", it["id"], "--netns", NAMESPACE)
    assert again.returncode == Exit.OK, again.stderr
    assert f"export RAY_ADDRESS=http://{it['head']}:8265" in again.stdout

    (place,) = [at for at in range(2) if bed.machine(at).joined[-1].members[0].relay is None]
    token = tmp_path / "token"
    token.write_text(it["token"])
    with subprocess.Popen(
        [*homes[place].enter, sys.executable, shell.__file__, it["head"], str(SHELL_PORT), str(token)]
    ) as server:
        try:
            homes[place].python(LISTENS, it["head"], str(SHELL_PORT))
            done = program("shell", it["id"][:12], typed="echo $((6 * 7)) from $PWD\nexit 3\n")
        finally:
            server.kill()
    assert done.returncode == 3, done.stderr
    assert "42 from" in done.stdout

    shown = program("show", it["id"]).stdout
    assert f"connected, {it['address']} on clr" in shown
    assert program("release", it["id"], "--yes").returncode == Exit.OK
    assert "clr" not in links()
    assert list((tmp_path / "renter").glob("clusterai/local/rentals/*")) == []
