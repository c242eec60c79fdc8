"""The gateway's desk for rentals: machines that were booked become a cluster, stay one, and are paid interval by interval.

    Rent ─> OpenStay to each ─> StayOpened: key ─> all keys known: OpenRelay ─> JoinStay ─> StayReady ─> all ready: Began ─> Order, Done, Order …
              │                                                                                  │
          StayBroke, silence: another machine                                       lost: FindAnother ─> Found ─> Seated, OpenStay, JoinStay to all

Nothing is charged before all machines are ready together, nor on a machine that is lost, nor on any while the head is. Each interval is an
order of its own through the Meter: what isn't proven isn't asked for, what failed isn't paid. A machine that says more time passed
than this gateway's clock saw is lost at once; one that the head can't reach through the mesh isn't paid (`rentreach.py`). What was charged is countersigned, so that its machine can show that it came.

A rental is durable, its intervals that are under way aren't: after a crash the machines are told of a new relay, and paid on. What was charged and not
written down here is read from the receipts, and no seed from before the crash is used again.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from clusterai.gateway.core.rentbooks import HEAD, apply, price_wei, records
from clusterai.gateway.core.rentreach import Parted, parted
from clusterai.gateway.core.rentstate import (
    Abandon,
    AskCredit,
    Beaten,
    Began,
    Close,
    CloseRelay,
    Counted,
    Credit,
    Done,
    Dropped,
    Ended,
    Extend,
    Extended,
    Extension,
    Failed,
    FindAnother,
    Found,
    Free,
    Keyed,
    Meet,
    Noted,
    NotFound,
    OpenRelay,
    Order,
    Outside,
    Passed,
    Recounted,
    RelayOpened,
    Release,
    Rent,
    Rental,
    Rented,
    RenterKeyed,
    RentRecord,
    Seated,
    Stay,
)
from clusterai.gateway.core.renttime import came_by, next_interval, runs_ahead, weighed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.rentals import (
    Countersign,
    EndStay,
    Heartbeats,
    JoinStay,
    MeshKey,
    MeshMember,
    OpenStay,
    PauseStay,
    StayBroke,
    StayHears,
    StayOpened,
    StayReady,
    StayTold,
    TellPath,
)
from clusterai.protocol.units import counted
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.work.cluster.price import recount
from clusterai.work.cluster.spec import Interval

READY_WITHIN_S = 60.0
"""From being asked to being ready; a machine that takes longer is replaced."""
NEVER_S = 180.0
"""By then a cluster is ready, or it won't be."""
RELINK_S = 3.0
"""A link that broke is often back at once; a machine that isn't back by then is lost."""
RESTARTED_S = 20.0
"""After this gateway's own restart: who dialled it in vain waits longer between dials, and holds its stay for a minute."""
ASK_EVERY_S = 5.0
SEEK_EVERY_S = 10.0
HEADLESS_S = 300.0
PAUSE_S = 900.0
"""Without credit the machines wait so long, unpaid, for the account to be filled."""
AGAIN_S = 1.0
MOST_FAILURES = 5
EXCHANGED_S = 30.0
"""Not heard for so long, a machine is exchanged; Ray would wait for another half a minute, and its owner isn't paid meanwhile."""
AGAIN_PARTED_S = 600.0
FAILED_S = 30.0
"""A machine that failed isn't asked again sooner: by then it has swept, or is known to be gone."""
FIRST_ERRAND = 2**62
"""The Meter's names for other work are below."""
KEEP_S = 7 * 86_400
"""An ended rental is listed for so long."""
MOST_NOTES = 200
MOST_TOLD = 20
"""Of one stay: a machine doesn't drown out what else is noted."""
RUNWAY_S = 600
"""A renter is warned when the account lasts no longer."""
RESUME_S = 120


class RentDesk:
    """One gateway. See the module's docstring.

    Args:
        signer: who signed a digest, or None.
        owner_of: a key's owner in the Registry.
        sign: by this gateway's hot key.
        fresh: random bytes of this process. An interval that was under way when the last one was killed isn't written down, so without
            them the next would have its seed, whose chain the machine has begun already.
    """

    RECORDS = RentRecord

    def __init__(
        self,
        network: Domain,
        signer: Callable[[Digest, bytes], Address | None],
        owner_of: Callable[[Address], Address | None],
        sign: Callable[[Digest], bytes],
        fresh: bytes,
    ) -> None:
        self.rentals: dict[Digest, Rental] = {}
        self._fresh = fresh
        self.network, self.signer, self._owner_of, self._sign = network, signer, owner_of, sign
        self._linked: dict[Address, None] = {}
        self._errands: dict[int, tuple[Rental, Stay, Interval]] = {}
        self._named = FIRST_ERRAND
        self._effects: list[Any] = []
        self._now_s = 0.0
        self._passed_s = 0.0
        """All waits are counted by it: the time of day, but for how far it was set back."""

    # --- machine ---

    def restore(self, records: Iterable[RentRecord]) -> None:
        for record in records:
            apply(self.rentals, record)

    def snapshot(self) -> Sequence[RentRecord]:
        return [record for rental in self.rentals.values() for record in records(rental)]

    def step(self, event: Any, now_s: float) -> list[Any]:
        self._effects = []
        self._pass(now_s)
        match event:
            case Rent(rented):
                self._rent(rented)
            case Received(sender, frame):
                self._received(sender, frame)
            case RelayOpened(lease, ports):
                self._relayed(lease, ports)
            case Beaten():
                self._beaten(event)
            case Done():
                self._done(event)
            case Failed():
                self._failed(event)
            case Counted():
                self._counted(event)
            case Found() | NotFound():
                self._found(event)
            case Credit():
                self._credit(event)
            case Meet(lease, key):
                self._meet(lease, key)
            case Outside():
                self._outside(event)
            case Extend(lease, until_s):
                self._extend(lease, until_s)
            case Release(lease):
                if (rental := self._running(lease)) is not None:
                    self._end(rental, Close.RELEASED, "")
            case Linked(peer):
                self._link(peer)
            case Unlinked(peer):
                self._linked.pop(peer, None)
                for rental, stay in self._stays_of(peer):
                    if stay.unlinked_s is None and rental.ended is None:
                        stay.unlinked_s = self._passed_s
            case Started():
                for rental in self._all():
                    for stay in rental.stays.values():
                        stay.unlinked_s = self._passed_s + RESTARTED_S - RELINK_S
            case Tick():
                self._tick()
            case _:
                pass
        return self._effects

    def _pass(self, now_s: float) -> None:
        """A clock that is set back ends no wait later; forwards it is time that passed."""
        self._passed_s = self._passed_s + max(0.0, now_s - self._now_s) if self._passed_s else now_s
        self._now_s = now_s

    # --- records ---

    def _save(self, record: RentRecord) -> None:
        apply(self.rentals, record)
        self._effects.append(Save(record))

    # --- what is asked ---

    def _all(self) -> list[Rental]:
        return [rental for rental in self.rentals.values() if rental.ended is None]

    def _running(self, lease: Digest) -> Rental | None:
        rental = self.rentals.get(lease)
        return rental if rental is not None and rental.ended is None else None

    def _rent(self, rented: Rented) -> None:
        if Digest(rented.lease) in self.rentals:
            return
        self._save(rented)
        rental = self.rentals[Digest(rented.lease)]
        for stay in rental.stays.values():
            self._open(rental, stay)

    def _open(self, rental: Rental, stay: Stay) -> None:
        stay.opened_s = stay.opened_s or self._passed_s
        stay.asked_s = self._passed_s
        frame = OpenStay(
            rental.lease, stay.place, stay.generation, rental.rented.spec, stay.seat.price_wei, rental.until_s
        )
        self._effects.append(Send(Address(stay.seat.operator), frame))

    def _meet(self, lease: Digest, key: bytes) -> None:
        rental = self._running(lease)
        if rental is None or rental.renter_key == key:
            return
        self._save(RenterKeyed(lease, key))
        self._gather(rental)

    def _extend(self, lease: Digest, until_s: int) -> None:
        rental = self._running(lease)
        if rental is None or until_s <= rental.until_s:
            return
        self._save(Extended(lease, until_s))
        for stay in rental.stays.values():
            self._effects.append(Extension(Digest(stay.seat.hold), until_s))
            if stay.phase != "lost":
                self._open(rental, stay)

    # --- machines come up ---

    def _stay(self, sender: Address, lease: bytes, generation: int) -> tuple[Rental, Stay] | None:
        rental = self._running(Digest(lease))
        for stay in rental.stays.values() if rental is not None else ():
            if rental is not None and stay.seat.operator == sender and stay.generation == generation:
                return rental, stay
        return None

    def _received(self, sender: Address, frame: msgspec.Struct) -> None:
        if not isinstance(frame, StayOpened | StayReady | StayBroke | StayTold | StayHears):
            return
        found = self._stay(sender, frame.lease, frame.generation)
        if found is None:
            if isinstance(frame, StayOpened | StayReady):
                # Of a rental that is over, or of a machine that was replaced.
                self._effects.append(Send(sender, EndStay(frame.lease, frame.generation)))
            return
        rental, stay = found
        if stay.phase == "lost":
            self._effects.append(Send(sender, EndStay(frame.lease, frame.generation)))
            return
        match frame:
            case StayOpened():
                self._opened(rental, stay, frame)
            case StayReady():
                self._ready(rental, stay, frame)
            case StayBroke(_, _, code, detail):
                self._lose(rental, stay, f"{code}: {detail}")
            case StayTold():
                self._told(rental, stay, frame)
            case StayHears(_, _, silent):
                # Nobody dates a silence back before what it said itself.
                stay.said_s, before = self._passed_s, stay.heard_s
                heard_s = {place: self._passed_s - ms / 1000 for place, ms in silent}
                stay.heard_s = {place: max(it, before.get(place, 0.0)) for place, it in heard_s.items()}

    def _told(self, rental: Rental, stay: Stay, frame: StayTold) -> None:
        """A machine's own word: so much of it as a renter reads, and no word of its own for what it is about."""
        if stay.told < MOST_TOLD and frame.code in ("memory", "cards"):
            stay.told += 1
            self._note(rental, frame.code, f"place {stay.place}: {frame.detail}")

    def _opened(self, rental: Rental, stay: Stay, frame: StayOpened) -> None:
        node = Address(stay.seat.node)
        said = MeshKey(rental.lease, stay.place, stay.generation, node, frame.key)
        signer = self.signer(said.signing_digest(self.network), frame.signature)
        if signer != node or self._owner_of(node) != stay.seat.operator:
            self._lose(rental, stay, "its mesh key isn't signed by the machine that was booked")
            return
        if stay.key and stay.key != frame.key:
            self._begin_anew(rental, stay)
            return
        if stay.phase == "opening":
            stay.phase = "opened"
        if not stay.key:
            self._save(Keyed(rental.lease, stay.place, stay.generation, frame.key, frame.signature))
            self._gather(rental)
        elif rental.ports:
            self._join(rental, stay)
        else:
            self._gather(rental)

    def _gather(self, rental: Rental) -> None:
        """Once all who are there have keys: a relay for them. Later ones are added."""
        there = [stay for stay in rental.stays.values() if stay.phase != "lost"]
        if rental.began_s is None and (len(there) < len(rental.stays) or not all(it.key for it in there)):
            return
        members = [(stay.place, stay.key) for stay in there if stay.key]
        if rental.renter_key:
            members.append((rental.renter_place, rental.renter_key))
        self._effects.append(OpenRelay(rental.lease, tuple(members)))

    def _relayed(self, lease: Digest, ports: dict[int, dict[int, tuple[str, int]]]) -> None:
        rental = self._running(lease)
        if rental is None:
            self._effects.append(CloseRelay(lease))
            return
        rental.ports, rental.outside = ports, {}
        for stay in rental.stays.values():
            if stay.phase != "lost" and stay.key:
                self._join(rental, stay)

    def members(self, rental: Rental, place: int) -> tuple[MeshMember, ...]:
        """The mesh as the one at this place is to know it."""
        keys = {stay.place: stay.key for stay in rental.stays.values() if stay.key and stay.phase != "lost"}
        if rental.renter_key:
            keys[rental.renter_place] = rental.renter_key
        mine = rental.ports.get(place, {})
        return tuple(
            MeshMember(at, key, None if at == place else mine.get(at))
            for at, key in sorted(keys.items())
            if at == place or at in mine
        )

    def token(self, rental: Rental) -> bytes:
        """What opens the cluster to its renter; Ray reads it in hex."""
        return keccak(b"clusterai cluster token" + rental.rented.secret)

    def _join(self, rental: Rental, stay: Stay) -> None:
        frame = JoinStay(
            rental.lease,
            stay.generation,
            HEAD,
            self.token(rental),
            self.members(rental, stay.place),
        )
        self._effects.append(Send(Address(stay.seat.operator), frame))

    def _outside(self, event: Outside) -> None:
        rental = self._running(event.lease)
        if rental is None or rental.outside.get(event.place) == event.endpoint:
            return
        rental.outside[event.place] = event.endpoint
        for stay in rental.stays.values():
            if stay.place != event.place and stay.phase != "lost":
                frame = TellPath(event.lease, event.place, *event.endpoint)
                self._effects.append(Send(Address(stay.seat.operator), frame))

    def _ready(self, rental: Rental, stay: Stay, frame: StayReady) -> None:
        if stay.phase == "ready":
            return
        stay.phase, stay.steps, stay.ready_s = "ready", frame.steps or stay.steps, self._passed_s
        stay.unlinked_s = None
        if rental.began_s is None and rental.is_complete:
            self._save(Began(rental.lease, int(self._now_s)))
            self._note(rental, "ready", counted(len(rental.stays), "machine"))
        elif rental.began_s is not None and stay.generation:
            self._note(rental, "replaced", f"place {stay.place}")
        if not rental.ports:
            # This gateway was started again, and its relay's ports are others.
            self._gather(rental)
        self._order(rental)

    # --- intervals ---

    def _order(self, rental: Rental) -> None:
        """The next interval of each machine that has none under way. All wait for the head."""
        if rental.began_s is None or rental.unpaid_s is not None or rental.stays[HEAD].phase != "ready":
            return
        for stay in rental.stays.values():
            is_due = stay.errand is None and self._passed_s >= stay.again_s
            if stay.phase == "ready" and is_due and not stay.is_parted:
                self._order_of(rental, stay)

    def _order_of(self, rental: Rental, stay: Stay) -> None:
        interval = next_interval(rental, stay, self._fresh, self._now_s)
        if interval is None:
            return
        self._named += 1
        stay.tried += 1
        stay.errand, stay.tokens, stay.ordered_s = self._named, [], self._passed_s
        self._errands[self._named] = rental, stay, interval
        self._effects.append(
            Order(self._named, rental.account, stay.model(rental.lease), interval, rental.lease)
        )

    def _beaten(self, event: Beaten) -> None:
        """The machine's clock against ours: its heartbeats can come late, but not early."""
        found = self._errands.get(event.errand)
        if found is None:
            return
        rental, stay, interval = found
        if stay.errand != event.errand:
            return
        stay.tokens.extend(event.tokens)
        if runs_ahead(interval, stay.tokens, event.passed_s):
            self._note(rental, "clock", f"place {stay.place} says that more time passed than did")
            self._lose(rental, stay, "its clock runs ahead", is_paid=False)

    def _done(self, event: Done) -> None:
        found = self._errands.pop(event.errand, None)
        if found is None:
            return
        rental, stay, interval = found
        is_current = stay.errand == event.errand
        if is_current:
            stay.errand = None
        if event.amount_wei is not None:
            stay.failures = 0
            evidence = weighed(interval, stay.evidence, event.tokens)
            units = recount(interval, event.tokens)[1]
            tenths = stay.tenths + units
            record = Passed(
                rental.lease,
                stay.place,
                stay.generation,
                interval.number,
                units,
                event.amount_wei,
                event.head,
                evidence,
            )
            self._save(record)
            self._countersign(rental, stay, event.head, tenths)
            if evidence.convinced and stay.phase == "ready":
                self._note(rental, "stolen", f"place {stay.place} gave others a part of its time")
                self._lose(rental, stay, "others had a part of its time")
                return
        if is_current and rental.ended is None:
            self._order(rental)

    def _countersign(self, rental: Rental, stay: Stay, head: Digest, tenths: int) -> None:
        """All that its machine proved so far, in one statement; also of a stay that is over."""
        said = Heartbeats(stay.model(rental.lease), tenths, head)
        signature = self._sign(said.signing_digest(self.network))
        self._effects.append(Send(Address(stay.seat.operator), Countersign(said, signature)))

    def _counted(self, event: Counted) -> None:
        rental = self.rentals.get(event.lease)
        if rental is not None and event.paid_wei > rental.paid_wei:
            units = tuple(sorted(event.units.items()))
            self._save(Recounted(event.lease, event.intervals, event.paid_wei, units))

    def _failed(self, event: Failed) -> None:
        found = self._errands.pop(event.errand, None)
        if found is None:
            return
        rental, stay, _ = found
        if stay.errand != event.errand:
            return
        stay.errand = None
        stay.again_s = self._passed_s + AGAIN_S
        if event.code == "insufficient_credit":
            # The Meter's own words are those of a request's reader: of tokens, in the smallest unit.
            self._pause(rental, "the account can't pay what the next interval may cost")
            return
        stay.failures += 1
        if stay.failures >= MOST_FAILURES:
            self._lose(
                rental, stay, f"{stay.failures} intervals in a row failed: {event.code}: {event.detail}"
            )

    # --- money ---

    def _pause(self, rental: Rental, why: str) -> None:
        """All machines stand still, with all that is on them, for as long as their owners wait."""
        if rental.unpaid_s is not None:
            return
        rental.unpaid_s, rental.credit_s = self._passed_s, self._passed_s + ASK_EVERY_S
        self._note(rental, "unpaid", why)
        self._still(rental, is_paused=True)

    def _still(self, rental: Rental, *, is_paused: bool) -> None:
        for stay in rental.stays.values():
            if stay.phase == "ready":
                frame = PauseStay(rental.lease, stay.generation, is_paused)
                self._effects.append(Send(Address(stay.seat.operator), frame))

    def _credit(self, event: Credit) -> None:
        rental = self._running(event.lease)
        if rental is None:
            return
        runway_s = event.left_wei * 3600 // max(1, price_wei(rental))
        if rental.unpaid_s is not None:
            if runway_s >= RESUME_S:
                rental.unpaid_s = None
                self._note(rental, "resumed", f"the account lasts {runway_s} s")
                self._still(rental, is_paused=False)
                self._order(rental)
            return
        is_short = runway_s < min(RUNWAY_S, rental.until_s - self._now_s)
        if is_short and not rental.is_short:
            self._note(rental, "runway", f"the account lasts {runway_s} s more")
        rental.is_short = is_short

    def _ask_credit(self, rental: Rental) -> None:
        if self._passed_s >= rental.credit_s:
            rental.credit_s = self._passed_s + ASK_EVERY_S
            self._effects.append(AskCredit(rental.lease, rental.account))

    # --- machines go ---

    def _lose(self, rental: Rental, stay: Stay, why: str, *, is_paid: bool = True) -> None:
        if stay.phase == "lost":
            return
        operator = Address(stay.seat.operator)
        self._note(rental, "lost" if rental.began_s is not None else "refused", f"place {stay.place}: {why}")
        stay.phase, stay.lost_s = "lost", self._passed_s
        rental.gone[Address(stay.seat.node)] = self._passed_s
        self._drop(stay, None if is_paid else 0)
        self._effects.append(Send(operator, EndStay(rental.lease, stay.generation)))
        self._free(stay)
        rental.seeking[stay.place] = self._passed_s
        self._seek(rental)
        if stay.place == HEAD:
            # Without its head a cluster is nothing: nobody is paid, and all wait to join the new one.
            for other in rental.stays.values():
                self._drop(other)
            self._still(rental, is_paused=True)

    def _drop(self, stay: Stay, keep: int | None = None) -> None:
        """Its interval ends here; `keep`: as in `Abandon`."""
        if stay.errand is not None:
            self._effects.append(Abandon(stay.errand, keep))
            stay.errand = None

    def _seek(self, rental: Rental) -> None:
        for place, when_s in rental.seeking.items():
            if when_s <= self._passed_s:
                rental.seeking[place] = self._passed_s + SEEK_EVERY_S
                stay = rental.stays[place]
                failed = [it for it, when_s in rental.gone.items() if self._passed_s - when_s < FAILED_S]
                there = [Address(it.seat.node) for it in rental.stays.values() if it.phase != "lost"]
                but = (*failed, *there)
                self._effects.append(
                    FindAnother(
                        rental.lease,
                        place,
                        rental.rented.wish,
                        stay.seat.price_wei,
                        tuple(dict.fromkeys(but)),
                        rental.until_s,
                    )
                )

    def _found(self, event: Found | NotFound) -> None:
        rental = self._running(event.lease)
        wanted = rental is not None and event.place in rental.seeking
        if isinstance(event, NotFound):
            if rental is not None and wanted:
                self._note(rental, "refused", f"no machine for place {event.place}: {event.why}")
            return
        if rental is None or not wanted:
            self._effects.append(Free(Digest(event.seat.hold), Address(event.seat.node)))
            return
        generation = rental.stays[event.place].generation + 1
        self._save(Seated(rental.lease, event.place, generation, event.seat))
        stay = rental.stays[event.place]
        self._open(rental, stay)
        if event.place == HEAD:
            self._restart(rental)

    def _restart(self, rental: Rental) -> None:
        """A new head knows nobody: all others begin again, as new stays of the same machines."""
        for place, stay in list(rental.stays.items()):
            if place != HEAD and stay.phase != "lost":
                self._again(rental, stay)

    def _begin_anew(self, rental: Rental, stay: Stay) -> None:
        """It was down and is back before anybody took its place: nothing that was on it is left, but the machine is here."""
        self._note(rental, "lost", f"place {stay.place}: it was started again; it begins anew")
        self._again(rental, stay)
        if stay.place == HEAD:
            self._restart(rental)

    def _again(self, rental: Rental, stay: Stay) -> None:
        self._drop(stay)
        self._effects.append(Send(Address(stay.seat.operator), EndStay(rental.lease, stay.generation)))
        self._save(Seated(rental.lease, stay.place, stay.generation + 1, stay.seat))
        self._open(rental, rental.stays[stay.place])

    # --- links and time ---

    def _stays_of(self, peer: Address) -> list[tuple[Rental, Stay]]:
        return [
            (rental, stay)
            for rental in self._all()
            for stay in rental.stays.values()
            if stay.seat.operator == peer
        ]

    def _link(self, peer: Address) -> None:
        self._linked[peer] = None
        for rental, stay in self._stays_of(peer):
            stay.unlinked_s = None
            if stay.phase != "lost":
                # It answers with how it stands: its key, that it is ready, or that it never heard of it.
                self._open(rental, stay)

    def _tick(self) -> None:
        for rental in list(self.rentals.values()):
            if rental.ended is not None:
                if self._now_s - rental.ended.at_s > KEEP_S:
                    self._save(Dropped(rental.lease))
                continue
            self._tick_of(rental)

    def _tick_of(self, rental: Rental) -> None:
        if self._now_s >= rental.until_s:
            return self._end(rental, Close.OVER, "")
        if rental.began_s is None and self._now_s - rental.rented.at_s > NEVER_S:
            return self._end(rental, Close.NEVER_READY, rental.notes[-1][2] if rental.notes else "")
        if rental.unpaid_s is not None and self._passed_s - rental.unpaid_s > PAUSE_S:
            return self._end(rental, Close.NO_CREDIT, "the account wasn't filled in time")
        for stay in rental.stays.values():
            self._watch(rental, stay)
        head = rental.stays[HEAD]
        if head.phase == "lost" and self._passed_s - head.lost_s > HEADLESS_S:
            return self._end(rental, Close.NOT_REPLACED, "no machine could be had in the head's place")
        if rental.began_s is not None:
            self._reach(rental)
            self._ask_credit(rental)
        self._seek(rental)
        return self._order(rental)

    def _watch(self, rental: Rental, stay: Stay) -> None:
        if stay.phase == "lost":
            return
        if stay.unlinked_s is not None and self._passed_s - stay.unlinked_s > RELINK_S:
            self._lose(rental, stay, "its link is gone")
        elif stay.phase != "ready":
            since_s = stay.opened_s = stay.opened_s or self._passed_s
            if self._passed_s - since_s > READY_WITHIN_S:
                self._lose(rental, stay, f"it wasn't ready within {READY_WITHIN_S:.0f} s")
            elif self._passed_s - stay.asked_s > ASK_EVERY_S:
                self._open(rental, stay)

    def _reach(self, rental: Rental) -> None:
        """Who can't be reached from the head isn't paid, and is exchanged before long."""
        found = parted(rental.stays, self._passed_s)
        for stay in rental.stays.values():
            it = found.get(stay.place)
            if stay.phase != "ready" or (it is not None and not it.is_paid) == stay.is_parted:
                continue
            stay.is_parted = not stay.is_parted
            if it is None or it.is_paid:
                self._note(rental, "parted", f"place {stay.place}: it is in the mesh again; its time counts")
                stay.again_s = self._passed_s + stay.unearned_s
                continue
            words = (
                "it and the head don't hear each other" if stay.place != HEAD else "no other machine hears it"
            )
            self._note(rental, "parted", f"place {stay.place}: {words}; its time doesn't count")
            self._drop(stay, came_by(rental, stay, it.since_s))
            # Of an interval that was over and paid before anybody knew: it is worked off.
            stay.unearned_s = max(0.0, stay.ordered_s - it.since_s)
        if HEAD in found:
            # All its machines are parted from it: to exchange them would change nothing.
            found = {HEAD: found[HEAD]}
        for place, it in found.items():
            stay = rental.stays[place]
            if (
                rental.stays[HEAD].phase == stay.phase == "ready"
                and self._passed_s - it.since_s > EXCHANGED_S
            ):
                self._exchange(rental, stay, it)

    def _exchange(self, rental: Rental, stay: Stay, it: Parted) -> None:
        node, when_s = rental.parted.get(stay.place, (stay.seat.node, 0.0))
        if node != stay.seat.node and self._passed_s - when_s < AGAIN_PARTED_S:
            # Another machine had this place and was cut off as well: what both had in common is the head.
            stay = rental.stays[HEAD]
        rental.parted[stay.place] = stay.seat.node, self._passed_s
        why = f"it wasn't heard in the mesh for {self._passed_s - it.since_s:.0f} s"
        self._lose(rental, stay, why)

    def _end(self, rental: Rental, why: Close, detail: str) -> None:
        there = [stay for stay in rental.stays.values() if stay.phase != "lost"]
        for stay in there:
            self._drop(stay)
            operator = Address(stay.seat.operator)
            self._effects.append(Send(operator, EndStay(rental.lease, stay.generation)))
            stay.phase = "lost"
            self._free(stay)
        self._note(rental, "ended", why.value)
        self._save(Ended(rental.lease, why, detail[:1_000], int(self._now_s)))
        self._effects.append(CloseRelay(rental.lease))

    def _free(self, stay: Stay) -> None:
        """At once, though others were booked with it: whoever else wants the machine can have it, this rental included."""
        self._effects.append(Free(Digest(stay.seat.hold), Address(stay.seat.node)))

    def _note(self, rental: Rental, what: Any, detail: str) -> None:
        rental.notes.append((int(self._now_s), what, detail[:300]))
        del rental.notes[:-MOST_NOTES]
        self._effects.append(Noted(rental.lease, what, detail))
