"""Unspent credit, paid back on chain: once, whatever dies on the way.

    Withdraw(wish, signature) ──judge──> Save(Payout): the credit is gone ──> Submit(transfer_once) ──Mined──> Save(PaidOut)
                                  │ no: why                                        │ Reverted: again in 10 s
                                                                                   └─ its nonce was used, so deep that
                                                                                      it stays so: it was paid

The transfer's nonce is the withdrawal's own name, so the chain itself refuses to pay it a second time, even if everything
here but the journal is lost and it is submitted anew. Who may have what:

    a wallet's own account     its key alone: whatever the account may still spend
    any other account          the address that put money on it, what is left of that (the oldest is spent first), and
                               with a key of that account, which the front desk looks at

A withdrawal is remembered until its signature has expired, and as long as it is unpaid: repeating it changes nothing.
"""

from collections.abc import Callable

import msgspec

from clusterai.gateway.core.book import Book
from clusterai.gateway.core.errands import Terms
from clusterai.gateway.core.moneystate import KEEP_PAYOUT_S, PaidOut, Payout
from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Submit
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.protocol.withdrawal import Withdrawal

PREFIX = "payout:"
RETRY_S = 10.0
PAID_ALREADY = "ERC3009UsedAuthorization"


class Withdraw(msgspec.Struct, frozen=True):
    """Event: a signed wish to be paid back, from somebody whom the front desk lets ask."""

    wish: Withdrawal
    signature: bytes


class Refusal(msgspec.Struct, frozen=True):
    """Why a withdrawal isn't made."""

    code: str
    detail: str
    retry_after_s: float = 0.0


class Payouts:
    """One gateway's payouts.

    Args:
        hot: whose money pays, and whose key `sign` is.
    """

    def __init__(
        self,
        book: Book,
        hot: Address,
        network: Domain,
        token: Domain,
        sign: Callable[[Digest], bytes],
        recover: Callable[[Digest, bytes], Address | None],
        terms: Terms,
        confirmations: int = 0,
    ) -> None:
        self._book = book
        self._hot = hot
        self._network = network
        self._token = token
        self._sign = sign
        self._recover = recover
        self._terms = terms
        self._confirmations = confirmations
        self._pending: dict[Digest, float] = {}
        """given to the chain, or to be tried again after that time"""
        self._used: dict[Digest, int] = {}
        """at which block its nonce was found used"""
        self.trouble: dict[Digest, str] = {}
        """why the chain didn't take it the last time"""

    def judge(self, wish: Withdrawal, signature: bytes, chain_s: float) -> Payout | Refusal:
        """What is to be paid; the same again for one that was asked before.

        Args:
            chain_s: the chain's time.
        """
        name = wish.name(self._network)
        source = self._recover(name, signature)
        if source is None:
            return Refusal("bad_signature", "the signature isn't one of this withdrawal's typed data")
        known = self._book.payouts.get(name)
        if known is not None:
            right = source == known.source
            return known if right else Refusal("bad_signature", "somebody else's signature")
        if wish.gateway != self._book.gateway:
            return Refusal("wrong_gateway", f"this gateway is {hex0x(self._book.gateway)}")
        # What was forgotten is always expired: the journal's time never goes back, and decides with the clock.
        now_s = max(chain_s, self._book.timestamp_s)
        if not now_s < wish.expires_s <= now_s + KEEP_PAYOUT_S:
            return Refusal(
                "expired", f"expires_s is to be up to {KEEP_PAYOUT_S} s after {int(now_s)}, the chain's time"
            )
        return self._granted(wish, name, source, int(now_s))

    def _granted(self, wish: Withdrawal, name: Digest, source: Address, now_s: int) -> Payout | Refusal:
        account = Digest(wish.account)
        since_s = now_s - KEEP_PAYOUT_S
        kept = self._book.payouts.values()
        lately = [it.asked_s for it in kept if it.account == account and it.asked_s > since_s]
        most = self._terms.payouts_an_hour
        if len(lately) >= most:
            wait_s = sorted(lately)[-most] - since_s
            return Refusal("too_many", f"{most} withdrawals of an account an hour", float(wait_s))
        free_wei = self._book.withdrawable_wei(account, source)
        amount_wei = min(free_wei, wish.most_wei)
        least_wei = max(1, self._terms.least_payout_wei)
        if amount_wei < least_wei:
            return Refusal(
                "too_little",
                f"{hex0x(source)} may withdraw {free_wei} wei of this account; the least is {least_wei} wei",
            )
        return Payout(name, account, source, wish.to, amount_wei, now_s, self._hot)

    def due(self, now_s: float) -> list[Submit]:
        """Transfers to give to the chain now; those that a crash left are given again."""
        found: list[Submit] = []
        for name, it in self._book.unpaid.items():
            # Only the key that it was promised from: another key's transfer would be a second one.
            if it.payer == self._hot and now_s >= self._pending.get(name, 0.0):
                self._pending[name] = float("inf")
                to = Address(it.to)
                call = calls.transfer_once(self._hot, to, it.amount_wei, name, self._sign, self._token)
                found.append(Submit(PREFIX + name.hex(), call))
        return found

    def mined(self, key: str, transaction: Digest) -> PaidOut | None:
        """The record of a payout that the chain carried out; None where it is known."""
        return self._paid(_name(key), transaction)

    def reverted(self, key: str, reason: str, now_s: float, head: int) -> PaidOut | None:
        """The same, if the chain refused because it had carried it out before; else it is tried again.

        Args:
            head: the newest block that was read.
        """
        name = _name(key)
        self._pending[name] = now_s + RETRY_S
        self.trouble[name] = reason
        if reason != PAID_ALREADY:
            self._used.pop(name, None)
            return None
        # The block that used it may still be undone, and the transfer with it.
        since = self._used.setdefault(name, head)
        return self._paid(name, None) if head >= since + self._confirmations else None

    def _paid(self, name: Digest, transaction: Digest | None) -> PaidOut | None:
        for kept in (self._pending, self._used, self.trouble):
            kept.pop(name, None)
        return PaidOut(name, transaction) if name in self._book.unpaid else None


def _name(key: str) -> Digest:
    return Digest(bytes.fromhex(key.removeprefix(PREFIX)))
