"""The hands of the desk for rentals: its driver and journal, the market's bookings, the relay, the Meter's orders, links.

RentalPages ── Rent, Meet, … ──> Renting ── Driver(RentDesk) ──┬── links: OpenStay, JoinStay, …
    links, the Meter ── frames, tokens, charges ──^            ├── the Meter: one order for each interval
                                                               ├── RelayServer: the mesh's ports
                                                               └── Marketplace: another machine, more time, given back
"""

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from clusterai.gateway.adapters.archive import Archive
from clusterai.gateway.adapters.marketplace import Busy, Marketplace, Reserved
from clusterai.gateway.core import errands, rentstate
from clusterai.gateway.core.moneystate import Charged
from clusterai.gateway.core.offerviews import request_of
from clusterai.gateway.core.rentdesk import FIRST_ERRAND, RentDesk
from clusterai.gateway.core.rentstate import (
    Abandon,
    AskCredit,
    CloseRelay,
    Counted,
    Credit,
    Extension,
    FindAnother,
    Found,
    Free,
    Noted,
    NotFound,
    OpenRelay,
    Order,
    Outside,
    RelayOpened,
    Rental,
    Seat,
)
from clusterai.gateway.core.renttime import core_worth
from clusterai.market.core.placement import Booked, Field, WhyNot
from clusterai.market.core.routing import Preference
from clusterai.mesh import Member, RelayServer
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Transcript
from clusterai.protocol.rentals import AskStayLog, RentFrame, StayLogged, head_of, stay_model
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.runtime.machine import Linked, Received, Send, Unlinked
from clusterai.sdk.offershapes import LEAST_S, MOST_S, PlanRequest
from clusterai.work import cluster

PATIENCE_S = 5.0
LOOK_S = 1.0
LOG_S = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("rentals")


class NoLog(Exception):
    """That machine doesn't answer: it is lost, or away."""


class Renting:
    """One gateway's rentals.

    Args:
        send: gives a peer a frame.
        till: gives the Meter an event.
        credit_wei: what an account can still spend.
        archive: of receipts, by which rentals are counted again after a kill.
        relay: host that it listens at, and that members reach it by.
    """

    def __init__(
        self,
        path: Path,
        network: Domain,
        synchronous: Literal["NORMAL", "FULL"],
        market: Marketplace,
        send: Callable[[Address, Any], object],
        till: Callable[[Any], None],
        credit_wei: Callable[[Digest], int],
        signer: Callable[[Digest, bytes], Address | None],
        owner_of: Callable[[Address], Address | None],
        sign: Callable[[Digest], bytes],
        archive: Archive,
        relay: tuple[str, str],
    ) -> None:
        self.market = market
        self._send, self._till, self._credit_wei = send, till, credit_wei
        self._relay = RelayServer(*relay)
        self._archive = archive
        self._journal = SqliteJournal(path, synchronous)
        self.desk = RentDesk(network, signer, owner_of, sign, secrets.token_bytes(32))
        self.driver = Driver(self.desk, self._journal, self._perform)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ordered_s: dict[int, float] = {}
        """by errand, on the monotonic clock: machines are held to it, and the time of day may be set at any moment"""
        self._logs: dict[tuple[bytes, int, Address], asyncio.Future[StayLogged]] = {}

    def start(self) -> None:
        """Once, before the doors open: machines are booked in one journal and rented in another, and a crash may have come between."""
        self.market.keep_only(
            {
                Digest(stay.seat.hold)
                for rental in self.desk.rentals.values()
                if rental.ended is None
                for stay in rental.stays.values()
            }
        )
        for rental in list(self.desk.rentals.values()):
            self._recount(rental)
        self.driver.start()

    def _recount(self, rental: Rental) -> None:
        """The Meter's journal and ours are two: of what was charged in the instant before a kill only its receipt tells."""
        if self._archive.count(rental.lease) <= rental.intervals:
            return
        places = {
            stay_model(rental.lease, place, generation): place
            for place, stay in rental.stays.items()
            for generation in range(stay.generation + 1)
        }
        units: dict[int, int] = {}
        receipts = [it.receipt for it in self._archive.tagged(rental.lease)]
        for receipt in receipts:
            place = places[Digest(receipt.model)]
            units[place] = units.get(place, 0) + receipt.output_units
        paid_wei = sum(receipt.amount_wei for receipt in receipts)
        self.driver.handle(Counted(rental.lease, len(receipts), paid_wei, units))

    async def run(self) -> None:
        """Look at where members are seen, until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                for lease, rental in list(self.desk.rentals.items()):
                    if rental.ended is None and rental.ports:
                        for place, endpoint in self._relay.table.outside(lease).items():
                            self.driver.handle(Outside(lease, place, endpoint))
        finally:
            self._relay.end()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._journal.close()

    # --- in ---

    def hear(self, event: Any) -> bool:
        """Take an event of links; whether it was of no concern to anyone else."""
        match event:
            case Received(peer, StayLogged() as frame):
                waiting = self._logs.pop((frame.lease, frame.generation, peer), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(frame)
                return True
            case Received(_, frame):
                if not isinstance(frame, RentFrame):
                    return False
                self.driver.handle(event)
                return True
            case Linked() | Unlinked():
                self.driver.handle(event)
            case _:
                pass
        return False

    @staticmethod
    def owns(errand: int) -> bool:
        return errand >= FIRST_ERRAND

    def metered(self, effect: Any) -> None:
        """What became of an interval's order. Not at once: the desk may be in the middle of asking for it."""
        match effect:
            case errands.Deliver(errand, tokens):
                passed_s = time.monotonic() - self._ordered_s.get(errand, -math.inf)
                self._soon(rentstate.Beaten(errand, tokens, passed_s))
            case errands.Done(errand, _, charged, transcript):
                self._ordered_s.pop(errand, None)
                self._soon(_done(errand, charged, transcript))
            case errands.Failed(errand, code, detail):
                self._ordered_s.pop(errand, None)
                self._soon(rentstate.Failed(errand, code, detail[:500]))
            case _:
                pass  # streamed answers aren't begun again, and calls of one part aren't settled

    def _soon(self, event: Any) -> None:
        asyncio.get_running_loop().call_soon(self.driver.handle, event)

    # --- out ---

    def _perform(self, effect: Any) -> None:
        match effect:
            case Send(to, frame):
                self._send(to, frame)
            case Order():
                self._order(effect)
            case Abandon(errand, keep):
                self._ordered_s.pop(errand, None)
                self._till(errands.Abandon(errand, keep=keep))
            case OpenRelay():
                self._spawn(self._open_relay(effect))
            case CloseRelay(lease):
                self._relay.close(lease)
            case FindAnother():
                self._spawn(self._find(effect))
            case Free(hold, node):
                self.market.release(hold, node)
            case Extension(hold, until_s):
                self.market.confirm(hold, until_s)
            case AskCredit(lease, account):
                self._soon(Credit(lease, self._credit_wei(account)))
            case Noted(lease, what, detail):
                log.info("rental_" + what, lease=lease.hex()[:16], detail=detail)
            case _:
                raise AssertionError(f"nobody performs {effect!r}")

    def _order(self, order: Order) -> None:
        self._ordered_s[order.errand] = time.monotonic()
        self._till(
            errands.Ask(
                order.errand,
                order.account,
                cluster.KIND,
                order.model,
                order.interval,
                secrets.token_bytes(32),
                preference=Preference(),
                streamed=True,
                tag=order.lease,
                patience_s=PATIENCE_S,
            )
        )

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open_relay(self, asked: OpenRelay) -> None:
        members = [Member(place, key) for place, key in asked.members]
        try:
            ports = await self._relay.open(asked.lease, members)
        except OSError as error:
            log.error("no_relay", why=str(error))
            return
        self.driver.handle(RelayOpened(asked.lease, {place: dict(to) for place, to in ports.items()}))

    async def _find(self, asked: FindAnother) -> None:
        # For as long as the rental still goes: it may have been extended, or be almost over.
        left_s = min(MOST_S, max(LEAST_S, asked.until_s - int(time.time())))
        wish = msgspec.structs.replace(msgspec.json.decode(asked.wish, type=PlanRequest), duration_s=left_s)
        name = Digest(secrets.token_bytes(32))
        # Its renter is the rental: nobody's holds are counted for it.
        renter = Address(asked.lease[:20])
        request = request_of(wish)
        try:
            found = await self.market.another(
                request, renter, name, asked.most_wei, asked.but, self._beside(asked)
            )
        except Busy:
            self.driver.handle(NotFound(asked.lease, asked.place, "many plans are being worked out"))
            return
        if not isinstance(found, Reserved):
            why = "none stands free at that price" if isinstance(found, WhyNot) else "others were quicker"
            self.driver.handle(NotFound(asked.lease, asked.place, why))
        elif self.market.owner(Address(self.seats(name)[0].operator)) in self.market.full(
            request, self._beside(asked)
        ):
            # Another place of this rental was filled meanwhile.
            self.market.release(name)
            self.driver.handle(
                NotFound(asked.lease, asked.place, "its owner has enough machines in this group")
            )
        elif isinstance(self.market.confirm(name, asked.until_s), Booked):
            self.driver.handle(Found(asked.lease, asked.place, self.seats(name)[0]))
        else:
            self.driver.handle(NotFound(asked.lease, asked.place, "another was quicker"))

    def _beside(self, asked: FindAnother) -> list[Address]:
        """The operators of the machines that go on."""
        rental = self.desk.rentals.get(asked.lease)
        stays = {} if rental is None else rental.stays
        return [
            Address(it.seat.operator)
            for place, it in stays.items()
            if place != asked.place and it.phase != "lost"
        ]

    def seats(self, hold: Digest) -> tuple[Seat, ...]:
        """The machines of a hold, with what is known of their sentinels, and how long they may be booked."""
        return tuple(
            Seat(
                it.node,
                it.operator,
                it.price_wei,
                core_worth(self.market.measured(Address(it.node), Field.PROFILE)),
                hold,
                self.market.longest_s(Address(it.node)),
            )
            for it in self.market.seats(hold)
        )

    # --- what pages ask ---

    async def log_of(self, lease: Digest, place: int, start: int) -> StayLogged:
        """
        Raises:
            NoLog.
        """
        stay = self.desk.rentals[lease].stays[place]
        peer = Address(stay.seat.operator)
        waiting: asyncio.Future[StayLogged] = asyncio.get_running_loop().create_future()
        self._logs[bytes(lease), stay.generation, peer] = waiting
        self._send(peer, AskStayLog(lease, stay.generation, start))
        try:
            async with asyncio.timeout(LOG_S):
                return await waiting
        except TimeoutError:
            raise NoLog from None
        finally:
            self._logs.pop((bytes(lease), stay.generation, peer), None)


def _done(errand: int, charged: Charged | None, transcript: Transcript | None) -> rentstate.Done:
    if charged is None or transcript is None:
        return rentstate.Done(errand, Digest(bytes(32)), (), None)
    head = head_of(transcript.order.request, transcript.answer.digest())
    return rentstate.Done(errand, head, transcript.answer.tokens, charged.receipt.amount_wei)
