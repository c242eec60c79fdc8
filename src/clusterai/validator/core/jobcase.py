"""One lease as its auditor sees it: what the chain told of it, how far its audit is, and what is run for it."""

import math
from typing import Any

import msgspec

from clusterai.ledger.core import events
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.validator.core.jobdelivery import Demand
from clusterai.validator.core.jobdispute import Contest, opened
from clusterai.validator.core.passing import Offer, Sources

# --- effects and events ---


class Rerun(msgspec.Struct, frozen=True):
    """Open what was served, check it against the commitment, fetch what it needs, run the segment: `Reran` comes back."""

    lease: Digest
    gateway: Address
    provider: Address
    spec: Digest
    root: Digest
    segments: int
    segment: int
    sealed: bytes
    source: Address
    """the provider, or the member that hands it on"""
    within_s: float
    """that fetching it may take: the other half of the time is for who else may have it"""


class Began(msgspec.Struct, frozen=True):
    """All that the segment begins with is here, and runs."""

    lease: Digest


class Reran(msgspec.Struct, frozen=True):
    """`result`: what the segment comes to (`protocol.leases.segment_result`); None where what was served can't be run, and `why`: it is not the
    committed state, or its contents never came. `unable`: it is this machine that can't, which says nothing of the provider."""

    lease: Digest
    segment: int
    result: Digest | None
    why: str
    unable: bool = False


class Retrace(msgspec.Struct, frozen=True):
    """As `Rerun`, for the states at these units of the segment's `steps` (see `protocol.bisection.metered`): `Retraced` comes back."""

    segment: Rerun
    steps: int
    points: tuple[int, ...]


class Retraced(msgspec.Struct, frozen=True):
    """`states` as `result` of `Reran`: what no run gives, of every point, where it isn't this job's; None where it can't be run."""

    lease: Digest
    points: tuple[int, ...]
    states: tuple[Digest, ...] | None
    why: str
    unable: bool = False


class Told(msgspec.Struct, frozen=True):
    """For the log and for people."""

    what: str
    lease: Digest
    detail: str


# --- a lease ---


class Case(msgspec.Struct):
    """One lease as the chain shows it, and how far its audit is."""

    lease: Digest
    provider: Address
    requester: Address
    spec: Digest
    root: Digest = ZERO_DIGEST
    segments: int = 0
    round: int = -1
    beacon_epoch: int = -1
    drawn: bool = False
    segment: int = 0
    auditor: Address = ZERO_ADDRESS
    """whose turn it is"""
    mine: bool = False
    """I am that"""
    committed: bool = False
    shown: bool = False
    revealed: bool = False
    by_s: int = 0
    """when the clock of the present state runs out; 0 while there is none"""
    withheld: bool = False
    """whose turn it is says that it isn't served"""
    reported: bool = False
    result: Digest | None = None
    running: bool = False
    refused: str = ""
    unable: bool = False
    """this machine can't do it: another auditor's turn comes when this one's time is over"""
    ask_s: float = 0.0
    late_s: float = 0.0
    """half of the time is over, of the drawn auditor or of those who look behind it: what isn't here by then may come too late to
    be run. Not before the block that began it has been read: what was heard before that may be long ago."""
    asked_s: float = math.inf
    """since when it has been asked for, through links that stood"""
    begun_s: float = math.inf
    """when all that it begins with was here"""
    draws: int = 0
    served: Offer | None = None
    """what the drawn segment begins with"""
    sources: Sources = msgspec.field(default_factory=Sources)
    accuses: bool = False
    """I came to another result than the provider, and said so"""
    contested: bool = False
    contest: Contest | None = None
    last: Digest = ZERO_DIGEST
    output: Digest = ZERO_DIGEST

    def follow(self, event: Any, me: Address) -> None:
        """What the chain says of its lease; `me` is whose view this is."""
        match event:
            case events.LeaseCommitted(_, root, segments, output, _, _, round_number, last):
                self.root, self.segments, self.round = root, segments, round_number
                self.output, self.last = output, last
            case events.LeaseDrawn(_, _, _, segment):
                self.drawn, self.segment = True, segment
            case events.AuditorDrawn(_, _, auditor, commit_by_s):
                self.auditor, self.mine = auditor, auditor == me
                self.draws += 1
                self.committed, self.revealed, self.withheld = False, False, False
                self.by_s, self.late_s = commit_by_s, math.inf
            case events.AuditCommitted(_, auditor, _, by_s):
                self.committed = True
                self.by_s = by_s
            case events.SegmentShown():
                self.shown = True
                self.by_s = event.reveal_by_s
            case events.AuditRevealed(_, auditor, _, matches):
                self.revealed = True
                self.accuses = self.accuses or (auditor == me and not matches)
            case events.WithheldReported(_, auditor, _, _, report_by_s):
                self.by_s = report_by_s
                if auditor == self.auditor:
                    # Only its word gives the others time to look. Liars who spoke before somebody of them was drawn would else send all
                    # others after something seconds before the end.
                    self.withheld, self.late_s = True, math.inf
                self.reported = self.reported or auditor == me
            case events.AuditContested(_, _, dispute_by_s):
                self.by_s, self.contested, self.mine = dispute_by_s, True, False
            case events.DisputeOpened():
                self.contest, self.contested = opened(event), False
            case events.DisputeEnded():
                self.contest, self.by_s = None, 0
            case events.AuditResolved():
                self.by_s = 0
                self.mine = False
            case _ if self.contest is not None:
                self.contest.follow(event, me)
                if isinstance(event, events.RefereesDrawn):
                    self.contest.late_s = math.inf
            case _:
                pass

    def halve(self, chain_s: int) -> None:
        """Clocks that this block began."""
        if self.late_s == math.inf:
            self.late_s = (chain_s + self.by_s) / 2
        if self.contest is not None and self.contest.late_s == math.inf:
            self.contest.late_s = (chain_s + self.contest.by_s) / 2

    def rerun(self, served: Offer, chain_s: int) -> Rerun:
        end_s = self.by_s if self.contest is None else self.contest.by_s
        return Rerun(
            self.lease,
            served.gateway,
            self.provider,
            self.spec,
            self.root,
            self.segments,
            self.segment,
            served.sealed,
            served.source,
            max(0, end_s - chain_s) / 2,
        )

    def demand(self, report_by_s: int) -> Demand:
        """What its requester says that it can't have."""
        return Demand(
            self.lease,
            self.provider,
            self.requester,
            self.spec,
            self.root,
            self.segments,
            self.last,
            self.output,
            report_by_s,
        )
