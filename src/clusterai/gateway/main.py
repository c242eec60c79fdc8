"""The gateway as a process: machine, journal, links, chain and HTTP, wired by hand.

    clients ──HTTP── Front, Pages ── Desk ──┐                 ┌── LinkServer ──TLS── providers, validators
                                            ├── Driver(Meter) ┤
    LogFollower ──events────────────────────┘                 └── Outbox ── chain

Everything that was acknowledged is in the journal before it is said, so this process may be killed at any moment. On SIGTERM it
takes no new work, lets answers end for `grace_s`, and tells those that are left why.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import structlog
import uvicorn
from blake3 import blake3

from clusterai.audit.core.segments import RateRules
from clusterai.gateway.adapters import catalog as catalogs
from clusterai.gateway.adapters.archive import Archive
from clusterai.gateway.adapters.asgi import Receive, Scope
from clusterai.gateway.adapters.asgi import Send as AsgiSend
from clusterai.gateway.adapters.calls import Calling, CallPages
from clusterai.gateway.adapters.desk import Desk
from clusterai.gateway.adapters.door import Doors, KeyDoor
from clusterai.gateway.adapters.endpoints import BY_PATH
from clusterai.gateway.adapters.front import Front
from clusterai.gateway.adapters.jobs import JobPages, Leasing
from clusterai.gateway.adapters.journal import FlushedJournal
from clusterai.gateway.adapters.keys import KeyRing
from clusterai.gateway.adapters.lingering import lingering
from clusterai.gateway.adapters.marketplace import Marketplace
from clusterai.gateway.adapters.meters import Meters
from clusterai.gateway.adapters.offerpages import OfferPages
from clusterai.gateway.adapters.pages import Invitation, Pages
from clusterai.gateway.adapters.quote import Quotes
from clusterai.gateway.adapters.rentals import RentalPages, Renting
from clusterai.gateway.adapters.replies import Replies
from clusterai.gateway.adapters.secrets import made_secret
from clusterai.gateway.adapters.wallet import WalletDoor
from clusterai.gateway.adapters.withdrawals import Withdrawals
from clusterai.gateway.config import Config
from clusterai.gateway.core.book import Book
from clusterai.gateway.core.errands import Deliver, Done, Failed, Refunded, Restarted, Settled
from clusterai.gateway.core.jobstate import DeskTerms
from clusterai.gateway.core.meter import Meter, Party
from clusterai.gateway.core.payouts import PREFIX
from clusterai.gateway.core.shelf import Shelf
from clusterai.gateway.core.tabs import ItemPaid, TabIs
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.follower import Cursor, LogFollower
from clusterai.ledger.adapters.network import Network, load_key, load_network, manifest_of
from clusterai.ledger.adapters.outbox import Outbox
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Submit
from clusterai.market.core.directory import Directory
from clusterai.market.core.reputation import Reputation
from clusterai.market.core.routing import LEAST_LATENCY_S, Routing
from clusterai.models import ModelStore
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.leases import leases_domain
from clusterai.protocol.messages import Frame, Relay, Unreachable
from clusterai.protocol.signing import BadSignature, Key, recover
from clusterai.protocol.statements import channels_domain, network_domain
from clusterai.runtime.adapters.certificate import certificate
from clusterai.runtime.adapters.config import PASSWORD
from clusterai.runtime.adapters.daemon import chores, stop_on_signals
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.link import LinkServer
from clusterai.runtime.core.greeting import Identity, Reason
from clusterai.runtime.machine import Linked, Received, Send, Unlinked

log = structlog.get_logger("gateway")

SWEEP_S = 600.0
EVERYWHERE = "0.0.0.0"  # noqa: S104  compared with, not listened on
OBSERVE_S = 10.0
FIRST_READ_S = 2.0
"""How long the doors stay closed for the chain to be read; without a chain they open then."""


class Gateway:
    """One running gateway. `run` is its life."""

    def __init__(self, config: Config, network: Network, key: Key, client: ChainClient) -> None:
        self.config = config
        self.network = network
        data = config.data
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        contracts, rules = network.contracts, network.rules
        self.owner = config.owner_address()
        domain = network_domain(network.chain_id, contracts.registry)
        self.directory = Directory()
        self.reputation = Reputation(network.confirmations)
        till = Key(made_secret(data / "till.key"))
        self.catalog = catalogs.of_store(ModelStore(config.store()), config.serve)
        self.meter = Meter(
            Party(
                owner=self.owner,
                hot=key.address,
                token=contracts.token,
                channels=contracts.channels,
                network=domain,
                vouchers=channels_domain(network.chain_id, contracts.channels),
                epoch_s=rules.epoch_s,
                window_s=rules.window_s,
                sign=key.sign,
                recover=_signer,
                till=till.address,
                confirmations=network.confirmations,
            ),
            self.directory,
            Routing(self._quality),
            config.terms,
            self.catalog.follow,
        )
        self.archive = Archive(
            data / "archive.db", made_secret(data / "transcripts.key"), config.keep_transcripts_s
        )
        synchronous = "FULL" if config.survives == "power" else "NORMAL"
        journal = FlushedJournal(data / "journal.db", synchronous, self.archive)
        self._recover_receipts(journal)
        self.driver = Driver(self.meter, journal, self._perform)
        self.desk = Desk(config.patience_s)
        self.desk.handle = self.driver.handle
        self.links = LinkServer(
            config.link_host,
            config.link_port,
            Identity(self.owner, Role.GATEWAY, domain, key.sign),
            certificate(data),
            self._authorize,
            self._up,
            self._down,
            self._frame,
        )
        self.outbox = Outbox(client, key, data / "outbox.db", self._hear)
        self.follower = LogFollower(client, self._chain)
        self.keys = KeyRing(data / "keys.db")
        self.replies = Replies(data / "replies.db")
        self.doors = Doors([KeyDoor(self.keys)])
        self.wallets = WalletDoor(
            network,
            self.owner,
            till,
            data / "wallets",
            BY_PATH,
            Quotes(self.catalog, self.meter.routing),
            lambda account: self.meter.book.account(account).credit_wei,
            self.driver.handle,
        )
        if config.wallets:
            self.doors.doors.append(self.wallets)
        self.meters = Meters()
        self.front = Front(
            self.desk,
            self.catalog,
            self.doors,
            self.replies,
            self.archive,
            self.meters,
            config.most_body,
            config.most_running,
        )
        self.leasing = Leasing(
            data / "jobs",
            DeskTerms(
                self.owner,
                leases_domain(network.chain_id, contracts.leases),
                contracts.leases,
                rules.window_s,
                config.least_job_stake_wei,
                RateRules(
                    rules.audits.saving_ppm,
                    rules.audits.sensitivity_ppm,
                    rules.audits.corrupt_ppm,
                    rules.audits.margin_ppm,
                ),
                contracts.deliveries,
                config.keep_jobs_s,
                config.most_jobs_kept,
                config.bait_ppm,
                config.bait_spread_s,
                bait_key=blake3(key.secret(), derive_key_context="clusterai gateway bait 1").digest(),
                bond_ppm=rules.audits.bond_ppm,
            ),
            synchronous,
            self.links.send,
            self.outbox.submit,
            self.driver.handle,
            config.content_bytes,
        )
        self.market = Marketplace(
            data / "market.db",
            self.directory,
            domain,
            config.market,
            synchronous,
            self.links.send,
            self.links.round_trip_ms,
        )
        shown = urlsplit(config.link_url).hostname or config.link_host
        if shown == EVERYWHERE:
            log.warning(
                "relay_unreachable",
                why="nobody is told where rented machines reach this gateway",
                cure=f"link_url = wss://HOST:{config.link_port}",
            )
        self.renting = Renting(
            data / "rentals.db",
            domain,
            synchronous,
            self.market,
            self.links.send,
            self.driver.handle,
            lambda account: self.meter.book.credit_wei(account),
            _signer,
            self.directory.owner_of,
            key.sign,
            self.archive,
            (config.link_host, shown),
        )
        self.calling = Calling(
            Shelf(domain, _signer, self.directory.owner_of),
            self.meter.routing,
            config.calls,
            lambda peer, frame: self.links.send(peer, cast("Frame", frame)),
            self.links.drained,
        )
        self.call_pages = CallPages(
            self.calling, self.desk, self.meter, self.doors, self.replies, self.archive
        )
        self.job_pages = JobPages(self.leasing, self.doors, data / "jobs" / "uploads")
        self.pages = Pages(
            self.meter,
            self.catalog,
            self.doors,
            self.keys,
            self.archive,
            self.meters,
            made_secret(data / "admin.key").hex(),
            self.trouble,
            version("clusterai"),
            Withdrawals(self.meter, self.doors, self.driver.handle),
            self.job_pages,
            OfferPages(
                self.market, self.doors, self.owner, lambda it: self.meter.book.account(it).credit_wei
            ),
            RentalPages(self.renting, self.doors, lambda it: self.meter.book.credit_wei(it)),
            self.call_pages,
            self.reputation,
            Invitation(self.owner, config.link_url, config.link_port, manifest_of(network)),
        )
        self._pages = self.pages.app()
        self._journal = journal
        self._caught_up = False
        self._read = asyncio.Event()
        self.stopping = asyncio.Event()

    def trouble(self) -> str:
        """Why this gateway can't serve now, for people; "" when it can."""
        if self.stopping.is_set():
            return "shutting down"
        if not self._caught_up:
            return f"reading the chain: {self.follower.trouble or f'{self.follower.behind} blocks behind'}"
        return ""

    def _quality(self, provider: Address) -> float:
        return self.reputation.quality(provider, self.directory.stake(provider), time.time())

    async def _observe(self) -> None:
        """Who is there, and how quick: what a provider can't say of itself."""
        while True:
            await asyncio.sleep(OBSERVE_S)
            linked = self.meter.routing.providers
            for provider in self.directory.holders(Role.PROVIDER):
                standing = linked.get(provider)
                self.reputation.seen(provider, standing is not None, OBSERVE_S, time.time())
                if standing is not None and standing.first_token_s > LEAST_LATENCY_S:
                    self.reputation.timed(provider, standing.first_token_s)

    def _hear(self, event: Any) -> None:
        """Jobs have a desk of their own, machines a market; what concerns several, all hear."""
        if self.calling.hear(event) or self.market.hear(event) or self.renting.hear(event):
            return
        if not self.leasing.hear(event):
            self.driver.handle(event)
        self.market.follow(event)

    # --- what the machine wants done ---

    def _perform(self, effect: Any) -> None:
        match effect:
            case Deliver(errand) | Failed(errand) | Restarted(errand) if self.renting.owns(errand):
                self.renting.metered(effect)
            case Deliver() | Failed() | Restarted() | Settled():
                self.desk.perform(effect)
            case Send(to, frame):
                # One that isn't linked gets it again when it links: the machine counts on no single delivery.
                self.links.send(to, cast("Frame", frame))
            case Done():
                if effect.charged is not None:
                    self.archive.charged(effect.charged, effect.transcript)
                (self.renting.metered if self.renting.owns(effect.errand) else self.desk.perform)(effect)
            case Submit(key):
                if key.startswith(PREFIX):
                    # A power cut that takes the debt with it, and not the payment, would pay again.
                    self._journal.sync()
                self.outbox.submit(effect)
            case TabIs() | ItemPaid():
                self.leasing.hear(effect)
            case Refunded(refund):
                self.archive.refunded(refund)
                log.info("refunded", account=refund.account.hex(), amount_wei=refund.amount_wei)
            case _:
                raise AssertionError(f"nobody performs {effect}")

    # --- links ---

    def _authorize(self, hot: Address, role: Role) -> Address | Reason:
        owner = self.directory.owner_of(hot)
        if owner is None:
            return Reason.UNREGISTERED
        if self.directory.barred(owner):
            return Reason.BARRED
        if not self.directory.roles(owner) & role:
            return Reason.WRONG_ROLE
        least = {
            Role.PROVIDER: self.config.least_provider_stake_wei,
            Role.VALIDATOR: self.config.least_validator_stake_wei,
        }.get(role, 0)
        return owner if self.directory.stake(owner) >= least else Reason.LITTLE_STAKE

    def _up(self, peer: Address, role: Role) -> None:
        log.info("linked", peer=peer.hex(), role=role.name)
        self._hear(Linked(peer))

    def _down(self, peer: Address, why: str) -> None:
        log.info("unlinked", peer=peer.hex(), why=why)
        self._hear(Unlinked(peer))

    def _frame(self, peer: Address, frame: Frame) -> None:
        if isinstance(frame, Relay):
            to = Address(frame.to)
            if not self.links.send(to, Relay(peer, to, frame.body)):
                self.links.send(peer, Unreachable(to))
            return
        self._hear(Received(peer, frame))

    # --- chain ---

    def _chain(self, happened: Sequence[Any], cursor: Cursor) -> None:
        for event in happened:
            self._hear(event)
            self.reputation.hear(event)
            self.archive.chain(event)
            if isinstance(event, events.Barred):
                self.links.drop(event.receiver, "convicted of fraud")
        self.wallets.block()
        left = self.follower.behind - (cursor.number - self.follower.cursor.number)
        if not self._caught_up and left <= 0:
            self._caught_up = True
            self._read.set()
            log.info("caught up", block=cursor.number)

    def _recover_receipts(self, journal: FlushedJournal) -> None:
        """Receipts that a crash kept from the archive are still in the journal; so are refunds' causes."""
        decoder = msgspec.msgpack.Decoder(Meter.RECORDS)
        records = [decoder.decode(record) for record in journal.load()]
        book = Book(
            self.owner,
            lambda config: config.channel_id(self.meter.me.vouchers),
            self.meter.me.window_s,
            self.meter.me.till,
        )
        refunds = [refund for record in records for refund in book.apply(record)]
        self.archive.recover(records, refunds)

    # --- life ---

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """ASGI: the paid endpoints go the short way."""
        if scope["type"] == "http":
            receive, send = lingering(scope, receive, send)
        if scope["type"] == "http" and scope["path"] in self.front.routes:
            await self.front(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        server = _Server(
            uvicorn.Config(
                self,
                host=self.config.host,
                port=self.config.port,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=1,
                ssl_certfile=self.config.tls_certificate or None,
                ssl_keyfile=self.config.tls_key or None,
            )
        )
        stop_on_signals(self.stopping)
        try:
            async with chores(
                self.follower.run(),
                self.outbox.run(),
                self.driver.tick_forever(),
                self.leasing.driver.tick_forever(),
                self.market.run(),
                self.renting.driver.tick_forever(),
                self.renting.run(),
                self.archive.flush_forever(),
                self._sweep(),
                self._observe(),
                *((self.wallets.run(),) if self.config.wallets else ()),
            ) as tasks:
                # Whoever dials before the chain was read would be refused as a stranger, and stay away for seconds.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_READ_S):
                        await self._read.wait()
                await self.links.start()
                self.driver.start()
                self.leasing.driver.start()
                self.renting.start()
                serving = tasks.create_task(server.serve())
                log.info(
                    "serving", url=f"http://{self.config.host}:{self.config.port}", links=self.links.port
                )
                await _first(self.stopping, serving)
                self.stopping.set()
                await self._wind_down()
                server.should_exit = True
                await serving
                await self.links.close()
        finally:
            self.archive.close()
            self.leasing.close()
            self.renting.close()
            self.market.close()
            self.outbox.close()
            self.replies.close()
            self.keys.close()
            self._journal.close()

    async def _wind_down(self) -> None:
        """No new work; what runs may end; who still waits is told."""
        self.front.closing.set()
        self.pages.closing.set()
        self.job_pages.closing.set()
        self.call_pages.closing.set()
        log.info("stopping", running=self.desk.running)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.grace_s):
                await self.front.idle.wait()
                await self.call_pages.idle.wait()
        self.desk.end_all()
        # The errors leave through tasks that have yet to run.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self.front.idle.wait()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.replies.sweep()
            await asyncio.to_thread(self.archive.sweep)


class _Server(uvicorn.Server):
    """Signals are the gateway's: it says goodbye before the server does."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def _first(event: asyncio.Event, task: asyncio.Task[Any]) -> None:
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _signer(digest: Digest, signature: bytes) -> Address | None:
    try:
        return recover(digest, signature)
    except BadSignature:
        return None


async def run(config: Config) -> None:
    """Run a gateway until it is told to stop."""
    network = load_network(config.network)
    key = load_key(config.key, os.environ.get(PASSWORD))
    async with ChainClient(network) as client:
        await Gateway(config, network, key, client).run()
