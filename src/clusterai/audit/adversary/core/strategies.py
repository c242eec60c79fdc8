"""How people play: one class a strategy, one method a decision. What isn't overridden is done honestly.

A method sees what its player could see: nobody knows beforehand whether its lease will be drawn.
"""

import random
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak

Role = Literal["provider", "auditor", "requester"]
NONE: frozenset[int] = frozenset()


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a strategy is set.

    Attributes:
        share: of the segments that a partial skipper skips.
        honest_first: leases before a sleeper wakes, or that a self-dealer deals to itself.
        identities: among which a splitter splits its stake.
        after: share of the work's time after which a griefer cancels.
    """

    share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    honest_first: Annotated[int, Meta(ge=0, le=100_000)] = 10
    identities: Annotated[int, Meta(ge=2, le=100)] = 5
    after: Annotated[float, Meta(ge=0, lt=1)] = 0.9


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What an auditor or a referee has before it.

    Attributes:
        rerun: does the work and pays for it; the state that is right.
        leaked: what the provider claims. The worst case: all providers tell it before they must, whoever asks.
        accomplice: the provider is of the same ring.
        random: this market's dice.
    """

    rerun: Callable[[], Digest]
    leaked: Digest
    accomplice: bool
    random: random.Random


class Honest:
    """Does the work, opens what is drawn, runs what it audits, and disputes what it knows to be wrong."""

    role: ClassVar[Role] = "provider"
    summary: ClassVar[str] = "does the work"

    def __init__(self, options: Options) -> None:
        self.options = options

    # --- as a provider ---

    @property
    def identities(self) -> int:
        return 1

    def deals_itself(self, nth: int) -> bool:
        """Whether it orders its lease number `nth` from itself, for a hundredth of the price."""
        return False

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        """The segments (from 1) of lease number `nth` whose states it makes up."""
        return NONE

    def serves(self, wrong: bool) -> bool:
        """Whether it gives the drawn auditor the segment's start."""
        return True

    def opens(self, wrong: bool) -> bool:
        """Whether it opens its commitment on chain."""
        return True

    # --- as an auditor ---

    def seals(self, case: Case) -> Digest | None:
        """What it commits to; None: it says nothing."""
        return case.rerun()

    def reveals(self, case: Case) -> bool:
        return True

    def accuses(self, case: Case) -> bool:
        """Whether it puts up a bond for a result that differs."""
        return True

    def judges(self, case: Case) -> Digest:
        """As a referee."""
        return case.rerun()

    # --- as a requester ---

    def cancels(self, nth: int) -> float | None:
        """After which share of the work's time it cancels."""
        return None


class FullSkip(Honest):
    summary = "makes every state up"

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        return frozenset(range(1, segments + 1))


class PartialSkip(Honest):
    summary = "makes a share of the states up"

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        return frozenset(dice.sample(range(1, segments + 1), round(self.options.share * segments)))


class Sleeper(FullSkip):
    summary = "honest for a while, then makes every state up"

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        return NONE if nth < self.options.honest_first else super().skips(nth, segments, dice)


class Sabotage(Honest):
    summary = "makes one state up"

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        return frozenset((dice.randint(1, segments),))


class SybilSplit(FullSkip):
    summary = "splits its stake among identities that skip"

    @property
    def identities(self) -> int:
        return self.options.identities


class Withholder(FullSkip):
    summary = "skips, and opens nothing that is drawn"

    def opens(self, wrong: bool) -> bool:
        return not wrong


class Hider(FullSkip):
    summary = "skips, and serves no start state to auditors"

    def serves(self, wrong: bool) -> bool:
        return not wrong


class SelfDealer(Sleeper):
    summary = "buys a history from itself, then skips"

    def deals_itself(self, nth: int) -> bool:
        return nth < self.options.honest_first


class Colluding(FullSkip):
    """Its seats on the panel are the group's share `corrupt`."""

    summary = "skips, and its auditors agree with it"

    def seals(self, case: Case) -> Digest | None:
        return case.leaked if case.accomplice else case.rerun()

    def judges(self, case: Case) -> Digest:
        return case.leaked if case.accomplice else case.rerun()


class LazyAuditor(Honest):
    role = "auditor"
    summary = "seals something made up and hopes for the fee"

    def seals(self, case: Case) -> Digest | None:
        return Digest(keccak(case.random.randbytes(32)))

    def accuses(self, case: Case) -> bool:
        return False


class SilentAuditor(Honest):
    role = "auditor"
    summary = "does nothing when drawn"

    def seals(self, case: Case) -> Digest | None:
        return None


class CopyingAuditor(Honest):
    role = "auditor"
    summary = "seals what the provider leaks, without running it"

    def seals(self, case: Case) -> Digest | None:
        return case.leaked


class WithheldReveal(Honest):
    role = "auditor"
    summary = "seals, and doesn't reveal"

    def reveals(self, case: Case) -> bool:
        return False


class FalseAccuser(LazyAuditor):
    summary = "says that right work is wrong, and disputes it"

    def accuses(self, case: Case) -> bool:
        return True


class AccusingRing(Honest):
    """All its seats tell the same lie about right work, as auditors and, where they are drawn, as referees."""

    role = "auditor"
    summary = "accuses honest providers for the bounty, and judges so"

    def seals(self, case: Case) -> Digest | None:
        return Digest(keccak(b"lie" + case.leaked))

    def judges(self, case: Case) -> Digest:
        return Digest(keccak(b"lie" + case.leaked))


class Griefer(Honest):
    role = "requester"
    summary = "orders work and cancels it late"

    def cancels(self, nth: int) -> float | None:
        return self.options.after


STRATEGIES: dict[str, type[Honest]] = {
    "honest": Honest,
    "full-skip": FullSkip,
    "partial-skip": PartialSkip,
    "sleeper": Sleeper,
    "sabotage": Sabotage,
    "sybil-split": SybilSplit,
    "withhold": Withholder,
    "hide": Hider,
    "self-deal": SelfDealer,
    "collude": Colluding,
    "lazy-auditor": LazyAuditor,
    "silent-auditor": SilentAuditor,
    "copying-auditor": CopyingAuditor,
    "withheld-reveal": WithheldReveal,
    "false-accuser": FalseAccuser,
    "accusing-ring": AccusingRing,
    "griefer": Griefer,
}
