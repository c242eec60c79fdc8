// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The tree over receipts and over a lease's states; `protocol/merkle.py` is the same.
library Merkle {
    /// @dev Walks index and count together, so a proof fits one position of one tree size only. A node without a
    /// right neighbour moves up unchanged; leaves and nodes are hashed with different first bytes.
    function holds(bytes32 root, uint256 count, bytes32 value, uint256 index, bytes32[] calldata proof)
        internal
        pure
        returns (bool)
    {
        if (index >= count) return false;
        bytes32 node = keccak256(abi.encodePacked(uint8(0), value));
        uint256 used = 0;
        while (count > 1) {
            // slither-disable-next-line incorrect-exp
            if ((index ^ 1) < count) {
                if (used == proof.length) return false;
                bytes32 sibling = proof[used++];
                node = (index & 1) == 1
                    ? keccak256(abi.encodePacked(uint8(1), sibling, node))
                    : keccak256(abi.encodePacked(uint8(1), node, sibling));
            }
            index >>= 1;
            count = (count + 1) >> 1;
        }
        return used == proof.length && node == root;
    }
}
