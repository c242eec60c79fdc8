"""A node's vaults: what gateways are told, how calls are answered, and what they can't do."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Mined, Submit
from clusterai.node.adapters import vaulting
from clusterai.node.adapters.engines import Engines
from clusterai.node.adapters.vaulting import MOST_CALLS, Vaulting
from clusterai.node.config import VaultConfig
from clusterai.node.core.leases import Drain, Serving
from clusterai.protocol.calls import CallPart, CallRefused, DataListing, Gathered, OfferData, ReplyPart
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import dataset_id, subject
from clusterai.runtime.machine import Linked, Received, Unlinked
from clusterai.vault.core.terms import Denied
from tests.rooms.vaults import echo
from tests.rooms.vaults.listings import listed

NETWORK = network_domain(31415, Address(b"r" * 20))
OWNER, KEY = Address(b"o" * 20), Key(b"k" * 32)
HERE, THERE = Address(b"h" * 20), Address(b"t" * 20)
SENDER = b"s" * 20
NAME = dataset_id(OWNER, "hearts")
ECHO, ACCESS = subject(NAME, "echo"), subject(NAME, "vault")
COPY = subject(NAME, "copy")
TIMEOUT_S = 120


class Policy(msgspec.Struct):
    milli_epsilon_wei: int = 2
    use_wei: int = 1_000

    def offered_wei(self, kind: str) -> tuple[int, int]:
        return self.milli_epsilon_wei, self.use_wei


class FakeVault:
    """As much of a vault as its host sees."""

    def __init__(self, folder: Path, submit: Callable[[Submit], None]) -> None:
        self.dataset = dataset_id(OWNER, folder.name)
        self.name = folder.name
        self.policy = Policy()
        self.serial = 1
        self.heard: list[Any] = []
        self.ticks = 0
        self.closed = False
        self.edited_badly = False
        self.submit = submit
        submit(Submit("early", calls.Approve(OWNER, 1)))

    def listing(self) -> DataListing:
        if self.edited_badly:
            raise ValueError("the card is too long")
        return listed(KEY, NETWORK, self.name, OWNER, serial=self.serial)

    def tick(self) -> None:
        self.ticks += 1

    def hear(self, event: Any) -> None:
        self.heard.append(event)

    def close(self) -> None:
        self.closed = True


class Denying:
    """A vault's own desk raises the vault's own refusal."""

    engine = None

    async def answer(self, sender: Address, body: bytes) -> bytes:
        raise Denied("revoked", "the grant was revoked")


def host(vault: FakeVault) -> Denying:
    return Denying()


class Links:
    """Gateways, played by the test."""

    def __init__(self) -> None:
        self.linked = [HERE]
        self.sent: list[tuple[Address, Any]] = []
        self.fresh = asyncio.Event()

    def send(self, gateway: Address, frame: Any) -> bool:
        if gateway not in self.linked:
            return False
        self.sent.append((gateway, frame))
        self.fresh.set()
        return True

    async def drained(self, gateway: Address) -> None:
        await asyncio.sleep(0)

    def peers(self) -> list[Address]:
        return self.linked

    async def until(self, true: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                for _, frame in self.sent:
                    if true(frame):
                        return frame
                self.fresh.clear()
                await self.fresh.wait()

    async def answer(self, name: bytes) -> bytes | CallRefused:
        """What came of a call, once it is whole."""

        def is_last(frame: Any) -> bool:
            last = isinstance(frame, ReplyPart) and frame.part == frame.parts - 1
            return (last or isinstance(frame, CallRefused)) and frame.call == name

        last = await self.until(is_last)
        if isinstance(last, CallRefused):
            return last
        gathered, whole = Gathered(), None
        for _, frame in self.sent:
            if isinstance(frame, ReplyPart) and frame.call == name:
                whole = gathered.add(frame.part, frame.parts, frame.body)
        assert whole is not None
        return whole


class World:
    """One node's vaulting, with its links and engines."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **config: Any) -> None:
        monkeypatch.setattr(vaulting, "TICK_S", 0.01)
        self.links = Links()
        self.serving: list[Serving] = []
        self.submitted: list[Submit] = []
        self.vaults: list[FakeVault] = []
        self.engines = Engines((), self.links, self.serving.append, _loads_nothing)
        kinds = {echo.KIND.name: echo.KIND}
        configs = [VaultConfig(folder="/vaults/hearts", **config)]
        self.vaulting = Vaulting(
            configs,
            OWNER,
            KEY,
            NETWORK,
            self.engines,
            self.links,
            lambda: 0.0,
            self.submitted.append,
            kinds,
            self._open,
            __name__,
        )
        self.names = iter(range(1, 10**6))

    def _open(
        self,
        folder: Path,
        owner: Address,
        key: Key,
        domain: Domain,
        clock: Callable[[], float],
        submit: Callable[[Submit], None],
    ) -> FakeVault:
        self.vaults.append(FakeVault(folder, submit))
        return self.vaults[-1]

    def call(self, body: bytes, about: Digest = ECHO, gateway: Address = HERE) -> bytes:
        """A call of one part."""
        name = next(self.names).to_bytes(16)
        self.part(name, 0, 1, body, about, gateway)
        return name

    def part(
        self, name: bytes, part: int, parts: int, body: bytes, about: Digest = ECHO, gateway: Address = HERE
    ) -> None:
        self.vaulting.hear(Received(gateway, CallPart(name, about, SENDER, part, parts, body)))

    async def answered(self, body: bytes) -> bytes:
        """What is said to it in the end: asked again while it is refused, as where the machine was too slow for a short limit."""
        async with asyncio.timeout(TIMEOUT_S):
            while isinstance(found := await self.links.answer(self.call(body)), CallRefused):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return found


def _loads_nothing(config: Any, progress: Any) -> Any:
    raise AssertionError("there are no models")


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch, **config: Any) -> AsyncGenerator[World]:
    world = World(monkeypatch, **config)
    task = asyncio.get_running_loop().create_task(world.vaulting.run())
    try:
        await world.links.until(lambda it: isinstance(it, OfferData) and bool(it.listings))
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        world.vaulting.close()
        assert all(vault.closed for vault in world.vaults)


def test_gateways_hear_of_data_and_subjects(monkeypatch: pytest.MonkeyPatch):
    """At once, when one links, and when a listing changes; orders are offered at the policy's prices."""

    async def run() -> None:
        async with running(monkeypatch) as world:
            (offer,) = world.serving[-1].offers
            assert (offer.model, offer.input_price_wei, offer.output_price_wei) == (ECHO, 2, 1_000)
            world.links.linked.append(THERE)
            world.vaulting.hear(Linked(THERE))
            to, told = world.links.sent[-1]
            assert (to, set(told.subjects)) == (THERE, {ECHO, ACCESS, COPY})
            world.vaults[0].serial = 2
            await world.links.until(
                lambda it: isinstance(it, OfferData) and b'"name"' in it.listings[0].card and it != told
            )
            world.vaults[0].policy = Policy(use_wei=7)
            async with asyncio.timeout(TIMEOUT_S):
                while world.serving[-1].offers[0].output_price_wei != 7:  # noqa: ASYNC110  the fake engines have no events
                    await asyncio.sleep(0)

    asyncio.run(run())


def test_calls_are_answered_by_the_subjects_service(monkeypatch: pytest.MonkeyPatch):
    """Long ones in parts, each by its name, several at once."""

    async def run() -> None:
        async with running(monkeypatch) as world:
            long = bytes(at % 251 for at in range(600_000))
            world.part(b"L" * 16, 0, 2, long[:300_000])
            short = world.call(b"abc")
            world.part(b"L" * 16, 1, 2, long[300_000:])
            assert await world.links.answer(short) == SENDER + b"cba"
            assert await world.links.answer(b"L" * 16) == SENDER + long[::-1]

    asyncio.run(run())


def test_refusals_say_why_and_faults_say_nothing(monkeypatch: pytest.MonkeyPatch):
    """A service's refusal is told as it is; what breaks is told without its words."""

    async def run() -> None:
        async with running(monkeypatch) as world, running(monkeypatch, call_s=0.05) as hasty:
            for body, about, code, words in (
                (b"deny", ECHO, "denied", "ask for one"),
                (b"", ACCESS, "denied", "revoked: the grant"),
                (b"break", ECHO, "failed", "log"),
                (b"x", Digest(bytes(32)), "unknown_subject", "no such vault"),
            ):
                found = await world.links.answer(world.call(body, about))
                assert isinstance(found, CallRefused)
                assert (found.code, words in found.detail) == (code, True)
                assert "secret" not in found.detail
            late = await hasty.links.answer(hasty.call(b"wait"))
            assert isinstance(late, CallRefused)
            assert (late.code, "took longer" in late.detail) == ("too_slow", True)

    asyncio.run(run())


def test_a_gateway_cant_fill_the_node(monkeypatch: pytest.MonkeyPatch):
    """Calls at once, parts out of turn and parts that stop coming: each is bounded, and what it held is free again."""

    async def run() -> None:
        async with running(monkeypatch, calls=2, call_s=0.3) as world:
            waiting = [world.call(b"wait") for _ in range(2)]
            refused = await world.links.answer(world.call(b"x"))
            assert isinstance(refused, CallRefused)
            assert refused.code == "busy"
            for name in waiting:
                await world.links.answer(name)
            assert await world.answered(b"x") == SENDER + b"x"
            world.part(b"A" * 16, 0, 3, b"a")
            world.part(b"A" * 16, 2, 3, b"c")
            malformed = await world.links.answer(b"A" * 16)
            assert isinstance(malformed, CallRefused)
            assert malformed.code == "malformed"
            for at in range(MOST_CALLS):
                world.part(b"B%015d" % at, 0, 2, b"half")
            full = await world.links.answer(world.call(b"x"))
            assert isinstance(full, CallRefused)
            assert full.code == "busy"
            expired = await world.links.answer(b"B%015d" % 0)
            assert isinstance(expired, CallRefused)
            assert expired.code == "too_slow"
            assert await world.answered(b"x") == SENDER + b"x"

    asyncio.run(run())


def test_who_left_is_worked_for_no_longer(monkeypatch: pytest.MonkeyPatch):
    """A call that is given up, and all calls of a gateway whose link ended, are stopped; nobody ends another's."""

    async def run() -> None:
        async with running(monkeypatch, calls=2) as world:
            first, second = world.call(b"wait"), world.call(b"wait")
            world.vaulting.hear(Received(THERE, CallRefused(first, "gone", "")))
            assert isinstance(await world.links.answer(world.call(b"x")), CallRefused)
            world.vaulting.hear(Received(HERE, CallRefused(first, "gone", "")))
            assert await world.answered(b"y") == SENDER + b"y"
            world.vaulting.hear(Unlinked(HERE))
            for _ in range(2):
                assert await world.answered(b"y") == SENDER + b"y"
            assert not any(isinstance(it, ReplyPart) and it.call == second for _, it in world.links.sent)

    asyncio.run(run())


def test_a_node_that_drains_takes_no_more_calls(monkeypatch: pytest.MonkeyPatch):
    """Who asks then is told to ask again."""

    async def run() -> None:
        async with running(monkeypatch) as world:
            world.vaulting.hear(Drain())
            refused = await world.links.answer(world.call(b"x"))
            assert isinstance(refused, CallRefused)
            assert refused.code == "shutting_down"

    asyncio.run(run())


def test_a_vault_that_is_edited_badly_stays_as_it_was(monkeypatch: pytest.MonkeyPatch):
    """What its owner spoils for a moment ends neither the node nor the listing."""

    async def run() -> None:
        async with running(monkeypatch) as world:
            vault = world.vaults[0]
            vault.edited_badly = True
            before = vault.ticks
            async with asyncio.timeout(TIMEOUT_S):
                while vault.ticks < before + 3:  # noqa: ASYNC110  the fake vault has no events
                    await asyncio.sleep(0)
            world.vaulting.hear(Linked(HERE))
            assert world.links.sent[-1][1].listings
            assert await world.links.answer(world.call(b"x")) == SENDER + b"x"

    asyncio.run(run())


def test_a_vaults_calls_to_the_chain_find_back_to_it(monkeypatch: pytest.MonkeyPatch):
    """They bear the vault's name among the node's own, also those that it said while it was opened."""

    async def run() -> None:
        async with running(monkeypatch) as world:
            vault = world.vaults[0]
            vault.submit(Submit("later", calls.Approve(OWNER, 2)))
            async with asyncio.timeout(TIMEOUT_S):
                while len(world.submitted) < 2:  # noqa: ASYNC110  the vault's thread hands it over
                    await asyncio.sleep(0)
            keys = [it.key for it in world.submitted]
            assert [key.rpartition("-")[2] for key in keys] == ["early", "later"]
            assert all(key.startswith(vaulting.OWN_KEYS) for key in keys)
            assert world.vaulting.hear(Mined(keys[1], Digest(bytes(32)), 7))
            assert vault.heard[-1] == Mined("later", Digest(bytes(32)), 7)
            assert not world.vaulting.hear(Mined("lease-1", Digest(bytes(32)), 7))

    asyncio.run(run())
