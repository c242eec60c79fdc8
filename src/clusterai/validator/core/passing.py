"""A drawn segment goes on from member to member of the panel: a provider that serves some of them has served them all.

    AskSegment to the provider … nothing ─> AskSegment to a few members at a time ─> SegmentServed by who has it ─> Rerun
    AskSegment by a member ── I have all that it begins with ──> Hand        AskSealed by a member ──> HandPart

Without it a cheat serves its friends on the panel and few others: those that it starves are too few to convict it, and whoever is
drawn and starved can't audit it.

What a member hands on is worth what it proves, as if it came from the provider. One that hands on something else, or part of it, or all
of it slowly, is asked no more for this lease: the next one that offered is tried.
"""

from collections.abc import Callable, Collection
from typing import cast

import msgspec

from clusterai.ledger.core.events import Enlisted
from clusterai.market.core.directory import Directory
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.jobs import AskSealed, AskSegment
from clusterai.protocol.keccak import keccak
from clusterai.protocol.signing import BadSignature

FEW = 8
"""Members who are asked at a time."""
MOST_WAITING = 4
"""Offers that are kept while another one is tried; each may have two MiB."""
MOST_PARTS = 2 * 4096
"""That one member is handed of one lease: twice the most that a segment begins with."""

MOST_HANDS = 64
"""Times that one member is handed the beginning of one lease's segment: each is sealed anew, and may have two MiB."""

_ASKS = cast("type[AskSegment | AskSealed]", AskSegment | AskSealed)


class Hand(msgspec.Struct, frozen=True):
    """Seal to `ask.validator` what was sealed to me, and send it through `gateway`."""

    gateway: Address
    ask: AskSegment
    sealed: bytes


class HandPart(msgspec.Struct, frozen=True):
    """Seal a part of a content, if what was sealed to me names it."""

    gateway: Address
    ask: AskSealed
    sealed: bytes


class Offer(msgspec.Struct, frozen=True):
    """A segment's beginning, sealed to me, and whom to fetch from what it names."""

    source: Address
    gateway: Address
    sealed: bytes


class Sources(msgspec.Struct):
    """Where one lease's segment can be had from, as far as this validator knows."""

    rounds: int = 0
    """times that it was asked for"""
    waiting: list[Offer] = []
    spurned: set[Address] = set()
    """members that offered what couldn't be used"""
    parts: dict[Address, int] = {}
    """handed to each member that asked me"""
    hands: dict[Address, int] = {}
    """times that each asked me for the beginning"""

    def offered(self, offer: Offer) -> None:
        """Keep it until what is tried now has failed."""
        known = any(it.source == offer.source for it in self.waiting)
        if not known and offer.source not in self.spurned and len(self.waiting) < MOST_WAITING:
            self.waiting.append(offer)

    def failed(self, source: Address, provider: Address) -> None:
        """Its provider may be asked again, whatever came of it."""
        if source != provider:
            self.spurned.add(source)

    def taken(self) -> Offer | None:
        """The next to be tried."""
        return self.waiting.pop(0) if self.waiting else None


class Passing:
    """Who is on the panel, for one validator."""

    def __init__(
        self,
        me: Address,
        network: Domain,
        recover: Callable[[Digest, bytes], Address],
        directory: Directory,
    ) -> None:
        self._me = me
        self._network = network
        self._recover = recover
        self._directory = directory
        self._seats: dict[Address, int] = {}

    def follow(self, event: Enlisted) -> None:
        self._seats[event.auditor] = event.weight

    def is_member(self, who: Address, parties: Collection[Address]) -> bool:
        return bool(self._seats.get(who)) and who not in parties and not self._directory.barred(who)

    def decides(self, parties: Collection[Address]) -> bool:
        """Whether two thirds of the panel are I alone: on a network of one validator nobody else looks."""
        total = sum(weight for who, weight in self._seats.items() if self.is_member(who, parties))
        return 3 * self._seats.get(self._me, 0) >= 2 * total

    def few(self, lease: Digest, nth: int, parties: Collection[Address]) -> tuple[Address, ...]:
        """Whom to ask the n-th time: each once before any of them twice, in an order of my own."""
        members = [it for it in self._seats if it != self._me and self.is_member(it, parties)]
        members.sort(key=lambda it: keccak(lease + self._me + it))
        at = nth * FEW % max(len(members), 1)
        return tuple((members[at:] + members[:at])[:FEW])

    def asked(self, sender: Address, body: bytes) -> AskSegment | AskSealed | None:
        """What another member asks me for; None where it isn't one, or didn't sign it."""
        try:
            ask = canonical.decode(body, _ASKS)
        except canonical.Malformed:
            return None
        if ask.provider != self._me or ask.validator != sender or not self.is_member(sender, (self._me,)):
            return None
        try:
            signer = self._recover(ask.signing_digest(self._network), ask.signature)
        except BadSignature:
            return None
        return ask if self._directory.acts_for(signer, sender, Role.VALIDATOR) else None


__all__ = ["Hand", "HandPart", "Offer", "Passing", "Sources"]
