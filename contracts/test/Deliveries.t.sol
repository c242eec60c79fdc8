// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Deliveries} from "../src/Deliveries.sol";
import {LeaseHandler, LeasesTest} from "./Leases.t.sol";
import {VM} from "./Money.t.sol";

/// @dev The same histories of leases, with outputs demanded, reported and expired in any order.
contract DeliveryHandler is LeaseHandler {
    uint96 public constant BOND = 300;
    /// Ghost: leases that were paid while a demand was open.
    uint256 public paidTooEarly;

    // --- actions ---

    function demand(uint256 which) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        VM.prank(REQUESTER);
        deliveries.demandDelivery(id);
    }

    /// @dev Demanded, reported by some, and, unless they convicted, expired.
    function look(uint256 which, uint256 who, bool late) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        if (deliveries.demandOf(id).stage == 0) {
            VM.prank(REQUESTER);
            deliveries.demandDelivery(id);
            }
        for (uint256 i = 0; i < 3; ++i) {
            if ((who >> i) % 2 == 0 || deliveries.reported(id, auditors[i])) continue;
            if (deliveries.demandOf(id).stage == 1) _report(id, auditors[i]);
        }
        if (!late || deliveries.demandOf(id).stage != 1) return;
        _pass(31);
        deliveries.expireDemand(id);
    }

    function undelivered(uint256 which, uint256 who) external {
        VM.warp(now_);
        _report(_some(which), auditors[who % 3]);
    }

    function forget(uint256 which) external {
        VM.warp(now_);
        deliveries.expireDemand(_some(which));
    }

    function closeDemanded(uint256 which) external {
        bytes32 id = _some(which);
        bool open = deliveries.isDemanded(id);
        _close(id);
        if (open && paidOut[id] != 0) ++paidTooEarly;
    }

    function _report(bytes32 id, address who) internal {
        VM.prank(who);
        deliveries.reportUndelivered(id);
        _noteEnd(id);
    }
}

/// @dev All that holds of leases holds with demands too, and:
contract DeliveriesTest is LeasesTest {
    function setUp() public override {
        handler = new DeliveryHandler();
    }

    /// Deliveries holds one bond for each demand that is open, and nothing more.
    function invariant_demands_conserve_money() public view {
        DeliveryHandler mine = DeliveryHandler(address(handler));
        uint256 held = 0;
        for (uint256 i = 0; i < handler.count(); ++i) {
            if (handler.deliveries().isDemanded(handler.ids(i))) held += mine.BOND();
        }
        require(handler.token().balanceOf(address(handler.deliveries())) == held, "bonds of demands not conserved");
    }

    /// No lease is paid while the panel looks for its outputs.
    function invariant_demanded_leases_are_not_paid() public view {
        require(DeliveryHandler(address(handler)).paidTooEarly() == 0, "paid while demanded");
    }
}
