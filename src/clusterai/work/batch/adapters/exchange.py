"""Content from one machine to another, part by part, over whatever carries frames: into the store only when it is whole and has
its digest.

    exchange = Exchange(store)
    await exchange.fetch(digest, lambda offset: link.send(gateway, AskContent(lease, digest, offset)))
    exchange.take(digest, offset, total, data)           # called by whoever hears the answers

What broke off goes on from the last whole chunk that came, also in a later process. A part that doesn't continue what is there is
dropped: the other side may be lying, or late. What isn't whole yet lies in the store too, sealed if that seals.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from clusterai.protocol.ids import Digest
from clusterai.protocol.jobs import MOST_PART_BYTES
from clusterai.protocol.leases import hidden_state
from clusterai.sandbox import BlobStore, Damaged, NoSuchBlob, StoreFull
from clusterai.sandbox.adapters.growing import Incoming

PATIENCE_S = 5.0
TRIES = 6
"""So often the same part is asked for in vain; then it can't be had now."""


class NotHad(LookupError):
    """Content {digest} can't be had from there: {why}."""

    def __init__(self, digest: Digest, why: str) -> None:
        super().__init__(f"content {digest.hex()[:16]}… can't be had from there: {why}")


class _Coming:
    """One content on its way; `moved` is set whenever something happened."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.moved = asyncio.Event()
        self.total: int | None = None
        self.missing = False
        self.full: StoreFull | None = None


class _Hidden:
    """A state that is asked for by what hides it."""

    def __init__(self) -> None:
        self.moved = asyncio.Event()
        self.state: Digest | None = None
        self.missing = False


class Exchange:
    """What is being fetched by this machine, each content once however many want it."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._coming: dict[Digest, _Coming] = {}
        self._turns: dict[Digest, asyncio.Lock] = {}
        self._hidden: dict[Digest, _Hidden] = {}

    async def fetch(self, digest: Digest, ask: Callable[[int], object], most_bytes: int = 1 << 40) -> None:
        """Until the store has it.

        Args:
            ask: asks for the part that begins at an offset; called again where no answer comes.
            most_bytes: a longer one isn't taken.

        Raises:
            NotHad: it is missing there, too long, something else, or nobody answers.
            StoreFull.
        """
        lock = self._turns.setdefault(digest, asyncio.Lock())
        try:
            async with lock:
                if digest not in self._store:
                    await self._fetch(digest, ask, most_bytes)
        finally:
            if not lock.locked():
                self._turns.pop(digest, None)

    async def reveal(self, hidden: Digest, ask: Callable[[Digest, int], object]) -> Digest:
        """The state that stands hidden in a commitment: who has it answers to the hidden one with the 32 bytes of the other.

        Raises:
            NotHad: it is missing there, or nobody answers.
        """
        coming = self._hidden.setdefault(hidden, _Hidden())
        try:
            for _ in range(TRIES):
                ask(hidden, 0)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE_S):
                        await coming.moved.wait()
                if coming.state is not None:
                    return coming.state
                if coming.missing:
                    raise NotHad(hidden, "it isn't there")
            raise NotHad(hidden, "nobody answers")
        finally:
            self._hidden.pop(hidden, None)

    async def fetch_all(
        self, wanted: Iterable[tuple[Digest, int]], ask: Callable[[Digest, int], object]
    ) -> None:
        """Each of them, with the size that it was said to have.

        Raises:
            As `fetch`.
        """
        for digest, size in wanted:

            def one(offset: int, digest: Digest = digest) -> object:
                return ask(digest, offset)

            await self.fetch(digest, one, max(size, 0))

    async def _fetch(self, digest: Digest, ask: Callable[[int], object], most_bytes: int) -> None:
        incoming = Incoming(self._store, digest)
        coming = self._coming[digest] = _Coming(incoming)
        try:
            tries = 0
            while coming.total is None or incoming.size < coming.total:
                before = incoming.size
                coming.moved.clear()
                ask(before)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE_S):
                        await coming.moved.wait()
                if coming.full is not None:
                    raise coming.full
                if coming.missing:
                    raise NotHad(digest, "it isn't there")
                if coming.total is not None and coming.total > most_bytes:
                    incoming.discard()
                    raise NotHad(digest, f"it has {coming.total} bytes, more than the {most_bytes} agreed")
                tries = 0 if incoming.size > before or coming.total == incoming.size else tries + 1
                if tries >= TRIES:
                    raise NotHad(digest, "nobody answers")
        finally:
            self._coming.pop(digest, None)
        if not await asyncio.to_thread(incoming.finish):
            raise NotHad(digest, "what came is something else")

    def take(self, digest: Digest, offset: int, total: int, data: bytes) -> bool:
        """A part has come; whether it brought anything on."""
        if (asked := self._hidden.get(digest)) is not None:
            is_it = len(data) == len(digest) and hidden_state(Digest(data)) == digest
            if is_it:
                asked.state = Digest(data)
                asked.moved.set()
            return is_it
        coming = self._coming.get(digest)
        if (
            coming is None
            or offset != coming.incoming.size
            or offset + len(data) > total
            or (not data and offset < total)
        ):
            return False
        if coming.total is not None and coming.total != total:
            return False
        try:
            coming.incoming.add(data, more=offset + len(data) < total)
        except StoreFull as error:
            coming.full = error
        except NoSuchBlob:
            coming.missing = True  # The lease that it came for ended.
        coming.total = total
        coming.moved.set()
        return True

    def forget(self, digest: Digest) -> None:
        """What came of it so far, if nobody fetches it now."""
        if digest not in self._coming and digest not in self._store:
            Incoming(self._store, digest).discard()

    def miss(self, digest: Digest) -> None:
        """The other side says that it doesn't have it."""
        if (asked := self._hidden.get(digest)) is not None:
            asked.missing = True
            asked.moved.set()
        if (coming := self._coming.get(digest)) is not None:
            coming.missing = True
            coming.moved.set()


def part(store: BlobStore, digest: Digest, offset: int) -> tuple[int, bytes] | None:
    """Total size and the part of a content that begins at an offset; None where it isn't here whole or ends before."""
    try:
        total = store.size(digest)
        return None if offset > total else (total, store.read_at(digest, offset, MOST_PART_BYTES))
    except (NoSuchBlob, Damaged):
        return None
