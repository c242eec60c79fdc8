// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Many reads in one call, by the selectors that clients expect at Multicall3's well-known address.
///
/// @notice For local networks, whose genesis lacks the original. Anyone may call. It holds nothing and is nobody:
/// abuse would need a contract that trusts this address, and none of ours does.
contract Multicall3 {
    struct Call {
        address target;
        bytes callData;
    }

    struct Call3 {
        address target;
        bool allowFailure;
        bytes callData;
    }

    struct Result {
        bool success;
        bytes returnData;
    }

    /// @dev Call `index` failed, and the caller doesn't allow that.
    error CallFailed(uint256 index);

    /// @notice Run `calls` in order; with `requireSuccess` one failure reverts all.
    /// @dev The loop is bounded by the caller's own gas.
    function tryAggregate(bool requireSuccess, Call[] calldata calls) external returns (Result[] memory results) {
        results = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            results[i] = _run(i, calls[i].target, !requireSuccess, calls[i].callData);
        }
    }

    /// @notice Run `calls` in order; each says whether it may fail.
    function aggregate3(Call3[] calldata calls) external returns (Result[] memory results) {
        results = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            results[i] = _run(i, calls[i].target, calls[i].allowFailure, calls[i].callData);
        }
    }

    function _run(uint256 index, address target, bool allowFailure, bytes calldata data)
        internal
        returns (Result memory)
    {
        (bool success, bytes memory returned) = target.call(data);
        require(success || allowFailure, CallFailed(index));
        return Result(success, returned);
    }
}
