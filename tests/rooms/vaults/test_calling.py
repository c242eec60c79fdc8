"""Calls between the gateway and providers that don't behave."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from clusterai.gateway.adapters.calls.calling import CallConfig, Calling, Lost, Refused
from clusterai.gateway.core.flow import Full
from clusterai.gateway.core.shelf import Shelf
from clusterai.market.core.routing import Routing
from clusterai.protocol.calls import CallPart, CallRefused, OfferData, ReplyPart
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.statements import network_domain
from clusterai.runtime.machine import Received, Unlinked

NETWORK = network_domain(31415, Address(b"r" * 20))
VAULT, THIEF = Address(b"v" * 20), Address(b"t" * 20)
SUBJECT, ACCOUNT = Digest(b"s" * 32), Digest(b"a" * 32)


class World:
    """A gateway's calls, with one honest vault and one thief linked, both played by the test."""

    def __init__(self, **config: Any) -> None:
        shelf = Shelf(NETWORK, lambda digest, signature: None, dict[Address, Address]().get)
        self.calling = Calling(shelf, Routing(), CallConfig(**config), self.send, self.drained)
        self.sent: list[tuple[Address, Any]] = []
        self.linked = {VAULT, THIEF}
        self.asked = asyncio.Event()
        self.calling.hear(Received(VAULT, OfferData((), (), (SUBJECT,))))

    def send(self, peer: Address, frame: Any) -> bool:
        if peer not in self.linked:
            return False
        self.sent.append((peer, frame))
        self.asked.set()
        return True

    async def drained(self, peer: Address) -> None:
        await asyncio.sleep(0)

    async def call(self, body: bytes = b"question") -> bytes:
        held = self.calling.flow.begin(ACCOUNT, 0.0)
        try:
            held.take(len(body))
            return await self.calling.call(VAULT, SUBJECT, ZERO_ADDRESS, body, held)
        finally:
            held.end()

    async def name(self) -> bytes:
        """Of the call that the vault got."""
        await self.asked.wait()
        return next(it.call for _, it in self.sent if isinstance(it, CallPart))

    def say(self, frame: Any, who: Address = VAULT) -> bool:
        return self.calling.hear(Received(who, frame))


def ends(world: World, does: Callable[[World, bytes], Awaitable[None]]) -> bytes:
    """What a call comes to while somebody does something."""

    async def main() -> bytes:
        asking = asyncio.create_task(world.call())
        await does(world, await world.name())
        return await asking

    return asyncio.run(main())


def made(**config: Any) -> World:
    async def inside() -> World:
        return World(**config)

    return asyncio.run(inside())


def test_nobody_answers_in_anothers_place():
    """A provider that wasn't asked neither answers a call nor refuses it, though it knows the call's name."""

    async def does(world: World, name: bytes) -> None:
        assert world.say(ReplyPart(name, 0, 1, b"lie"), THIEF)
        assert world.say(CallRefused(name, "denied", "no"), THIEF)
        assert world.say(ReplyPart(b"?" * 16, 0, 1, b"lie"))
        world.calling.hear(Unlinked(THIEF))
        world.say(ReplyPart(name, 0, 1, b"truth"))

    world = made()
    assert ends(world, does) == b"truth"
    assert world.calling.running == 0
    assert world.calling.flow.held_bytes == 0


@pytest.mark.parametrize("parts", [[(1, 2)], [(0, 2), (0, 2)], [(0, 2), (1, 3)]])
def test_an_answer_out_of_turn_is_the_vaults_failure(parts: list[tuple[int, int]]):
    """Parts skipped, repeated or renumbered end the call, and the vault hears that nobody waits."""

    async def does(world: World, name: bytes) -> None:
        for part, many in parts:
            world.say(ReplyPart(name, part, many, b"x"))

    world = made()
    with pytest.raises(Refused, match="failed"):
        ends(world, does)
    assert isinstance(world.sent[-1][1], CallRefused)
    assert world.sent[-1][1].code == "gone"


def test_an_answer_that_fills_the_gateway_ends():
    """What is held stops at the bound, and is free when the call is over."""

    async def does(world: World, name: bytes) -> None:
        for at in range(3):
            world.say(ReplyPart(name, at, 1000, bytes(1 << 20)))

    world = made(account_bytes=2 << 20)
    with pytest.raises(Full):
        ends(world, does)
    assert world.calling.flow.held_bytes == 0


def test_a_vault_that_never_answers_is_given_up():
    """At the deadline the call is over for both sides."""

    async def does(world: World, name: bytes) -> None:
        world.say(ReplyPart(name, 0, 2, b"half"))

    world = made(timeout_s=0.05)
    with pytest.raises(TimeoutError):
        ends(world, does)
    assert isinstance(world.sent[-1][1], CallRefused)


def test_a_link_that_ends_ends_its_calls():
    """Before, during and after the parts: the call is lost, and so is what was offered."""

    async def unlinks(world: World, name: bytes) -> None:
        world.say(ReplyPart(name, 0, 2, b"half"))
        world.linked.discard(VAULT)
        world.calling.hear(Unlinked(VAULT))

    world = made()
    with pytest.raises(Lost):
        ends(world, unlinks)
    assert world.calling.answerers(SUBJECT) == []

    async def nobody() -> None:
        await world.call()

    with pytest.raises(Lost):
        asyncio.run(nobody())
