"""One door: each image to the walls that fit it, a refusal with the cure where there are none, and a doctor who says so."""

import asyncio
import importlib.util
import os
import sys
from pathlib import Path

import pytest

from clusterai.sandbox import (
    CannotSandbox,
    Container,
    Limits,
    NativeRunner,
    Reason,
    RootFs,
    Sandbox,
    Task,
    Wasm,
    doctor,
)
from clusterai.sandbox.adapters.cgroup import ControlGroups, Mount, NoControlGroups, find
from clusterai.sandbox.adapters.container import ContainerRunner
from clusterai.sandbox.adapters.native import host_python
from clusterai.sandbox.adapters.roots import unpack
from clusterai.sandbox.adapters.wasm import sample
from tests.rooms.sandbox.boxes import folder, store
from tests.rooms.sandbox.tars import shell, tar

IMAGE = "sha256:" + "ab" * 32
PODMAN = """#!/bin/sh
echo "$@" >> {calls}
case "$2 $3" in
"inspect {image}") echo '[{{"Config": {{"Env": ["PATH=/tools:/bin", "FROM_IMAGE=yes"], "User": "root"}}}}]' ;;
"mount {image}") echo {root} ;;
"unmount {image}") ;;
*) echo "Error: no such image" >&2; exit 125 ;;
esac
"""


def test_each_image_finds_its_walls() -> None:
    """A WASM module and a root file system run through one door, and their outcomes say what held them."""
    box = Sandbox(store(), folder() / "front")
    python = asyncio.run(
        box.run(Task(image=RootFs("python"), argv=("sh", "-c", "echo $CLUSTERAI_SEED"), seed=5))
    )
    assert (python.stdout, "bubblewrap" in python.runner) == (b"5\n", True)
    module = Task(image=Wasm(store().put(sample())), limits=Limits(memory_bytes=16 << 20))
    wasm = asyncio.run(box.run(module))
    assert (wasm.stdout, "wasmtime" in wasm.runner) == (b"6542\n", True)
    assert "root" in box.name


def test_an_environment_behind_a_link_runs_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the walls this Python stands where its environment really lies, whatever link it was started by."""
    link = tmp_path / "venv"
    link.symlink_to(Path(sys.prefix).resolve())
    monkeypatch.setattr(sys, "prefix", str(link))
    monkeypatch.setattr(sys, "executable", str(link / "bin" / Path(sys.executable).name))
    box = Sandbox(store(), folder() / "linked")
    module = Task(image=Wasm(store().put(sample())), limits=Limits(memory_bytes=16 << 20))
    assert asyncio.run(box.run(module)).stdout == b"6542\n"


def test_without_walls_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the walls can't be built every task is refused, with the cure; no program is started without them."""
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    tmp_path.chmod(0o755)
    with pytest.raises(CannotSandbox, match="user namespaces"):
        NativeRunner(store(), tmp_path / "node", bwrap=broken)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    box = Sandbox(store(), tmp_path / "front")
    assert box.runners == {}
    ran = tmp_path / "ran"
    for image in (RootFs("python"), Wasm(store().put(sample())), Container(IMAGE)):
        outcome = asyncio.run(box.run(Task(image=image, argv=("touch", str(ran)))))
        assert outcome.reason is Reason.REFUSED
        assert "can't run" in outcome.why
    assert not ran.exists()
    rows = {row.name: row for row in doctor(tmp_path / "doctor")}
    assert rows["walls"].state == rows["wasm images"].state == "red"
    assert rows["walls"].found.endswith(")"), "what bubblewrap said is told whole, whatever stands in it"
    assert rows["walls"].cure.startswith("sysctl user.max_user_namespaces")


def test_without_wasmtime_modules_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lacks the engine says how to get it, and still runs the rest."""

    def nothing(_name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    box = Sandbox(store(), tmp_path)
    outcome = asyncio.run(box.run(Task(image=Wasm(store().put(sample())))))
    assert outcome.reason is Reason.REFUSED
    assert "pip install" in outcome.why
    assert "root" in box.runners


def test_the_doctor_tries_everything() -> None:
    """On a machine where the suite passes the walls are green, and every row that is not has a cure."""
    rows = doctor()
    assert {row.name: row.state for row in rows}["walls"] == "green"
    assert all(row.cure for row in rows if row.state != "green")


def test_an_image_is_shown_by_its_engine_and_held_by_our_walls(tmp_path: Path) -> None:
    """The engine mounts and unmounts; the program sees the image's files and environment, and is nobody's root."""
    unpack(store(), store().put(tar(*shell())), tmp_path / "images")
    place = next((tmp_path / "images").iterdir())
    podman, calls = tmp_path / "podman", tmp_path / "calls"
    podman.write_text(PODMAN.format(calls=calls, image=IMAGE, root=place))
    podman.chmod(0o755)
    if os.geteuid() != 0:
        with pytest.raises(CannotSandbox, match="root"):
            ContainerRunner(store(), tmp_path / "node", podman)
        return
    runner = ContainerRunner(store(), tmp_path / "node", podman)
    outcome = asyncio.run(runner.run(Task(image=Container("sha256:" + "00" * 32), argv=("x",))))
    assert outcome.reason is Reason.REFUSED
    assert "podman pull" in outcome.why
    calls.unlink()
    script = "echo $FROM_IMAGE $PATH; while read l; do echo $l; done < /etc/motto; test -e /usr || echo alone"
    outcome = asyncio.run(runner.run(Task(image=Container(IMAGE), argv=("/bin/sh", "-c", script))))
    assert outcome.stdout == b"yes /tools:/bin\nof the tar\nalone\n", outcome
    assert [line.split()[1] for line in calls.read_text().splitlines()] == ["inspect", "mount", "unmount"]


def test_control_groups_of_both_versions_are_found(tmp_path: Path) -> None:
    """Our own group is read from /proc: one tree a controller in version 1, one for all in version 2."""
    (tmp_path / "cgroup").write_text("4:memory:/a/b\n2:cpu,cpuacct:/\n8:pids:/c\n0::/d\n")
    (tmp_path / "mountinfo").write_text(
        "1 0 0:1 / /cg/memory rw - cgroup cgroup rw,memory\n"
        "2 0 0:2 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        "3 0 0:3 /c /cg/pids rw - cgroup cgroup rw,pids\n"
        "4 0 0:4 / /cg/unified rw - cgroup2 cgroup2 rw\n"
        "5 0 0:3 / /box/cg/pids rw - cgroup cgroup rw,pids\n"
    )
    found = find(tmp_path)
    assert {name: (str(mount.folder), mount.version) for name, mount in found.items()} == {
        "memory": ("/cg/memory/a/b", 1),
        "cpu": ("/cg/cpu", 1),
        "cpuacct": ("/cg/cpu", 1),
        "pids": ("/cg/pids", 1),
    }
    unified = tmp_path / "v2"
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("cpu io memory pids\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "mountinfo").write_text(f"4 0 0:4 / {unified} rw - cgroup2 cgroup2 rw\n")
    assert {name: mount.version for name, mount in find(tmp_path).items()} == {
        "cpu": 2,
        "memory": 2,
        "pids": 2,
    }


def test_version_two_is_divided_and_written_as_it_wants(tmp_path: Path) -> None:
    """Limits and counts of a version 2 group lie in its files; a folder stands for the kernel here."""
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    groups = ControlGroups({name: Mount(tmp_path, 2) for name in ("memory", "pids", "cpu")})
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert (tmp_path / "clusterai-node" / "cgroup.procs").read_text() == str(os.getpid())
    group = groups.make("1-a", Limits(memory_bytes=16 << 20, disk_bytes=1 << 20, processes=7, cpu_milli=250))
    place = tmp_path / "clusterai-1-a"
    written = {path.name: path.read_text() for path in place.iterdir()}
    assert written == {
        "memory.max": str(17 << 20),
        "memory.oom.group": "1",
        "cpu.max": "25000 100000",
        "pids.max": "9",
    }
    (place / "memory.stat").write_text("anon 123\nfile 9\n")
    (place / "memory.events").write_text("oom 2\noom_kill 1\n")
    (place / "pids.events").write_text("max 3\n")
    (place / "cpu.stat").write_text("usage_usec 5000\n")
    assert (group.memory_bytes(), group.oom_kills(), group.refused_forks(), group.cpu_ms()) == (123, 1, 3, 5)


def test_groups_that_are_not_ours_are_told(tmp_path: Path) -> None:
    """A missing controller and a group that may not be divided name what to do."""
    with pytest.raises(NoControlGroups, match="memory"):
        ControlGroups({})
    missing = tmp_path / "missing"
    with pytest.raises(NoControlGroups, match="Delegate"):
        ControlGroups({name: Mount(missing, 2) for name in ("memory", "pids", "cpu")})
    with pytest.raises(NoControlGroups, match="root"):
        ControlGroups({name: Mount(missing, 1) for name in ("memory", "pids", "cpu")})


def test_the_root_python_shows_no_home() -> None:
    """What is shown of the host is system folders and the Python that we run in."""
    shown = [bind.source for bind in host_python().binds]
    assert not {"/", "/root", "/home", "/etc", "/var", "/work"} & set(shown)
