"""Events of the contract Delegations. See `events`."""

import msgspec

from clusterai.protocol.ids import Address


class _Event(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class StakeDelegated(_Event, frozen=True):
    """`delegated` is what the validator has from all of them now."""

    validator: Address
    delegator: Address
    amount: int
    delegated: int


class StakeUndelegated(_Event, frozen=True):
    validator: Address
    delegator: Address
    amount: int
    delegated: int
    ready_s: int


class StakeWithdrawn(_Event, frozen=True):
    validator: Address
    delegator: Address
    amount: int


class DelegatedSlashed(_Event, frozen=True):
    """All of it is burned; the Registry's `Slashed` tells of the own stake."""

    validator: Address
    amount: int


class RewardShared(_Event, frozen=True):
    """Of `amount` delegators may claim `shared`; the validator got the rest."""

    validator: Address
    amount: int
    shared: int


class RewardClaimed(_Event, frozen=True):
    validator: Address
    delegator: Address
    amount: int


class CommissionAnnounced(_Event, frozen=True):
    validator: Address
    bps: int
    from_s: int
