"""What the chain tells: logs of our contracts as structs, in the order of the chain.

The chain client's follower emits `Block` for every new head after the events of that block, and `RolledBack`
when a reorganisation undid blocks: machines that act on events wait for `confirmations` where it matters.
"""

import msgspec

from clusterai.ledger.core.lease_events import (
    AuditCommitted,
    AuditContested,
    AuditMatched,
    AuditorDrawn,
    AuditorSilent,
    AuditParametersSet,
    AuditResolved,
    AuditRevealed,
    DeliveryDemanded,
    DemandEnded,
    DisputeEnded,
    DisputeOpened,
    Enlisted,
    LeaseAccepted,
    LeaseClosed,
    LeaseCommitted,
    LeaseDrawn,
    LeaseOpened,
    PayVested,
    RangeSelected,
    RefereeCommitted,
    RefereeRevealed,
    RefereesDrawn,
    RefereesSealed,
    SegmentShown,
    TraceAsserted,
    TrapSprung,
    UndeliveredReported,
    VestedReleased,
    WithheldReported,
)
from clusterai.ledger.core.pot_events import (
    OwedTaken,
    PotClosed,
    PotContested,
    PotDecided,
    PotJoined,
    PotOpened,
    PotScored,
    PotVoted,
    ReferralEarned,
    ShareEarned,
)
from clusterai.ledger.core.stake_events import (
    CommissionAnnounced,
    DelegatedSlashed,
    RewardClaimed,
    RewardShared,
    StakeDelegated,
    StakeUndelegated,
    StakeWithdrawn,
)
from clusterai.ledger.core.vault_events import (
    AccessGranted,
    BreachProven,
    CopyBought,
    CopyDelivered,
    DatasetListed,
    GrantEnded,
    LicenceMoved,
    LogAnchored,
    SaleClosed,
)
from clusterai.protocol.ids import Address, Digest


class _Event(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Block(_Event, frozen=True):
    number: int
    timestamp_s: int


class RolledBack(_Event, frozen=True):
    """All blocks above `number` are gone; their events will come again, or not."""

    number: int


class Transferred(_Event, frozen=True):
    source: Address
    to: Address
    value: int


class Registered(_Event, frozen=True):
    owner: Address
    roles: int
    card: Digest


class CardUpdated(_Event, frozen=True):
    owner: Address
    card: Digest


class Delegated(_Event, frozen=True):
    owner: Address
    hot: Address


class Revoked(_Event, frozen=True):
    owner: Address
    hot: Address


class Bonded(_Event, frozen=True):
    owner: Address
    amount: int
    stake: int


class Unbonding(_Event, frozen=True):
    owner: Address
    amount: int
    ready_s: int


class Withdrawn(_Event, frozen=True):
    owner: Address
    amount: int


class Slashed(_Event, frozen=True):
    owner: Address
    amount: int
    bounty: int
    burned: int
    finder: Address


class Deposited(_Event, frozen=True):
    channel_id: Digest
    payer: Address
    receiver: Address
    amount: int
    balance: int


class Claimed(_Event, frozen=True):
    """`amount` became held for `receiver`; `window` is the hold's bucket."""

    channel_id: Digest
    receiver: Address
    amount: int
    total_claimed: int
    window: int


class Settled(_Event, frozen=True):
    receiver: Address
    token: Address
    sender: Address
    amount: int


class Barred(_Event, frozen=True):
    receiver: Address


class Reclaimed(_Event, frozen=True):
    channel_id: Digest
    amount: int
    total_claimed: int


class WithdrawInitiated(_Event, frozen=True):
    channel_id: Digest
    amount: int
    ready_s: int


class WithdrawFinalized(_Event, frozen=True):
    channel_id: Digest
    amount: int


class Refunded(_Event, frozen=True):
    channel_id: Digest
    amount: int


class EpochCommitted(_Event, frozen=True):
    provider: Address
    epoch: int
    root: Digest
    count: int
    total: int
    round: int
    """numbers the beacon that draws; it is not recorded yet"""
    rate_ppm: int
    """by which its receipts are drawn, whatever the parameters are by then"""


class BeaconRecorded(_Event, frozen=True):
    """Of one round, once; rounds of another beacon than the chain's need not come in order."""

    round: int
    beacon: Digest


class Voted(_Event, frozen=True):
    validator: Address
    provider: Address
    epoch: int
    index: int
    outcome: int
    evidence: Digest


class Convicted(_Event, frozen=True):
    provider: Address
    epoch: int
    index: int
    outcome: int
    evidence: Digest
    slashed: int


class EpochCleared(_Event, frozen=True):
    provider: Address
    epoch: int
    root: Digest
    audited: int
    evidence: Digest


class Challenged(_Event, frozen=True):
    """The answer's first part must come by `deadline_s`, and once it came, all others by `finish_s`."""

    validator: Address
    provider: Address
    epoch: int
    index: int
    deadline_s: int
    finish_s: int


class AnswerPart(_Event, frozen=True):
    provider: Address
    epoch: int
    index: int
    part: int
    parts: int
    sealed: bytes


class ChallengeAnswered(_Event, frozen=True):
    """All parts came; told behind the last one's `AnswerPart`."""

    provider: Address
    epoch: int
    index: int


class ParametersSet(_Event, frozen=True):
    """The Court's parameters from here on; told at its creation too, where that is read."""

    audit_rate_ppm: int
    bounty_bps: int
    answer_s: int
    challenge_bond_wei: int


class Equivocated(_Event, frozen=True):
    validator: Address
    provider: Address
    epoch: int
    index: int


class Funded(_Event, frozen=True):
    gateway: Address
    account: Digest
    source: Address
    amount: int


Event = (
    Block
    | RolledBack
    | Transferred
    | Registered
    | CardUpdated
    | Delegated
    | Revoked
    | Bonded
    | Unbonding
    | Withdrawn
    | Slashed
    | Deposited
    | Claimed
    | Settled
    | Barred
    | Reclaimed
    | WithdrawInitiated
    | WithdrawFinalized
    | Refunded
    | EpochCommitted
    | BeaconRecorded
    | Voted
    | Convicted
    | EpochCleared
    | Challenged
    | AnswerPart
    | ChallengeAnswered
    | Equivocated
    | ParametersSet
    | Funded
    | LeaseOpened
    | LeaseAccepted
    | LeaseCommitted
    | LeaseClosed
    | PayVested
    | VestedReleased
    | Enlisted
    | StakeDelegated
    | StakeUndelegated
    | StakeWithdrawn
    | DelegatedSlashed
    | RewardShared
    | RewardClaimed
    | CommissionAnnounced
    | AuditParametersSet
    | LeaseDrawn
    | AuditorDrawn
    | AuditCommitted
    | SegmentShown
    | AuditRevealed
    | AuditMatched
    | AuditorSilent
    | WithheldReported
    | AuditContested
    | AuditResolved
    | TrapSprung
    | DeliveryDemanded
    | UndeliveredReported
    | DemandEnded
    | DisputeOpened
    | TraceAsserted
    | RangeSelected
    | RefereesDrawn
    | RefereeCommitted
    | RefereesSealed
    | RefereeRevealed
    | DisputeEnded
    | DatasetListed
    | AccessGranted
    | GrantEnded
    | LicenceMoved
    | LogAnchored
    | BreachProven
    | CopyBought
    | CopyDelivered
    | SaleClosed
    | PotOpened
    | PotJoined
    | PotScored
    | PotContested
    | PotVoted
    | PotDecided
    | ShareEarned
    | ReferralEarned
    | PotClosed
    | OwedTaken
)
