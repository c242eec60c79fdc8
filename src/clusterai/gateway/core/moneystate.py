"""What the gateway's books hold: the records that change them, what stands in a snapshot, accounts and channels.

What the records mean is `Book.apply`'s; what always holds between them stands in its module.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.gateway.core.tabs import TabRecord
from clusterai.ledger.core import events
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import (
    U40,
    U63,
    AddressBytes,
    ChannelConfig,
    DigestBytes,
    Receipt,
    SignatureBytes,
    Wei,
)

Tag = Annotated[bytes, Meta(max_length=32)]
KEEP_PAYOUT_S = 3600
"""How long a payout is remembered, and how far ahead its signature may expire, so that no forgotten one is taken again."""


class _Record(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    pass


class ChannelOpened(_Record, frozen=True):
    """We decided on the terms of our channel with `config.receiver`."""

    config: ChannelConfig


class Approved(_Record, frozen=True):
    """The Channels contract may take our deposits."""


MoneyEvent = (
    events.Funded
    | events.Transferred
    | events.Deposited
    | events.Claimed
    | events.Settled
    | events.Barred
    | events.Reclaimed
    | events.WithdrawInitiated
    | events.WithdrawFinalized
    | events.Refunded
)
"""Chain events that move this gateway's money."""


class Applied(_Record, frozen=True):
    """The chain up to and with `block` is reflected: its money events, once."""

    block: U63
    timestamp_s: U63
    happened: tuple[MoneyEvent, ...]


class Charged(_Record, frozen=True):
    """A receipt that was checked and paid: the account is charged and the channel's voucher rises by its amount."""

    account: DigestBytes
    receipt: Receipt
    signature: SignatureBytes
    order_signature: SignatureBytes
    channel_id: DigestBytes
    vouchered_wei: Wei
    """the channel's cumulative voucher with this charge"""
    at_s: U40
    tag: Tag
    """the request that it was for, as the front desk named it"""
    waits: bool = False
    """other parts of the request aren't over: `Ended` says who pays, and until then the account's credit is held"""


class Ended(_Record, frozen=True):
    """A request of several parts is over: of its waiting charges, the account pays these, and the gateway bears those."""

    billed: tuple[DigestBytes, ...]
    borne: tuple[DigestBytes, ...]


class Unclaimed(_Record, frozen=True):
    """The chain says that a barred provider holds nothing of this channel: what it didn't claim is forfeited."""

    channel_id: DigestBytes


class Pledged(_Record, frozen=True):
    """A wallet's vouchers on its channel to us go this far: what they rose by is credit of its account."""

    account: DigestBytes
    channel_id: DigestBytes
    total_wei: Wei


class PledgeState(_Record, frozen=True):
    """Snapshot of how far a wallet's vouchers go; its credit stands in the account."""

    channel_id: DigestBytes
    total_wei: Wei


class Payout(_Record, frozen=True):
    """We owe a withdrawal: it is no longer credit, and `payer`'s key pays it on chain, once.

    Attributes:
        name: the digest that `source` signed; also the nonce of the transfer that pays it.
    """

    name: DigestBytes
    account: DigestBytes
    source: AddressBytes
    to: AddressBytes
    amount_wei: Wei
    asked_s: U40
    payer: AddressBytes


class PaidOut(_Record, frozen=True):
    """The chain carried a payout out; by which transaction, if we know."""

    name: DigestBytes
    transaction: DigestBytes | None


class PayoutState(_Record, frozen=True):
    """Snapshot of a payout that is remembered; its amount stands in the account."""

    payout: Payout
    is_paid: bool
    transaction: DigestBytes | None


class DepositedState(_Record, frozen=True):
    """Snapshot of what an address put on an account and didn't withdraw; an account's stand in the order of their coming."""

    account: DigestBytes
    source: AddressBytes
    amount_wei: Wei


class AccountState(_Record, frozen=True):
    """Snapshot of an account."""

    account: DigestBytes
    funded_wei: Wei
    charged_wei: Wei
    refunded_wei: Wei
    withdrawn_wei: Wei = 0
    tabbed_wei: Wei = 0


class ChannelState(_Record, frozen=True):
    """Snapshot of a channel without its charges."""

    config: ChannelConfig
    balance_wei: Wei
    vouchered_wei: Wei
    claimed_wei: Wei
    final_wei: Wei
    deposits: U40
    barred: bool
    closed: bool
    maturing: tuple[tuple[U40, Wei], ...]
    last_order: DigestBytes | None
    withdrawing: bool = False


class Charge(msgspec.Struct, frozen=True, array_like=True):
    """One receipt's place in its channel: from `end_wei - amount_wei` to `end_wei`."""

    order: DigestBytes
    account: DigestBytes
    amount_wei: Wei
    end_wei: Wei


class ChargeState(_Record, frozen=True):
    """Snapshot of a charge that may still be refunded."""

    channel_id: DigestBytes
    charge: Charge
    waits: bool = False
    is_borne: bool = False


class BorneState(_Record, frozen=True):
    """Snapshot of what the gateway bears itself, all in all."""

    borne_wei: Wei


Record = (
    ChannelOpened
    | Approved
    | Applied
    | Charged
    | Ended
    | Unclaimed
    | Pledged
    | PledgeState
    | Payout
    | PaidOut
    | PayoutState
    | DepositedState
    | AccountState
    | ChannelState
    | ChargeState
    | BorneState
    | TabRecord
)


class Pledge(msgspec.Struct, frozen=True):
    """Event: the wallet door took vouchers of a channel up to `total_wei` in all. Repeating it changes nothing."""

    account: Digest
    channel_id: Digest
    total_wei: int


def wallet_account(wallet: Address) -> Digest:
    """The account of who pays with the request and has no key: its address, as one ABI word."""
    return Digest(bytes(12) + wallet)


class Account(msgspec.Struct):
    """`refunded_wei` is already taken off `charged_wei`."""

    funded_wei: int = 0
    charged_wei: int = 0
    refunded_wei: int = 0
    withdrawn_wei: int = 0
    tabbed_wei: int = 0
    """set aside for open tabs, and spent by closed ones"""
    held_wei: int = 0
    """worst cost of the orders that run now, which a crash ends uncharged, and the charges that wait"""

    @property
    def credit_wei(self) -> int:
        """What may still be spent."""
        return self.funded_wei - self.charged_wei - self.withdrawn_wei - self.tabbed_wei - self.held_wei


class Channel(msgspec.Struct):
    """Our payment channel to one provider. `final_wei`: paid for good; charges below it are forgotten."""

    config: ChannelConfig
    channel_id: Digest
    balance_wei: int = 0
    vouchered_wei: int = 0
    claimed_wei: int = 0
    final_wei: int = 0
    deposits: int = 0
    barred: bool = False
    closed: bool = False
    maturing: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """(window, claimed total after it) of claims that may still be forfeited"""
    charges: list[Charge] = msgspec.field(default_factory=list)
    last_order: Digest | None = None
    withdrawing: bool = False
    """the chain knows that we ask our deposit back"""
    promised_wei: int = 0
    """caps of the orders that run now; not durable"""

    @property
    def provider(self) -> Address:
        return Address(self.config.receiver)

    @property
    def unspent_wei(self) -> int:
        """What the chain holds for nobody, once the channel is closed."""
        return self.balance_wei - self.claimed_wei

    @property
    def headroom_wei(self) -> int:
        """What new orders may promise before the deposit is used up."""
        return self.balance_wei - self.vouchered_wei - self.promised_wei


class Refund(msgspec.Struct, frozen=True):
    """What an account doesn't pay of a charge, because the chain gave it back at a conviction, or because the gateway
    bears it; for those who watch, derived again at each restore."""

    account: Digest
    provider: Address
    order: Digest
    amount_wei: int
