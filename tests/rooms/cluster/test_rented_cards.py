"""A whole rented machine with cards in it, and what it tells when memory runs out. No real card is behind these."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clusterai.protocol.ids import Digest
from clusterai.work.cluster.adapters import stay as stays
from clusterai.work.cluster.adapters.stay import Stay, StayFailed, StaySettings
from clusterai.work.cluster.spec import ClusterSpec
from tests.rooms.cluster.fakecards import UUIDS, Machine, listing
from tests.rooms.cluster.renting import Rental, environment

COMPUTE = """
import json, os
import ray

ray.init()

@ray.remote(num_gpus=1)
def on_a_card():
    seen = sorted(it for it in os.listdir("/dev") if it.startswith("nvidia"))
    return os.environ["CUDA_VISIBLE_DEVICES"], seen

@ray.remote(num_gpus=1)
class Holder:
    def card(self):
        return os.environ["CUDA_VISIBLE_DEVICES"]

task, dev = ray.get(on_a_card.remote())
holders = [Holder.remote() for _ in range(2)]
print(json.dumps({
    "gpus": ray.cluster_resources().get("GPU"), "task": task, "dev": dev,
    "cards": sorted(ray.get([it.card.remote() for it in holders])),
}))
"""
HUNGRY = """
import ray

ray.init()

@ray.remote(max_retries=0)
def eats():
    held = []
    while True:
        held.append(bytearray(b"x") * (64 << 20))

ray.get(eats.remote())
"""


def test_an_unmodified_job_asks_for_cards_and_gets_the_rented_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two of the machine's four: each actor has one of its own; the others are in nobody's sight. Memory that runs out is told."""
    machine = Machine(tmp_path, 4, monkeypatch)
    rental = Rental(1, (0, 1), 2, machine.cards(2, UUIDS[1], UUIDS[3]))
    try:
        rental.run(rental.begin())
        told = rental.job(COMPUTE)
        assert told["gpus"] == 2.0
        assert told["dev"] == ["nvidia-uvm", "nvidia-uvm-tools", "nvidia1", "nvidia3", "nvidiactl"]
        assert told["task"] in {"0", "1"}
        assert told["cards"] == ["0", "1"]
        stay = rental.stays[0]
        log = stay.log(0)[1].decode()
        assert f"card 1 (NVIDIA H100 80GB HBM3, {UUIDS[1][:12]}): 0 of 81559 MiB used" in log
        assert stay.news() == []
        words = rental.run(starved(rental, stay))
        assert "out of memory: 2 GiB were all used, and the kernel killed a process" in words
        assert words.endswith("--mem 4G")
    finally:
        rental.end()
    assert machine.cards(2, UUIDS[1], UUIDS[3]).take(2).uuids == {UUIDS[1], UUIDS[3]}


async def opened(machine: Machine, settings: StaySettings, gpus: int) -> Stay:
    spec = ClusterSpec(memory_bytes=512 << 20, disk_bytes=256 << 20, gpus=gpus)
    return await Stay.open(Digest(os.urandom(32)), 0, spec, machine.folder / "stays", settings)


def test_an_owner_who_computes_on_a_rented_card_is_told_of_and_not_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Villain: it takes no processor time, and is counted all the same; the node's own process isn't."""
    machine = Machine(tmp_path, 2, monkeypatch)
    monkeypatch.setattr(stays, "CARDS_S", 0.05)

    async def main() -> None:
        settings = StaySettings(ray=environment(), cores=(0,), cards=machine.cards(1))
        stay = await opened(machine, settings, 1)
        miner = _orphan()
        try:
            machine.says(
                listing(2, users=[(0, miner, "sleep"), (1, miner, "sleep"), (0, os.getpid(), "python")])
            )
            told = await first_news(stay)
            assert told == [
                (
                    "cards",
                    f"sleep (process {miner} of the machine's owner) is on a rented card; its time isn't charged",
                )
            ]
            reading = await stay.beat(bytes(32))
            assert reading.foreign >= 1
            assert miner in [it.pid for it in stay.foreigners]
            assert os.getpid() not in [it.pid for it in stay.foreigners]
            machine.says(listing(1))
            assert not stay.gone.done()
            machine.says(listing(0))
            assert await stay.gone == "1 cards were rented, the driver finds 0 of them"
            machine.says(listing(2))
        finally:
            os.kill(miner, signal.SIGKILL)
            await stay.close()

    asyncio.run(main())


async def starved(rental: Rental, stay: Stay) -> str:
    """What is told when a job takes all memory: of a worker that died, or with the machine if the kernel chose Ray's own."""
    folder = rental.folder / "hungry"
    folder.mkdir()
    (folder / "hungry.py").write_text(HUNGRY)
    words = ("ray", "job", "submit", "--working-dir", ".", "--", "python", "hungry.py")
    eats = asyncio.create_task(rental.ray(*words, folder=folder))
    try:
        ((code, said),) = await first_news(stay)
        assert code == "memory"
        assert f"clusterai: {said}" in stay.log(0)[1].decode()
        return said
    finally:
        eats.cancel()
        await asyncio.wait([eats])


async def first_news(stay: Stay) -> list[tuple[str, str]]:
    async with asyncio.timeout(280):
        while True:
            if told := stay.news():
                return told
            await asyncio.sleep(0.02)


def _orphan() -> int:
    """A process that nobody of ours is an ancestor of."""
    code = "import os,sys\nif os.fork(): os._exit(0)\nos.setsid(); print(os.getpid(), flush=True); os.close(1); os.execvp('sleep', ['sleep', '600'])"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.parametrize(
    ("cards", "why"), [(False, "no graphics cards are lent here"), (True, "used by miner")]
)
def test_a_stay_without_its_cards_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: bool, why: str
):
    """Its renter reads why, and nothing is left."""
    machine = Machine(tmp_path, 1, monkeypatch)
    machine.says(listing(1, users=[(0, 1, "miner")]))
    settings = StaySettings(ray=environment(), cores=(0,), cards=machine.cards(1) if cards else None)
    with pytest.raises(StayFailed, match=why) as failed:
        asyncio.run(opened(machine, settings, 1))
    assert failed.value.code == "no-gpu"
    assert not (machine.folder / "stays").exists() or not list((machine.folder / "stays").iterdir())
