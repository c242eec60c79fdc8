"""The part of a node that holds vaults: opens them, lends their engines, answers their calls, and tells gateways what data there is.

    gateways ── CallPart* ──> Gathered ──> Service.answer ──> ReplyPart*          one service for each kind that is done over vaults
                Work ───────> Engines ───> Service.engine                         (`Kind.hosts`), and one for access
    chain ───── events ─────> vault.hear       once a second: vault.tick ──> OfferData, offers, where something changed

What a call says is the service's affair. Here it is bounded: a gateway isn't trusted to send only what somebody asked.
"""

import asyncio
import importlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.node.adapters.engines import Engines, Loaded
from clusterai.node.config import VaultConfig
from clusterai.node.core.leases import Drain
from clusterai.protocol import copies
from clusterai.protocol.calls import (
    MOST_CALL_BYTES,
    MOST_LISTINGS,
    CallPart,
    CallRefused,
    DataListing,
    Gathered,
    OfferData,
    ReplyPart,
    cut,
)
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import ModelOffer
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import subject
from clusterai.runtime.machine import Linked, Received, Unlinked
from clusterai.vault.core.terms import Denied
from clusterai.work.kind import Kind
from clusterai.work.service import Declined, Service

ACCESS = "vault"
"""The subject of asking for access, which is no kind of work; its service is the vault room's own."""
DESK = "clusterai.vault.adapters.access"
COPIES = "clusterai.vault.adapters.copying"
OWN_KEYS = "vault-"
"""What the keys of vaults' own calls to the chain begin with."""
TICK_S = 1.0
MOST_CALLS = 64
"""Of all gateways together, gathered or answered now."""
MOST_BYTES = 256 << 20
"""Of calls that are gathered, all together."""
MOST_DETAIL = 2_000

log: structlog.stdlib.BoundLogger = structlog.get_logger("vaults")


class Prices(Protocol):
    """What of a policy orders are priced by."""

    def offered_wei(self, kind: str) -> tuple[int, int]:
        """Of a thousandth of ε, and of a use."""
        ...


class Vault(Protocol):
    """What of an open vault its host uses."""

    dataset: Digest

    @property
    def name(self) -> str: ...
    @property
    def policy(self) -> Prices: ...
    def listing(self) -> DataListing: ...
    def tick(self) -> None: ...
    def hear(self, event: Any) -> None: ...
    def close(self) -> None: ...


Opens = Callable[[Path, Address, Key, Domain, Callable[[], float], Callable[[Submit], None]], Vault]


class Outlet(Protocol):
    """The links."""

    def send(self, gateway: Address, frame: Any) -> bool: ...
    async def drained(self, gateway: Address) -> None: ...
    def peers(self) -> Iterable[Address]: ...


class Outbound:
    """One vault's way to the chain: its calls bear its name, so that what becomes of them finds back to it."""

    def __init__(self, submit: Callable[[Submit], None]) -> None:
        self._submit = submit
        self._early: list[Submit] = []
        self._prefix = ""

    def name(self, dataset: Digest) -> None:
        """Who it is, known once it is open; what it said while it was opened goes out now."""
        self._prefix = f"{OWN_KEYS}{dataset.hex()[:16]}-"
        early, self._early = self._early, []
        for submit in early:
            self(submit)

    def __call__(self, submit: Submit) -> None:
        if self._prefix:
            self._submit(msgspec.structs.replace(submit, key=self._prefix + submit.key))
        else:
            self._early.append(submit)

    def own(self, told: Mined | Reverted) -> Mined | Reverted | None:
        """The same under the vault's own key; None where it is another's."""
        if not told.key.startswith(self._prefix):
            return None
        return msgspec.structs.replace(told, key=told.key.removeprefix(self._prefix))


class Held:
    """One vault, with its services by subject."""

    def __init__(
        self, vault: Vault, config: VaultConfig, hosts: Mapping[str, str], outbound: Outbound
    ) -> None:
        self.vault = vault
        self.outbound = outbound
        self.config = config
        self.kinds: dict[str, Service] = {}
        self.services: dict[Digest, Service] = {}
        for kind, module in hosts.items():
            service: Service = importlib.import_module(module).host(vault)
            self.kinds[kind] = self.services[subject(vault.dataset, kind)] = service
        self.listing: DataListing | None = None
        self.prices: dict[str, tuple[int, int]] = {}
        self.answering = 0
        self.trouble = ""


class _Call:
    """One call of one gateway."""

    def __init__(self, gateway: Address, held: Held, part: CallPart) -> None:
        self.gateway = gateway
        self.held = held
        self.first = part
        self.gathered = Gathered()
        self.began_s = time.monotonic()
        self.task: asyncio.Task[None] | None = None


class Vaulting:
    """One node's vaults.

    Args:
        kinds: those that may be done over vaults name their host.
        access: module of the service for access; empty for none.
        submit: hands a call to the chain's outbox; called in the event loop's thread.
    """

    def __init__(
        self,
        configs: Iterable[VaultConfig],
        owner: Address,
        key: Key,
        domain: Domain,
        engines: Engines,
        link: Outlet,
        clock: Callable[[], float],
        submit: Callable[[Submit], None],
        kinds: Mapping[str, Kind],
        opens: Opens,
        access: str = DESK,
    ) -> None:
        """
        Raises:
            What `opens` raises: a folder that is no vault, or one of another owner.
        """
        self._engines = engines
        self._link = link
        self._submit = submit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._early: list[Submit] = []
        hosts = {kind.name: kind.hosts for kind in kinds.values() if kind.hosts}
        if access:
            hosts[ACCESS] = access
            hosts[copies.SUBJECT] = COPIES
        self.held: list[Held] = []
        for config in configs:
            outbound = Outbound(self._to_chain)
            vault = opens(Path(config.folder).expanduser(), owner, key, domain, clock, outbound)
            outbound.name(vault.dataset)
            self.held.append(Held(vault, config, hosts, outbound))
        self._by_subject = {name: held for held in self.held for name in held.services}
        self._calls: dict[tuple[Address, bytes], _Call] = {}
        self._draining = False

    # --- life ---

    async def run(self) -> None:
        """Lend, tick and tell, until cancelled."""
        self._loop = asyncio.get_running_loop()
        early, self._early = self._early, []
        for submit in early:
            self._submit(submit)
        try:
            while True:
                changed = [await self._looked_after(held) for held in self.held]
                if any(changed):
                    for gateway in self._link.peers():
                        self._tell(gateway)
                self._expire()
                await asyncio.sleep(TICK_S)
        finally:
            for call in list(self._calls.values()):
                self._forget(call)
            for held in self.held:
                for kind, service in held.kinds.items():
                    if service.engine is not None:
                        self._engines.withdraw(_engine_name(held, kind))
                        await service.engine.close()

    def close(self) -> None:
        for held in self.held:
            held.vault.close()

    async def _looked_after(self, held: Held) -> bool:
        """Its second's work; whether what gateways are told of it changed."""
        # It may decrypt and write all of its data anew, after a revocation.
        try:
            await asyncio.to_thread(held.vault.tick)
            listing = await asyncio.to_thread(held.vault.listing)
        except (ValueError, OSError) as error:
            # Its owner is in the middle of editing, or the disk is full: what was listed stays, and the next second tries again.
            if str(error) != held.trouble:
                held.trouble = str(error)
                log.error("vault_trouble", vault=held.vault.name, why=held.trouble)
            return False
        held.trouble = ""
        policy = held.vault.policy
        prices = {kind: policy.offered_wei(kind) for kind in held.kinds}
        if prices != held.prices:
            held.prices = prices
            self._lend(held)
        changed = listing != held.listing
        held.listing = listing
        return changed

    def _lend(self, held: Held) -> None:
        """Input units are thousandths of ε, an output unit is one use."""
        for kind, service in held.kinds.items():
            if (engine := service.engine) is not None:
                name = _engine_name(held, kind)
                offer = ModelOffer(engine.model, name, *held.prices[kind], held.config.slots)
                self._engines.lend(name, Loaded(engine, offer))

    def _to_chain(self, submit: Submit) -> None:
        """From whatever thread a vault is stepped in."""
        if self._loop is None:
            self._early.append(submit)
        else:
            self._loop.call_soon_threadsafe(self._submit, submit)

    # --- in ---

    def hear(self, event: Any) -> bool:
        """Take an event; whether it was of no concern to anyone else."""
        match event:
            case Received(gateway, CallPart() as part):
                self._part(gateway, part)
            case Received(gateway, CallRefused(name)):
                call = self._calls.get((gateway, name))
                if call is not None:
                    self._forget(call)
            case Received(_, ReplyPart() | OfferData()):
                pass  # these go the other way
            case Mined(key) | Reverted(key) if key.startswith(OWN_KEYS):
                for held in self.held:
                    if (told := held.outbound.own(event)) is not None:
                        held.vault.hear(told)
            case Received():
                return False
            case Linked(gateway):
                self._tell(gateway)
                return False
            case Unlinked(gateway):
                for call in [it for it in self._calls.values() if it.gateway == gateway]:
                    self._forget(call)
                return False
            case Drain():
                self._draining = True
                return False
            case _:
                if type(event).__module__.startswith("clusterai.ledger."):
                    for held in self.held:
                        held.vault.hear(event)
                return False
        return True

    def _tell(self, gateway: Address) -> None:
        listings = [held.listing for held in self.held if held.listing is not None]
        subjects = tuple(self._by_subject)
        for at in range(0, max(1, len(listings)), MOST_LISTINGS):
            self._link.send(gateway, OfferData(tuple(listings[at : at + MOST_LISTINGS]), (), subjects))

    # --- calls ---

    def _part(self, gateway: Address, part: CallPart) -> None:
        call = self._calls.get((gateway, part.call))
        if call is None:
            held = self._by_subject.get(Digest(part.subject))
            if held is None:
                self._refuse(gateway, part.call, "unknown_subject", "no such vault is served here")
            elif self._draining:
                self._refuse(gateway, part.call, "shutting_down", "this provider shuts down: ask again")
            elif len(self._calls) >= MOST_CALLS:
                self._refuse(gateway, part.call, "busy", f"{MOST_CALLS} calls are answered here: ask again")
            elif part.part == 0:
                call = self._calls[gateway, part.call] = _Call(gateway, held, part)
            # Else it is what still came of a call that was refused.
        if call is None or call.task is not None:
            return
        try:
            body = call.gathered.add(part.part, part.parts, part.body)
        except Malformed as error:
            self._end(call, "malformed", str(error))
            return
        if body is not None:
            call.task = asyncio.get_running_loop().create_task(self._answer(call, body))
        elif sum(it.gathered.held_bytes for it in self._calls.values()) > MOST_BYTES:
            self._end(call, "busy", "too much is being sent here at once: ask again")

    async def _answer(self, call: _Call, body: bytes) -> None:
        held, first = call.held, call.first
        if held.answering >= held.config.calls:
            self._end(call, "busy", f"this vault answers {held.answering} calls already: ask again")
            return
        held.answering += 1
        try:
            async with asyncio.timeout(held.config.call_s):
                service = held.services[Digest(first.subject)]
                answer = await service.answer(Address(first.sender), body)
                await self._reply(call, answer)
            self._calls.pop((call.gateway, first.call), None)
        except Declined as error:
            self._end(call, error.code, error.detail)
        except Denied as error:
            self._end(call, "denied", f"{error.code}: {error.detail}")
        except TimeoutError:
            self._end(call, "too_slow", f"it took longer than {held.config.call_s:.0f} s: ask for less")
        except Exception as error:
            # A service's own words may hold what it computed on: the log is the owner's, the answer is not.
            log.exception("call_failed", vault=held.vault.name, error=type(error).__name__)
            self._end(call, "failed", "the vault couldn't answer; its owner's log says why")
        finally:
            held.answering -= 1

    async def _reply(self, call: _Call, answer: bytes) -> None:
        if len(answer) > MOST_CALL_BYTES:
            raise Declined("too_large", f"the answer has {len(answer)} bytes: ask for less at once")
        parts = cut(answer)
        for at, part in enumerate(parts):
            if not self._link.send(call.gateway, ReplyPart(call.first.call, at, len(parts), part)):
                return  # the link is gone, and with it who asked
            await self._link.drained(call.gateway)

    def _end(self, call: _Call, code: str, detail: str) -> None:
        self._calls.pop((call.gateway, call.first.call), None)
        self._refuse(call.gateway, call.first.call, code, detail)

    def _forget(self, call: _Call) -> None:
        self._calls.pop((call.gateway, call.first.call), None)
        if call.task is not None:
            call.task.cancel()

    def _expire(self) -> None:
        """Calls whose parts stopped coming."""
        now_s = time.monotonic()
        for call in list(self._calls.values()):
            if call.task is None and now_s - call.began_s > call.held.config.call_s:
                self._end(call, "too_slow", "its parts stopped coming")

    def _refuse(self, gateway: Address, call: bytes, code: str, detail: str) -> None:
        self._link.send(gateway, CallRefused(call, code, detail[:MOST_DETAIL]))


def _engine_name(held: Held, kind: str) -> str:
    """As people see it among a node's models; an owner's vaults have different names."""
    return f"{held.vault.name}/{kind}"[:128]
