"""How people play: a machine as it is shipped, and a strategy that wraps it.

A strategy decides three things: what the machine's performer answers, which of its effects go out, and what is asked for. All
else is the machine's. What a strategy doesn't override is honest, so `Honest` is the machine as everybody runs it.

Nobody knows beforehand whether its lease will be drawn: a hook sees what its player could see.
"""

import random
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from clusterai.ledger.core.calls import Submit
from clusterai.ledger.core.lease_calls import (
    CommitAudit,
    OpenSegment,
    ReportWithheld,
    RevealAudit,
    StartDispute,
)
from clusterai.node.core.jobshowing import Serve
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.simulator.core import work

Role = Literal["provider", "auditor", "requester"]
NONE: frozenset[int] = frozenset()


class Outputs(msgspec.Struct, frozen=True):
    """Stands for a node's `Serve` of what is behind the last segment: the last state and the outputs."""

    asked: Serve


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a strategy is set.

    Attributes:
        share: of the segments that a partial skipper skips, or an over-claimer claims too much of.
        honest_first: leases before a sleeper wakes, or that a self-dealer deals to itself.
        identities: among which a splitter splits its stake.
        after: share of the work's time after which a griefer cancels.
        bribed: one beacon of so many is drawn twice, and the briber takes the better.
    """

    share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    honest_first: Annotated[int, Meta(ge=0, le=100_000)] = 10
    identities: Annotated[int, Meta(ge=2, le=100)] = 5
    after: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    bribed: Annotated[int, Meta(ge=1, le=10**6)] = 10


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A drawn segment, as the performer of an auditor, a referee or an accused provider has it before it.

    Attributes:
        rerun: runs it, at its cost, and tells the states at some of its units; at its last, what it comes to.
        leaked: what the provider claims that it comes to. The worst case: all providers tell it before they must, whoever asks.
        accomplice: the provider is of the same ring.
        ally: who accuses is.
        random: this market's dice.
    """

    rerun: Callable[[Sequence[int]], tuple[Digest, ...]]
    leaked: Digest
    steps: int
    accomplice: bool
    ally: bool
    random: random.Random

    def right(self) -> Digest:
        """What the segment really comes to."""
        return self.rerun((self.steps,))[0]

    def claimed(self, points: Sequence[int]) -> tuple[Digest, ...]:
        """The story of a provider that made its claim up."""
        return work.invented(self.leaked, self.steps, points)

    def denied(self, points: Sequence[int]) -> tuple[Digest, ...]:
        """A story on which all liars who accuse this provider agree without a word."""
        return work.invented(Digest(keccak(b"lie" + self.leaked)), self.steps, points)


class Honest:
    """The machine as it is: works, shows what is drawn, runs what it audits, and disputes what it knows to be wrong."""

    role: ClassVar[Role] = "provider"
    summary: ClassVar[str] = "does the work"

    def __init__(self, options: Options) -> None:
        self.options = options

    def lets(self, effect: Any, wrong: bool) -> bool:
        """Whether an effect goes out; `wrong`: it is a provider's, about a lease that it cheated on."""
        return True

    def serves(self, validator: bytes, friend: bool) -> bool:
        """Whether a provider shows a validator how the drawn segment of wrong work begins."""
        return True

    def hands_on(self, friend: bool) -> bool:
        """Whether a validator shows another one what it was served; `friend`: by a provider of its own ring."""
        return True

    # --- a provider's performer ---

    @property
    def identities(self) -> int:
        return 1

    def deals_itself(self, nth: int) -> bool:
        """Whether it orders its lease number `nth` from itself, for a hundredth of the price."""
        return False

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        """The segments (from 1) of lease number `nth` whose states it makes up."""
        return NONE

    def meters(self, units: tuple[int, ...], cap: int) -> tuple[int, ...]:
        """What it claims that the segments metered; the terms allow for `cap` in each."""
        return units

    def hurries(self) -> bool:
        """Whether it commits at once, and not when the work would be done."""
        return False

    def defends(self, case: Case, points: Sequence[int], wrong: bool) -> tuple[Digest, ...] | None:
        """The states that it asserts in a dispute; None: it says nothing."""
        return case.rerun(points)

    def hands_over(self) -> bool:
        """Whether the outputs can be had from it."""
        return True

    # --- an auditor's ---

    def finds(self, case: Case) -> Digest | None:
        """What the drawn segment comes to; None: it never says."""
        return case.right()

    def traces(self, case: Case, points: Sequence[int]) -> tuple[Digest, ...]:
        """The states inside of it, as an accuser or a referee."""
        return case.rerun(points)

    # --- a requester ---

    def has_it(self) -> bool:
        """Whether it admits that it has the outputs."""
        return True

    def cancels(self, nth: int) -> float | None:
        """After which share of the work's time it cancels."""
        return None


class FullSkip(Honest):
    """Once it is disputed it is silent: it has nothing to say that would hold."""

    summary = "makes every state up"

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        return frozenset(range(1, segments + 1))

    def defends(self, case: Case, points: Sequence[int], wrong: bool) -> tuple[Digest, ...] | None:
        return None if wrong else case.rerun(points)


class PartialSkip(FullSkip):
    summary = "makes a share of the states up"

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        return frozenset(dice.sample(range(1, segments + 1), round(self.options.share * segments)))


class HeavyQuarter(FullSkip):
    summary = "makes the heaviest quarter of the states up"

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        return work.heavy(segments)


class Sleeper(FullSkip):
    summary = "honest for a while, then makes every state up"

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        return NONE if nth < self.options.honest_first else super().skips(nth, segments, dice)


class Sabotage(FullSkip):
    summary = "makes one state up"

    def skips(self, nth: int, segments: int, dice: random.Random) -> frozenset[int]:
        return frozenset((dice.randint(1, segments),))


class SybilSplit(FullSkip):
    summary = "splits its stake among identities that skip"

    @property
    def identities(self) -> int:
        return self.options.identities


class Stubborn(FullSkip):
    summary = "skips, and defends its lie through the whole dispute"

    def defends(self, case: Case, points: Sequence[int], wrong: bool) -> tuple[Digest, ...] | None:
        return case.claimed(points) if wrong else case.rerun(points)


class Hasty(FullSkip):
    summary = "skips, and commits at once, so that auditors have little time"

    def meters(self, units: tuple[int, ...], cap: int) -> tuple[int, ...]:
        """What it claims that the segments metered; the terms allow for `cap` in each."""
        return units

    def hurries(self) -> bool:
        return True


class Withholder(FullSkip):
    summary = "skips, and opens nothing that is drawn"

    def lets(self, effect: Any, wrong: bool) -> bool:
        return not (wrong and isinstance(effect, Submit) and isinstance(effect.call, OpenSegment))


class OutputWithholder(Honest):
    summary = "works, and hands the outputs to nobody"

    def hands_over(self) -> bool:
        return False

    def lets(self, effect: Any, wrong: bool) -> bool:
        return not isinstance(effect, Outputs)


class Hider(FullSkip):
    summary = "skips, and serves no start state to auditors"

    def lets(self, effect: Any, wrong: bool) -> bool:
        return not (wrong and isinstance(effect, Serve))


class Starver(Stubborn):
    """Neither half of the panel has two thirds: to say that nothing was served, or to say what is right."""

    summary = "skips, serves one half of the panel and starves the other"

    def serves(self, validator: bytes, friend: bool) -> bool:
        return not keccak(validator)[0] % 2


class SelfDealer(Sleeper):
    summary = "buys a history from itself, then skips"

    def deals_itself(self, nth: int) -> bool:
        return nth < self.options.honest_first


class Colluding(Stubborn):
    """Its seats on the panel are the group's share `corrupt`."""

    summary = "skips, and its auditors agree with it"

    def finds(self, case: Case) -> Digest | None:
        return case.leaked if case.accomplice else case.right()

    def traces(self, case: Case, points: Sequence[int]) -> tuple[Digest, ...]:
        return case.claimed(points) if case.accomplice else case.rerun(points)


class FriendServer(Colluding):
    """Those that it starves are too few to convict it of serving nothing, and its friends hand nothing on: what is drawn falls on a friend,
    or on one of the few others, or on nobody who could look."""

    summary = "skips, serves its friends and a quarter of the others, and its friends agree with it"

    def serves(self, validator: bytes, friend: bool) -> bool:
        return friend or not keccak(validator)[0] % 4

    def hands_on(self, friend: bool) -> bool:
        return not friend


class OverClaimer(Honest):
    """It does the work; what it claims to have used of it is the most that the terms allow, in a share of the segments."""

    summary = "works, and claims more units than it used"

    def meters(self, units: tuple[int, ...], cap: int) -> tuple[int, ...]:
        count = round(self.options.share * len(units))
        return tuple(cap if n < count else one for n, one in enumerate(units))


class LumpClaimer(Honest):
    summary = "works, and claims all unused units in one segment"

    def meters(self, units: tuple[int, ...], cap: int) -> tuple[int, ...]:
        return (units[0] + cap * len(units) - sum(units), *units[1:])


class BeaconBriber(FullSkip):
    """`market` asks the chain what each beacon would draw; here it only says how often it may."""

    summary = "skips, and has one beacon of k drawn twice"


class LazyAuditor(Honest):
    role = "auditor"
    summary = "seals something made up and hopes for the fee"

    def finds(self, case: Case) -> Digest | None:
        return Digest(keccak(case.random.randbytes(32)))

    def lets(self, effect: Any, wrong: bool) -> bool:
        return not (isinstance(effect, Submit) and isinstance(effect.call, StartDispute))


class SilentAuditor(Honest):
    role = "auditor"
    summary = "does nothing when drawn"

    def finds(self, case: Case) -> Digest | None:
        return None

    def lets(self, effect: Any, wrong: bool) -> bool:
        return not (isinstance(effect, Submit) and isinstance(effect.call, CommitAudit | ReportWithheld))


class CopyingAuditor(Honest):
    role = "auditor"
    summary = "seals what the provider leaks, without running it"

    def finds(self, case: Case) -> Digest | None:
        return case.leaked


class WithheldReveal(Honest):
    role = "auditor"
    summary = "seals, and doesn't reveal"

    def lets(self, effect: Any, wrong: bool) -> bool:
        return not (isinstance(effect, Submit) and isinstance(effect.call, RevealAudit))


class FalseAccuser(Honest):
    role = "auditor"
    summary = "says that right work is wrong, and goes through the whole dispute"

    def finds(self, case: Case) -> Digest | None:
        return case.denied((case.steps,))[0]

    def traces(self, case: Case, points: Sequence[int]) -> tuple[Digest, ...]:
        return case.denied(points)


class AccusingRing(FalseAccuser):
    """All its seats tell the same lie about right work, as auditors and, where they are drawn, as referees."""

    summary = "accuses honest providers for the bounty, and judges so"


class Griefer(Honest):
    role = "requester"
    summary = "orders work and cancels it late"

    def cancels(self, nth: int) -> float | None:
        return self.options.after


class FalseDemander(Honest):
    role = "requester"
    summary = "says that outputs which it has can't be had"

    def has_it(self) -> bool:
        return False


STRATEGIES: dict[str, type[Honest]] = {
    "honest": Honest,
    "full-skip": FullSkip,
    "partial-skip": PartialSkip,
    "heavy-quarter": HeavyQuarter,
    "sleeper": Sleeper,
    "sabotage": Sabotage,
    "sybil-split": SybilSplit,
    "stubborn": Stubborn,
    "hasty": Hasty,
    "withhold": Withholder,
    "withhold-outputs": OutputWithholder,
    "hide": Hider,
    "starve": Starver,
    "self-deal": SelfDealer,
    "collude": Colluding,
    "serve-friends": FriendServer,
    "bribe-beacon": BeaconBriber,
    "overclaim": OverClaimer,
    "overclaim-lump": LumpClaimer,
    "lazy-auditor": LazyAuditor,
    "silent-auditor": SilentAuditor,
    "copying-auditor": CopyingAuditor,
    "withheld-reveal": WithheldReveal,
    "false-accuser": FalseAccuser,
    "accusing-ring": AccusingRing,
    "griefer": Griefer,
    "false-demand": FalseDemander,
}
