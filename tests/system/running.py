"""A whole network from the command line, as separate processes on free ports, for tests that treat it as its users do."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
from openai import OpenAI

from clusterai.ledger.core.rules import LOCAL
from tests.ports import free_port

T = TypeVar("T")

DEADLINE_S = 240.0
"""Generous: other work may share the machine. A test that is well ends in a fraction of it."""
POLL_S = 0.05
ROOT = Path(__file__).resolve().parents[2]
OURS = {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
"""Environment in which a program of the tests' own is found, too."""
UP_PORTS = 8
"""That a network from `up` may take, one behind the other."""


def until(what: str, look: Callable[[], T | None], deadline_s: float = DEADLINE_S) -> T:
    """Ask until the answer is something true."""
    ends_s = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < ends_s, f"waited {deadline_s:.0f} s for: {what}"
        time.sleep(POLL_S)


UP: "list[Network]" = []
"""Those that run."""
MOST_ERRORS = 20


class Network:
    """One data folder, and the `clusterai up` that runs it; `program` may be a villain's in its place."""

    def __init__(
        self,
        data: Path,
        model: str = "tiny",
        nodes: int = 2,
        validators: int = 1,
        program: str = "clusterai.cli",
        *,
        rent: bool = False,
        vaults: Sequence[Path] = (),
    ) -> None:
        self.data = data
        self._vaults = vaults
        self._validators = validators
        self._program = program
        self._rent = rent
        self.model = model
        self.port = free_port(UP_PORTS)
        self._nodes = nodes
        self._process: subprocess.Popen[str] | None = None
        self._clients: list[OpenAI] = []
        self.ready: dict[str, Any] = {}

    def up(self) -> "Network":
        errors = (self.data.parent / "up.err").open("ab")
        self._process = subprocess.Popen(
            self._command(
                "up",
                *("--port", str(self.port), "--model", self.model, "--nodes", str(self._nodes)),
                *("--validators", str(self._validators), "--json"),
                *(("--rent",) if self._rent else ()),
                *(word for vault in self._vaults for word in ("--vault", str(vault))),
                program=self._program,
            ),
            env={"CLUSTERAI_WINDOW": str(LOCAL.window_s)} | os.environ | OURS,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        errors.close()
        UP.append(self)
        assert self._process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = self._process.stdout.readline()
            assert line, f"up ended: {(self.data.parent / 'up.err').read_text()}"
            text += line
        self.ready = json.loads(text)
        return self

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments), capture_output=True, text=True, timeout=DEADLINE_S * 2, check=False
        )

    def started(self, *arguments: str, program: str = "clusterai.cli") -> subprocess.Popen[str]:
        """A command that goes on beside the test."""
        return subprocess.Popen(
            self._command(*arguments, program=program),
            env=os.environ | OURS,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self, *arguments: str) -> Any:
        """The JSON that a command prints."""
        done = self.cli(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def _command(self, *arguments: str, program: str = "clusterai.cli") -> list[str]:
        return [sys.executable, "-m", program, *arguments, "--data", str(self.data)]

    def ended(self) -> int:
        """Wait for `up` to end by itself; its exit code."""
        assert self._process is not None
        self._process.communicate(timeout=DEADLINE_S)
        return self._process.returncode

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End `up`, and the clients' connections; what it printed on the way is thrown away."""
        while self._clients:
            self._clients.pop().close()
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            self._process.communicate(timeout=DEADLINE_S)
        finally:
            self._process.kill()
            if self in UP:
                UP.remove(self)
        return self._process.returncode

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def openai(self, **options: Any) -> OpenAI:
        given = {"api_key": self.ready["openai_api_key"]} | options
        self._clients.append(OpenAI(base_url=self.ready["openai_base_url"], **given))
        return self._clients[-1]

    def http(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.ready['openai_api_key']}"}
        response = httpx.get(f"http://127.0.0.1:{self.port}/v1/clusterai/{path}", headers=headers, timeout=60)
        response.raise_for_status()
        return response.json()

    def errors(self) -> str:
        """The last that its processes logged, each behind its process's name."""
        lines = [
            f"{log.parent.name}: {line}"
            for log in sorted(self.data.glob("*/log"))
            for line in log.read_text(errors="replace").splitlines()
            if '"level": "error"' in line
        ]
        return "\n".join(lines[-MOST_ERRORS:])

    # --- processes ---

    def services(self) -> dict[str, dict[str, Any]]:
        state = msgspec.json.decode((self.data / "up.json").read_bytes())
        return {one["name"]: one for one in state["services"]}

    def kill(self, name: str) -> int:
        """`kill -9` one process, as soon as there is one; returns how often it had been restarted before."""
        service = until(f"{name} to run", lambda: (it := self.services()[name])["pid"] and it)
        os.kill(service["pid"], signal.SIGKILL)
        return service["restarts"]

    def until_back(self, name: str, restarts: int) -> None:
        until(
            f"{name} to be back",
            lambda: (now := self.services()[name])["restarts"] > restarts and now["state"] == "ready",
        )

    def service_of(self, owner: str) -> str:
        """The process that is this participant."""
        for name in self.services():
            config = self.data / name / "config.json"
            if config.exists() and json.loads(config.read_bytes())["owner"] == owner.lower():
                return name
        raise AssertionError(f"nobody is {owner}")

    def until_serving(self, nodes: int) -> None:
        until(f"{nodes} nodes to serve", lambda: self.serving() >= nodes)

    def serving(self) -> int:
        try:
            return sum(one["state"] == "ready" for one in self.http("nodes")["nodes"])
        except httpx.HTTPError:
            return 0
