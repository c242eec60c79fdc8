"""Limits on power: what can be set is set and taken back, and what can't is said."""

import os
import subprocess
import sys

import pytest

from clusterai.node.adapters.nvidia import Gpu, NoDriver, parsed
from clusterai.node.adapters.power import PowerLimit
from clusterai.node.config import PowerConfig

CARD = Gpu(0, "NVIDIA H100 80GB HBM3", "570.1", 80 << 30, 700.0, 200.0, 700.0)
SAID = "0, NVIDIA H100 80GB HBM3, 570.124.06, 81559, 700.00, 200.00, 700.00\n1, Quadro T400, 570.124.06, 2048, [N/A], [N/A], [N/A]\n"


def test_the_drivers_table_is_read():
    """Index, name, driver, memory, and watts where the card has a limit."""
    first, second = parsed(SAID)
    assert (first.name, first.limit_w, first.least_w) == ("NVIDIA H100 80GB HBM3", 700.0, 200.0)
    assert second.limit_w is None


@pytest.mark.parametrize("said", ["rubbish", "0, a, b", "x, a, b, 1, 2, 3, 4"])
def test_another_table_is_no_gpu(said: str):
    """What can't be read is a driver's fault, and no crash."""
    with pytest.raises(NoDriver):
        parsed(said)


def test_a_gpus_limit_is_set_and_taken_back():
    """The limit holds while the node runs; at its end the card has what it had."""
    set_to: list[float] = []
    power = PowerLimit(PowerConfig(gpu_watts=300), lambda: (CARD,), lambda _, watts: set_to.append(watts))
    assert power.set() == []
    power.undo()
    power.undo()
    assert set_to == [300.0, 700.0]


def test_a_limit_outside_of_the_cards_is_the_nearest_and_said():
    """Below the least that the card takes it is that least."""
    set_to: list[float] = []
    power = PowerLimit(PowerConfig(gpu_watts=50), lambda: (CARD,), lambda _, watts: set_to.append(watts))
    (said,) = power.set()
    assert "200 to 700 W" in said
    assert set_to == [200.0]


def test_without_permission_it_is_said_and_nothing_is_taken_back():
    """A driver that refuses makes a sentence, not an end."""

    def refuse(_: Gpu, __: float) -> None:
        raise NoDriver("insufficient permissions")

    power = PowerLimit(PowerConfig(gpu_watts=300), lambda: (CARD,), refuse)
    assert "insufficient permissions" in power.set()[0]
    power.undo()


def test_without_a_gpu_it_is_said():
    """A limit of what isn't there is told, once."""
    assert "no NVIDIA GPU" in PowerLimit(PowerConfig(gpu_watts=300), tuple).set()[0]


def test_processors_and_priority_are_inherited():
    """A process with these limits runs on one core, behind others, and so do its children."""
    program = (
        "import os, subprocess, sys\n"
        "from clusterai.node.adapters.power import PowerLimit\n"
        "from clusterai.node.config import PowerConfig\n"
        "assert PowerLimit(PowerConfig(cores=1, nice=7)).set() == []\n"
        "child = 'import os; print(len(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, 0))'\n"
        "subprocess.run([sys.executable, '-c', child], check=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cores, nice = map(int, done.stdout.split())
    assert cores == 1
    assert nice >= max(7, os.getpriority(os.PRIO_PROCESS, 0))
