// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IPanel, IRegistry} from "./Interfaces.sol";

/// @title Who can be drawn to audit or to referee, and with what weight at which time.
///
/// @notice SEATS seats, which any validator can take and loses to one with more stake. What a seat weighed is kept by
/// time, and a draw looks at the time before what it judges: nobody can bond, leave or join to be drawn, not even one who
/// sees the beacon first, and anyone can recompute a draw from events. A draw looks at each seat once, which is the
/// reason for their number: with all 64 taken it costs 0.5 million gas.
contract Panel is IPanel {
    using Checkpoints for Checkpoints.Trace224;

    // --- events ---

    event Enlisted(uint8 indexed seat, address indexed auditor, uint64 weight);

    // --- errors ---

    error NotValidator(address key);
    /// @dev All seats are taken by validators with at least as much stake; `least` is the least of them.
    error PanelFull(uint256 least);

    // --- constants ---

    uint8 public constant SEATS = 64;

    // --- storage ---

    IRegistry public immutable registry;
    /// @dev A checkpoint is (time, owner ‖ weight).
    Checkpoints.Trace224[64] private _seats;
    uint8 public seatsTaken;
    /// @dev Seat of an owner, plus one.
    mapping(address owner => uint8) private _seatOf;

    // --- constructor ---

    constructor(IRegistry registry_) {
        registry = registry_;
    }

    // --- public ---

    /// @notice Take a seat. Called by a validator's owner or hot key.
    /// @dev Abuse: many small seats to push others out; the lightest seat goes to more stake only. Bonding to be drawn for
    /// a commitment that is known already: weights count for what is committed later.
    function enlist() external {
        address owner = registry.ownerOf(msg.sender);
        uint128 stake = registry.validatorStake(owner);
        require(stake != 0, NotValidator(msg.sender));
        uint8 seat = _seatOf[owner];
        if (seat == 0) {
            seat = seatsTaken < SEATS ? ++seatsTaken : _vacate(stake);
            _seatOf[owner] = seat;
        }
        _weigh(seat, owner, stake);
    }

    /// @inheritdoc IPanel
    /// @dev Called by the Registry whenever a validator's stake changes, so that no seat outweighs what can be lost; anyone
    /// else may call too. Abuse: none; it tells the truth.
    function weigh(address auditor) external {
        uint8 seat = _seatOf[auditor];
        if (seat != 0) _weigh(seat, auditor, registry.validatorStake(auditor));
    }

    // --- views ---

    /// @inheritdoc IPanel
    function pick(uint256 lot, uint40 time, address[] calldata excluded) external view returns (address) {
        (address[64] memory owners, uint64[64] memory weights, uint256 total) = _before(time, excluded);
        if (total == 0) return address(0);
        uint256 point = lot % total;
        uint256 i = 0;
        while (point >= weights[i]) point -= weights[i++];
        return owners[i];
    }

    /// @inheritdoc IPanel
    function shares(address owner, uint40 time, address[] calldata excluded)
        external
        view
        returns (uint256 own, uint256 total)
    {
        address[64] memory owners;
        uint64[64] memory weights;
        (owners, weights, total) = _before(time, excluded);
        for (uint256 i = 0; i < SEATS; ++i) {
            if (owners[i] == owner) own += weights[i];
        }
    }

    /// @notice Who has a seat now, and with what weight.
    function seatAt(uint8 seat) external view returns (address auditor, uint64 weight) {
        return _sitting(_seats[seat].latest());
    }

    // --- internal ---

    function _weigh(uint8 seat, address owner, uint128 stake) internal {
        uint64 weight = stake > type(uint64).max ? type(uint64).max : uint64(stake);
        _seats[seat - 1].push(uint32(block.timestamp), (uint224(uint160(owner)) << 64) | weight);
        emit Enlisted(seat - 1, owner, weight);
    }

    /// @dev The lightest seat, plus one, taken from its owner if it weighs less than `stake`.
    function _vacate(uint128 stake) internal returns (uint8 seat) {
        uint256 least = type(uint256).max;
        address former = address(0);
        for (uint8 i = 0; i < SEATS; ++i) {
            (address owner, uint64 weight) = _sitting(_seats[i].latest());
            if (weight < least) (least, former, seat) = (weight, owner, i + 1);
        }
        require(stake > least, PanelFull(least));
        _seatOf[former] = 0;
    }

    /// @dev The panel as it stood before `time`; seats of the excluded, and those taken later, weigh nothing.
    function _before(uint40 time, address[] calldata excluded)
        internal
        view
        returns (address[64] memory owners, uint64[64] memory weights, uint256 total)
    {
        uint256 taken = seatsTaken;
        for (uint256 i = 0; i < taken; ++i) {
            (address owner, uint64 weight) = _sitting(_seats[i].upperLookupRecent(uint32(time - 1)));
            for (uint256 k = 0; k < excluded.length; ++k) {
                if (owner == excluded[k]) weight = 0;
            }
            (owners[i], weights[i]) = (owner, weight);
            total += weight;
        }
    }

    function _sitting(uint224 value) internal pure returns (address owner, uint64 weight) {
        return (address(uint160(value >> 64)), uint64(value));
    }
}
