"""The process that does a validator's tests, on the cores that the node lends: started for an examination, ended soon after.

    python -m clusterai.node.adapters.exerciser FOLDER CORE...
    <- length, canonical `Order`        -> length, canonical `Result`, one or more, and a zero

One child a core, each with one thread (`ONE_THREAD` in its environment), so that cores are what is measured and not a library's idea of threads. It keeps what the last
test made until the next, for links and pages of it may be drawn.
"""

import contextlib
import hashlib
import multiprocessing
import os
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from blake3 import blake3

from clusterai.audit.core import pages, products, stretches, sweeps
from clusterai.node.adapters.torchproduct import NoGpu, gpu_product
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.measuring import (
    MOST_PART_BYTES,
    Committed,
    Declined,
    Fill,
    Filled,
    Give,
    Multiply,
    Part,
    Ran,
    Reread,
    Result,
    Run,
    ShowLink,
    ShowPages,
    ShowSweep,
    Store,
    Stored,
    Sweep,
    Swept,
    Test,
    chain_seed,
)
from clusterai.work.cluster.inside import sentinel

LENGTH = struct.Struct(">I")
BLOCK_BYTES = 1024 * 1024
NICE = 10
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Set before numpy is there: a core's child that opened threads of its own would take its neighbours' time."""


class Order(msgspec.Struct, frozen=True):
    """One test."""

    seed: Digest
    test: Test


class _Core:
    """A child's memory of the last test."""

    def __init__(self, core: int) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(0, {core})
        self._kept: dict[int, tuple[Any, Any]] = {}
        self._filling: pages.Filling | None = None
        self._swept: sweeps.Sweep | None = None

    def multiply(self, seed: Digest, size: int, links: int) -> tuple[Digest, ...]:
        self.drop()
        challenge = products.Challenge(seed, size, links)
        return products.answer(challenge, keep=self._keep)

    def _keep(self, link: int, x: Any, y: Any) -> None:
        self._kept[link] = (x, y)

    def link(self, link: int) -> bytes | None:
        return shown_link(self._kept, link)

    def run(self, seed: Digest, core: int, ms: int) -> tuple[bytes, ...]:
        self.drop()
        ends_s = time.monotonic() + ms / 1000
        return stretches.run(
            sentinel.link, sentinel.first(seed, core), seed, lambda: time.monotonic() < ends_s
        )

    def fill(self, seed: Digest, count: int) -> Digest:
        self.drop()
        self._filling = pages.Filling(seed, count)
        return self._filling.root

    def pages(self, drawn: tuple[int, ...]) -> bytes | None:
        filling = self._filling
        if filling is None or any(at >= filling.pages for at in drawn):
            return None
        return canonical.encode(filling.show(drawn))

    def sweep(self, seed: Digest, rounds: int) -> tuple[Digest, ...] | None:
        if self._filling is None:
            return None
        self._swept = sweeps.Sweep(self._filling, seed, rounds)
        return self._swept.roots

    def swept(self, places: tuple[int, ...]) -> bytes | None:
        shown = self._swept.show(places) if self._swept is not None else None
        return canonical.encode(shown) if shown is not None else None

    def drop(self) -> None:
        self._kept.clear()
        self._filling = self._swept = None


def shown_link(kept: dict[int, tuple[Any, Any]], link: int) -> bytes | None:
    """X, Y and the Y before, where there is one."""
    if link not in kept:
        return None
    shown = products.opened(link, *kept[link])
    before = b"" if link == 0 else products.opened(link - 1, *kept[link - 1]).y
    return shown.x + shown.y + before


def _serve(core: int, line: Connection, others: list[Any]) -> None:
    """Until the parent's end of the line is closed: the copies of such ends that a child was born with would keep it open."""
    for other in others:
        other.close()
    # Answers that people wait for go first; a machine that has nothing else to do is as fast as ever.
    with contextlib.suppress(OSError):
        os.nice(NICE)
    mine = _Core(core)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            what, arguments = line.recv()
            try:
                line.send(getattr(mine, what)(*arguments))
            except MemoryError as error:
                line.send(error)


class Exerciser:
    """The children, and one test at a time."""

    def __init__(self, folder: Path, cores: list[int]) -> None:
        self._folder = folder
        self._lines: list[Any] = []
        context: Any = multiprocessing.get_context("fork")
        for core in cores:
            mine, theirs = context.Pipe()
            self._lines.append(mine)
            context.Process(target=_serve, args=(core, theirs, list(self._lines)), daemon=True).start()
            theirs.close()
        self._of = self._swept_of = b""
        self._filled = 0
        self._gpu_kept: dict[int, tuple[Any, Any]] | None = None

    def do(self, order: Order) -> Iterator[Result]:
        """What is answered. The node has checked the bounds that don't depend on this machine."""
        seed, test = order.seed, order.test
        match test:
            case Multiply(gpu=0, cores=cores, size=size, links=links) if cores <= len(self._lines):
                self._of, self._gpu_kept = seed, None
                yield Committed(
                    tuple(self._all("multiply", [(chain_seed(seed, at), size, links) for at in range(cores)]))
                )
            case Multiply(gpu=gpu, size=size, links=links) if gpu:
                yield self._on_gpu(gpu - 1, seed, size, links)
            case Run(cores, ms) if max(cores) < len(self._lines):
                self._of = seed
                found = self._some(cores, "run", [(seed, core, ms) for core in cores])
                yield Ran(tuple(found))
            case Fill(cores, count) if cores <= len(self._lines):
                self._of, self._filled = seed, cores
                try:
                    yield Filled(
                        tuple(self._all("fill", [(chain_seed(seed, at), count) for at in range(cores)]))
                    )
                except MemoryError:
                    yield Declined("unable", "not so much memory is free")
            case ShowLink(of, chain, link) if of == self._of and chain < len(self._lines):
                kept = self._gpu_kept
                if kept is None:
                    yield from _parts(next(self._some((chain,), "link", [(link,)])))
                else:
                    yield from _parts(shown_link(kept, link))
            case ShowPages(of, chain, drawn) if of == self._of and chain < len(self._lines):
                yield from _parts(next(self._some((chain,), "pages", [(drawn,)])))
            case Sweep(of, rounds) if of == self._of and self._filled:
                self._swept_of = seed
                done = self._all("sweep", [(chain_seed(seed, at), rounds) for at in range(self._filled)])
                found = tuple(done)
                yield Swept(found) if None not in found else Declined("gone", "nothing is filled")
            case ShowSweep(of, chain, places) if of == self._swept_of and chain < self._filled:
                yield from _parts(next(self._some((chain,), "swept", [(places,)])))
            case Store(size):
                self._of = seed
                yield self._store(seed, size)
            case Reread(of) if of == self._of:
                yield self._reread(seed)
            case Give(size):
                yield from _parts(blake3(seed).digest(length=size))
            case _:
                yield Declined("too_large", "not on this machine, or of a test that is over")

    def _all(self, what: str, arguments: list[tuple[Any, ...]]) -> Iterator[Any]:
        return self._some(range(len(arguments)), what, arguments)

    def _some(self, cores: Sequence[int], what: str, arguments: list[tuple[Any, ...]]) -> Iterator[Any]:
        chosen: list[Any] = [self._lines[core] for core in cores]
        for line, given in zip(chosen, arguments, strict=True):
            line.send((what, given))
        found: list[Any] = [line.recv() for line in chosen]
        if any(isinstance(it, MemoryError) for it in found):
            raise MemoryError
        yield from found

    def _on_gpu(self, gpu: int, seed: Digest, size: int, links: int) -> Result:
        try:
            product = gpu_product(gpu)
        except NoGpu as error:
            return Declined("no_gpu", str(error))
        self._of = seed
        kept: dict[int, tuple[Any, Any]] = {}
        challenge = products.Challenge(chain_seed(seed, 0), size, links)
        found = products.answer(challenge, product, lambda link, x, y: kept.__setitem__(link, (x, y)))
        self._gpu_kept = kept
        return Committed((found,))

    @property
    def _file(self) -> Path:
        return self._folder / "exercise.bin"

    def _store(self, seed: Digest, size: int) -> Result:
        hasher = blake3(seed)
        try:
            with self._file.open("wb") as file:
                for start in range(0, size, BLOCK_BYTES):
                    file.write(hasher.digest(length=min(BLOCK_BYTES, size - start), seek=start))
                file.flush()
                os.fsync(file.fileno())
                # What is read again should come from the disk.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            self._file.unlink(missing_ok=True)
            return Declined("unable", str(error)[:200])
        return Stored(bytes(32))

    def _reread(self, seed: Digest) -> Result:
        found = blake3(seed)
        try:
            with self._file.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    found.update(block)
        except OSError as error:
            return Declined("gone", str(error)[:200])
        finally:
            self._file.unlink(missing_ok=True)
        return Stored(found.digest())

    def close(self) -> None:
        self._file.unlink(missing_ok=True)
        for line in self._lines:
            line.close()


def _parts(data: bytes | None) -> Iterator[Result]:
    if data is None:
        yield Declined("gone", "the test is over")
        return
    for start in range(0, len(data), MOST_PART_BYTES):
        yield Part(start, len(data), data[start : start + MOST_PART_BYTES])


def _read(source: BinaryIO) -> bytes | None:
    head = source.read(LENGTH.size)
    return source.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else None


def main(folder: Path, cores: list[int]) -> None:
    """Serve until the node closes the pipe."""
    assert hashlib.scrypt, "the sentinel needs scrypt"
    exerciser = Exerciser(folder, cores)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    try:
        while (data := _read(source)) is not None:
            for result in exerciser.do(canonical.decode(data, Order)):
                body = msgspec.msgpack.encode(result)
                sink.write(LENGTH.pack(len(body)) + body)
                sink.flush()
            sink.write(LENGTH.pack(0))
            sink.flush()
    finally:
        exerciser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(core) for core in sys.argv[2:]])
