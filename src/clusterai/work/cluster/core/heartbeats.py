"""Heartbeats as tokens: what every core's chain came to, what the tenant used, and who else was there.

    beat    elapsed ms, tenant's CPU ms, foreign processes; for each core: links since the beat before, the value

Milliseconds count from the interval's beginning, when the chains begin anew with its seed. Between two beats of one core lies a **span**:
links from one known value to another, which anybody can do again.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from clusterai.work.cluster.spec import Interval

MOST_TOKEN = 2**24
VALUE_BYTES = 32
_HEAD = 3
_VALUE = (VALUE_BYTES + 2) // 3
_CELL = 1 + _VALUE
CLOCK_MS = 2_000
"""By how much the last beat may be later than was asked."""


class Cell(msgspec.Struct, frozen=True):
    """One core at one beat."""

    links: int
    value: bytes


class Beat(msgspec.Struct, frozen=True):
    elapsed_ms: int
    tenant_ms: int
    foreign: int
    cells: tuple[Cell, ...]


def tokens_of(beat: Beat) -> tuple[int, ...]:
    """Counts above a token's range are cut to it; none occurs in an interval."""
    return tuple(_spelled(beat))


def _spelled(beat: Beat) -> Iterator[int]:
    yield from (min(it, MOST_TOKEN) for it in (beat.elapsed_ms, beat.tenant_ms, beat.foreign))
    for cell in beat.cells:
        yield min(cell.links, MOST_TOKEN)
        for at in range(0, VALUE_BYTES, 3):
            yield int.from_bytes(cell.value[at : at + 3], "big")


def beats_of(cores: int, tokens: Sequence[int]) -> tuple[Beat, ...]:
    """The beats that came whole; of what is torn nothing follows.

    Raises:
        ValueError: a value's last token is too large for its bytes.
    """
    size = _HEAD + cores * _CELL
    return tuple(_read(cores, tokens[at : at + size]) for at in range(0, len(tokens) - size + 1, size))


def _read(cores: int, tokens: Sequence[int]) -> Beat:
    cells: list[Cell] = []
    for at in range(_HEAD, _HEAD + cores * _CELL, _CELL):
        links, *value = tokens[at : at + _CELL]
        cells.append(Cell(links, _bytes(value)))
    return Beat(tokens[0], tokens[1], tokens[2], tuple(cells))


def _bytes(tokens: Iterable[int]) -> bytes:
    try:
        *whole, last = [int(token) for token in tokens]
        return b"".join(it.to_bytes(3, "big") for it in whole) + last.to_bytes(VALUE_BYTES % 3 or 3, "big")
    except OverflowError:
        raise ValueError("a chain's value has more than its bytes") from None


def wrong(interval: Interval, tokens: tuple[int, ...], reason: str) -> str | None:
    """Why these can't be heartbeats, as far as it shows without doing anything again."""
    size = _HEAD + interval.cores * _CELL
    if len(tokens) % size and reason != "cancelled":
        return "a heartbeat is torn"
    try:
        beats = beats_of(interval.cores, tokens)
    except ValueError as error:
        return str(error)
    if reason not in ("stop", "cancelled"):
        return f"an interval doesn't end by {reason[:20]!r}"
    if len(beats) > interval.beats or (reason == "stop" and len(beats) != interval.beats):
        return f"{len(beats)} heartbeats came, {interval.beats} were asked for"
    elapsed_ms, tenant_ms = 0, 0
    for beat in beats:
        if not elapsed_ms < beat.elapsed_ms <= interval.seconds * 1000 + CLOCK_MS:
            return "heartbeats aren't in order, or too late"
        if beat.tenant_ms < tenant_ms:
            return "what a tenant used doesn't shrink"
        elapsed_ms, tenant_ms = beat.elapsed_ms, beat.tenant_ms
    return None
