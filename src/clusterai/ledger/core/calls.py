"""What participants ask of the chain: one struct per contract function that a daemon or the CLI calls.

A call is data: the machines return it inside a `Submit` effect, the simulator hands it to the Python twins, the
chain client encodes it by the committed ABI. `method` of `Contract.method(...)` is the struct's name with a
small first letter, and fields stand in the ABI's order.
"""

from collections.abc import Callable

import msgspec

from clusterai.ledger.core.lease_calls import (
    AcceptLease,
    AssertTrace,
    AuditsCall,
    CancelLease,
    CloseLease,
    CommitAudit,
    CommitLease,
    CommitReferee,
    DeliveriesCall,
    DemandDelivery,
    DisputesCall,
    DrawLease,
    Enlist,
    ExpireAudit,
    ExpireDemand,
    ExpireDispute,
    GiveUpLease,
    LeasesCall,
    OpenLease,
    OpenSegment,
    PanelCall,
    ReleaseVested,
    ReportUndelivered,
    ReportWithheld,
    RevealAudit,
    RevealReferee,
    SelectRange,
    SpringTrap,
    StartDispute,
    Weigh,
)
from clusterai.ledger.core.pot_calls import (
    ClosePot,
    ContestPot,
    JoinPot,
    OpenPot,
    RewardsCall,
    ScorePot,
    TakeOwed,
    VotePot,
)
from clusterai.ledger.core.stake_calls import (
    AnnounceCommission,
    ClaimReward,
    DelegateStake,
    DelegationsCall,
    PayReward,
    UndelegateStake,
    WithdrawStake,
)
from clusterai.ledger.core.vault_calls import (
    AnchorLog,
    BuyCopy,
    CloseSale,
    DeliverCopy,
    EndGrant,
    GrantAccess,
    ListDataset,
    ProveEquivocation,
    ProveOmission,
    ProveRewriting,
    ProveSpending,
    ProveSums,
    VaultsCall,
)
from clusterai.protocol.eip712 import Domain, struct_hash, type_hash, typed_digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import ChannelConfig, Clearance, Delegation, Verdict, signing_digest


class _Call(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Approve(_Call, frozen=True):
    """Token."""

    spender: Address
    value: int


class Transfer(_Call, frozen=True):
    """Token."""

    to: Address
    value: int


class TransferWithAuthorization(_Call, frozen=True):
    """Token: move `value` by `source`'s signature (ERC-3009); a nonce of `source` passes once, whoever sends it."""

    source: Address
    to: Address
    value: int
    valid_after_s: int
    valid_before_s: int
    nonce: Digest
    signature: bytes


class Burn(_Call, frozen=True):
    """Token."""

    value: int


class Register(_Call, frozen=True):
    """Registry, by the owner key."""

    roles: int
    card: Digest


class UpdateCard(_Call, frozen=True):
    card: Digest


class Delegate(_Call, frozen=True):
    """Registry, by the owner key; `consent` is the hot key's signature, see `delegate`."""

    hot: Address
    consent: bytes


class Revoke(_Call, frozen=True):
    hot: Address


class Bond(_Call, frozen=True):
    amount: int


class Unbond(_Call, frozen=True):
    amount: int


class Withdraw(_Call, frozen=True):
    """Registry: what finished unbonding."""


class Deposit(_Call, frozen=True):
    """Channels: by the payer, who approved the Channels contract; `collector` zero means transferFrom the caller."""

    config: ChannelConfig
    amount: int


class VoucherClaim(msgspec.Struct, frozen=True, array_like=True):
    config: ChannelConfig
    max_claimable: int
    signature: bytes
    total_claimed: int


class Claim(_Call, frozen=True):
    """Channels: by the receiver (or its hot key): raise each channel's claimed total."""

    claims: tuple[VoucherClaim, ...]


class Settle(_Call, frozen=True):
    """Channels: pay what matured to the receiver."""

    receiver: Address
    token: Address


class Reclaim(_Call, frozen=True):
    """Channels: after the receiver was barred, move what a channel held back to its balance."""

    config: ChannelConfig


class InitiateWithdraw(_Call, frozen=True):
    config: ChannelConfig
    amount: int


class FinalizeWithdraw(_Call, frozen=True):
    config: ChannelConfig


class Refund(_Call, frozen=True):
    """Channels: by the receiver's side: give unclaimed money back to the payer at once."""

    config: ChannelConfig
    amount: int


class CommitEpoch(_Call, frozen=True):
    """Court: by a provider's hot key, once an epoch, after the epoch has ended."""

    epoch: int
    root: Digest
    count: int
    total: int


class Tick(_Call, frozen=True):
    """ChainBeacon: record this epoch's beacon if nobody has."""


class G1Point(msgspec.Struct, frozen=True, array_like=True):
    """A point of BLS12-381's G1 as EIP-2537 writes it: two coordinates of 64 bytes, each in two words."""

    x_a: Digest
    x_b: Digest
    y_a: Digest
    y_b: Digest


class RecordPulse(_Call, frozen=True):
    """DrandBeacon: a round's signature, from its time on, for an epoch's length."""

    round: int
    signature: G1Point


class RecordLapsed(_Call, frozen=True):
    """DrandBeacon: the chain's randomness for a round whose pulse nobody brought in time."""

    round: int


class Vote(_Call, frozen=True):
    """Court: relay a validator's signed verdict; `proof` shows the leaf in the commitment."""

    verdict: Verdict
    proof: tuple[Digest, ...]
    signature: bytes


class Clear(_Call, frozen=True):
    clearance: Clearance
    signature: bytes


class Challenge(_Call, frozen=True):
    provider: Address
    epoch: int
    index: int


class AnswerChallenge(_Call, frozen=True):
    """Court: one part of the provider's sealed opening of what was challenged, on chain for all validators. The first
    part that is mined binds `parts`."""

    provider: Address
    epoch: int
    index: int
    part: int
    parts: int
    sealed: bytes


class RecoverBond(_Call, frozen=True):
    """Court: the bond of a challenge that was not answered in time goes back to who paid it."""

    provider: Address
    epoch: int
    index: int


class Equivocation(_Call, frozen=True):
    first: Verdict
    first_signature: bytes
    second: Verdict
    second_signature: bytes


class Parameters(msgspec.Struct, frozen=True, array_like=True):
    """Of the Court; see `rules.Rules`."""

    audit_rate_ppm: int
    bounty_bps: int
    answer_s: int
    challenge_bond_wei: int


class SetParameters(_Call, frozen=True):
    """Court, by the governor."""

    parameters: Parameters


class Fund(_Call, frozen=True):
    """Credit: put money on an account at a gateway."""

    gateway: Address
    account: Digest
    amount: int


TokenCall = Approve | Transfer | TransferWithAuthorization | Burn
RegistryCall = Register | UpdateCard | Delegate | Revoke | Bond | Unbond | Withdraw
ChannelsCall = Deposit | Claim | Settle | Reclaim | InitiateWithdraw | FinalizeWithdraw | Refund
CourtCall = (
    CommitEpoch | Vote | Clear | Challenge | AnswerChallenge | RecoverBond | Equivocation | SetParameters
)
BeaconCall = Tick | RecordPulse | RecordLapsed
Call = (
    TokenCall
    | RegistryCall
    | ChannelsCall
    | CourtCall
    | BeaconCall
    | Fund
    | PanelCall
    | DelegationsCall
    | LeasesCall
    | AuditsCall
    | DeliveriesCall
    | DisputesCall
    | VaultsCall
    | RewardsCall
)

CONTRACT: dict[type, str] = {
    **dict.fromkeys((Approve, Transfer, TransferWithAuthorization, Burn), "Token"),
    **dict.fromkeys((Register, UpdateCard, Delegate, Revoke, Bond, Unbond, Withdraw), "Registry"),
    **dict.fromkeys(
        (Deposit, Claim, Settle, Reclaim, InitiateWithdraw, FinalizeWithdraw, Refund), "Channels"
    ),
    **dict.fromkeys(CourtCall.__args__, "Court"),
    Tick: "ChainBeacon",
    **dict.fromkeys((RecordPulse, RecordLapsed), "DrandBeacon"),
    Fund: "Credit",
    **dict.fromkeys((Enlist, Weigh), "Panel"),
    **dict.fromkeys(
        (DelegateStake, UndelegateStake, WithdrawStake, ClaimReward, AnnounceCommission, PayReward),
        "Delegations",
    ),
    **dict.fromkeys(
        (OpenLease, AcceptLease, CommitLease, CancelLease, GiveUpLease, CloseLease, ReleaseVested), "Leases"
    ),
    **dict.fromkeys(
        (DrawLease, CommitAudit, OpenSegment, RevealAudit, ReportWithheld, ExpireAudit, SpringTrap), "Audits"
    ),
    **dict.fromkeys((DemandDelivery, ReportUndelivered, ExpireDemand), "Deliveries"),
    **dict.fromkeys(
        (StartDispute, AssertTrace, SelectRange, CommitReferee, RevealReferee, ExpireDispute), "Disputes"
    ),
    **dict.fromkeys(
        (
            ListDataset,
            GrantAccess,
            EndGrant,
            AnchorLog,
            BuyCopy,
            DeliverCopy,
            CloseSale,
            ProveSpending,
            ProveSums,
            ProveEquivocation,
            ProveOmission,
            ProveRewriting,
        ),
        "Vaults",
    ),
    **dict.fromkeys((OpenPot, JoinPot, ScorePot, ContestPot, VotePot, ClosePot, TakeOwed), "Rewards"),
}
"""Which contract a call goes to."""


def delegate(owner: Address, hot: Address, sign: Callable[[Digest], bytes], network: Domain) -> Delegate:
    """The owner's call with the hot key's consent; `sign` is the hot key's, `network` the registry's domain."""
    return Delegate(hot, sign(signing_digest(Delegation(owner, hot), network)))


_AUTHORIZATION = type_hash(
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
FOREVER_S = 2**40 - 1


def transfer_once(
    source: Address, to: Address, value: int, nonce: Digest, sign: Callable[[Digest], bytes], token: Domain
) -> TransferWithAuthorization:
    """A transfer that can be mined once only, however often and by whoever it is sent: the chain remembers `nonce`."""
    hashed = struct_hash(_AUTHORIZATION, source, to, value, 0, FOREVER_S, nonce)
    signature = sign(typed_digest(token.separator(), hashed))
    return TransferWithAuthorization(source, to, value, 0, FOREVER_S, nonce, signature)


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Effect: send this call to the chain with the machine's hot key, and again until it is mined or reverts.

    `key` names the intent ("commit:17"): the outcome comes back as `Mined` or `Reverted` with the same key, and a
    second Submit with a key still in flight is dropped.
    """

    key: str
    call: Call


class Mined(msgspec.Struct, frozen=True, tag=True):
    key: str
    transaction: Digest
    block: int


class Reverted(msgspec.Struct, frozen=True, tag=True):
    """The chain refused for good; `reason` is the custom error's name."""

    key: str
    reason: str
