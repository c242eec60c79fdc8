"""A whole data set out of several holders: the swarm decides, this asks, checks and writes.

Each holder has a few workers, each with one request at a time. A piece is hashed when its last byte came, before it is written;
what doesn't hash to what the address says is thrown away, its holder is asked nothing any more, and that is remembered.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec
from blake3 import blake3

from clusterai.content.adapters.folder import MANIFEST, Landing
from clusterai.content.adapters.sources import HolderFault, Source
from clusterai.content.core.manifest import MOST_MANIFEST_BYTES, BadManifest, Manifest, decode
from clusterai.content.core.swarm import Evidence, Run, State, Swarm
from clusterai.protocol.ids import Digest

WAKE_S = 0.25
"""An idle worker looks again so often whether something is to be taken over from another holder."""

Progress = Callable[[int], None]
"""Called with the bytes of each piece that came and was right."""


class Share(msgspec.Struct, frozen=True):
    """What came of one holder."""

    holder: str
    state: State
    why: str
    pieces: int
    bytes: int


class Fetched(msgspec.Struct, frozen=True):
    """A set that is whole."""

    bytes: int
    """that came now; the rest was here before"""
    wall_s: float
    shares: tuple[Share, ...]
    evidence: tuple[Evidence, ...]


class NotWhole(OSError):
    """{left} pieces are missing and no holder is left to ask; `shares` says why each was left. Ask again, or name others:
    what came stays here."""

    def __init__(self, left: int, shares: tuple[Share, ...], evidence: tuple[Evidence, ...]) -> None:
        super().__init__(f"{left} pieces are missing and no holder is left to ask")
        self.left = left
        self.shares = shares
        self.evidence = evidence


class NoManifest(LookupError):
    """No holder has the manifest of {address}."""

    def __init__(self, address: Digest, why: list[str]) -> None:
        super().__init__(f"no holder has the manifest of 0x{address.hex()}: {'; '.join(why)[:600]}")
        self.why = why


async def fetch_manifest(
    address: Digest, sources: Sequence[Source], most: int = MOST_MANIFEST_BYTES
) -> Manifest:
    """From whoever has it; a wrong one is no evidence of malice, since a holder may hold another version.

    Raises:
        NoManifest: nobody has it.
    """
    why: list[str] = []
    for source in sources:
        try:
            return decode(await source.small(MANIFEST, most), address)
        except (HolderFault, BadManifest) as error:
            why.append(f"{source.name}: {error}")
    raise NoManifest(address, why)


async def fetch(
    landing: Landing,
    sources: Sequence[Source],
    progress: Progress | None = None,
    avoid: frozenset[str] = frozenset(),
    run_bytes: int = 4 << 20,
) -> Fetched:
    """Bring what is missing.

    Args:
        avoid: names of holders that sent something wrong before; they aren't asked.

    Raises:
        NotWhole: every holder was left before the end.
        OSError: the disk is full.
    """
    work = _Work(landing, sources, progress, avoid, run_bytes)
    return await work.run()


class _Work:
    def __init__(
        self,
        landing: Landing,
        sources: Sequence[Source],
        progress: Progress | None,
        avoid: frozenset[str],
        run_bytes: int,
    ) -> None:
        self._landing = landing
        self._manifest = landing.manifest
        self._address = "0x" + self._manifest.address().hex()
        self._sources = list(sources)
        self._progress = progress
        hands = [0 if source.name in avoid else source.hands for source in self._sources]
        self._swarm = Swarm(self._manifest, landing.missing(), hands, run_bytes)
        self._pieces = list(self._manifest.pieces())
        self._evidence: list[Evidence] = []
        self._news = asyncio.Event()
        self._bytes = 0

    async def run(self) -> Fetched:
        began = time.monotonic()
        if self._swarm.left:
            async with asyncio.TaskGroup() as group:
                workers = [
                    group.create_task(self._worker(number, source))
                    for number, source in enumerate(self._sources)
                    for _ in range(source.hands)
                ]
                # Whoever is still asking when all is here waits for a holder that nobody needs any more.
                group.create_task(self._broken_off(workers))
        shares = tuple(
            Share(source.name, state, why, pieces, size)
            for source, (state, why, pieces, size) in zip(self._sources, self._swarm.states(), strict=True)
        )
        if self._swarm.left:
            raise NotWhole(self._swarm.left, shares, tuple(self._evidence))
        return Fetched(self._bytes, time.monotonic() - began, shares, tuple(self._evidence))

    async def _broken_off(self, workers: Sequence["asyncio.Task[None]"]) -> None:
        running = set(workers)
        while running and not self._swarm.is_over:
            _, running = await asyncio.wait(running, timeout=WAKE_S, return_when=asyncio.FIRST_COMPLETED)
        for worker in running:
            worker.cancel()

    async def _worker(self, number: int, source: Source) -> None:
        while not self._swarm.is_over:
            run = self._swarm.take(number, time.monotonic())
            if run is None:
                self._news.clear()
                try:
                    async with asyncio.timeout(WAKE_S):
                        await self._news.wait()
                except TimeoutError:
                    pass
                continue
            await self._ask(run, source)
            self._news.set()

    async def _ask(self, run: Run, source: Source) -> None:
        try:
            wrong = await self._take(run, source)
        except HolderFault as fault:
            self._swarm.failed(run, str(fault), time.monotonic())
            return
        if wrong is None:
            self._swarm.done(run)
        else:
            self._evidence.append(wrong)
            self._swarm.corrupt(run, f"piece {wrong.piece} isn't what the address says")

    async def _take(self, run: Run, source: Source) -> Evidence | None:
        """
        Raises:
            HolderFault: it ended early.
        """
        pieces = self._pieces[run.first : run.first + run.count]
        file = self._manifest.files[pieces[0].file]
        size = sum(piece.size for piece in pieces)
        at, buffer = 0, bytearray()
        async with aclosing(source.read(file.path, pieces[0].start, size, file.size)) as chunks:
            async for chunk in chunks:
                buffer += chunk
                while at < len(pieces) and len(buffer) >= pieces[at].size:
                    piece, number = pieces[at], run.first + at
                    data = buffer[: piece.size]
                    del buffer[: piece.size]
                    got = blake3(data).digest()
                    if got != piece.digest:
                        return Evidence(
                            source.name,
                            self._address,
                            number,
                            piece.digest.hex(),
                            got.hex(),
                            int(time.time()),
                        )
                    if self._swarm.got(run, number):
                        self._landing.write(number, data)
                        self._bytes += piece.size
                        if self._progress is not None:
                            self._progress(piece.size)
                    at += 1
                if not self._swarm.wanted(run):
                    return None
        return None
