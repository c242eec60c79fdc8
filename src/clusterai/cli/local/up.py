"""`clusterai up`: one network, from an empty folder to the first answer, and back again from where it stopped.

hold the folder ─ check ports ─┬─ chain ─ bootstrap ─┬─ gateway ─┐
                               └─ model (once) ──────┼─ nodes ───┼─ ready: every model is served
                                                     └─ validators┘
"""

import asyncio
import contextlib
import os
import signal
import time
from typing import Literal

from clusterai.cli import say
from clusterai.cli.failure import Failure
from clusterai.cli.local import bootstrap, models, ports, probes, room, services
from clusterai.cli.local.folder import DataFolder, UpState, tail
from clusterai.cli.local.people import make_people
from clusterai.cli.local.progress import Progress
from clusterai.cli.local.supervisor import Supervisor
from clusterai.cli.local.wish import READY_S, Wish, announce, ready
from clusterai.cli.settings import command
from clusterai.protocol.ids import checksummed

TELL_S = 0.25


def run(folder: DataFolder, wish: Wish, json: bool) -> None:
    """Run in the foreground until Ctrl-C, SIGTERM, or a process that can't be kept alive."""
    folder.hold()
    try:
        ports.check(wish.ports, str(folder.root))
        asyncio.run(_Network(folder, wish, json).run())
    finally:
        folder.let_go()


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
        self._barred: tuple[str, ...] = ()
        self._is_full = False
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
        say.say(f"stopped; nothing is lost: `{command(self._wish.ports.again, self._folder.root)}` resumes")

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
        made = ready(self._folder, self._wish, self._ready_after_s, self._barred)
        announce(made, self._json, detached=False)
        await supervisor.until_broken()

    async def _start(self, supervisor: Supervisor) -> None:
        folder, wish = self._folder, self._wish
        people = make_people(folder, wish.nodes, wish.validators)
        url, ring = wish.ports.chain_url, services.key_ring(folder)
        window_s = bootstrap.window_of(folder, wish.window_s)
        chain = services.chain(folder, wish.ports, people, window_s)
        gateway = services.gateway(folder, wish.ports, people, wish.model, wish.tls)
        validators = [services.validator(folder, wish.ports, people, at) for at in range(wish.validators)]
        self._say("starting the chain")
        supervisor.start(chain)
        preparing = asyncio.create_task(models.prepare(wish.model, self._say))
        try:
            # Daemons wait for a chain that is away; all that they can't do without is the manifest.
            early = bootstrap.knows(folder, url)
            if early:
                for one in (gateway, *validators):
                    supervisor.start(one)
            await supervisor.until_ready(chain.name)
            self._say("registering participants")
            await bootstrap.settle_in(folder, url, people, ring, window_s)
            if not early:
                for one in (gateway, *validators):
                    supervisor.start(one)
            await preparing
        finally:
            preparing.cancel()
        for at, one in enumerate(people.nodes):
            vaults = wish.vaults[at : at + 1]
            supervisor.start(
                services.node(folder, wish.ports, people, one, wish.model, rent=wish.rent, vaults=vaults)
            )
        self._say("loading models, linking nodes")
        telling = asyncio.create_task(self._tell_what_loads())
        try:
            await supervisor.until_ready(*(state.name for state in supervisor.states()))
        finally:
            telling.cancel()
        barred = await probes.barred(wish.ports.api_url)
        self._barred = tuple(it.name for it in people.nodes if checksummed(it.owner.address) in barred)

    async def _tell_what_loads(self) -> None:
        while True:
            loading = await probes.unserved(self._wish.ports.api_url)
            if loading:
                self._say(f"loading {', '.join(loading)}")
            await asyncio.sleep(TELL_S)

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
        """What is read by others; a disk that is full keeps it old, and ends no process that runs."""
        supervisor = self._supervisor
        is_full = room.is_full(self._folder.root)
        if is_full and not self._is_full:
            say.complain("\n".join(room.full(self._folder.root).lines()))
        self._is_full = is_full
        with contextlib.suppress(OSError):
            self._folder.write_state(
                UpState(
                    pid=os.getpid(),
                    phase=self._phase,
                    started_s=self._started_s,
                    gateway=self._wish.ports.api_url,
                    chain=self._wish.ports.chain_url,
                    model=self._wish.model,
                    services=supervisor.states() if supervisor else (),
                    ready_after_s=self._ready_after_s,
                    doing=self._doing,
                    barred=self._barred,
                )
            )
