"""Calls of the contract Delegations: stake behind validators, and what it earns. See `calls`."""

import msgspec

from clusterai.protocol.ids import Address


class _Call(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class DelegateStake(_Call, frozen=True):
    """By anyone who approved the contract: votes at once, earns later, is lost with the validator's own."""

    validator: Address
    amount: int


class UndelegateStake(_Call, frozen=True):
    """By the delegator: counts no more, and is at risk until it is withdrawn after the delay."""

    validator: Address
    amount: int


class WithdrawStake(_Call, frozen=True):
    """By the delegator: all that is ready."""

    validator: Address


class ClaimReward(_Call, frozen=True):
    """By the delegator."""

    validator: Address


class AnnounceCommission(_Call, frozen=True):
    """By the validator's owner key: from the unbonding delay on."""

    bps: int


class PayReward(_Call, frozen=True):
    """By whoever gives; Leases and the Registry pay validators this way."""

    validator: Address
    amount: int


DelegationsCall = (
    DelegateStake | UndelegateStake | WithdrawStake | ClaimReward | AnnounceCommission | PayReward
)
