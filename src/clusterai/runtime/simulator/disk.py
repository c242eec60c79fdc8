"""A journal in memory that forgets what was not synced, as a disk does when the power goes."""

from collections.abc import Sequence
from random import Random


class MemoryJournal:
    """`append` writes, `sync` makes durable, `crash` keeps what is durable and a drawn part of the rest.

    The simulation syncs before every effect that is not a `Save`: that is the promise of `runtime.machine`.
    """

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._durable = 0

    def append(self, records: Sequence[bytes]) -> None:
        self._records.extend(records)

    def sync(self) -> None:
        self._durable = len(self._records)

    def load(self) -> list[bytes]:
        return list(self._records)

    def replace(self, records: Sequence[bytes]) -> None:
        self._records = list(records)
        self._durable = len(self._records)

    def crash(self, random: Random | None) -> int:
        """Lose the suffix that was not synced (all of it, or with `random` a drawn part). Returns how many were lost."""
        loose = len(self._records) - self._durable
        kept = random.randint(0, loose) if random and loose else 0
        del self._records[self._durable + kept :]
        self._durable = len(self._records)
        return loose - kept

    def __len__(self) -> int:
        return len(self._records)
