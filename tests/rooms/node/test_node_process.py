"""A node as a real process with the tiny engine, on loopback, killed at many moments; its chain is away all the time."""

import asyncio
import signal
import time
from collections.abc import Awaitable
from pathlib import Path

import msgspec

from clusterai.ledger.core.claims import Vouched
from clusterai.work.inference import decode_generation
from clusterai.work.inference.core import tiny
from tests.rooms.node.nodeprocess import STOP_S, Node, made, network
from tests.rooms.node.stubgateway import Gateway, Ordered, prepare


def run(test: Awaitable[None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(120):
            await test

    asyncio.run(within())


def expected(ordered: Ordered) -> tuple[tuple[int, ...], str]:
    """What any honest provider answers."""
    return tiny.answer(tiny.TinyModel(tiny.ADDRESS), decode_generation(ordered.work.request))


def test_a_node_serves_and_is_paid_while_the_chain_is_away(tmp_path: Path) -> None:
    """Orders are answered with the model's own tokens, receipted once, paid, and SIGTERM ends with exit code 0."""

    async def test() -> None:
        async with network(tmp_path) as (gateway, node):
            await gateway.serving()
            orders = [gateway.order(seed=seed, max_tokens=30) for seed in range(10)]
            await gateway.until(lambda: all(ordered.over for ordered in orders))
            for ordered in orders:
                assert ordered.finished is not None, ordered.refused
                assert (tuple(ordered.tokens), ordered.finished.reason) == expected(ordered)
            assert await node.end(signal.SIGTERM) == 0
            assert sorted(made(node)) == sorted(ordered.order for ordered in orders)
            assert not (tmp_path / "data" / "status.json").exists()
            for secret in (b"n" * 32).hex(), repr(b"n" * 32):
                assert secret not in node.logged()

    run(test())


def test_the_chains_clock_goes_on_while_chain_and_node_were_away(tmp_path: Path) -> None:
    """A node that wakes two hours after it last heard of the chain still puts its receipts into the present epoch."""

    async def test() -> None:
        async with network(tmp_path, told_s=int(time.time()) - 7200) as (gateway, _):
            await gateway.serving()
            ordered = gateway.order()
            await gateway.until(lambda: ordered.over)
            assert ordered.finished is not None, ordered.refused

    run(test())


def test_tokens_come_as_they_are_drawn(tmp_path: Path) -> None:
    """The first token of a slow answer is there long before the last."""

    async def test() -> None:
        async with network(tmp_path, pause_ms=30) as (gateway, _):
            await gateway.serving()
            ordered = gateway.order(max_tokens=500)
            await gateway.until(lambda: len(ordered.tokens) > 2)
            assert not ordered.over
            gateway.cancel(ordered)
            await gateway.until(lambda: ordered.over)
            assert tuple(ordered.tokens) == expected(ordered)[0][: len(ordered.tokens)]

    run(test())


def test_cancel_frees_the_slot_and_charges_what_was_sent(tmp_path: Path) -> None:
    """A client that goes away pays for the tokens that were drawn; the next order has the engine to itself."""

    async def test() -> None:
        async with network(tmp_path, pause_ms=30, slots=1) as (gateway, _):
            await gateway.serving()
            first = gateway.order(max_tokens=5_000)
            second = gateway.order(max_tokens=3)
            await gateway.until(lambda: len(first.tokens) > 2)
            gateway.cancel(first)
            await gateway.until(lambda: first.over and second.over)
            assert first.finished is not None
            assert first.finished.reason == "cancelled"
            assert first.finished.receipt.output_units == len(first.tokens) < 1_000
            assert second.finished is not None

    run(test())


def test_a_full_engine_is_busy(tmp_path: Path) -> None:
    """Beyond slots and queue an order is refused with a time to come back; nothing is charged for it."""

    async def test() -> None:
        async with network(tmp_path, pause_ms=20, slots=1, queue=1) as (gateway, _):
            await gateway.serving()
            orders = [gateway.order(max_tokens=5_000) for _ in range(6)]
            await gateway.until(lambda: sum(ordered.over for ordered in orders) == 4)
            refused = [ordered.refused for ordered in orders if ordered.refused]
            assert len(refused) == 4
            assert {(it.code, it.retry_after_ms > 0) for it in refused} == {("busy", True)}

    run(test())


def test_an_answer_goes_on_elsewhere_with_the_same_tokens(tmp_path: Path) -> None:
    """Killed in mid-stream, started again, and asked to resume: the whole is what one run would have drawn."""

    async def test() -> None:
        async with network(tmp_path, pause_ms=20) as (gateway, node):
            await gateway.serving()
            first = gateway.order(max_tokens=400, seed=7)
            await gateway.until(lambda: len(first.tokens) > 10)
            await node.end(signal.SIGKILL)
            await gateway.until(lambda: first.lost)
            node.config.write_bytes(node.config.read_bytes().replace(b'"pause_ms":20', b'"pause_ms":0'))
            await node.start()
            await gateway.serving()
            rest = gateway.order(max_tokens=400, seed=7, so_far=tuple(first.tokens))
            await gateway.until(lambda: rest.over)
            assert (*first.tokens, *rest.tokens) == expected(first)[0]
            assert made(node) == [rest.order]

    run(test())


def test_killed_at_any_moment_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """kill -9, again and again, between frames of a burst: it knows every voucher, has no receipt twice, and each
    receipt on its way is heard of after the restart."""

    async def test() -> None:
        async with network(tmp_path) as (gateway, node):
            for round_, moment in enumerate((0, 1, 5, 14)):
                await gateway.serving()
                before = len(gateway.acknowledged)
                orders = [gateway.order(seed=seed, max_tokens=3 + seed % 20) for seed in range(40)]
                await gateway.until(lambda: len(gateway.acknowledged) >= before + moment)  # noqa: B023  awaited here
                await node.end(signal.SIGKILL)
                await gateway.until(lambda: all(ordered.over for ordered in orders))  # noqa: B023
                assert set(gateway.acknowledged) <= set(made(node)), (
                    f"round {round_}: paid for, and forgotten"
                )
                await node.start()
            await gateway.serving()
            last = gateway.order(max_tokens=4)
            await gateway.until(lambda: last.over)
            # The link keeps order: when the newest is paid, everything before it was heard.
            assert last.finished is not None
            assert await node.end(signal.SIGTERM) == 0
            receipted = made(node)
            assert len(receipted) == len(set(receipted)), "an order was receipted twice"
            assert set(receipted) == set(gateway.acknowledged) | set(gateway.disputed), (
                "nobody heard of a receipt"
            )
            vouchers = [record.amount_wei for record in node.records() if isinstance(record, Vouched)]
            assert max(vouchers) == gateway.vouched_wei

    run(test())


def test_a_gateway_that_restarts_is_served_again(tmp_path: Path) -> None:
    """The node dials until its gateway is back, and pays no heed to how long that took."""

    async def test() -> None:
        async with network(tmp_path) as (gateway, _):
            await gateway.serving()
            port = gateway.server.port
            await gateway.server.close()
            again = Gateway(tmp_path / "gateway", time.time, port)
            await again.server.start()
            try:
                await again.serving()
                ordered = again.order()
                await again.until(lambda: ordered.over)
                assert ordered.finished is not None
            finally:
                await again.server.close()

    run(test())


def test_sigterm_lets_running_answers_end(tmp_path: Path) -> None:
    """New orders are refused at once, the running one is finished and receipted, then the node is gone."""

    async def test() -> None:
        async with network(tmp_path, settings={"grace_s": 100}, pause_ms=20) as (gateway, node):
            await gateway.serving()
            running = gateway.order(max_tokens=150)
            await gateway.until(lambda: len(running.tokens) > 2)
            assert node.process is not None
            node.process.send_signal(signal.SIGTERM)
            await gateway.until(lambda: gateway.offers is not None and gateway.offers.paused)
            late = gateway.order()
            await gateway.until(lambda: late.over and running.over)
            assert late.refused is not None
            assert late.refused.code == "shutting_down"
            assert running.finished is not None
            assert tuple(running.tokens) == expected(running)[0]
            assert await node.end(signal.SIGTERM) == 0

    run(test())


def test_a_configuration_that_cannot_work_says_what_to_change(tmp_path: Path) -> None:
    """A named error on one line and exit code 78, for a supervisor that shouldn't try again."""

    async def test() -> None:
        for what, value in (("model", "no-such-model"), ("key", "nowhere.key")):
            folder = tmp_path / what
            config = prepare(folder, "wss://127.0.0.1:1/", int(time.time()))
            settings = msgspec.json.decode(config.read_bytes())
            if what == "model":
                settings["models"][0]["name"] = value
                settings["models_folder"] = "models"
            else:
                settings[what] = value
            config.write_bytes(msgspec.json.encode(settings))
            node = Node(config)
            await node.start()
            assert node.process is not None
            async with asyncio.timeout(STOP_S):
                assert await node.process.wait() == 78, node.logged()
            assert "error: " in node.logged()
            assert "Traceback" not in node.logged()

    run(test())
