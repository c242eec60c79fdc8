"""Channels.sol: deposits, cumulative claims held for the audit window, settlement, forfeiture."""

import msgspec

from clusterai.ledger.core.calls import VoucherClaim
from clusterai.ledger.core.events import (
    Barred,
    Claimed,
    Deposited,
    Reclaimed,
    Refunded,
    Settled,
    WithdrawFinalized,
    WithdrawInitiated,
)
from clusterai.ledger.core.twin.registry import PROVIDER, Registry
from clusterai.ledger.core.twin.state import (
    UINT104_MAX,
    Revert,
    Transaction,
    World,
    checked,
    require,
)
from clusterai.ledger.core.twin.token import Token
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import ChannelConfig, Voucher, signing_digest

MIN_WITHDRAW_DELAY_S = 15 * 60
MAX_WITHDRAW_DELAY_S = 30 * 86_400
MAX_BATCH = 500


class Channel(msgspec.Struct, frozen=True):
    balance: int = 0
    total_claimed: int = 0


class Withdrawal(msgspec.Struct, frozen=True):
    amount: int = 0
    initiated_s: int = 0


class Receiver(msgspec.Struct, frozen=True):
    total_claimed: int = 0
    total_settled: int = 0


class Hold(msgspec.Struct, frozen=True):
    """Claims of `window` and of the one before it; older ones have matured."""

    current: int = 0
    previous: int = 0
    window: int = 0

    def rolled(self, window: int) -> "Hold":
        if self.window == window:
            return self
        return Hold(0, self.current if self.window + 1 == window else 0, window)

    def added(self, window: int, amount: int) -> "Hold":
        rolled = self.rolled(window)
        if amount > UINT104_MAX:
            raise Revert("SafeCastOverflowedUintDowncast")
        return Hold(checked(rolled.current + amount, UINT104_MAX), rolled.previous, window)

    def sum(self) -> int:
        return self.current + self.previous


class _Payee(msgspec.Struct):
    """The receiver of neighbouring rows of a batch; its sums are written once."""

    receiver: Address
    token: Address
    owner: Address
    provider: bool
    window: int
    added: int = 0


_NO_CHANNEL = Channel()
_NO_WITHDRAWAL = Withdrawal()
_NO_RECEIVER = Receiver()
_NO_HOLD = Hold()


class Channels:
    def __init__(self, world: World, token: Token, registry: Registry) -> None:
        self._world = world
        self._store = world.store
        self._token = token
        self._registry = registry
        self._here = world.addresses.channels
        self._window_s = world.rules.window_s

    # --- public: deposits ---

    def deposit(self, tx: Transaction, config: ChannelConfig, amount: int) -> None:
        """From the caller's allowance; collectors are Solidity's affair."""
        parties = (config.payer, config.receiver, config.receiver_authorizer, config.token)
        require(ZERO_ADDRESS not in parties, "IncompleteConfig")
        require(
            MIN_WITHDRAW_DELAY_S <= config.withdraw_delay_s <= MAX_WITHDRAW_DELAY_S, "WithdrawDelayOutOfRange"
        )
        require(amount != 0, "ZeroAmount")
        owner, _ = self._owner_of(Address(config.receiver))
        require(self._barred_window(owner) is None, "ReceiverBarred")
        channel_id = self.channel_id(config)
        channel = self.channel(channel_id)
        balance = checked(channel.balance + amount)
        self._store.put(("channel", channel_id), Channel(balance, channel.total_claimed))
        tx.emit(Deposited(channel_id, Address(config.payer), Address(config.receiver), amount, balance))
        self._require_token(Address(config.token))
        self._token.pull(tx, self._here, tx.sender, self._here, amount)

    # --- public: claims ---

    def claim(self, tx: Transaction, claims: tuple[VoucherClaim, ...]) -> None:
        require(0 < len(claims) <= MAX_BATCH, "BatchSizeOutOfRange")
        for row in claims:
            require(self._is_receiver_side(tx.sender, row.config), "NotReceiver")
        payee = _Payee(ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS, False, 0)
        for row in claims:
            receiver, token = Address(row.config.receiver), Address(row.config.token)
            if receiver != payee.receiver or token != payee.token:
                self._credit(payee)
                payee = self._payee(tx, receiver, token)
            payee.added = checked(payee.added + self._claim_row(tx, row, payee.window))
        self._credit(payee)

    def settle(self, tx: Transaction, receiver: Address, token: Address) -> None:
        amount = self.matured(receiver, token, tx.now_s)
        if amount == 0:
            return
        sums = self.receiver(receiver, token)
        self._store.put(
            ("receiver", receiver, token), Receiver(sums.total_claimed, sums.total_settled + amount)
        )
        tx.emit(Settled(receiver, token, tx.sender, amount))
        self._token.move(tx, self._here, receiver, amount)

    # --- public: conviction ---

    def bar(self, tx: Transaction, owner: Address) -> None:
        """By the Court only."""
        if self._barred_window(owner) is not None:
            return
        self._store.put(("barred", owner), tx.now_s // self._window_s)
        tx.emit(Barred(owner))

    def reclaim(self, tx: Transaction, config: ChannelConfig) -> None:
        receiver, token = Address(config.receiver), Address(config.token)
        owner, _ = self._owner_of(receiver)
        window = self._barred_window(owner)
        if window is None:
            raise Revert("NotBarred")
        channel_id = self.channel_id(config)
        own = self.channel_hold(channel_id).rolled(window)
        amount = own.sum()
        require(amount != 0, "NothingHeld")
        total = self.receiver_hold(receiver, token).rolled(window)
        rest = Hold(checked(total.current - own.current), checked(total.previous - own.previous), window)
        self._store.put(("receiver_hold", receiver, token), rest)
        self._store.put(("channel_hold", channel_id), Hold(0, 0, window))
        sums = self.receiver(receiver, token)
        self._store.put(
            ("receiver", receiver, token), Receiver(checked(sums.total_claimed - amount), sums.total_settled)
        )
        channel = self.channel(channel_id)
        claimed = checked(channel.total_claimed - amount)
        self._store.put(("channel", channel_id), Channel(channel.balance, claimed))
        tx.emit(Reclaimed(channel_id, amount, claimed))

    # --- public: the payer takes back ---

    def initiate_withdraw(self, tx: Transaction, config: ChannelConfig, amount: int) -> None:
        require(tx.sender in (config.payer, config.payer_authorizer), "NotPayer")
        require(amount != 0, "ZeroAmount")
        channel_id = self.channel_id(config)
        require(self.withdrawal(channel_id).initiated_s == 0, "WithdrawalPending")
        require(amount <= self._available(channel_id), "ExceedsBalance")
        self._store.put(("withdrawal", channel_id), Withdrawal(amount, tx.now_s))
        tx.emit(WithdrawInitiated(channel_id, amount, tx.now_s + config.withdraw_delay_s))

    def finalize_withdraw(self, tx: Transaction, config: ChannelConfig) -> None:
        require(tx.sender in (config.payer, config.payer_authorizer), "NotPayer")
        channel_id = self.channel_id(config)
        pending = self.withdrawal(channel_id)
        require(pending.initiated_s != 0, "NoWithdrawal")
        if tx.now_s < pending.initiated_s + config.withdraw_delay_s:
            owner, _ = self._owner_of(Address(config.receiver))
            require(self._barred_window(owner) is not None, "WithdrawalNotReady")
        amount = min(pending.amount, self._available(channel_id))
        self._store.put(("withdrawal", channel_id), _NO_WITHDRAWAL)
        self._take(channel_id, amount)
        tx.emit(WithdrawFinalized(channel_id, amount))
        if amount:
            self._token.move(tx, self._here, Address(config.payer), amount)

    def refund(self, tx: Transaction, config: ChannelConfig, amount: int) -> None:
        require(self._is_receiver_side(tx.sender, config), "NotReceiver")
        require(amount != 0, "ZeroAmount")
        channel_id = self.channel_id(config)
        self._store.put(("refunds", channel_id), self.refund_nonce(channel_id) + 1)
        amount = min(amount, self._available(channel_id))
        if amount == 0:
            return
        self._take(channel_id, amount)
        pending = self.withdrawal(channel_id)
        left = (
            _NO_WITHDRAWAL
            if amount >= pending.amount
            else Withdrawal(pending.amount - amount, pending.initiated_s)
        )
        self._store.put(("withdrawal", channel_id), left)
        tx.emit(Refunded(channel_id, amount))
        self._token.move(tx, self._here, Address(config.payer), amount)

    # --- views ---

    def channel_id(self, config: ChannelConfig) -> Digest:
        known = self._world.ids.get(config)
        if known is None:
            known = self._world.ids[config] = config.channel_id(self._world.channels_domain)
        return known

    def channel(self, channel_id: Digest) -> Channel:
        return self._store.get(("channel", channel_id), _NO_CHANNEL)

    def withdrawal(self, channel_id: Digest) -> Withdrawal:
        return self._store.get(("withdrawal", channel_id), _NO_WITHDRAWAL)

    def refund_nonce(self, channel_id: Digest) -> int:
        return self._store.get(("refunds", channel_id), 0)

    def receiver(self, receiver: Address, token: Address) -> Receiver:
        return self._store.get(("receiver", receiver, token), _NO_RECEIVER)

    def channel_hold(self, channel_id: Digest) -> Hold:
        """As of the channel's last claim."""
        return self._store.get(("channel_hold", channel_id), _NO_HOLD)

    def receiver_hold(self, receiver: Address, token: Address) -> Hold:
        """As of the receiver's last claim."""
        return self._store.get(("receiver_hold", receiver, token), _NO_HOLD)

    def claimed_total(self, owner: Address) -> int:
        return self._store.get(("provider_claimed", owner), 0)

    def barred(self, owner: Address) -> bool:
        return self._barred_window(owner) is not None

    def held(self, receiver: Address, token: Address, now_s: int) -> int:
        owner, _ = self._owner_of(receiver)
        barred = self._barred_window(owner)
        window = now_s // self._window_s if barred is None else barred
        return self.receiver_hold(receiver, token).rolled(window).sum()

    def matured(self, receiver: Address, token: Address, now_s: int) -> int:
        sums = self.receiver(receiver, token)
        return sums.total_claimed - sums.total_settled - self.held(receiver, token, now_s)

    # --- internal ---

    def _claim_row(self, tx: Transaction, row: VoucherClaim, window: int) -> int:
        config = row.config
        channel_id = self.channel_id(config)
        channel = self.channel(channel_id)
        if row.total_claimed <= channel.total_claimed:
            return 0
        require(row.total_claimed <= row.max_claimable, "ExceedsVoucher")
        require(row.total_claimed <= channel.balance, "ExceedsBalance")
        signer = config.payer if config.payer_authorizer == ZERO_ADDRESS else config.payer_authorizer
        voucher = Voucher(channel_id, row.max_claimable)
        require(self._is_signed_by(Address(signer), voucher, row.signature), "InvalidSignature")
        amount = row.total_claimed - channel.total_claimed
        self._store.put(("channel", channel_id), Channel(channel.balance, row.total_claimed))
        self._store.put(("channel_hold", channel_id), self.channel_hold(channel_id).added(window, amount))
        tx.emit(Claimed(channel_id, Address(config.receiver), amount, row.total_claimed, window))
        return amount

    def _credit(self, payee: _Payee) -> None:
        if payee.added == 0:
            return
        if payee.provider:
            claimed = checked(self.claimed_total(payee.owner) + payee.added)
            committed: int = self._store.get(("committed_total", payee.owner), 0)
            require(claimed <= committed, "ExceedsCommitted")
            self._store.put(("provider_claimed", payee.owner), claimed)
        sums = self.receiver(payee.receiver, payee.token)
        self._store.put(
            ("receiver", payee.receiver, payee.token),
            Receiver(checked(sums.total_claimed + payee.added), sums.total_settled),
        )
        total = self.receiver_hold(payee.receiver, payee.token)
        self._store.put(
            ("receiver_hold", payee.receiver, payee.token), total.added(payee.window, payee.added)
        )

    def _payee(self, tx: Transaction, receiver: Address, token: Address) -> _Payee:
        owner, provider = self._owner_of(receiver)
        require(self._barred_window(owner) is None, "ReceiverBarred")
        return _Payee(receiver, token, owner, provider, tx.now_s // self._window_s)

    def _is_signed_by(self, who: Address, voucher: Voucher, signature: bytes) -> bool:
        try:
            return self._world.recover(signing_digest(voucher, self._world.channels_domain), signature) == who
        except BadSignature:
            return False

    def _is_receiver_side(self, caller: Address, config: ChannelConfig) -> bool:
        return (
            caller in (config.receiver, config.receiver_authorizer)
            or self._registry.owner_of(caller) == config.receiver
        )

    def _available(self, channel_id: Digest) -> int:
        channel = self.channel(channel_id)
        return channel.balance - channel.total_claimed

    def _take(self, channel_id: Digest, amount: int) -> None:
        channel = self.channel(channel_id)
        self._store.put(("channel", channel_id), Channel(channel.balance - amount, channel.total_claimed))

    def _barred_window(self, owner: Address) -> int | None:
        return self._store.get(("barred", owner), None)

    def _owner_of(self, receiver: Address) -> tuple[Address, bool]:
        owner, roles = self._registry.standing(receiver)
        return (receiver if owner == ZERO_ADDRESS else owner), roles & PROVIDER != 0

    def _require_token(self, token: Address) -> None:
        """The twin knows one token; calling an address without code reverts with no name."""
        require(token == self._world.addresses.token, "")
