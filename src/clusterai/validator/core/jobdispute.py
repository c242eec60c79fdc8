"""A validator's part in disputes about audits: as the accuser who selects, and as a referee who says what the last step gives.

Both run the drawn segment from the state that it begins with, as the auditor did. What a referee said is durable before it
is sealed, once for each committee; what an accuser has is computed again. A referee that is served nothing in time says so.
"""

from typing import Any

import msgspec

from clusterai.ledger.core import events
from clusterai.protocol import bisection
from clusterai.protocol.bisection import Dispute
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak

PANEL_LEVEL = 2
"""The committee that is everyone on the panel."""


class Judged(msgspec.Struct, frozen=True, tag=True):
    """What this validator says as a referee, once and for all; zero if nothing was served."""

    lease: bytes
    level: int
    result: bytes


class Contest(msgspec.Struct):
    """One dispute as the chain shows it, and what this validator has computed for it."""

    accuser: Address
    steps: int
    game: Dispute
    by_s: int
    stage: str = "assert"
    level: int = 0
    referees: tuple[Address, ...] = ()
    sealed: bool = False
    revealed: bool = False
    states: dict[int, Digest] = {}
    """my own, by units of the segment"""
    running: bool = False
    unable: bool = False
    """it was this machine that couldn't, so nothing is said of what was served"""
    late_s: float = 0.0
    """half of the time of the present referees is over"""
    again_s: float = 0.0
    """not run again before, as it has just failed"""

    def follow(self, event: Any, me: Address) -> None:
        match event:
            case events.TraceAsserted(_, inner, by_s):
                self.game = msgspec.structs.replace(self.game, asserted=inner)
                self.stage, self.by_s = "select", by_s
            case events.RangeSelected(_, low, high, start, claimed, denied, by_s):
                self.game = Dispute(low, high, start, claimed, denied)
                self.stage, self.by_s = "assert", by_s
            case events.RefereesDrawn(_, level, referees, _, by_s):
                self.stage, self.level, self.referees, self.by_s = "seal", level, referees, by_s
                self.sealed = self.revealed = False
            case events.RefereeCommitted(_, _, referee):
                self.sealed = self.sealed or referee == me
            case events.RefereesSealed(_, _, by_s):
                self.stage, self.by_s = "reveal", by_s
            case events.RefereeRevealed(_, _, referee):
                self.revealed = self.revealed or referee == me
            case _:
                pass

    def is_judge(self, me: Address, sits: bool) -> bool:
        """`sits`: has a seat and is no party."""
        if self.stage not in ("seal", "reveal") or me == self.accuser:
            return False
        return sits if self.level == PANEL_LEVEL else me in self.referees

    def selection(self) -> tuple[int, Digest] | None:
        """The accuser's move; None where it doesn't know its own states yet."""
        if any(point not in self.states for point in self.inner_points):
            return None
        return bisection.selection(self.game, self.states.__getitem__)

    @property
    def inner_points(self) -> tuple[int, ...]:
        return self.game.points[1:-1]


def opened(event: events.DisputeOpened) -> Contest:
    game = bisection.opened(event.steps, event.start, event.claimed, event.denied)
    return Contest(event.accuser, event.steps, game, event.assert_by_s)


def salt_name(lease: Digest, level: int) -> Digest:
    """Each committee has a salt of its own: what was revealed with an earlier one is public."""
    return Digest(keccak(b"referee" + lease + level.to_bytes(1)))
