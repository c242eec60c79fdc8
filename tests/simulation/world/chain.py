"""The contracts' Python twins as the ledger of the simulated chain, and the rules that the simulated network plays by."""

from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from clusterai.ledger.core import calls, events
from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.rules import Rules
from clusterai.ledger.core.twin import BlockContext, Refused, TwinChain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.runtime.simulator.blocks import Words
from tests.simulation.world.parties import Key, recover

CHAIN_ID = 31415
DEPLOYER = Key("deployer")

ADDRESSES = Addresses(
    *(Address(blake3(f"contract {name}".encode()).digest(20)) for name in Addresses.__struct_fields__)
)

RULES = Rules(
    epoch_s=15,
    window_s=360,
    unbond_delay_s=720,
    audit_rate_ppm=400_000,
    bounty_bps=5_000,
    answer_s=60,
    challenge_bond_wei=WEI_PER_TOKEN,
)
"""Epochs as on the local network; a longer window and time to answer, so that drawn outages (up to a minute) are ones
that an honest provider is promised to survive."""

WORDS = Words(
    block=events.Block,
    rolled_back=events.RolledBack,
    mined=lambda key, transaction, block: calls.Mined(key, Digest(transaction), block),
    reverted=calls.Reverted,
)


class Chain:
    """`runtime.simulator.Ledger` over `TwinChain`."""

    def __init__(self, seed: int, rules: Rules = RULES) -> None:
        self.twin = TwinChain(CHAIN_ID, ADDRESSES, DEPLOYER.address, rules, recover)
        self._seed = seed
        self._block = BlockContext(0, 0, bytes(32))

    def mark(self) -> int:
        return self.twin.mark()

    def rollback(self, mark: int) -> None:
        self.twin.rollback(mark)

    def open_block(self, number: int, timestamp_s: int) -> None:
        prevrandao = blake3(b"%d %d %d" % (self._seed, number, timestamp_s)).digest()
        self._block = BlockContext(number, timestamp_s, prevrandao)

    def execute(self, sender: Address, call: Any) -> tuple[Sequence[events.Event], str | None]:
        outcome = self.twin.execute(call, sender, self._block)
        if isinstance(outcome, Refused):
            return (), outcome.reason
        return outcome, None
