"""Nothing is paid twice, nothing before its window is over, and nothing that no gateway promised.

Counted from `Claimed`, `Settled`, `Barred`, `Reclaimed` and `EpochCommitted` alone; windows are computed here again.
"""

from typing import Any

from clusterai.ledger.core import events
from clusterai.ledger.core.rules import Rules
from clusterai.protocol.ids import Address, Digest
from clusterai.runtime.simulator import Blockchain
from tests.simulation.checkers.blocks import OfBlocks, require


class PaymentsInOrder(OfBlocks):
    """Deposits bound claims, commitments bound claims, the window bounds settlements."""

    def __init__(self, chain: Blockchain, rules: Rules, providers: frozenset[Address]) -> None:
        self._rules = rules
        self._providers = providers
        super().__init__(chain)

    def reset(self) -> None:
        self.deposited: dict[Digest, int] = {}
        self.claimed: dict[Digest, int] = {}
        self.receiver_of: dict[Digest, Address] = {}
        self.claims: dict[Address, list[tuple[int, int]]] = {}
        self.settled: dict[Address, int] = {}
        self.committed: dict[Address, int] = {}
        self.ever_claimed: dict[Address, int] = {}
        self.barred_in: dict[Address, int] = {}
        self.put: dict[Digest, int] = {}
        self.taken_back: dict[Digest, int] = {}

    def event(self, event: Any, timestamp_s: int) -> None:
        window = timestamp_s // self._rules.window_s
        match event:
            case events.Deposited(channel_id, _, receiver, amount, balance):
                deposited = self.deposited[channel_id] = self.deposited.get(channel_id, 0) + amount
                require(balance == deposited, "a channel holds what was deposited", channel_id, balance)
                self.receiver_of[channel_id] = receiver
                self.put[channel_id] = self.put.get(channel_id, 0) + amount
            case events.WithdrawFinalized(channel_id, amount) | events.Refunded(channel_id, amount):
                self.deposited[channel_id] -= amount
                self.taken_back[channel_id] = self.taken_back.get(channel_id, 0) + amount
                self._within_deposit(channel_id)
            case events.EpochCommitted(provider, _, _, _, total):
                self.committed[provider] = self.committed.get(provider, 0) + total
            case events.Claimed(channel_id, receiver, amount, total_claimed, said_window):
                self._claimed(channel_id, receiver, amount, total_claimed)
                require(said_window == window, "a claim is held from its own window on", said_window, window)
                self.claims.setdefault(receiver, []).append((window, amount))
            case events.Settled(receiver, _, _, amount):
                self._settled(receiver, amount, window)
            case events.Barred(receiver):
                self.barred_in[receiver] = window
            case events.Reclaimed(channel_id, amount, total_claimed):
                require(self.receiver_of[channel_id] in self.barred_in, "only the barred lose what they hold")
                was = self.claimed[channel_id]
                require(was - amount == total_claimed >= 0, "what is reclaimed was claimed", was, amount)
                self.claimed[channel_id] = total_claimed
            case _:
                pass

    def _claimed(self, channel_id: Digest, receiver: Address, amount: int, total: int) -> None:
        require(receiver not in self.barred_in, "the barred claim nothing", receiver)
        was = self.claimed.get(channel_id, 0)
        require(
            amount > 0 and total == was + amount, "claims rise and add up", channel_id, was, amount, total
        )
        self.claimed[channel_id] = total
        self._within_deposit(channel_id)
        claimed = self.ever_claimed[receiver] = self.ever_claimed.get(receiver, 0) + amount
        if receiver in self._providers:
            committed = self.committed.get(receiver, 0)
            require(claimed <= committed, "a provider claims what it committed", receiver, claimed, committed)

    def _settled(self, receiver: Address, amount: int, window: int) -> None:
        until = self.barred_in.get(receiver, window)
        matured = sum(wei for claimed_in, wei in self.claims.get(receiver, ()) if claimed_in + 2 <= until)
        settled = self.settled[receiver] = self.settled.get(receiver, 0) + amount
        require(
            settled <= matured,
            "nothing is paid twice or before its window is over",
            receiver,
            settled,
            matured,
        )

    def _within_deposit(self, channel_id: Digest) -> None:
        claimed, deposited = self.claimed.get(channel_id, 0), self.deposited.get(channel_id, 0)
        require(claimed <= deposited, "claims are covered by the deposit", channel_id, claimed, deposited)
