"""The hands of placement: signed offers from links into the index, plans worked out beside the event loop, and the book of who has what.

    links ── Offered, Measured ──> OfferFeed ──> Index ──copy──> a thread: answer() ──┐
    chain ── barred, revoked ────────^             ^ taken                            │ plan
                                                   └── Driver(Book) <── hold, confirm, release

A plan is worked out on a copy of the index, so the loop goes on and nothing moves under it; what was taken or changed meanwhile is
refused by the book, and planned anew. Only machines whose operator is linked are offered: nothing else can be placed now.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from clusterai.gateway.adapters.cards import Cards
from clusterai.gateway.config import MarketConfig
from clusterai.gateway.core.limits import Bucket
from clusterai.ledger.core import events
from clusterai.market.core.directory import Directory
from clusterai.market.core.placement import (
    Answered,
    Book,
    Booked,
    Confirm,
    Coordinate,
    Field,
    Freed,
    Hold,
    Holding,
    Index,
    OfferFeed,
    Plan,
    Refused,
    Release,
    Request,
    RoundTrips,
    Seat,
    Turned,
    WhyNot,
    answer,
    seats_of,
    single,
)
from clusterai.market.core.placement.assigned import Draws
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.measuring import Measured
from clusterai.protocol.offering import Carded, Offered, OfferTurned
from clusterai.protocol.offers import MOST_RENTED_S, MachineMeasurement, decode_measurement, decode_offer
from clusterai.protocol.signing import recover
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.runtime.machine import Received, Tick, Unlinked

SWEPT_AT_ONCE = 2_000
"""Machines whose operator's standing is looked at in one tick."""
TICK_S = 0.5
LOOK_S = 5.0
"""How often round trips of links are read."""
MOST_EARLY = 4_096
OFFERS_A_MINUTE = 240
"""Of one operator; each takes a signature's check."""
MEASUREMENTS_A_MINUTE = 3_000
"""Of one validator."""
PLANS_WAITING = 16
TRIES = 4
"""Plans for one request whose machines were taken while they were worked out."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("market")


class Busy(Exception):
    """More plans are asked for than can be worked out: ask again in a second."""


class Reserved:
    """A plan whose machines are held."""

    __slots__ = ("answered", "holding")

    def __init__(self, answered: Answered, holding: Holding) -> None:
        self.answered = answered
        self.holding = holding


class Marketplace:
    """One gateway's placement.

    Args:
        send: gives a peer a frame.
        round_trip_ms: of a peer's link; None if it isn't known.
        freed: told of holds and bookings that are over.
    """

    def __init__(
        self,
        path: Path,
        directory: Directory,
        network: Domain,
        config: MarketConfig,
        synchronous: Literal["NORMAL", "FULL"],
        send: Callable[[Address, Any], object],
        round_trip_ms: Callable[[Address], float | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.index = Index()
        self.trips = RoundTrips()
        self.draws = Draws(directory)
        self.feed = OfferFeed(
            self.index,
            directory,
            network,
            recover,
            config.machine_stake_wei,
            config.most_machines,
            self.draws.may_measure,
        )
        self.cards = Cards(self.index, network, belong=self.feed.belong)
        self._early: dict[tuple[Address, Address], tuple[bytes, bytes]] = {}
        """by machine and validator, measurements of machines that aren't offered yet, as after a restart of this gateway"""
        self.book = Book(self.index)
        self.freed: list[Callable[[Freed], None]] = []
        self._send, self._round_trip_ms, self._clock = send, round_trip_ms, clock
        self._journal = SqliteJournal(path, synchronous)
        self._answers: dict[Digest, Holding | Booked | Refused] = {}
        self.driver = Driver(self.book, self._journal, self._perform, clock)
        self._buckets: dict[Address, Bucket] = {}
        self._measured: dict[Address, Bucket] = {}
        self._linked: dict[Address, dict[Address, None]] = {}
        """machines by operator that is linked and has offered"""
        self._planning = asyncio.Semaphore(1)
        self._waiting = 0

    def close(self) -> None:
        self._journal.close()

    async def run(self) -> None:
        """Sweep, look at links, end what is over; until cancelled."""
        self.driver.start()
        looked_s = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now_s = self._clock()
            self.sweep(now_s)
            if abs(now_s - looked_s) >= LOOK_S:
                looked_s = now_s
                for peer in self._linked:
                    self._look(peer)
                for buckets in (self._buckets, self._measured):
                    for peer in [peer for peer, it in buckets.items() if it.reset_s(now_s) <= 0]:
                        del buckets[peer]

    def sweep(self, now_s: float) -> None:
        self.feed.sweep(now_s, SWEPT_AT_ONCE)
        self.driver.handle(Tick())

    # --- in ---

    def hear(self, event: Any) -> bool:
        """Take an event from links; whether it was of no concern to anyone else."""
        match event:
            case Received(peer, Offered() as frame):
                self._offered(peer, frame)
                return True
            case Received(peer, Carded(card)):
                self._carded(peer, card)
                return True
            case Received(peer, Measured() as frame):
                self.measurement(peer, frame.measurement, frame.signature)
                return True
            case Unlinked(peer):
                self._linked.pop(peer, None)
                self.feed.away(peer)
            case _:
                pass
        return False

    def follow(self, event: Any) -> None:
        """What the chain says, once the directory knows it."""
        self.draws.apply(event)
        match event:
            case (
                events.Revoked(owner) | events.Slashed(owner) | events.Barred(owner) | events.Unbonding(owner)
            ):
                self.feed.doubt(owner)
            case events.RolledBack():
                for operator in self._linked:
                    self.feed.doubt(operator)
            case _:
                pass

    def measurement(self, peer: Address, data: bytes, signature: bytes) -> Turned | None:
        """A `MachineMeasurement` from the link of the validator that signed it; None if it was taken."""
        now_s = self._clock()
        bucket = self._measured.setdefault(peer, Bucket(MEASUREMENTS_A_MINUTE))
        if bucket.take(1, now_s) > 0:
            return Turned("full", f"at most {MEASUREMENTS_A_MINUTE} measurements a minute")
        try:
            found = decode_measurement(data)
        except Malformed as error:
            return Turned("malformed", str(error))
        if found.validator != peer:
            return Turned("unknown", "a link carries its own validator's measurements alone")
        turned = self.feed.hear_measurement(data, signature, now_s)
        if turned is not None:
            log.info("turned", peer=peer.hex(), reason=turned.reason, detail=turned.detail)
            if turned.reason == "unknown" and len(self._early) < MOST_EARLY:
                self._early[Address(found.node), peer] = (data, signature)
        return turned

    def _carded(self, peer: Address, card: bytes) -> None:
        now_s = self._clock()
        bucket = self._buckets.setdefault(peer, Bucket(OFFERS_A_MINUTE))
        why = "too many offers a minute" if bucket.take(1, now_s) > 0 else self.cards.hear(peer, card, now_s)
        if why:
            log.info("card_turned", peer=peer.hex(), why=why)

    def _offered(self, peer: Address, frame: Offered) -> None:
        now_s = self._clock()
        bucket = self._buckets.setdefault(peer, Bucket(OFFERS_A_MINUTE))
        if (wait_s := bucket.take(1, now_s)) > 0:
            self._turn(
                peer, 0, Turned("full", f"at most {OFFERS_A_MINUTE} offers a minute: wait {wait_s:.0f} s")
            )
            return
        try:
            offer = decode_offer(frame.offer)
        except Malformed as error:
            self._turn(peer, 0, Turned("malformed", str(error)))
            return
        if offer.operator != peer:
            self._turn(
                peer, offer.serial, Turned("unknown", "a link carries its own operator's machines alone")
            )
            return
        turned = self.feed.hear_offer(frame.offer, frame.signature, now_s)
        if turned is not None:
            self._turn(peer, offer.serial, turned)
            return
        node = Address(offer.node)
        self._linked.setdefault(peer, {})[node] = None
        self._look(peer)
        for waiting in [key for key in self._early if key[0] == node]:
            self.feed.hear_measurement(*self._early.pop(waiting), now_s)

    def _turn(self, peer: Address, serial: int, turned: Turned) -> None:
        log.info("turned", peer=peer.hex(), reason=turned.reason, detail=turned.detail)
        now_s = max(0, int(self._clock()))
        self._send(peer, OfferTurned(serial, turned.reason, turned.detail[:500], now_s))

    def _look(self, peer: Address) -> None:
        """Take over the round trip that the link's own pings measured."""
        found = self._round_trip_ms(peer)
        if found is not None:
            for node in self._linked.get(peer, ()):
                self.index.heard(node, max(1, round(1_000 * found)))

    # --- plans ---

    async def plan(
        self,
        request: Request,
        *,
        told: bool = True,
        but: Iterable[Address] = (),
        near_us: int | None = None,
        none_of: Iterable[Address] = (),
        one_price: bool = False,
    ) -> Answered | WhyNot:
        """The best group that stands free now, or why there is none. Nothing is held.

        Args:
            told: whether tolls and relaxations are worked out too.
            but: machines that mustn't be in it.
            near_us: no further than that from each of `but` whose place somebody measured.
            none_of: owners, as operators are counted, whose machines mustn't be in it.
            one_price: every machine is paid alike, as an auction finds.

        Raises:
            Busy: too many others wait.
        """
        if self._waiting >= PLANS_WAITING:
            raise Busy
        self._waiting += 1
        try:
            async with self._planning:
                now_s = self._clock()
                index = self.index.copy()
                but = tuple(but)
                index.take(but)
                index.take_of(none_of)
                if near_us is not None:
                    index.take_far(self._places(but), near_us)
                return await asyncio.to_thread(
                    answer, index, request, self.trips, now_s, told=told, one_price=one_price
                )
        finally:
            self._waiting -= 1

    async def reserve(
        self,
        request: Request,
        renter: Address,
        name: Digest,
        agreed: Callable[[Answered], None] = lambda _: None,
        *,
        one_price: bool = False,
    ) -> Reserved | WhyNot | Refused:
        """A plan whose machines are held for `renter`: to be shown, and confirmed under `name`.

        Args:
            agreed: raises where this plan mustn't be held.
            one_price: as in `plan`.

        Returns:
            Refused where the renter holds too many, or others were quicker each time.

        Raises:
            Busy.
        """
        return await self._reserve(request, renter, name, agreed, (), told=True, one_price=one_price)

    async def another(
        self,
        request: Request,
        renter: Address,
        name: Digest,
        most_wei: int,
        but: Iterable[Address],
        beside: Iterable[Address] = (),
    ) -> Reserved | WhyNot | Refused:
        """In place of one that was lost: one machine as in `request`, at most as dear, and none of `but`; held under `name`.

        Where the group had a limit on round trips, it is that near to all of `but`: those are the group and who was of it.

        Args:
            beside: the operators of the machines that go on: no more of one owner than was asked.

        Raises:
            Busy.
        """
        one = msgspec.structs.replace(
            request, parts=single(1, request.parts[0].need), most_price_wei=max(1, most_wei), us_wei=0
        )
        return await self._reserve(
            one,
            renter,
            name,
            lambda _: None,
            tuple(but),
            told=False,
            near_us=request.most_rtt_us,
            none_of=self.full(request, beside),
        )

    def full(self, request: Request, operators: Iterable[Address]) -> tuple[Address, ...]:
        """The owners of whom a group on these operators' machines has as many as were asked for at most."""
        most = request.most_per_operator
        held = Counter(map(self.owner, operators))
        return () if most is None else tuple(owner for owner, machines in held.items() if machines >= most)

    def owner(self, operator: Address) -> Address:
        """Whose an operator's machines are: its own, if it doesn't say otherwise."""
        return self.feed.belongs_to(operator, self._clock()) or operator

    def _places(self, nodes: Iterable[Address]) -> list[Coordinate]:
        now_s = self._clock()
        found = (self.feed.found(node, Field.COORDINATE, now_s) for node in nodes)
        return [Coordinate(it.x_us, it.y_us, it.z_us, it.height_us) for it in found if it is not None]

    async def _reserve(
        self,
        request: Request,
        renter: Address,
        name: Digest,
        agreed: Callable[[Answered], None],
        but: tuple[Address, ...],
        *,
        told: bool,
        near_us: int | None = None,
        none_of: tuple[Address, ...] = (),
        one_price: bool = False,
    ) -> Reserved | WhyNot | Refused:
        refused: Refused | None = None
        for _ in range(TRIES):
            found = await self.plan(
                request, told=told, but=but, near_us=near_us, none_of=none_of, one_price=one_price
            )
            if isinstance(found, WhyNot):
                return found
            agreed(found)
            held = self.hold(found.plan, renter, name)
            if isinstance(held, Holding):
                return Reserved(found, held)
            refused = held
            if held.reason in ("too_many", "other"):
                break
        assert refused is not None, "each try ends in an answer"
        return refused

    # --- the book ---

    def hold(self, plan: Plan, renter: Address, name: Digest) -> Holding | Refused:
        """Hold a plan's machines under `name`, which is the holder's secret until it is confirmed."""
        found = self._ask(name, Hold(name, renter, seats_of(plan)))
        assert not isinstance(found, Booked), "a hold is never booked by holding"
        return found

    def confirm(self, hold: Digest, until_s: int) -> Booked | Refused:
        """Book what is held; asked again with a later end it is extended."""
        found = self._ask(hold, Confirm(hold, until_s))
        assert not isinstance(found, Holding), "it is booked or refused"
        return found

    def keep_only(self, wanted: Container[Digest]) -> None:
        """Give back every booking that isn't among these: what a crash left between this book and the one that asked for it."""
        for hold in self.book.bookings():
            if hold not in wanted:
                log.warning("unwanted_booking", hold=hold.hex()[:16], machines=len(self.book.seats(hold)))
                self.release(hold)

    def release(self, hold: Digest, node: Address | None = None) -> None:
        """Give back what is held or booked, or that machine of it; nothing if it is over already."""
        self.driver.handle(Release(hold, node))

    def seats(self, hold: Digest) -> tuple[Seat, ...]:
        return self.book.seats(hold)

    def renter(self, hold: Digest) -> Address | None:
        """Whose it is; None once it is over."""
        return self.book.renter(hold)

    def is_booked(self, hold: Digest) -> bool:
        return isinstance(self.book.booked(hold), Booked)

    @property
    def is_busy(self) -> bool:
        """Whether a plan is being worked out."""
        return self._waiting > 0

    def link_us(self, node: Address) -> int:
        """The round trip to the machine's link, 0 if it isn't known."""
        row = self.index.row(node)
        return 0 if row is None else int(self.index.columns.link[row])

    def longest_s(self, node: Address) -> int:
        """For how long it may be booked ahead; as long as anything where its offer isn't there any more."""
        row = self.index.row(node)
        return MOST_RENTED_S if row is None else self.index.offer(row).longest_s

    def measured(self, node: Address, field: Field) -> MachineMeasurement | None:
        """What counts of `field` among all that validators found; None if nothing does."""
        return self.feed.found(node, field, self._clock())

    def _ask(self, name: Digest, event: Hold | Confirm) -> Holding | Booked | Refused:
        self.driver.handle(event)
        return self._answers.pop(name)

    def _perform(self, effect: Any) -> None:
        match effect:
            case Holding(hold) | Booked(hold) | Refused(hold):
                self._answers[hold] = effect
            case Freed():
                log.info("freed", hold=effect.hold.hex()[:16], machines=len(effect.nodes), why=effect.why)
                for told in self.freed:
                    told(effect)
            case _:
                raise AssertionError(f"nobody performs {effect!r}")
