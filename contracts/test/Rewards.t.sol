// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Rewards} from "../src/Rewards.sol";
import {Token} from "../src/Token.sol";
import {IBeacon, IPanel, IRegistry} from "../src/Interfaces.sol";
import {VM, WINDOW_S} from "./Money.t.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @dev Pots of three participants, one of whom is slashed some day; the handler plays Registry, beacon and Panel, on which three sit.
contract PotHandler {
    Token public token;
    Rewards public rewards;

    address public constant PAYER = address(0xCAFE);
    address public constant EVALUATOR = address(0xE7A1);
    address[3] public participants = [address(0xA01), address(0xA02), address(0xA03)];
    address[3] public members = [address(0xFA1), address(0xFA2), address(0xFA3)];
    uint256 public now_ = 1_700_000_000;
    bool public slashed;

    bytes32[] public ids;
    mapping(bytes32 id => Rewards.Pot) internal _pots;
    mapping(bytes32 id => uint64[]) internal _scores;
    /// Ghosts: all that came in, and went out.
    uint256 public paidIn;
    uint256 public paidOut;
    uint256 public closed;
    uint256 public replaced;
    uint256 public wrong;

    constructor() {
        VM.warp(now_);
        token = new Token(address(this), 1e18);
        rewards = new Rewards(
            IERC20(address(token)), IRegistry(address(this)), IPanel(address(this)), IBeacon(address(this)), WINDOW_S
        );
        _equip(PAYER);
        _equip(EVALUATOR);
        for (uint256 i = 0; i < 3; ++i) _equip(participants[i]);
    }

    function _equip(address who) internal {
        token.transfer(who, 1e14);
        VM.prank(who);
        token.approve(address(rewards), type(uint256).max);
    }

    // --- Registry, Panel and beacon ---

    function next() external pure returns (uint32) {
        return 1;
    }

    function ownerOf(address key) external pure returns (address) {
        return key;
    }

    function standing(address key) external pure returns (address, uint8) {
        return (key, 0);
    }

    function participants_(address owner) internal view returns (bool) {
        return slashed && owner == participants[0];
    }

    fallback(bytes calldata data) external returns (bytes memory) {
        address owner = abi.decode(data[4:], (address));
        return abi.encode(uint128(0), uint8(0), participants_(owner), uint40(0), uint128(0), bytes32(0));
    }

    function shares(address owner, uint40, address[] calldata) external view returns (uint256, uint256) {
        for (uint256 i = 0; i < 3; ++i) if (members[i] == owner) return (10, 30);
        return (0, 30);
    }

    // --- actions ---

    function pass(uint256 seconds_) external {
        now_ += 1 + seconds_ % (2 * WINDOW_S);
        VM.warp(now_);
    }

    function open(uint128 amount, uint64 full) external {
        VM.warp(now_);
        address[] memory who = new address[](3);
        for (uint256 i = 0; i < 3; ++i) who[i] = participants[i];
        // Each was brought by the one before; the first brought itself under another name.
        address[] memory by = new address[](3);
        (by[0], by[1], by[2]) = (members[0], participants[0], participants[1]);
        Rewards.Pot memory pot = Rewards.Pot({
            payer: PAYER,
            evaluator: EVALUATOR,
            study: 0,
            amount: 1 + amount % 1e9,
            full: full % 500,
            joinBy: uint40(now_ + 20),
            scoreBy: uint40(now_ + 50),
            referralBps: uint16(full % 2001),
            nonce: bytes32(ids.length),
            participants: who,
            referrers: by
        });
        VM.prank(PAYER);
        bytes32 id = rewards.openPot(pot);
        ids.push(id);
        _pots[id] = pot;
        paidIn += pot.amount;
    }

    function join(uint256 which, uint256 who) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        VM.prank(participants[who % 3]);
        rewards.joinPot(_pots[id], "rows");
    }

    function score(uint256 which, uint64 a, uint64 b, uint64 c) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        uint64[] memory given = new uint64[](3);
        (given[0], given[1], given[2]) = (a % 100, b % 3, c);
        VM.prank(EVALUATOR);
        rewards.scorePot(_pots[id], 0, given);
        _scores[id] = given;
        paidIn += rewards.standOf(id).scoreBond;
    }

    function contest(uint256 which, uint256 who) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        VM.prank(participants[who % 3]);
        rewards.contestPot(_pots[id]);
        paidIn += rewards.standOf(id).bond;
    }

    function vote(uint256 which, uint256 who, bool other) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        uint64[] memory right = new uint64[](3);
        (right[0], right[1], right[2]) = (1, 2, 3);
        bytes32 digest = other ? rewards.scoresHash(id, 0, right) : rewards.standOf(id).digest;
        VM.prank(members[who % 3]);
        rewards.votePot(_pots[id], digest);
        if (!rewards.standOf(id).replaced) return;
        _scores[id] = right;
        ++replaced;
    }

    function close(uint256 which) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        Rewards.Pot memory pot = _pots[id];
        uint64[] memory scores = _scores[id];
        uint256 owedBefore = _owedToAll();
        uint256 bonds = 0;
        if (rewards.standOf(id).stage == 3) bonds += rewards.standOf(id).bond;
        if (rewards.standOf(id).stage < 4) bonds += rewards.standOf(id).scoreBond;
        rewards.closePot(pot, 0, scores);
        ++closed;
        // Whatever was earned, referred and refunded is the pot, to the unit.
        if (_owedToAll() - owedBefore != pot.amount + bonds) ++wrong;
    }

    function _owedToAll() internal view returns (uint256 all) {
        all = rewards.owed(PAYER) + rewards.owed(EVALUATOR) + rewards.owed(members[0]);
        for (uint256 i = 0; i < 3; ++i) all += rewards.owed(participants[i]);
    }

    function take(uint256 who) external {
        address[6] memory all =
            [PAYER, EVALUATOR, members[0], participants[0], participants[1], participants[2]];
        address payee = all[who % 6];
        paidOut += rewards.owed(payee);
        rewards.takeOwed(payee);
    }

    function slash(uint256 dice) external {
        VM.assume(dice % 16 == 0);
        slashed = true;
    }

    function _some(uint256 which) internal view returns (bytes32) {
        VM.assume(ids.length != 0);
        uint256 back = which % (ids.length < 3 ? ids.length : 3);
        return ids[ids.length - 1 - back];
    }

    // --- views ---

    function count() external view returns (uint256) {
        return ids.length;
    }

    function amountOf(bytes32 id) external view returns (uint128) {
        return _pots[id].amount;
    }
}

contract RewardsTest {
    PotHandler public handler;

    function setUp() public {
        handler = new PotHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// What is open, bonded or owed is there, to the unit, and what came in went out once.
    function invariant_pots_conserve_money() public view {
        Rewards rewards = handler.rewards();
        uint256 held =
            rewards.owed(handler.PAYER()) + rewards.owed(handler.EVALUATOR()) + rewards.owed(handler.members(0));
        for (uint256 i = 0; i < 3; ++i) held += rewards.owed(handler.participants(i));
        for (uint256 i = 0; i < handler.count(); ++i) {
            bytes32 id = handler.ids(i);
            Rewards.Stand memory stand = rewards.standOf(id);
            if (stand.stage != 5) held += handler.amountOf(id);
            if (stand.stage == 3) held += stand.bond;
            if (stand.stage < 4) held += stand.scoreBond;
        }
        require(handler.token().balanceOf(address(rewards)) == held, "money not conserved");
        require(handler.paidIn() == handler.paidOut() + held, "some of it is missing");
    }

    /// Shares, referrals and what goes back are the pot and its bonds, to the unit.
    function invariant_shares_are_exact() public view {
        require(handler.wrong() == 0, "a share is wrong");
    }
}

/// @dev The dearest pot that there can be.
contract RewardsUnitTest {
    function test_the_largest_pot_can_be_closed() external {
        PotHandler handler = new PotHandler();
        Rewards rewards = handler.rewards();
        address[] memory who = new address[](64);
        uint64[] memory scores = new uint64[](64);
        for (uint256 i = 0; i < 64; ++i) {
            who[i] = address(uint160(0x1000 + i));
            scores[i] = type(uint64).max - uint64(i * i);
        }
        address[] memory by = new address[](64);
        for (uint256 i = 0; i < 64; ++i) by[i] = address(uint160(0x2000 + i));
        Rewards.Pot memory pot = Rewards.Pot({
            payer: handler.PAYER(),
            evaluator: handler.EVALUATOR(),
            study: 0,
            amount: 1e13 + 63,
            full: 0,
            joinBy: uint40(handler.now_()),
            scoreBy: uint40(handler.now_()),
            referralBps: 2000,
            nonce: 0,
            participants: who,
            referrers: by
        });
        VM.prank(pot.payer);
        rewards.openPot(pot);
        for (uint256 i = 0; i < 64; ++i) {
            VM.prank(who[i]);
            rewards.joinPot(pot, "rows");
        }
        VM.prank(pot.evaluator);
        rewards.scorePot(pot, 0, scores);
        VM.warp(handler.now_() + WINDOW_S + 1);
        uint256 before = gasleft();
        rewards.closePot(pot, 0, scores);
        require(before - gasleft() < 9_000_000, "dearer than a third of a block");
        uint256 sum = 0;
        for (uint256 i = 0; i < 64; ++i) sum += rewards.owed(who[i]) + rewards.owed(by[i]);
        require(sum == pot.amount, "all of it");
    }
}
