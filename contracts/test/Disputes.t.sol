// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Audits} from "../src/Audits.sol";
import {Disputes} from "../src/Disputes.sol";
import {IPanel, IRegistry} from "../src/Interfaces.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {LeaseHandler, LeasesTest} from "./Leases.t.sol";
import {VM} from "./Money.t.sol";

/// @dev The same histories of leases, with the contract for disputes playing: moves by the rules and against them.
contract DisputeHandler is LeaseHandler {
    Disputes public disputes;
    uint96 public constant BOND = 700;
    uint256 public begun;
    uint256 public ended;

    constructor() {
        disputes = new Disputes(
            IERC20(address(token)),
            IRegistry(address(registry)),
            IPanel(address(panel)),
            leases,
            audits,
            Disputes.Parameters(20, 30, 20, 3, BOND)
        );
        for (uint256 i = 0; i < 3; ++i) {
            VM.prank(auditors[i]);
            token.approve(address(disputes), type(uint256).max);
        }
    }

    // --- actions ---

    function start(uint256 which, uint256 turn) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        VM.prank(audits.opinionsOf(id)[turn % 2].auditor);
        disputes.startDispute(id);
        ++begun;
    }

    /// @dev Some moves of a dispute, from the audit that leads to it on: `truth` says whether referees find for the accuser.
    function play(uint256 which, uint256 times, bool truth, uint8 part) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        for (uint256 i = 0; i < 9 && leases.leaseOf(id).state < 4 && audits.auditOf(id).state < 5; ++i) {
            _step(id, false);
        }
        if (disputes.disputeOf(id).stage == 0) {
            VM.prank(audits.opinionsOf(id)[0].auditor);
            disputes.startDispute(id);
            ++begun;
        }
        for (uint256 i = 0; i < 1 + times % 7; ++i) _move(id, truth, part);
        if (disputes.disputeOf(id).stage == 5) ++ended;
        _noteEnd(id);
    }

    function end(uint256 which) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        disputes.expireDispute(id);
        _noteEnd(id);
    }

    /// @dev Anybody's attempt at anything of a dispute.
    function meddle(uint256 which, uint256 who, uint256 kind, bytes32 word, uint8 part) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        VM.prank(who % 5 < 3 ? auditors[who % 5] : providers[who % 2]);
        if (kind % 5 == 0) disputes.assertTrace(id, new bytes32[](15));
        else if (kind % 5 == 1) disputes.selectRange(id, part % 17, word, new bytes32[](15));
        else if (kind % 5 == 2) disputes.commitReferee(id, word);
        else if (kind % 5 == 3) disputes.revealReferee(id, word, SALT);
        else disputes.startDispute(id);
    }

    // --- what the parties do next ---

    function _move(bytes32 id, bool truth, uint8 part) internal {
        Disputes.Dispute memory found = disputes.disputeOf(id);
        uint256 length = found.high - found.low;
        bytes32[] memory inner = new bytes32[]((length < 16 ? length : 16) - 1);
        if (found.stage == 1) {
            VM.prank(found.provider);
            disputes.assertTrace(id, inner);
        } else if (found.stage == 2) {
            VM.prank(found.accuser);
            uint8 chosen = uint8(part % (inner.length + 1));
            disputes.selectRange(id, chosen, chosen == inner.length ? found.denied : bytes32("mine"), inner);
        } else if (found.stage == 3 || found.stage == 4) {
            bytes32 result = truth ? found.denied : found.claimed;
            for (uint256 i = 0; i < 3; ++i) _speak(id, found, auditors[i], result);
        }
    }

    function _speak(bytes32 id, Disputes.Dispute memory found, address who, bytes32 result) internal {
        Disputes.Voice memory voice = disputes.voiceOf(id, found.level, who);
        if (found.stage == 3 && voice.weight != 0 && !voice.sealedIt) {
            VM.prank(who);
            disputes.commitReferee(id, keccak256(abi.encodePacked(result, who, id, SALT)));
        } else if (found.stage == 4 && voice.sealed_ != 0 && disputes.disputeOf(id).stage == 4) {
            VM.prank(who);
            disputes.revealReferee(id, result, SALT);
        }
    }

    function _disputesAt(uint64 nonce) internal override returns (address) {
        return VM.computeCreateAddress(address(this), nonce);
    }

    function _units() internal pure override returns (uint64) {
        return 40;
    }
}

/// @dev All that holds of leases holds with disputes too, and:
contract DisputesTest is LeasesTest {
    function setUp() public override {
        handler = new DisputeHandler();
    }

    /// Disputes holds one bond for each that is not over, and nothing more; none goes on about a lease that isn't disputed.
    function invariant_disputes_conserve_money() public view {
        DisputeHandler mine = DisputeHandler(address(handler));
        uint256 held = 0;
        for (uint256 i = 0; i < handler.count(); ++i) {
            bytes32 id = handler.ids(i);
            uint8 stage = mine.disputes().disputeOf(id).stage;
            uint8 audit = handler.audits().auditOf(id).state;
            bool live = stage != 0 && stage != 5;
            if (live) held += mine.disputes().disputeOf(id).bond;
            require(!live || audit == 6 || audit == 8, "a dispute without an accusation");
            require(audit != 6 || live, "an accusation without a dispute");
        }
        require(handler.token().balanceOf(address(mine.disputes())) == held, "bonds of disputes not conserved");
    }

    /// A range never grows, is never empty, and is one step once referees judge.
    function invariant_disputes_narrow() public view {
        DisputeHandler mine = DisputeHandler(address(handler));
        for (uint256 i = 0; i < handler.count(); ++i) {
            Disputes.Dispute memory found = mine.disputes().disputeOf(handler.ids(i));
            if (found.stage == 0) continue;
            require(found.low < found.high && found.high <= 40, "no range");
            require(found.stage < 3 || found.stage == 5 || found.high == found.low + 1, "referees of more than a step");
        }
    }
}
