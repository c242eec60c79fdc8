"""Heartbeats as tokens: what every core's chain came to, what the tenant used, and who else was there.

    beat 0     as the chains stood when the interval began
    beat k     elapsed ms, tenant's CPU ms, foreign processes; for each core: links since the beat before, how many of them under
               the seed before (`late`, in beat 1 only: chains take up a seed between two links), the value

Milliseconds count from beat 0. Between two beats of one core lies a **span**: links from one known value to another, which anybody can
do again.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from clusterai.work.cluster.spec import Interval

MOST_TOKEN = 2**24
VALUE_BYTES = 32
_HEAD = 3
_VALUE = (VALUE_BYTES + 2) // 3
_CELL = 2 + _VALUE
LATE_MS = 1_000
"""How long after its beginning chains may still run under the seed before: one link, and a busy tenant's time slices."""
CLOCK_MS = 2_000
"""By how much the last beat may be later than was asked."""


class Cell(msgspec.Struct, frozen=True):
    """One core at one beat."""

    links: int
    late: int
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
        yield min(cell.late, MOST_TOKEN)
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
        links, late, *value = tokens[at : at + _CELL]
        cells.append(Cell(links, late, _bytes(value)))
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
    if len(beats) > interval.beats + 1 or (reason == "stop" and len(beats) != interval.beats + 1):
        return f"{len(beats) - 1} heartbeats came, {interval.beats} were asked for"
    for at, beat in enumerate(beats):
        if (why := _wrong_beat(interval, beats[at - 1] if at else None, beat, at)) is not None:
            return why
    return None


def _wrong_beat(interval: Interval, before: Beat | None, beat: Beat, at: int) -> str | None:
    if before is None:
        empty = beat.elapsed_ms == beat.tenant_ms == 0 and not any(it.links or it.late for it in beat.cells)
        return None if empty else "the first heartbeat counts from itself"
    if beat.elapsed_ms <= before.elapsed_ms or beat.elapsed_ms > interval.seconds * 1000 + CLOCK_MS:
        return "heartbeats aren't in order, or too late"
    if beat.tenant_ms < before.tenant_ms:
        return "what a tenant used doesn't shrink"
    for cell in beat.cells:
        if cell.late > cell.links or (at > 1 and cell.late):
            return "links under the seed before are counted where none can be"
        if cell.late > LATE_MS * (interval.links_per_s_milli or 10**6) // 10**6 + 1:
            return "a chain took too long to take up the seed"
    return None
