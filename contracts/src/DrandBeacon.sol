// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {BLS} from "solady/src/utils/ext/ithaca/BLS.sol";
import {IBeacon} from "./Interfaces.sol";

/// @title drand's threshold signatures as beacons, verified here.
///
/// @notice What is committed in an epoch is drawn by the first pulse that drand signs later than `marginS` after its end:
///
///     epoch e: commitments ─┤ end ── marginS ──┤ pulse of roundOf(e), by whoever brings it ── spanS ──┤ lapsed
///
/// Nobody below drand's threshold can know a pulse before its time or choose among several. `marginS` is how late a block
/// of epoch e may be made, by the clock of the world, without its maker knowing the pulse. A pulse that nobody brought
/// within `spanS` is replaced by the chain's own randomness, so that no outage of drand keeps a commitment from its draw:
/// what ChainBeacon is always, this is at worst. At every second one of the two is taken, never either.
///
/// Scheme bls-unchained-g1-rfc9380 (quicknet): the signature lies on G1, the key on G2, the message is sha256(uint64 round).
/// The curve's arithmetic is the chain's precompiles (EIP-2537), which check both groups.
contract DrandBeacon is IBeacon {
    event BeaconRecorded(uint32 indexed round, bytes32 beacon);

    /// @dev Nobody brought the pulse in time; the chain's randomness took its place.
    event PulseLapsed(uint32 indexed round);

    error BeaconPending(uint256 round);
    error AlreadyRecorded(uint256 round);
    /// @dev No epoch is drawn by this round.
    error DrawsNothing(uint256 round);
    error TooEarly(uint256 from);
    error TooLate(uint256 by);
    /// @dev This is not what drand signed for that round.
    error FalsePulse(uint256 round);
    /// @dev Raised by the library: what was given is no point of the group.
    error PairingFailed();
    error ParameterOutOfRange(bytes32 name, uint256 value);

    bytes private constant _SUITE = "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";
    uint32 public constant MAX_MARGIN_S = 1 days;

    // The field's order, and its half: of two points with one x, the greater y is the one above.
    bytes32 private constant _P_A = bytes32(uint256(0x1a0111ea397fe69a4b1ba7b6434bacd7));
    bytes32 private constant _P_B = 0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab;
    uint256 private constant _HALF_A = 0x0d0088f51cbff34d258dd3db21a5d66b;
    uint256 private constant _HALF_B = 0xb23ba5c279c2895fb39869507b587b120f55ffff58a9ffffdcff7fffffffd555;

    /// @notice When drand signs its round 1, and seconds between two rounds.
    uint64 public immutable genesisS;
    uint32 public immutable periodS;
    /// @notice Seconds of an epoch: epoch = timestamp / spanS. And for which a pulse is taken after its time.
    uint32 public immutable spanS;
    uint32 public immutable marginS;

    /// @dev drand's public key, a point of G2 as EIP-2537 writes it.
    bytes32 private immutable _k0;
    bytes32 private immutable _k1;
    bytes32 private immutable _k2;
    bytes32 private immutable _k3;
    bytes32 private immutable _k4;
    bytes32 private immutable _k5;
    bytes32 private immutable _k6;
    bytes32 private immutable _k7;

    mapping(uint256 round => bytes32) private _words;

    /// @dev Fails where the precompiles are missing, and for a key that is no point of the group, or its identity.
    constructor(uint64 genesisS_, uint32 periodS_, uint32 spanS_, uint32 marginS_, BLS.G2Point memory key) {
        require(periodS_ != 0, ParameterOutOfRange("periodS", periodS_));
        require(spanS_ >= periodS_, ParameterOutOfRange("spanS", spanS_));
        require(marginS_ >= periodS_ && marginS_ <= MAX_MARGIN_S, ParameterOutOfRange("marginS", marginS_));
        require(genesisS_ > marginS_, ParameterOutOfRange("genesisS", genesisS_));
        BLS.G1Point[] memory hashed = new BLS.G1Point[](1);
        BLS.G2Point[] memory keys = new BLS.G2Point[](1);
        (hashed[0], keys[0]) = (_hashed(1), key);
        require(!BLS.pairing(hashed, keys), ParameterOutOfRange("key", 0));
        genesisS = genesisS_;
        periodS = periodS_;
        spanS = spanS_;
        marginS = marginS_;
        _k0 = key.x_c0_a;
        _k1 = key.x_c0_b;
        _k2 = key.x_c1_a;
        _k3 = key.x_c1_b;
        _k4 = key.y_c0_a;
        _k5 = key.y_c0_b;
        _k6 = key.y_c1_a;
        _k7 = key.y_c1_b;
    }

    // --- public: anyone ---

    /// @notice Record a round's pulse: its signature as EIP-2537 writes a point of G1. Anyone may call, once.
    /// @dev Abuse: a forged pulse fits no key; another encoding of the right one doesn't exist (the precompiles take
    /// coordinates below the order only, and points of the group only). Before its time, by this chain's clock, a pulse is
    /// refused even if it is right: then the epoch that it draws from is over for certain.
    function recordPulse(uint32 round, BLS.G1Point calldata signature) external {
        uint256 from = _open(round);
        require(block.timestamp >= from, TooEarly(from));
        require(block.timestamp <= from + spanS, TooLate(from + spanS));
        require(_signed(round, signature), FalsePulse(round));
        _record(round, keccak256(abi.encodePacked(sha256(_compressed(signature)), uint64(round))));
    }

    /// @notice Record the chain's randomness for a round whose pulse nobody brought. Anyone may call, once it is too late.
    /// @dev Abuse: keeping pulses off the chain for `spanS`, then waiting for a block that draws kindly. Whoever can do
    /// that to all others can keep their votes out as well.
    function recordLapsed(uint32 round) external {
        uint256 from = _open(round) + spanS;
        require(block.timestamp > from, TooEarly(from + 1));
        emit PulseLapsed(round);
        _record(round, keccak256(abi.encodePacked(block.prevrandao, uint64(round))));
    }

    /// @inheritdoc IBeacon
    /// @dev Abuse: none; it changes nothing. No pulse is taken before the epoch's end, so this round's isn't recorded.
    function next() external view returns (uint32 round) {
        return roundOf(block.timestamp / spanS);
    }

    // --- views ---

    /// @inheritdoc IBeacon
    function beacons(uint256 round) external view returns (bytes32 word) {
        word = _words[round];
        require(word != 0, BeaconPending(round));
    }

    /// @notice The round that draws from what was committed in an epoch: the first later than `marginS` after its end.
    function roundOf(uint256 epoch) public view returns (uint32) {
        uint256 end = (epoch + 1) * spanS + marginS;
        return SafeCast.toUint32(end < genesisS ? 1 : (end - genesisS) / periodS + 2);
    }

    /// @notice When drand signs a round.
    function timeOf(uint32 round) public view returns (uint256) {
        return genesisS + (uint256(round) - 1) * periodS;
    }

    // --- internal ---

    function _record(uint32 round, bytes32 word) internal {
        _words[round] = word;
        emit BeaconRecorded(round, word);
    }

    /// @dev The round's time, if it draws from an epoch and isn't recorded.
    function _open(uint32 round) internal view returns (uint256 time) {
        require(round != 0, DrawsNothing(round));
        require(_words[round] == 0, AlreadyRecorded(round));
        time = timeOf(round);
        // The newest epoch whose end, and the margin, lie before `time`.
        uint256 ends = (time - 1 - marginS) / spanS;
        require(ends != 0 && roundOf(ends - 1) == round, DrawsNothing(round));
    }

    /// @dev e(signature, g2) == e(H(round), key), as e(signature, -g2) e(H(round), key) == 1.
    function _signed(uint32 round, BLS.G1Point calldata signature) internal view returns (bool) {
        BLS.G1Point[] memory left = new BLS.G1Point[](2);
        BLS.G2Point[] memory right = new BLS.G2Point[](2);
        (left[0], left[1]) = (signature, _hashed(round));
        right[0] = BLS.G2Point(
            bytes32(uint256(0x024aa2b2f08f0a91260805272dc51051)),
            0xc6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8,
            bytes32(uint256(0x13e02b6052719f607dacd3a088274f65)),
            0x596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e,
            bytes32(uint256(0x0d1b3cc2c7027888be51d9ef691d77bc)),
            0xb679afda66c73f17f9ee3837a55024f78c71363275a75d75d86bab79f74782aa,
            bytes32(uint256(0x13fa4d4a0ad8b1ce186ed5061789213d)),
            0x993923066dddaf1040bc3ff59f825c78df74f2d75467e25e0f55f8a00fa030ed
        );
        right[1] = BLS.G2Point(_k0, _k1, _k2, _k3, _k4, _k5, _k6, _k7);
        return BLS.pairing(left, right);
    }

    /// @dev RFC 9380: hash_to_curve of sha256(uint64 round), suite BLS12381G1_XMD:SHA-256_SSWU_RO_. The precompile maps a
    /// field element to G1, cofactor and all; what is left to do here is hash_to_field, 5.2 and 5.3.1 for 128 bytes.
    function _hashed(uint32 round) internal view returns (BLS.G1Point memory) {
        bytes memory suite = abi.encodePacked(_SUITE, uint8(_SUITE.length));
        bytes32 message = sha256(abi.encodePacked(uint64(round)));
        bytes32 b0 = sha256(abi.encodePacked(new bytes(64), message, uint16(128), uint8(0), suite));
        bytes32 b1 = sha256(abi.encodePacked(b0, uint8(1), suite));
        bytes32 b2 = sha256(abi.encodePacked(b0 ^ b1, uint8(2), suite));
        bytes32 b3 = sha256(abi.encodePacked(b0 ^ b2, uint8(3), suite));
        bytes32 b4 = sha256(abi.encodePacked(b0 ^ b3, uint8(4), suite));
        return BLS.add(BLS.toG1(_reduced(b1, b2)), BLS.toG1(_reduced(b3, b4)));
    }

    /// @dev A number of 64 bytes modulo the field's order.
    function _reduced(bytes32 high, bytes32 low) internal view returns (BLS.Fp memory) {
        bytes memory rest = Math.modExp(abi.encodePacked(high, low), hex"01", abi.encodePacked(_P_A, _P_B));
        return abi.decode(rest, (BLS.Fp));
    }

    /// @dev The 48 bytes that drand publishes: x, and in the first three bits that it is compressed, not the identity, and
    /// which of the two y it is.
    function _compressed(BLS.G1Point calldata point) internal pure returns (bytes memory) {
        uint256 a = uint256(point.y_a);
        bool greater = a > _HALF_A || (a == _HALF_A && uint256(point.y_b) > _HALF_B);
        uint128 flags = uint128(greater ? 0xa0 : 0x80) << 120;
        return abi.encodePacked(uint128(uint256(point.x_a)) | flags, point.x_b);
    }
}
