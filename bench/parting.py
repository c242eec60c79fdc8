"""How long a job hangs whose cluster loses a worker to a cut in the mesh: as rented, and as Ray alone leaves it.

    python -m bench.parting [--cut-s 60] [--exchange-s 30]

As root, with `scripts/install.py peers ray`. A head, a worker and a renter are network namespaces of this machine. A job whose tasks run on both begins; 20 s later all the
worker's packets are dropped; after `exchange-s` another machine takes its place, as a gateway has it; after `cut-s` the wire is whole again. In turn:

    rented    connections with who left the mesh end at once, and who waits for an answer asks after 75 s whether the other is there
    plain     neither: Ray's clients ask after 300 s
"""

import argparse
import asyncio
import contextlib
import os
import time
from unittest import mock

from clusterai.work.cluster.adapters import stay
from clusterai.work.cluster.core import raycluster
from tests.rooms.cluster import renting
from tests.rooms.cluster.renting import Rental

JOB = """
import ray, time
ray.init()

@ray.remote(num_cpus=0.25, max_retries=10)
def work(at):
    time.sleep(1)
    return ray.get_runtime_context().get_node_id()

for _ in range(20):
    ray.get([work.options(scheduling_strategy="SPREAD").remote(at) for at in range(8)])
"""
BEFORE_S = 20.0
MOST_S = 900.0
PLAIN = {
    "RAY_grpc_client_keepalive_time_ms": "300000",
    "RAY_grpc_client_keepalive_timeout_ms": "120000",
}
"""Ray's own defaults."""


async def hung(rental: Rental, cut_s: float, exchange_s: float) -> float:
    """Seconds from the wire's being whole to the job's end."""
    folder = rental.folder / "work"
    folder.mkdir()
    (folder / "job.py").write_text(JOB)
    words = ("ray", "job", "submit", "--working-dir", ".", "--", "python", "job.py")
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(rental.ray(*words, folder=folder))
        await asyncio.sleep(BEFORE_S)
        worker = rental.hosts[1]
        rental.internet.part(worker, apart=True)
        cut = time.monotonic()
        tasks.create_task(exchanged(rental, exchange_s))
        await asyncio.sleep(cut_s)
        rental.internet.part(worker, apart=False)
        code, said = await job
        ended_s = time.monotonic() - cut - cut_s
    assert code == 0, said[-3000:]
    return ended_s


async def exchanged(rental: Rental, after_s: float) -> None:
    await asyncio.sleep(after_s)
    another, _ = rental.internet.host()
    await rental.exchange(1, 2, another)


def played(cut_s: float, exchange_s: float, *, plain: bool) -> float:
    with contextlib.ExitStack() as settings:
        settings.enter_context(mock.patch.object(renting, "DEADLINE_S", MOST_S))
        if plain:
            settings.enter_context(mock.patch.object(stay, "abort"))
            settings.enter_context(mock.patch.dict(raycluster.KEEPALIVE, PLAIN))
        rental = Rental(2)
        try:
            rental.run(rental.begin())
            return rental.run(hung(rental, cut_s, exchange_s))
        finally:
            rental.end()


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--cut-s", type=float, default=60)
    words.add_argument("--exchange-s", type=float, default=30)
    asked = words.parse_args()
    busy, _, _ = os.getloadavg()
    rented_s = played(asked.cut_s, asked.exchange_s, plain=False)
    print(f"rented  ended {rented_s:.0f} s after the wire was whole", flush=True)
    plain_s = played(asked.cut_s, asked.exchange_s, plain=True)
    print(f"plain   ended {plain_s:.0f} s after the wire was whole")
    print(f"ratio   {rented_s / plain_s:.2f}   (load {busy:.1f} before)")


if __name__ == "__main__":
    main()
