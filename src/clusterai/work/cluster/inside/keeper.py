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
import importlib
import io
import json
import os
import select
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

LOOK_S = 0.5
PATIENCE_S = 75.0
MODULES = "JobHead,NodeHead"
"""Of Ray's dashboard: what `ray job` asks, and what tells it where the head is. Each module is a process of 90 MB."""


def children() -> dict[int, str]:
    """Our own child processes, with the names of their programs."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            # After the last bracket, as a program's name may hold one: state, parent.
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) != os.getpid():
                continue
            line = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
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
        socket.create_connection((address, port), 2).close()
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


def lighten(head: bool, modules: str) -> None:
    """Start less: of the dashboard only `modules`, and on workers no agent but the least.

    Ray has no options for these, so its own starter is handed other words. Where a newer Ray has another starter, all is started.
    """
    services: Any = importlib.import_module("ray._private.services")
    plain = getattr(services, "start_ray_process", None)
    if plain is None:
        return

    def start(command: list[str], process_type: str, *more: Any, **named: Any) -> Any:
        if process_type == "dashboard":
            command = [*command, f"--modules-to-load={modules}"]
        elif process_type == "raylet" and not head:
            agent = "--dashboard_agent_command="
            command = [f"{it} --minimal" if it.startswith(agent) else it for it in command]
        return plain(command, process_type, *more, **named)

    services.start_ray_process = start


def patient() -> None:
    """Ray asks without a pause whether its raylet is there, and gives a slow machine 30 s: ask calmly, and wait for longer."""
    services: Any = importlib.import_module("ray._private.services")
    plain = services.get_node

    def get_node(*words: Any) -> Any:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return plain(*words)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.05)

    services.get_node = get_node


@contextlib.contextmanager
def unwaited(dashboard: str) -> Generator[None]:
    """Don't let the starter wait until the dashboard wrote its address down, which it knows: the raylet starts meanwhile.

    Whether the dashboard came up is seen when it answers.
    """
    kv: Any = importlib.import_module("ray.experimental.internal_kv")
    plain = kv._internal_kv_get

    def get(key: Any, *more: Any, **named: Any) -> Any:
        if key in (b"dashboard", "dashboard"):
            return dashboard.encode()
        return plain(key, *more, **named)

    kv._internal_kv_get = get
    try:
        yield
    finally:
        kv._internal_kv_get = plain


class Keeper:
    def __init__(self) -> None:
        # What Ray prints is log; only what is told goes where the machine listens.
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._kept: dict[int, str] = {}

    def tell(self, **said: Any) -> None:
        self._out.write(json.dumps(said) + "\n")
        self._out.flush()

    def join(self, arguments: list[str], token: str, jobs: str, shell: list[str], gcs: str) -> None:
        start: Any = importlib.import_module("ray.scripts.scripts").start
        path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(token)
        lighten("--head" in arguments, MODULES)
        patient()
        place = Path(__file__).with_name("shell.py")
        words = [sys.executable, "-I", "-u", str(place), *shell, str(path)]
        # Who types `python` there is in this cluster.
        terminal = subprocess.Popen(words, stdin=subprocess.DEVNULL, env={**os.environ, "RAY_ADDRESS": gcs})
        began = time.monotonic()
        try:
            with unwaited(jobs.removeprefix("http://")) if jobs else contextlib.nullcontext():
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
        importlib.import_module("ray.scripts.scripts")
        self.tell(said="up")
        stdin = io.FileIO(0, "r", closefd=False)
        buffered = b""
        while True:
            if select.select([stdin], [], [], LOOK_S)[0]:
                more = stdin.read(1 << 16)
                if not more:
                    return  # Whoever rents us out is gone, and bubblewrap is about to end us.
                *lines, buffered = (buffered + more).split(b"\n")
                for line in lines:
                    asked = json.loads(line)
                    if asked["do"] == "join":
                        del asked["do"]
                        self.join(**asked)
            if what := dead(self._kept):
                self.tell(said="died", what=what)
                return


if __name__ == "__main__":
    Keeper().run()
