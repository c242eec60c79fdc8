"""Virtual time: a heap of what happens when. Equal times happen in the order in which they were asked for."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

SECOND_US = 1_000_000


class Timeline:
    """Time moves only by taking the next act off the heap; microseconds, integers.

    Attributes:
        now_us: microseconds since the simulation began.
    """

    __slots__ = ("_heap", "_sequence", "now_us")

    def __init__(self) -> None:
        self.now_us = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0

    def after(self, delay_us: int, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act(*arguments)` once `delay_us` have gone by. There is no cancelling: acts look whether they still apply."""
        self._sequence += 1
        heappush(self._heap, (self.now_us + delay_us, self._sequence, act, arguments))

    def advance(self) -> bool:
        """Do the next act; False when nothing will ever happen again."""
        if not self._heap:
            return False
        self.now_us, _, act, arguments = heappop(self._heap)
        act(*arguments)
        return True
