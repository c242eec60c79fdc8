// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IDepositCollector} from "./Interfaces.sol";

/// @dev The `bytes` form of ERC-3009, which serves plain keys and contract wallets alike.
interface IERC3009Bytes {
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
}

/// @title Deposits by signature: x402's ERC-3009 collector.
///
/// @notice The authorization's nonce is keccak(channelId, salt), so a payer's signature funds one channel only.
/// @dev No immutables: a local network's genesis places the runtime code at x402's fixed address and writes slot 0.
contract ERC3009DepositCollector is IDepositCollector {
    using SafeERC20 for IERC20;

    // --- errors ---

    error OnlyChannels(address caller);

    // --- storage ---

    /// @notice The one contract that may collect, and to which all money goes. Slot 0.
    address public channels;

    // --- constructor ---

    constructor(address channels_) {
        require(channels_ != address(0), OnlyChannels(address(0)));
        channels = channels_;
    }

    // --- public ---

    /// @notice Pull `amount` from `payer` and hand it to Channels. Called by Channels only, inside `deposit`.
    /// @dev Abuse: calling directly with a signature seen in the mempool, so that money reaches Channels without
    /// crediting a channel, or another caller; hence the one caller.
    /// @param data abi.encode(uint256 validAfter, uint256 validBefore, uint256 salt, bytes signature)
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata data) external {
        require(msg.sender == channels, OnlyChannels(msg.sender));
        (uint256 validAfter, uint256 validBefore, uint256 salt, bytes memory signature) =
            abi.decode(data, (uint256, uint256, uint256, bytes));
        bytes32 nonce = keccak256(abi.encode(channelId, salt));
        IERC3009Bytes(token).receiveWithAuthorization(
            payer, address(this), amount, validAfter, validBefore, nonce, signature
        );
        IERC20(token).safeTransfer(channels, amount);
    }
}
