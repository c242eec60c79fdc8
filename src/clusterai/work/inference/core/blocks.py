"""Who holds which block of the key-value cache.

The cache is cut into blocks of 32 tokens. A sequence holds a list of them; full blocks of a prompt are filed under the hash of
all tokens up to their end, so that the next prompt that begins alike shares them and skips their prefill. Where the next
one differs only within a block, as chats under one short system prompt do, it takes a copy and goes on from there. A block
that nobody holds stays on file until its room is needed, the longest unused first.

    free --take--> held --release--> filed? --yes--> kept (least recently used first) --take / share--> held
      ^                               |
      +-------------------------------+ no
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice, takewhile

from blake3 import blake3

BLOCK = 32
"""Tokens in a block: what OpenVINO's paged attention on CPUs works with."""

LOOKED_AT = 16
"""Blocks, newest first, in which a beginning to copy is looked for: few system prompts are in use at a time."""


def chain(tokens: Sequence[int]) -> list[bytes]:
    """A name for each full block of `tokens`, which names all that came before it, too."""
    names: list[bytes] = []
    before = b""
    for start in range(0, len(tokens) - len(tokens) % BLOCK, BLOCK):
        part = b"".join(token.to_bytes(4, "little") for token in tokens[start : start + BLOCK])
        before = blake3(before + part).digest(16)
        names.append(before)
    return names


class BlockPool:
    """`size` blocks, numbered from 0."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = list(range(size - 1, -1, -1))
        self._holders: dict[int, int] = {}
        self._name_of: dict[int, bytes] = {}
        self._filed: dict[bytes, int] = {}
        self._after: dict[bytes, dict[int, tuple[int, ...]]] = {}
        self._follows: dict[int, bytes] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that `take` can give: free ones and those only kept for reuse."""
        return len(self._free) + len(self._kept)

    def take(self, count: int) -> list[int] | None:
        """`count` blocks to write into, or None where there are not as many; forgets kept ones where it must."""
        if count > self.available:
            return None
        taken: list[int] = []
        for _ in range(count):
            if self._free:
                block = self._free.pop()
            else:
                block, _ = self._kept.popitem(last=False)
                self._unfile(block)
            self._holders[block] = 1
            taken.append(block)
        return taken

    def share(self, names: Sequence[bytes]) -> list[int]:
        """Hold the blocks on file for the longest beginning of `names`; read only."""
        shared: list[int] = []
        for name in names:
            block = self._filed.get(name)
            if block is None:
                break
            self._kept.pop(block, None)
            self._holders[block] = self._holders.get(block, 0) + 1
            shared.append(block)
        return shared

    def file(self, block: int, name: bytes, after: bytes, tokens: Sequence[int]) -> None:
        """The block, held and full, now holds what `name` says. If another one does already, this one isn't filed.

        Args:
            after: name of the block before it, b"" for the first.
            tokens: its own.
        """
        assert block in self._holders
        if name not in self._filed and block not in self._name_of:
            self._filed[name] = block
            self._name_of[block] = name
            self._after.setdefault(after, {})[block] = tuple(tokens)
            self._follows[block] = after

    def alike(self, after: bytes, tokens: Sequence[int]) -> tuple[int, int]:
        """Of the blocks on file that follow `after`, one that begins most like `tokens`, and how many tokens it shares."""
        best, most = -1, 0
        for block, held in islice(reversed(self._after.get(after, {}).items()), LOOKED_AT):
            pairs = zip(held, tokens, strict=False)
            count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if count > most:
                best, most = block, count
        return best, most

    def release(self, blocks: Sequence[int]) -> None:
        """Give up one hold on each block. Later blocks are kept less long: they are of use to fewer."""
        for block in reversed(blocks):
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            del self._holders[block]
            if block in self._name_of:
                self._kept[block] = None
            else:
                self._free.append(block)

    def _unfile(self, block: int) -> None:
        del self._filed[self._name_of.pop(block)]
        after = self._follows.pop(block)
        del self._after[after][block]
        if not self._after[after]:
            del self._after[after]
