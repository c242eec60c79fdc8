"""The node daemon: wires the lease book to links, chain, engines and files.

    gateways ── LinkClient ──┐                      ┌── Engines ── OpenVINO, tiny
    chain ──── LogFollower ──┼─> Driver(LeaseBook) ─┼── Vault (transcripts)
              Outbox <───────┘      journal         └── status, metrics, log

It starts without the chain and without any gateway, and waits for whichever is away. SIGTERM drains: no new orders, running
ones may end, then everybody hears goodbye. `kill -9` loses nothing that was acknowledged.
"""

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.follower import Cursor, LogFollower
from clusterai.ledger.adapters.jsonrpc import ChainDown
from clusterai.ledger.adapters.network import Network, load_key, load_network
from clusterai.ledger.adapters.outbox import Outbox
from clusterai.ledger.adapters.standing import standings
from clusterai.ledger.core.calls import Submit
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.projection import TooDeep
from clusterai.ledger.core.standing import Standing
from clusterai.market.core import directory as market_directory
from clusterai.market.core.directory import Directory
from clusterai.node.adapters import hardware
from clusterai.node.adapters.carding import Carding
from clusterai.node.adapters.cardkeeping import keep_cards
from clusterai.node.adapters.chainlog import ChainLog
from clusterai.node.adapters.engines import Engines, Load, loader
from clusterai.node.adapters.lending import Lending
from clusterai.node.adapters.offering import Offering
from clusterai.node.adapters.openings import opened, prepared
from clusterai.node.adapters.power import PowerLimit
from clusterai.node.adapters.proving import Proving
from clusterai.node.adapters.vault import Vault
from clusterai.node.adapters.vaulting import Vaulting
from clusterai.node.adapters.watch import (
    Metrics,
    ModelView,
    Status,
    StatusFile,
    link_views,
    now_s,
)
from clusterai.node.adapters.willing import Will
from clusterai.node.config import Config, JobsConfig, RentalsConfig
from clusterai.node.core.leasebook import LeaseBook, Terms
from clusterai.node.core.leases import (
    Broke,
    Drain,
    Forget,
    Keep,
    Kept,
    Noted,
    OpenEpoch,
    Paused,
    Prepare,
    Start,
    Stop,
)
from clusterai.node.core.willing import Pause
from clusterai.node.hardware import UNSUPPORTED, counted, unrentable
from clusterai.protocol.ids import Address, Digest, Role, hex0x
from clusterai.protocol.leases import leases_domain
from clusterai.protocol.measuring import Claims, Measured
from clusterai.protocol.messages import Finished, Frame, Refused
from clusterai.protocol.signing import BadSignature, Key, recover
from clusterai.protocol.statements import channels_domain, network_domain
from clusterai.runtime.adapters.config import PASSWORD
from clusterai.runtime.adapters.daemon import chores, stop_on_signals
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.runtime.adapters.link import LinkClient
from clusterai.runtime.core.greeting import Identity, Reason
from clusterai.runtime.machine import Linked, Received, Send, Unlinked
from clusterai.work import KINDS
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.cluster.adapters.cards import Cards

STATUS_S = 1.0
DRAIN_POLL_S = 0.05

if TYPE_CHECKING:
    from clusterai.node.adapters.staying import Staying

log: structlog.stdlib.BoundLogger = structlog.get_logger("node")


class Node:
    """One node, made of its configuration; `live` runs it."""

    def __init__(
        self,
        config: Config,
        network: Network,
        key: Key,
        load: Load | None = None,
        performs: type[Performer] = Performer,
    ) -> None:
        """
        Args:
            load: what makes engines.
            performs: what does jobs.

        Raises:
            WrongKey, OtherNetwork: the data folder is of another key or network.
        """
        self.config = config
        self.network = network
        self.owner = config.owner_address()
        self.hot = key.address
        self._key = key
        self._performs = performs
        self._phase = "starting"
        self.pauses: tuple[Pause, ...] = ()
        self._said: list[str] = []
        """why nothing new is taken, as all parts were told"""
        self._will = Will(config)
        self._receipts = 0
        synchronous = config.synchronous
        folder = config.data
        domain = network_domain(network.chain_id, network.contracts.registry)
        self.directory = Directory()
        self.chainlog = ChainLog(folder / "chainlog.sqlite", network.genesis)
        self.vault = Vault(folder / "transcripts.sqlite", key.secret(), synchronous)
        self.journal = SqliteJournal(folder / "journal.sqlite", synchronous)
        self.book = LeaseBook(self._terms(key), self.directory, KINDS)
        self.link = LinkClient(
            config.gateway_urls(),
            Identity(self.owner, Role.PROVIDER, domain, key.sign),
            self._authorize,
            lambda peer, _: self._hear(Linked(peer)),
            self._down,
            lambda peer, frame: self._hear(Received(peer, frame)),
            load=lambda: self.engines.load_now(),
        )
        self.engines = Engines(config.models, self.link, self._hear, load or loader(config.store()))
        self.metrics = Metrics(self.status)
        self.status_file = StatusFile(folder / "status.json")
        self._outbox: Outbox | None = None
        self._follower: LogFollower | None = None
        self._chain: ChainClient | None = None
        self._chain_known = asyncio.Event()
        self._heard_at_s: float | None = None
        """the time of a replayed event; the clock's else"""
        self.driver = Driver(self.book, self.journal, self._perform, self._clock)
        self.proving = Proving(
            self.owner,
            key,
            domain,
            folder / "proving",
            hardware.cores(),
            self._claims,
            self._engaged,
            self.link,
            self._measured,
            self._clock,
        )
        self.carding = Carding(
            folder,
            self.owner,
            self.hot,
            domain,
            self._claims,
            self.proving.may_measure,
            self._perform,
            self._clock,
            offered=config.rentals is not None,
        )
        self.lending = None if config.jobs is None else self._lend(config.jobs)
        self.offering = None if config.rentals is None else self._offer(config.rentals, key)
        self.staying = None if config.rentals is None else self._stays(config.rentals, key)
        self.vaulting = self._vaults(key) if config.vaults else None

    def _vaults(self, key: Key) -> Vaulting:
        # Only where there are vaults: what they bring along takes a second to import.
        from clusterai.vault.adapters.hosting import open_vault

        async def known(asked: Sequence[tuple[Address, Digest]]) -> list[Standing]:
            if self._follower is None or not self._follower.found.is_set() or self._chain is None:
                raise ChainDown("the chain wasn't found yet")
            return await standings(self._chain, asked)

        domain = network_domain(self.network.chain_id, self.network.contracts.registry)
        return Vaulting(
            self.config.vaults,
            self.owner,
            key,
            domain,
            self.engines,
            self.link,
            self._clock,
            self._perform,
            KINDS,
            partial(
                open_vault,
                standings=known,
                window_s=self.network.rules.window_s,
                region="" if self.config.rentals is None else self.config.rentals.region,
            ),
        )

    def _lend(self, config: JobsConfig) -> Lending:
        network = self.network
        domains = (
            leases_domain(network.chain_id, network.contracts.leases),
            network_domain(network.chain_id, network.contracts.registry),
        )
        return Lending(
            config,
            self.config.data / "jobs",
            self.owner,
            domains,
            network.rules.window_s,
            self.config.synchronous,
            self.link.send,
            self._perform,
            self._clock,
            self._key.secret(),
            network.confirmations,
            self._performs,
        )

    def _offer(self, config: RentalsConfig, key: Key) -> Offering:
        domain = network_domain(self.network.chain_id, self.network.contracts.registry)
        path = self.config.data / "offers.sqlite"
        cards = hardware.lent_gpus(config) if config.gpus else ()
        named = msgspec.structs.replace(config, gpu=config.gpu or next((it.name for it in cards), ""))
        return Offering(
            named, path, self.owner, key, domain, self.config.synchronous, self._perform, self._clock
        )

    def _engaged(self) -> str:
        """What keeps the machine from being measured: whatever keeps it from being rented."""
        if self.offering is None:
            return "this machine isn't rented out"
        return "; ".join(self.offering.book.withheld)

    def _measured(self, measured: Measured) -> None:
        self.carding.hear(measured)

    def _claims(self) -> Claims:
        """What is offered; where nothing is, what is found."""
        offer = None if self.offering is None else self.offering.book.offer
        return hardware.claims(self.config.data, self.config.rentals, 0 if offer is None else offer.serial)

    def _stays(self, config: RentalsConfig, key: Key) -> "Staying":
        from clusterai.node.adapters.staying import renting  # needs Linux

        domain = network_domain(self.network.chain_id, self.network.contracts.registry)
        return renting(
            config,
            self.config.data / "stays",
            key,
            domain,
            self.engines,
            self.link.send,
            self._busy,
            lambda _: self._decide(),
            self._by_gateway,
        )

    def _by_gateway(self, digest: Digest, signature: bytes, gateway: Address) -> bool:
        try:
            return self.directory.acts_for(recover(digest, signature), gateway, Role.GATEWAY)
        except BadSignature:
            return False

    def _cards(self) -> list[Coroutine[Any, Any, None]]:
        rentals, offering, staying = self.config.rentals, self.offering, self.staying
        if rentals is None or offering is None or staying is None or not rentals.gpus:
            return []
        cards = Cards(rentals.cards, rentals.gpus)
        return [keep_cards(cards, offering.withhold, lambda: staying.book.stay is not None)]

    def _busy(self) -> str | None:
        """Why the machine can't be had whole now."""
        jobs = 0 if self.lending is None else self.lending.running
        return f"{jobs} jobs run here: ask again when they are done" if jobs else None

    def _terms(self, key: Key) -> Terms:
        network, rules = self.network, self.network.rules
        return Terms(
            me=self.owner,
            keys=(self.hot,),
            token=network.contracts.token,
            network=network_domain(network.chain_id, network.contracts.registry),
            channels=channels_domain(network.chain_id, network.contracts.channels),
            epoch_s=rules.epoch_s,
            window_s=rules.window_s,
            sign=key.sign,
            recover=recover,
            credit_wei=self.config.credit_wei,
            queue=self.config.queue,
            least_claim_wei=self.config.least_claim_wei,
            confirmations=network.confirmations,
        )

    async def live(self, stop: asyncio.Event) -> None:
        """Serve until `stop`, then drain.

        Raises:
            OtherChain, NoSuchModel, Altered, TooDeep and what else makes going on senseless, in an ExceptionGroup.
        """
        for at_s, event in self.chainlog.events():
            self._heard_at_s = at_s
            self._hear(event)
        self._heard_at_s = None
        if self.chainlog.cursor() is not None:
            self._chain_known.set()
        self.driver.start()
        self._decide()
        await self._withhold()
        if self.config.metrics_port:
            self.metrics.listen(self.config.metrics_port)
        async with ChainClient(self.network) as client:
            outbox = self._outbox = Outbox(client, self._key, self.config.data / "outbox.sqlite", self._hear)
            self._chain = client
            follower = self._follower = LogFollower(client, self._deliver, self.chainlog.cursor())
            if self.lending is not None:
                # Behind the outbox: what a crash left undone is asked for at once.
                self.lending.driver.start()
            try:
                async with chores(
                    follower.run(),
                    self._submit(outbox, follower),
                    self._links(),
                    self.engines.run(),
                    self.driver.tick_forever(),
                    self._watch(),
                    self.proving.run(),
                    *([] if self.lending is None else self.lending.chores(self.link)),
                    *([] if self.offering is None else self.offering.chores()),
                    *([] if self.staying is None else [self.staying.run()]),
                    *self._cards(),
                    *([] if self.vaulting is None else [self.vaulting.run()]),
                ):
                    await stop.wait()
                    await self._drain()
            finally:
                if self.lending is not None:
                    await self.lending.close()
                outbox.close()

    async def _withhold(self) -> None:
        """Who would be refused by a machine that can't hold a cluster isn't offered it."""
        rentals, offering = self.config.rentals, self.offering
        if rentals is None or offering is None:
            return
        missing = await asyncio.to_thread(lambda: unrentable(rentals.home, counted()))
        if missing is not None:
            log.warning("not_rentable", why=missing.found, cure=missing.cure)
            offering.withhold("machine", f"{missing.found}: {missing.cure}")

    def close(self) -> None:
        if self.vaulting is not None:
            self.vaulting.close()
        if self.offering is not None:
            self.offering.close()
        self.metrics.close()
        self.status_file.remove()
        self.journal.close()
        self.vault.close()
        self.chainlog.close()

    # --- tasks ---

    async def _submit(self, outbox: Outbox, follower: LogFollower) -> None:
        """Nothing is sent to a chain before it is known to be ours."""
        await follower.found.wait()
        await outbox.run()

    async def _links(self) -> None:
        """Nobody is dialled before it is known who is who: a gateway would be taken for a stranger."""
        await self._chain_known.wait()
        if self.directory.owner_of(self.hot) != self.owner:
            log.warning(
                "not_delegated", owner=hex0x(self.owner), hot=hex0x(self.hot), cure="delegate the hot key"
            )
        await self.link.run()

    async def _watch(self) -> None:
        self._phase = "running"
        while True:
            self._decide()
            self.status_file.write(self.status())
            self.carding.look()
            await asyncio.sleep(STATUS_S)

    def _decide(self) -> None:
        """Whether to take new work, as owner, hours and the machine's use say."""
        self.pauses = self._will.pauses(time.time())
        why = [it.said for it in self.pauses]
        if self.staying is not None:
            # What is rented out goes on while its owner pauses; nothing new is begun.
            self.staying.tell(Paused("; ".join(why)))
            if self.staying.book.stay is not None:
                why.append("this machine is rented out whole")
        if why != self._said:
            self._said = why
            log.info("paused" if why else "resumed", why=why)
            self._hear(Paused("; ".join(why)))

    async def _drain(self) -> None:
        self._phase = "draining"
        log.info("draining", running=len(self.book.running))
        self._hear(Drain())
        if self.staying is not None:
            self.staying.tell(Drain())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.grace_s):
                while self.book.running:  # noqa: ASYNC110  the book is a machine: it has no events to wait on
                    await asyncio.sleep(DRAIN_POLL_S)
        for order in list(self.book.running):
            self._hear(Broke(order, "shutting_down", "this provider shuts down"))

    # --- in ---

    def _clock(self) -> float:
        return time.time() if self._heard_at_s is None else self._heard_at_s

    def _hear(self, event: Any) -> None:
        self.carding.links(event)
        if self.vaulting is not None and self.vaulting.hear(event):
            return
        if self.staying is not None and self.staying.hear(event):
            return
        if self.offering is not None and self.offering.hear(event):
            return
        if self.proving.hear(event):
            return
        if self.lending is None or not self.lending.hear(event):
            self.driver.handle(event)

    def _deliver(self, events: Sequence[Event], cursor: Cursor) -> None:
        self.chainlog.append(events, cursor, time.time())
        try:
            for event in events:
                self._hear(event)
        except (TooDeep, market_directory.TooDeep):
            self.chainlog.forget()
            raise
        follower = self._follower
        if follower is not None and cursor.number - follower.cursor.number >= follower.behind:
            self._chain_known.set()

    def _down(self, peer: Address, reason: str) -> None:
        log.warning("link_down", gateway=hex0x(peer), why=reason)
        self._hear(Unlinked(peer))

    def _authorize(self, hot: Address, role: Role) -> Address | Reason:
        owner = self.directory.owner_of(hot)
        if owner is None:
            return Reason.UNREGISTERED
        if self.directory.barred(owner):
            return Reason.BARRED
        return owner if self.directory.roles(owner) & role else Reason.WRONG_ROLE

    # --- out ---

    def _perform(self, effect: Any) -> None:
        match effect:
            case Send(to, frame):
                self._send(to, frame)
            case Start():
                self.engines.start(effect)
            case Stop():
                self.engines.stop(effect)
            case Keep(epoch, order, transcript):
                self.vault.put(epoch, order, transcript)
                if self.staying is not None:
                    self.staying.came(transcript)
                self._hear(Kept(order))
            case Forget(epoch):
                self.vault.forget(epoch)
            case OpenEpoch(gateway, ask):
                relay = opened(self.vault, self.owner, effect)
                log.info("opened", epoch=ask.epoch, validator=hex0x(ask.validator), drawn=len(effect.drawn))
                self.link.send(gateway, relay)
            case Prepare():
                self._hear(prepared(self.vault, effect))
            case Submit(key):
                assert self._outbox is not None, "the outbox is there before the first event"
                log.info("submit", call=key)
                self._outbox.submit(effect)
            case Noted(what, detail, peer):
                self.metrics.noted[what] += 1
                log.warning(what, detail=detail, peer=None if peer is None else hex0x(peer))
            case _:
                raise AssertionError(f"nobody performs {effect!r}")

    def _send(self, to: Address, frame: Any) -> None:
        if isinstance(frame, Refused):
            self.metrics.refused[frame.code] += 1
            log.info("refused", order=hex0x(frame.order), code=frame.code, detail=frame.detail)
        elif isinstance(frame, Finished):
            self._receipts += 1
        self.link.send(to, frame)

    # --- for people ---

    def status(self) -> Status:
        claims = self.book.claims
        channels = list(claims.configs)
        doing = self.engines.doing
        loaded = self.engines.loaded()
        models: list[ModelView] = []
        for model in self.config.models:
            found = loaded.get(model.name)
            stats = found.engine.stats() if found else None
            models.append(
                ModelView(
                    model.name,
                    hex0x(found.engine.model) if found else "",
                    "ready" if found else doing.get(model.name, "waiting"),
                    stats.running if stats else 0,
                    stats.queued if stats else 0,
                    round(stats.tokens_per_s, 1) if stats else 0.0,
                )
            )
        follower = self._follower
        return Status(
            pid=os.getpid(),
            at_s=now_s(),
            owner=hex0x(self.owner),
            hot=hex0x(self.hot),
            phase=self._phase,
            chain_block=self.directory.block,
            chain_trouble=follower.trouble if follower else "",
            registered=self.directory.owner_of(self.hot) == self.owner,
            barred=claims.barred,
            running=len(self.book.running),
            receipts=self._receipts,
            tokens=self.engines.tokens,
            owed_wei=sum(max(0, self.book.owed_wei(channel)) for channel in channels),
            vouched_wei=sum(claims.vouched_wei(channel) for channel in channels),
            committed_wei=claims.committed_wei,
            claimed_wei=claims.claimed_wei,
            settled_wei=claims.settled_wei,
            links=link_views(self.link.status()),
            models=tuple(models),
            pauses=self.pauses,
            withheld=() if self.offering is None else self.offering.book.withheld,
        )


async def run(config: Config, load: Load | None = None, performs: type[Performer] = Performer) -> None:
    """Be a node until SIGTERM or SIGINT; see `Node`."""
    began_s = time.monotonic()
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    network = load_network(config.network)
    if (lacks := UNSUPPORTED.get(platform.system())) is not None:
        log.warning("unsupported_system", system=platform.system(), lacks=lacks)
    limit = None if config.power is None else PowerLimit(config.power)
    for trouble in [] if limit is None else limit.set():
        log.warning("not_limited", why=trouble)
    node = Node(config, network, load_key(config.key, os.environ.get(PASSWORD)), load, performs)
    stop = asyncio.Event()
    stop_on_signals(stop)
    log.info(
        "starting",
        owner=hex0x(node.owner),
        hot=hex0x(node.hot),
        started_s=round(time.monotonic() - began_s, 3),
    )
    try:
        await node.live(stop)
    finally:
        node.close()
        if limit is not None:
            limit.undo()
        log.info("stopped")


__all__ = ["Frame", "Node", "run"]
