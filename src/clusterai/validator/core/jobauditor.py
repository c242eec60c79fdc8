"""A validator's audits of leases: drawn, it runs one segment again, blind, and says what came of it.

    LeaseCommitted ─beacon─> DrawLease ─> AuditorDrawn: me ─> AskSegment … SegmentServed ─> Rerun ─> Reran
                                                │                                                  │
                              not served in time: ReportWithheld                         Found ─> CommitAudit
                                                                          SegmentShown ─> RevealAudit ─┘
    AuditContested by me ─> StartDispute (jobdispute)          a clock ran out ─> ExpireAudit

Whoever gets nothing from the provider asks the other members of the panel, and hands on what it has (`passing`).

Blind: the provider shows the state before the segment and nothing of the state after it. The result is durable before the
commitment to it is sent, so a crash between commit and reveal can't make it say two things; the salt comes from the key, so
it needs no record.

Everyone may draw, expire and close what time has decided; who does is decided by a lot, so that not all pay for the same
call. Nothing here accuses: it says what it computed, and a dispute decides.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec

from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Approve, Mined, Reverted, Submit
from clusterai.ledger.core.lease_calls import (
    CommitAudit,
    CommitReferee,
    DrawLease,
    Enlist,
    ExpireAudit,
    ExpireDemand,
    ExpireDispute,
    ReportWithheld,
    RevealAudit,
    RevealReferee,
    SelectRange,
    StartDispute,
)
from clusterai.market.core.directory import Directory
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.jobs import (
    AskContent,
    AskSealed,
    AskSegment,
    ContentMissing,
    NotServed,
    SegmentServed,
)
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import sealed_result
from clusterai.protocol.messages import Relay
from clusterai.runtime.core.asking import Asking
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.validator.core.jobcase import Began, Case, Reran, Retrace, Retraced, Told
from clusterai.validator.core.jobdelivery import Collected, Demand, Looked, Looking
from clusterai.validator.core.jobdispute import Contest, Judged, salt_name
from clusterai.validator.core.passing import MOST_HANDS, MOST_PARTS, Hand, HandPart, Offer, Passing

ASK_EVERY_S = 3.0
TURN_S = 3.0
"""Between the moments at which one validator after the other does what anybody may do."""
TURNS = 4
UNLIMITED_WEI = 2**63 - 1
SPARE_S = 4
"""Before a clock's end, so that a report or a commitment is mined in time."""


_SERVED = cast("type[SegmentServed | NotServed]", SegmentServed | NotServed)


class AuditSettings(msgspec.Struct, frozen=True):
    """Who audits. `sign` is the hot key's; `secret_salt` must stay unknown to others and the same for the same lease. `at` is the
    contract that takes an auditor's bond, `disputes` that which takes an accuser's; without it this validator accuses nobody.
    `ticks` where the chain's own beacon draws: whoever needs it records it."""

    me: Address
    at: Address
    network: Domain
    seal_to: bytes
    sign: Callable[[Digest], bytes]
    secret_salt: Callable[[Digest], Digest]
    recover: Callable[[Digest, bytes], Address]
    disputes: Address = ZERO_ADDRESS
    ticks: bool = True


# --- records ---


class Found(msgspec.Struct, frozen=True, tag=True):
    """What this validator computed for a lease, once and for all, and what it was served for it, should it have to accuse."""

    lease: bytes
    segment: int
    result: bytes
    gateway: bytes = b""
    sealed: bytes = b""
    source: bytes = b""


class Finished(msgspec.Struct, frozen=True, tag=True):
    lease: bytes


AuditRecord = Found | Finished | Judged | Looked


class JobAuditor:
    """One validator. See the module's docstring."""

    RECORDS = AuditRecord

    def __init__(self, settings: AuditSettings, directory: Directory) -> None:
        self.settings = settings
        self.directory = directory
        self.cases: dict[Digest, Case] = {}
        self._found: dict[Digest, Found] = {}
        self._judged: dict[tuple[Digest, int], Judged] = {}
        self._looking = Looking(settings.me)
        self._passing = Passing(settings.me, settings.network, settings.recover, directory)
        self._gateways: dict[Address, None] = {}
        self._recorded: set[int] = set()
        """rounds of the beacon that the chain has told of"""
        self._moot: dict[Digest, None] = {}
        """leases that were closed while I disputed them: my bond lies there until somebody ends the dispute"""
        self._weight: int | None = None
        self._approved: set[str] = set()
        self._is_live = False
        """the chain's past has been read: what is asked of it now is asked of its present"""
        self._asking = Asking()
        self._effects: list[Any] = []
        self._now_s = 0.0

    # --- the machine ---

    def restore(self, records: Iterable[AuditRecord]) -> None:
        for record in records:
            self._apply(record)

    def snapshot(self) -> list[msgspec.Struct]:
        return [*self._found.values(), *self._judged.values(), *self._looking.snapshot()]

    def step(self, event: Any, now_s: float) -> list[Any]:
        self._effects = []
        self._now_s = now_s
        match event:
            case Received(gateway, Relay(sender, _, body)):
                self._heard(gateway, Address(sender), body)
            case Received(peer, AskContent() as ask):
                given = self._looking.wanted(peer, ask)
                self._effects.append(given or Send(peer, ContentMissing(ask.lease, ask.content)))
            case Collected():
                if (looked := self._looking.collected(event)) is not None:
                    self._save(looked)
                self._effects.append(Told(event.verdict, event.lease, event.why))
            case Began(lease):
                if (case := self.cases.get(lease)) is not None:
                    case.begun_s = min(case.begun_s, self.chain_s)
            case Reran():
                self._reran(event)
            case Retraced():
                self._retraced(event)
            case Linked(peer):
                if self.directory.roles(peer) & Role.GATEWAY:
                    self._gateways[peer] = None
            case Unlinked(peer):
                self._gateways.pop(peer, None)
                if not self._gateways:
                    for case in self.cases.values():
                        case.asked_s = math.inf
            case Mined(key) | Reverted(key):
                if key.startswith("job-approve") and isinstance(event, Mined):
                    self._approved.add(key)
                self._asking.answered(key, now_s)
            case Started():
                self._is_live = True
            case Tick() | Received():
                pass
            case _:
                self._chain(event)
        if self._is_live and isinstance(
            event, (Started, Tick, events.Block, Reran, Retraced, Collected, Linked)
        ):
            self._enlist()
            for case in list(self.cases.values()):
                self._advance(case)
            for lease in self._moot:
                self._submit_as(f"job-moot:{lease.hex()}", ExpireDispute(lease))
        effects, self._effects = self._effects, []
        return effects

    def _save(self, record: AuditRecord) -> None:
        self._apply(record)
        self._effects.append(Save(record))

    def _apply(self, record: AuditRecord) -> None:
        match record:
            case Found(lease):
                self._found[Digest(lease)] = record
            case Finished(lease):
                self._found.pop(Digest(lease), None)
                self._looking.finished(Digest(lease))
                for level in range(3):
                    self._judged.pop((Digest(lease), level), None)
            case Judged(lease, level):
                self._judged[Digest(lease), level] = record
            case Looked():
                self._looking.apply(record)

    @property
    def chain_s(self) -> int:
        return self.directory.time_s

    # --- the chain ---

    def _chain(self, event: Any) -> None:
        self.directory.apply(event)
        match event:
            case events.LeaseOpened(lease, requester, provider, terms):
                self.cases[lease] = Case(lease, provider, requester, Digest(terms.spec))
            case events.LeaseClosed(lease):
                case = self.cases.pop(lease, None)
                if case is not None and case.contest is not None and case.contest.accuser == self.settings.me:
                    self._moot[lease] = None
                judged = any(it == lease for it, _ in self._judged)
                if self._looking.knows(lease) or lease in self._found or judged:
                    self._save(Finished(lease))
                self._effects += self._looking.closed(lease)
                self._asking.forget(lease.hex())
            case events.DisputeEnded(lease) if lease in self._moot:
                del self._moot[lease]
            case events.BeaconRecorded(round_number):
                self._recorded.add(round_number)
            case events.Block():
                for case in self.cases.values():
                    case.halve(self.chain_s)
            case events.Enlisted(_, auditor, weight):
                self._passing.follow(event)
                if auditor == self.settings.me:
                    self._weight = weight
            case _:
                case = self.cases.get(getattr(event, "lease", ZERO_DIGEST))
                if case is not None:
                    self._follow(case, event)
                    if self._is_live:
                        self._advance(case)

    def _follow(self, case: Case, event: Any) -> None:
        match event:
            case events.DeliveryDemanded():
                self._looking.demanded(case.demand(event.report_by_s))
            case events.UndeliveredReported() | events.DemandEnded():
                self._looking.follow(event)
            case _:
                case.follow(event, self.settings.me)

    # --- what is to be done ---

    def _advance(self, case: Case) -> None:
        self._look(case)
        found = self._found.get(case.lease)
        if found is not None and found.segment == case.segment:
            case.result = Digest(found.result)
            if found.sealed and case.served is None:
                source = Address(found.source or case.provider)
                case.served = Offer(source, Address(found.gateway), found.sealed)
        if not case.drawn:
            if case.round < 0:
                return
            if case.round not in self._recorded:
                # Where nothing else happens nobody records a beacon; in the epoch of the commitment this does nothing.
                if self.settings.ticks and self._my_turn(case, "tick"):
                    self._submit_as("job-tick", calls.Tick())
            elif self._my_turn(case, "draw"):
                self._submit(case, "draw", DrawLease(case.lease))
            return
        if case.contest is not None:
            self._dispute(case, case.contest)
            return
        if not case.by_s:
            return
        if self.chain_s > case.by_s:
            if self._my_turn(case, f"expire{case.by_s}"):
                self._submit(case, f"expire-{case.by_s}", ExpireAudit(case.lease))
            return
        if case.contested:
            self._accuse(case)
        elif case.mine and case.committed:
            self._reveal(case)
        elif case.mine:
            self._audit(case)
        elif case.withheld and not case.committed and self._is_judge(case):
            self._witness(case)

    def _audit(self, case: Case) -> None:
        """It is my turn: get the state, run the segment, commit to what came of it."""
        if case.result is not None and "job-approve" not in self._approved:
            self._submit_as("job-approve", Approve(self.settings.at, UNLIMITED_WEI))
        elif case.result is not None:
            sealed = sealed_result(case.result, self.settings.me, case.lease, self._salt(case))
            self._submit(case, f"audit-{case.by_s}", CommitAudit(case.lease, sealed))
        else:
            # Who serves it in the last seconds, or piece by piece, has not served it: each auditor in turn would run out of time.
            # Said too early it harms nobody where others then see for themselves; one whose word convicts waits to the end.
            is_here = case.begun_s < math.inf
            late = (
                self.chain_s >= case.late_s and not is_here and not self._passing.decides(self._parties(case))
            )
            if late or (self.chain_s >= case.by_s - SPARE_S and not (case.running and is_here)):
                self._report(case)
            self._ask(case)

    def _witness(self, case: Case) -> None:
        """Somebody says that nothing is served. See for oneself, and say so only then.

        What hasn't come by now hasn't been served, whatever was promised: else a cheat shows everyone how the segment begins and
        nobody what it names.
        """
        if case.result is not None:
            return
        if case.begun_s == math.inf and self.chain_s >= case.by_s - SPARE_S:
            self._report(case)
        self._ask(case)

    def _report(self, case: Case) -> None:
        # Who had no link to ask through knows nothing of the provider: a gateway that was away may come back in the last seconds.
        if not case.reported and not case.unable and case.asked_s <= case.late_s:
            self._submit(case, f"withheld-{case.by_s}", ReportWithheld(case.lease))

    def _reveal(self, case: Case) -> None:
        if case.shown and not case.revealed and case.result is not None:
            self._submit(case, f"reveal-{case.by_s}", RevealAudit(case.lease, case.result, self._salt(case)))

    def _look(self, case: Case) -> None:
        """Whether its requester can have what it paid for, where it says that it can't."""
        due = self._looking.due(
            case.lease, self.chain_s, self._now_s, self._is_judge(case), bool(self._gateways)
        )
        for wanted in due:
            match wanted:
                case Demand():
                    self._ask_for(case, case.provider, case.segments + 1)
                case ExpireDemand():
                    if self._my_turn(case, "expire-demand"):
                        self._submit(case, "expire-demand", wanted)
                case _:
                    self._submit(case, "undelivered", wanted)

    def _ask(self, case: Case) -> None:
        """The provider; and where others may have it, or it was asked in vain, a few of them."""
        if case.unable or case.begun_s < math.inf or self._now_s < case.ask_s:
            return
        case.ask_s = self._now_s + ASK_EVERY_S
        if self._gateways:
            case.asked_s = min(case.asked_s, self.chain_s)
        if not case.running:
            self._ask_for(case, case.provider, case.segment)
        sources = case.sources
        if sources.rounds or case.draws > 1 or case.contest is not None:
            for member in self._passing.few(case.lease, sources.rounds, self._parties(case)):
                self._ask_for(case, member, case.segment)
        sources.rounds += 1

    def _ask_for(self, case: Case, of: Address, segment: int) -> None:
        ask = AskSegment(self.settings.me, of, case.lease, segment, self.settings.seal_to, bytes(65))
        ask = msgspec.structs.replace(
            ask, signature=self.settings.sign(ask.signing_digest(self.settings.network))
        )
        body = canonical.encode(ask)
        self._effects += [Send(gateway, Relay(self.settings.me, of, body)) for gateway in self._gateways]

    # --- disputes ---

    def _accuse(self, case: Case) -> None:
        """Nobody who heard both says the same as I: go on, whoever else agrees with the provider."""
        if not case.accuses or self.settings.disputes == ZERO_ADDRESS:
            return
        if "job-approve-dispute" not in self._approved:
            self._submit_as("job-approve-dispute", Approve(self.settings.disputes, UNLIMITED_WEI))
        else:
            self._submit(case, "accuse", StartDispute(case.lease))

    def _dispute(self, case: Case, contest: Contest) -> None:
        me, lease = self.settings.me, case.lease
        if self.chain_s > contest.by_s:
            if self._my_turn(case, f"end{contest.by_s}"):
                self._submit(case, f"end-{contest.by_s}", ExpireDispute(lease))
        elif contest.stage == "select" and contest.accuser == me:
            if (move := contest.selection()) is None:
                self._trace(case, contest, contest.inner_points)
            else:
                game = contest.game
                call = SelectRange(lease, *move, game.asserted)
                self._submit(case, f"select-{game.low}-{game.high}", call)
        elif self._judges(case):
            self._judge(case, contest)

    def _judge(self, case: Case, contest: Contest) -> None:
        lease, level = case.lease, contest.level
        judged = self._judged.get((lease, level))
        salt = self.settings.secret_salt(salt_name(lease, level))
        if contest.stage == "reveal":
            if judged is not None and contest.sealed and not contest.revealed:
                call = RevealReferee(lease, Digest(judged.result), salt)
                self._submit(case, f"verdict-{level}", call)
        elif judged is not None and not contest.sealed:
            sealed = sealed_result(Digest(judged.result), self.settings.me, lease, salt)
            self._submit(case, f"judge-{level}", CommitReferee(lease, sealed))
        elif judged is None and (state := contest.states.get(contest.game.high)) is not None:
            self._say(case, contest, state)
        elif judged is None and self.chain_s >= contest.by_s - SPARE_S:
            # Served in the last seconds is served nothing; who had it in time, and isn't through, says nothing of the provider.
            is_served_late = case.begun_s > contest.late_s or not (contest.running or contest.unable)
            if is_served_late and case.asked_s <= contest.late_s:
                self._say(case, contest, ZERO_DIGEST)
        elif judged is None:
            self._trace(case, contest, (contest.game.high,))

    def _say(self, case: Case, contest: Contest, result: Digest) -> None:
        """Durable first, and sealed at once: of the clock seconds are left."""
        self._save(Judged(case.lease, contest.level, result))
        self._judge(case, contest)

    def _trace(self, case: Case, contest: Contest, points: tuple[int, ...]) -> None:
        """Run the segment as far as these points, once what it begins with is here."""
        case.served = case.served or case.sources.taken()
        if case.served is None:
            self._ask(case)
        elif not contest.running and self._now_s >= contest.again_s:
            contest.running = True
            self._effects.append(Retrace(case.rerun(case.served, self.chain_s), contest.steps, points))

    def _retraced(self, done: Retraced) -> None:
        case = self.cases.get(done.lease)
        if case is None or case.contest is None:
            return
        case.contest.running = False
        if done.states is not None:
            case.contest.states.update(zip(done.points, done.states, strict=True))
            return
        # An accuser that doesn't move loses its bonds, so what this machine can't do now it tries again.
        case.contest.unable = done.unable
        self._failed(case, done.unable)
        if done.unable or not case.sources.waiting:
            case.contest.again_s = self._now_s + ASK_EVERY_S
        self._effects.append(Told("unable" if done.unable else "not_served", done.lease, done.why))

    def _judges(self, case: Case) -> bool:
        return case.contest is not None and case.contest.is_judge(self.settings.me, self._is_judge(case))

    # --- what comes back ---

    def _heard(self, gateway: Address, sender: Address, body: bytes) -> None:
        if (ask := self._passing.asked(sender, body)) is not None:
            self._wanted(gateway, ask)
            return
        try:
            frame = canonical.decode(body, _SERVED)
        except canonical.Malformed:
            return
        case = self.cases.get(Digest(frame.lease))
        if case is None:
            return
        if isinstance(frame, SegmentServed) and frame.segment == case.segment:
            if sender == case.provider or self._passing.is_member(sender, self._parties(case)):
                self._offered(case, Offer(sender, gateway, frame.sealed))
        elif sender != case.provider:
            return
        elif isinstance(frame, NotServed):
            case.refused = frame.code
        elif frame.segment == case.segments + 1:
            collect = self._looking.served(case.lease, gateway, frame.sealed, self._gateways)
            if collect is not None:
                self._effects.append(collect)

    def _offered(self, case: Case, offer: Offer) -> None:
        """Somebody shows how the drawn segment begins."""
        judges = self._judges(case)
        if case.result is not None or case.begun_s < math.inf or not (judges or case.mine or case.withheld):
            return
        case.sources.offered(offer)
        if not judges and not case.running:
            self._try(case)

    def _try(self, case: Case) -> None:
        """Run it from what is offered."""
        if (offer := case.sources.taken()) is not None:
            case.running, case.served = True, offer
            self._effects.append(case.rerun(offer, self.chain_s))

    def _failed(self, case: Case, unable: bool) -> None:
        """What was served couldn't be run."""
        if case.served is not None and not unable:
            case.sources.failed(case.served.source, case.provider)
            case.served, case.begun_s = None, math.inf

    def _wanted(self, gateway: Address, ask: AskSegment | AskSealed) -> None:
        """A member wants what I have: whatever it is up to, it could have had it from the provider."""
        case = self.cases.get(Digest(ask.lease))
        if case is None or case.served is None or Address(ask.validator) in self._parties(case):
            return
        if case.begun_s == math.inf and case.result is None:
            return
        member = Address(ask.validator)
        if isinstance(ask, AskSealed):
            parts = case.sources.parts
            parts[member] = parts.get(member, 0) + 1
            if parts[member] <= MOST_PARTS:
                self._effects.append(HandPart(gateway, ask, case.served.sealed))
        elif ask.segment == case.segment:
            hands = case.sources.hands
            hands[member] = hands.get(member, 0) + 1
            if hands[member] <= MOST_HANDS:
                self._effects.append(Hand(gateway, ask, case.served.sealed))

    def _reran(self, done: Reran) -> None:
        case = self.cases.get(done.lease)
        if case is None:
            return
        case.running = False
        if done.result is None:
            case.refused = done.why
            case.unable = case.unable or done.unable
            self._failed(case, done.unable)
            self._effects.append(Told("unable" if done.unable else "not_served", done.lease, done.why))
            if not done.unable:
                self._try(case)
        elif done.lease not in self._found:
            served = case.served or Offer(ZERO_ADDRESS, ZERO_ADDRESS, b"")
            self._save(
                Found(done.lease, done.segment, done.result, served.gateway, served.sealed, served.source)
            )
            self._effects.append(Told("reran", done.lease, f"segment {done.segment}: {done.result.hex()}"))

    # --- helpers ---

    def _salt(self, case: Case) -> Digest:
        return self.settings.secret_salt(case.lease)

    @staticmethod
    def _parties(case: Case) -> tuple[Address, Address]:
        return case.provider, case.requester

    def _is_judge(self, case: Case) -> bool:
        return bool(self._weight) and self.settings.me not in self._parties(case)

    def _my_turn(self, case: Case, what: str) -> bool:
        """Whether it is my turn to do what anyone may do; the first time that it could be done starts the clock."""
        key = f"turn-{what}:{case.lease.hex()}"
        lot = int.from_bytes(keccak(case.lease + self.settings.me)[:4]) % TURNS
        return self._now_s >= self._asking.at(key, self._now_s + TURN_S * lot)

    def _enlist(self) -> None:
        stake = self.directory.stake(self.settings.me)
        able = self.directory.roles(self.settings.me) & Role.VALIDATOR and not self.directory.barred(
            self.settings.me
        )
        if able and stake and not self._weight:
            self._submit_as("enlist", Enlist())

    def _submit(self, case: Case, what: str, call: Any) -> None:
        self._submit_as(f"job-{what}:{case.lease.hex()}", call)

    def _submit_as(self, key: str, call: Any) -> None:
        if self._asking.due(key, self._now_s):
            self._effects.append(Submit(key, call))
