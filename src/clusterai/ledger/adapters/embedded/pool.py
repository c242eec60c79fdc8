"""Transactions that wait: all that arrived while the last group was made durable become the next block.

A transaction whose predecessor is still on its way (its nonce is ahead) is held for a second instead of being
refused, because clients that send several at once can't promise their order. Nothing held is acknowledged.
"""

import asyncio
from collections.abc import Callable

from clusterai.ledger.adapters.embedded.chain import Chain, NonceTooHigh, Rejection
from clusterai.ledger.adapters.embedded.transactions import Transaction
from clusterai.protocol.ids import Address

MAX_HELD = 4096
MAX_HELD_OF_ONE = 256
MAX_AHEAD = 1024
HOLD_S = 1.0

Waiter = "asyncio.Future[Rejection | None]"


class Pool:
    def __init__(self, chain: Chain, failed: Callable[[BaseException], None]) -> None:
        """`failed` hears of a block that couldn't be made durable; the process must then end, because the state
        in memory is ahead of the one on disk."""
        self._chain = chain
        self._failed = failed
        self._incoming: list[tuple[Transaction, asyncio.Future[Rejection | None]]] = []
        self._held: dict[Address, dict[int, tuple[Transaction, asyncio.Future[Rejection | None]]]] = {}
        self._count = 0
        self._scheduled = False

    def submit(self, transaction: Transaction) -> asyncio.Future[Rejection | None]:
        """Resolves to None once the transaction is durable in a block, or to why it was refused."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Rejection | None] = loop.create_future()
        self._incoming.append((transaction, done))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self.mine)
        return done

    def mine(self) -> None:
        """One group: everything that waits now, and what that sets free."""
        self._scheduled = False
        group, self._incoming = self._incoming, []
        ready = self._in_order(group)
        if not ready:
            return
        try:
            results = self._chain.mine([transaction for transaction, _ in ready])
        except BaseException as error:
            self._failed(error)
            return
        for (_, done), result in zip(ready, results, strict=True):
            if not done.done():
                done.set_result(result)

    def _in_order(
        self, group: list[tuple[Transaction, asyncio.Future[Rejection | None]]]
    ) -> list[tuple[Transaction, asyncio.Future[Rejection | None]]]:
        """Those that can be executed now, each behind its predecessor; the rest are held or refused."""
        ready: list[tuple[Transaction, asyncio.Future[Rejection | None]]] = []
        expected: dict[Address, int] = {}
        for transaction, done in group:
            sender = transaction.sender
            want = expected.setdefault(sender, self._chain.nonce(sender))
            if transaction.nonce > want:
                self._hold(transaction, done, want)
                continue
            ready.append((transaction, done))
            if transaction.nonce == want:
                expected[sender] = want + 1
                self._release(sender, expected, ready)
        return ready

    def _release(
        self,
        sender: Address,
        expected: dict[Address, int],
        ready: list[tuple[Transaction, asyncio.Future[Rejection | None]]],
    ) -> None:
        held = self._held.get(sender)
        while held and (following := held.pop(expected[sender], None)) is not None:
            self._count -= 1
            expected[sender] += 1
            ready.append(following)
        if not held:
            self._held.pop(sender, None)

    def _hold(self, transaction: Transaction, done: asyncio.Future[Rejection | None], want: int) -> None:
        held = self._held.setdefault(transaction.sender, {})
        nonce = transaction.nonce
        full = self._count >= MAX_HELD or len(held) >= MAX_HELD_OF_ONE or nonce - want > MAX_AHEAD
        if full or nonce in held:
            done.set_result(_too_high(want, nonce))
            if not held:
                del self._held[transaction.sender]
            return
        held[nonce] = (transaction, done)
        self._count += 1
        asyncio.get_running_loop().call_later(HOLD_S, self._expire, transaction, done)

    def _expire(self, transaction: Transaction, done: asyncio.Future[Rejection | None]) -> None:
        held = self._held.get(transaction.sender, {})
        waiting = held.get(transaction.nonce)
        if waiting is None or waiting[1] is not done:
            return
        del held[transaction.nonce]
        if not held:
            del self._held[transaction.sender]
        self._count -= 1
        if not done.done():
            done.set_result(_too_high(self._chain.nonce(transaction.sender), transaction.nonce))


def _too_high(want: int, have: int) -> NonceTooHigh:
    return NonceTooHigh(f"nonce too high: next nonce {want}, tx nonce {have}; send those before it first")
