"""One examination of a machine, as a script: what is asked, what each answer shows, and what it comes to.

    claims, least round trip, one core alone, products on all cores, all cores' chains at once, memory, disk, line, cards

A generator: it yields an `Ask` and gets a `Reply` with the validator's own time, or a `Judge` and gets what it came to. It knows no
clock and no link, so a test plays the machine, honest or not.

Times count from the moment a test was sent to the moment its answer was there, round trip included: all rates are floors, and who
answers late only looks slower. Nothing is subtracted for the line, for a machine that was slow to echo could buy speed with it.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import msgspec
from blake3 import blake3

from clusterai.audit.core import pages, products, stretches, sweeps
from clusterai.audit.core.stretches import Sentinel
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest
from clusterai.protocol.measuring import (
    MOST_CORES,
    MOST_PAGES,
    MOST_PART_BYTES,
    Claims,
    Committed,
    Declined,
    Echo,
    Echoed,
    Fill,
    Filled,
    Finding,
    Give,
    Introduce,
    Multiply,
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
from clusterai.protocol.offers import Field

T = TypeVar("T")
MILLION = 1_000_000
OPENED_LINKS = 2
"""Of one drawn core. The others' commitments aren't looked at: which core is drawn after all were sent."""
CHECKED_STRETCHES = 6
TRIES = 2
"""What else ran on the machine for a moment shouldn't be its card for a day; all of them are floors, so the best counts."""
MOST_SLOWED = 2
"""Two hardware threads of one core slow each other by less; so a machine passes for twice its cores at most, each half as fast."""
SHOWN_PAGES = 12
BEYOND_CORES = 2
"""A card must do this many times what the machine's cores did together, or the cores could have posed as it."""
SHOW_SHARE = 4
"""Drawn pages must be there within this part of the time that the fill took, beyond the round trip and a moment for the line."""
IN_CACHES_BYTES = 128 * 1024**2
MOMENT_S = 0.5
"""For scheduling and for a frame of a megabyte on a slow line."""


class Plan(msgspec.Struct, frozen=True):
    """How much is asked.

    Attributes:
        echoes: round trips, of which the least counts.
        alone_ms: one core's chain alone. together_ms: all cores' at once.
        size, links: of the products on each core.
        fill_core_bytes, fill_bytes: of memory, for each core and in all; never more than is claimed.
        sweeps: how often what was filled is read.
        stored_bytes: on disk. line_bytes: each way.
        gpu_size, gpu_links: of the products on each card.
    """

    echoes: int = 8
    alone_ms: int = 2_000
    together_ms: int = 2_000
    size: int = 512
    links: int = 48
    fill_core_bytes: int = 256 * 1024**2
    fill_bytes: int = 16 * 1024**3
    sweeps: int = 8
    stored_bytes: int = 32 * 1024**2
    line_bytes: int = 2 * MOST_PART_BYTES
    gpu_size: int = 1024
    gpu_links: int = 128


class Ask(msgspec.Struct, frozen=True):
    """Yielded: send this test. Without a time nobody answers, and what comes back is an empty `Reply`, at once."""

    test: Test
    within_s: float


class Until(msgspec.Struct, frozen=True):
    """Yielded: go on at this time; nothing is sent back."""

    at_s: float


class Called(msgspec.Struct, frozen=True):
    """What a roll-call came to: whether the right answer was there in time, and after how long."""

    in_time: bool
    took_s: float


class Judge(msgspec.Struct, frozen=True):
    """Yielded: a pure computation, too long for an event loop; what it comes to is sent back."""

    work: Callable[[], Any]


class Reply(msgspec.Struct, frozen=True):
    """What came of an `Ask`: nothing, in time, is None. `data` is that of all `Part`s together; `seed` was the test's."""

    result: Result | None
    data: bytes
    took_s: float
    seed: Digest


class Outcome(msgspec.Struct, frozen=True):
    """What an examination came to; `fields` are those of a measurement."""

    claims: Claims
    fields: int
    cpu_milli: int
    memory_bytes: int
    gpu: str
    gpus: int
    bandwidth_kbps: int
    links_per_s_milli: int
    links_at_once_per_s_milli: int
    rtt_us: int
    multiply_ms: int
    found: tuple[Finding, ...]


class Unfinished(msgspec.Struct, frozen=True):
    """It broke off, and says nothing of the machine but that: not there, rented, or busy."""

    why: str


Script = Generator[Ask | Judge | Until, Any, Outcome | Called | Unfinished]
Examination = Generator[Ask | Judge, Any, Outcome | Unfinished]


class _Broke(Exception):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Found:
    """What was found so far."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.rows: list[Finding] = []
        self.fields = 0

    def add(self, name: str, found: int | None, claimed: int | None = None, note: str = "") -> None:
        self.rows.append(Finding(name, claimed, found, note))


def examine(plan: Plan, draw: Callable[[bytes], Digest], sentinel: Sentinel) -> Examination:
    """
    Args:
        draw: words that nobody else can foretell; each is asked for behind what it draws from.
        sentinel: the chain whose links are counted.
    """
    try:
        return (yield from _examine(plan, draw, sentinel))
    except _Broke as broke:
        return Unfinished(broke.why)


def call(plan: Plan, draw: Callable[[bytes], Digest], cores: int, at_s: float, limit_s: float) -> Script:
    """One device's part of a roll-call (`audit/core/rollcall.py`): made ready, then called at `at_s`, with all others."""
    try:
        yield from _asked(Run((0,), 1), 20, Ran)
        yield Until(at_s)
        _, wrong, took_s = yield from _products(Multiply(0, cores, plan.size, plan.links), draw)
    except _Broke as broke:
        return Unfinished(broke.why)
    return Called(not wrong and took_s <= limit_s, took_s)


def _examine(plan: Plan, draw: Callable[[bytes], Digest], sentinel: Sentinel) -> Examination:
    claims = (yield from _asked(Introduce(), 5, Claims))[0]
    found = _Found(claims)
    rtt_us = yield from _round_trip(plan, found)
    # The process that does the tests takes a moment to start, and that moment is nobody's slowness.
    yield from _asked(Run((0,), 1), 20, Ran)
    alone = yield from _alone(plan, draw, found, sentinel)
    multiply_ms = yield from _multiply(plan, draw, found)
    cpu_milli, at_once = yield from _together(plan, draw, found, alone, sentinel)
    memory_bytes = yield from _memory(plan, draw, found, rtt_us)
    yield from _disk(plan, found)
    kbps = yield from _line(plan, draw, found)
    gpu, gpus = yield from _cards(plan, draw, found)
    return Outcome(
        claims=claims,
        fields=found.fields,
        cpu_milli=cpu_milli,
        memory_bytes=memory_bytes if found.fields & Field.MEMORY else 0,
        gpu=gpu,
        gpus=gpus,
        bandwidth_kbps=kbps,
        links_per_s_milli=alone,
        links_at_once_per_s_milli=at_once,
        rtt_us=rtt_us,
        multiply_ms=multiply_ms,
        found=tuple(found.rows),
    )


def _ask(test: Test, within_s: float) -> Generator[Ask | Judge, Any, Reply]:
    reply: Reply = yield Ask(test, within_s)
    if isinstance(reply.result, Declined) and reply.result.code in ("busy", "rented", "too_often"):
        raise _Broke(f"{reply.result.code}: {reply.result.detail}")
    return reply


def _asked(test: Test, within_s: float, kind: type[T]) -> Generator[Ask | Judge, Any, tuple[T, Reply]]:
    """What must be answered, or there is nothing to examine."""
    reply = yield from _ask(test, within_s)
    if not isinstance(reply.result, kind):
        raise _Broke("it didn't answer" if reply.result is None else f"it answered {reply.result!r}"[:200])
    return reply.result, reply


def _judged(work: Callable[[], T]) -> Generator[Ask | Judge, Any, T]:
    return (yield Judge(work))


def _round_trip(plan: Plan, found: _Found) -> Generator[Ask | Judge, Any, int]:
    least_s = float("inf")
    for _ in range(plan.echoes):
        least_s = min(least_s, (yield from _asked(Echo(), 5, Echoed))[1].took_s)
    rtt_us = max(1, round(least_s * MILLION))
    found.add("round_trip_us", rtt_us, note=f"least of {plan.echoes}, through the gateway")
    return rtt_us


# --- the processor ---


def _chains(
    ms: int, cores: tuple[int, ...], draw: Callable[[bytes], Digest], sentinel: Sentinel
) -> Generator[Ask | Judge, Any, tuple[list[int], str]]:
    """Of each core thousandths of links a second, and what was wrong."""
    nothing = [0] * len(cores)
    reply = yield from _ask(Run(cores, ms), ms / 1000 + 20)
    ran = reply.result
    if not isinstance(ran, Ran) or len(ran.cores) != len(cores):
        return nothing, "it didn't run them"
    firsts = [sentinel.first(reply.seed, core) for core in cores]
    word = draw(b"".join(b"".join(core) for core in ran.cores))

    def right() -> bool:
        return not stretches.is_repeated(ran.cores) and all(
            stretches.is_right(sentinel.link, firsts, reply.seed, ran.cores, core, at)
            for core, at in stretches.draw(word, ran.cores, CHECKED_STRETCHES)
        )

    if not (yield from _judged(right)):
        return nothing, "the chain that it sent isn't what its links come to"
    # A machine that stops early is only slower.
    seconds = max(reply.took_s, ms / 1000)
    return [round(1000 * len(core) * stretches.STRETCH / seconds) for core in ran.cores], ""


def _alone(
    plan: Plan, draw: Callable[[bytes], Digest], found: _Found, sentinel: Sentinel
) -> Generator[Ask | Judge, Any, int]:
    core = int.from_bytes(draw(b"core")) % found.claims.cores
    (milli,), wrong = yield from _chains(plan.alone_ms, (core,), draw, sentinel)
    found.fields |= Field.PROFILE
    found.add("links_per_s_milli", milli, note=wrong or f"core {core} alone for {plan.alone_ms} ms")
    return milli


def _together(
    plan: Plan, draw: Callable[[bytes], Digest], found: _Found, alone_milli: int, sentinel: Sentinel
) -> Generator[Ask | Judge, Any, tuple[int, int]]:
    """Cores that answered at once, and what all came to."""
    claims = found.claims
    cpu_milli, each, wrong = 0, [0], ""
    for _ in range(TRIES):
        again, wrong = yield from _chains(plan.together_ms, tuple(range(claims.cores)), draw, sentinel)
        if wrong:
            cpu_milli, each = 0, [0]
            break
        # Who runs the one core slowly gains cores by it, and each of them is as slow: what all came to is what was done.
        shares = [
            min(1000, MOST_SLOWED * 1000 * milli // alone_milli) if alone_milli else 0 for milli in again
        ]
        if sum(again) >= sum(each):
            cpu_milli, each = min(claims.cpu_milli, sum(shares)), again
        if cpu_milli == claims.cpu_milli:
            break
    found.fields |= Field.CPU
    note = (
        wrong or f"cores that ran at {100 // MOST_SLOWED} % of one alone or better; slower ones in proportion"
    )
    found.add("cpu_milli", cpu_milli, claims.cpu_milli, note)
    found.add(
        "links_at_once_per_s_milli",
        sum(each),
        note=wrong or f"{claims.cores} cores for {plan.together_ms} ms",
    )
    return cpu_milli, sum(each)


def _multiply(plan: Plan, draw: Callable[[bytes], Digest], found: _Found) -> Generator[Ask | Judge, Any, int]:
    cores = min(found.claims.cores, MOST_CORES)
    test = Multiply(0, cores, plan.size, plan.links)
    operations, wrong, took_s = yield from _products(test, draw)
    found.add(
        "multiply_mops_per_s",
        operations,
        note=wrong or f"{cores} chains of {plan.links} products of {plan.size}",
    )
    return 0 if wrong else round(took_s * 1000)


def _products(
    test: Multiply, draw: Callable[[bytes], Digest]
) -> Generator[Ask | Judge, Any, tuple[int, str, float]]:
    """Millions of operations a second of all chains together, what was wrong, and how long it took."""
    reply = yield from _ask(test, 60)
    committed = reply.result
    chains = test.cores if test.gpu == 0 else 1
    if isinstance(committed, Declined):
        return 0, f"{committed.code}: {committed.detail}"[:200], 0.0
    if not isinstance(committed, Committed) or [len(it) for it in committed.chains] != [test.links] * chains:
        return 0, "it didn't multiply", 0.0
    word = draw(b"".join(b"".join(chain) for chain in committed.chains))
    chain = int.from_bytes(word) % chains
    challenge = products.Challenge(chain_seed(reply.seed, chain), test.size, test.links)
    commitments = [Digest(it) for it in committed.chains[chain]]
    for link in products.draw(challenge, commitments, word, OPENED_LINKS):
        shown = yield from _ask(ShowLink(reply.seed, chain, link), 30)
        wrong = yield from _judged(
            lambda link=link, data=shown.data: _link_differs(challenge, commitments, link, data, word)
        )
        if wrong is not None:
            return 0, wrong, 0.0
    return round(challenge.operations * chains / reply.took_s / MILLION), "", reply.took_s


def _link_differs(
    challenge: products.Challenge, commitments: Sequence[Digest], link: int, data: bytes, word: Digest
) -> str | None:
    area = challenge.size**2
    if len(data) != (5 * area if link == 0 else 9 * area):
        return "the link isn't shown"
    shown = products.Opened(link, data[:area], data[area : 5 * area])
    previous = products.Opened(link - 1, b"", data[5 * area :]) if link else None
    return products.differs(challenge, commitments, previous, shown, word)


# --- memory, disk, line ---


def _memory(
    plan: Plan, draw: Callable[[bytes], Digest], found: _Found, rtt_us: int
) -> Generator[Ask | Judge, Any, int]:
    claims = found.claims
    wanted = min(claims.memory_bytes, plan.fill_bytes, plan.fill_core_bytes * claims.cores)
    each = min(MOST_PAGES, wanted // claims.cores // pages.PAGE_BYTES)
    if each < 2:
        found.add("memory_bytes", None, claims.memory_bytes, "less is claimed than can be tried")
        return 0
    size = each * claims.cores * pages.PAGE_BYTES
    reply = yield from _ask(Fill(claims.cores, each), 90)
    filled = reply.result
    wrong = "it didn't fill it"
    if isinstance(filled, Filled) and len(filled.roots) == claims.cores:
        word = draw(b"".join(filled.roots))
        chain = int.from_bytes(word) % claims.cores
        drawn = pages.draw(word, each, SHOWN_PAGES)
        shown = yield from _ask(ShowPages(reply.seed, chain, drawn), 30)
        seed, root = chain_seed(reply.seed, chain), Digest(filled.roots[chain])
        wrong = yield from _judged(lambda: _pages_differ(seed, each, root, drawn, shown.data))
        if not wrong and shown.took_s > reply.took_s / SHOW_SHARE + rtt_us / MILLION + MOMENT_S:
            wrong = "the pages came too late to have been there"
    elif isinstance(filled, Declined):
        wrong = f"{filled.code}: {filled.detail}"[:200]
    if wrong or not isinstance(filled, Filled):
        found.fields |= Field.MEMORY
        found.add("memory_bytes", 0, claims.memory_bytes, wrong)
        return 0
    note = (
        "held at once; the rest of the claim wasn't tried"
        if size < claims.memory_bytes // 100 * 99
        else "held at once"
    )
    found.add("memory_bytes", size, claims.memory_bytes, note)
    yield from _bandwidth(plan, draw, found, reply.seed, filled.roots, each)
    return size


def _bandwidth(
    plan: Plan,
    draw: Callable[[bytes], Digest],
    found: _Found,
    of: Digest,
    filled: Sequence[bytes],
    each: int,
) -> Generator[Ask | Judge, Any, None]:
    """How fast all cores together read what they hold; asked when it was shown that they hold it."""
    name, claimed = "memory_read_kbytes_per_s", found.claims.memory_kbytes_per_s or None
    chains = len(filled)
    reply = yield from _ask(Sweep(of, plan.sweeps), 60)
    swept = reply.result
    if not isinstance(swept, Swept) or [len(it) for it in swept.chains] != [plan.sweeps] * chains:
        found.add(name, 0, claimed, "it didn't read it")
        return
    word = draw(b"".join(b"".join(chain) for chain in swept.chains))
    chain = int.from_bytes(word) % chains
    places = sweeps.draw(word, each, plan.sweeps, SHOWN_PAGES)
    shown = yield from _ask(ShowSweep(reply.seed, chain, places), 30)
    seed, root = chain_seed(reply.seed, chain), Digest(filled[chain])
    roots = [Digest(it) for it in swept.chains[chain]]
    wrong = yield from _judged(lambda: _sweep_differs(seed, each, root, roots, places, shown.data))
    size = each * chains * pages.PAGE_BYTES
    note = f"a floor: {size >> 20} MiB read {plan.sweeps} times by {chains} cores"
    if size < IN_CACHES_BYTES:
        note += "; so little may lie in caches"
    rate = round(plan.sweeps * size / reply.took_s / 1000)
    found.add(name, 0 if wrong else rate, claimed, wrong or note)


def _sweep_differs(
    seed: Digest, each: int, filled: Digest, roots: Sequence[Digest], places: Sequence[int], data: bytes
) -> str:
    try:
        shown = canonical.decode(data, sweeps.SweepShown)
    except Malformed:
        return "the values weren't shown"
    return sweeps.differs(seed, each, filled, roots, places, shown) or ""


def _pages_differ(seed: Digest, count: int, root: Digest, drawn: Sequence[int], data: bytes) -> str:
    try:
        shown = canonical.decode(data, pages.PagesShown)
    except Malformed:
        return "the pages weren't shown"
    return pages.differs(seed, count, root, drawn, shown) or ""


def _disk(plan: Plan, found: _Found) -> Generator[Ask | Judge, Any, None]:
    size = min(plan.stored_bytes, found.claims.disk_bytes)
    if not size:
        found.add("disk_write_kbytes_per_s", None, None, "no disk is claimed")
        return
    stored = yield from _ask(Store(size), 60)
    if not isinstance(stored.result, Stored):
        found.add("disk_write_kbytes_per_s", 0, None, "it didn't store them")
        return
    reread = yield from _ask(Reread(stored.seed), 60)
    digest = reread.result.digest if isinstance(reread.result, Stored) else b""
    right = yield from _judged(lambda: _stored(stored.seed, reread.seed, size))
    note = (
        f"{size} bytes; memory could pose as a disk"
        if digest == right
        else "other bytes than were to be stored"
    )
    found.add(
        "disk_write_kbytes_per_s", round(size / stored.took_s / 1000) if digest == right else 0, note=note
    )
    found.add(
        "disk_read_kbytes_per_s", round(size / reread.took_s / 1000) if digest == right else 0, note=note
    )


def _stored(seed: Digest, again: Digest, size: int) -> bytes:
    hasher, made = blake3(again), blake3(seed)
    for start in range(0, size, MOST_PART_BYTES):
        hasher.update(made.digest(length=min(MOST_PART_BYTES, size - start), seek=start))
    return hasher.digest()


def _line(plan: Plan, draw: Callable[[bytes], Digest], found: _Found) -> Generator[Ask | Judge, Any, int]:
    """Thousand bits a second, the lesser of both directions."""
    given = yield from _ask(Give(plan.line_bytes), 30)
    came = given.data == blake3(given.seed).digest(length=plan.line_bytes)
    up = round(8 * len(given.data) / given.took_s / 1000) if came else 0
    data = blake3(draw(b"line")).digest(length=plan.line_bytes)
    down = 0
    for start in range(0, len(data), MOST_PART_BYTES):
        last = start + MOST_PART_BYTES >= len(data)
        taken = yield from _ask(Take(data[start : start + MOST_PART_BYTES], last), 30 if last else 0)
        if last and isinstance(taken.result, Echoed):
            down = round(8 * len(data) / taken.took_s / 1000)
    found.add("line_up_kbps", up, note="a floor, through the gateway")
    found.add("line_down_kbps", down, note="a floor, through the gateway")
    if min(up, down):
        found.fields |= Field.BANDWIDTH
    return min(up, down)


# --- cards ---


def _cards(
    plan: Plan, draw: Callable[[bytes], Digest], found: _Found
) -> Generator[Ask | Judge, Any, tuple[str, int]]:
    """Kind and number of those that multiplied; a card's name stays its owner's word."""
    claims = found.claims
    cores = next((it.found or 0 for it in found.rows if it.name == "multiply_mops_per_s"), 0)
    shown = 0
    for at, gpu in enumerate(claims.gpus):
        test = Multiply(at + 1, 1, plan.gpu_size, plan.gpu_links)
        operations, wrong, _ = yield from _products(test, draw)
        name = f"gpu_{at}_mops_per_s"
        if wrong.startswith("no_gpu"):
            found.add(name, None, None, f"{gpu.name}: not measured, {wrong}"[:200])
            continue
        is_faster = operations >= BEYOND_CORES * cores
        if wrong or is_faster:
            found.fields |= Field.GPU
        shown += is_faster and not wrong
        said = (
            f"claimed to be {gpu.name}; a floor"
            if is_faster
            else f"{gpu.name}: not measured, its cores could do as much"
        )
        found.add(name, operations, None, (wrong or said)[:200])
    return (claims.gpus[0].name, shown) if shown else ("", 0)
