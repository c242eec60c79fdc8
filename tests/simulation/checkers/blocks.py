"""What checkers of the chain have in common: each event of the present chain once, in order, from the first block.

When blocks are undone they begin again, because what they had counted may not have happened.
"""

from typing import Any

from clusterai.runtime.simulator import Blockchain
from clusterai.runtime.simulator.blocks import Mined


class Violated(AssertionError):
    """A promise of the network was broken; the message says which, with its numbers."""


def require(condition: bool, promise: str, *numbers: object) -> None:
    if not condition:
        shown = ", ".join(number.hex() if isinstance(number, bytes) else repr(number) for number in numbers)
        raise Violated(f"{promise}: {shown}" if numbers else promise)


class OfBlocks:
    """Base of checkers that read the chain."""

    def __init__(self, chain: Blockchain) -> None:
        self.chain = chain
        self._read = 0
        self._undone = 0
        self.reset()
        chain.watchers.append(self._mined)

    def reset(self) -> None:
        """Forget everything that was read."""
        raise NotImplementedError

    def event(self, event: Any, timestamp_s: int) -> None:
        raise NotImplementedError

    def block(self, timestamp_s: int) -> None:
        """After all events of a block; the ledger's state is that of this block only if it is the newest."""

    def _mined(self, _: Mined) -> None:
        if self._undone != self.chain.undone:
            self._undone = self.chain.undone
            self._read = 0
            self.reset()
        while self._read < len(self.chain.blocks):
            block = self.chain.blocks[self._read]
            self._read += 1
            for event in block.events:
                self.event(event, block.timestamp_s)
            self.block(block.timestamp_s)
