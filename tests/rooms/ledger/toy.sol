// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;
/// The test-suite's own contract: a token, and every way to fail.
contract Toy {
    event Transfer(address indexed from, address indexed to, uint256 value);
    event Noted(bytes32 indexed key, address indexed who, uint256 indexed number, bytes data, string text);
    error Insufficient(address who, uint256 has, uint256 wants);
    mapping(address => uint256) public balanceOf;
    uint256 public total;
    uint256[] public list;
    uint256 public lastRandao;
    uint256 public lastTime;
    constructor(uint256 supply) { balanceOf[msg.sender] = supply; total = supply; }
    function mint(address to, uint256 value) external { balanceOf[to] += value; total += value; emit Transfer(address(0), to, value); }
    function transfer(address to, uint256 value) external returns (bool) {
        uint256 has = balanceOf[msg.sender];
        if (has < value) revert Insufficient(msg.sender, has, value);
        unchecked { balanceOf[msg.sender] = has - value; }
        balanceOf[to] += value;
        emit Transfer(msg.sender, to, value);
        return true;
    }
    function note(bytes32 key, uint256 number, bytes calldata data, string calldata text) external { emit Noted(key, msg.sender, number, data, text); }
    function many(uint256 n) external { for (uint256 i; i < n; i++) { list.push(i + 1); emit Transfer(msg.sender, address(uint160(i + 1)), i); } }
    function clear(uint256 n) external { for (uint256 i; i < n; i++) list.pop(); }
    function fails(string calldata why) external pure { revert(why); }
    function panics() external pure returns (uint256 x) { x = 1; assert(x == 2); }
    function burns() external { while (true) list.push(1); }
    function remember() external { lastRandao = block.prevrandao; lastTime = block.timestamp; }
    function make() external returns (address a) { a = address(new Child()); }
    function makeAndKill() external returns (address a) { Child c = new Child(); c.kill(); a = address(c); }
    function transient_(uint256 v) external returns (uint256 was) { assembly { was := tload(7) tstore(7, v) } }
    receive() external payable {}
    function pay(address payable to) external payable { (bool ok,) = to.call{value: msg.value}(""); require(ok); }
}
contract Child { uint256 public x = 5; function kill() external { selfdestruct(payable(msg.sender)); } }
