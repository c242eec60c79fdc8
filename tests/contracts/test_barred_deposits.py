"""A gateway's Meter on the bytecode of the embedded chain: what it deposited for a convict, it gets back."""

from typing import Any

import msgspec
import pytest

from clusterai.gateway.core.errands import Terms
from clusterai.gateway.core.meter import Meter, Party
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.ledger.core.twin import Refused
from clusterai.market.core.directory import Directory
from clusterai.market.core.routing import Routing
from clusterai.protocol import canonical, merkle
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.messages import Announce, ModelOffer
from clusterai.protocol.signing import recover
from clusterai.protocol.statements import EPOCH_LIST, Verdict
from clusterai.runtime.machine import Linked, Received, Save, Started
from tests.contracts.cast import (
    CHANNELS_DOMAIN,
    HOTS,
    NETWORK_DOMAIN,
    OWNERS,
    RULES,
    STRANGER,
    Pair,
    claim_row,
    judged,
    receipts,
)

ANN, GATE = OWNERS["ann"].address, OWNERS["gate"].address
TARGET_WEI = 4_000
FRAUD = 2


class Live:
    """A Meter whose transactions are carried out, and which reads each block."""

    def __init__(self) -> None:
        self.pair = Pair()
        self.journal: list[bytes] = []
        self.meter = self._fresh()
        self.due: list[Submit] = []
        self.pair.populate()
        self.step(Started())
        self.block(
            events.Registered(ANN, 1, ZERO_DIGEST),
            events.Delegated(ANN, HOTS["ann"].address),
        )

    def _fresh(self) -> Meter:
        hot = HOTS["gate"]
        me = Party(
            owner=GATE,
            hot=hot.address,
            token=self.pair.bytecode.plan.addresses.token,
            channels=self.pair.bytecode.plan.addresses.channels,
            network=NETWORK_DOMAIN,
            vouchers=CHANNELS_DOMAIN,
            epoch_s=RULES.epoch_s,
            window_s=RULES.window_s,
            sign=hot.sign,
            recover=recover,
        )
        terms = Terms(channel_target_wei=TARGET_WEI, channel_low_wei=1_000)
        meter = Meter(me, Directory(), Routing(), terms)
        decoder = msgspec.msgpack.Decoder(meter.RECORDS)
        meter.restore(decoder.decode(record) for record in self.journal)
        return meter

    def restart(self) -> None:
        self.meter, self.due = self._fresh(), []
        self.step(Started())

    def step(self, event: Any) -> None:
        for effect in self.meter.step(event, float(self.pair.now_s)):
            if isinstance(effect, Save):
                self.journal.append(canonical.encode(effect.record))
            elif isinstance(effect, Submit):
                self.due.append(effect)

    def block(self, *happened: Any) -> None:
        for event in happened:
            self.step(event)
        self.pair.advance(1)
        self.step(events.Block(self.pair.number, self.pair.now_s))

    def carry_out(self) -> None:
        """All that is due, and what follows from it."""
        while self.due:
            submit = self.due.pop(0)
            outcome = self.pair.do(submit.call, HOTS["gate"])
            if isinstance(outcome, Refused):
                self.step(Reverted(submit.key, outcome.reason))
                self.block()
            else:
                self.step(Mined(submit.key, ZERO_DIGEST, self.pair.number))
                self.block(*outcome)

    def convict(self) -> None:
        """Ann's epoch is found to be fraud."""
        self.pair.advance(RULES.epoch_s)
        epoch = self.pair.now_s // RULES.epoch_s - 1
        leaves = receipts("ann", epoch, 2)
        self.pair.expect(calls.CommitEpoch(epoch, merkle.root(leaves), 2, 1_000), HOTS["ann"])
        config = self.meter.book.by_provider[ANN].config
        signer = HOTS["gate"]
        claimed = self.pair.expect(calls.Claim((claim_row(config, 300, 300, signer),)), HOTS["ann"])
        self.block(*claimed)
        self.pair.advance(RULES.epoch_s)
        self.pair.expect(calls.Tick(), STRANGER)
        verdict = Verdict(ANN, epoch, EPOCH_LIST, ZERO_DIGEST, FRAUD, ZERO_DIGEST)
        for voter in ("val", "vic"):
            voted = self.pair.expect(calls.Vote(verdict, (), judged(verdict, HOTS[voter])), STRANGER)
            self.block(*voted)


@pytest.mark.parametrize("dies", [False, True])
def test_all_that_a_convict_was_not_paid_comes_back(dies: bool) -> None:
    """Claimed and held money is reclaimed, and with the rest of the deposit it is the gateway's again, within the minute; also
    when the gateway is killed after each transaction."""
    live = Live()
    pair = live.pair
    live.step(Linked(ANN))
    live.step(Received(ANN, Announce((ModelOffer(Digest(bytes(32)), "m", 1, 1, 1),), 0, 0, False)))
    live.carry_out()
    channel_id = live.meter.book.by_provider[ANN].channel_id
    assert pair.twin.channels.channel(channel_id).balance == TARGET_WEI
    before_wei = pair.twin.token.balance(GATE)
    live.convict()
    for _ in range(6):
        if dies:
            live.restart()
            live.block()
        if live.due:
            submit = live.due.pop(0)
            outcome = pair.expect(submit.call, HOTS["gate"])
            live.step(Mined(submit.key, ZERO_DIGEST, pair.number))
            live.block(*outcome)
    assert live.due == []
    assert pair.twin.token.balance(GATE) == before_wei + TARGET_WEI
    assert pair.twin.channels.channel(channel_id).balance == 0
    pair.compare()
