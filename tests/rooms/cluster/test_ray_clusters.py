"""Ray on rented machines: jobs as they are, drivers from outside, strangers refused, a machine exchanged, nothing left."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rooms.cluster.renting import Rental

TRAIN = """
import json, os, sys
import ray

ray.init()

@ray.remote(scheduling_strategy="SPREAD")
def where():
    return ray.util.get_node_ip_address()

seen = sorted(set(ray.get([where.remote() for _ in range(12)])))
print(json.dumps({"nodes": sum(it["Alive"] for it in ray.nodes()), "seen": seen, "python": sys.executable}))
"""
CLIENT = """
import sys
import ray
ray.init(sys.argv[1])

@ray.remote
def square(x):
    return x * x

print("sum", sum(ray.get([square.remote(x) for x in range(4)])))
"""


@pytest.fixture(scope="module")
def rental() -> Iterator[Rental]:
    """A head and two workers."""
    it = Rental(3)
    try:
        it.run(it.begin())
        yield it
    finally:
        it.end()
        shutil.rmtree(it.folder)


def test_a_job_runs_unmodified_on_all_machines(rental: Rental):
    """`ray job submit` with its working directory, `python` and `ray.init()` use every machine, in the cluster's own environment."""
    told = rental.job(TRAIN)
    assert told["nodes"] == 3
    assert set(told["seen"]) <= {rental.net.address(place) for place in range(3)}
    assert "/peers/ray/" in told["python"]


def test_a_driver_at_home_reaches_the_cluster(rental: Rental):
    """Ray's client works from the renter's own machine, over the mesh."""
    (rental.folder / "client.py").write_text(CLIENT)
    code, said = rental.run(rental.ray("python", "client.py", f"ray://{rental.head}:10001"))
    assert code == 0, said[-3000:]
    assert "sum 14" in said


def test_a_stranger_without_the_token_is_refused(rental: Rental):
    """Who is in the mesh and doesn't hold the lease's token gets no job in."""
    code, said = rental.run(rental.ray("ray", "job", "list", token=False))
    assert code != 0
    assert "401" in said or "nauthorized" in said or "uthentication" in said, said[-2000:]


def test_a_machine_is_exchanged(rental: Rental):
    """A worker dies, another joins, the renter's next job has as many machines as before."""
    host, _ = rental.internet.host()
    rental.run(rental.exchange(2, 3, host))
    told = rental.job(TRAIN)
    assert rental.net.address(3) in told["seen"] or told["nodes"] >= 3


def lives(pid: int) -> bool:
    """Not even what died and whose parent hasn't noticed."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_nothing_is_left():
    """After a stay no process, interface, control group or folder of it is there, even where it was never joined."""
    rental = Rental(1)
    try:
        rental.run(rental.open(0, rental.internet.host()[0]))
        (stay,) = rental.stays.values()
        pids = stay.processes()
        assert pids
        interface = Path("/var/run/wireguard", f"{stay.interface}.sock")
        assert interface.exists()
    finally:
        rental.end()
    assert not [pid for pid in pids if lives(pid)]
    assert not interface.exists()
    assert not list((rental.folder / "node-0").iterdir())
    shutil.rmtree(rental.folder)
