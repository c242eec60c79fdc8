"""Ray's own starter, made to start less and to wait less: what it has no options for is handed other words.

Where a newer Ray has another starter, all is started as Ray would.
"""

import asyncio
import contextlib
import importlib
import importlib.abc
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

PATIENCE_S = 75.0
PAUSE_S = 0.1
LOOK_S = 0.05
MODULES = "JobHead,NodeHead"
"""Of Ray's dashboard: what `ray job` asks, and what tells it where the head is. Each module is a process of 90 MB."""
UNNEEDED = frozenset({"ray.serve", "ray.util.state.state_cli", "ray.dashboard.modules.job.cli"})
"""Commands beside `ray start`. Serve's loads pandas and FastAPI, half of all there is to load."""
STARTER = "ray.scripts.scripts"
SERVICES = (
    "aiohttp.web",
    "aiohttp_cors",
    "grpc",
    "ray._private.log_monitor",
    "ray._private.runtime_env.agent.main",
    "ray._private.runtime_env.agent.runtime_env_agent",
    "ray._private.workers.default_worker",
    "ray.dashboard.agent",
    "ray.dashboard.dashboard",
    "ray.dashboard.head",
    "ray.dashboard.modules.job.job_agent",
    "ray.dashboard.modules.job.job_head",
    "ray.dashboard.modules.job.job_manager",
    "ray.dashboard.modules.node.node_head",
    "ray.util.client.server.proxier",
)
"""What Ray's programs load as they begin. None of it starts a thread or draws at random."""


class _Without(importlib.abc.MetaPathFinder):
    """These aren't there, which Ray's starter takes as it comes."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname in UNNEEDED:
            raise ImportError(f"{fullname} isn't needed here")


def load() -> None:
    """What `ray start` needs, and what Ray's services need."""
    without = _Without()
    sys.meta_path.insert(0, without)
    try:
        importlib.import_module(STARTER)
    finally:
        sys.meta_path.remove(without)
    for name in SERVICES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def lighten(head: bool, modules: str, before: Sequence[str]) -> None:
    """Of the dashboard only `modules`, and on workers no agent but the least.

    Args:
        before: words before those of each of Ray's Python programs; empty for none.
    """
    services: Any = importlib.import_module("ray._private.services")
    plain = getattr(services, "start_ray_process", None)
    if plain is None:
        return
    python = sys.executable
    options = ("--python_worker_command=", "--dashboard_agent_command=", "--runtime_env_agent_command=")

    def start(command: list[str], process_type: str, *more: Any, **named: Any) -> Any:
        if process_type == "dashboard" and modules:
            command = [*command, f"--modules-to-load={modules}"]
        elif process_type == "raylet" and not head:
            agent = "--dashboard_agent_command="
            command = [f"{it} --minimal" if it.startswith(agent) else it for it in command]
        if before:
            for option in options:
                whole = option + python + " "
                anew = option + " ".join([*before, python]) + " "
                command = [anew + it[len(whole) :] if it.startswith(whole) else it for it in command]
            if command[0] == python:
                command = [*before, *command]
        return plain(command, process_type, *more, **named)

    services.start_ray_process = start
    if before:
        spawning: Any = importlib.import_module("multiprocessing.util")
        spawn = spawning.spawnv_passfds

        def through(path: Any, words: Sequence[Any], files: Any) -> Any:
            """The dashboard's modules are forked by a process of its own, which loads Ray as well."""
            given = [os.fsdecode(it) for it in words]
            if sys.argv[0].endswith("/dashboard.py") and given[0] == python:
                return spawn(os.fsencode(before[0]), [os.fsencode(it) for it in (*before, *given)], files)
            return spawn(path, words, files)

        spawning.spawnv_passfds = through


def patient() -> None:
    """Ray asks without a pause whether its raylet is there, and gives a slow machine 30 s: ask calmly, and wait for longer.

    What a worker asks of its head, it asks every two seconds, where a head needs less to be there: ask more often, and for as long.
    """
    utils: Any = importlib.import_module("ray._private.utils")
    utils.time = _Time()
    for place, name in (
        ("ray._private.services", "get_node"),
        ("ray._private.utils", "internal_kv_get_with_retry"),
        ("ray._private.node", "get_all_node_info_until_retrieved"),
    ):
        module: Any = importlib.import_module(place)
        if hasattr(module, name):
            setattr(module, name, _patiently(getattr(module, name)))


def _patiently(plain: Callable[..., Any]) -> Callable[..., Any]:
    def ask(*words: Any, **named: Any) -> Any:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return plain(*words, **named)
            except Exception:  # Ray's own errors here have no other class.
                if time.monotonic() > until:
                    raise
            time.sleep(LOOK_S)

    return ask


class _Time:
    """time, but for its longer pauses."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, LOOK_S))


class _Asyncio:
    """asyncio, but for its longer pauses."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(min(seconds, PAUSE_S))


def prompt() -> None:
    """Who submits a job waits for its log, in which Ray looks once in two seconds, and twice more when the job has ended."""
    for place, named, constant in (
        ("ray.dashboard.modules.job.job_head", "JobHead", "WAIT_FOR_SUPERVISOR_ACTOR_INTERVAL_S"),
        ("ray.dashboard.modules.job.job_manager", "JobManager", "LOG_TAIL_SLEEP_S"),
    ):
        found = getattr(importlib.import_module(place), named, None)
        if hasattr(found, constant):
            setattr(found, constant, PAUSE_S)
    utils: Any = importlib.import_module("ray.dashboard.modules.job.utils")
    if hasattr(utils, "asyncio"):
        utils.asyncio = _Asyncio()


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
