"""The lease book dies between any two effects of a history, and nothing acknowledged is lost or done twice."""

from typing import Any

import pytest

from clusterai.ledger.core.calls import CommitEpoch, Mined, Submit
from clusterai.node.core.leases import Produced, Start
from clusterai.protocol import canonical
from clusterai.protocol.messages import Answer, Dispute, Finished, Pay
from clusterai.runtime.machine import Received, Send
from tests.rooms.node.leaseworld import (
    EPOCH_S,
    GATEWAY,
    TX,
    WINDOW_S,
    Crash,
    World,
    find,
    ready,
)


class Gateway:
    """Plays an honest gateway: orders, pays what it ordered and still waits for, disputes the rest."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.open: dict[bytes, Any] = {}
        self.paid: dict[bytes, int] = {}
        self.vouched_wei = 0

    def order(self) -> None:
        work = self.world.work()
        self.open[canonical.digest(work.order)] = work
        self.world.receive(work)

    def lost_link(self) -> None:
        """Orders that weren't receipted go elsewhere."""
        self.open.clear()

    def hear(self, finished: Finished) -> Any:
        order = finished.receipt.order
        if order in self.open:
            del self.open[order]
            self.vouched_wei += finished.receipt.amount_wei
            self.paid[order] = finished.receipt.amount_wei
        if order in self.paid:
            return self.world.pay(finished, self.vouched_wei)
        return Dispute(order, "superseded", "")


class Life:
    """A history in which everything happens; each step says what the world does next."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gateway = Gateway(world)
        self.read = 0
        self.committed: dict[int, CommitEpoch] = {}

    def mail(self) -> None:
        """Answer all that the book has sent, and let the chain take its commitments."""
        while self.read < len(self.world.out):
            effect = self.world.out[self.read]
            self.read += 1
            if isinstance(effect, Send) and isinstance(effect.frame, Finished):
                answer = self.gateway.hear(effect.frame)
                self.world.receive(answer)
            elif isinstance(effect, Start):
                self.world.step(Produced(effect.order, Answer((7, 8), "stop")))
            elif isinstance(effect, Submit) and isinstance(effect.call, CommitEpoch):
                call = effect.call
                known = self.committed.setdefault(call.epoch, call)
                assert known == call, "an epoch was committed with two lists"
                self.world.step(Mined(effect.key, TX, self.world.block + 1))
                if call is known:
                    self.world.commit(effect)

    def live(self) -> None:
        world, gateway = self.world, self.gateway
        for _ in range(2):
            gateway.order()
            self.mail()
        world.tick(EPOCH_S + 2)
        self.mail()
        gateway.order()
        self.mail()
        epoch = min(self.committed)
        world.receive(world.ask(epoch, 0))
        world.mine(world.demanded(epoch, 0))
        world.tick()
        self.mail()
        world.mine(seconds=WINDOW_S)
        world.tick(EPOCH_S)
        self.mail()
        world.mine()
        world.tick()
        self.mail()

    def recover(self) -> None:
        """Restart, and let everything settle."""
        self.gateway.lost_link()
        self.world.restart()
        self.mail()
        for _ in range(3):
            self.world.mine()
            self.world.tick(EPOCH_S + 2)
            self.mail()


def effects_of_a_life() -> int:
    """How many effects happen in a life without a crash."""
    life = Life(ready())
    life.world.crash_after = 10**6
    life.live()
    return 10**6 - life.world.crash_after


@pytest.mark.parametrize("after", range(effects_of_a_life()))
def test_a_crash_between_two_effects_loses_nothing(after: int) -> None:
    """Wherever it dies: no second receipt, no changed list, every voucher kept, every debt settled or disputed."""
    world = ready()
    life = Life(world)
    world.crash_after = after
    with pytest.raises(Crash):
        life.live()
    life.recover()
    world.check()
    assert world.book.claims.vouched_wei(world.channel_id) == life.gateway.vouched_wei
    assert world.book.owed_wei(world.channel_id) == 0
    assert not world.book.running
    unanswered = [made for made in world.book.epochs.made.values() if not made.answered]
    assert unanswered == []


def test_a_voucher_in_flight_at_the_crash_comes_again() -> None:
    """The gateway paid, the process died before it heard: the receipt is sent again, and paid by the same voucher."""
    world = ready()
    life = Life(world)
    life.gateway.order()
    start = world.out[-1]
    assert isinstance(start, Start)
    done = world.step(Produced(start.order, Answer((7,), "stop")))
    finished = find(done, Finished)
    pay = life.gateway.hear(finished)
    assert isinstance(pay, Pay)
    world.restart()
    again = find(world.out[-2:], Finished)
    assert again == finished
    world.step(Received(GATEWAY, life.gateway.hear(again)))
    assert world.book.owed_wei(world.channel_id) == 0
