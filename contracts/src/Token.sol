// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC20Votes} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Votes.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title The network's money: ERC-20 with permit, ERC-3009 authorizations, votes and burn.
///
/// @notice The whole supply is made once, in the constructor; nobody can mint. Nine decimals, so that every amount
/// that can exist (10^9 tokens) fits a signed 64-bit integer of the programs around it.
///
/// @dev ERC-3009 exists in both signature forms because x402 uses both: `(v, r, s)` for plain keys and `bytes` for
/// wallets that are contracts. Nonces are random 32 bytes, as x402 draws them; permit's are sequential.
contract Token is ERC20, ERC20Burnable, ERC20Permit, ERC20Votes, ERC3009 {
    // --- constructor ---

    constructor(address holder, uint256 supply) ERC20("ClusterAI", "CLAI") ERC20Permit("ClusterAI") {
        _mint(holder, supply);
    }

    // --- public: ERC-3009 with one `bytes` signature ---

    /// @notice Move `value` by `from`'s signature. Anyone may relay.
    /// @dev Abuse: a relayer that front-runs `receiveWithAuthorization`'s caller; contracts that must act in the
    /// same transaction use that one. A used or cancelled nonce never passes again.
    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external {
        _checkAuthorization(
            TRANSFER_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce, signature
        );
        _transferWithAuthorization(from, to, value, validAfter, validBefore, nonce);
    }

    /// @notice Pull `value` by `from`'s signature. Only `to` may call, so that nobody can spend the signature
    /// outside the call it was meant for.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external {
        _checkAuthorization(
            RECEIVE_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce, signature
        );
        require(to == _msgSender(), ERC20InvalidReceiver(to));
        _transferWithAuthorization(from, to, value, validAfter, validBefore, nonce);
    }

    /// @notice Make a signed authorization useless. Anyone may relay the authorizer's signature.
    function cancelAuthorization(address authorizer, bytes32 nonce, bytes calldata signature) external {
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(CANCEL_AUTHORIZATION_TYPEHASH, authorizer, nonce)));
        require(
            SignatureChecker.isValidSignatureNowCalldata(authorizer, digest, signature), ERC3009InvalidSignature()
        );
        _cancelAuthorization(authorizer, nonce);
    }

    // --- views ---

    function decimals() public pure override returns (uint8) {
        return 9;
    }

    /// @notice Version of the EIP-712 domain; x402 reads it when it diagnoses a refused payment.
    function version() external pure returns (string memory) {
        return "1";
    }

    /// @notice Votes count by time, which has the same meaning on every chain. Source: ERC-6372.
    function clock() public view override returns (uint48) {
        return uint48(block.timestamp);
    }

    // solhint-disable-next-line func-name-mixedcase
    function CLOCK_MODE() public pure override returns (string memory) {
        return "mode=timestamp";
    }

    function nonces(address owner) public view override(ERC20Permit, Nonces) returns (uint256) {
        return super.nonces(owner);
    }

    // --- internal ---

    function _checkAuthorization(
        bytes32 kind,
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) internal view {
        bytes32 digest =
            _hashTypedDataV4(keccak256(abi.encode(kind, from, to, value, validAfter, validBefore, nonce)));
        require(SignatureChecker.isValidSignatureNowCalldata(from, digest, signature), ERC3009InvalidSignature());
    }

    function _update(address from, address to, uint256 value) internal override(ERC20, ERC20Votes) {
        super._update(from, to, value);
    }
}
