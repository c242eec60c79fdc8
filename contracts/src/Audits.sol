// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IAccusations, IAudits, IBeacon, ILeases, IPanel, IRates, IRegistry} from "./Interfaces.sol";
import {Leases} from "./Leases.sol";
import {Merkle} from "./Merkle.sol";

/// @title Whether a lease is audited, at which segment, by whom, and what came of it.
///
/// @notice The provider committed to all its states before the beacon that draws. The auditor runs the drawn segment
/// again from its start state alone, and commits to what it got before the provider shows what it had claimed:
///
///     enter ──beacon──> drawLease ──> AWAITS_COMMIT ──commitAudit──> AWAITS_OPENING ──openSegment──> AWAITS_REVEAL
///                          │              │  └ reportWithheld: 2/3 of the panel's stake convict            │
///                          │              └ silent: another auditor        └ silent: convicted    equal ───┤
///                          └ not drawn ──> RESOLVED <─────────────────────────────────────────────────┘   │
///              second auditor, or nobody left <───────────────── differs ──────────────────────────────────┘
///                 └──> CONTESTED ── an accuser starts a dispute ──> DISPUTED ──> RESOLVED or convicted
///                          └ nobody does ──> RESOLVED, the accusers' bonds go to the provider
///
/// Auditors are drawn from the Panel by the weights that stood before the commitment.
contract Audits is IAudits, IRates, IAccusations, Ownable {
    using SafeERC20 for IERC20;

    /// @dev `by` is when the clock of the present state runs out; in RESOLVED the end of the rest, in which a trap can
    /// be sprung. `round` and `ratePpm` are fixed with the commitment. `second` tells whose turn it is. `units` are those of
    /// the drawn segment, `meter` all up to its end; `claimed` is keccak(state ‖ uint64 meter) there, as results are.
    struct Audit {
        uint8 state;
        uint8 attempt;
        bool second;
        bool shown;
        uint24 ratePpm;
        uint32 round;
        uint32 segment;
        uint40 by;
        uint64 units;
        address auditor;
        uint64 meter;
        address reporter;
        bytes32 seed;
        bytes32 sealed_;
        bytes32 start;
        bytes32 claimed;
    }

    /// @dev What an auditor said, and the bond behind it, which `payer` gets back. `earns` the audit's fee.
    struct Opinion {
        address auditor;
        uint96 bond;
        address payer;
        bool revealed;
        bool earns;
        bytes32 result;
    }

    /// @dev A state of the commitment and the units up to there, with their proof.
    struct Opening {
        bytes32 state;
        uint64 units;
        bytes32[] proof;
    }

    struct Parameters {
        uint24 savingPpm;
        uint24 sensitivityPpm;
        uint24 corruptPpm;
        uint24 marginPpm;
        uint32 commitS;
        uint32 openS;
        uint32 revealS;
        uint32 disputeS;
        uint96 bond;
        uint24 bondPpm;
    }

    // --- events ---

    event LeaseDrawn(bytes32 indexed id, bytes32 seed, bool audited, uint32 segment);
    event AuditorDrawn(
        bytes32 indexed id, uint8 attempt, address indexed auditor, uint40 commitBy, uint40 revealBy
    );
    event AuditCommitted(bytes32 indexed id, address indexed auditor, bytes32 sealed_, uint40 openBy);
    event SegmentShown(
        bytes32 indexed id,
        uint32 segment,
        bytes32 before,
        bytes32 after_,
        uint64 unitsBefore,
        uint64 unitsAfter,
        uint40 revealBy
    );
    event AuditRevealed(bytes32 indexed id, address indexed auditor, bytes32 result, bool matches);
    event AuditMatched(bytes32 indexed id, address indexed auditor);
    event AuditorSilent(bytes32 indexed id, address indexed auditor);
    event WithheldReported(
        bytes32 indexed id, address indexed auditor, uint256 weight, uint256 total, uint40 reportBy
    );
    event AuditContested(bytes32 indexed id, address indexed accuser, uint40 disputeBy);
    event AuditResolved(bytes32 indexed id, uint40 restUntil);
    event TrapSprung(bytes32 indexed id, address indexed lazy);
    event AuditParametersSet(Parameters parameters);

    // --- errors ---

    error OnlyLeases(address caller);
    error OnlyDisputes(address caller);
    /// @dev The audit is in another state than this can be done in.
    error WrongAuditState(bytes32 id, uint256 state);
    error NotYourAudit(address caller);
    error TooLate(uint256 by);
    error NotExpired(uint256 by);
    /// @dev The proofs don't place these states and meters around the drawn segments of the committed root.
    error NotInCommitment(uint256 segment);
    /// @dev keccak(result ‖ auditor ‖ id ‖ salt) isn't what was committed.
    error NotSealed(bytes32 id);
    error AlreadyReported(address auditor);
    error NotTrap(bytes32 id);
    error ParameterOutOfRange(bytes32 name, uint256 value);

    // --- constants ---

    uint8 private constant _ENTERED = 1;
    uint8 private constant _AWAITS_COMMIT = 2;
    uint8 private constant _AWAITS_OPENING = 3;
    uint8 private constant _AWAITS_REVEAL = 4;
    uint8 private constant _CONTESTED = 5;
    uint8 private constant _DISPUTED = 6;
    uint8 private constant _RESOLVED = 7;
    uint8 private constant _FINISHED = 8;

    uint8 private constant _FRAUD = 8;
    uint8 private constant _WITHHELD = 9;

    /// @notice Auditors that are drawn for one lease at most; then it goes on with what has been said.
    uint8 public constant MAX_ATTEMPTS = 8;
    /// @notice A provider with N audits in a row that matched is audited at least at rate VETERAN_AT / (N + 1).
    uint256 public constant VETERAN_AT = 10;
    uint96 public constant MAX_BOND = 1_000 * 10 ** 9;
    /// @notice Most of a provider's stake, in millionths, that auditing it may take as a bond.
    uint24 public constant MAX_BOND_PPM = 100_000;
    uint32 public constant MAX_CLOCK_S = 7 days;
    uint256 private constant _MILLION = 1_000_000;
    string private constant _TRAP = "clusterai trap";

    // --- storage ---

    IERC20 public immutable token;
    IRegistry public immutable registry;
    IBeacon public immutable beacon;
    IPanel public immutable panel;
    Leases public immutable leases;
    address public immutable disputes;

    Parameters public parameters;
    mapping(bytes32 id => Audit) private _audits;
    mapping(bytes32 id => Opinion[2]) private _opinions;
    mapping(bytes32 id => uint256) public withheldWeight;
    mapping(bytes32 id => mapping(address auditor => bool)) public reported;
    /// @notice Audits in a row that matched.
    mapping(address provider => uint32) public validInARow;

    // --- constructor ---

    constructor(
        IERC20 token_,
        IRegistry registry_,
        IBeacon beacon_,
        IPanel panel_,
        Leases leases_,
        address disputes_,
        Parameters memory parameters_,
        address governor
    ) Ownable(governor) {
        require(disputes_ != address(0), ParameterOutOfRange("disputes", 0));
        token = token_;
        registry = registry_;
        beacon = beacon_;
        panel = panel_;
        leases = leases_;
        disputes = disputes_;
        _setParameters(parameters_);
    }

    // --- public: governance ---

    /// @notice Change the parameters. Called by the governor.
    /// @dev Abuse: a captured governor could stop audits or outrun auditors; saving and sensitivity can't be zero, nor a
    /// clock, a commitment keeps its rate, and newcomers are audited whatever the parameters say.
    function setParameters(Parameters calldata given) external onlyOwner {
        _setParameters(given);
    }

    // --- public: Leases ---

    /// @inheritdoc IAudits
    /// @dev Abuse: none for others than Leases.
    function enter(bytes32 id, address provider, uint128 compensation, uint8 class)
        external
        returns (uint32 round)
    {
        require(msg.sender == address(leases), OnlyLeases(msg.sender));
        Audit storage audit = _audits[id];
        if (class == 0) {
            audit.state = _RESOLVED;
            return 0;
        }
        round = beacon.next();
        // slither-disable-next-line reentrancy-no-eth
        audit.state = _ENTERED;
        audit.round = round;
        audit.ratePpm = rateOf(provider, compensation);
    }

    /// @inheritdoc IAudits
    /// @dev Abuse: none for others than Leases.
    function finish(bytes32 id, bool completed) external returns (address first, address second) {
        require(msg.sender == address(leases), OnlyLeases(msg.sender));
        Audit storage audit = _audits[id];
        audit.state = _FINISHED;
        Opinion[2] storage opinions = _opinions[id];
        for (uint256 i = 0; i < 2; ++i) {
            if (opinions[i].earns) {
                if (first == address(0)) first = opinions[i].auditor;
                else second = opinions[i].auditor;
            }
            _giveBack(opinions[i], opinions[i].payer);
        }
        if (completed && first != address(0)) ++validInARow[_leaseOf(id).provider];
    }

    /// @inheritdoc IAudits
    /// @dev Abuse: none for others than Leases.
    function missed(address provider) external {
        require(msg.sender == address(leases), OnlyLeases(msg.sender));
        validInARow[provider] = 0;
    }

    // --- public: the audit ---

    /// @notice Draw whether a lease is audited, where, and by whom. Anyone may call once the beacon is recorded.
    /// @dev Abuse: choosing the moment; nothing that this depends on can change any more.
    function drawLease(bytes32 id) external {
        Audit storage audit = _in(id, _ENTERED);
        ILeases.Lease memory lease = _leaseOf(id);
        bytes32 seed = keccak256(abi.encodePacked(beacon.beacons(audit.round), lease.spec, lease.root, id));
        // seed < rate * 2^256 / 10^6, exactly: the high word of seed * 10^6 is below the rate.
        (uint256 share,) = Math.mul512(uint256(seed), _MILLION);
        bool audited = share < audit.ratePpm;
        uint32 segment = uint32(1 + (uint256(keccak256(abi.encodePacked(seed, uint8(1)))) % lease.segments));
        audit.seed = seed;
        audit.segment = segment;
        emit LeaseDrawn(id, seed, audited, segment);
        if (audited) _next(id, audit, lease);
        else _resolve(id, audit, 0);
    }

    /// @notice Commit to what the segment came to, unseen by all. Called by the drawn auditor, which approved the bond.
    /// @dev Abuse: copying another's commitment; it holds the auditor and the lease. Committing to anything to win time
    /// costs the bond.
    function commitAudit(bytes32 id, bytes32 sealed_) external {
        Audit storage audit = _mine(id, _AWAITS_COMMIT);
        Opinion storage opinion = _opinions[id][audit.second ? 1 : 0];
        uint96 bond = bondAgainst(_leaseOf(id).provider, parameters.bond);
        opinion.auditor = audit.auditor;
        opinion.bond = bond;
        opinion.payer = msg.sender;
        audit.sealed_ = sealed_;
        audit.state = audit.shown ? _AWAITS_REVEAL : _AWAITS_OPENING;
        audit.by = _clock(audit.shown ? parameters.revealS : parameters.openS);
        emit AuditCommitted(id, audit.auditor, sealed_, audit.by);
        if (bond != 0) token.safeTransferFrom(msg.sender, address(this), bond);
    }

    /// @notice Show what was committed at both ends of the drawn segment, and of the segment `other`, in which the point
    /// that is drawn among all units lies, if that is another one. Called by the provider or its hot keys.
    /// @dev Abuse: showing other states than those committed; the proofs fit one place of one tree. Not showing is
    /// withholding. Units that nobody did: many in one segment are drawn in proportion to what they cost, and convict here,
    /// for no segment has more than `cap`; no more than that in each are found by running it again.
    function openSegment(bytes32 id, Opening[] calldata shown, uint32 other) external {
        Audit storage audit = _in(id, _AWAITS_OPENING);
        require(block.timestamp <= audit.by, TooLate(audit.by));
        ILeases.Lease memory lease = _leaseOf(id);
        require(_callersOwner() == lease.provider, NotYourAudit(msg.sender));
        uint32 segment = audit.segment;
        bool same = other == segment;
        require(shown.length == (same ? 2 : 4), NotInCommitment(other));
        bool sound = _isSound(lease, segment, shown[0], shown[1]);
        sound = (same || _isSound(lease, other, shown[2], shown[3])) && sound;
        uint256 point = uint256(keccak256(abi.encodePacked(audit.seed, uint8(4)))) % lease.units;
        uint256 last = shown.length - 1;
        require(shown[last - 1].units <= point && point < shown[last].units, NotInCommitment(other));
        if (sound) return _show(id, audit, shown[0], shown[1]);
        _opinions[id][audit.second ? 1 : 0].earns = true;
        leases.convict(id, audit.auditor, _FRAUD);
    }

    /// @notice Reveal what was committed to. Called by the auditor. If it is what the provider claimed, that was the audit;
    /// if not, a second auditor looks, and whoever differs may start a dispute.
    /// @dev Abuse: accusing falsely; it costs the bond and the fee, and decides nothing by itself.
    function revealAudit(bytes32 id, bytes32 result, bytes32 salt) external {
        Audit storage audit = _mine(id, _AWAITS_REVEAL);
        address auditor = audit.auditor;
        require(
            keccak256(abi.encodePacked(result, auditor, id, salt)) == audit.sealed_, NotSealed(id)
        );
        Opinion storage opinion = _opinions[id][audit.second ? 1 : 0];
        opinion.result = result;
        opinion.revealed = true;
        bool matches = result == audit.claimed;
        emit AuditRevealed(id, auditor, result, matches);
        if (matches) emit AuditMatched(id, auditor);
        if (audit.second) return _contest(id, audit);
        if (matches) {
            opinion.earns = true;
            return _resolve(id, audit, parameters.revealS);
        }
        audit.second = true;
        ++audit.attempt;
        _next(id, audit, _leaseOf(id));
    }

    /// @notice Say that the provider doesn't serve the start state. Called by the drawn auditor, and once it has, by
    /// everyone who had a seat. Two thirds of the panel's stake convict.
    /// @dev Abuse: refusing to have been served; one auditor alone only passes the audit on. The provider and the
    /// requester count neither for nor against.
    function reportWithheld(bytes32 id) external {
        Audit storage audit = _in(id, _AWAITS_COMMIT);
        require(block.timestamp <= audit.by, TooLate(audit.by));
        address owner = _callersOwner();
        ILeases.Lease memory lease = _leaseOf(id);
        require(owner != lease.provider && owner != lease.requester, NotYourAudit(msg.sender));
        require(!reported[id][owner], AlreadyReported(owner));
        if (owner == audit.auditor) {
            // Who has it may hand it on, and then it has to be run.
            uint40 by = _clock(parameters.commitS + _run(lease));
            if (by > audit.by) audit.by = by;
        } else require(reported[id][audit.auditor], NotYourAudit(msg.sender));
        address[] memory parties = new address[](2);
        (parties[0], parties[1]) = (lease.provider, lease.requester);
        (uint256 own, uint256 total) = panel.shares(owner, lease.committedAt, parties);
        require(own != 0, NotYourAudit(msg.sender));
        reported[id][owner] = true;
        if (audit.reporter == address(0)) audit.reporter = owner;
        uint256 weight = withheldWeight[id] + own;
        withheldWeight[id] = weight;
        emit WithheldReported(id, owner, weight, total, audit.by);
        if (weight * 3 >= total * 2) leases.convict(id, audit.reporter, _WITHHELD);
    }

    /// @notice Do what a clock has decided. Anyone may call.
    /// @dev Abuse: calling early; every clock has a second from which on, and the time before belongs to its owner.
    function expireAudit(bytes32 id) external {
        Audit storage audit = _audits[id];
        uint8 state = audit.state;
        require(state >= _AWAITS_COMMIT && state <= _CONTESTED, WrongAuditState(id, state));
        require(block.timestamp > audit.by, NotExpired(audit.by));
        address auditor = audit.auditor;
        Opinion[2] storage opinions = _opinions[id];
        if (state == _AWAITS_OPENING) {
            opinions[audit.second ? 1 : 0].earns = true;
            return leases.convict(id, auditor, _WITHHELD);
        }
        ILeases.Lease memory lease = _leaseOf(id);
        if (state == _CONTESTED) {
            for (uint256 i = 0; i < 2; ++i) _answerFor(audit, opinions[i], lease.provider);
            return _resolve(id, audit, 0);
        }
        if (state == _AWAITS_REVEAL) {
            Opinion storage opinion = opinions[audit.second ? 1 : 0];
            _giveBack(opinion, lease.provider);
        }
        if (!reported[id][auditor]) emit AuditorSilent(id, auditor);
        ++audit.attempt;
        _next(id, audit, lease);
    }

    /// @notice Show that a lease was planted: an auditor who revealed what the provider showed can't have run anything.
    /// Called by whoever knows the secret, between the reveal and the closing of the lease, a dispute or not; by the provider
    /// also where nothing was caught, for no state follows from bait, and of half of its segments none can be run.
    /// @dev Abuse: a cheat that calls its fraud a trap; the terms named the secret before the provider accepted. Catching
    /// an honest auditor: its result would have to be a digest that follows from the secret by keccak. A requester that
    /// calls work a trap so as not to pay for it: what is no bait only the provider can spring, who gets nothing. Planting for
    /// the stake of who falls in: it is burnt, and only the bond is the payer's.
    function springTrap(Leases.Terms calldata terms, bytes32 secret) external {
        require(terms.nonce == keccak256(abi.encodePacked(_TRAP, secret)), NotTrap(0));
        bytes32 id = leases.leaseId(terms);
        Audit storage audit = _audits[id];
        require(audit.state != _FINISHED, WrongAuditState(id, audit.state));
        Opinion[2] storage opinions = _opinions[id];
        bytes32 bait = _resultOf(keccak256(abi.encodePacked(_TRAP, secret, audit.segment)), audit.meter);
        bool isBait = opinions[0].revealed && audit.claimed == bait;
        require(isBait || registry.ownerOf(msg.sender) == terms.provider, NotTrap(id));
        address payer = _leaseOf(id).payer;
        address lazy = address(0);
        for (uint256 i = 0; i < 2; ++i) {
            if (!opinions[i].revealed) continue;
            opinions[i].earns = opinions[i].result != bait;
            if (opinions[i].earns) continue;
            lazy = opinions[i].auditor;
            _giveBack(opinions[i], payer);
        }
        emit TrapSprung(id, lazy);
        leases.closeTrap(id, lazy);
    }

    // --- public: Disputes ---

    /// @inheritdoc IAccusations
    /// @dev Abuse: none for others than Disputes, which takes a bond of its own.
    function beginDispute(bytes32 id, address accuser) external returns (Accusation memory accusation) {
        require(msg.sender == disputes, OnlyDisputes(msg.sender));
        Audit storage audit = _in(id, _CONTESTED);
        require(block.timestamp <= audit.by, TooLate(audit.by));
        Opinion[2] storage opinions = _opinions[id];
        uint256 turn = opinions[0].auditor == accuser ? 0 : 1;
        Opinion storage opinion = opinions[turn];
        require(
            opinion.auditor == accuser && opinion.revealed && opinion.result != audit.claimed,
            NotYourAudit(accuser)
        );
        audit.state = _DISPUTED;
        audit.auditor = accuser;
        return Accusation({
            provider: _leaseOf(id).provider,
            units: audit.units,
            start: audit.start,
            claimed: audit.claimed,
            result: opinion.result
        });
    }

    /// @inheritdoc IAccusations
    /// @dev Abuse: none for others than Disputes, which answers for the proof.
    function endDispute(bytes32 id, bool guilty, bool confirmed) external {
        require(msg.sender == disputes, OnlyDisputes(msg.sender));
        Audit storage audit = _audits[id];
        if (audit.state != _DISPUTED) return;
        Opinion[2] storage opinions = _opinions[id];
        address accuser = audit.auditor;
        uint256 turn = opinions[0].auditor == accuser ? 0 : 1;
        if (guilty) {
            // An accuser that was wrong itself has its bond back, and nothing of what it happened to bring about.
            if (!confirmed) return leases.convict(id, address(0), _FRAUD);
            Opinion storage other = opinions[1 - turn];
            opinions[turn].earns = true;
            if (other.revealed && other.result == opinions[turn].result) other.earns = true;
            else if (other.revealed) _giveBack(other, opinions[turn].payer);
            return leases.convict(id, accuser, _FRAUD);
        }
        // Where nobody was found right the claim stands, and bonds go back when the lease is closed: a program that comes to
        // something else on each machine must not earn its provider the bonds of who audits it.
        if (confirmed) {
            address provider = _leaseOf(id).provider;
            for (uint256 i = 0; i < 2; ++i) _answerFor(audit, opinions[i], provider);
        }
        _resolve(id, audit, 0);
    }

    // --- views ---

    /// @inheritdoc IRates
    function leastRate(uint256 stake, uint256 price) public view returns (uint256) {
        Parameters storage given = parameters;
        uint256 detected = given.sensitivityPpm * (_MILLION - given.corruptPpm) * (price + stake);
        uint256 saved = (_MILLION + given.marginPpm) * given.savingPpm * price * _MILLION;
        return Math.ceilDiv(saved, detected);
    }

    /// @notice The share of such leases that is audited, in millionths: what deters by the provider's stake, more for
    /// newcomers.
    function rateOf(address provider, uint128 compensation) public view returns (uint24) {
        (uint128 stake,,,,,) = registry.participants(provider);
        uint256 newcomer = (VETERAN_AT * _MILLION) / (uint256(validInARow[provider]) + 1);
        return uint24(Math.min(_MILLION, Math.max(leastRate(stake, compensation), newcomer)));
    }

    /// @inheritdoc IAccusations
    /// @dev By the stake that a false conviction would share out, so that accusing for a share of it doesn't pay.
    function bondAgainst(address provider, uint256 least) public view returns (uint96) {
        (uint128 stake,,,, uint128 unbonding,) = registry.participants(provider);
        return uint96(Math.max(least, ((uint256(stake) + unbonding) * parameters.bondPpm) / _MILLION));
    }

    /// @inheritdoc IAudits
    function payable_(bytes32 id) external view returns (bool) {
        Audit storage audit = _audits[id];
        return audit.state == _RESOLVED && block.timestamp > audit.by;
    }

    function auditOf(bytes32 id) external view returns (Audit memory) {
        return _audits[id];
    }

    function opinionsOf(bytes32 id) external view returns (Opinion[2] memory) {
        return _opinions[id];
    }

    // --- internal: the audit ---

    /// @dev Draw the next auditor, or go on without one: nobody can be made to, and pay can't wait for ever.
    function _next(bytes32 id, Audit storage audit, ILeases.Lease memory lease) internal {
        address auditor = address(0);
        if (audit.attempt < MAX_ATTEMPTS) {
            uint256 lot = uint256(keccak256(abi.encodePacked(audit.seed, uint8(2), audit.attempt)));
            address[] memory excluded = new address[](3);
            excluded[0] = lease.provider;
            excluded[1] = lease.requester;
            if (audit.second) excluded[2] = _opinions[id][0].auditor;
            auditor = panel.pick(lot, lease.committedAt, excluded);
        }
        if (auditor == address(0)) {
            if (audit.second) _contest(id, audit);
            else _resolve(id, audit, 0);
            return;
        }
        // Who commits at once shows nothing of how long a segment takes: each auditor has twice the time to begin of the one
        // before, up to four times what the terms allow for a segment: after so long it knows that nobody can come through it.
        uint256 most = parameters.commitS + (4 * uint256(lease.deadline - lease.acceptedAt)) / lease.segments;
        uint256 wait = uint256(parameters.commitS) << audit.attempt;
        audit.state = _AWAITS_COMMIT;
        audit.auditor = auditor;
        audit.by = _clock((wait < most ? wait : most) + _run(lease));
        uint256 rest = uint256(parameters.openS) + parameters.revealS;
        emit AuditorDrawn(id, audit.attempt, auditor, audit.by, uint40(audit.by + rest));
    }

    /// @dev For a segment: as long again as the provider had for one on the average, and twice that, besides what it takes to begin.
    function _run(ILeases.Lease memory lease) internal pure returns (uint256) {
        return (2 * uint256(lease.committedAt - lease.acceptedAt)) / lease.segments;
    }

    /// @dev Both ends of `segment` are what was committed to; whether its meter can be right.
    function _isSound(ILeases.Lease memory lease, uint32 segment, Opening calldata before, Opening calldata after_)
        internal
        pure
        returns (bool)
    {
        require(segment != 0, NotInCommitment(0));
        _requireCommitted(lease, segment - 1, before);
        _requireCommitted(lease, segment, after_);
        return after_.units >= before.units && after_.units - before.units <= lease.cap;
    }

    function _requireCommitted(ILeases.Lease memory lease, uint32 index, Opening calldata shown) internal pure {
        bytes32 value = keccak256(abi.encodePacked(index, keccak256(abi.encodePacked(shown.state)), shown.units));
        bool held = Merkle.holds(lease.root, uint256(lease.segments) + 1, value, index, shown.proof);
        require(held, NotInCommitment(index));
    }

    function _show(bytes32 id, Audit storage audit, Opening calldata before, Opening calldata after_) internal {
        audit.start = before.state;
        audit.claimed = _resultOf(after_.state, after_.units);
        audit.units = after_.units - before.units;
        audit.meter = after_.units;
        audit.shown = true;
        audit.state = _AWAITS_REVEAL;
        audit.by = _clock(parameters.revealS);
        emit SegmentShown(id, audit.segment, before.state, after_.state, before.units, after_.units, audit.by);
    }

    /// @dev What a segment comes to: the state behind it and what was metered up to there.
    function _resultOf(bytes32 state, uint64 meter) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(state, meter));
    }

    function _contest(bytes32 id, Audit storage audit) internal {
        audit.state = _CONTESTED;
        audit.by = _clock(parameters.disputeS);
        emit AuditContested(id, _opinions[id][0].auditor, audit.by);
    }

    function _resolve(bytes32 id, Audit storage audit, uint256 restS) internal {
        audit.state = _RESOLVED;
        audit.by = restS == 0 ? 0 : _clock(restS);
        emit AuditResolved(id, audit.by);
    }

    /// @dev The provider was right: who agreed earns the fee, who didn't loses the bond to it.
    function _answerFor(Audit storage audit, Opinion storage opinion, address provider) internal {
        if (!opinion.revealed) return;
        if (opinion.result == audit.claimed) opinion.earns = true;
        else _giveBack(opinion, provider);
    }

    function _giveBack(Opinion storage opinion, address to) internal {
        uint96 bond = opinion.bond;
        if (bond == 0) return;
        opinion.bond = 0;
        token.safeTransfer(to, bond);
    }

    /// @dev One copy of each call that many make: this contract's code is near the most that a chain takes.
    function _leaseOf(bytes32 id) internal view returns (ILeases.Lease memory) {
        return leases.leaseOf(id);
    }

    /// @dev For whom the caller acts.
    function _callersOwner() internal view returns (address) {
        return registry.ownerOf(msg.sender);
    }

    function _in(bytes32 id, uint8 state) internal view returns (Audit storage audit) {
        audit = _audits[id];
        require(audit.state == state, WrongAuditState(id, audit.state));
    }

    function _mine(bytes32 id, uint8 state) internal view returns (Audit storage audit) {
        audit = _in(id, state);
        require(block.timestamp <= audit.by, TooLate(audit.by));
        require(_callersOwner() == audit.auditor, NotYourAudit(msg.sender));
    }

    function _clock(uint256 seconds_) internal view returns (uint40) {
        return uint40(block.timestamp + seconds_);
    }

    // --- internal: parameters ---

    function _setParameters(Parameters memory given) internal {
        _requireShare("savingPpm", given.savingPpm, 1, _MILLION);
        _requireShare("sensitivityPpm", given.sensitivityPpm, 1, _MILLION);
        _requireShare("corruptPpm", given.corruptPpm, 0, _MILLION - 1);
        _requireShare("marginPpm", given.marginPpm, 0, _MILLION);
        _requireShare("commitS", given.commitS, 1, MAX_CLOCK_S);
        _requireShare("openS", given.openS, 1, MAX_CLOCK_S);
        _requireShare("revealS", given.revealS, 1, MAX_CLOCK_S);
        _requireShare("disputeS", given.disputeS, 1, MAX_CLOCK_S);
        _requireShare("bond", given.bond, 0, MAX_BOND);
        _requireShare("bondPpm", given.bondPpm, 0, MAX_BOND_PPM);
        parameters = given;
        emit AuditParametersSet(given);
    }

    function _requireShare(bytes32 name, uint256 value, uint256 least, uint256 most) internal pure {
        require(value >= least && value <= most, ParameterOutOfRange(name, value));
    }
}
