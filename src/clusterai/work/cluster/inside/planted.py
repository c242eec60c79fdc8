"""A word in the memory of Ray's core, where it keeps one variable of its environment.

Ray's core reads its job and its raylet as it is loaded, and has no way to be told of others later. It is loaded with words in their place
which stand nowhere else; they are found again as a string of the C++ library has them (length, room, owners, text), just once, or
workers are started as Ray would.
"""

import ctypes
import re
import struct
from pathlib import Path

from births import Declined


class Planted:
    """A word in the memory of Ray's core, where it keeps one variable of its environment."""

    def __init__(self, at: int, room: int) -> None:
        self._at = at
        self._room = room

    @classmethod
    def find(cls, word: str) -> "Planted":
        """A string of the C++ library, as Ray's wheels are built: length, room, one owner, and the text.

        Raises:
            Declined: it isn't there just once.
        """
        begin, end = _heap()
        size = len(word)
        sought = re.escape(struct.pack("<QQi", size, size, 0)) + b".{4}" + re.escape(word.encode() + b"\0")
        found = [it.start() for it in re.finditer(sought, ctypes.string_at(begin, end - begin), re.DOTALL)]
        if len(found) != 1:
            raise Declined(f"{word} stands in {len(found)} places")
        return cls(begin + found[0], size)

    def become(self, text: str) -> None:
        assert len(text) <= self._room
        ctypes.memmove(self._at, struct.pack("<Q", len(text)), 8)
        ctypes.memmove(self._at + 24, text.encode() + b"\0", len(text) + 1)


def _heap() -> tuple[int, int]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("[heap]"):
            begin, _, end = line.split()[0].partition("-")
            return int(begin, 16), int(end, 16)
    raise Declined("no heap")
