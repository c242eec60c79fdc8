"""Random histories of one gateway and its provider, crashes included: what holds after every single step."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Claim, CommitEpoch, Mined, Reverted, Submit
from clusterai.node.core.leases import Broke, Produced, Serving, Start, Stop
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import Answer, Cancel, Dispute, Finished, Work
from clusterai.runtime.machine import Linked, Send, Unlinked
from tests.rooms.node.leaseworld import EPOCH_S, GATEWAY, ME, OFFER, TX, ready

CREDIT_WEI = 120


class Histories(RuleBasedStateMachine):
    """Plays gateway, engine and chain by whim; the gateway pays only what it owes, when it likes to."""

    def __init__(self) -> None:
        super().__init__()
        self.world = ready(credit_wei=CREDIT_WEI, queue=6)
        self.works: list[Work] = []
        self.started: dict[Digest, Work] = {}
        self.heard: dict[Digest, Finished] = {}
        self.disputed: set[Digest] = set()
        self.vouched_wei = 0
        self.lists: dict[int, CommitEpoch] = {}
        self.claimed_wei = 0
        self.pending: list[Submit] = []
        self.read = 0

    def mail(self) -> None:
        for effect in self.world.out[self.read :]:
            match effect:
                case Start(order):
                    self.started[order] = next(it for it in self.works if canonical.digest(it.order) == order)
                case Stop(order, False):
                    self.started.pop(order, None)
                case Send(_, Finished() as frame):
                    order = Digest(frame.receipt.order)
                    assert self.heard.setdefault(order, frame).receipt == frame.receipt, (
                        "two receipts of one order"
                    )
                case Submit(_, CommitEpoch() as call):
                    assert self.lists.setdefault(call.epoch, call) == call, "an epoch's list changed"
                    self.pending.append(effect)
                case Submit():
                    self.pending.append(effect)
                case _:
                    pass
        self.read = len(self.world.out)

    # --- the gateway ---

    @rule(prompt=st.integers(1, 5), max_tokens=st.integers(1, 5))
    def order(self, prompt: int, max_tokens: int) -> None:
        self.works.append(self.world.work(prompt=prompt, max_tokens=max_tokens))
        self.world.receive(self.works[-1])
        self.mail()

    @precondition(lambda self: self.works)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        self.world.receive(data.draw(st.sampled_from(self.works)))
        self.mail()

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.world.receive(Cancel(data.draw(st.sampled_from(sorted(self.started)))))
        self.mail()

    @precondition(lambda self: self.heard)
    @rule(data=st.data())
    def pay(self, data: st.DataObject) -> None:
        order = data.draw(st.sampled_from(sorted(self.heard)))
        due = sum(it.receipt.amount_wei for key, it in self.heard.items() if key not in self.disputed)
        self.vouched_wei = data.draw(st.integers(min(self.vouched_wei, due), max(self.vouched_wei, due)))
        if self.vouched_wei:
            self.world.receive(self.world.pay(self.heard[order], self.vouched_wei))
        self.vouched_wei = self.world.book.claims.vouched_wei(self.world.channel_id)
        self.mail()

    @precondition(lambda self: self.heard)
    @rule(data=st.data())
    def dispute(self, data: st.DataObject) -> None:
        order = data.draw(st.sampled_from(sorted(self.heard)))
        made = self.world.book.epochs.made.get(order)
        if made is not None and not made.answered:
            self.disputed.add(order)
        self.world.receive(Dispute(order, "superseded", ""))
        self.mail()

    @rule()
    def relink(self) -> None:
        self.world.step(Unlinked(GATEWAY))
        self.mail()
        self.world.step(Linked(GATEWAY))
        self.mail()

    # --- the engine ---

    @precondition(lambda self: self.started)
    @rule(data=st.data(), tokens=st.integers(0, 5))
    def produce(self, data: st.DataObject, tokens: int) -> None:
        order = data.draw(st.sampled_from(sorted(self.started)))
        most: Any = self.world.book.running.get(order)
        if most is not None:
            tokens = min(tokens, most.value.max_tokens)
        self.world.step(Produced(order, Answer((7,) * tokens, "stop")))
        self.started.pop(order)
        self.mail()

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def break_(self, data: st.DataObject) -> None:
        order = data.draw(st.sampled_from(sorted(self.started)))
        self.world.step(Broke(order, "engine_failed", "it broke"))
        self.started.pop(order)
        self.mail()

    @rule(serving=st.booleans())
    def serve(self, serving: bool) -> None:
        self.world.step(Serving((OFFER,) if serving else ()))
        self.mail()

    # --- the chain and time ---

    @rule(seconds=st.floats(0, 2 * EPOCH_S))
    def wait(self, seconds: float) -> None:
        self.world.tick(seconds)
        self.mail()

    @rule(seconds=st.integers(0, 40))
    def mine(self, seconds: int) -> None:
        self.world.mine(seconds=seconds)
        self.mail()

    @precondition(lambda self: self.pending)
    @rule(well=st.booleans())
    def settle(self, well: bool) -> None:
        submit = self.pending.pop(0)
        call = submit.call
        if not well:
            self.world.step(Reverted(submit.key, "by whim"))
        elif isinstance(call, CommitEpoch):
            self.world.step(Mined(submit.key, TX, self.world.block + 1))
            self.world.commit(submit)
        elif isinstance(call, Claim):
            total = call.claims[0].total_claimed
            window = int(self.world.now_s) // 60
            amount, self.claimed_wei = total - self.claimed_wei, max(self.claimed_wei, total)
            self.world.step(Mined(submit.key, TX, self.world.block + 1))
            if amount > 0:
                self.world.mine(events.Claimed(self.world.channel_id, ME, amount, total, window))
        self.mail()

    @rule()
    def crash(self) -> None:
        """All that isn't journaled is gone; what was on its way to the chain comes to nothing."""
        self.started.clear()
        self.pending.clear()
        self.world.restart()
        self.mail()

    @rule()
    def compact(self) -> None:
        self.world.journal = [canonical.encode(record) for record in self.world.book.snapshot()]

    # --- always ---

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        book = self.world.book
        assert book.claims.vouched_wei(self.world.channel_id) == self.vouched_wei, "a voucher was lost"
        earned = sum(it.receipt.amount_wei for key, it in self.heard.items() if key not in self.disputed)
        assert book.owed_wei(self.world.channel_id) == earned - self.vouched_wei, "the debt is another"

    @invariant()
    def every_receipt_can_be_opened(self) -> None:
        assert all(order in self.world.kept for order in self.world.book.epochs.made)

    @invariant()
    def claims_stay_within_commitments(self) -> None:
        assert self.world.book.claims.claimed_wei <= self.world.book.claims.committed_wei

    @invariant()
    def an_order_is_done_once(self) -> None:
        running = set(self.world.book.running)
        assert not running & set(self.heard), "an order with a receipt runs again"


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
