"""The chain, as the Meter reads it: money moves when its block is complete and deep enough, and only once."""

from collections import deque
from typing import Any

from clusterai.gateway.core.book import Book
from clusterai.gateway.core.channels import Channels
from clusterai.gateway.core.moneystate import Applied, MoneyEvent
from clusterai.gateway.core.orders import Orders
from clusterai.gateway.core.party import Party
from clusterai.gateway.core.step import Step
from clusterai.ledger.core import events
from clusterai.market.core.directory import Directory
from clusterai.market.core.routing import Routing

IDLE_BLOCKS = 100
"""Blocks without money after which the place in the chain is saved anyway: a restart reads fewer."""


class Blocks:
    """What happened in blocks that don't count yet; a restart reads it again."""

    def __init__(
        self,
        me: Party,
        book: Book,
        directory: Directory,
        routing: Routing,
        step: Step,
        channels: Channels,
        orders: Orders,
    ) -> None:
        self._me = me
        self._book = book
        self._directory = directory
        self._routing = routing
        self._step = step
        self._channels = channels
        self._orders = orders
        self._batch: list[Any] = []
        self._blocks: deque[events.Block] = deque()
        self._batches: dict[int, tuple[Any, ...]] = {}
        """money events of blocks that aren't deep enough yet"""

    def read(self, event: Any) -> None:
        """Chain events, in the chain's order; money moves when their block is complete, and only once."""
        self._directory.apply(event)
        match event:
            case events.Block():
                self._block(event)
            case events.RolledBack(number):
                self._batch = []
                while self._blocks and self._blocks[-1].number > number:
                    self._batches.pop(self._blocks.pop().number, None)
            case events.EpochCleared(provider):
                self._routing.cleared(provider)
            case _ if self._concerns(event):
                self._batch.append(event)
            case _:
                pass

    def _block(self, head: events.Block) -> None:
        """Close a block, and let the money of those count that are deep enough by now."""
        self._step.head(head.timestamp_s)
        batch, self._batch = tuple(self._batch), []
        if head.number > self._book.block:
            self._blocks.append(head)
            if batch:
                self._batches[head.number] = batch
        while self._blocks and self._blocks[0].number + self._me.confirmations <= head.number:
            block = self._blocks.popleft()
            self._channels.caught_up = True
            happened = self._batches.pop(block.number, ())
            if happened or block.number >= self._book.block + IDLE_BLOCKS:
                self._step.save(Applied(block.number, block.timestamp_s, happened))
                self._after(happened)
            self._channels.close_unheld(block.timestamp_s)
        if self._channels.caught_up:
            self._channels.take_back()
        self._channels.fund()

    def _concerns(self, event: Any) -> bool:
        match event:
            case events.Funded(gateway):
                return gateway == self._me.owner
            case events.Transferred(_, to):
                return to == self._me.till
            case (
                events.Deposited(channel_id)
                | events.Claimed(channel_id)
                | events.Reclaimed(channel_id)
                | events.WithdrawInitiated(channel_id)
                | events.WithdrawFinalized(channel_id)
                | events.Refunded(channel_id)
            ):
                return channel_id in self._book.channels
            case events.Settled(receiver) | events.Barred(receiver):
                return receiver in self._book.by_provider
            case _:
                return False

    def _after(self, batch: tuple[MoneyEvent, ...]) -> None:
        """What the chain's news asks of us."""
        for event in batch:
            match event:
                case events.Deposited():
                    self._channels.deposited(event)
                    self._orders.place_waiting()
                case events.WithdrawFinalized():
                    self._channels.withdrawn(event)
                case events.Barred(receiver):
                    self._orders.barred(receiver)
                    self._channels.take_back()
                case _:
                    pass
