"""What a killed process laid out in memory doesn't stay there: its guard removes it, and if that died too, the next start does."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from clusterai.sandbox.adapters import residue
from clusterai.sandbox.adapters.native import find_bwrap
from clusterai.sandbox.adapters.volume import MEMORY
from tests.system.running import until

LAYS_OUT = """
import sys
from pathlib import Path
from clusterai.sandbox.adapters import residue

memory = Path(sys.argv[1])
if sys.argv[2] == "guarded":
    residue.guard(memory)
    residue.guard(memory)
place = memory / f"{residue.prefix()}rows"
place.mkdir()
(place / "data.csv").write_text("patient\\n1\\n")
print(place, flush=True)
sys.stdin.read()
"""


class Laying:
    """A process of its own that lays something out and waits."""

    def __init__(self, memory: Path, how: str) -> None:
        command = [sys.executable, "-c", LAYS_OUT, str(memory), how]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.place = Path(self.process.stdout.readline().strip())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def memory(tmp_path: Path) -> Generator[Path]:
    """In the machine's memory file system, where rows lie; a folder of this test's."""
    place = MEMORY / f"test-residue-{os.getpid()}"
    place.mkdir()
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_kill_9_leaves_nothing(memory: Path) -> None:
    """The guard outlives its parent by as long as it takes to remove the rows, and no longer."""
    laying = Laying(memory, "guarded")
    assert (laying.place / "data.csv").exists()
    laying.kill()
    until("the rows are gone", lambda: not laying.place.exists())


def test_of_two_only_the_dead_ones_rows_go(memory: Path) -> None:
    """Another process's number may begin alike."""
    laying, other = Laying(memory, "guarded"), Laying(memory, "guarded")
    longer = memory / laying.place.name.replace(str(laying.process.pid), f"{laying.process.pid}0", 1)
    longer.mkdir()
    laying.kill()
    until("the rows are gone", lambda: not laying.place.exists())
    assert other.place.exists()
    assert longer.exists()
    other.kill()
    until("the other's rows are gone", lambda: not other.place.exists())


def test_without_a_guard_the_next_start_sweeps(memory: Path) -> None:
    """Whoever lives keeps what is its own, whoever is dead loses it, and who has its number since doesn't own it."""
    dead, alive = Laying(memory, "alone"), Laying(memory, "alone")
    dead.kill()
    assert residue.left(memory) == [dead.place]
    assert residue.sweep(memory) == 1
    assert not dead.place.exists()
    assert alive.place.exists()
    alive.kill()
    assert residue.sweep(memory) == 1


def test_another_containers_numbers_are_not_judged(memory: Path) -> None:
    """Two containers share the memory folder, and to each the other's processes don't exist: the rows of a program that runs stay."""
    alive = Laying(memory, "alone")
    sweeps = f"from pathlib import Path; from clusterai.sandbox.adapters import residue; print(residue.sweep(Path('{memory}')))"
    walls = (str(find_bwrap()), "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc")
    done = subprocess.run([*walls, sys.executable, "-c", sweeps], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
    assert (alive.place / "data.csv").exists()
    alive.kill()


def test_a_number_that_was_given_again_owns_nothing(memory: Path) -> None:
    """A folder that is older than the process which bears its number is somebody else's."""
    place = memory / f"{residue.prefix()}rows"
    place.mkdir()
    assert residue.left(memory) == []
    assert residue.left(memory, booted_s=place.stat().st_ctime + 60) == [place]
