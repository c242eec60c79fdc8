// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IDeliveries, ILeases, IPanel, IRegistry} from "./Interfaces.sol";

/// @title Whether the requester of a committed lease can have its outputs, and whether they are those of its last state.
///
/// @notice No contract sees who handed what to whom. So a requester who was not served, or was served something else than
/// the last state gives, puts up a bond and has the panel look: its members ask the provider for that state, each by itself.
///
///     demandDelivery ──> OPEN ── reportUndelivered: 2/3 of the panel's stake ──> the provider is convicted: WITHHELD
///                         └────── expireDemand: fewer until then ────────────> the bond is the provider's
///
/// Who had the outputs all along demands for nothing: the members are served too, and pass on what they got. The lease
/// isn't paid while a demand is open. Members weigh what they did before the commitment, provider and requester nothing.
contract Deliveries is IDeliveries {
    using SafeERC20 for IERC20;

    /// @dev `weight` of those who reported; `payer` put up the bond.
    struct Demand {
        uint8 stage;
        uint40 by;
        address payer;
        uint128 weight;
    }

    struct Parameters {
        uint32 deliverS;
        uint96 bond;
    }

    // --- events ---

    event DeliveryDemanded(bytes32 indexed id, address indexed requester, address indexed provider, uint40 by);
    event UndeliveredReported(bytes32 indexed id, address indexed member, uint256 weight, uint256 total);
    event DemandEnded(bytes32 indexed id, uint8 outcome);

    // --- errors ---

    error NotRequester(address caller);
    error NotMember(address caller);
    /// @dev The lease isn't committed, or closed again.
    error NotCommitted(bytes32 id);
    /// @dev One demand a lease: there was one, or there is none.
    error WrongStage(bytes32 id, uint256 stage);
    error TooLate(uint256 by);
    error NotExpired(uint256 by);
    error AlreadyReported(address member);
    error ParameterOutOfRange(bytes32 name, uint256 value);

    // --- constants ---

    uint8 private constant _OPEN = 1;
    uint8 private constant _ENDED = 2;

    /// @dev How it ended: a closed list, the same numbers in protocol/leases.py.
    uint8 private constant _UNDELIVERED = 1;
    uint8 private constant _DELIVERED = 2;
    uint8 private constant _MOOT = 3;

    uint8 private constant _COMMITTED = 3;
    uint8 private constant _WITHHELD = 9;

    uint96 public constant MAX_BOND = 1_000 * 10 ** 9;
    uint32 public constant MAX_CLOCK_S = 7 days;

    // --- storage ---

    IERC20 public immutable token;
    IRegistry public immutable registry;
    IPanel public immutable panel;
    ILeases public immutable leases;
    /// @notice Seconds that members have to ask and to report.
    uint32 public immutable deliverS;
    /// @notice What serving the panel is worth to a provider that had delivered.
    uint96 public immutable bond;

    mapping(bytes32 id => Demand) private _demands;
    mapping(bytes32 id => mapping(address member => bool)) public reported;

    // --- constructor ---

    constructor(
        IERC20 token_,
        IRegistry registry_,
        IPanel panel_,
        ILeases leases_,
        Parameters memory given
    ) {
        require(given.deliverS != 0 && given.deliverS <= MAX_CLOCK_S, ParameterOutOfRange("deliverS", given.deliverS));
        require(given.bond <= MAX_BOND, ParameterOutOfRange("bond", given.bond));
        token = token_;
        registry = registry_;
        panel = panel_;
        leases = leases_;
        deliverS = given.deliverS;
        bond = given.bond;
    }

    // --- public: the requester ---

    /// @notice Have the panel look whether the outputs can be had. Called by the lease's requester or its hot keys, which
    /// approved the bond, within the window after the commitment.
    /// @dev Abuse: demanding what was delivered, to keep a provider from its pay or to have it serve the panel; it takes
    /// `deliverS` once a lease, and costs the bond.
    function demandDelivery(bytes32 id) external {
        Demand storage demand = _demands[id];
        require(demand.stage == 0, WrongStage(id, demand.stage));
        ILeases.Lease memory lease = leases.leaseOf(id);
        require(lease.state == _COMMITTED, NotCommitted(id));
        address requester = lease.requester;
        require(msg.sender == requester || registry.ownerOf(msg.sender) == requester, NotRequester(msg.sender));
        uint256 until = uint256(lease.committedAt) + leases.windowS();
        require(block.timestamp <= until, TooLate(until));
        demand.stage = _OPEN;
        demand.by = uint40(block.timestamp + deliverS);
        demand.payer = msg.sender;
        emit DeliveryDemanded(id, requester, lease.provider, demand.by);
        if (bond != 0) token.safeTransferFrom(msg.sender, address(this), bond);
    }

    // --- public: the panel ---

    /// @notice Say that the outputs can't be had from the provider, or aren't those of the last state. Called by everyone
    /// who had a seat. Two thirds of the panel's stake convict.
    /// @dev Abuse: saying so without asking; nobody gains by it, the provider's stake is burnt, and it takes two thirds.
    function reportUndelivered(bytes32 id) external {
        Demand storage demand = _demands[id];
        require(demand.stage == _OPEN, WrongStage(id, demand.stage));
        require(block.timestamp <= demand.by, TooLate(demand.by));
        ILeases.Lease memory lease = leases.leaseOf(id);
        require(lease.state == _COMMITTED, NotCommitted(id));
        address member = registry.ownerOf(msg.sender);
        require(!reported[id][member], AlreadyReported(member));
        address[] memory parties = new address[](2);
        (parties[0], parties[1]) = (lease.provider, lease.requester);
        (uint256 own, uint256 total) = panel.shares(member, lease.committedAt, parties);
        require(own != 0, NotMember(msg.sender));
        reported[id][member] = true;
        uint256 weight = demand.weight + own;
        demand.weight = uint128(weight);
        emit UndeliveredReported(id, member, weight, total);
        if (weight * 3 < total * 2) return;
        _end(id, demand, _UNDELIVERED, demand.payer);
        leases.convict(id, address(0), _WITHHELD);
    }

    // --- public: anyone ---

    /// @notice End a demand whose time is over, or whose lease was closed meanwhile. Anyone may call.
    /// @dev Abuse: ending it before the panel has spoken; its time has a last second, and a lease that is closed pays nobody.
    function expireDemand(bytes32 id) external {
        Demand storage demand = _demands[id];
        require(demand.stage == _OPEN, WrongStage(id, demand.stage));
        ILeases.Lease memory lease = leases.leaseOf(id);
        if (lease.state != _COMMITTED) return _end(id, demand, _MOOT, demand.payer);
        require(block.timestamp > demand.by, NotExpired(demand.by));
        _end(id, demand, _DELIVERED, lease.provider);
    }

    // --- views ---

    /// @inheritdoc IDeliveries
    function isDemanded(bytes32 id) external view returns (bool) {
        return _demands[id].stage == _OPEN;
    }

    function demandOf(bytes32 id) external view returns (Demand memory) {
        return _demands[id];
    }

    // --- internal ---

    function _end(bytes32 id, Demand storage demand, uint8 outcome, address to) internal {
        demand.stage = _ENDED;
        emit DemandEnded(id, outcome);
        if (bond != 0) token.safeTransfer(to, bond);
    }
}
