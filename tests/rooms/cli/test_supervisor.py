"""The supervisor with real processes that do little: they restart, they give up, and none is left behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from clusterai.cli.failure import Failure
from clusterai.cli.local.supervisor import Service, Supervisor

DEADLINE_S = 120.0

# Written beside and moved there: whoever looks in between finds the mark before, and never half of one.
MARKS = "mark = pathlib.Path({mark!r})\nmark.with_suffix('.new').write_text(str(pid))\nmark.with_suffix('.new').rename(mark)\n"
LIVES = "import pathlib, os, time\npid = os.getpid()\n" + MARKS + "time.sleep(600)\n"
FORKS = (
    "import pathlib, subprocess, sys, time\n"
    "pid = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid\n"
    + MARKS
    + "time.sleep(600)\n"
)
DIES = "print('no such luck', flush=True)\nraise SystemExit(3)\n"


class Bench:
    """Writes daemons of a few lines into a folder that Python finds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def service(self, name: str, code: str, rank: int = 0) -> Service:
        mark = self.folder / f"{name}.mark"
        (self.folder / f"daemon_{name}.py").write_text(code.format(mark=str(mark)))

        async def ready() -> bool:
            return mark.exists() and mark.read_text() != ""

        environment = (("PYTHONPATH", os.pathsep.join((str(self.folder), *sys.path))),)
        return Service(
            name, "test", f"daemon_{name}", (), self.folder / name / "log", ready, rank, "", environment
        )

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.mark").read_text())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not look():  # noqa: ASYNC110  other processes decide
            await asyncio.sleep(0.02)


def supervised(story: Callable[[Supervisor], Awaitable[None]]) -> None:
    async def play() -> None:
        supervisor = Supervisor(lambda: None)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await story(supervisor)
        finally:
            await supervisor.stop()

    asyncio.run(play())


def test_a_killed_process_is_started_again(bench: Bench):
    """`kill -9` costs a moment: another process takes its place, and the restart is counted."""

    async def story(supervisor: Supervisor) -> None:
        supervisor.start(bench.service("one", LIVES))
        await supervisor.until_ready("one")
        first = bench.pid("one")
        os.kill(first, signal.SIGKILL)
        await until(lambda: bench.pid("one") != first)
        state = supervisor.states()[0]
        assert state.restarts == 1
        assert state.last_error == "SIGKILL"

    supervised(story)


def test_another_program_takes_its_place_at_the_next_start_when_it_is_told_to(bench: Bench):
    """What runs instead is asked at each start, so that a node can be made a villain, and honest again, while `up` runs."""
    wanted: list[tuple[str, ...] | None] = [None]

    async def story(supervisor: Supervisor) -> None:
        villain = bench.service("villain", LIVES)
        honest = msgspec.structs.replace(bench.service("honest", LIVES), instead=lambda: wanted[0])
        supervisor.start(honest)
        await supervisor.until_ready("honest")
        wanted[0] = (villain.module,)
        await supervisor.restart("honest")
        await until((bench.folder / "villain.mark").exists)
        wanted[0] = None
        before = bench.pid("honest")
        await supervisor.restart("honest")
        await until(lambda: bench.pid("honest") != before)

    supervised(story)


def test_a_process_that_never_gets_ready_ends_the_whole_with_its_last_words(bench: Bench):
    """Three tries, then the failure shows the end of its log and where the rest is."""

    async def story(supervisor: Supervisor) -> None:
        supervisor.start(bench.service("doomed", DIES))
        with pytest.raises(Failure) as failure:
            await supervisor.until_ready("doomed")
        assert "exit code 3" in failure.value.what
        assert "no such luck" in failure.value.why
        assert str(bench.folder / "doomed" / "log") in failure.value.next

    supervised(story)


def test_stop_leaves_nothing_not_even_what_daemons_forked(bench: Bench):
    """A daemon's own children die with it."""

    async def story(supervisor: Supervisor) -> None:
        supervisor.start(bench.service("parent", FORKS))
        supervisor.start(bench.service("other", LIVES, rank=1))
        await supervisor.until_ready("parent", "other")

    supervised(story)
    assert not alive(bench.pid("other"))
    # The kernel takes its own moment to end the grandchild, which nobody can wait for.
    asyncio.run(until(lambda: not alive(bench.pid("parent"))))


def test_daemons_end_when_their_supervisor_is_killed(bench: Bench):
    """The leash: no signal reaches the daemon, and it ends all the same."""
    service = bench.service("leashed", LIVES)
    read, write = os.pipe()
    os.set_inheritable(read, True)
    command = [sys.executable, "-m", "clusterai.cli.local.leash", str(read), service.module]
    environment = os.environ | dict(service.environment)
    with subprocess.Popen(command, pass_fds=(read,), env=environment) as daemon:
        os.close(read)
        asyncio.run(until(lambda: (bench.folder / "leashed.mark").exists()))
        os.close(write)
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(timeout=DEADLINE_S)
        assert daemon.returncode == -signal.SIGTERM
