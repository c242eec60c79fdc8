"""One machine's part of a rented cluster: opened, joined, beaten, closed.

    machine's network ── UDP ── wireguard-go ──┐
    ───────────────────────────────────────────┼─────────── the sandbox's network: loopback and the mesh
                                               └── ca… ── keeper ── Ray ── the tenant's jobs

Everything of a stay dies with it, and with the node: the sandbox's processes and wireguard-go are killed by the kernel when the process
that opened them dies, the interface goes with the sandbox's network, the key of the disk that the tenant wrote to was in memory alone
(`sandbox.Disk`; where none can be had the volume is memory). `sweep` takes away the names and the noise that are left then.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from clusterai.mesh import (
    KERNEL,
    Device,
    Ears,
    Member,
    NoWireGuard,
    Paths,
    abort,
    datagrams,
    endpoints,
    keypair,
    net_of,
)
from clusterai.mesh.core.uapi import Endpoint, Malformed
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.sandbox import (
    PLACE,
    BlobStore,
    CannotSandbox,
    Cell,
    Disk,
    Limits,
    NativeRunner,
    NoDisk,
    Root,
    RootFs,
    Task,
    host_python,
)
from clusterai.work.cluster import inside
from clusterai.work.cluster.adapters.cards import Cards, NoCards, Taken
from clusterai.work.cluster.adapters.cards import found as found_cards
from clusterai.work.cluster.adapters.chains import Chains, SentinelGone
from clusterai.work.cluster.adapters.processes import sample, stopped
from clusterai.work.cluster.core import raycluster
from clusterai.work.cluster.core.cards import intruders, telling
from clusterai.work.cluster.core.foreign import Sample, foreign
from clusterai.work.cluster.spec import GCS_PORT, JOBS_PORT, SHELL_PORT, ClusterSpec

PREFIX = 24
JOINS_S = 90.0
TURN_S = 1.0
DISCARD_PORT = 9
MOST_LOG = 1 << 20
MOST_ROUNDS = 1000
LOG_BYTES = 1 << 16
CARDS_S = 5.0
"""Between two looks at the cards: the driver's program takes up to a second."""
MOST_SILENT = 3
TELL_S = 300.0
MOUNTED = Path("/var/run/wireguard")


class StayFailed(Exception):
    """This machine can't take part: {detail}. `code` is one word for the order's answer."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class StaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine lends, and how.

    Attributes:
        ray: Ray's Python environment.
        cores: numbers of those that are lent; a spec takes the first of them.
        allowed: names of programs, as `ps -o comm` shows them, that may run beside the tenant. The node's own are.
        network: where packets leave this machine, as a path such as /run/netns/out; None for our own network.
        processes: of the tenant at once, threads counted: Ray's own take some 300.
        cards: graphics cards that are lent; None lends none.
    """

    ray: Path
    cores: tuple[int, ...]
    allowed: frozenset[str] = frozenset()
    network: Path | None = None
    processes: int = 8192
    open_files: int = 65_536
    cards: Cards | None = None


class Reading(msgspec.Struct, frozen=True):
    """What a machine has to tell at one time.

    Attributes:
        links, values: how each rented core's chain stands under the seed of the reading before.
        tenant_ms: processor time of the tenant's processes, and of what encrypts its disk, since the stay was opened; the sentinel's
            isn't in it.
        foreign: processes that were neither the tenant's nor allowed, and used more than 2 % of a core since the reading before, or are
            on a rented card.
    """

    links: tuple[int, ...]
    values: tuple[bytes, ...]
    tenant_ms: int
    foreign: int


class _Said(msgspec.Struct, frozen=True):
    """A line of the keeper's."""

    said: str
    ms: int = 0
    why: str = ""
    what: str = ""


class Stay:
    """Made by `open`.

    Attributes:
        key: WireGuard's public key of this machine in this lease.
        gone: done with the reason when Ray or the sandbox died by itself.
    """

    def __init__(
        self, lease: Digest, place: int, spec: ClusterSpec, folder: Path, settings: StaySettings
    ) -> None:
        secret = os.urandom(32)
        self._private, self.key = keypair(secret)
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._lease = lease
        self._place = place
        self._spec = spec
        self._folder = folder
        self._settings = settings
        self._net = net_of(lease)
        self._cell: Cell | None = None
        self._disk: Disk | None = None
        self._chains: Chains | None = None
        self._before: tuple[float, tuple[Sample, ...]] = (0.0, ())
        self._device: Device | None = None
        self._paths: Paths | None = None
        self._ears = Ears()
        self._caller: socket.socket | None = None
        self._members: tuple[Member, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []
        self._heard: asyncio.Queue[_Said] = asyncio.Queue()
        self._log = bytearray()
        self._log_total = 0
        self._closed = False
        self._taken: Taken | None = None
        self._intruders: tuple[Sample, ...] = ()
        self._news: list[tuple[str, str]] = []
        self._killed = 0
        self.foreigners: tuple[Sample, ...] = ()
        self.steps: dict[str, int] = {}

    @classmethod
    async def open(
        cls, lease: Digest, place: int, spec: ClusterSpec, folder: Path, settings: StaySettings
    ) -> "Stay":
        """Sandbox, network and keys; Ray is loaded meanwhile.

        Args:
            folder: of all this node's stays.

        Raises:
            StayFailed.
        """
        stay = cls(lease, place, spec, folder / f"{lease.hex()[:16]}-{place}", settings)
        try:
            await stay._open()
        except BaseException:
            await stay.close()
            raise
        return stay

    @property
    def address(self) -> str:
        """Of this machine in the mesh."""
        return self._net.address(self._place)

    @property
    def interface(self) -> str:
        # Of this node's own: a place may move to another node of the same machine, while this one still has it.
        mine = keccak(self._lease + str(self._folder).encode())
        return f"ca{mine.hex()[:8]}{self._place}"

    def processes(self) -> list[int]:
        """All of the tenant's, as this machine counts."""
        return self._cell.group.processes() if self._cell is not None else []

    def helpers(self) -> list[int]:
        """Of ours beside it: the sentinel, and what carries the mesh and the disk."""
        found = self._chains.cell.processes() if self._chains is not None else []
        found += self._disk.processes() if self._disk is not None else []
        return [*found, *self._device.pids] if self._device is not None else found

    async def _open(self) -> None:
        began = time.monotonic()
        cores = self._settings.cores[: self._spec.cores]
        if len(cores) * 1000 < self._spec.cpu_milli:
            raise StayFailed("too-small", f"{len(self._settings.cores)} cores are lent here")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, mode=0o700)
        (self._folder / "interface").write_text(f"{self.interface}\n{self._settings.network or ''}")
        device, disk = asyncio.create_task(self._mesh()), asyncio.create_task(self._volume(cores))
        cards = asyncio.create_task(self._take())
        cell = asyncio.create_task(self._sandbox(cores, disk, cards))
        try:
            await asyncio.gather(device, disk, cards, cell)
        except BaseException:
            for it in (device, disk, cards, cell):
                it.cancel()
            await asyncio.gather(device, disk, cards, cell, return_exceptions=True)
            raise
        assert self._device is not None
        assert self._cell is not None
        network = self._settings.network
        try:
            await self._device.settle(
                self.address, PREFIX, self._cell.namespace, str(network) if network else None
            )
        except NoWireGuard as error:
            raise StayFailed("no-wireguard", str(error)) from None
        self._caller = await asyncio.to_thread(datagrams, self._cell.namespace)
        self.steps["opened"] = int((time.monotonic() - began) * 1000)
        self._before = (time.monotonic(), await asyncio.to_thread(sample))
        self._tasks = [asyncio.create_task(self._listen(self._cell))]
        if self._taken is not None:
            self._tasks.append(asyncio.create_task(self._watch(self._taken)))

    async def _take(self) -> None:
        if not self._spec.gpus:
            return
        began = time.monotonic()
        if self._settings.cards is None:
            raise StayFailed("no-gpu", "no graphics cards are lent here")
        taking = asyncio.ensure_future(asyncio.to_thread(self._settings.cards.take, self._spec.gpus))
        try:
            taken = await asyncio.shield(taking)
        except NoCards as error:
            raise StayFailed("no-gpu", error.why) from None
        except asyncio.CancelledError:
            # The driver's deadline is short, and what was taken has to be given back.
            with contextlib.suppress(NoCards):
                self._taken = await taking
            raise
        self._taken = taken
        self.steps["cards"] = int((time.monotonic() - began) * 1000)
        for card in taken.cards:
            self._keep(f"clusterai: {telling(card)}, driver {card.driver}\n".encode())

    async def _watch(self, taken: Taken) -> None:
        """Who is on the rented cards beside the tenant, and whether they are there at all."""
        silent, told_s, seen = 0, time.monotonic(), set[int]()
        while True:
            await asyncio.sleep(CARDS_S)
            try:
                now = [it for it in await asyncio.to_thread(found_cards) if it.uuid in taken.uuids]
            except NoCards as error:
                silent += 1
                if silent == MOST_SILENT:
                    return self._die(f"its cards can't be seen any more: {error.why}")
                continue
            if len(now) < len(taken.cards):
                return self._die(f"{len(taken.cards)} cards were rented, the driver finds {len(now)} of them")
            silent = 0
            everybody = await asyncio.to_thread(sample)
            ours = {os.getpid(), *self.processes(), *self.helpers()}
            self._intruders = intruders(now, taken.uuids, everybody, ours, self._settings.allowed)
            for it in self._intruders:
                if it.pid not in seen:
                    seen.add(it.pid)
                    words = f"{it.name} (process {it.pid} of the machine's owner) is on a rented card; its time isn't charged"
                    self._keep(f"clusterai: {words}\n".encode())
                    self._news.append(("cards", words))
            if time.monotonic() - told_s >= TELL_S:
                told_s = time.monotonic()
                self._keep("".join(f"clusterai: {telling(it)}\n" for it in now).encode())

    async def _mesh(self) -> None:
        began = time.monotonic()
        # Killed by the kernel when we die, as the sandbox is.
        enter = ["setpriv", "--pdeathsig", "KILL"]
        if self._settings.network is not None:
            enter = ["nsenter", f"--net={self._settings.network}", *enter]
        try:
            network = self._settings.network
            self._device = await Device.open(self.interface, enter, str(network) if network else None)
            self.steps["interface"] = int((time.monotonic() - began) * 1000)
        except NoWireGuard as error:
            raise StayFailed("no-wireguard", str(error)) from None

    async def _sandbox(
        self, cores: Sequence[int], disk: "asyncio.Task[None]", cards: "asyncio.Task[None]"
    ) -> None:
        began = time.monotonic()
        try:
            await cards
            plain = ray_root(self._settings.ray)
            root = plain if self._taken is None else self._taken.root(plain)
            runner = await asyncio.to_thread(
                NativeRunner, BlobStore(self._folder / "store"), self._folder, {"ray": root}
            )
            await disk
            import resource  # Unix alone has it, and a node elsewhere loads this module

            limits = Limits(
                memory_bytes=self._spec.memory_bytes,
                cpu_milli=self._spec.cpu_milli,
                disk_bytes=self._spec.disk_bytes,
                processes=self._settings.processes,
                open_files=min(self._settings.open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
            )
            task = Task(
                image=RootFs("ray"),
                argv=(f"{self._settings.ray.resolve()}/bin/python", "-u", f"{raycluster.INSIDE}/keeper.py"),
                env=dict(self._spec.env),
                limits=limits,
            )
            enter = self._disk.enter if self._disk is not None else ()
            self._cell = await Cell.open(
                runner,
                task,
                root,
                # Tables of its own, beside the objects.
                shared_bytes=raycluster.store_bytes(self._spec.memory_bytes) + 64 * raycluster.MiB,
                before=(*enter, *_on(cores)),
                disk=PLACE if self._disk is not None else None,
                on_log=self._keep,
            )
            self.steps["sandbox"] = int((time.monotonic() - began) * 1000)
            self._chains = await Chains.open(runner, raycluster.bare(plain), task.argv[0], cores)
            self.steps["sandbox and sentinel"] = int((time.monotonic() - began) * 1000)
        except (CannotSandbox, OSError, ValueError) as error:
            raise StayFailed("no-sandbox", str(error)) from None

    async def _volume(self, cores: Sequence[int]) -> None:
        """An encrypted disk where one can be had, else memory: the tenant's log says which."""
        began = time.monotonic()
        try:
            self._disk = await Disk.open(self._folder / "disk", self._spec.disk_bytes, _on(cores))
        except NoDisk as error:
            self._keep(f"clusterai: /job is memory, not a disk: {error.why}\n".encode())
            return
        self._disk.ended.add_done_callback(self._lost)
        self.steps["disk"] = int((time.monotonic() - began) * 1000)
        size = self._spec.disk_bytes / 2**30
        self._keep(f"clusterai: /job is a disk of {size:.2f} GiB, encrypted under a key in memory\n".encode())

    def _lost(self, ended: "asyncio.Future[str]") -> None:
        if not ended.cancelled():
            self._die(f"the disk broke: {ended.result()}")

    async def join(self, head: int, token: bytes) -> dict[str, int]:
        """Ray, in a mesh that is there: the head where `head` is our place, else a worker. May be cancelled, and the stay closed then.

        Args:
            token: of the lease; who doesn't have it is refused by Ray.

        Returns:
            milliseconds by step.

        Raises:
            StayFailed.
        """
        assert self._cell is not None
        began = time.monotonic()
        self._tasks.append(asyncio.create_task(self._turn()))
        words = raycluster.words(
            self.address,
            self._net.address(head),
            self._spec.cores,
            self._spec.gpus,
            self._spec.memory_bytes,
        )
        jobs = f"http://{self.address}:{JOBS_PORT}" if head == self._place else ""
        asked = {
            "do": "join",
            "arguments": list(words),
            "token": token.hex(),
            "jobs": jobs,
            "shell": [self.address, str(SHELL_PORT)],
            "gcs": f"{self._net.address(head)}:{GCS_PORT}",
        }
        try:
            self._cell.say(msgspec.json.encode(asked))
            async with asyncio.timeout(JOINS_S):
                await self._until("up")
                loaded = time.monotonic()
                await self._until("ready")
        except TimeoutError:
            raise StayFailed("too-slow", f"Ray didn't start within {JOINS_S:.0f} s") from None
        except OSError as error:
            raise StayFailed("ray-failed", f"the keeper doesn't listen: {error}") from None
        done = time.monotonic()
        return {
            "load": int((loaded - began) * 1000),
            "ray": int((done - loaded) * 1000),
        }

    async def _until(self, wanted: str) -> None:
        while True:
            heard = asyncio.ensure_future(self._heard.get())
            try:
                await asyncio.wait([heard, self.gone], return_when=asyncio.FIRST_COMPLETED)
            finally:
                heard.cancel()  # which is nothing where it was heard
            if not heard.done():
                raise StayFailed("ray-failed", f"{self.gone.result()}: {self._last_words()}")
            said = heard.result()
            if said.said == wanted:
                return
            if said.said == "failed":
                raise StayFailed("ray-failed", f"{said.why[:300]}: {self._last_words()}")

    async def remesh(self, members: Sequence[Member], relay: Mapping[int, Endpoint]) -> None:
        """Who is in the lease from now on. Ways to those that stay are found anew; nothing else restarts.

        Args:
            relay: where what we send for a place is to go.

        Raises:
            StayFailed.
        """
        assert self._device is not None
        me = Member(self._place, self.key)
        gone = {self._net.address(it.place) for it in {*self._members} - {*members}}
        self._members = tuple(members)
        try:
            await self._device.configure(self._private, endpoints(self._net, me, members, relay))
        except (NoWireGuard, Malformed) as error:
            raise StayFailed("no-wireguard", str(error)) from None
        self._paths = Paths({it.key: relay[it.place] for it in members if it.place in relay})
        if gone and self._cell is not None:
            # Who waits for an answer of theirs would wait for minutes; a kernel that can't leaves that to `KEEPALIVE`.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(abort, self._cell.namespace, gone)

    async def seen_outside(self, place: int, endpoint: Endpoint) -> None:
        """The relay told where a member's packets come from."""
        for it in self._members:
            if it.place == place and place != self._place and self._paths is not None:
                self._paths.seen_outside(it.key, endpoint)

    async def beat(self, seed: bytes) -> Reading:
        """A reading; from now on the chains run under this seed, anew where it isn't the one before.

        Raises:
            StayFailed: the sentinel doesn't answer.
        """
        assert self._chains is not None
        assert self._cell is not None
        try:
            links, values = await self._chains.turn(seed)
        except SentinelGone as error:
            self._die(str(error))
            raise StayFailed("no-sentinel", str(error)) from None
        tenant_ms = self._cell.group.cpu_ms() + (self._disk.cpu_ms() if self._disk is not None else 0)
        ours = {os.getpid(), *self.processes(), *self.helpers()}
        (then, before), now = self._before, await asyncio.to_thread(sample)
        self._before = (time.monotonic(), now)
        elapsed_ms = int((self._before[0] - then) * 1000)
        self.foreigners = foreign(before, now, elapsed_ms, ours, self._settings.allowed)
        counted = {it.pid for it in self.foreigners}
        self.foreigners += tuple(it for it in self._intruders if it.pid not in counted)
        return Reading(links, values, tenant_ms, len(self.foreigners))

    def news(self) -> list[tuple[str, str]]:
        """What its renter should know and wasn't told, each with the word for what it is about."""
        if self._cell is not None:
            killed = self._cell.group.oom_kills()
            if killed > self._killed:
                self._killed = killed
                words = out_of_memory(self._spec.memory_bytes, killed)
                self._keep(f"clusterai: {words}\n".encode())
                self._news.append(("memory", words))
        told, self._news = self._news, []
        return told

    def silent(self) -> dict[int, float]:
        """For how many seconds nothing came from the other members, by place."""
        now_s = time.monotonic()
        found = {it.place: self._ears.silent_s(it.key, now_s) for it in self._members}
        return {place: silent_s for place, silent_s in found.items() if silent_s is not None}

    def _die(self, reason: str) -> None:
        if self.gone.done() or self._closed:
            return
        if self._cell is not None and (killed := self._cell.group.oom_kills()):
            reason = f"{reason}; {out_of_memory(self._spec.memory_bytes, killed)}"
        self.gone.set_result(reason)

    async def freeze(self) -> None:
        """All of the tenant's processes stand still, with what they hold in memory."""
        await asyncio.to_thread(self._signal, signal.SIGSTOP)

    async def thaw(self) -> None:
        await asyncio.to_thread(self._signal, signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """Again and again, while they fork, or wake each other, faster than they are told."""
        for _ in range(MOST_ROUNDS):
            wrong = [it for it in self.processes() if stopped(it) is (number != signal.SIGSTOP)]
            if not wrong:
                return
            for process in wrong:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)

    def log(self, start: int) -> tuple[int, bytes]:
        """How much was written so far, and what of it begins at `start`, at most 64 KiB; what is older than 1 MiB is gone."""
        oldest = self._log_total - len(self._log)
        at = max(0, start - oldest)
        return self._log_total, bytes(self._log[at : at + LOG_BYTES])

    async def close(self) -> None:
        """Nothing of it is left. May be called twice."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._caller is not None:
            # It would hold the sandbox's network, and the interface with it.
            self._caller.close()
        if self._cell is not None:
            cell, self._cell = self._cell, None
            await cell.close()
        if self._chains is not None:
            chains, self._chains = self._chains, None
            await chains.close()
        if self._taken is not None:
            taken, self._taken = self._taken, None
            await asyncio.to_thread(taken.give_back)
        if self._disk is not None:
            disk, self._disk = self._disk, None
            await disk.close()
        if self._device is not None:
            device, self._device = self._device, None
            await device.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        if not self.gone.done():
            self.gone.cancel()

    def _keep(self, data: bytes) -> None:
        self._log += data
        self._log_total += len(data)
        if len(self._log) > MOST_LOG:
            del self._log[: len(self._log) - MOST_LOG]

    def _last_words(self) -> str:
        return bytes(self._log[-400:]).decode("utf-8", "replace").strip()

    async def _listen(self, cell: Cell) -> None:
        """What the keeper says, until there is nobody to say it."""
        reason = "the sandbox ended"
        with contextlib.suppress(ValueError, msgspec.MsgspecError):
            while line := await cell.hear():
                said = msgspec.json.decode(line, type=_Said)
                if said.said == "died":
                    reason = f"{said.what[:100] or 'a part of Ray'} died"
                    break
                if self._heard.qsize() < 16:
                    self._heard.put_nowait(said)
        self._die(reason)

    async def _turn(self) -> None:
        """From the relay to direct ways, and back where they fail."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TURN_S)
            if self._device is None or self._paths is None:
                continue
            self._call()
            with contextlib.suppress(NoWireGuard, Malformed):
                states = await self._device.states()
                self._ears.listen(states, time.monotonic())
                for move in self._paths.step(states, loop.time()):
                    await self._device.move(move.key, move.endpoint)

    def _call(self) -> None:
        """An empty datagram to each other member, so that it hears us.

        Of two peers' keepalives one may always come first, and the other is never sent then; and Ray's own packets a tenant can stop.
        """
        assert self._caller is not None
        for it in self._members:
            if it.place != self._place:
                with contextlib.suppress(OSError):
                    self._caller.sendto(b"", (self._net.address(it.place), DISCARD_PORT))


def out_of_memory(memory_bytes: int, killed: int) -> str:
    """For who reads that Ray's worker died, and not why."""
    size = memory_bytes / 2**30
    return (
        f"out of memory: {size:g} GiB were all used, and the kernel killed a process ({killed} so far); "
        f"rent with more, --mem {2 * size:g}G"
    )


def _on(cores: Sequence[int]) -> tuple[str, ...]:
    """A command line that runs another on these cores alone."""
    return ("taskset", "--cpu-list", ",".join(map(str, cores)))


def ray_root(environment: Path) -> Root:
    """
    Raises:
        StayFailed: Ray isn't there.
    """
    environment = environment.resolve()
    try:
        settings = (environment / "pyvenv.cfg").read_text()
    except OSError:
        raise StayFailed(
            "no-ray", f"{environment} is no Python environment: install.py ray makes one"
        ) from None
    if not (environment / "bin" / "ray").exists():
        raise StayFailed("no-ray", f"{environment} holds no Ray: install.py ray installs it")
    homes = [line.partition("=")[2].strip() for line in settings.splitlines() if line.startswith("home")]
    base = Path(homes[0]).resolve().parent if homes else Path(sys.base_prefix)
    ours = {str(Path(it).resolve()) for it in (sys.prefix, sys.base_prefix)}
    found = host_python()
    system = msgspec.structs.replace(found, binds=tuple(it for it in found.binds if it.dest not in ours))
    return raycluster.root(environment, base, system, Path(inside.__file__).parent)


async def sweep(folder: Path) -> None:
    """What a killed node left: names of interfaces and folders. The rest died with it."""
    await asyncio.to_thread(_swept, folder)


def _swept(folder: Path) -> None:
    for left in folder.glob("*-*"):
        with contextlib.suppress(OSError):
            name, _, network = (left / "interface").read_text().partition("\n")
            # The kernel's own, where it wasn't in the sandbox's network yet.
            KERNEL.remove(name, network or None)
            (MOUNTED / f"{name}.sock").unlink()
        shutil.rmtree(left, ignore_errors=True)
