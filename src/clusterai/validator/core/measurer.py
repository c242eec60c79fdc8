"""Which machines this validator measures, when, and what it says of them.

    BeaconRecorded ── draws ──> drawn for this owner? ── Examine … Shown ──> Outcome ──> MachineMeasurement, signed
                                                                                            │ Save, then
                                                                                            ├─> gateways: the feed of offers
                                                                                            └─> the node: its card

Each owner's machine is examined as soon as a beacon has drawn this validator for it, and again each day, when validators are drawn
anew. What breaks off is begun again later and says nothing of the machine. In between it is asked for an echo each minute: what of
those it answers is its reliability.

Four times a day all machines are called at one moment (`audit/core/rollcall.py`), each by one of its validators: a device that answers under two
names is late for one of them at least, and after some such calls that name has no cores here.

A measurement is kept in the journal before it is told; an examination isn't, it is begun again.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec

from clusterai.audit.core.rollcall import MOST_MISSED, deadline_s, missed_in_a_row
from clusterai.audit.core.stretches import Sentinel
from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Submit
from clusterai.ledger.core.events import BeaconRecorded, Block
from clusterai.market.core.directory import Directory
from clusterai.market.core.placement.assigned import DAY_S, Draws
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.measuring import (
    Echo,
    Echoed,
    Examine,
    Finding,
    Findings,
    Measured,
    Part,
    Result,
    Shown,
    Test,
    Trip,
    decode_findings,
)
from clusterai.protocol.messages import Relay, Unreachable
from clusterai.protocol.offers import MILLION, Field, MachineMeasurement, decode_measurement, signed_digest
from clusterai.protocol.signing import BadSignature
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.validator.core.examination import (
    Ask,
    Called,
    Judge,
    Outcome,
    Plan,
    Reply,
    Script,
    Unfinished,
    Until,
    call,
    examine,
)
from clusterai.validator.core.places import Atlas

MOST_AT_ONCE = 4
"""Examinations: a validator's own checks take time too, and mustn't be what is measured."""
AGAIN_S = 10.0
MOST_AGAIN_S = 3_600.0
ECHO_EVERY_S = 60.0
ECHO_S = 5.0
LEAST_ECHOES = 60
"""An hour's: less says nothing about reliability."""
REMEMBERED_ECHOES = 10_080
"""A week's; then all counts are halved, so that what was long ago fades."""
MOST_PARTS_BYTES = 16 * 1024 * 1024
TICK_EVERY_S = 5.0
ROLL_EVERY_S = 6 * 3_600
READY_S = 20
"""From the block of a beacon to the moment of the call: time to start what does the tests."""
MOST_CALLED = 256
MOST_TIMES = 20
LATE_S = 30
"""A block as old as this calls nobody: it is read again."""
_HEARD = cast("type[Shown | Trip]", Shown | Trip)


class MeasurerSettings(msgspec.Struct, frozen=True):
    """Who measures, and how much.

    Attributes:
        ticks: whether the chain's own beacon draws, which whoever needs it records.
        word: a digest that nobody else can foretell, of what it is given.
        region: in which this validator stands, by its own word.
    """

    me: Address
    network: Domain
    sign: Callable[[Digest], bytes]
    recover: Callable[[Digest, bytes], Address]
    word: Callable[[bytes], Digest]
    sentinel: Sentinel
    epoch_s: int
    ticks: bool = True
    plan: Plan = Plan()
    region: str = ""
    again_every_s: float = DAY_S


# --- records ---


class Kept(msgspec.Struct, frozen=True, tag=True):
    """What was last said of an owner's machine."""

    owner: Address
    at_s: float
    round: int
    measured: Measured


class Watched(msgspec.Struct, frozen=True, tag=True):
    """Of so many echoes that were asked for, so many came."""

    owner: Address
    asked: int
    answered: int


class Timed(msgspec.Struct, frozen=True, tag=True):
    """How long a machine took for its products, of late, and how many roll-calls in a row it missed."""

    owner: Address
    cores: int
    times_s: tuple[float, ...]
    rtt_us: int
    missed: int = 0


# --- effects and events ---


class Work(msgspec.Struct, frozen=True):
    """Effect: a pure computation for another thread; `Worked` comes back."""

    owner: Address
    number: int
    work: Callable[[], Any]


class Worked(msgspec.Struct, frozen=True):
    owner: Address
    number: int
    value: Any


class Told(msgspec.Struct, frozen=True):
    """Effect: for the log."""

    what: str
    owner: Address
    detail: str


class _Session:
    """One examination under way."""

    def __init__(
        self, owner: Address, gateway: Address, number: int, round_: int, now_s: float, script: Script
    ) -> None:
        self.owner, self.gateway, self.number, self.round = owner, gateway, number, round_
        self.script, self.began_s = script, now_s
        self.node: Address | None = None
        self.seed = Digest(bytes(32))
        self.sent_s = now_s
        self.until_s = now_s
        self.data = bytearray()
        self.works = False
        self.wakes_s: float | None = None


class Measurer:
    RECORDS = Kept | Watched | Timed

    def __init__(self, settings: MeasurerSettings, directory: Directory) -> None:
        self.settings = settings
        self.directory = directory
        self.draws = Draws(directory)
        self.atlas = Atlas(settings.me, settings.region)
        self.kept: dict[Address, Kept] = {}
        self.watched: dict[Address, Watched] = {}
        self.timed: dict[Address, Timed] = {}
        self._beacon = False
        self._rolled = -1
        self.sessions: dict[Address, _Session] = {}
        self._gateways: dict[Address, None] = {}
        self._due_s: dict[Address, float] = {}
        self._failed: dict[Address, int] = {}
        self._turn: dict[Address, int] = {}
        self._echoes: dict[Digest, tuple[Address, float]] = {}
        self._echo_at_s: dict[Address, float] = {}
        self._number = 0
        self._ticked_s = 0.0

    # --- machine ---

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self._apply(record)

    def snapshot(self) -> list[msgspec.Struct]:
        return [*self.kept.values(), *self.watched.values(), *self.timed.values()]

    def step(self, event: Any, now_s: float) -> list[Any]:
        match event:
            case Tick() | Started():
                return self._tick(now_s)
            case Linked(peer):
                self._gateways[peer] = None
                return [Send(peer, kept.measured) for kept in self.kept.values()]
            case Unlinked(peer):
                self._gateways.pop(peer, None)
                lost = [it for it in self.sessions.values() if it.gateway == peer]
                return [
                    effect
                    for it in lost
                    for effect in self._over(it, Unfinished("the gateway is away"), now_s)
                ]
            case Received(gateway, Relay(sender, _, body)):
                return self._relayed(gateway, Address(sender), body, now_s)
            case Received(gateway, Unreachable(to)):
                session = self.sessions.get(Address(to))
                if session is None or session.gateway != gateway:
                    return []
                return self._over(session, Unfinished("it isn't linked there"), now_s)
            case Worked(owner, number, value):
                session = self.sessions.get(owner)
                if session is None or session.number != number:
                    return []
                session.works = False
                return self._go_on(session, value, now_s)
            case _:
                self.directory.apply(event)
                self.draws.apply(event)
                return self._told(event, now_s)

    def _apply(self, record: Any) -> None:
        match record:
            case Kept(owner):
                self.kept[owner] = record
            case Watched(owner):
                self.watched[owner] = record
            case Timed(owner):
                self.timed[owner] = record
            case _:
                raise AssertionError(f"no record of a measurer: {record!r}")

    def _save(self, record: Any) -> Save:
        self._apply(record)
        return Save(record)

    # --- when ---

    def _tick(self, now_s: float) -> list[Any]:
        effects: list[Any] = []
        for session in list(self.sessions.values()):
            if session.wakes_s is not None:
                if now_s >= session.wakes_s:
                    session.wakes_s = None
                    effects += self._go_on(session, None, now_s)
            elif not session.works and now_s >= session.until_s:
                effects += self._go_on(session, Reply(None, b"", now_s - session.sent_s, session.seed), now_s)
        effects += self._unanswered(now_s)
        if not self._gateways:
            return effects
        for owner in self.directory.holders(Role.PROVIDER):
            drawn = self.draws.drawn(owner, now_s)
            if drawn is None:
                effects += self._want_beacon(owner, now_s)
            elif self.settings.me in drawn.validators and owner not in self.sessions:
                if self._is_due(owner, drawn.round, now_s):
                    effects += self._begin(owner, drawn.round, now_s)
                else:
                    effects += self._echo(owner, now_s)
        return effects

    def _is_due(self, owner: Address, round_: int, now_s: float) -> bool:
        if len(self.sessions) >= MOST_AT_ONCE or now_s < self._due_s.get(owner, 0.0):
            return False
        kept = self.kept.get(owner)
        return kept is None or kept.round != round_ or now_s >= kept.at_s + self.settings.again_every_s

    def _want_beacon(self, owner: Address, now_s: float) -> list[Any]:
        """Who registered in this epoch is drawn for by a later one's."""
        joined_s = self.draws.joined_s(owner)
        if not self.settings.ticks or joined_s is None or now_s < self._ticked_s + TICK_EVERY_S:
            return []
        epoch = self.directory.time_s // self.settings.epoch_s
        if epoch <= joined_s // self.settings.epoch_s:
            return []
        self._ticked_s = now_s
        return [Submit(f"measure-tick:{epoch}", calls.Tick())]

    # --- roll-call ---

    def _told(self, event: Any, now_s: float) -> list[Any]:
        """The first beacon of each quarter of a day calls all, by the same block's time for every validator."""
        if isinstance(event, BeaconRecorded):
            self._beacon = True
        if not isinstance(event, Block) or not self._beacon:
            return []
        self._beacon = False
        turn = event.timestamp_s // ROLL_EVERY_S
        if turn == self._rolled or not self._gateways or abs(now_s - event.timestamp_s) > LATE_S:
            return []
        self._rolled = turn
        effects: list[Any] = []
        for owner, round_ in self._called(turn, now_s):
            effects += self._call(owner, self.timed[owner], round_, event.timestamp_s + READY_S, now_s)
        return effects

    def _called(self, turn: int, now_s: float) -> list[tuple[Address, int]]:
        """Whom this validator calls, with the round that drew it; of more than `MOST_CALLED` each turn the next ones."""
        mine: list[tuple[Address, int]] = []
        for owner in self.timed:
            drawn = self.draws.drawn(owner, now_s)
            # One of the three: what one machine does for two of them, it does for neither in time.
            if (
                drawn is not None
                and drawn.validators[:1] == (self.settings.me,)
                and owner not in self.sessions
            ):
                mine.append((owner, drawn.round))
        begin = turn * MOST_CALLED % len(mine) if len(mine) > MOST_CALLED else 0
        return [*mine[begin:], *mine[:begin]][:MOST_CALLED]

    def _call(self, owner: Address, timed: Timed, round_: int, at_s: float, now_s: float) -> list[Any]:
        limit_s = deadline_s(timed.times_s, timed.rtt_us / MILLION)
        return self._open(
            owner, round_, now_s, lambda draw: call(self.settings.plan, draw, timed.cores, at_s, limit_s)
        )

    def _was_called(self, session: _Session, called: Called, now_s: float) -> list[Any]:
        timed = self.timed[session.owner]
        missed = missed_in_a_row(timed.missed, is_missing=not called.in_time)
        times = (*timed.times_s, called.took_s)[-MOST_TIMES:] if called.in_time else timed.times_s
        effects: list[Any] = [
            self._save(msgspec.structs.replace(timed, times_s=times, missed=missed)),
            Told(
                "called",
                session.owner,
                f"{'in time' if called.in_time else 'missing'}, {called.took_s:.2f} s",
            ),
        ]
        kept = self.kept.get(session.owner)
        if missed != MOST_MISSED or kept is None:
            return effects
        was = decode_measurement(kept.measured.measurement)
        findings = decode_findings(kept.measured.findings)
        measured = self._signed(was, findings, now_s, absent=True)
        effects.append(self._save(Kept(session.owner, kept.at_s, kept.round, measured)))
        effects += [Send(gateway, measured) for gateway in self._gateways]
        return [
            *effects,
            Send(session.gateway, Relay(self.settings.me, session.owner, canonical.encode(measured))),
        ]

    def _signed(
        self, measurement: MachineMeasurement, findings: Findings, now_s: float, *, absent: bool
    ) -> Measured:
        """A machine that is absent when it is called has no cores, whatever it does when it is asked alone."""
        if absent:
            row = Finding(
                "roll_calls_missed",
                None,
                MOST_MISSED,
                "in a row: whatever it shows alone, it works for others too",
            )
            found = tuple(it for it in findings.found if it.name != row.name)
            findings = msgspec.structs.replace(findings, found=(*found, row))
            measurement = msgspec.structs.replace(
                measurement,
                fields=measurement.fields | Field.CPU | Field.PROFILE,
                cpu_milli=0,
                links_per_s_milli=0,
                links_at_once_per_s_milli=0,
            )
        data = canonical.encode(findings)
        said = msgspec.structs.replace(measurement, findings=canonical.content_digest(data), at_s=int(now_s))
        signature = self.settings.sign(signed_digest(said, self.settings.network))
        return Measured(canonical.encode(said), signature, data)

    # --- an examination ---

    def _begin(self, owner: Address, round_: int, now_s: float) -> list[Any]:
        settings = self.settings
        return self._open(owner, round_, now_s, lambda draw: examine(settings.plan, draw, settings.sentinel))

    def _open(
        self, owner: Address, round_: int, now_s: float, script: Callable[[Callable[[bytes], Digest]], Script]
    ) -> list[Any]:
        gateways = tuple(self._gateways)
        gateway = gateways[self._turn.get(owner, 0) % len(gateways)]
        self._number += 1
        number = self._number
        begun = script(lambda data: self._word(owner, number, data))
        session = self.sessions[owner] = _Session(owner, gateway, number, round_, now_s, begun)
        return self._go_on(session, None, now_s)

    def _word(self, owner: Address, number: int, data: bytes) -> Digest:
        return self.settings.word(owner + number.to_bytes(8) + data)

    def _go_on(self, session: _Session, value: Any, now_s: float) -> list[Any]:
        effects: list[Any] = []
        while True:
            try:
                wanted = session.script.send(value)
            except StopIteration as end:
                return effects + self._over(session, end.value, now_s)
            if isinstance(wanted, Judge):
                session.works = True
                return [*effects, Work(session.owner, session.number, wanted.work)]
            if isinstance(wanted, Until):
                session.wakes_s = wanted.at_s
                return effects
            effects += self._ask(session, wanted, now_s)
            if wanted.within_s:
                return effects
            value = Reply(None, b"", 0.0, session.seed)

    def _ask(self, session: _Session, wanted: Ask, now_s: float) -> list[Any]:
        session.seed = self._seed(session.owner, now_s)
        session.sent_s, session.until_s = now_s, now_s + wanted.within_s
        session.data = bytearray()
        return [Send(session.gateway, self._examine(session.owner, session.seed, wanted.test, now_s))]

    def _seed(self, owner: Address, now_s: float) -> Digest:
        self._number += 1
        return self.settings.word(owner + self._number.to_bytes(8) + int(now_s * MILLION).to_bytes(8))

    def _examine(self, owner: Address, seed: Digest, test: Test, now_s: float) -> Relay:
        ask = Examine(self.settings.me, owner, seed, int(now_s), test, bytes(65))
        signature = self.settings.sign(ask.signing_digest(self.settings.network))
        return Relay(
            self.settings.me, owner, canonical.encode(msgspec.structs.replace(ask, signature=signature))
        )

    def _relayed(self, gateway: Address, sender: Address, body: bytes, now_s: float) -> list[Any]:
        try:
            shown = canonical.decode(body, _HEARD)
        except Malformed:
            return []
        if isinstance(shown, Trip):
            self._trip(shown, now_s)
            return []
        owner, seed = Address(shown.provider), Digest(shown.seed)
        if owner != sender or not self._is_signed(shown):
            return []
        if seed in self._echoes:
            return self._echoed(seed, isinstance(shown.result, Echoed))
        session = self.sessions.get(owner)
        if session is None or session.gateway != gateway or session.seed != seed or session.works:
            return []
        node = Address(shown.node)
        if session.node not in (None, node):
            return self._over(session, Unfinished("another machine answered"), now_s)
        session.node = node
        return self._answered(session, shown.result, now_s)

    def _trip(self, trip: Trip, now_s: float) -> None:
        """Another validator's, which was drawn for the same owner."""
        validator, node = Address(trip.validator), Address(trip.node)
        owner = self.directory.owner_of(node)
        if owner is None or validator == self.settings.me:
            return
        try:
            hot = self.settings.recover(trip.signing_digest(self.settings.network), trip.signature)
        except BadSignature:
            return
        drawn = self.draws.may_measure(owner, validator, now_s)
        if drawn and self.directory.acts_for(hot, validator, Role.VALIDATOR):
            self.atlas.heard(node, trip, now_s)

    def _tell_trip(self, session: _Session, node: Address, rtt_us: int, now_s: float) -> list[Any]:
        """To the others who were drawn for this owner."""
        settings = self.settings
        x, y, z, height = self.atlas.place()
        trip = Trip(
            settings.me,
            node,
            rtt_us,
            int(now_s),
            settings.region,
            x,
            y,
            z,
            height,
            self.atlas.error_ppm(),
            bytes(65),
        )
        signature = settings.sign(trip.signing_digest(settings.network))
        body = canonical.encode(msgspec.structs.replace(trip, signature=signature))
        drawn = self.draws.drawn(session.owner, now_s)
        others = () if drawn is None else drawn.validators
        return [
            Send(gateway, Relay(settings.me, other, body))
            for other in others
            if other != settings.me
            for gateway in self._gateways
        ]

    def _answered(self, session: _Session, result: Result, now_s: float) -> list[Any]:
        if isinstance(result, Part):
            if result.start != len(session.data) or result.total > MOST_PARTS_BYTES:
                return self._over(session, Unfinished("parts that don't fit"), now_s)
            session.data += result.data
            if len(session.data) < result.total and result.data:
                return []
        reply = Reply(result, bytes(session.data), now_s - session.sent_s, session.seed)
        # What comes to the same test again is no answer to the next.
        session.seed = Digest(bytes(32))
        return self._go_on(session, reply, now_s)

    def _is_signed(self, shown: Shown) -> bool:
        try:
            hot = self.settings.recover(shown.signing_digest(self.settings.network), shown.signature)
        except BadSignature:
            return False
        return hot == shown.node and self.directory.acts_for(hot, Address(shown.provider), Role.PROVIDER)

    def _over(self, session: _Session, outcome: Outcome | Called | Unfinished, now_s: float) -> list[Any]:
        del self.sessions[session.owner]
        session.script.close()
        owner = session.owner
        if isinstance(outcome, Unfinished):
            failed = self._failed[owner] = self._failed.get(owner, 0) + 1
            self._turn[owner] = self._turn.get(owner, 0) + 1
            self._due_s[owner] = now_s + min(MOST_AGAIN_S, AGAIN_S * 2 ** min(10, failed - 1))
            return [Told("not_measured", owner, outcome.why)]
        self._failed.pop(owner, None)
        if isinstance(outcome, Called):
            return self._was_called(session, outcome, now_s)
        assert session.node is not None, "somebody answered, or it would be unfinished"
        self.atlas.forget(now_s)
        self.atlas.measured(session.node, outcome.rtt_us, now_s)
        measured = self._said(session, session.node, outcome, now_s)
        took = f"{now_s - session.began_s:.1f} s"
        timed: list[Any] = []
        if outcome.multiply_ms:
            was = self.timed.get(owner, Timed(owner, 0, (), 0))
            times = (*was.times_s, outcome.multiply_ms / 1000)[-MOST_TIMES:]
            timed = [self._save(Timed(owner, outcome.claims.cores, times, outcome.rtt_us, was.missed))]
        return [
            *timed,
            self._save(Kept(owner, now_s, session.round, measured)),
            *(Send(gateway, measured) for gateway in self._gateways),
            Send(session.gateway, Relay(self.settings.me, owner, canonical.encode(measured))),
            *self._tell_trip(session, session.node, outcome.rtt_us, now_s),
            Told("measured", owner, took),
        ]

    def _said(self, session: _Session, node: Address, outcome: Outcome, now_s: float) -> Measured:
        settings = self.settings
        findings = Findings(
            node,
            settings.me,
            session.round,
            int(session.began_s),
            max(0, round(1000 * (now_s - session.began_s))),
            outcome.claims,
            outcome.found,
        )
        reliability = self._reliability_ppm(session.owner)
        place = self.atlas.where(node)
        is_there = self.atlas.stands_in(node, outcome.claims.region, lambda witness: witness)
        fields = outcome.fields
        fields |= 0 if reliability is None else Field.RELIABILITY
        fields |= 0 if place is None else Field.COORDINATE
        fields |= Field.REGION if is_there else 0
        measurement = MachineMeasurement(
            node=node,
            validator=settings.me,
            serial=outcome.claims.serial,
            fields=fields,
            hardware="",
            cpu_milli=outcome.cpu_milli,
            memory_bytes=outcome.memory_bytes,
            gpu=outcome.gpu,
            gpus=outcome.gpus,
            region=outcome.claims.region if is_there else "",
            bandwidth_kbps=outcome.bandwidth_kbps,
            reliability_ppm=reliability or 0,
            x_us=0 if place is None else place.x_us,
            y_us=0 if place is None else place.y_us,
            z_us=0 if place is None else place.z_us,
            height_us=0 if place is None else place.height_us,
            links_per_s_milli=outcome.links_per_s_milli,
            links_at_once_per_s_milli=outcome.links_at_once_per_s_milli,
            findings=bytes(32),
            at_s=int(now_s),
        )
        timed = self.timed.get(session.owner)
        absent = timed is not None and timed.missed >= MOST_MISSED
        return self._signed(measurement, findings, now_s, absent=absent)

    # --- in between ---

    def _echo(self, owner: Address, now_s: float) -> list[Any]:
        """Only of machines that were there once: who never came isn't unreliable."""
        if owner not in self.kept or now_s < self._echo_at_s.get(owner, 0.0):
            return []
        self._echo_at_s[owner] = now_s + ECHO_EVERY_S
        gateways = tuple(self._gateways)
        seed = self._seed(owner, now_s)
        self._echoes[seed] = (owner, now_s + ECHO_S)
        # It is asked through all of them: one gateway that is away isn't the machine's fault.
        return [Send(gateway, self._examine(owner, seed, Echo(), now_s)) for gateway in gateways]

    def _echoed(self, seed: Digest, came: bool) -> list[Any]:
        owner, _ = self._echoes.pop(seed)
        was = self.watched.get(owner, Watched(owner, 0, 0))
        halve = 2 if was.asked >= REMEMBERED_ECHOES else 1
        return [self._save(Watched(owner, was.asked // halve + 1, was.answered // halve + came))]

    def _unanswered(self, now_s: float) -> list[Any]:
        late = [seed for seed, (_, until_s) in self._echoes.items() if now_s >= until_s]
        if not self._gateways:
            # It is we who are away.
            for seed in late:
                del self._echoes[seed]
            return []
        return [effect for seed in late for effect in self._echoed(seed, came=False)]

    def _reliability_ppm(self, owner: Address) -> int | None:
        seen = self.watched.get(owner)
        if seen is None or seen.asked < LEAST_ECHOES:
            return None
        return seen.answered * MILLION // seen.asked
