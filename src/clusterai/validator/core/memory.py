"""What the auditor knows that no chain can tell it again: the state behind its journal."""

from collections.abc import Iterable, Sequence

from clusterai.audit.core.recount import STALE_AFTER_S
from clusterai.protocol.ids import Address, Digest
from clusterai.runtime.machine import Save
from clusterai.validator.core.words import (
    Accused,
    Cleared,
    Counted,
    Found,
    Heard,
    Record,
    Standing,
    Weighed,
)

MOST_HEARD = 1_000
"""Verdicts remembered of each other validator, the newest: whoever signs more can't make the others' be forgotten."""

Epoch = tuple[Address, int]
"""A provider's epoch."""


class Memory:
    """Changes through records alone: `remember` is what restores and what steps.

    Attributes:
        orders: per provider, the order of every receipt counted lately, to its epoch.
        found: per commitment's root, the checks' outcomes by index.
        weighed: per root, what went into the sequential test.
        states: the sequential test of a provider's model.
        accused: the one verdict that may be signed on a receipt.
        heard: per validator, what it first said of a receipt.
        two_faced: per validator, two of its verdicts that contradict each other.
    """

    def __init__(self, epoch_s: int) -> None:
        self._remembered_epochs = (2 * STALE_AFTER_S) // epoch_s + 2
        self.orders: dict[Address, dict[Digest, int]] = {}
        self.counted: dict[Epoch, Counted] = {}
        self.found: dict[Digest, dict[int, Found]] = {}
        self.weighed: dict[Digest, Weighed] = {}
        self.states: dict[tuple[Address, Digest], int] = {}
        self.accused: dict[tuple[Address, int, int], Accused] = {}
        self.cleared: dict[Epoch, Cleared] = {}
        self.heard: dict[Address, dict[tuple[Address, int, int], Heard]] = {}
        self.two_faced: dict[Address, tuple[Heard, Heard]] = {}

    def restore(self, records: Iterable[Record]) -> None:
        for record in records:
            self.remember(record)

    def snapshot(self) -> Sequence[Record]:
        found = [it for of_root in self.found.values() for it in of_root.values()]
        standings = [Standing(provider, model, weight) for (provider, model), weight in self.states.items()]
        return [
            *self.counted.values(),
            *found,
            *self.weighed.values(),
            *standings,
            *self.accused.values(),
            *self.cleared.values(),
            *(it for said in self.heard.values() for it in said.values()),
            *(it for pair in self.two_faced.values() for it in pair),
        ]

    def save(self, record: Record) -> Save:
        """Remember, and the effect that makes it durable."""
        self.remember(record)
        return Save(record)

    def remember(self, record: Record) -> None:
        match record:
            case Counted(provider, epoch, orders):
                self.counted[provider, epoch] = record
                of_provider = self.orders.setdefault(provider, {})
                for order in orders:
                    of_provider.setdefault(order, epoch)
                self._forget_counted(provider, epoch)
            case Found(_, _, root, index):
                self.found.setdefault(root, {})[index] = record
            case Weighed(provider, _, root, states):
                self.weighed[root] = record
                for model, weight in states:
                    self.states[provider, model] = weight
            case Accused(verdict):
                self.accused[Address(verdict.provider), verdict.epoch, verdict.index] = record
            case Cleared(clearance):
                self.cleared[Address(clearance.provider), clearance.epoch] = record
            case Heard():
                self._hear(record)
            case Standing(provider, model, weight):
                self.states[provider, model] = weight

    def forget(self, epoch: Epoch, root: Digest) -> None:
        """The window is over: only what was counted, the test's state and signed verdicts still matter."""
        self.found.pop(root, None)
        self.weighed.pop(root, None)
        self.cleared.pop(epoch, None)

    def accusations(self, epoch: Epoch) -> tuple[Accused, ...]:
        return tuple(it for (provider, e, _), it in self.accused.items() if (provider, e) == epoch)

    def is_news(self, heard: Heard) -> bool:
        """Whether to remember it: the first of its validator on its receipt, or its first contradiction."""
        first = self.heard.get(heard.validator, {}).get(_place(heard))
        return heard.validator not in self.two_faced and (first is None or _contradict(first, heard))

    def _hear(self, heard: Heard) -> None:
        said = self.heard.setdefault(heard.validator, {})
        first = said.setdefault(_place(heard), heard)
        if _contradict(first, heard):
            self.two_faced.setdefault(heard.validator, (first, heard))
        if len(said) > MOST_HEARD:
            del said[next(iter(said))]

    def _forget_counted(self, provider: Address, newest: int) -> None:
        """Orders so old that `recount.Code.STALE_ORDER` finds them by their expiry."""
        keep_from = newest - self._remembered_epochs
        old = [key for key in self.counted if key[0] == provider and key[1] < keep_from]
        for key in old:
            for order in self.counted.pop(key).orders:
                self.orders[provider].pop(order, None)


def _place(heard: Heard) -> tuple[Address, int, int]:
    return Address(heard.verdict.provider), heard.verdict.epoch, heard.verdict.index


def _contradict(one: Heard, other: Heard) -> bool:
    """As the Court sees it: other evidence for the same is no contradiction."""
    return (one.verdict.outcome, one.verdict.leaf) != (other.verdict.outcome, other.verdict.leaf)
