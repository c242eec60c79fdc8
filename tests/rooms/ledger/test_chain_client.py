"""The chain client on both chains with the real contracts: reads, calls, refusals, events."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction

from clusterai.ledger.adapters.client import ChainClient, OtherChain, Refused
from clusterai.ledger.adapters.follower import Cursor, LogFollower
from clusterai.ledger.adapters.jsonrpc import ChainDown, JsonRpc, Request
from clusterai.ledger.adapters.outbox import NO_FEES, NotDone, Outbox, transact
from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.ledger.core.events import Block, Event, Registered, RolledBack, Transferred
from clusterai.ledger.core.transaction import sign_transaction
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.protocol.signing import Key
from tests.rooms.ledger.conftest import CHAIN_ID, OWNER, World

SOMEBODY = Address(b"\x88" * 20)


class Told:
    """Hears outcomes; waits for a number of them."""

    def __init__(self) -> None:
        self.outcomes: list[Mined | Reverted] = []
        self._changed = asyncio.Event()

    def __call__(self, outcome: Mined | Reverted) -> None:
        self.outcomes.append(outcome)
        self._changed.set()

    async def wait(self, count: int) -> list[Mined | Reverted]:
        async with asyncio.timeout(120):
            while len(self.outcomes) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.outcomes


@contextlib.asynccontextmanager
async def working(
    client: ChainClient, key: Key, told: Callable[[Mined | Reverted], None], path: Path | str = ":memory:"
) -> AsyncGenerator[Outbox]:
    outbox = Outbox(client, key, path, told, poll_s=0.01, resend_s=0.05)
    work = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        outbox.close()


async def followed(client: ChainClient, cursor: Cursor | None = None) -> list[Event]:
    """All events from the cursor to the head."""
    events: list[Event] = []
    follower = LogFollower(client, lambda new, _: events.extend(new), cursor)
    while await follower.step():
        pass
    return events


async def funded(client: ChainClient, seed: int) -> Key:
    """A fresh key with some tokens."""
    key = Key(bytes([0x72, seed]) * 16)
    await transact(client, OWNER, calls.Transfer(key.address, 10**12))
    return key


def test_the_manifests_chain_is_told_from_others(world: World):
    """Chain id and genesis are compared; a chain that was begun anew is noticed."""

    async def run() -> None:
        async with world.client() as client:
            await client.check()
        for change in ({"chain_id": 1}, {"genesis": Digest(b"\x01" * 32)}):
            async with ChainClient(msgspec.structs.replace(world.network, **change)) as other:
                with pytest.raises(OtherChain):
                    await other.check()

    asyncio.run(run())


def test_views_answer_with_values(world: World):
    """Integers, addresses as bytes, tuples; several in one request; reverts by name."""

    async def run() -> None:
        async with world.client() as client:
            supply = world.network.rules.supply_wei
            assert await client.read("Token", "totalSupply") == supply
            assert await client.read("Court", "registry") == world.network.contracts.registry
            assert await client.read("Court", "epochS") == world.network.rules.epoch_s
            many = await client.read_many([("Token", "symbol", ()), ("Token", "decimals", ())])
            assert many[0] == "CLAI"
            with pytest.raises(Refused, match="NotCommitted"):
                await client.read("Court", "beaconOf", OWNER.address, 1)
            assert await client.balance_wei(SOMEBODY) == 0
            assert (await client.head()).number >= 0
            assert await client.block(10**9) is None

    asyncio.run(run())


def test_hand_packed_transactions_are_what_eth_account_makes():
    """Same bytes, same hash, over random fields."""
    random = Random(3)
    for _ in range(50):
        key = Key(random.randbytes(32))
        nonce, gas = random.randrange(2**20), random.randrange(2**24)
        data, value = random.randbytes(random.randrange(200)), random.randrange(2**70)
        to = None if random.random() < 0.3 else Address(random.randbytes(20))
        signed = sign_transaction(key, CHAIN_ID, nonce, to, data, gas, NO_FEES, value)
        fields: dict[str, Any] = {
            "nonce": nonce,
            "gas": gas,
            "data": data,
            "value": value,
            "chainId": CHAIN_ID,
        }
        fields |= {"maxFeePerGas": 0, "maxPriorityFeePerGas": 0, "to": to or b""}
        theirs = Account.sign_transaction(fields, key.secret())
        assert signed.raw == bytes(theirs.raw_transaction)
        assert signed.hash == bytes(theirs.hash)
        assert TypedTransaction.from_bytes(theirs.raw_transaction)


def test_calls_that_need_each_other_go_in_order(world: World):
    """Register, approve and bond are submitted at once and all are mined."""

    async def run() -> None:
        async with world.client() as client:
            key = await funded(client, 1)
            told = Told()
            async with working(client, key, told) as outbox:
                outbox.submit(Submit("register", calls.Register(1, Digest(b"\x01" * 32))))
                outbox.submit(Submit("approve", calls.Approve(world.network.contracts.registry, 500)))
                outbox.submit(Submit("bond", calls.Bond(500)))
                outbox.submit(Submit("bond", calls.Bond(500)))
                outcomes = await told.wait(3)
                assert outbox.on_the_way() == []
            assert [(type(one), one.key) for one in outcomes] == [
                (Mined, "register"),
                (Mined, "approve"),
                (Mined, "bond"),
            ]
            events = await followed(client)
            assert Registered(key.address, 1, Digest(b"\x01" * 32)) in events
            assert Transferred(key.address, world.network.contracts.registry, 500) in events

    asyncio.run(run())


def test_a_refusal_comes_back_by_its_name(world: World):
    """What reverts is told with the custom error's name and takes no nonce."""

    async def run() -> None:
        async with world.client() as client:
            poor = Key(b"\x79" * 32)
            told = Told()
            async with working(client, poor, told) as outbox:
                outbox.submit(Submit("pay", calls.Transfer(SOMEBODY, 1)))
                outbox.submit(Submit("bond", calls.Bond(5)))
                await told.wait(2)
                outbox.submit(Submit("pay", calls.Transfer(SOMEBODY, 0)))
                await told.wait(3)
            assert told.outcomes[0] == Reverted("pay", "ERC20InsufficientBalance")
            assert told.outcomes[1] == Reverted("bond", "NotRegistered")
            assert isinstance(told.outcomes[2], Mined)
            assert await client.nonce(poor.address) == 1
            with pytest.raises(NotDone, match="ERC20InsufficientBalance"):
                await transact(client, poor, calls.Transfer(SOMEBODY, 1))

    asyncio.run(run())


def test_a_call_that_reverts_when_mined_is_named_too(world: World):
    """Two calls of which only one can succeed: both pass the estimate, the second reverts in its block."""

    async def run() -> None:
        async with world.client() as client:
            key = await funded(client, 2)
            told = Told()
            async with working(client, key, told) as outbox:
                for name in ("first", "second"):
                    outbox.submit(Submit(name, calls.Transfer(SOMEBODY, 10**12)))
                await told.wait(2)
            kinds = {outcome.key: outcome for outcome in told.outcomes}
            assert isinstance(kinds["first"], Mined)
            assert kinds["second"] == Reverted("second", "ERC20InsufficientBalance")

    asyncio.run(run())


def test_a_nonce_that_another_took_is_replaced(world: World):
    """The same key sends elsewhere meanwhile; the call is signed anew and mined once."""

    async def run() -> None:
        async with world.client() as client:
            key = await funded(client, 3)
            nonce = await client.nonce(key.address)
            rpc = StealsNonce([world.process.url], key, nonce)
            told = Told()
            async with ChainClient(world.network, rpc) as thief, working(thief, key, told) as outbox:
                outbox.submit(Submit("pay", calls.Transfer(SOMEBODY, 7)))
                outcomes = await told.wait(1)
            assert isinstance(outcomes[0], Mined)
            assert await client.nonce(key.address) == nonce + 2
            paid = [
                event for event in await followed(client) if event == Transferred(key.address, SOMEBODY, 7)
            ]
            assert len(paid) == 1

    asyncio.run(run())


class StealsNonce(JsonRpc):
    """Just before the first sending, somebody else uses the key's next nonce."""

    def __init__(self, urls: list[str], key: Key, nonce: int) -> None:
        super().__init__(urls)
        self._stolen: bytes | None = sign_transaction(
            key, CHAIN_ID, nonce, SOMEBODY, b"", 30_000, NO_FEES
        ).raw

    async def batch(self, requests: Any, raw: int = 0) -> list[Any]:
        if requests and requests[0].method == "eth_sendRawTransaction" and self._stolen:
            stolen, self._stolen = self._stolen, None
            await self.ask("eth_sendRawTransaction", hex0x(stolen))
        return await super().batch(requests, raw)


class Faulty(JsonRpc):
    """Loses requests and answers by chance."""

    def __init__(self, urls: list[str], random: Random, rate: float) -> None:
        super().__init__(urls)
        self._random = random
        self._rate = rate

    async def _post(self, body: bytes) -> bytes:
        if self._random.random() < self._rate:
            raise ChainDown("the request is lost")
        answer = await super()._post(body)
        if self._random.random() < self._rate:
            raise ChainDown("the answer is lost")
        return answer


@pytest.mark.parametrize("seed", range(4))
def test_each_call_is_mined_once_through_faults_and_restarts(world: World, tmp_path: Path, seed: int):
    """Requests and answers get lost, the process dies at any await: in the end each call was mined exactly once."""

    async def run() -> None:
        random = Random(seed)
        async with world.client() as client:
            key = await funded(client, 10 + seed)
            start = await client.nonce(key.address)
            cursor = Cursor((await client.head()).number)
            told = Told()
            amounts = list(range(1, 25))
            submits = [Submit(f"pay:{amount}", calls.Transfer(SOMEBODY, amount)) for amount in amounts]
            async with ChainClient(world.network, Faulty([world.process.url], random, 0.2)) as faulty:
                for life in range(8):
                    outbox = Outbox(
                        faulty, key, tmp_path / "outbox.sqlite", told, poll_s=0.001, resend_s=0.01
                    )
                    # as a machine does: what nobody told it is asked for again after each restart
                    heard = {outcome.key for outcome in told.outcomes}
                    for submit in submits[: 3 * life + 3]:
                        if submit.key not in heard:
                            outbox.submit(submit)
                    work = asyncio.create_task(outbox.run())
                    await asyncio.wait([work], timeout=random.random() * 0.03)
                    work.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await work
                    outbox.close()
            heard = {outcome.key for outcome in told.outcomes}
            async with working(client, key, told, tmp_path / "outbox.sqlite") as outbox:
                for submit in submits:
                    if submit.key not in heard:
                        outbox.submit(submit)
                await told.wait(len(amounts))
            assert sorted(one.key for one in told.outcomes) == sorted(submit.key for submit in submits)
            assert all(isinstance(one, Mined) for one in told.outcomes)
            assert await client.nonce(key.address) == start + len(amounts)
            paid = [
                event.value
                for event in await followed(client, cursor)
                if isinstance(event, Transferred) and event.source == key.address
            ]
            assert sorted(paid) == amounts

    asyncio.run(run())


def test_an_outcome_is_told_again_if_hearing_it_failed(world: World, tmp_path: Path):
    """Who dies while being told is told after the restart; who has returned isn't."""

    async def run() -> None:
        async with world.client() as client:
            key = await funded(client, 4)
            submit = Submit("pay", calls.Transfer(SOMEBODY, 3))

            def dies(outcome: Mined | Reverted) -> None:
                raise RuntimeError(outcome.key)

            outbox = Outbox(client, key, tmp_path / "outbox.sqlite", dies, poll_s=0.01)
            outbox.submit(submit)
            with pytest.raises(RuntimeError, match="pay"):
                await outbox.run()
            outbox.close()
            for expected in (1, 0):
                told = Told()
                async with working(client, key, told, tmp_path / "outbox.sqlite") as again:
                    if expected:
                        again.submit(submit)
                    await told.wait(expected)
                assert len(told.outcomes) == expected
            assert await client.read("Token", "balanceOf", key.address) == 10**12 - 3

    asyncio.run(run())


def test_a_changed_mind_after_a_restart_is_not_told_the_old_outcome(world: World, tmp_path: Path):
    """Who died while hearing and then submits another call under the same key hears of that one alone."""

    async def run() -> None:
        async with world.client() as client:
            key = await funded(client, 7)

            def dies(outcome: Mined | Reverted) -> None:
                raise RuntimeError(outcome.key)

            outbox = Outbox(client, key, tmp_path / "outbox.sqlite", dies, poll_s=0.01)
            outbox.submit(Submit("claim", calls.Transfer(SOMEBODY, 3)))
            with pytest.raises(RuntimeError, match="claim"):
                await outbox.run()
            outbox.close()
            told = Told()
            async with working(client, key, told, tmp_path / "outbox.sqlite") as again:
                again.submit(Submit("claim", calls.Transfer(SOMEBODY, 4)))
                assert again.on_the_way() == ["claim"]
                await told.wait(1)
                again.submit(Submit("next", calls.Transfer(SOMEBODY, 5)))
                await told.wait(2)
            assert [one.key for one in told.outcomes] == ["claim", "next"]
            assert await client.read("Token", "balanceOf", key.address) == 10**12 - 12
            assert await client.nonce(key.address) == 3

    asyncio.run(run())


def test_an_outbox_belongs_to_one_key_and_chain(world: World, tmp_path: Path):
    """Transactions that were signed for another chain or key are never sent by mistake."""

    async def run() -> None:
        async with world.client() as client:
            Outbox(client, OWNER, tmp_path / "outbox.sqlite", Told()).close()
            with pytest.raises(OtherChain):
                Outbox(client, Key(b"\x02" * 32), tmp_path / "outbox.sqlite", Told())

    asyncio.run(run())


def test_a_follower_tells_each_event_once_and_goes_on_from_its_cursor(world: World):
    """Events in order, a Block behind each block's events, nothing twice after a restart."""

    async def run() -> None:
        async with world.client() as client:
            start = Cursor((await client.head()).number)
            seen: list[Event] = []
            cursors: list[Cursor] = [start]

            def deliver(events: Any, cursor: Cursor) -> None:
                seen.extend(events)
                cursors.append(cursor)

            for amount in range(1, 6):
                await transact(client, OWNER, calls.Transfer(SOMEBODY, amount))
                follower = LogFollower(client, deliver, cursors[-1])
                if amount % 2:
                    while await follower.step():
                        pass
            assert [event.value for event in seen if isinstance(event, Transferred)] == [1, 2, 3, 4, 5]
            numbers = [event.number for event in seen if isinstance(event, Block)]
            assert numbers == sorted(set(numbers))
            assert numbers[-1] == (await client.head()).number
            assert isinstance(seen[-1], Block)
            assert not await LogFollower(client, deliver, cursors[-1]).step()

    asyncio.run(run())


def test_a_reorganisation_is_told_back_to_the_common_ancestor(anvil: World):
    """Undone blocks are announced by one RolledBack, then the new ones come."""

    async def run() -> None:
        async with anvil.client() as client:
            await transact(client, OWNER, calls.Transfer(SOMEBODY, 1))
            seen: list[Event] = []
            follower = LogFollower(
                client, lambda events, _: seen.extend(events), Cursor((await client.head()).number - 1)
            )
            await follower.step()
            ancestor = (await client.head()).number
            snapshot = await client.rpc.ask("evm_snapshot")
            for amount in (2, 3):
                await transact(client, OWNER, calls.Transfer(SOMEBODY, amount))
                await follower.step()
            await client.rpc.ask("evm_revert", snapshot)
            await transact(
                client,
                OWNER,
                calls.Transfer(SOMEBODY, 4),
                calls.Transfer(SOMEBODY, 5),
                calls.Transfer(SOMEBODY, 6),
            )
            while await follower.step():
                pass
            kinds = [event for event in seen if not isinstance(event, Block)]
            expected = [Transferred(OWNER.address, SOMEBODY, value) for value in range(1, 7)]
            assert kinds == [*expected[:3], RolledBack(ancestor), *expected[3:]]
            await client.rpc.ask("evm_revert", snapshot)

    asyncio.run(run())


async def until_pending(client: ChainClient) -> None:
    """Until the node's pool holds a transaction; a node has no event to wait for."""
    async with asyncio.timeout(120):
        while (await client.rpc.ask("txpool_status"))["pending"] == "0x0":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_dropped_transaction_is_sent_again(anvil: World):
    """A node that forgets the transaction gets it again."""

    async def run() -> None:
        async with anvil.client() as client:
            key = await funded(client, 5)
            told = Told()
            await client.rpc.ask("evm_setAutomine", False)
            try:
                async with working(client, key, told) as outbox:
                    outbox.submit(Submit("pay", calls.Transfer(SOMEBODY, 9)))
                    await until_pending(client)
                    pool = (await client.rpc.ask("txpool_content"))["pending"]
                    [transaction] = next(iter(pool.values())).values()
                    await client.rpc.ask("anvil_dropTransaction", transaction["hash"])
                    await until_pending(client)
                    await client.rpc.ask("evm_mine")
                    assert isinstance((await told.wait(1))[0], Mined)
            finally:
                await client.rpc.ask("evm_setAutomine", True)

    asyncio.run(run())


def test_a_transaction_that_pays_too_little_is_replaced(anvil: World):
    """Base fees rose meanwhile: the same nonce is signed again for more, and the call is mined once."""

    async def run() -> None:
        async with anvil.client() as client:
            key = await funded(client, 6)
            await client.rpc.ask("anvil_setBalance", hex0x(key.address), hex(10**20))
            nonce = await client.nonce(key.address)
            await client.rpc.ask("evm_setAutomine", False)
            await client.rpc.ask("anvil_setNextBlockBaseFeePerGas", hex(10**9))
            await client.rpc.ask("evm_mine")
            told = Told()
            try:
                async with working(client, key, told) as outbox:
                    outbox.submit(Submit("pay", calls.Transfer(SOMEBODY, 11)))
                    await until_pending(client)
                    await client.rpc.ask("anvil_setNextBlockBaseFeePerGas", hex(5 * 10**9))
                    await client.rpc.ask("evm_mine")
                    async with asyncio.timeout(120):
                        while not told.outcomes:
                            await client.rpc.ask("evm_mine")
                            await asyncio.sleep(0.02)
                    assert isinstance(told.outcomes[0], Mined)
            finally:
                await client.rpc.ask("anvil_setNextBlockBaseFeePerGas", "0x0")
                await client.rpc.ask("evm_mine")
                await client.rpc.ask("evm_setAutomine", True)
            assert await client.nonce(key.address) == nonce + 1

    asyncio.run(run())


def test_a_chain_that_is_away_is_a_named_error():
    """Nobody listens: ChainDown, with the address."""

    async def run() -> None:
        async with JsonRpc(["http://127.0.0.1:9"]) as rpc:
            with pytest.raises(ChainDown, match=r"127\.0\.0\.1:9"):
                await rpc.ask("eth_chainId")
            with pytest.raises(ChainDown):
                await rpc.batch([Request("eth_chainId", ())])

    asyncio.run(run())


def test_the_second_address_serves_where_the_first_is_away(world: World):
    """Several RPC addresses: one that answers is enough."""

    async def run() -> None:
        async with JsonRpc(["http://127.0.0.1:9", world.process.url]) as rpc:
            assert await rpc.ask("eth_chainId") == hex(CHAIN_ID)

    asyncio.run(run())
