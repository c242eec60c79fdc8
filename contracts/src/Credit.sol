// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IRegistry, GATEWAY} from "./Interfaces.sol";

/// @title Prepaid credit at a gateway: the money goes to the gateway's owner, the event is the proof of payment.
///
/// @notice Holds nothing. A person who doesn't want to trust a gateway with prepaid money pays by channel instead.
contract Credit {
    using SafeERC20 for IERC20;

    // --- events ---

    event Funded(address indexed gateway, bytes32 indexed account, address indexed source, uint256 amount);

    // --- errors ---

    /// @dev `gateway` is not a registered gateway's owner or hot key.
    error NotGateway(address gateway);
    error ZeroAmount();

    // --- storage ---

    IERC20 public immutable token;
    IRegistry public immutable registry;

    // --- constructor ---

    constructor(IERC20 token_, IRegistry registry_) {
        require(address(token_) != address(0) && address(registry_) != address(0), NotGateway(address(0)));
        token = token_;
        registry = registry_;
    }

    // --- public ---

    /// @notice Put `amount` on `account` at `gateway`. Anyone who approved this contract may call, for any account.
    /// @dev Abuse: an event without money; the transfer is of our own token in the same transaction, or all reverts.
    function fund(address gateway, bytes32 account, uint256 amount) external {
        _fund(gateway, account, amount);
    }

    /// @notice `fund` with an ERC-2612 permit of the caller, in one transaction.
    /// @dev Abuse: a front-runner spends the permit first, to make this revert; so a permit that fails is passed
    /// over, and the allowance that it left decides.
    function fundWithPermit(
        address gateway,
        bytes32 account,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        _fund(gateway, account, amount);
    }

    // --- internal ---

    function _fund(address gateway, bytes32 account, uint256 amount) internal {
        require(amount != 0, ZeroAmount());
        address owner = registry.ownerOf(gateway);
        (, uint8 roles) = registry.standing(gateway);
        require(owner != address(0) && roles & GATEWAY != 0, NotGateway(gateway));
        emit Funded(owner, account, msg.sender, amount);
        token.safeTransferFrom(msg.sender, owner, amount);
    }
}
