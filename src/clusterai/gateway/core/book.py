"""The gateway's money: what accounts have, what channels promise, and which charge stands where in which channel.

Everything here changes through records alone, by `Book.apply`, live and after a crash alike. Always true:

    sum over accounts of credit + held + tabbed + charged + withdrawn  ==  sum funded
    sum of charges                                ==  sum over channels of vouchered
    sum over accounts of charged                  ==  sum of charges - sum of refunds - waiting - borne

A charge of a request that has other parts waits until they are over: held of its account, and then the account's, or borne
by the gateway. Its provider is paid at once.

A channel's charges lie end to end, as its cumulative voucher does:

    0 ......... paid for good ......... | ......... held or unclaimed ......... vouchered
                                        final                 forfeited when the provider is barred: refunded

so that a conviction gives back exactly what the chain forfeited, to the accounts whose charges lie there.
"""

from collections.abc import Callable

from clusterai.gateway.core.moneystate import (
    KEEP_PAYOUT_S,
    Account,
    AccountState,
    Applied,
    Approved,
    BorneState,
    Channel,
    ChannelOpened,
    ChannelState,
    Charge,
    Charged,
    ChargeState,
    DepositedState,
    Ended,
    MoneyEvent,
    PaidOut,
    Payout,
    PayoutState,
    Pledged,
    PledgeState,
    Record,
    Refund,
    Unclaimed,
    wallet_account,
)
from clusterai.gateway.core.tabs import TabCharged, TabClosed, TabOpened, Tabs, TabState
from clusterai.ledger.core import events
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import ChannelConfig


class Book:
    """All accounts and channels of one gateway.

    Args:
        channel_id: the id of a channel by its terms (EIP-712, of this network's Channels contract).
        window_s: the audit window; a claim of window k is final when window k + 2 begins.
        till: where wallets pay without an account: a transfer to it is credit of the wallet's own account.
    """

    def __init__(
        self,
        gateway: Address,
        channel_id: Callable[[ChannelConfig], Digest],
        window_s: int,
        till: Address | None = None,
    ) -> None:
        self.gateway = gateway
        self.till = till
        self._channel_id = channel_id
        self._window_s = window_s
        self.accounts: dict[Digest, Account] = {}
        self.channels: dict[Digest, Channel] = {}
        self.by_provider: dict[Address, Channel] = {}
        self.pledged: dict[Digest, int] = {}
        """how far the vouchers of wallets' channels go"""
        self.deposits: dict[Digest, list[tuple[Address, int]]] = {}
        """who put how much on an account by the Credit contract, oldest first, less what they withdrew"""
        self.payouts: dict[Digest, Payout] = {}
        """withdrawals that are remembered"""
        self.unpaid: dict[Digest, Payout] = {}
        self.paid_by: dict[Digest, Digest] = {}
        """payouts to the transactions that paid them"""
        self.paid: dict[Digest, Channel] = {}
        """orders whose charges aren't final, with their channels"""
        self.waiting: dict[Digest, Charge] = {}
        """those whose requests aren't over, by order"""
        self.borne: set[Digest] = set()
        """those among `paid` that the gateway bears"""
        self.borne_wei = 0
        """all that the gateway took upon itself; what convictions gave back of it went to its channels"""
        self.tabs = Tabs()
        self.block = -1
        self.timestamp_s = 0
        self.approved = False

    def account(self, account: Digest) -> Account:
        found = self.accounts.get(account)
        if found is None:
            found = self.accounts[account] = Account()
        return found

    def credit_wei(self, account: Digest) -> int:
        """What an account may still spend, known or not."""
        found = self.accounts.get(account)
        return 0 if found is None else found.credit_wei

    def apply(self, record: Record) -> list[Refund]:
        """Change by one record, live or restored; returns the refunds that it meant."""
        match record:
            case Charged():
                self._charge(record)
            case Ended(billed, borne):
                return self._end(billed, borne)
            case Applied():
                self.block, self.timestamp_s = record.block, record.timestamp_s
                self._forget_payouts()
                return [refund for event in record.happened for refund in self._happened(event)]
            case ChannelOpened(config):
                self._open(config)
            case Approved():
                self.approved = True
            case Pledged(account, channel_id, total_wei):
                rise_wei = total_wei - self.pledged.get(Digest(channel_id), 0)
                assert rise_wei > 0, "the meter saves only what rises"
                self.pledged[Digest(channel_id)] = total_wei
                self.account(Digest(account)).funded_wei += rise_wei
            case PledgeState(channel_id, total_wei):
                self.pledged[Digest(channel_id)] = total_wei
            case Payout():
                self._withdraw(record)
            case PaidOut(name, transaction):
                self._paid_out(Digest(name), transaction)
            case PayoutState(payout, is_paid, transaction):
                self.payouts[Digest(payout.name)] = self.unpaid[Digest(payout.name)] = payout
                if is_paid:
                    self._paid_out(Digest(payout.name), transaction)
            case DepositedState(account, source, amount_wei):
                self._deposit(Digest(account), Address(source), amount_wei)
            case Unclaimed(channel_id):
                channel = self.channels[Digest(channel_id)]
                return self._forfeit(channel, channel.claimed_wei)
            case AccountState():
                self.accounts[Digest(record.account)] = Account(
                    record.funded_wei,
                    record.charged_wei,
                    record.refunded_wei,
                    record.withdrawn_wei,
                    record.tabbed_wei,
                )
            case ChannelState():
                self._restore(record)
            case ChargeState(channel_id, charge, waits, is_borne):
                channel, order = self.channels[Digest(channel_id)], Digest(charge.order)
                channel.charges.append(charge)
                self.paid[order] = channel
                if waits:
                    self._wait(charge)
                if is_borne:
                    self.borne.add(order)
            case BorneState(borne_wei):
                self.borne_wei = borne_wei
            case TabOpened() | TabCharged() | TabClosed() | TabState():
                self.tabs.apply(record, self)
        return []

    def snapshot(self) -> list[Record]:
        """The fewest records that `apply` to this book."""
        records: list[Record] = [
            AccountState(
                account, it.funded_wei, it.charged_wei, it.refunded_wei, it.withdrawn_wei, it.tabbed_wei
            )
            for account, it in self.accounts.items()
        ]
        records.extend(self.tabs.snapshot())
        records.extend(
            DepositedState(account, source, amount_wei)
            for account, deposits in self.deposits.items()
            for source, amount_wei in deposits
        )
        records.extend(
            PayoutState(it, name not in self.unpaid, self.paid_by.get(name))
            for name, it in self.payouts.items()
        )
        records.extend(PledgeState(channel_id, total_wei) for channel_id, total_wei in self.pledged.items())
        if self.approved:
            records.append(Approved())
        for channel_id, channel in self.channels.items():
            records.append(
                ChannelState(
                    channel.config,
                    channel.balance_wei,
                    channel.vouchered_wei,
                    channel.claimed_wei,
                    channel.final_wei,
                    channel.deposits,
                    channel.barred,
                    channel.closed,
                    tuple(channel.maturing),
                    channel.last_order,
                    channel.withdrawing,
                )
            )
            records.extend(
                ChargeState(channel_id, it, Digest(it.order) in self.waiting, Digest(it.order) in self.borne)
                for it in channel.charges
            )
        if self.borne_wei:
            records.append(BorneState(self.borne_wei))
        if self.block >= 0:
            records.append(Applied(self.block, self.timestamp_s, ()))
        return records

    # --- changes ---

    def _open(self, config: ChannelConfig) -> Channel:
        channel = Channel(config, self._channel_id(config))
        self.channels[channel.channel_id] = channel
        self.by_provider[channel.provider] = channel
        return channel

    def _charge(self, record: Charged) -> None:
        channel = self.channels[Digest(record.channel_id)]
        amount_wei = record.receipt.amount_wei
        order = Digest(record.receipt.order)
        assert record.vouchered_wei == channel.vouchered_wei + amount_wei, "vouchers rise by what is charged"
        channel.vouchered_wei = record.vouchered_wei
        channel.last_order = order
        charge = Charge(order, record.account, amount_wei, record.vouchered_wei)
        channel.charges.append(charge)
        self.paid[order] = channel
        if record.waits:
            self._wait(charge)
        else:
            self.account(Digest(record.account)).charged_wei += amount_wei

    def _wait(self, charge: Charge) -> None:
        self.waiting[Digest(charge.order)] = charge
        self.account(Digest(charge.account)).held_wei += charge.amount_wei

    def _end(self, billed: tuple[bytes, ...], borne: tuple[bytes, ...]) -> list[Refund]:
        """What a conviction took meanwhile waits no more, and nobody pays it."""
        refunds: list[Refund] = []
        for order in billed:
            if (charge := self.waiting.pop(Digest(order), None)) is not None:
                account = self.account(Digest(charge.account))
                account.held_wei -= charge.amount_wei
                account.charged_wei += charge.amount_wei
        for order in borne:
            if (charge := self.waiting.pop(Digest(order), None)) is not None:
                self._bear(charge)
                provider = self.paid[Digest(order)].provider
                refunds.append(Refund(Digest(charge.account), provider, Digest(order), charge.amount_wei))
        return refunds

    def _bear(self, charge: Charge) -> None:
        self.account(Digest(charge.account)).held_wei -= charge.amount_wei
        self.borne.add(Digest(charge.order))
        self.borne_wei += charge.amount_wei

    def withdrawable_wei(self, account: Digest, source: Address) -> int:
        """What `source` may have back of an account: all that is left of its own, and of another's what it put there itself.

        The oldest deposits are spent first, so that nobody takes out what others put in after his own was used up.
        """
        if account not in self.accounts:
            return 0
        left_wei = max(0, self.accounts[account].credit_wei)
        if account == wallet_account(source):
            return left_wei
        found_wei = 0
        for who, put_wei in reversed(self.deposits.get(account, [])):
            part_wei = min(put_wei, left_wei)
            left_wei -= part_wei
            if who == source:
                found_wei += part_wei
        return found_wei

    def _deposit(self, account: Digest, source: Address, amount_wei: int) -> None:
        deposits = self.deposits.setdefault(account, [])
        if deposits and deposits[-1][0] == source:
            amount_wei += deposits.pop()[1]
        deposits.append((source, amount_wei))

    def _withdraw(self, payout: Payout) -> None:
        name, source = Digest(payout.name), Address(payout.source)
        account = Digest(payout.account)
        self.payouts[name] = self.unpaid[name] = payout
        self.account(account).withdrawn_wei += payout.amount_wei
        left_wei, kept = payout.amount_wei, list[tuple[Address, int]]()
        for who, put_wei in reversed(self.deposits.get(account, [])):
            taken_wei = min(put_wei, left_wei) if who == source else 0
            left_wei -= taken_wei
            if put_wei > taken_wei:
                kept.append((who, put_wei - taken_wei))
        self.deposits[account] = kept[::-1]

    def _paid_out(self, name: Digest, transaction: bytes | None) -> None:
        self.unpaid.pop(name, None)
        if transaction is not None:
            self.paid_by[name] = Digest(transaction)

    def _forget_payouts(self) -> None:
        """Those that are paid, and whose signature has expired by the journal's own time."""
        until_s = self.timestamp_s - KEEP_PAYOUT_S
        for name in [it for it, payout in self.payouts.items() if payout.asked_s < until_s]:
            if name not in self.unpaid:
                del self.payouts[name]
                self.paid_by.pop(name, None)

    def _happened(self, event: MoneyEvent) -> list[Refund]:
        match event:
            case events.Funded(gateway, account, source, amount) if gateway == self.gateway:
                self.account(account).funded_wei += amount
                self._deposit(account, source, amount)
            case events.Transferred(source, to, value) if to == self.till:
                self.account(wallet_account(source)).funded_wei += value
            case events.Deposited(channel_id, _, _, _, balance) if channel_id in self.channels:
                self.channels[channel_id].balance_wei = balance
                self.channels[channel_id].deposits += 1
            case events.Claimed(channel_id, _, _, total_claimed, window) if channel_id in self.channels:
                channel = self.channels[channel_id]
                channel.claimed_wei = total_claimed
                channel.maturing.append((window, total_claimed))
                self._mature(channel)
            case events.Settled(receiver) if (paid := self.by_provider.get(receiver)) is not None:
                self._mature(paid)
            case events.Barred(receiver) if (barred := self.by_provider.get(receiver)) is not None:
                barred.barred = True
            case events.Reclaimed(channel_id, _, total_claimed) if channel_id in self.channels:
                return self._forfeit(self.channels[channel_id], total_claimed)
            case events.WithdrawInitiated(channel_id) if channel_id in self.channels:
                self.channels[channel_id].withdrawing = True
            case events.WithdrawFinalized(channel_id, amount) if channel_id in self.channels:
                self.channels[channel_id].balance_wei -= amount
                self.channels[channel_id].withdrawing = False
            case events.Refunded(channel_id, amount) if channel_id in self.channels:
                self.channels[channel_id].balance_wei -= amount
            case _:
                pass
        return []

    def _mature(self, channel: Channel) -> None:
        """Forget charges whose claims were held for the whole window before this moment: nothing undoes them now.

        Once barred, the chain decides what was final, not our clock."""
        if channel.barred:
            return
        now = self.timestamp_s // self._window_s
        while channel.maturing and channel.maturing[0][0] + 2 <= now:
            channel.final_wei = max(channel.final_wei, channel.maturing.pop(0)[1])
        kept = 0
        while kept < len(channel.charges) and channel.charges[kept].end_wei <= channel.final_wei:
            order = Digest(channel.charges[kept].order)
            if order in self.waiting:
                break  # it is forgotten once somebody pays it
            self.paid.pop(order, None)
            self.borne.discard(order)
            kept += 1
        del channel.charges[:kept]

    def _forfeit(self, channel: Channel, final_wei: int) -> list[Refund]:
        """Refund every charge's part above `final_wei`, once: the channel takes no more charges."""
        if channel.closed:
            return []
        channel.closed = True
        channel.claimed_wei = channel.final_wei = final_wei
        refunds: list[Refund] = []
        for charge in channel.charges:
            amount_wei = charge.end_wei - max(final_wei, charge.end_wei - charge.amount_wei)
            order = Digest(charge.order)
            if self.waiting.pop(order, None) is not None:
                self._bear(charge)
                refunds.append(Refund(Digest(charge.account), channel.provider, order, charge.amount_wei))
            if amount_wei > 0 and order not in self.borne:
                account = self.account(Digest(charge.account))
                account.charged_wei -= amount_wei
                account.refunded_wei += amount_wei
                refunds.append(Refund(Digest(charge.account), channel.provider, order, amount_wei))
            self.paid.pop(order, None)
            self.borne.discard(order)
        channel.charges.clear()
        channel.maturing.clear()
        return refunds

    def _restore(self, state: ChannelState) -> None:
        channel = self._open(state.config)
        channel.balance_wei, channel.vouchered_wei = state.balance_wei, state.vouchered_wei
        channel.claimed_wei, channel.final_wei = state.claimed_wei, state.final_wei
        channel.deposits, channel.barred, channel.closed = state.deposits, state.barred, state.closed
        channel.maturing = list(state.maturing)
        channel.withdrawing = state.withdrawing
        channel.last_order = None if state.last_order is None else Digest(state.last_order)
