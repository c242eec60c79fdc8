"""A journal that can't be written: nothing is done that isn't written down, then or later."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.journal import JournalLost, SqliteJournal
from clusterai.runtime.machine import Save


class Noted(msgspec.Struct, frozen=True, tag=True):
    text: bytes


class Notes:
    """Writes down what it hears, then says it; several records a step where it hears several."""

    RECORDS = Noted

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def restore(self, records: Iterable[Noted]) -> None:
        self.heard += [record.text for record in records]

    def snapshot(self) -> list[msgspec.Struct]:
        return [Noted(text) for text in self.heard]

    def step(self, event: list[bytes], now_s: float) -> list[Any]:
        self.heard += event
        return [*(Save(Noted(text)) for text in event), *event]


class Disk(SqliteJournal):
    """A journal on a disk whose room is ours to say."""

    def pages(self) -> int:
        return self._db.execute("PRAGMA page_count").fetchone()[0]

    def most(self, pages: int) -> None:
        self._db.execute(f"PRAGMA max_page_count={pages}")


@pytest.mark.parametrize("pieces", [1, 3])
def test_what_is_not_written_is_not_done(tmp_path: Path, pieces: int):
    """The disk ends within a step: none of its effects is carried out, nor of any step behind it; a restart goes on before it."""
    path = tmp_path / "journal.sqlite"
    said: list[bytes] = []
    journal = Disk(path)
    driver = Driver(Notes(), journal, said.append)
    driver.handle([b"one"])
    journal.most(journal.pages())
    big = [bytes(100_000)] * pieces
    for event in (big, [b"small enough"]):
        with pytest.raises(JournalLost, match=r"full.*room"):
            driver.handle(event)
    journal.most(1 << 20)
    with pytest.raises(JournalLost):
        driver.handle([b"there is room, and it is too late"])
    assert said == [b"one"]
    journal.close()
    journal = SqliteJournal(path)
    again = Driver(Notes(), journal, said.append)
    again.handle([b"two"])
    assert said == [b"one", b"two"]
    assert journal.appended == 2
    journal.close()
