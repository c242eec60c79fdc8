"""A machine for tests to examine: real answers at a speed of its own, on a clock that only it moves."""

from collections.abc import Callable
from typing import Any

from blake3 import blake3

from clusterai.audit.core import pages, products, stretches, sweeps
from clusterai.audit.core.stretches import Sentinel
from clusterai.node.adapters.exerciser import shown_link
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.measuring import (
    MOST_PART_BYTES,
    Claims,
    Committed,
    Declined,
    Echo,
    Echoed,
    Fill,
    Filled,
    Give,
    Gpu,
    Introduce,
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
    Take,
    Test,
    chain_seed,
)
from clusterai.validator.core.examination import Ask, Judge, Outcome, Plan, Reply, Unfinished, examine

PLAN = Plan(
    echoes=3,
    alone_ms=1_000,
    together_ms=1_000,
    size=16,
    links=6,
    fill_bytes=64 * pages.PAGE_BYTES,
    sweeps=3,
    stored_bytes=50_000,
    line_bytes=3_000,
    gpu_size=16,
    gpu_links=6,
)


def quick_link(value: bytes, beacon: bytes) -> bytes:
    """Instead of scrypt: the chain's rules are the same, and tests are over sooner."""
    return blake3(value + beacon).digest()


def quick_first(seed: bytes, core: int) -> bytes:
    return blake3(seed + core.to_bytes(4)).digest()


QUICK = Sentinel(quick_first, quick_link)


def claims(cores: int = 2, gpus: tuple[Gpu, ...] = (), memory_bytes: int = 2**20) -> Claims:
    return Claims(
        7, "x86-64-v3", "a processor", cores, 1000 * cores, memory_bytes, 10**9, gpus, "eu-de", 10**6
    )


class Played:
    """An honest machine. Each method answers one test with how long it took, in seconds of its own clock.

    Args:
        links_per_s: of one core alone.
        real_cores: how many there are, whatever is claimed.
    """

    def __init__(
        self, said: Claims, links_per_s: int = 320, real_cores: int | None = None, rtt_s: float = 0.01
    ) -> None:
        self.said, self.links_per_s, self.rtt_s = said, links_per_s, rtt_s
        self.real_cores = said.cores if real_cores is None else real_cores
        self.kept: dict[int, dict[int, tuple[Any, Any]]] = {}
        self.filled: dict[int, pages.Filling] = {}
        self.swept: dict[int, sweeps.Sweep] = {}
        self.read_bytes_per_s = 10**9
        self.stored = b""
        self.mops_per_s = 10.0
        self.bytes_per_s = 10**8

    def answer(self, seed: Digest, test: Test) -> tuple[Result, bytes, float]:
        """What is answered, all parts' data, and after how long."""
        done = getattr(self, type(test).__name__.lower())(seed, test)
        result, took_s = done
        data = b""
        if isinstance(result, bytes):
            data, result = result, Part(0, len(result), result[:MOST_PART_BYTES])
        return result, data, took_s + self.rtt_s

    def introduce(self, seed: Digest, test: Introduce) -> tuple[Any, float]:
        return self.said, 0.0

    def echo(self, seed: Digest, test: Echo) -> tuple[Any, float]:
        return Echoed(), 0.0

    def share(self, cores: int) -> float:
        """Of its speed alone that a core has when so many run."""
        return min(1.0, self.real_cores / cores)

    def run(self, seed: Digest, test: Run) -> tuple[Any, float]:
        stretch_count = int(
            self.links_per_s * self.share(len(test.cores)) * test.ms / 1000 / stretches.STRETCH
        )
        return Ran(tuple(self.chain(seed, core, stretch_count) for core in test.cores)), test.ms / 1000

    def chain(self, seed: Digest, core: int, count: int) -> tuple[bytes, ...]:
        left = iter(range(count))
        return stretches.run(quick_link, quick_first(seed, core), seed, lambda: next(left, None) is not None)

    def multiply(self, seed: Digest, test: Multiply) -> tuple[Any, float]:
        if test.gpu:
            return Declined("no_gpu", "torch isn't installed"), 0.0
        return self.multiplied(seed, test)

    def multiplied(self, seed: Digest, test: Multiply) -> tuple[Any, float]:
        found: list[tuple[Digest, ...]] = []
        for at in range(test.cores):
            kept = self.kept[at] = {}
            challenge = products.Challenge(chain_seed(seed, at), test.size, test.links)
            found.append(
                products.answer(challenge, keep=lambda link, x, y, kept=kept: kept.__setitem__(link, (x, y)))
            )
        operations = 2 * test.size**3 * test.links / 10**6
        return Committed(tuple(found)), operations / self.mops_per_s / self.share(test.cores)

    def showlink(self, seed: Digest, test: ShowLink) -> tuple[Any, float]:
        return shown_link(self.kept[test.chain], test.link) or Declined("gone", ""), 0.0

    def fill(self, seed: Digest, test: Fill) -> tuple[Any, float]:
        self.filled = {at: pages.Filling(chain_seed(seed, at), test.pages) for at in range(test.cores)}
        return Filled(tuple(it.root for it in self.filled.values())), 2.0

    def showpages(self, seed: Digest, test: ShowPages) -> tuple[Any, float]:
        return canonical.encode(self.filled[test.chain].show(test.pages)), 0.1

    def sweep(self, seed: Digest, test: Sweep) -> tuple[Any, float]:
        self.swept = {
            at: sweeps.Sweep(it, chain_seed(seed, at), test.rounds) for at, it in self.filled.items()
        }
        size = sum(it.pages for it in self.filled.values()) * pages.PAGE_BYTES
        return Swept(
            tuple(it.roots for it in self.swept.values())
        ), test.rounds * size / self.read_bytes_per_s

    def showsweep(self, seed: Digest, test: ShowSweep) -> tuple[Any, float]:
        shown = self.swept[test.chain].show(test.places)
        return (canonical.encode(shown) if shown is not None else Declined("gone", "")), 0.01

    def store(self, seed: Digest, test: Store) -> tuple[Any, float]:
        self.stored = blake3(seed).digest(length=test.size)
        return Stored(bytes(32)), test.size / self.bytes_per_s

    def reread(self, seed: Digest, test: Reread) -> tuple[Any, float]:
        return Stored(blake3(seed + self.stored).digest()), len(self.stored) / self.bytes_per_s

    def give(self, seed: Digest, test: Give) -> tuple[Any, float]:
        return blake3(seed).digest(length=test.size), test.size / self.bytes_per_s

    def take(self, seed: Digest, test: Take) -> tuple[Any, float]:
        return Echoed(), len(test.data) / self.bytes_per_s


def word(data: bytes) -> Digest:
    return Digest(blake3(b"the validator's own" + data).digest())


def examined(
    machine: Played,
    plan: Plan = PLAN,
    answer: Callable[[Digest, Test], tuple[Result | None, bytes, float]] | None = None,
    word: Callable[[bytes], Digest] = word,
) -> Outcome | Unfinished:
    """Play the script to its end; `word` is what the validator draws by."""
    script = examine(plan, word, QUICK)
    value: Any = None
    for number in range(1_000):
        try:
            wanted = script.send(value)
        except StopIteration as end:
            return end.value
        if isinstance(wanted, Judge):
            value = wanted.work()
            continue
        assert isinstance(wanted, Ask)
        seed = word(number.to_bytes(4))
        result, data, took_s = (answer or machine.answer)(seed, wanted.test)
        late = took_s > wanted.within_s
        value = Reply(None if late else result, b"" if late else data, took_s, seed)
    raise AssertionError("it never ends")
