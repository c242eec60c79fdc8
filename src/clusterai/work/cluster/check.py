"""The audit of a rented interval: one core's chain between two heartbeats, done again.

Which one is drawn after the receipts were committed to, so a provider that makes up one span in n is caught with 1/n an audit; and
a chain is right to the last bit or not at all.
"""

import asyncio
import math

from clusterai.protocol.keccak import keccak
from clusterai.work.cluster.core.heartbeats import Beat, beats_of, wrong
from clusterai.work.cluster.inside.sentinel import first, link
from clusterai.work.cluster.spec import Interval
from clusterai.work.kind import Findings

HONEST_MILLI, FALSE_MILLI = -1_000, 30_000
"""Weights of one span. From the sequential test's floor to conviction is 27,632: one false chain convicts."""


async def check_part(interval: Interval, tokens: tuple[int, ...], reason: str, lot: bytes) -> Findings:
    """Findings of the span that `lot` draws."""
    if wrong(interval, tokens, reason) is not None:
        return _false(len(tokens))
    beats = beats_of(interval.cores, tokens)
    if not beats:
        return Findings(0, 0, 0, 0)
    drawn = int.from_bytes(keccak(b"clusterai span" + lot), "big") % (len(beats) * interval.cores)
    right = await _right(interval, beats, drawn // interval.cores, drawn % interval.cores)
    return Findings(1, 1, HONEST_MILLI, 0) if right else _false(1)


async def judge_answer(
    engine: object, interval: Interval, tokens: tuple[int, ...], reason: str
) -> tuple[Findings, list[float]]:
    """All of it, for those who want to see the evidence; the gap of a span is 0, or infinite. Takes as long as the chains took."""
    if wrong(interval, tokens, reason) is not None:
        return _false(len(tokens)), []
    beats = beats_of(interval.cores, tokens)
    spans = [(at, core) for at in range(len(beats)) for core in range(interval.cores)]
    right = [await _right(interval, beats, *span) for span in spans]
    false = right.count(False)
    weight = false * FALSE_MILLI if false else HONEST_MILLI * bool(spans)
    found = Findings(len(spans), len(spans) - false, weight, -1 if false else 0)
    return found, [0.0 if it else math.inf for it in right]


async def _right(interval: Interval, beats: tuple[Beat, ...], at: int, core: int) -> bool:
    """Whether the span of a core that ends at a beat leads from the value before it to the value after it."""
    cell = beats[at].cells[core]
    value = beats[at - 1].cells[core].value if at else first(interval.seed, core)
    # scrypt lets the event loop's thread run on.
    return await asyncio.to_thread(_chain, value, interval.seed, cell.links) == cell.value


def spell(engine: object, answer: tuple[int, ...]) -> list[str]:
    return [f"{token} " for token in answer]


def _chain(value: bytes, seed: bytes, links: int) -> bytes:
    for _ in range(links):
        value = link(value, seed)
    return value


def _false(tokens: int) -> Findings:
    return Findings(tokens, 0, FALSE_MILLI, -1)
