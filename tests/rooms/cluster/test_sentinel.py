"""The sentinel's chains: what it says it did can be done again, it takes up each beacon, and it dies with its tenant."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from clusterai.work.cluster.inside import sentinel

SEED = bytes(range(32))


class Running:
    """A sentinel on the first core, as the tenant's sandbox starts it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(sentinel.__file__)), "0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(SEED)

    def _say(self, beacon: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(beacon.hex() + "\n")
        self.process.stdin.flush()

    def beat(self, beacon: bytes) -> dict[str, Any]:
        self._say(beacon)
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def until(self, beacon: bytes, links: int) -> dict[str, Any]:
        """Beats until so many links are done."""
        told = self.beat(beacon)
        while told["links"][0] < links:
            told = self.beat(beacon)
        return told

    def end(self) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(120)


def again(value: bytes, beacon: bytes, links: int) -> bytes:
    for _ in range(links):
        value = sentinel.link(value, beacon)
    return value


def test_a_chain_can_be_done_again_and_begins_anew_with_each_seed():
    """A verifier with the seed and the counts comes to the very values that the sentinel told."""
    running = Running()
    before = running.until(SEED, 3)
    assert again(sentinel.first(SEED, 0), SEED, before["links"][0]).hex() == before["values"][0]
    seed = b"\x07" * 32
    running.beat(seed)
    after = running.until(seed, 2)
    later = running.until(seed, after["links"][0] + 1)
    assert again(sentinel.first(seed, 0), seed, after["links"][0]).hex() == after["values"][0]
    span = later["links"][0] - after["links"][0]
    assert again(bytes.fromhex(after["values"][0]), seed, span).hex() == later["values"][0]
    assert running.end() == 0


def test_a_chain_that_has_not_come_to_its_seed_stands_at_nought():
    """Nothing that was done under another seed is told as done under this one."""
    running = Running()
    running.until(SEED, 2)
    for at in range(20):
        seed = bytes([at]) * 32
        running.beat(seed)
        told = running.beat(seed)
        assert again(sentinel.first(seed, 0), seed, told["links"][0]).hex() == told["values"][0]
    running.end()


def test_chains_of_two_cores_share_nothing():
    """Each core's chain begins elsewhere, so one core's work can't be told as another's."""
    assert sentinel.first(SEED, 0) != sentinel.first(SEED, 1)


def test_it_ends_with_whoever_started_it_and_leaves_nothing():
    """When its input closes, the chains are gone too."""
    running = Running()
    running.until(SEED, 1)
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    assert len(children) == 1
    running.end()
    assert not Path("/proc", children[0]).exists()
