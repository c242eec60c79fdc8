"""Keeps a set of processes alive and ends them all with itself.

    starting ──ready──> ready ──exit──> restarting ──(backoff)──> starting …
        └──exit, never ready before, too often──> failed: the whole `up` ends with the tail of its log

Each process is a session of its own, so that Ctrl-C reaches the supervisor alone and what a daemon forked dies with it.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from clusterai.cli.failure import Failure
from clusterai.cli.local.folder import ServiceState, tail

FIRST_BACKOFF_S = 0.25
MOST_BACKOFF_S = 10.0
STABLE_S = 30.0
"""A process that lived so long starts again at once, whatever happened before."""
TRIES_BEFORE_READY = 3
TRIES_BEFORE_SETTLED = 6
"""While the whole still starts, a process that is ready and dies, again and again, won't get well by itself."""
STOP_S = 6.0
POLL_S = 0.05


class Service(msgspec.Struct, frozen=True):
    """A daemon to run.

    Attributes:
        module: run as `python -m module *arguments`.
        ready: asked until it is true; it answers within a second.
        rank: on stop, higher ranks end first.
        instead: asked at each start; what it gives, a module and its arguments, is run this time.
    """

    name: str
    kind: str
    module: str
    arguments: tuple[str, ...]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    rank: int = 0
    url: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    instead: Callable[[], tuple[str, ...] | None] | None = None

    def command(self) -> tuple[str, ...]:
        other = None if self.instead is None else self.instead()
        return other or (self.module, *self.arguments)


class Supervisor:
    """Runs services inside one asyncio loop.

    Args:
        changed: called whenever a state changed.
        clock: monotonic seconds.
    """

    def __init__(self, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._changed = changed
        self._clock = clock
        self._read, self._write = os.pipe()
        os.set_inheritable(self._read, True)
        self._services: dict[str, Service] = {}
        self._states: dict[str, ServiceState] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._ready: dict[str, asyncio.Event] = {}
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopping = False
        self._settled = False

    def states(self) -> tuple[ServiceState, ...]:
        return tuple(self._states.values())

    def start(self, service: Service) -> None:
        self._services[service.name] = service
        self._ready[service.name] = asyncio.Event()
        self._states[service.name] = ServiceState(
            service.name, service.kind, "starting", None, 0, time.time(), service.url
        )
        self._keepers[service.name] = asyncio.create_task(self._keep(service), name=f"keep {service.name}")

    async def until_ready(self, *names: str) -> None:
        """Wait for services to have been ready once.

        Raises:
            Failure: one of all services gave up.
        """
        waiting = [asyncio.ensure_future(self._ready[name].wait()) for name in names]
        everyone = asyncio.gather(*waiting)
        try:
            await asyncio.wait({everyone, self._broken}, return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                self._broken.result()
        finally:
            everyone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await everyone

    async def until_broken(self) -> None:
        """From now on all restart for as long as it takes, but those that were never ready. Wait until a service gives up.

        Raises:
            Failure: always, with the end of its log.
        """
        self._settled = True
        await asyncio.shield(self._broken)

    async def restart(self, name: str) -> None:
        """End a service's process; its keeper starts another at once."""
        process = self._processes.get(name)
        if process is not None:
            await _end(process)

    async def stop(self) -> None:
        """End everything, higher ranks first; nothing is left when it returns."""
        self._stopping = True
        for rank in sorted({service.rank for service in self._services.values()}, reverse=True):
            names = [name for name, service in self._services.items() if service.rank == rank]
            for name in names:
                self._keepers[name].cancel()
            await asyncio.gather(*(self._keepers[name] for name in names), return_exceptions=True)
            running = [self._processes[name] for name in names if name in self._processes]
            await asyncio.gather(*(_end(process) for process in running))
            for name in names:
                self._note(name, state="stopped", pid=None)
        os.close(self._write)
        os.close(self._read)
        self._broken.cancel()

    # --- one service ---

    async def _keep(self, service: Service) -> None:
        backoff_s = FIRST_BACKOFF_S
        tries = 0
        while True:
            began = self._clock()
            process = await self._spawn(service)
            self._note(service.name, state="starting", pid=process.pid)
            watching = asyncio.create_task(self._watch(service))
            try:
                code = await process.wait()
            finally:
                watching.cancel()
            # What it may have forked must not outlive it.
            _kill_group(process.pid)
            why = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            tries += 1
            never_ready = not self._ready[service.name].is_set() and tries >= TRIES_BEFORE_READY
            if never_ready or (not self._settled and tries >= TRIES_BEFORE_SETTLED):
                self._note(service.name, state="failed", pid=None, last_error=why)
                self._give_up(service, f"{why}, {tries} times")
                return
            backoff_s = (
                FIRST_BACKOFF_S if self._clock() - began > STABLE_S else min(backoff_s * 2, MOST_BACKOFF_S)
            )
            self._note(
                service.name,
                state="restarting",
                pid=None,
                last_error=why,
                restarts=self._states[service.name].restarts + 1,
            )
            await asyncio.sleep(backoff_s)

    async def _spawn(self, service: Service) -> asyncio.subprocess.Process:
        service.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with service.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "clusterai.cli.local.leash",
                str(self._read),
                *service.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._read,),
                start_new_session=True,
                env=os.environ | dict(service.environment),
            )
        self._processes[service.name] = process
        return process

    async def _watch(self, service: Service) -> None:
        while not await service.ready():  # noqa: ASYNC110  another process can't set our event
            await asyncio.sleep(POLL_S)
        self._ready[service.name].set()
        self._note(service.name, state="ready")

    def _note(self, name: str, **changes: object) -> None:
        before = self._states[name]
        if changes.get("state", before.state) != before.state:
            changes["since_s"] = time.time()
        self._states[name] = msgspec.structs.replace(before, **changes)
        self._changed()

    def _give_up(self, service: Service, why: str) -> None:
        if not self._broken.done() and not self._stopping:
            self._broken.set_exception(
                Failure(
                    f"{service.name} doesn't start ({why})",
                    "the end of its log:\n" + tail(service.log),
                    f"read {service.log}; if it makes no sense, report it with that file",
                )
            )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_S)
    _kill_group(process.pid)
    await process.wait()


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
