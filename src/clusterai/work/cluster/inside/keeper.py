"""The first program in a rented machine: it starts Ray when the machine joins its cluster, and tells when Ray died.

    python keeper.py
    <- {"do": "join", "arguments": ["--head", ...], "token": "...", "jobs": "http://...",
        "shell": [address, port], "gcs": "address:port"}
       words for `ray start`, where jobs are taken once it started (empty for a worker), where our shell is to be, where the head is
    -> {"said": "up"}                                                   Ray is loaded, and can be started at once
    -> {"said": "ready", "ms": 3120}                                    what was started answers
    -> {"said": "failed", "why": "..."}
    -> {"said": "died", "what": "raylet"}

It stands with the tenant's own processes, under the same user: what it says is the tenant's word, and only the tenant is hurt
by a lie. It runs in Ray's environment, so that it loads Ray while the machines still agree on who is in the cluster.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import births
import lighter
import nursery

LOOK_S = 0.5
STANDIN = str(Path(__file__).with_name("standin.py"))


def children() -> dict[int, str]:
    """Our own child processes, with the names of their programs."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            # After the last bracket, as a program's name may hold one: state, parent.
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) != os.getpid():
                continue
            line = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if STANDIN in line:
                line = line[line.index(STANDIN) + 2 :]
            named = [it for it in line if it.startswith("/") or it == "ray.util.client.server"]
            program = named[1] if len(named) > 1 and "/python" in named[0] else named[0] if named else "?"
            found[int(folder.name)] = program.rpartition("/")[2]
    return found


def answers(url: str) -> bool:
    """Whether somebody serves it; to be refused for want of the token is an answer too."""
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  an address of ours
            return True
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except OSError:
        return False


def listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 0.5).close()
    except OSError:
        return False
    return True


def dead(pids: dict[int, str]) -> str:
    """The name of one that ended, or nothing."""
    for pid, name in pids.items():
        try:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return name
        except ChildProcessError:
            return name
    return ""


class Keeper:
    def __init__(self) -> None:
        # What Ray prints is log; only what is told goes where the machine listens.
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._kept: dict[int, str] = {}
        self._standin: tuple[str, ...] = ()

    def tell(self, **said: Any) -> None:
        self._out.write(json.dumps(said) + "\n")
        self._out.flush()

    def _load(self) -> Callable[[], None] | None:
        """Ray, and the nursery beside us; returns what to do in the nursery's children alone."""
        # Nothing of what is loaded is ever garbage.
        gc.disable()
        loaded = dict(os.environ)
        os.environ.update(births.PLANTED)
        lighter.load()
        lighter.prompt()
        for name in births.PLANTED:
            del os.environ[name]
        gc.freeze()
        if lighter.threads() == 1:
            folder = tempfile.mkdtemp()
            there = nursery.Nursery(f"{folder}/nursery", loaded)
            self._standin = (sys.executable, "-I", "-S", STANDIN, f"{folder}/nursery")
            if os.fork() == 0:
                self._out.close()
                nursery.dies_with_its_parent()
                lighter.lighten(True, "", self._standin)
                return there.serve()
            there.close()
        else:
            print("Ray is loaded with threads: its programs are started as ever", file=sys.stderr, flush=True)
        gc.enable()
        return None

    def join(self, arguments: list[str], token: str, jobs: str, shell: list[str], gcs: str) -> None:
        start: Any = importlib.import_module("ray.scripts.scripts").start
        path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(token)
        lighter.lighten("--head" in arguments, lighter.MODULES, self._standin)
        lighter.patient()
        place = Path(__file__).with_name("shell.py")
        words = [sys.executable, "-I", "-u", str(place), *shell, str(path)]
        # Who types `python` there is in this cluster.
        terminal = subprocess.Popen(words, stdin=subprocess.DEVNULL, env={**os.environ, "RAY_ADDRESS": gcs})
        began = time.monotonic()
        if not jobs:
            # Ray would ask once, and then in seconds again.
            address, _, port = gcs.rpartition(":")
            while time.monotonic() < began + lighter.PATIENCE_S and not listens(address, int(port)):
                time.sleep(lighter.LOOK_S)
        try:
            with lighter.unwaited(jobs.removeprefix("http://")) if jobs else contextlib.nullcontext():
                start.main(args=arguments, standalone_mode=False)
        except SystemExit as ended:
            if ended.code:
                self.tell(said="failed", why=f"ray start ended with {ended.code}")
                raise
        except Exception as error:
            self.tell(said="failed", why=f"{type(error).__name__}: {error}"[:500])
            raise
        self._kept = {pid: name for pid, name in children().items() if pid != terminal.pid}
        if jobs:
            while not answers(f"{jobs}/api/version"):
                if what := dead(self._kept):
                    self.tell(said="failed", why=f"{what} ended")
                    raise SystemExit(1)
                time.sleep(0.05)
        while terminal.poll() is None and not listens(shell[0], int(shell[1])):
            time.sleep(0.05)
        self.tell(said="ready", ms=int((time.monotonic() - began) * 1000))

    def run(self) -> None:
        if (work := self._load()) is not None:
            return work()  # We are a child of the nursery's.
        self.tell(said="up")
        stdin = io.FileIO(0, "r", closefd=False)
        buffered = b""
        while True:
            if select.select([stdin], [], [], LOOK_S)[0]:
                more = stdin.read(1 << 16)
                if not more:
                    return None  # Whoever rents us out is gone, and bubblewrap is about to end us.
                *lines, buffered = (buffered + more).split(b"\n")
                for line in lines:
                    asked = json.loads(line)
                    if asked["do"] == "join":
                        del asked["do"]
                        self.join(**asked)
            if what := dead(self._kept):
                self.tell(said="died", what=what)
                return None


if __name__ == "__main__":
    Keeper().run()
