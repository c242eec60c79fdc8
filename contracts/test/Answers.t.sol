// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Court} from "../src/Court.sol";
import {Token} from "../src/Token.sol";
import {EPOCH_S, Handler, VM, WINDOW_S} from "./Money.t.sol";

/// Answers in parts: whatever the order, the count and the pace, the bond is paid once, and in time or not at all.
contract AnswersTest {
    uint32 public constant LIST = type(uint32).max;
    uint32 public constant ANSWER_S = 10;

    Handler public handler;
    Court public court;
    Token public token;
    address public provider;
    address public validator;
    uint64 public epoch;

    function setUp() public {
        handler = new Handler();
        court = handler.court();
        token = handler.token();
        provider = VM.addr(handler.providers(0));
        validator = VM.addr(handler.validator());
        handler.pass(2 * EPOCH_S);
        handler.commit(0, 1_000);
        epoch = handler.committed(0);
        VM.prank(validator);
        token.approve(address(court), type(uint256).max);
        VM.prank(validator);
        court.challenge(provider, epoch, LIST);
    }

    function _give(uint8 part, uint8 parts) internal returns (bool) {
        VM.prank(provider);
        try court.answerChallenge(provider, epoch, LIST, part, parts, hex"00") {
            return true;
        } catch {
            return false;
        }
    }

    function _state() internal view returns (bool answered, uint128 bond, uint64 received) {
        (,,,, answered, bond, received) = court.challenges(court.challengeKey(provider, epoch, LIST));
    }

    /// In an order drawn from `seed`, with every part sent twice: answered by the last new one, paid once.
    function test_any_order_is_complete_once(uint256 seed, uint8 count) public {
        uint8 parts = 1 + count % court.MAX_PARTS();
        uint8 step = 1 + 2 * uint8(seed % 32);
        uint256 before = token.balanceOf(provider);
        uint256 given = 0;
        for (uint256 i = 0; i < 64; ++i) {
            uint8 part = uint8((seed % 64 + i * step) % 64);
            bool taken = _give(part, parts);
            require(taken == (part < parts), "a part that is due was refused, or another taken");
            if (taken) ++given;
            require(!_give(part, parts), "a part was taken twice");
            (bool answered, uint128 bond,) = _state();
            require(answered == (given == parts), "answered too early, or not");
            require(bond == (answered ? 0 : 1_000), "the bond is paid by the last part");
            if (answered) break;
        }
        require(token.balanceOf(provider) == before + 1_000, "the bond was not paid once");
        require(!_give(0, parts), "answered, and more was taken");
    }

    /// Given at any pace, a part counts by the deadline if it is the first, by the finish else.
    function test_a_part_counts_in_time_or_not_at_all(uint8 first, uint8 second) public {
        uint256 began = handler.now_();
        VM.warp(began + first % 40);
        bool begun = _give(0, 2);
        require(begun == (first % 40 <= ANSWER_S), "the first part's deadline");
        uint256 later = uint256(first % 40) + second % 40;
        VM.warp(began + later);
        bool done = _give(1, 2);
        require(done == (later <= (begun ? 2 * ANSWER_S : ANSWER_S)), "the other part's deadline");
        if (begun && done) return;
        VM.warp(began + later + 2 * ANSWER_S + 1);
        uint256 before = token.balanceOf(validator);
        court.recoverBond(provider, epoch, LIST);
        require(token.balanceOf(validator) == before + 1_000, "what wasn't answered goes back to who asked");
    }

    /// Another count than the first part's is refused, and so is one beyond the most.
    function test_the_first_part_binds(uint8 part, uint8 parts, uint8 other) public {
        bool taken = _give(part, parts);
        require(taken == (part < parts && parts <= court.MAX_PARTS()), "parts within bounds");
        if (taken && other != parts) require(!_give(part, other), "another count");
    }

    /// Whenever it is allowed, a challenge leaves the votes their time.
    function test_a_challenge_leaves_time_for_votes(uint8 wait) public {
        VM.prank(provider);
        court.answerChallenge(provider, epoch, LIST, 0, 1, hex"00");
        uint256 committed = handler.now_();
        VM.warp(committed + wait);
        VM.prank(validator);
        try court.challenge(provider, epoch, LIST) {
            (,, uint40 finish,,,,) = court.challenges(court.challengeKey(provider, epoch, LIST));
            require(finish + ANSWER_S <= committed + WINDOW_S, "no time to vote");
        } catch {
            require(wait + 3 * ANSWER_S > WINDOW_S, "refused in time");
        }
    }
}
