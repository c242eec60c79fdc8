"""Programs behind the walls: they get what they were given, are held to their limits, and learn why they ended."""

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from blake3 import blake3

from clusterai.sandbox import (
    Bind,
    Container,
    Leash,
    Limits,
    NativeRunner,
    Outcome,
    Reason,
    RootFs,
    Task,
    host_python,
)
from clusterai.sandbox.adapters.cgroup import Group
from clusterai.sandbox.adapters.runner import Logs
from clusterai.sandbox.adapters.running import Running, Wires
from tests.rooms.sandbox.boxes import folder, native, python, store, uncounted


def test_a_program_reads_its_inputs_and_leaves_its_outputs() -> None:
    """Inputs are there by name and read-only, files in out come back by content, and nothing else of the volume does."""
    digest = store().put(b"hello")
    outcome = python(
        """
import os
text = open('/job/in/a/b.txt').read()
try: open('/job/in/a/b.txt', 'w')
except OSError as error: print(error.strerror)
os.mkdir('out/deep'); open('out/deep/x', 'w').write(text.upper()); open('scrap', 'w').write('no')
""",
        inputs={"a/b.txt": digest},
    )
    assert outcome.ok, outcome
    assert [output.name for output in outcome.outputs] == ["deep/x"]
    assert store().read(outcome.outputs[0].digest) == b"HELLO"
    assert outcome.stdout in (b"Read-only file system\n", b"Permission denied\n")
    assert outcome.usage.wall_ms > 0


def test_its_own_exit_code_is_told() -> None:
    """A code and a signal of its own are failures of the program."""
    outcome = python("raise SystemExit(3)")
    assert (outcome.reason, outcome.exit_code) == (Reason.FAILED, 3)
    outcome = python("import os; os.kill(os.getpid(), 11)")
    assert (outcome.reason, outcome.exit_code) == (Reason.FAILED, 139)
    assert "signal 11" in outcome.why


@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        ("x = [bytearray(b'x' * (1 << 20)) for _ in range(300)]", {"memory_bytes": 48 << 20}, Reason.OUT_OF_MEMORY),
        ("import time; time.sleep(60)", {"wall_s": 1}, Reason.OUT_OF_TIME),
        ("while True: pass", {"cpu_s": 1}, Reason.OUT_OF_CPU),
        ("open('x', 'wb').write(bytes(2 << 20))", {"disk_bytes": 1 << 20}, Reason.OUT_OF_DISK),
        ("import threading, time\nfor _ in range(50): threading.Thread(target=time.sleep, args=(2,)).start()", {"processes": 8}, Reason.TOO_MANY_PROCESSES),
        ("print('x' * 10**6)", {"output_bytes": 1000}, Reason.TOO_MUCH_OUTPUT),
        ("[open('/dev/null') for _ in range(100)]", {"open_files": 32}, Reason.FAILED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("counted", [True, False])
def test_the_limit_that_is_met_ends_it(
    code: str, limits: dict[str, int], reason: Reason, counted: bool
) -> None:
    """Each limit is enforced, with control groups and without, and the tenant reads which one it was."""
    outcome = python(code, runner=native() if counted else uncounted(), limits=limits)
    assert outcome.reason is reason, outcome
    assert outcome.why


def test_exactly_as_much_as_was_asked_for_is_there() -> None:
    """A task of one process may be one, and one that fills its volume to the last page has done nothing wrong."""
    assert python("print(1)", limits={"processes": 1}).ok
    assert python("open('x', 'wb').write(bytes((1 << 20) - 65536))", limits={"disk_bytes": 1 << 20}).ok


def test_its_processor_share_is_a_share() -> None:
    """A task with a tenth of a core has used no more than that, and a bit, when its time is over, where control groups are."""
    outcome = python("while True: pass", limits={"cpu_milli": 100, "wall_s": 2})
    assert outcome.reason is Reason.OUT_OF_TIME
    assert native().groups is None or outcome.usage.cpu_ms < 1000


def test_output_streams_while_it_runs() -> None:
    """A line is seen before the program ends, and a program can be ended upon it."""
    leash = Leash()
    seen: list[tuple[str, bytes]] = []

    async def test() -> Outcome:
        return await native().run(
            Task(
                image=RootFs("python"),
                argv=("sh", "-c", "echo ready; echo oh >&2; while :; do sleep 1; done"),
                limits=Limits(wall_s=20),
            ),
            leash=leash,
            on_log=lambda stream, data: (seen.append((stream, data)), leash.cancel())[0],
        )

    outcome = asyncio.run(test())
    assert outcome.reason is Reason.CANCELLED
    assert ("stdout", b"ready\n") in seen
    assert outcome.stdout == b"ready\n"


def test_a_lease_that_ended_before_it_began_runs_nothing() -> None:
    """A leash that was already pulled leaves the program no time."""
    leash = Leash()
    leash.end()
    leash.cancel()
    outcome = python("import time; time.sleep(60)", leash=leash)
    assert outcome.reason is Reason.LEASE_ENDED


def test_a_long_log_is_cut_and_says_so() -> None:
    """The outcome keeps the beginning, flagged; who listens gets all of it."""
    seen = bytearray()
    outcome = python("print('x' * 200_000)", on_log=lambda _, data: seen.extend(data))
    assert outcome.ok
    assert outcome.truncated
    assert len(outcome.stdout) == 64 * 1024
    assert len(seen) == 200_001
    assert not python("print(1)").truncated


def test_what_can_not_be_run_is_refused() -> None:
    """Other images, unknown roots, a network and inputs that are not here: refused, with what to do."""

    def ask(task: Task) -> str:
        outcome = asyncio.run(native().run(task))
        assert outcome.reason is Reason.REFUSED
        return outcome.why

    assert "container" in ask(Task(image=Container("sha256:" + "0" * 64), argv=("x",)))
    assert "python" in ask(Task(image=RootFs("windows"), argv=("x",)))
    assert "network" in ask(Task(image=RootFs("python"), argv=("x",), network=True))
    missing = blake3(b"never stored").digest()
    assert "upload it" in ask(Task(image=RootFs("python"), argv=("x",), inputs={"a": missing}))  # pyright: ignore[reportArgumentType]


def test_a_program_that_is_not_there_fails_by_name() -> None:
    """An argv that names nothing is the tenant's failure, told in its log."""
    outcome = asyncio.run(native().run(Task(image=RootFs("python"), argv=("no-such-program",))))
    assert outcome.reason is Reason.FAILED
    assert b"no-such-program" in outcome.stderr


def test_tasks_run_side_by_side() -> None:
    """Several at once don't see or disturb each other."""

    async def test() -> list[Outcome]:
        return await asyncio.gather(
            *(
                native().run(
                    Task(
                        image=RootFs("python"),
                        argv=("sh", "-c", f"echo {n} > out/n; ls /proc | grep -c '^[0-9]'"),
                    )
                )
                for n in range(4)
            )
        )

    outcomes = asyncio.run(test())
    assert [store().read(outcome.outputs[0].digest) for outcome in outcomes] == [
        b"0\n",
        b"1\n",
        b"2\n",
        b"3\n",
    ]
    assert all(int(outcome.stdout) <= 4 for outcome in outcomes)


def test_a_cancelled_run_leaves_no_process() -> None:
    """When the coroutine is cancelled its program is dead before it returns."""
    seen: list[bytes] = []

    async def test() -> None:
        ready = asyncio.Event()
        task = Task(image=RootFs("python"), argv=("sh", "-c", "echo up; exec sleep 60"))
        running = asyncio.ensure_future(
            native().run(task, on_log=lambda _, data: (seen.append(data), ready.set())[0])
        )
        await ready.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(test())
    assert seen == [b"up\n"]
    assert list((native().folder).iterdir()) == []
    if native().groups is not None:
        assert native().living() == []


@pytest.mark.parametrize("turns", range(4))
def test_a_run_that_is_cancelled_again_while_it_ends_leaves_no_process(turns: int) -> None:
    """A daemon that closes cancels what is being cancelled: its program is waited for all the same, and its pipes are read to their end."""
    before = children()

    async def test() -> None:
        ready = asyncio.Event()
        task = Task(image=RootFs("python"), argv=("sh", "-c", "echo up; exec sleep 60"))
        running = asyncio.ensure_future(native().run(task, on_log=lambda _, __: ready.set()))
        await ready.wait()
        running.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(test())
    assert children() <= before


def children() -> set[str]:
    """Of this process: those that nobody waited for, too."""
    found = [it.read_text().split() for it in Path("/proc/self/task").glob("*/children")]
    return {pid for pids in found for pid in pids}


CHILD_ALONE = """
[ -z "$1" ] || for group in $1; do echo $$ > "$group/cgroup.procs"; done
( echo up; exec sleep 1000 ) &
exec sleep 1000
"""
"""As bubblewrap between `clone` and its word to the child: killed now, it leaves one that waits for ever, and holds the pipes."""


@pytest.mark.parametrize("counted", [True, False], ids=["in a control group", "without control groups"])
def test_a_run_that_is_cancelled_while_its_walls_are_built_ends(counted: bool) -> None:
    """Who dies with its parent only from a moment on is dead too when the run is over."""
    group: Group | None = None
    if counted and (groups := native().groups) is not None:
        group = groups.make(f"{os.getpid()}-alone", Limits())

    async def test() -> None:
        up = asyncio.Event()
        task = Task(image=RootFs("python"), argv=("true",))
        logs = Logs(1 << 10, lambda _, data: up.set() if data else None)
        wires = Wires(b"")
        words = ["sh", "-c", CHILD_ALONE, "sh", " ".join(map(str, group.folders)) if group else ""]
        running = Running(task, group, logs, Leash())
        run = asyncio.ensure_future(running.through(words, wires, "0123456789abcdef", store(), "walls"))
        await up.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(test())
    if group is not None:
        assert group.processes() == []
        group.close()
        assert not any(folder.exists() for folder in group.folders)


def test_a_root_below_tmp_is_shown_and_tmp_still_serves() -> None:
    """An installation that lies below /tmp (a checkout there) doesn't stand in the way of the tenant's own /tmp."""
    python_root = host_python()
    with TemporaryDirectory(prefix="clusterai-root-", dir="/tmp") as place:
        (Path(place) / "shown.txt").write_text("shown")
        Path(place).chmod(0o755)
        root = msgspec.structs.replace(python_root, binds=(*python_root.binds, Bind(place, place)))
        runner = NativeRunner(store(), folder() / "below-tmp", {"python": root})
        code = f"""
from pathlib import Path
print(Path({place!r}, "shown.txt").read_text())
Path("/tmp/mine").write_text("mine")
try:
    Path({place!r}, "shown.txt").write_text("changed")
except OSError:
    print({{Path({place!r}).name, "mine"}} <= {{path.name for path in Path("/tmp").iterdir()}})
"""
        outcome = python(code, runner=runner)
    assert outcome.stdout.decode().split() == ["shown", "True"], outcome.stderr
