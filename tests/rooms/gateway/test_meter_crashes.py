"""The Meter under random histories and crashes between any two effects."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterai.gateway.core.errands import Abandon
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Pay, Refused
from clusterai.runtime.machine import Received, Save, Send

World = Any


FIRST_CALL = 100_000
"""Names of requests with several parts begin here."""


class Chaos:
    """Drives a world with one random generator; providers are honest or lie, anything may die."""

    def __init__(self, world: World, seed: int, crashes: bool) -> None:
        self.world = world
        self.draw = random.Random(seed)
        self.crashes = crashes
        self.promised: dict[bytes, int] = {}
        """the greatest voucher that any provider ever saw, by channel"""
        self.work: list[tuple[Any, Any, list[int]]] = []
        self.chain: list[Any] = []
        self.calls = FIRST_CALL
        world.open(funded=100_000)
        self.balances = {it.channel_id: it.balance_wei for it in world.meter.book.channels.values()}
        self.claimed = dict.fromkeys(self.balances, 0)
        self.barred: set[Digest] = set()
        self.asked_back: dict[Digest, int] = {}

    def act(self, event: Any) -> None:
        """One step; with some luck the process dies between two of its effects."""
        world = self.world
        effects = world.meter.step(event, world.now_s)
        dies = self.crashes and self.draw.random() < 0.1
        for effect in effects[: self.draw.randint(0, len(effects)) if dies else len(effects)]:
            match effect:
                case Save(record):
                    world.journal.append(canonical.encode(record))
                case Send(_, Pay(_, voucher, _)):
                    known = self.promised.get(voucher.channel_id, 0)
                    self.promised[voucher.channel_id] = max(known, voucher.amount_wei)
                case Send(to, frame) if hasattr(frame, "request"):
                    provider = next(it for it in world.providers if it.owner == to)
                    self.work.append((provider, frame, []))
                case Submit():
                    self.chain.append(effect)
                case _:
                    pass
        if dies:
            world.crash()
            assert world.meter.book.waiting == {}, "what waited when it died is settled"
            for number in range(2):
                world.link(number)
        world.check()

    def move(self) -> None:
        world, draw = self.world, self.draw
        match draw.choice(
            [
                "ask",
                "ask",
                "call",
                "quit",
                "tokens",
                "tokens",
                "end",
                "end",
                "end",
                "time",
                "link",
                "chain",
                "leave",
                "no",
            ]
        ):
            case "ask":
                world.errands += 1
                self.act(world.asked(world.errands, draw.randint(1, 6)))
            case "call":
                self.calls += 1
                most, parts = draw.randint(1, 6), draw.randint(2, 3)
                rest = (world.asked(0, most).request,) * (parts - 1)
                for part in range(parts):
                    world.errands += 1
                    more: dict[str, Any] = {"call": self.calls, "streamed": draw.random() < 0.5}
                    self.act(world.asked(world.errands, most, rest=() if part else rest, **more))
            case "quit" if self.calls > FIRST_CALL:
                shown = tuple(draw.sample(range(world.errands + 1), min(3, world.errands)))
                call = draw.randint(FIRST_CALL + 1, self.calls)
                self.act(Abandon(call, draw.choice([None, (), shown])))
            case "tokens" if self.work:
                provider, frame, said = draw.choice(self.work)
                fresh = [draw.randint(0, 99) for _ in range(draw.randint(1, 3))]
                self.act(provider.tokens(frame, *fresh, start=len(said)))
                said += fresh
            case "end" if self.work:
                provider, frame, said = self.work.pop(draw.randrange(len(self.work)))
                lies = draw.choice([{}, {}, {}, {"amount_wei": 1}, {"epoch": 3}])
                self.act(provider.finished(frame, *said, **lies))
                if draw.random() < 0.3:
                    self.act(provider.finished(frame, *said, **lies))
            case "no" if self.work:
                provider, frame, _ = self.work.pop(draw.randrange(len(self.work)))
                code = draw.choice(["busy", "engine_failed", "credit", "bad_request"])
                self.act(Received(provider.owner, Refused(canonical.digest(frame.order), code, "", 0)))
            case "time":
                world.wait(draw.choice([0.5, 5]))
            case "link":
                number = draw.randint(0, 1)
                world.unlink(number)
                world.link(number)
            case "leave":
                self.act(Abandon(draw.randint(1, world.errands + 1)))
            case "chain":
                self.mine()
            case _:
                pass

    def mine(self) -> None:
        """A block: what was submitted, perhaps a claim, seldom a conviction."""
        world, draw = self.world, self.draw
        happened: list[Any] = []
        for submit in self.chain:
            match submit.call:
                case calls.Deposit(config, amount):
                    channel_id = config.channel_id(world.meter.me.vouchers)
                    self.balances[channel_id] = self.balances.get(channel_id, 0) + amount
                    happened.append(
                        events.Deposited(
                            channel_id,
                            Address(config.payer),
                            Address(config.receiver),
                            amount,
                            self.balances[channel_id],
                        )
                    )
                case calls.Reclaim(config):
                    channel_id = config.channel_id(world.meter.me.vouchers)
                    held = self.claimed[channel_id] // 2
                    if not held:
                        self.act(Reverted(submit.key, "NothingHeld"))
                        continue
                    self.claimed[channel_id] -= held
                    happened.append(events.Reclaimed(channel_id, held, self.claimed[channel_id]))
                case calls.InitiateWithdraw(config, amount):
                    channel_id = config.channel_id(world.meter.me.vouchers)
                    left = self.balances[channel_id] - self.claimed[channel_id]
                    assert amount == left, "all that nobody claimed is asked back"
                    if channel_id in self.asked_back:
                        self.act(Reverted(submit.key, "WithdrawalPending"))
                        continue
                    self.asked_back[channel_id] = amount
                    happened.append(events.WithdrawInitiated(channel_id, amount, 0))
                case calls.FinalizeWithdraw(config):
                    channel_id = config.channel_id(world.meter.me.vouchers)
                    if channel_id not in self.asked_back:
                        self.act(Reverted(submit.key, "NoWithdrawal"))
                        continue
                    amount = self.asked_back.pop(channel_id)
                    self.balances[channel_id] -= amount
                    happened.append(events.WithdrawFinalized(channel_id, amount))
                case _:
                    pass
            self.act(Mined(submit.key, Digest(bytes(32)), world.block))
        self.chain = []
        for channel_id, channel in list(world.meter.book.channels.items()):
            promised = self.promised.get(channel_id, 0)
            if (
                channel_id not in self.barred
                and promised > self.claimed.get(channel_id, 0)
                and draw.random() < 0.5
            ):
                amount = promised - self.claimed[channel_id]
                self.claimed[channel_id] = promised
                happened.append(
                    events.Claimed(channel_id, channel.provider, amount, promised, int(world.now_s) // 60)
                )
            if channel_id not in self.barred and draw.random() < 0.05:
                self.barred.add(channel_id)
                happened.append(events.Barred(channel.provider))
        world.block += 1
        for event in happened:
            world.meter.step(event, world.now_s)
        self.act(events.Block(world.block, int(world.now_s)))
        if world.meter.book.block < world.block and happened:
            # It died before this block was saved; the follower reads it again.
            for event in happened:
                world.meter.step(event, world.now_s)
            world.block += 1
            self.act_surely(events.Block(world.block, int(world.now_s)))

    def act_surely(self, event: Any) -> None:
        crashes, self.crashes = self.crashes, False
        self.act(event)
        self.crashes = crashes


def _books(meter: Any) -> list[bytes]:
    return [msgspec.msgpack.encode(record) for record in meter.book.snapshot()]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_money_is_conserved_in_any_history(make_world: Callable[[], World], seed: int):
    """Whatever providers, clients, chain and time do, every step leaves the books balanced."""
    chaos = Chaos(make_world(), seed, crashes=False)
    for _ in range(120):
        chaos.move()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_crash_between_any_two_effects_loses_nothing_that_was_said(
    make_world: Callable[[], World], seed: int
):
    """After each crash the books balance, and no provider holds a voucher that isn't covered by a charge."""
    chaos = Chaos(make_world(), seed, crashes=True)
    for _ in range(120):
        chaos.move()
        for channel_id, seen_wei in chaos.promised.items():
            assert seen_wei <= chaos.world.meter.book.channels[Digest(channel_id)].vouchered_wei


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_snapshot_restores_to_the_same_books(make_world: Callable[[], World], seed: int):
    """Compacting the journal changes no account, channel or charge."""
    world = make_world()
    chaos = Chaos(world, seed, crashes=False)
    for _ in range(80):
        chaos.move()
    before = _books(world.meter)
    world.journal = [canonical.encode(record) for record in world.meter.snapshot()]
    assert _books(world.fresh()) == before
