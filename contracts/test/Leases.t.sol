// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Audits} from "../src/Audits.sol";
import {ChainBeacon} from "../src/ChainBeacon.sol";
import {Court} from "../src/Court.sol";
import {Channels} from "../src/Channels.sol";
import {Delegations} from "../src/Delegations.sol";
import {Deliveries} from "../src/Deliveries.sol";
import {Leases} from "../src/Leases.sol";
import {Panel} from "../src/Panel.sol";
import {Registry} from "../src/Registry.sol";
import {Token} from "../src/Token.sol";
import {
    IAudits,
    IChannels,
    IConvictions,
    IDelegations,
    IDeliveries,
    ILeases,
    IPanel,
    IRates,
    IRegistry,
    PROVIDER,
    VALIDATOR
} from "../src/Interfaces.sol";
import {EPOCH_S, VM, WINDOW_S} from "./Money.t.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";

/// @dev One provider that is honest and one that cheats, a requester, three auditors; every action that a lease can take,
/// in any order, and the contract for disputes played by the handler itself.
contract LeaseHandler {
    Token public token;
    Registry public registry;
    Channels public channels;
    Court public court;
    ChainBeacon public beacon;
    Panel public panel;
    Leases public leases;
    Audits public audits;
    Delegations public delegations;
    Deliveries public deliveries;

    address public constant REQUESTER = address(0xCAFE);
    address[2] public providers = [address(0xA11), address(0xB0B)];
    address[3] public auditors = [address(0xFA1), address(0xFA2), address(0xFA3)];
    uint256 public now_ = 1_700_000_000;
    bytes32 public constant SALT = "salt";

    bytes32[] public ids;
    mapping(bytes32 id => Leases.Terms) internal _terms;
    /// Ghosts: when a lease was committed and closed, and what its end moved.
    mapping(bytes32 id => uint256) public committedAt;
    mapping(bytes32 id => uint256) public closedAt;
    mapping(bytes32 id => uint256) public paidOut;
    uint256 public completions;
    uint256 public matches_;
    uint256 public reopenings;
    uint256 public early;

    constructor() {
        VM.warp(now_);
        beacon = new ChainBeacon(EPOCH_S);
        uint64 nonce = VM.getNonce(address(this));
        address registry_ = VM.computeCreateAddress(address(this), nonce + 1);
        address court_ = VM.computeCreateAddress(address(this), nonce + 3);
        address panel_ = VM.computeCreateAddress(address(this), nonce + 4);
        address leases_ = VM.computeCreateAddress(address(this), nonce + 5);
        address audits_ = VM.computeCreateAddress(address(this), nonce + 6);
        token = new Token(address(this), 1e18);
        registry = new Registry(
            ERC20Burnable(address(token)),
            court_,
            ILeases(leases_),
            IPanel(panel_),
            IDelegations(VM.computeCreateAddress(address(this), nonce + 7)),
            121
        );
        channels = new Channels(IRegistry(registry_), court_, WINDOW_S);
        court = new Court(
            IERC20(address(token)),
            IRegistry(registry_),
            IChannels(address(channels)),
            beacon,
            leases_,
            address(1),
            IRates(audits_),
            EPOCH_S,
            WINDOW_S,
            Court.Parameters(500_000, 5_000, 10, 1_000),
            address(this)
        );
        panel = new Panel(IRegistry(registry_));
        leases = new Leases(
            ERC20Burnable(address(token)),
            IRegistry(registry_),
            IConvictions(court_),
            IAudits(audits_),
            IDeliveries(VM.computeCreateAddress(address(this), nonce + 8)),
            WINDOW_S
        );
        audits = new Audits(
            IERC20(address(token)),
            IRegistry(registry_),
            beacon,
            IPanel(address(panel)),
            leases,
            _disputesAt(nonce + 9),
            Audits.Parameters(700_000, 990_000, 200_000, 200_000, 30, 10, 10, 20, 500, 10_000),
            address(this)
        );
        delegations = new Delegations(ERC20Burnable(address(token)), IRegistry(registry_));
        deliveries = new Deliveries(
            IERC20(address(token)),
            IRegistry(registry_),
            IPanel(address(panel)),
            leases,
            Deliveries.Parameters(30, 300)
        );
        for (uint256 i = 0; i < 2; ++i) _join(providers[i], PROVIDER, 1e6);
        for (uint256 i = 0; i < 3; ++i) {
            _join(auditors[i], VALIDATOR, 1e6 * (i + 1));
            VM.prank(auditors[i]);
            panel.enlist();
        }
        token.transfer(REQUESTER, 1e12);
        VM.prank(REQUESTER);
        token.approve(leases_, type(uint256).max);
        VM.prank(REQUESTER);
        token.approve(address(deliveries), type(uint256).max);
        now_ += 1;
        VM.warp(now_);
    }

    /// @dev Who decides disputes: this handler, unless the next contract that is created does.
    function _disputesAt(uint64) internal virtual returns (address) {
        return address(this);
    }

    /// @dev What the meter says of the one segment.
    function _units() internal pure virtual returns (uint64) {
        return 1;
    }

    function _join(address who, uint8 roles, uint256 stake) internal {
        token.transfer(who, 1e12);
        VM.prank(who);
        registry.register(roles, 0);
        VM.prank(who);
        token.approve(address(registry), type(uint256).max);
        VM.prank(who);
        token.approve(address(audits), type(uint256).max);
        VM.prank(who);
        registry.bond(stake);
    }

    // --- actions ---

    function pass(uint256 seconds_) external {
        _pass(1 + seconds_ % 25);
    }

    /// @dev Opened, accepted and committed at once, so that histories get to audits.
    function order(uint256 provider, uint128 price, uint128 fee, uint8 class, uint256 stop) external {
        VM.warp(now_);
        Leases.Terms memory terms = Leases.Terms({
            requester: REQUESTER,
            provider: providers[provider % 2],
            spec: "spec",
            resources: 0,
            input: 0,
            expected: stop % 16 == 7 ? bytes32("other") : bytes32(0),
            class: class % 3,
            segments: 1,
            units: _units(),
            compensation: 1 + price % 1e5,
            auditFee: fee % 1e3,
            startBy: uint40(now_ + 20),
            deadline: uint40(now_ + 100),
            nonce: bytes32(ids.length)
        });
        VM.prank(REQUESTER);
        bytes32 id = leases.openLease(terms);
        ids.push(id);
        _terms[id] = terms;
        if (stop % 16 == 0) return;
        VM.prank(terms.provider);
        leases.acceptLease(id);
        if (stop % 16 == 1) return;
        _pass(3);
        _commit(id);
        if (stop % 4 == 3) _draw(id);
    }

    function proceed(uint256 which, uint256 times, bool lazy) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        for (uint256 i = 0; i < 1 + times % 5; ++i) _step(id, lazy);
    }

    function cancel(uint256 which) external {
        bytes32 id = _some(which);
        VM.prank(REQUESTER);
        leases.cancelLease(id, true);
        _noteEnd(id);
    }

    function giveUp(uint256 which) external {
        bytes32 id = _some(which);
        VM.prank(_terms[id].provider);
        leases.giveUpLease(id);
        _noteEnd(id);
    }

    function close(uint256 which) external {
        _close(_some(which));
    }

    function expire(uint256 which) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        audits.expireAudit(id);
        _noteEnd(id);
    }

    function report(uint256 which, uint256 who) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        VM.prank(who % 2 == 0 ? audits.auditOf(id).auditor : auditors[who % 3]);
        audits.reportWithheld(id);
        _noteEnd(id);
    }

    function again(uint256 which) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        VM.prank(REQUESTER);
        leases.openLease(_terms[id]);
        ++reopenings;
    }

    function dispute(uint256 which, uint256 turn, bool guilty) external {
        VM.warp(now_);
        bytes32 id = _some(which);
        audits.beginDispute(id, audits.opinionsOf(id)[turn % 2].auditor);
        audits.endDispute(id, guilty, turn % 3 != 0);
        _noteEnd(id);
    }

    function vested(uint256 provider, bool bonds) external {
        VM.warp(now_);
        address who = providers[provider % 2];
        if (bonds) {
            VM.prank(who);
            registry.bond(5e6);
        }
        leases.releaseVested(who);
    }

    function unstake(uint256 provider, bool finish) external {
        VM.warp(now_);
        address who = providers[provider % 2];
        VM.prank(who);
        if (finish) registry.withdraw();
        else registry.unbond(1e5);
    }

    // --- what an honest machine does next ---

    function _step(bytes32 id, bool lazy) internal {
        uint8 state = leases.leaseOf(id).state;
        if (state == 1) {
            VM.prank(_terms[id].provider);
            leases.acceptLease(id);
        } else if (state == 2) {
            _commit(id);
        } else if (state == 3) {
            _audit(id, lazy);
        }
    }

    function _audit(bytes32 id, bool lazy) internal {
        Audits.Audit memory audit = audits.auditOf(id);
        if (audit.state == 1) {
            _draw(id);
        } else if (audit.state == 2) {
            bytes32 result = _result(id, lazy);
            VM.prank(audit.auditor);
            audits.commitAudit(id, keccak256(abi.encodePacked(result, audit.auditor, id, SALT)));
        } else if (audit.state == 3) {
            (bytes32[] memory left, bytes32[] memory right) = (new bytes32[](1), new bytes32[](1));
            (left[0], right[0]) = (_leaf(_value(1, _state(id, 1))), _leaf(_value(0, _state(id, 0))));
            Audits.Opening[] memory shown = new Audits.Opening[](2);
            shown[0] = Audits.Opening(_state(id, 0), 0, left);
            shown[1] = Audits.Opening(_state(id, 1), _units(), right);
            VM.prank(_terms[id].provider);
            audits.openSegment(id, shown, 1);
        } else if (audit.state == 4) {
            VM.prank(audit.auditor);
            audits.revealAudit(id, _result(id, lazy), SALT);
            if (audits.auditOf(id).state == 7) ++matches_;
        } else if (audit.state == 7) {
            _pass(WINDOW_S + 1);
            _close(id);
        }
    }

    function _commit(bytes32 id) internal {
        bytes32 root = keccak256(
            abi.encodePacked(uint8(1), _leaf(_value(0, _state(id, 0))), _leaf(_value(1, _state(id, 1))))
        );
        Leases.Terms memory terms = _terms[id];
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = _leaf(_value(0, _state(id, 0)));
        VM.prank(terms.provider);
        leases.commitLease(id, root, 1, 0, _units(), terms.compensation, _state(id, 1), proof);
        committedAt[id] = now_;
        _noteEnd(id);
    }

    function _draw(bytes32 id) internal {
        _pass(EPOCH_S);
        beacon.tick();
        audits.drawLease(id);
    }

    function _close(bytes32 id) internal {
        VM.warp(now_);
        Audits.Audit memory audit = audits.auditOf(id);
        ILeases.Lease memory lease = leases.leaseOf(id);
        (,, bool barred,,,) = registry.participants(lease.provider);
        uint256 before = token.balanceOf(lease.provider);
        (uint128 kept,) = leases.vested(lease.provider);
        leases.closeLease(id);
        (uint128 keptNow,) = leases.vested(lease.provider);
        paidOut[id] = token.balanceOf(lease.provider) - before + keptNow - kept;
        if (paidOut[id] != 0) {
            ++completions;
            bool ripe = lease.state == 3 && now_ > committedAt[id] + WINDOW_S && audit.state == 7 && now_ > audit.by;
            if (!ripe || barred) ++early;
        }
        _noteEnd(id);
    }

    function _noteEnd(bytes32 id) internal {
        if (leases.leaseOf(id).state == 4 && closedAt[id] == 0) closedAt[id] = now_;
    }

    function _pass(uint256 seconds_) internal {
        now_ += seconds_;
        VM.warp(now_);
        VM.prevrandao(keccak256(abi.encode(now_)));
    }

    function _some(uint256 which) internal view returns (bytes32) {
        VM.assume(ids.length != 0);
        uint256 back = which % (ids.length < 4 ? ids.length : 4);
        return ids[ids.length - 1 - back];
    }

    /// @dev The second provider's states are wrong; an honest auditor comes to the right ones, a lazy one copies.
    function _state(bytes32 id, uint256 index) internal view returns (bytes32) {
        return keccak256(abi.encode(id, index, _terms[id].provider == providers[1] && index != 0));
    }

    function _result(bytes32 id, bool lazy) internal view returns (bytes32) {
        bytes32 state = lazy ? _state(id, 1) : keccak256(abi.encode(id, uint256(1), false));
        return keccak256(abi.encodePacked(state, _units()));
    }

    function _value(uint32 index, bytes32 state) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(index, state, uint64(index) * _units()));
    }

    function _leaf(bytes32 value) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(0), value));
    }

    // --- views ---

    function count() external view returns (uint256) {
        return ids.length;
    }
}

contract LeasesTest {
    LeaseHandler public handler;

    function setUp() public virtual {
        handler = new LeaseHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// Leases holds what open leases put up and what vests, Audits the bonds of what isn't over, and nothing more.
    function invariant_leases_conserve_money() public view {
        Leases leases = handler.leases();
        Audits audits = handler.audits();
        uint256 escrow = 0;
        uint256 bonds = 0;
        for (uint256 i = 0; i < handler.count(); ++i) {
            bytes32 id = handler.ids(i);
            ILeases.Lease memory lease = leases.leaseOf(id);
            if (lease.state != 4) escrow += lease.compensation + lease.auditFee;
            Audits.Opinion[2] memory opinions = audits.opinionsOf(id);
            bonds += opinions[0].bond + opinions[1].bond;
        }
        for (uint256 i = 0; i < 2; ++i) {
            (uint128 kept,) = leases.vested(handler.providers(i));
            escrow += kept;
        }
        require(handler.token().balanceOf(address(leases)) == escrow, "escrow not conserved");
        require(handler.token().balanceOf(address(audits)) == bonds, "bonds not conserved");
    }

    /// No lease paid within its window, with its audit open or resting, or to a convict, and none more than it promised.
    function invariant_leases_pay_in_time() public view {
        require(handler.early() == 0, "paid too early");
        for (uint256 i = 0; i < handler.count(); ++i) {
            bytes32 id = handler.ids(i);
            require(handler.paidOut(id) <= handler.leases().leaseOf(id).amount, "paid more than committed");
        }
    }

    /// What was closed stays closed, owes nothing, and can't be opened again; every bond is with its owner.
    function invariant_leases_end_once() public view {
        require(handler.reopenings() == 0, "opened twice");
        for (uint256 i = 0; i < handler.count(); ++i) {
            bytes32 id = handler.ids(i);
            if (handler.closedAt(id) == 0) continue;
            require(handler.leases().leaseOf(id).state == 4, "reopened");
            Audits.Opinion[2] memory opinions = handler.audits().opinionsOf(id);
            require(opinions[0].bond == 0 && opinions[1].bond == 0, "a closed lease holds a bond");
        }
    }

    /// The count that keeps a provider's stake is the number of its committed leases.
    function invariant_leases_hold_stake() public view {
        for (uint256 p = 0; p < 2; ++p) {
            uint256 open = 0;
            for (uint256 i = 0; i < handler.count(); ++i) {
                ILeases.Lease memory lease = handler.leases().leaseOf(handler.ids(i));
                if (lease.provider == handler.providers(p) && lease.state == 3) ++open;
            }
            require(handler.leases().committed(handler.providers(p)) == open, "stake not held by what is open");
        }
    }
}
