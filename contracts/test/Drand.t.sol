// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DrandBeacon} from "../src/DrandBeacon.sol";
import {VM} from "./Money.t.sol";
import {BLS} from "solady/src/utils/ext/ithaca/BLS.sol";

uint64 constant GENESIS_S = 1_692_803_367;
uint32 constant PERIOD_S = 3;

/// @dev Recorded rounds of quicknet; tests/vectors/drand.json holds the same.
/// forge-config: default.evm_version = "prague"
contract DrandTest {
    DrandBeacon public beacon;

    function setUp() public {
        VM.warp(GENESIS_S);
        // Epochs as long as drand's period: every round draws.
        beacon = new DrandBeacon(GENESIS_S, PERIOD_S, PERIOD_S, PERIOD_S, _key());
    }

    function test_recordedRoundsAreTaken() public {
        _takes(1, 0x1466a6cd24e327188770752f6134001c64d6efcc590ccc26b721611ad96f165a);
        _takes(1000, 0xfe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd);
        _takes(657_413, 0xfc1873a13f3545aeade8401532ef5519920652eee6b0d2b19ca12643b87b3587);
    }

    function test_onceOnly() public {
        _takes(1000, 0xfe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd);
        _refuses(1000, _signature(1000), DrandBeacon.AlreadyRecorded.selector);
    }

    function test_anotherRoundsSignatureIsRefused() public {
        _at(1000);
        _refuses(1000, _signature(1), DrandBeacon.FalsePulse.selector);
        _at(1001);
        _refuses(1001, _signature(1000), DrandBeacon.FalsePulse.selector);
    }

    function test_anotherKeysSignatureIsRefused() public {
        BLS.G2Point memory key = _key();
        (key.y_c0_a, key.y_c0_b) = _negated(key.y_c0_a, key.y_c0_b);
        (key.y_c1_a, key.y_c1_b) = _negated(key.y_c1_a, key.y_c1_b);
        beacon = new DrandBeacon(GENESIS_S, PERIOD_S, PERIOD_S, PERIOD_S, key);
        _at(1000);
        _refuses(1000, _signature(1000), DrandBeacon.FalsePulse.selector);
    }

    function test_theOtherPointWithTheSameXIsRefused() public {
        BLS.G1Point memory point = _signature(1000);
        (point.y_a, point.y_b) = _negated(point.y_a, point.y_b);
        _at(1000);
        _refuses(1000, point, DrandBeacon.FalsePulse.selector);
    }

    function test_theIdentityIsRefused() public {
        _at(1000);
        _refuses(1000, BLS.G1Point(0, 0, 0, 0), DrandBeacon.FalsePulse.selector);
    }

    function test_noPointOfTheGroupIsRefused() public {
        _at(1000);
        BLS.G1Point memory point = _signature(1000);
        point.y_b = bytes32(uint256(point.y_b) ^ 1);
        _refuses(1000, point, BLS.PairingFailed.selector);
        // On the curve, but of another order.
        point = BLS.G1Point(
            0,
            bytes32(uint256(4)),
            bytes32(uint256(0x0a989badd40d6212b33cffc3f3763e9b)),
            0xc760f988c9926b26da9dd85e928483446346b8ed00e1de5d5ea93e354abe706c
        );
        _refuses(1000, point, BLS.PairingFailed.selector);
        // The right point, its x written with the order added.
        point = _signature(1);
        uint256 low;
        unchecked {
            low = uint256(point.x_b) + _P_B;
        }
        uint256 carry = low < _P_B ? 1 : 0;
        (point.x_a, point.x_b) = (bytes32(uint256(point.x_a) + _P_A + carry), bytes32(low));
        _at(1);
        _refuses(1, point, BLS.PairingFailed.selector);
    }

    function test_aPulseHasItsTime() public {
        VM.warp(beacon.timeOf(1000) - 1);
        _refuses(1000, _signature(1000), DrandBeacon.TooEarly.selector);
        VM.warp(beacon.timeOf(1000) + beacon.spanS() + 1);
        _refuses(1000, _signature(1000), DrandBeacon.TooLate.selector);
    }

    function test_theChainTakesThePlaceOfAPulseThatNobodyBrought() public {
        VM.warp(beacon.timeOf(1000) + beacon.spanS());
        (bool done,) = address(beacon).call(abi.encodeCall(DrandBeacon.recordLapsed, (1000)));
        require(!done, "not while the pulse may come");
        VM.warp(beacon.timeOf(1000) + beacon.spanS() + 1);
        VM.prevrandao(keccak256("chain"));
        beacon.recordLapsed(1000);
        require(
            beacon.beacons(1000) == keccak256(abi.encodePacked(keccak256("chain"), uint64(1000))), "the chain's word"
        );
        (done,) = address(beacon).call(abi.encodeCall(DrandBeacon.recordLapsed, (1000)));
        require(!done, "once");
    }

    function test_aRoundThatDrawsNothingIsRefused() public {
        beacon = new DrandBeacon(GENESIS_S, PERIOD_S, 15, 3, _key());
        uint32 drawn = beacon.roundOf((GENESIS_S + 3_000) / 15);
        for (uint32 round = drawn - 4; round <= drawn + 4; ++round) {
            VM.warp(beacon.timeOf(round) + 16);
            (bool done,) = address(beacon).call(abi.encodeCall(DrandBeacon.recordLapsed, (round)));
            require(done == (round == drawn), "one round an epoch");
        }
    }

    function test_noKeyOutsideTheGroupIsTaken() public {
        BLS.G2Point memory none;
        _isNoKey(none);
        BLS.G2Point memory key = _key();
        key.x_c0_b = bytes32(uint256(key.x_c0_b) ^ 1);
        _isNoKey(key);
    }

    /// The round is later than the end of the commitment's epoch by more than the margin, and the first such; it can't be
    /// recorded while that epoch lasts.
    function testFuzz_theRoundIsBehindTheEpochAndTheMargin(uint32 passed, uint16 span, uint16 margin) public {
        uint32 spanS = 3 + uint32(span) % 7_200;
        uint32 marginS = 3 + uint32(margin) % 3_600;
        beacon = new DrandBeacon(GENESIS_S, PERIOD_S, spanS, marginS, _key());
        uint256 now_ = uint256(GENESIS_S) + spanS + passed;
        VM.warp(now_);
        uint32 round = beacon.next();
        uint256 end = (now_ / spanS + 1) * spanS;
        require(beacon.timeOf(round) > end + marginS, "later");
        require(beacon.timeOf(round) <= end + marginS + PERIOD_S, "the first");
        _refuses(round, _signature(1), DrandBeacon.TooEarly.selector);
    }

    // --- helpers ---

    uint256 private constant _P_A = 0x1a0111ea397fe69a4b1ba7b6434bacd7;
    uint256 private constant _P_B = 0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab;

    function _at(uint32 round) internal {
        VM.warp(beacon.timeOf(round));
    }

    function _takes(uint32 round, bytes32 randomness) internal {
        _at(round);
        beacon.recordPulse(round, _signature(round));
        require(beacon.beacons(round) == keccak256(abi.encodePacked(randomness, uint64(round))), "drand's word");
    }

    function _refuses(uint32 round, BLS.G1Point memory point, bytes4 why) internal {
        (bool done, bytes memory said) =
            address(beacon).call(abi.encodeCall(DrandBeacon.recordPulse, (round, point)));
        require(!done && bytes4(said) == why, "refused for this reason");
    }

    function _isNoKey(BLS.G2Point memory key) internal {
        try new DrandBeacon(GENESIS_S, PERIOD_S, PERIOD_S, PERIOD_S, key) {
            require(false, "no key");
        } catch {}
    }

    function _negated(bytes32 a, bytes32 b) internal pure returns (bytes32, bytes32) {
        uint256 borrow = uint256(b) > _P_B ? 1 : 0;
        unchecked {
            return (bytes32(_P_A - uint256(a) - borrow), bytes32(_P_B - uint256(b)));
        }
    }

    function _key() internal pure returns (BLS.G2Point memory) {
        return BLS.G2Point(
            bytes32(uint256(0x0d1fec758c921cc22b0e17e63aaf4bcb)),
            0x5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a,
            bytes32(uint256(0x03cf0f2896adee7eb8b5f01fcad39122)),
            0x12c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451,
            bytes32(uint256(0x0e5db2b6bfbb01c867749cadffca88b3)),
            0x6c24f3012ba09fc4d3022c5c37dce0f977d3adb5d183c7477c442b1f04515273,
            bytes32(uint256(0x01a714f2edb74119a2f2b0d5a7c75ba9)),
            0x02d163700a61bc224ededd8e63aef7be1aaf8e93d7a9718b047ccddb3eb5d68b
        );
    }

    function _signature(uint32 round) internal pure returns (BLS.G1Point memory) {
        if (round == 1) {
            return BLS.G1Point(
                bytes32(uint256(0x155e7cb2d5c613ee0b2e28d6750aabbb)),
                0x78c39dcc96bd9d38c2c2e12198df95571de8e8e402a0cc48871c7089a2b3af4b,
                bytes32(uint256(0x0fbb74ee8788264320f2501b0fa0dd56)),
                0x363bcec5ce4b113b2bf1de6e331116c79191af99234824f03aeb10ab1c4c7771
            );
        }
        if (round == 1000) {
            return BLS.G1Point(
                bytes32(uint256(0x144679b9a59af2ec876b1a6b1ad52ea9)),
                0xb1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39,
                bytes32(uint256(0x11f92e4521ef54f047b64b85fa98db2d)),
                0x46f0f44add1f60b93f8a0dbddd63b34f238657c2d93aed18b90bddd60a01b6d2
            );
        }
        return BLS.G1Point(
            bytes32(uint256(0x1713718a38ae728dfd477991af2822e0)),
            0x8d2f305e47718cef9f7848ce4050e7be41076862b98fad56e91a6b85b89cd97b,
            bytes32(uint256(0x116c5214fdfb7ba78de63a90904f73c9)),
            0x35e28a89e5c815c43a49dfc8058ed0d2b7de6f98eae4a917bb868989bd0302b7
        );
    }
}
