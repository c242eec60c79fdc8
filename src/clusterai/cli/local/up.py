"""`clusterai up`: one network, from an empty folder to the first answer, and back again from where it stopped.

hold the folder ─ check ports ─┬─ chain ─ bootstrap ─┬─ gateway ─┐
                               └─ model (once) ──────┼─ nodes ───┼─ ready: somebody serves the model
                                                     └─ validator┘
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Literal

import msgspec

from clusterai.cli import say
from clusterai.cli.failure import Failure
from clusterai.cli.local import bootstrap, models, ports, services
from clusterai.cli.local.folder import DataFolder, LocalAccount, UpState
from clusterai.cli.local.people import make_people, node_name
from clusterai.cli.local.progress import Progress
from clusterai.cli.local.supervisor import Supervisor, tail

READY_S = 300.0
"""The first start converts a model; a slow disk may take minutes for a big one."""


class Wish(msgspec.Struct, frozen=True):
    """What `up` was asked for."""

    ports: ports.Ports
    nodes: int
    model: str


class Ready(msgspec.Struct, frozen=True):
    """What a person or a program needs to use the network."""

    data: str
    console: str
    openai_base_url: str
    openai_api_key: str
    model: str
    curl: str
    ready_after_s: float


def run(folder: DataFolder, wish: Wish, json: bool) -> None:
    """Run in the foreground until Ctrl-C, SIGTERM, or a process that can't be kept alive."""
    folder.hold()
    try:
        ports.check(wish.ports, str(folder.root))
        asyncio.run(_Network(folder, wish, json).run())
    finally:
        folder.let_go()


def run_detached(folder: DataFolder, wish: Wish, json: bool) -> None:
    """Start `up` in a session of its own and wait until it is ready."""
    folder.hold()
    folder.let_go()
    ports.check(wish.ports, str(folder.root))
    folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "clusterai.cli", "up", "--quiet", "--data", str(folder.root)]
    command += ["--port", str(wish.ports.api), "--nodes", str(wish.nodes), "--model", wish.model]
    with folder.log.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    ends_s = time.monotonic() + READY_S
    with Progress() as progress:
        while True:
            state = folder.state()
            mine = state if state is not None and state.pid == process.pid else None
            if mine and mine.phase == "ready":
                break
            if process.poll() is not None:
                raise Failure(
                    "the network didn't start", "it said:\n" + tail(folder.log), f"read {folder.log}"
                )
            if time.monotonic() > ends_s:
                process.terminate()
                raise Failure(f"not ready after {READY_S:.0f} s", next=f"read {folder.log}")
            if mine:
                progress.show(mine.doing)
            time.sleep(0.05)
    _announce(_ready(folder, wish, mine.ready_after_s or 0.0), json, detached=True)


def describe(folder: DataFolder, wish: Wish, json: bool) -> None:
    """What `up` would do, for `--dry-run`."""
    known = folder.manifest.exists()
    plan = {
        "data": str(folder.root),
        "resumes": known,
        "ports": msgspec.to_builtins(wish.ports),
        "model": wish.model,
        "processes": ["chain", "gateway", *(node_name(at) for at in range(wish.nodes)), "validator"],
    }
    if json:
        say.emit(plan)
    else:
        say.pairs(plan.items())


class _Network:
    def __init__(self, folder: DataFolder, wish: Wish, json: bool) -> None:
        self._folder = folder
        self._wish = wish
        self._json = json
        self._began_s = time.monotonic()
        self._started_s = time.time()
        self._phase: Literal["starting", "ready", "stopping"] = "starting"
        self._doing = ""
        self._ready_after_s: float | None = None
        self._progress = Progress()
        self._supervisor: Supervisor | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(name, ended.set)
        self._supervisor = supervisor = Supervisor(self._write_state)
        self._write_state()
        waiting = asyncio.create_task(ended.wait())
        living = asyncio.create_task(self._live(supervisor))
        try:
            await asyncio.wait({waiting, living}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failure = living.exception() if living.done() and not living.cancelled() else None
            self._phase = "stopping"
            self._progress.close()
            if failure is None:
                say.say("\nstopping…")
            for task in (living, waiting):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            await supervisor.stop()
        if failure is not None:
            raise failure
        say.say(f"stopped; nothing is lost: `clusterai up --data {self._folder.root}` resumes")

    async def _live(self, supervisor: Supervisor) -> None:
        try:
            async with asyncio.timeout(READY_S):
                await self._start(supervisor)
        except TimeoutError:
            raise self._too_slow(supervisor) from None
        self._ready_after_s = round(time.monotonic() - self._began_s, 2)
        self._phase, self._doing = "ready", ""
        self._write_state()
        self._progress.close()
        _announce(_ready(self._folder, self._wish, self._ready_after_s), self._json, detached=False)
        await supervisor.until_broken()

    async def _start(self, supervisor: Supervisor) -> None:
        folder, wish = self._folder, self._wish
        people = make_people(folder, wish.nodes)
        url, ring = services.chain_url(wish.ports), services.key_ring(folder)
        chain = services.chain(folder, wish.ports, people)
        gateway = services.gateway(folder, wish.ports, people, wish.model)
        validator = services.validator(folder, wish.ports, people)
        self._say("starting the chain")
        supervisor.start(chain)
        preparing = asyncio.create_task(models.prepare(wish.model, self._say))
        try:
            # Daemons wait for a chain that is away; all that they can't do without is the manifest.
            early = bootstrap.knows(folder, url)
            if early:
                supervisor.start(gateway)
                supervisor.start(validator)
            await supervisor.until_ready(chain.name)
            self._say("registering participants")
            await bootstrap.settle_in(folder, url, people, ring)
            if not early:
                supervisor.start(gateway)
                supervisor.start(validator)
            await preparing
        finally:
            preparing.cancel()
        for one in people.nodes:
            supervisor.start(services.node(folder, wish.ports, people, one, wish.model))
        self._say("loading the model, linking nodes")
        await supervisor.until_ready(*(state.name for state in supervisor.states()))

    def _too_slow(self, supervisor: Supervisor) -> Failure:
        waiting = [one.name for one in supervisor.states() if one.state != "ready"]
        return Failure(
            f"not ready after {READY_S:.0f} s: {', '.join(waiting) or self._doing}",
            "the end of its log:\n" + tail(self._folder.log_of(waiting[0])) if waiting else "",
            f"read the logs in {self._folder.root}",
        )

    def _say(self, doing: str) -> None:
        self._doing = doing
        self._progress.show(doing)
        self._write_state()

    def _write_state(self) -> None:
        supervisor = self._supervisor
        self._folder.write_state(
            UpState(
                pid=os.getpid(),
                phase=self._phase,
                started_s=self._started_s,
                gateway=services.api_url(self._wish.ports),
                chain=services.chain_url(self._wish.ports),
                model=self._wish.model,
                services=supervisor.states() if supervisor else (),
                ready_after_s=self._ready_after_s,
                doing=self._doing,
            )
        )


def _ready(folder: DataFolder, wish: Wish, after_s: float) -> Ready:
    account: LocalAccount = folder.local_account()
    base = f"{services.api_url(wish.ports)}/v1"
    curl = (
        f"curl {base}/chat/completions -H 'Authorization: Bearer {account.key}' -H 'Content-Type: application/json' "
        f'-d \'{{"model": "{wish.model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\''
    )
    return Ready(str(folder.root), services.api_url(wish.ports), base, account.key, wish.model, curl, after_s)


def _announce(ready: Ready, json: bool, detached: bool) -> None:
    if json:
        say.emit(ready)
        return
    data = f" --data {ready.data}" if ready.data else ""
    say.say(f"\n[bold green]ready[/] after {ready.ready_after_s:.1f} s; console: [bold]{ready.console}[/]\n")
    print(f"export OPENAI_BASE_URL={ready.openai_base_url}")
    print(f"export OPENAI_API_KEY={ready.openai_api_key}")
    print(f"\n{ready.curl}", flush=True)
    say.say(f"\nwatch a cheat being caught:  clusterai demo cheat{data}")
    say.say(f"stop:  clusterai down{data}" if detached else "stop:  Ctrl-C")
