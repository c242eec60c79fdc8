"""The Meter's journal, which must not forget a charge before the archive has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from clusterai.gateway.adapters.archive import Archive
from clusterai.runtime.adapters.journal import SqliteJournal


class FlushedJournal(SqliteJournal):
    """Compaction drops charges; receipts that are still waiting to be archived are written first."""

    def __init__(self, path: Path, synchronous: Literal["NORMAL", "FULL"], archive: Archive) -> None:
        super().__init__(path, synchronous)
        self._archive = archive

    def replace(self, records: Sequence[bytes]) -> None:
        self._archive.flush()
        super().replace(records)
