"""A validator's part where a requester demands its outputs: it asks the provider itself, and says so only if it can't have them either.

    DeliveryDemanded ─> AskSegment(T + 1) through every gateway … SegmentServed ─> Collect ─┬ had: passed on to the requester
                                                                                            ├ differs: ReportUndelivered at once
        nothing by the deadline: ReportUndelivered <── asked again <── missing ─────────────┘ unable: nothing is said

What is found is durable before anything is said: a member that has the outputs doesn't report them missing after a restart, when the
provider has gone. What is fetched through one gateway in vain is fetched through another one next, where there is one: a gateway
that drops what it should carry must not convict anybody.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

import msgspec

from clusterai.ledger.core import events
from clusterai.ledger.core.lease_calls import ExpireDemand, ReportUndelivered
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.jobs import AskContent

ASK_EVERY_S = 3.0
LEAST_ASKED = 2
"""Who asked less often says nothing: its own links may have been down."""
SPARE_S = 4
"""Before the deadline, so that a report is mined in time."""

Verdict = Literal["had", "differs", "missing", "unable"]


class Collect(msgspec.Struct, frozen=True):
    """Open what was served, check it against the commitment, fetch the outputs and hold them to the last state: `Collected` comes back."""

    lease: Digest
    gateway: Address
    provider: Address
    spec: Digest
    root: Digest
    segments: int
    last: Digest
    output: Digest
    sealed: bytes


class Collected(msgspec.Struct, frozen=True):
    """`spec`: the job's, where it came; `state`: the last one, where it was found."""

    lease: Digest
    verdict: Verdict
    why: str
    spec: bytes = b""
    state: bytes = b""


class Pass(msgspec.Struct, frozen=True):
    """Give the requester's gateway a part of what lies here of a delivery, if it is of it."""

    gateway: Address
    ask: AskContent
    spec: bytes
    state: Digest
    output: Digest


class Drop(msgspec.Struct, frozen=True):
    """The lease is closed: what was collected for it may go."""

    lease: Digest


class Looked(msgspec.Struct, frozen=True, tag=True):
    """What this validator found out about a demand, once and for all."""

    lease: bytes
    verdict: Verdict
    spec: bytes
    state: bytes = b""


class Demand(msgspec.Struct):
    """One demand as the chain shows it, and how far this validator is with it."""

    lease: Digest
    provider: Address
    requester: Address
    spec: Digest
    root: Digest
    segments: int
    last: Digest
    output: Digest
    by_s: int
    ended: bool = False
    reported: bool = False
    by: Address | None = None
    """the gateway through which it is being fetched"""
    failed: list[Address] = []
    ask_s: float = 0.0
    asked: int = 0
    """times that the provider was asked through a gateway that is linked"""

    def collect(self, gateway: Address, sealed: bytes) -> Collect:
        self.by = gateway
        return Collect(
            self.lease,
            gateway,
            self.provider,
            self.spec,
            self.root,
            self.segments,
            self.last,
            self.output,
            sealed,
        )


class Looking:
    """All demands that one validator sees."""

    def __init__(self, me: Address) -> None:
        self._me = me
        self._open: dict[Digest, Demand] = {}
        self._looked: dict[Digest, Looked] = {}

    # --- records ---

    def apply(self, record: Looked) -> None:
        self._looked[Digest(record.lease)] = record

    def finished(self, lease: Digest) -> None:
        self._looked.pop(lease, None)

    def knows(self, lease: Digest) -> bool:
        return lease in self._looked

    def snapshot(self) -> Iterable[Looked]:
        return self._looked.values()

    # --- the chain ---

    def demanded(self, demand: Demand) -> None:
        self._open[demand.lease] = demand

    def follow(self, event: events.UndeliveredReported | events.DemandEnded) -> None:
        if (demand := self._open.get(event.lease)) is None:
            return
        if isinstance(event, events.DemandEnded):
            demand.ended = True
        elif event.member == self._me:
            demand.reported = True

    def closed(self, lease: Digest) -> Iterator[Drop]:
        if self._open.pop(lease, None) is not None:
            yield Drop(lease)

    # --- what is to be done ---

    def due(
        self, lease: Digest, chain_s: int, now_s: float, sits: bool, linked: bool
    ) -> Iterator[Demand | Any]:
        """A call to make, or the demand itself where the provider is to be asked.

        Args:
            sits: this validator has a seat and is no party.
            linked: there is a gateway through which to ask.
        """
        demand = self._open.get(lease)
        if demand is None or demand.ended:
            return
        verdict = self._looked[lease].verdict if lease in self._looked else None
        if chain_s > demand.by_s:
            yield ExpireDemand(lease)
        elif not sits or demand.reported or verdict in ("had", "unable"):
            return
        elif verdict == "differs":
            yield ReportUndelivered(lease)
        elif chain_s >= demand.by_s - SPARE_S:
            if linked and demand.asked >= LEAST_ASKED:
                yield ReportUndelivered(lease)
        elif demand.by is None and now_s >= demand.ask_s and linked:
            demand.ask_s = now_s + ASK_EVERY_S
            demand.asked += 1
            yield demand

    def served(
        self, lease: Digest, gateway: Address, sealed: bytes, gateways: Collection[Address]
    ) -> Collect | None:
        """The provider answered through a gateway; None where that is of no use now."""
        demand = self._open.get(lease)
        if demand is None or demand.ended or demand.by is not None or lease in self._looked:
            return None
        if gateway in demand.failed and any(other not in demand.failed for other in gateways):
            return None
        return demand.collect(gateway, sealed)

    def collected(self, done: Collected) -> Looked | None:
        """What came of it; None where it has to be tried again."""
        demand = self._open.get(done.lease)
        if demand is None or done.lease in self._looked:
            return None
        if demand.by is not None and demand.by not in demand.failed:
            demand.failed = [*demand.failed, demand.by]
        demand.by = None
        return None if done.verdict == "missing" else Looked(done.lease, done.verdict, done.spec, done.state)

    def wanted(self, peer: Address, ask: AskContent) -> Pass | None:
        """Its requester wants what this validator has."""
        lease = Digest(ask.lease)
        demand, looked = self._open.get(lease), self._looked.get(lease)
        if demand is None or looked is None or looked.verdict != "had" or demand.requester != peer:
            return None
        return Pass(peer, ask, looked.spec, Digest(looked.state), demand.output)
