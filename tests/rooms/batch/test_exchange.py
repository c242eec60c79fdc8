"""Content between machines: whole and right, or not at all, whatever the other side does."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterai.protocol.ids import Digest
from clusterai.protocol.jobs import MOST_PART_BYTES
from clusterai.sandbox import BlobStore
from clusterai.work.batch.adapters import exchange
from clusterai.work.batch.adapters.exchange import Exchange, NotHad, part

CONTENT = bytes(range(256)) * (3 * MOST_PART_BYTES // 256) + b"end"


class Sides:
    """Who has it, and who wants it."""

    def __init__(self, folder: Path, content: bytes = CONTENT) -> None:
        self.there = BlobStore(folder / "there")
        self.digest = self.there.put(content)
        self.here = BlobStore(folder / "here")
        self.exchange = Exchange(self.here)
        self.asked: list[int] = []

    def honest(self, offset: int) -> None:
        self.asked.append(offset)
        found = part(self.there, self.digest, offset)
        assert found is not None
        self.exchange.take(self.digest, offset, *found)

    def fetch(self, ask: Callable[[int], object], most_bytes: int = 1 << 40) -> None:
        asyncio.run(self.exchange.fetch(self.digest, ask, most_bytes))


def test_it_comes_in_parts(tmp_path: Path) -> None:
    """Four parts make it whole, and it is asked for no more often."""
    sides = Sides(tmp_path)
    sides.fetch(sides.honest)
    assert sides.here.read(sides.digest) == CONTENT
    assert len(sides.asked) == 4
    sides.fetch(sides.honest)
    assert len(sides.asked) == 4


def test_nothing_is_something_too(tmp_path: Path) -> None:
    """An empty file is content like any other."""
    sides = Sides(tmp_path, b"")
    sides.fetch(sides.honest)
    assert sides.here.read(sides.digest) == b""


def test_it_goes_on_where_it_broke_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is started later asks only for what hadn't come."""
    monkeypatch.setattr(exchange, "PATIENCE_S", 0.01)
    sides = Sides(tmp_path)

    def twice(offset: int) -> None:
        if offset < 2 * MOST_PART_BYTES:
            sides.honest(offset)

    with pytest.raises(NotHad, match="nobody answers"):
        sides.fetch(twice)
    sides.exchange = Exchange(sides.here)
    sides.asked.clear()
    sides.fetch(sides.honest)
    assert sides.asked == [2 * MOST_PART_BYTES, 3 * MOST_PART_BYTES]
    assert sides.here.read(sides.digest) == CONTENT


def test_lost_and_repeated_parts_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second answer is lost, and every other comes twice."""
    monkeypatch.setattr(exchange, "PATIENCE_S", 0.01)
    sides = Sides(tmp_path)
    count = 0

    def unreliable(offset: int) -> None:
        nonlocal count
        count += 1
        if count % 2:
            sides.honest(offset)
            sides.honest(offset)

    sides.fetch(unreliable)
    assert sides.here.read(sides.digest) == CONTENT


def test_another_content_is_refused(tmp_path: Path) -> None:
    """What hasn't the digest that was asked for isn't kept under any name."""
    sides = Sides(tmp_path)
    with pytest.raises(NotHad, match="something else"):
        sides.fetch(lambda offset: sides.exchange.take(sides.digest, offset, 5, b"wrong"[offset:]))
    assert sides.here.used_bytes == 0


def test_what_is_missing_or_too_long_is_refused(tmp_path: Path) -> None:
    """The first answer decides, before more of it is taken."""
    sides = Sides(tmp_path)
    with pytest.raises(NotHad, match="isn't there"):
        sides.fetch(lambda _: sides.exchange.miss(sides.digest))
    with pytest.raises(NotHad, match="more than"):
        sides.fetch(sides.honest, most_bytes=1_000)


def test_two_who_want_it_cause_one_transfer(tmp_path: Path) -> None:
    """The second waits for the first."""
    sides = Sides(tmp_path)

    async def both() -> None:
        await asyncio.gather(
            sides.exchange.fetch(sides.digest, sides.honest), sides.exchange.fetch(sides.digest, sides.honest)
        )

    asyncio.run(both())
    assert len(sides.asked) == 4


def test_parts_that_nobody_asked_for_are_dropped(tmp_path: Path) -> None:
    """A stranger can't fill the disk."""
    sides = Sides(tmp_path)
    sides.exchange.take(Digest(bytes(32)), 0, 10, b"0123456789")
    assert not list(sides.here.root.iterdir())
    assert part(sides.there, sides.digest, len(CONTENT) + 1) is None
    assert part(sides.there, Digest(bytes(32)), 0) is None
