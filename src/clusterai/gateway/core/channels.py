"""Our payment channels on chain: opened, filled up, and taken back from those who are barred.

    Announce ──> Save(ChannelOpened) ──> Submit(Approve), Submit(Deposit) ──Deposited──> OpenChannel, newest voucher
                                                       └──── low headroom <──── charges
    Barred ──> Submit(Reclaim) ──Reclaimed, or nothing held──> closed ──> InitiateWithdraw ──> FinalizeWithdraw

Each step follows from what the book says, which follows from what the chain showed: so a crash, a reverted transaction or
one that was lost is made up for by asking once more, under the same name.
"""

from clusterai.gateway.core.book import Book
from clusterai.gateway.core.errands import Terms
from clusterai.gateway.core.moneystate import Approved, Channel, ChannelOpened, Unclaimed
from clusterai.gateway.core.party import Party
from clusterai.gateway.core.step import Step
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Submit
from clusterai.market.core.directory import Directory
from clusterai.market.core.routing import Routing
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import typed_digest
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.messages import OpenChannel, Pay
from clusterai.protocol.statements import ChannelConfig, Voucher

DEPOSIT_RETRY_S = 10.0
MOST_ALLOWANCE = 2**63 - 1
"""More than all tokens there are; the Channels contract takes only what we deposit."""


class Channels:
    """
    Attributes:
        caught_up: the book reflects the chain; before, a deposit that is mined already would be made again.
    """

    def __init__(
        self, me: Party, terms: Terms, book: Book, directory: Directory, routing: Routing, step: Step
    ) -> None:
        self._me = me
        self._terms = terms
        self._book = book
        self._directory = directory
        self._routing = routing
        self._step = step
        self._vouchers = me.vouchers.separator()
        self._pending: dict[str, float] = {}
        """intents given to the chain, or to be retried after that time"""
        self._unheld: dict[Digest, float] = {}
        """barred channels of which the chain holds nothing, and since when that is known"""
        self.caught_up = False

    def meet(self, provider: Address) -> None:
        """Fix the terms of our channel with a provider that offers something; the deposit follows."""
        if provider in self._book.by_provider or provider not in self._routing.providers:
            return
        if self._directory.barred(provider) or not self._routing.providers[provider].offers:
            return
        salt = canonical.content_digest(b"clusterai channel 1" + self._me.owner + provider)
        self._step.save(
            ChannelOpened(
                ChannelConfig(
                    payer=self._me.owner,
                    payer_authorizer=self._me.hot,
                    receiver=provider,
                    receiver_authorizer=provider,
                    token=self._me.token,
                    withdraw_delay_s=self._terms.withdraw_delay_s,
                    salt=salt,
                )
            )
        )
        self.fund()

    def fund(self) -> None:
        """Deposit where a linked provider's channel runs low; one deposit of a channel at a time."""
        if not self.caught_up:
            return
        for channel in self._book.by_provider.values():
            wanted = channel.provider in self._routing.providers and not channel.barred
            if not wanted or channel.headroom_wei >= self._terms.channel_low_wei:
                continue
            if not self._book.approved:
                self._submit("approve", calls.Approve(self._me.channels, MOST_ALLOWANCE))
                return
            amount_wei = self._terms.channel_target_wei - channel.headroom_wei
            # The count of deposits is in the key: after a crash the same deposit is asked for, not another one.
            key = f"deposit:{channel.channel_id.hex()}:{channel.deposits}"
            self._submit(key, calls.Deposit(channel.config, amount_wei))

    def introduce(self, channel: Channel) -> None:
        """Tell a provider how it is paid, and the newest voucher, in case it missed one."""
        if channel.balance_wei and not channel.barred:
            self._step.send(channel.provider, OpenChannel(channel.config))
            if channel.vouchered_wei:
                self.pay(channel, channel.last_order or ZERO_DIGEST)

    def pay(self, channel: Channel, order: Digest) -> None:
        voucher = Voucher(channel.channel_id, channel.vouchered_wei)
        signature = self._me.sign(typed_digest(self._vouchers, voucher.struct()))
        self._step.send(channel.provider, Pay(order, voucher, signature))

    def take_back(self) -> None:
        """Take back what barred providers hold, then what they never claimed; each step follows from what the chain showed,
        so that a crash, or a transaction that was lost, only repeats it."""
        for channel in self._book.channels.values():
            name = channel.channel_id.hex()
            if channel.barred and not channel.closed:
                self._submit(f"reclaim:{name}", calls.Reclaim(channel.config))
            elif channel.closed and channel.unspent_wei > 0:
                # The balance is in the keys: what is left after one withdrawal is asked for by another.
                if channel.withdrawing:
                    self._submit(
                        f"finalize:{name}:{channel.balance_wei}", calls.FinalizeWithdraw(channel.config)
                    )
                else:
                    call = calls.InitiateWithdraw(channel.config, channel.unspent_wei)
                    self._submit(f"withdraw:{name}:{channel.balance_wei}", call)

    def close_unheld(self, timestamp_s: int) -> None:
        for channel_id, since_s in list(self._unheld.items()):
            if timestamp_s > since_s:
                del self._unheld[channel_id]
                channel = self._book.channels[channel_id]
                if channel.barred and not channel.closed:
                    self._step.save(Unclaimed(channel_id))

    def mined(self, key: str) -> None:
        if key == "approve" and not self._book.approved:
            self._step.save(Approved())
            self._pending.pop(key, None)
            self.fund()

    def reverted(self, key: str) -> None:
        kind, _, rest = key.partition(":")
        if kind == "reclaim":
            channel = self._book.channels[Digest(bytes.fromhex(rest))]
            # Nothing is held: because nothing was claimed, or because an earlier Reclaim is mined and its event is
            # still on its way here. Which of them is only known once a later block has been read.
            self._unheld[channel.channel_id] = self._step.chain_time_s()
        else:
            self._pending[key] = self._step.now_s + DEPOSIT_RETRY_S

    def _submit(self, key: str, call: calls.Call) -> None:
        if self._step.now_s >= self._pending.get(key, 0.0):
            self._pending[key] = float("inf")
            self._step.add(Submit(key, call))

    def deposited(self, event: events.Deposited) -> None:
        channel = self._book.channels[event.channel_id]
        self._pending.pop(f"deposit:{event.channel_id.hex()}:{channel.deposits - 1}", None)
        self.introduce(channel)

    def withdrawn(self, event: events.WithdrawFinalized) -> None:
        balance_wei = self._book.channels[event.channel_id].balance_wei + event.amount
        for step in ("withdraw", "finalize"):
            self._pending.pop(f"{step}:{event.channel_id.hex()}:{balance_wei}", None)
