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

    /// @notice Stake of `owner` that counts in a vote: zero unless it is a validator in good standing.
    function validatorStake(address owner) external view returns (uint128);

    function totalValidatorStake() external view returns (uint128);

    function unbondDelayS() external view returns (uint32);

    /// @notice Take all stake of `owner`; see Registry.
    function slash(address owner, address finder, uint16 bountyBps) external returns (uint128 amount);
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
