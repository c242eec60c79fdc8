"""On systems without what Unix alone has, commands load, and say what doesn't work there; nothing here was run on Windows itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WINDOWS = """
import asyncio, importlib.abc, multiprocessing, os, platform, runpy, subprocess, sys, types
import httpx, numpy, platformdirs, rich.console, typer, uvicorn

LACKS = ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "uvloop", "pyroute2")

class Lacking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in LACKS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in LACKS:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Lacking())
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda number, how, size: None)
for name in ("geteuid", "getuid", "fork", "sched_getaffinity", "getloadavg", "chown", "setsid", "mkfifo"):
    delattr(os, name)
platform.system = lambda: "Windows"
platform.machine = lambda: "AMD64"
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def typed(folder: Path, *words: str) -> tuple[int, str]:
    """A program without those modules and functions; its exit code and all that it said."""
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "CLUSTERAI_DATA": str(folder / "net")}
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | home,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    return done.returncode, said


def test_the_doctor_says_what_is_missing(tmp_path: Path):
    """Which system it is, and that jobs and rented clusters don't work there."""
    _, said = typed(tmp_path, "clusterai.cli", "node", "doctor", "--model", "tiny")
    assert "jobs and rented clusters need Linux" in " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("node", "join", "http://127.0.0.1:1"), "WSL 2"),
        (("node", "drain"), "WSL 2"),
        (("up",), "WSL 2"),
        (("rent", "--nodes", "1", "--yes"), "runs on Linux alone"),
        (("rent", "connect", "0x12"), "runs on Linux alone"),
        (("rent", "shell", "0x12"), "runs on Linux alone"),
        (("offers",), "no network runs in"),
        (("rent", "list"), "no network runs in"),
        (("rent", "--nodes", "1", "--dry-run"), "no network runs in"),
    ],
)
def test_commands_load_and_those_that_can_not_work_say_so(tmp_path: Path, words: tuple[str, ...], told: str):
    """Before anything is changed."""
    code, said = typed(tmp_path, "clusterai.cli", *words)
    assert code != 0
    assert told in " ".join(said.split())
    assert not (tmp_path / "net" / "keys").exists()


def test_the_daemon_loads_and_reads_its_file(tmp_path: Path):
    """Started by hand, it ends at a configuration that isn't there, not at what the system lacks."""
    code, said = typed(tmp_path, "clusterai.node", "--config", str(tmp_path / "node.json"))
    assert code == 78
    assert "node.json" in said
