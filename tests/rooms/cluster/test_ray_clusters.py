"""Ray on rented machines: jobs as they are, drivers from outside, strangers refused, a machine exchanged, nothing left."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import netns

from clusterai.mesh import net_of
from clusterai.protocol.ids import Digest
from clusterai.work.cluster.adapters.stay import sweep
from clusterai.work.cluster.inside import sentinel
from clusterai.work.cluster.spec import SHELL_PORT
from tests.rooms.cluster.renting import Rental, environment

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
FORKED = """
import json, os
import ray

ray.init()

@ray.remote
def told():
    job = ray.get_runtime_context().get_job_id()
    return job, os.getcwd(), open(f"/proc/{os.getppid()}/cmdline").read()

own = ray.get_runtime_context().get_job_id()
job, folder, parent = ray.get(told.remote())
print(json.dumps({"own": own, "job": job, "same": folder == os.getcwd(), "forked": "keeper.py" in parent}))
"""
LIBRARIES = """
import json, urllib.request
import ray, ray.train
from ray import serve
from ray.train import ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

@ray.remote(num_cpus=0)
class Board:
    def __init__(self):
        self.said = []

    def add(self, line):
        self.said.append(line)

    def read(self):
        return sorted(self.said)

def loop(config):
    context = ray.train.get_context()
    ray.get(config["board"].add.remote([context.get_world_rank(), context.get_world_size()]))

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Doubler:
    async def __call__(self, request):
        return {"twice": 2 * int(request.query_params["x"])}

board = Board.remote()
scaling = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.25}, placement_strategy="SPREAD")
DataParallelTrainer(loop, train_loop_config={"board": board}, scaling_config=scaling).fit()
serve.run(Doubler.bind(), route_prefix="/double")
answer = json.load(urllib.request.urlopen("http://127.0.0.1:8000/double?x=21"))
print(json.dumps({"served": answer, "trained": ray.get(board.read.remote())}))
"""
LISTEN = """
import socket, sys
it = socket.create_server((sys.argv[1], 7))
print("ready", flush=True)
it.accept()
"""
ATTACK = """
import fcntl, glob, json, os, socket, struct

reached, read, changed = [], [], []
for host, port in WANTED:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as it:
            it.settimeout(1)
            try:
                it.connect((host, port))
                it.send(b"x")
                # A datagram to our own loopback goes nowhere, and says nothing.
                if not host.startswith("127."):
                    reached.append([host, port])
                elif kind == socket.SOCK_STREAM:
                    reached.append([host, port])
            except OSError:
                pass
for place in ["SECRET", "/var/run/wireguard", "/root/.ssh", "/etc/shadow", "/dev/net/tun", "/proc/kcore", "/dev/mem"]:
    try:
        found = os.listdir(place) if os.path.isdir(place) else open(place, "rb").read(1)
        if found:
            read.append(place)
    except OSError:
        pass
name = [it for _, it in socket.if_nameindex() if it != "lo"][0]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
    for call, what in ((0x8914, "down"), (0x8916, "address")):
        try:
            fcntl.ioctl(it, call, struct.pack("16sHH4s8x", name.encode(), 2 if what == "address" else 0, 0, bytes([10, 77, 0, 9])))
            changed.append(what)
        except OSError:
            pass
for family, kind in ((17, 3), (2, 3), (40, 1)):
    try:
        socket.socket(family, kind).close()
        changed.append(["socket", family, kind])
    except OSError:
        pass
programs = ""
for it in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        programs += open(it).read().replace(chr(0), " ") + ";"
    except OSError:
        pass
print(json.dumps({"reached": reached, "interfaces": sorted(it for _, it in socket.if_nameindex()), "read": read,
    "changed": changed, "programs": programs}))
"""
WAKERS = """
import os, signal

signal.signal(signal.SIGHUP, signal.SIG_IGN)
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        while not os.path.exists("/job/enough"):
            for entry in os.listdir("/proc"):
                if entry.isdigit() and int(entry) > 2:
                    try:
                        os.kill(int(entry), signal.SIGCONT)
                    except OSError:
                        pass
        os._exit(0)
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
LOGS = "free -m; find / -name 'ray_client_server*' -exec tail -n 40 {} + 2>/dev/null; exit\n"


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


def test_a_forked_worker_knows_its_job(rental: Rental):
    """Workers are forked from a Python that has Ray loaded, and each is of its own driver's job, in its working directory."""
    first, second = rental.job(FORKED), rental.job(FORKED)
    for it in (first, second):
        assert (it["job"], it["same"], it["forked"]) == (it["own"], True, True)
    assert first["own"] != second["own"]


def test_a_driver_at_home_reaches_the_cluster(rental: Rental):
    """Ray's client works from the renter's own machine, over the mesh."""
    (rental.folder / "client.py").write_text(CLIENT)
    code, said = rental.run(rental.ray("python", "client.py", f"ray://{rental.head}:10001"))
    assert code == 0, said[-2000:] + rental.shell(0, LOGS)
    assert "sum 14" in said


def test_a_stranger_without_the_token_is_refused(rental: Rental):
    """Who is in the mesh and doesn't hold the lease's token gets no job in."""
    code, said = rental.run(rental.ray("ray", "job", "list", token=False))
    assert code != 0
    assert "401" in said or "nauthorized" in said or "uthentication" in said, said[-2000:]


def test_heartbeats_tell_of_chains_that_can_be_done_again(rental: Rental):
    """Each reading's values follow from its seed by as many links as it says, and the tenant's time is counted without the sentinel's."""
    seed = bytes(range(32))
    stay = rental.stays[1]
    first = rental.run(stay.beat(seed))
    reading = rental.run(stay.beat(seed))
    while reading.links[0] < 1:
        reading = rental.run(stay.beat(seed))
    value = sentinel.first(seed, 0)
    for _ in range(reading.links[0]):
        value = sentinel.link(value, seed)
    assert reading.values == (value,)
    assert reading.tenant_ms >= first.tenant_ms > 0


def test_a_shell_without_ssh(rental: Rental):
    """Who holds the token gets a terminal on a machine, whose `python` is the cluster's."""
    seen = rental.shell(1, "cd /; which python; echo $RAY_ADDRESS; exit\n")
    assert "/peers/ray/bin/python" in seen
    assert f"{rental.head}:6379" in seen


def test_ray_train_and_ray_serve_work(rental: Rental):
    """A trainer's workers run on machines of the cluster, and a deployment answers over HTTP: any program of Ray's is a job here."""
    assert rental.job(LIBRARIES) == {"served": {"twice": 42}, "trained": [[0, 2], [1, 2]]}


def test_a_notebook_over_the_mesh(rental: Rental):
    """JupyterLab runs beside Ray and starts a kernel for who holds its key, nothing for others, and is gone with its session."""
    seen = rental.notebook(0)
    assert (seen["page"], seen["title"]) == (200, True)
    assert seen["stranger"] == 403
    assert seen["kernel"]["name"] == "python3"
    ends = (
        "until [ $(ps -eo args | grep -c '[j]upyterlab') = 0 ]; do sleep 0.2; done; echo go$((0))ne; exit\n"
    )
    assert "go0ne" in rental.shell(0, ends)


def test_the_tenant_reaches_nothing_but_the_mesh(rental: Rental):
    """No host, no relay, no other lease, no file of the node's, no sentinel, no key; the mesh's interface can't be changed."""
    host, address = rental.internet.host()
    listener = host.start(LISTEN, address)
    try:
        assert listener.stdout
        assert listener.stdout.readline() == "ready\n"
        # Nets are few enough (2^14) that a drawn lease may have the one that is tried: then another is.
        nets = [net_of(Digest(bytes([it]) * 32)) for it in range(3)]
        other = next(it for it in nets if it.prefix != rental.net.prefix).address(0)
        relay = next(iter(rental.ports[1].values()))
        wanted = [[address, 7], list(relay), [other, 6379], ["127.0.0.1", 22]]
        program = ATTACK.replace("WANTED", json.dumps(wanted)).replace("SECRET", str(rental.token))
        seen = rental.shell(1, f"cat > attack.py <<'EOF'\n{program}\nEOF\npython attack.py; exit\n")
    finally:
        listener.kill()
        listener.communicate()
    told = json.loads([line for line in seen.splitlines() if line.startswith('{"reached"')][-1])
    assert told["reached"] == []
    assert told["interfaces"] == sorted(["lo", rental.stays[1].interface])
    assert told["read"] == []
    assert told["changed"] == []
    assert "raylet" in told["programs"]
    assert "sentinel" not in told["programs"]
    assert "wireguard" not in told["programs"]


def test_a_frozen_tenant_cannot_wake_itself(rental: Rental):
    """Processes that wake each other all day stand still nevertheless, use no time, and go on when they are let."""
    stay = rental.stays[1]
    rental.shell(
        1, f"cat > wake.py <<'EOF'\n{WAKERS}\nEOF\npython wake.py >/dev/null 2>&1 </dev/null; exit\n"
    )
    rental.run(stay.freeze())
    before = rental.run(stay.beat(bytes(32))).tenant_ms
    assert rental.run(stay.beat(bytes(32))).tenant_ms == before
    rental.run(stay.thaw())
    assert "gone on" in rental.shell(1, "touch /job/enough; echo gone $((0))on | tr -d 0; exit\n")


def test_a_machine_is_exchanged(rental: Rental):
    """A worker's plug is pulled, which all others hear. Another joins, who waits on the old one hears of it at once, and the next driver has as many machines as before."""
    netns.pushns(f"/proc/{rental.stays[0].processes()[0]}/ns/net")
    try:
        waiting = socket.create_connection((rental.net.address(2), SHELL_PORT), 10)
    finally:
        netns.popns()
    rental.internet.part(rental.hosts[2], apart=True)
    rental.run(rental.unheard(2))
    assert rental.stays[0].silent()[1] < rental.stays[0].silent()[2]
    host, _ = rental.internet.host()
    rental.run(rental.exchange(2, 3, host))
    with waiting, pytest.raises(ConnectionError):
        waiting.recv(1)
    seen = rental.shell(0, f"cat > again.py <<'EOF'\n{TRAIN}\nEOF\npython again.py; exit\n")
    told = json.loads([line for line in seen.splitlines() if line.startswith('{"nodes"')][-1])
    assert rental.net.address(3) in told["seen"] or told["nodes"] >= 3


def lives(pid: int) -> bool:
    """Not even what died and whose parent hasn't noticed."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


DAEMON = """
import asyncio, sys
from pathlib import Path
from clusterai.protocol.ids import Digest
from clusterai.work.cluster.adapters.stay import Stay, StaySettings
from clusterai.work.cluster.spec import ClusterSpec

async def main():
    settings = StaySettings(ray=Path(sys.argv[1]), cores=(0,))
    spec = ClusterSpec(memory_bytes=512 << 20, disk_bytes=256 << 20)
    stay = await Stay.open(Digest(bytes.fromhex(sys.argv[3])), 0, spec, Path(sys.argv[2]), settings)
    await stay.beat(bytes(32))
    print(*stay.processes(), *stay.helpers(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_killed_node_takes_its_tenant_with_it(tmp_path: Path):
    """`kill -9` of the daemon ends sandbox, sentinel and interface; what names are left are swept, and the same lease opens again."""
    lease = os.urandom(32).hex()
    for _ in range(2):
        asyncio.run(sweep(tmp_path))
        assert not list(tmp_path.iterdir())
        daemon = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(environment()), str(tmp_path), lease],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert daemon.stdout
        pids = [int(it) for it in daemon.stdout.readline().split()]
        assert len(pids) >= 5
        daemon.kill()
        daemon.communicate()
        deadline = time.monotonic() + 120
        while left := [pid for pid in pids if lives(pid)]:
            assert time.monotonic() < deadline, left
    asyncio.run(sweep(tmp_path))
    assert not Path("/var/run/wireguard", f"ca{lease[:8]}0.sock").exists()


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
