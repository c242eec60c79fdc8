"""A vault's book with its journal and its chain: one step at a time, from whatever thread.

an event ──> Driver(VaultBook) ──┬── submit: grants, anchors ──> chain ── hear ──> an event
                 journal         ├── Rekey: `wanted_epoch`, for whoever has the time
                                 └── Gave, No: the caller's answer
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from clusterai.ledger.core.calls import Submit
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.machine import Tick
from clusterai.vault.adapters.folder import SealedJournal, VaultFolder, read_records
from clusterai.vault.core.book import VaultBook
from clusterai.vault.core.onchain import OnChain
from clusterai.vault.core.terms import (
    Anchor,
    Anchored,
    ChainTime,
    Confirmed,
    Denied,
    Gave,
    Issue,
    No,
    Rekey,
    Terms,
    Withdraw,
    Withdrawn,
)

ORIGIN = Address(bytes(20))


class Bookkeeper:
    """
    Attributes:
        lock: to be held by whoever reads the book.
        wanted_epoch: of keys that all pieces shall lie under; None where they do.
    """

    def __init__(
        self,
        book: VaultBook,
        journal: SealedJournal,
        clock: Callable[[], float],
        chain: OnChain,
        submit: Callable[[Submit], None] | None,
    ) -> None:
        """
        Args:
            submit: None where no chain keeps grants: then they hold at once.
        """
        self.book = book
        self.lock = threading.RLock()
        self.wanted_epoch: int | None = None
        self._journal = journal
        self._chain = chain
        self._submit = submit
        self._given: Any = None
        self._later: deque[Any] = deque()
        self._driver = Driver(book, journal, self._perform, clock)

    def start(self) -> None:
        with self.lock:
            self._driver.start()
            self._settle()

    def close(self) -> None:
        with self.lock:
            self._journal.close()

    def step(self, event: Any) -> Any:
        """Step, and what the step gives to its caller.

        Raises:
            Denied.
        """
        with self.lock:
            self._given = None
            self._driver.handle(event)
            given, self._given = self._given, None
            self._settle()
        if isinstance(given, No):
            raise Denied(given.code, given.detail)
        return given.value if isinstance(given, Gave) else None

    def tick(self) -> None:
        self.step(Tick())
        self.step(ChainTime(self._chain.time_s))

    def hear(self, event: Any) -> None:
        """An event of the chain, or what became of a call."""
        with self.lock:
            told = self._chain.hear(event)
        for one in told:
            self.step(one)

    def close_sales(self, now_s: float) -> None:
        """The seller's money, or the buyer's: who delivered is paid, and who never will gives back what was paid."""
        if self._submit is None:
            return
        with self.lock:
            due = self._chain.decided(now_s, self._is_denied)
        for submit in due:
            self._submit(submit)

    def _is_denied(self, request: Digest) -> bool:
        entry = self.book.entries.get(request)
        return entry is not None and entry.state == "denied"

    def _settle(self) -> None:
        """What effects asked for and was done at once comes back as events, after the step that asked."""
        while self._later:
            self._driver.handle(self._later.popleft())
        self._given = None

    def _perform(self, effect: Any) -> None:
        match effect:
            case Gave() | No():
                self._given = effect
            case Rekey(epoch):
                self.wanted_epoch = epoch
            case _ if self._submit is not None:
                submit = self._chain.calls(effect, self.book.policy)
                if submit is not None:
                    self._submit(submit)
            # No chain keeps grants here: they hold at once.
            case Issue(grant):
                self._later.append(Confirmed(grant.struct()))
            case Withdraw(grant, reason):
                self._later.append(Withdrawn(grant, reason))
            case Anchor(count, _, _, as_of_s):
                self._later.append(Anchored(count, as_of_s))
            case _:
                pass


def read_book(folder: VaultFolder) -> VaultBook:
    """The book as the journal has it, beside whoever serves the vault: to look at, not to step.

    Raises:
        BadVault.
    """
    book = VaultBook(
        Terms(Digest(bytes(32)), ORIGIN, Domain("", "", 0, ORIGIN), _signs_nothing, folder.policy())
    )
    decoder = msgspec.msgpack.Decoder(book.RECORDS)
    book.restore(decoder.decode(record) for record in read_records(folder.journal_file, folder.master()))
    return book


def _signs_nothing(_: Digest) -> bytes:
    raise AssertionError("a book that is looked at signs nothing")
