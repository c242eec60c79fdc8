"""The sentinel's chain, run alone for a while and checked in places: how fast a core is, as rentals count it.

    seed ─ STRETCH links ─> v_1 ─ STRETCH links ─> v_2 ... v_n          all sent, in time, before anyone knows which is looked at

A chain can't be cut into parts, so n stretches took as long as they take. The verifier, who took the time, draws some stretches by a
word of its own and runs them again. Who makes up a share f of them passes k of them with (1 - f)^k.

The link itself is handed in: it is the sentinel's (`work/cluster/inside/sentinel.py`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from blake3 import blake3

from clusterai.protocol.ids import Digest

Link = Callable[[bytes, bytes], bytes]
"""(value, beacon) to the next value."""

First = Callable[[bytes, int], bytes]
"""(seed, core) to the value before a chain's first link."""

STRETCH = 16


class Sentinel(NamedTuple):
    """What a chain is made of."""

    first: First
    link: Link


def run(link: Link, first: bytes, beacon: bytes, go_on: Callable[[], bool]) -> tuple[bytes, ...]:
    """Stretches until `go_on` says no; one that it broke off doesn't count."""
    found: list[bytes] = []
    value = first
    while go_on():
        for _ in range(STRETCH):
            value = link(value, beacon)
        found.append(value)
    return tuple(found)


def draw(word: Digest, values: Sequence[Sequence[bytes]], count: int) -> tuple[tuple[int, int], ...]:
    """(core, stretch) of `count` stretches at most, all with the same chance."""
    seed = blake3(b"clusterai stretches" + word)
    for core in values:
        seed.update(b"".join(core))
    places = [(core, at) for core, row in enumerate(values) for at in range(len(row))]
    drawn: list[tuple[int, int]] = []
    for turn in range(count):
        if places:
            lot = int.from_bytes(blake3(seed.digest() + turn.to_bytes(4)).digest())
            drawn.append(places.pop(lot % len(places)))
    return tuple(drawn)


def is_right(
    link: Link, firsts: Sequence[bytes], beacon: bytes, values: Sequence[Sequence[bytes]], core: int, at: int
) -> bool:
    """Whether a stretch, done again, comes to what was sent."""
    value = firsts[core] if at == 0 else values[core][at - 1]
    for _ in range(STRETCH):
        value = link(value, beacon)
    return value == values[core][at]


def is_repeated(values: Sequence[Sequence[bytes]]) -> bool:
    """Whether a value stands twice: no chain that goes on comes back."""
    every = [value for core in values for value in core]
    return len(set(every)) != len(every)
