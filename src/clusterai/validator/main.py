"""The validator as a process: machine, journal, links, chain and engines, wired by hand.

    gateways ──TLS── LinkClient ──┐                     ┌── Outbox ── chain
                                  ├── Driver(Auditor) ──┤
    LogFollower ── events ────────┘                     ├── Checker ── Engines
                                                        └── EvidenceStore, log, metrics

It may be killed at any moment: what it signed stands in the journal before it is sent, the chain is read anew from the
contracts' first block, and what is unanswered is asked again. While the chain or all gateways are away it waits.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import structlog
from blake3 import blake3

from clusterai.audit.adapters.sealing import SealKey
from clusterai.audit.core.stretches import Sentinel
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.follower import Cursor, LogFollower
from clusterai.ledger.adapters.network import Network, load_key, load_network
from clusterai.ledger.adapters.outbox import Outbox
from clusterai.ledger.core.calls import Submit
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role, hex0x
from clusterai.protocol.messages import Frame, Ping
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import court_domain, network_domain
from clusterai.runtime.adapters.config import PASSWORD
from clusterai.runtime.adapters.daemon import chores, stop_on_signals
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.runtime.adapters.link import LinkClient
from clusterai.runtime.core.greeting import Identity, Reason
from clusterai.runtime.machine import Linked, Received, Send, Unlinked
from clusterai.validator.adapters.checker import Checker
from clusterai.validator.adapters.engines import Engines
from clusterai.validator.adapters.evidence import EvidenceStore
from clusterai.validator.adapters.jobaudits import JobAudits
from clusterai.validator.adapters.measuring import Measuring
from clusterai.validator.adapters.pages import Meters, Pages
from clusterai.validator.adapters.pulses import PulseBringer
from clusterai.validator.adapters.witness import Witness
from clusterai.validator.config import Config
from clusterai.validator.core.auditor import Auditor
from clusterai.validator.core.measurer import MeasurerSettings
from clusterai.validator.core.settings import Settings
from clusterai.validator.core.words import Check, Checked, CheckFailed, Forget, Keep, Noted
from clusterai.work import KINDS
from clusterai.work.cluster.inside import sentinel

log = structlog.get_logger("validator")

LOUD = frozenset(
    {"accused", "challenged", "disputed_vote", "equivocation", "refused_by_chain", "check_failed"}
)


class Validator:
    """One running validator. `run` is its life."""

    def __init__(self, config: Config, network: Network, key: Key, client: ChainClient) -> None:
        config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.config = config
        self._network = network
        self.owner = config.owner_address()
        contracts = network.contracts
        registry = network_domain(network.chain_id, contracts.registry)
        # Derived, not stored: a provider that knows the key from earlier may seal to it after this folder was lost.
        box = SealKey(blake3(key.secret(), derive_key_context="clusterai validator seal 1").digest())
        settings = Settings(
            me=self.owner,
            seal_to=box.public,
            network=registry,
            court=court_domain(network.chain_id, contracts.court),
            rules=network.rules,
            confirmations=network.confirmations,
            patience_s=config.patience_s,
        )
        self.auditor = Auditor(settings, KINDS, key.sign, recover, box.unseal)
        self.evidence = EvidenceStore(config.data, _secret(config.data / "evidence.key"))
        self.meters = Meters()
        self.journal = SqliteJournal(config.data / "journal.db", config.synchronous)
        self.driver = Driver(self.auditor, self.journal, self._perform)
        self.engines = Engines(config.store(), config.threads, config.cache_mb << 20, self._loading)
        self.checker = Checker(KINDS, self.engines, self._checked)
        self.outbox = Outbox(client, key, config.data / "outbox.db", self._hear)
        self.follower = LogFollower(client, self._chain)
        self.witness = Witness(client, self.driver.handle, every_block=config.every_block)
        self.links = LinkClient(
            config.gateway_urls(),
            Identity(self.owner, Role.VALIDATOR, registry, key.sign),
            self._authorize,
            self._up,
            self._down,
            self._frame,
        )
        self.jobs = JobAudits(
            config.data / "jobs",
            self.owner,
            contracts.audits,
            contracts.disputes,
            registry,
            key.sign,
            blake3(key.secret(), derive_key_context="clusterai validator salt 1").digest(),
            box,
            config.synchronous,
            self.links.send,
            self.outbox.submit,
            ticks=network.rules.beacon is None,
        )
        self.measuring = self._measuring(key, registry) if config.measures else None
        self.relays = httpx.AsyncClient(timeout=5.0)
        self.pulses = PulseBringer(
            self.owner, network.rules, config.drand_relays, self.relays, self.outbox.submit
        )
        self.pages = Pages({"/healthz": self._health, "/status": self._status, "/metrics": self._metrics})
        self.stopping = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._asked_at_s: dict[tuple[Address, int, int], float] = {}
        self._counts: dict[str, int] = {}

    def _hear(self, event: Any) -> None:
        """Leases have an auditor of their own, machines one who measures them, and drand's pulses one who brings them; what
        concerns several, all hear."""
        taken = self.pulses.hear(event) or (self.measuring is not None and self.measuring.hear(event))
        if not taken and not self.jobs.hear(event):
            self.driver.handle(event)

    def _measuring(self, key: Key, registry: Domain) -> Measuring:
        rules = self._network.rules
        word = blake3(key.secret(), derive_key_context="clusterai validator measures 1").digest()
        settings = MeasurerSettings(
            me=self.owner,
            network=registry,
            sign=key.sign,
            recover=recover,
            word=lambda data: Digest(blake3(data, key=word).digest()),
            sentinel=Sentinel(sentinel.first, sentinel.link),
            epoch_s=rules.epoch_s,
            ticks=rules.beacon is None,
            region=self.config.region,
        )
        return Measuring(
            self.config.data / "measuring",
            settings,
            self.config.synchronous,
            self.links.send,
            self.outbox.submit,
        )

    # --- what the machine wants done ---

    def _perform(self, effect: Any) -> None:
        match effect:
            case Send(to, frame):
                # One that isn't linked loses it: the machine asks again.
                self.links.send(to, cast("Frame", frame))
            case Submit():
                self.outbox.submit(effect)
            case Check():
                self._asked_at_s[effect.provider, effect.epoch, effect.index] = time.monotonic()
                self.checker.ask(effect)
            case Keep():
                self.evidence.keep(effect)
            case Forget():
                self.evidence.forget(effect)
            case Noted():
                self._note(effect)
            case _:
                raise AssertionError(f"nobody performs {effect}")

    def _note(self, noted: Noted) -> None:
        self._counts[noted.kind] = self._counts.get(noted.kind, 0) + 1
        self.meters.notes.labels(noted.kind).inc()
        say = log.warning if noted.kind in LOUD else log.info
        about: dict[str, Any] = {"evidence": hex0x(noted.evidence)} if noted.evidence else {}
        if noted.kind == "accused":
            path = self.evidence.accused(noted)
            about |= {"file": str(path)} if path else {}
        say(
            noted.kind,
            provider=hex0x(noted.provider),
            epoch=noted.epoch,
            index=noted.index,
            detail=noted.detail,
            **about,
        )

    def _checked(self, event: Checked | CheckFailed) -> None:
        began_s = self._asked_at_s.pop((event.provider, event.epoch, event.index), None)
        if began_s is not None:
            self.meters.check_seconds.inc(time.monotonic() - began_s)
        if isinstance(event, Checked):
            self.meters.tokens.inc(event.findings.tokens)
            self.meters.mismatches.inc(event.findings.tokens - event.findings.matches)
        self.driver.handle(event)

    def _loading(self, doing: str, part: float) -> None:
        log.info("loading", doing=doing, part=round(part, 2))

    # --- links and chain ---

    def _authorize(self, hot: Address, role: Role) -> Address | Reason:
        """Only gateways answer where we dial; who they are stands on the chain."""
        directory = self.auditor.directory
        owner = directory.owner_of(hot)
        if owner is None:
            return Reason.UNREGISTERED
        return owner if directory.roles(owner) & role else Reason.WRONG_ROLE

    def _up(self, peer: Address, role: Role) -> None:
        log.info("linked", gateway=hex0x(peer))
        self._hear(Linked(peer))

    def _down(self, peer: Address, why: str) -> None:
        log.info("unlinked", gateway=hex0x(peer), why=why)
        self._hear(Unlinked(peer))

    def _frame(self, peer: Address, frame: Frame) -> None:
        if not isinstance(frame, Ping):
            self._hear(Received(peer, frame))

    def _chain(self, happened: Sequence[Any], cursor: Cursor) -> None:
        for event in happened:
            self._hear(event)
        self.witness.told(happened, cursor, caught_up=self.auditor.caught_up)
        if self.auditor.caught_up:
            self._caught_up.set()

    # --- pages ---

    def trouble(self) -> str:
        """Why nothing can be audited now, for people; "" when it can."""
        if self.follower.trouble:
            return f"the chain is away: {self.follower.trouble}"
        if not self.auditor.caught_up:
            return f"reading the chain: {self.follower.behind} blocks behind"
        if not self.links.peers():
            why = "; ".join(status.why for status in self.links.status() if status.why)
            return f"no gateway is linked: {why or 'dialling'}"
        return self.outbox.trouble or self.pulses.trouble

    def _health(self) -> tuple[int, str, bytes]:
        trouble = self.trouble()
        body = msgspec.json.encode({"ready": not trouble, "trouble": trouble})
        return (503 if trouble else 200), "application/json", body

    def _status(self) -> tuple[int, str, bytes]:
        page = {
            "validator": hex0x(self.owner),
            "trouble": self.trouble(),
            "block": self.auditor.directory.block,
            "links": [
                {"gateway": hex0x(it.gateway), "up": it.up, "why": it.why, "round_trip_ms": it.round_trip_ms}
                for it in self.links.status()
            ],
            "counts": self._counts,
            "checks_waiting": self.checker.waiting,
            "open": [
                {
                    "provider": hex0x(docket.commitment.provider),
                    "epoch": docket.commitment.epoch,
                    "receipts": docket.commitment.count,
                    "drawn": None if docket.drawn is None else len(docket.drawn),
                    "opened": docket.receipts is not None,
                    "checked": len(docket.found),
                }
                for docket in self.auditor.open_dockets()
            ],
        }
        return 200, "application/json", msgspec.json.encode(page)

    def _metrics(self) -> tuple[int, str, bytes]:
        self.meters.open_epochs.set(len(self.auditor.open_dockets()))
        self.meters.waiting.set(self.checker.waiting)
        self.meters.links.set(len(self.links.peers()))
        self.meters.behind.set(self.follower.behind)
        return self.meters.page()

    # --- life ---

    async def run(self) -> None:
        """Audit until SIGTERM or SIGINT."""
        stop_on_signals(self.stopping)
        try:
            if self.config.metrics_port:
                await self.pages.start("127.0.0.1", self.config.metrics_port)
            async with chores(
                self.follower.run(),
                self.witness.run(),
                self.outbox.run(),
                self.driver.tick_forever(),
                self.jobs.driver.tick_forever(),
                *([] if self.measuring is None else [self.measuring.driver.tick_forever()]),
                self.checker.run(),
                self.pulses.run(),
                self._link(),
            ):
                self.driver.start()
                log.info("auditing", validator=hex0x(self.owner), gateways=len(self.config.gateways))
                await self.stopping.wait()
                log.info("stopping")
        finally:
            await self.pages.close()
            await self.engines.close()
            await self.jobs.close()
            if self.measuring is not None:
                await self.measuring.close()
            await self.relays.aclose()
            self.outbox.close()
            self.journal.close()

    async def _link(self) -> None:
        """Dial once it is known who is a gateway: a dial before that is refused by ourselves, and waits 5 s."""
        await self._caught_up.wait()
        self.jobs.driver.start()
        if self.measuring is not None:
            self.measuring.driver.start()
        await self.links.run()


def _secret(path: Path) -> bytes:
    """32 bytes of entropy in a file for its owner alone, made when there is none."""
    if not path.exists():
        descriptor = os.open(path.with_name(f".{path.name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        path.with_name(f".{path.name}").replace(path)
    return path.read_bytes()


async def run(config: Config) -> None:
    """Run a validator until it is told to stop."""
    network = load_network(config.network)
    key = load_key(config.key, os.environ.get(PASSWORD))
    async with ChainClient(network) as client:
        await Validator(config, network, key, client).run()
