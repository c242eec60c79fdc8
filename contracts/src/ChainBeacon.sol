// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IBeacon} from "./Interfaces.sol";

/// @title The chain's own randomness, once an epoch.
///
/// @notice The first call in an epoch records a word of `prevrandao`. What is committed in an epoch is drawn by the first
/// beacon of a later one. Whoever builds the block of that call can try several blocks, on chains where that is cheap.
contract ChainBeacon is IBeacon {
    event BeaconRecorded(uint32 indexed round, bytes32 beacon);

    error BeaconPending(uint256 round);
    error ParameterOutOfRange(bytes32 name, uint256 value);

    /// @notice Seconds of an epoch: epoch = timestamp / epochS.
    uint32 public immutable epochS;

    bytes32[] private _beacons;
    /// @notice Epoch of the newest beacon, plus one.
    uint64 private _tickedUntil;

    constructor(uint32 epochS_) {
        require(epochS_ != 0, ParameterOutOfRange("epochS", epochS_));
        epochS = epochS_;
    }

    // --- public: anyone ---

    /// @notice Record this epoch's beacon if nobody has. Anyone may call; repeating it does nothing.
    /// @dev Abuse: waiting for a block whose prevrandao draws kindly. Whoever minds calls first in an epoch, so the
    /// waiting party must keep all others out of every block before.
    function tick() public {
        uint64 epoch = uint64(block.timestamp / epochS);
        if (epoch < _tickedUntil) return;
        _tickedUntil = epoch + 1;
        bytes32 beacon = keccak256(abi.encodePacked(block.prevrandao, epoch));
        emit BeaconRecorded(uint32(_beacons.length), beacon);
        _beacons.push(beacon);
    }

    /// @inheritdoc IBeacon
    /// @dev Abuse: none; it is `tick`. This epoch's beacon is recorded first, so the next is of a later epoch.
    function next() external returns (uint32 round) {
        tick();
        return uint32(_beacons.length);
    }

    // --- views ---

    /// @inheritdoc IBeacon
    function beacons(uint256 round) external view returns (bytes32) {
        require(round < _beacons.length, BeaconPending(round));
        return _beacons[round];
    }

    /// @notice How many beacons were recorded: the number of the next.
    function rounds() external view returns (uint256) {
        return _beacons.length;
    }
}
