"""What the Meter's parts share in one step: the time, the book, and what is to be done, in its order."""

from typing import Any

import msgspec

from clusterai.gateway.core.book import Book
from clusterai.gateway.core.errands import Refunded
from clusterai.gateway.core.moneystate import Record
from clusterai.protocol.ids import Address
from clusterai.runtime.machine import Save, Send


class Step:
    """
    Attributes:
        now_s: the clock's time of this step.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self.now_s = 0.0
        self._effects: list[Any] = []
        self._refunded: list[Refunded] = []
        self._head_s: int | None = None
        self._head_at_s = 0.0

    def begin(self, now_s: float) -> None:
        self.now_s = now_s
        self._effects = []
        self._refunded = []

    def effects(self) -> list[Any]:
        """All of this step. Who watches is told last: of a charge before of its refund."""
        return self._effects + self._refunded

    def save(self, record: Record) -> None:
        self._effects.append(Save(record))
        self._refunded += map(Refunded, self._book.apply(record))

    def send(self, to: Address, frame: msgspec.Struct) -> None:
        self._effects.append(Send(to, frame))

    def add(self, *effects: Any) -> None:
        self._effects += effects

    # --- the chain's time ---

    def head(self, timestamp_s: int) -> None:
        """The chain's newest block is of that time."""
        self._head_s, self._head_at_s = timestamp_s, self.now_s

    def chain_time_s(self, now_s: float | None = None) -> float:
        """The chain's time as this gateway believes it; it goes on while the chain is away."""
        now_s = self.now_s if now_s is None else now_s
        if self._head_s is None:
            return now_s
        return self._head_s + max(0.0, now_s - self._head_at_s)
