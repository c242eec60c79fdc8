// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev Roles are bits, so that one owner can hold several.
uint8 constant PROVIDER = 1;
uint8 constant GATEWAY = 2;
uint8 constant VALIDATOR = 4;

/// @notice What Channels, Court and Credit ask of the Registry.
interface IRegistry {
    /// @notice The owner that `key` acts for now: itself if it registered, its owner while delegated, else zero.
    function ownerOf(address key) external view returns (address);

    /// @notice The owner that `key` ever acted for (a revoked key keeps its owner), and that owner's roles.
    function standing(address key) external view returns (address owner, uint8 roles);

    /// @notice Stake of `owner` that counts in a vote: its own and, up to DELEGATED_PER_OWN times that, what others put
    /// behind it; zero unless it is a validator in good standing.
    function validatorStake(address owner) external view returns (uint128);

    function totalValidatorStake() external view returns (uint128);

    function DELEGATED_PER_OWN() external view returns (uint128);

    function delegations() external view returns (IDelegations);

    /// @notice Others have `amount` behind `owner` now. By Delegations only.
    function setDelegated(address owner, uint128 amount) external;

    function unbondDelayS() external view returns (uint32);

    function participants(address owner)
        external
        view
        returns (uint128 stake, uint8 roles, bool barred, uint40 readyAt, uint128 unbonding, bytes32 card);

    /// @notice Take all stake of `owner`; a finder of zero gets nothing. See Registry.
    function slash(address owner, address finder, uint16 bountyBps) external returns (uint128 amount);
}

/// @notice What Registry and Leases ask of Delegations.
interface IDelegations {
    /// @notice Pay `validator` and those who are behind it; the caller approved this contract. To an owner that nobody is
    /// behind it is a transfer.
    function payReward(address validator, uint128 amount) external;

    /// @notice Burn all that is behind `validator`, and what is being taken back. By the Registry only.
    function slashDelegated(address validator) external returns (uint128 amount);

    /// @notice `validator` itself has `stake` now. By the Registry only.
    function noteOwn(address validator, uint128 stake) external;
}

/// @notice Random words that nobody knew when what they draw from was committed. Rounds have numbers.
interface IBeacon {
    /// @notice The round that draws from what is committed in this transaction: nobody can know its word yet.
    function next() external returns (uint32 round);

    /// @notice A round's word; reverts with BeaconPending until it is recorded, and never changes.
    function beacons(uint256 round) external view returns (bytes32);
}

/// @notice What Leases and Vaults ask of the Court.
interface IConvictions {
    /// @notice Slash and bar `provider` for what it did in lease `id`, or with the dataset `id`; see Court.
    function convictByLease(address provider, address finder, uint8 outcome, bytes32 id) external;
}

/// @notice What the Registry and Audits ask of Leases.
interface ILeases {
    /// @dev Parties are owners; `payer` put the money in and gets back what is left. States: 1 open, 2 accepted,
    /// 3 committed, 4 closed. `segments` and `units` are the most that there may be, and, once it is committed, what
    /// there is; `cap` is the most units of one segment.
    struct Lease {
        address requester;
        uint40 startBy;
        uint8 state;
        uint8 class;
        uint32 segments;
        address provider;
        uint40 deadline;
        uint40 acceptedAt;
        address payer;
        uint40 committedAt;
        uint128 compensation;
        uint128 auditFee;
        uint128 amount;
        uint64 units;
        uint64 cap;
        bytes32 spec;
        bytes32 expected;
        bytes32 root;
    }

    function leaseOf(bytes32 id) external view returns (Lease memory);

    /// @notice Whether a commitment of `owner` can still turn out to be fraud, so that its stake must stay.
    function holdsStake(address owner) external view returns (bool);

    /// @notice Seconds after a commitment in which it isn't paid.
    function windowS() external view returns (uint32);

    /// @notice Convict the provider of a committed lease and close it. By Audits and Deliveries only.
    function convict(bytes32 id, address finder, uint8 reason) external;

    /// @notice Close a committed lease that was a trap: all but the audit's fee goes back. By Audits only.
    function closeTrap(bytes32 id, address lazy) external;
}

/// @notice What Leases asks of Audits.
interface IAudits {
    /// @notice A lease was committed; returns the number of the beacon that draws. By Leases only.
    function enter(bytes32 id, address provider, uint128 compensation, uint8 class) external returns (uint32 round);

    /// @notice Whether the audit, if there is one, found nothing and may be paid by now.
    function payable_(bytes32 id) external view returns (bool);

    /// @notice The lease ends: give bonds back and say who earned the audit's fee (zero: nobody). By Leases only.
    function finish(bytes32 id, bool completed) external returns (address first, address second);

    /// @notice A result of `provider` was not valid, or not there in time. By Leases only.
    function missed(address provider) external;
}

/// @notice What the Court asks of Audits.
interface IRates {
    /// @notice p*, the least share of such work to audit so that cheating loses, in millionths, rounded up; above a million
    /// where auditing all of it isn't enough: (1 + margin) saving price / [sensitivity (1 - corrupt) (price + stake)].
    /// Reverts where both are zero.
    function leastRate(uint256 stake, uint256 price) external view returns (uint256);
}

/// @notice What Leases asks of Deliveries.
interface IDeliveries {
    /// @notice Whether the panel is looking for this lease's outputs; it isn't paid so long.
    function isDemanded(bytes32 id) external view returns (bool);
}

/// @notice Auditors by their stake, as it stood at a time in the past.
interface IPanel {
    /// @notice Have the seat of `auditor`, if it has one, weigh what it has at stake.
    function weigh(address auditor) external;

    /// @notice The owner at `lot` (modulo the sum of weights) of the seats that were taken before `time`, those of
    /// `excluded` left out; zero if there is none.
    function pick(uint256 lot, uint40 time, address[] calldata excluded) external view returns (address);

    /// @notice What `owner` weighed before `time`, and all who are not excluded together.
    function shares(address owner, uint40 time, address[] calldata excluded)
        external
        view
        returns (uint256 own, uint256 total);
}

/// @notice What Disputes asks of Audits.
interface IAccusations {
    /// @dev The drawn segment: `units` steps lead from the state `start` to the provider's `claimed` or the accuser's
    /// `result`, each keccak(state ‖ uint64 units up to there).
    struct Accusation {
        address provider;
        uint64 units;
        bytes32 start;
        bytes32 claimed;
        bytes32 result;
    }

    /// @notice An auditor goes on with its accusation while the audit is contested. By Disputes only; reverts otherwise.
    function beginDispute(bytes32 id, address accuser) external returns (Accusation memory);

    /// @notice How it ended; `confirmed`: the winner was found right itself: the accuser, not only the provider wrong, or the
    /// provider, not only nobody agreed. By Disputes only; does nothing where the lease was closed meanwhile.
    function endDispute(bytes32 id, bool guilty, bool confirmed) external;

    /// @notice What an auditor or an accuser of `provider` puts up, at least `least`.
    function bondAgainst(address provider, uint256 least) external view returns (uint96);
}

/// @notice What Channels asks of the Court.
interface ICourt {
    /// @notice Sum of the totals of all epochs that `provider` committed.
    function committedTotal(address provider) external view returns (uint128);
}

/// @notice What the Court asks of Channels.
interface IChannels {
    function windowS() external view returns (uint32);

    function court() external view returns (address);

    /// @notice Forfeit what `owner` holds and refuse its claims; see Channels.
    function bar(address owner) external;
}

/// @notice Moves a payer's money into Channels; the interface that x402's collectors have.
interface IDepositCollector {
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata data) external;
}
