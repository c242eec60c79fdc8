"""Tables filled from chain events that can go back when blocks are undone.

Nothing here is journaled: a daemon hands every event from the chain's first block to its projections when it starts.
`time_s` is the chain's time as one believes it: that of the newest block, going on by one's own clock while the
chain is away.
"""

from collections import deque
from typing import Any, TypeVar

from clusterai.ledger.core.events import Block, RolledBack

K = TypeVar("K")
V = TypeVar("V")

UNDO_BLOCKS = 256
"""How deep a reorganisation may go; deeper ones need a fresh read of the chain."""

_ABSENT = object()


class TooDeep(ValueError):
    """The chain rolled back to block {to}, but the undo log begins at {first}: read the chain anew."""

    def __init__(self, to: int, first: int) -> None:
        super().__init__(
            f"the chain rolled back to block {to}, but the undo log begins at {first}: read the chain anew"
        )


class Projection:
    """An undo log over plain dicts of immutable values, and the chain's clock."""

    def __init__(self) -> None:
        self.block = -1
        self.head_s: int | None = None
        self._head_at_s = 0.0
        self._forgotten = -1
        self._undo: deque[tuple[int, dict[Any, Any], Any, Any]] = deque()
        # Events come before the block that they stand in is named, and blocks without any may be left out.
        self._unnamed: list[tuple[dict[Any, Any], Any, Any]] = []

    def put(self, table: dict[K, V], key: K, value: V) -> None:
        """Set one entry in a way that can be undone with its block."""
        self._unnamed.append((table, key, table.get(key, _ABSENT)))
        table[key] = value

    def time_s(self, now_s: float) -> float:
        if self.head_s is None:
            return now_s
        return self.head_s + max(0.0, now_s - self._head_at_s)

    def apply(self, event: Block | RolledBack, now_s: float) -> None:
        """
        Raises:
            TooDeep: a rollback past the undo log.
        """
        if isinstance(event, Block):
            self.block, self.head_s, self._head_at_s = event.number, event.timestamp_s, now_s
            self._undo.extend((event.number, *change) for change in self._unnamed)
            self._unnamed.clear()
            while self._undo and self._undo[0][0] <= event.number - UNDO_BLOCKS:
                self._forgotten = self._undo.popleft()[0]
            return
        if event.number < self._forgotten:
            raise TooDeep(event.number, self._forgotten)
        undone = self._unnamed[::-1]
        self._unnamed.clear()
        while self._undo and self._undo[-1][0] > event.number:
            undone.append(self._undo.pop()[1:])
        for table, key, before in undone:
            if before is _ABSENT:
                table.pop(key, None)  # its owner may have dropped what is over
            else:
                table[key] = before
        self.block = min(self.block, event.number)
