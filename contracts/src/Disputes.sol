// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Audits} from "./Audits.sol";
import {IAccusations, ILeases, IPanel, IRegistry} from "./Interfaces.sol";
import {Leases} from "./Leases.sol";

/// @title Who is right about a segment: sixteen parts at a time down to one step, which referees run.
///
/// @notice An auditor whose result differed from what the provider had committed to goes on with its accusation:
///
///     startDispute ──> ASSERTING <──────────── selectRange ──────────> SEALING ── 2/3 sealed ──> REVEALING
///                          │ assertTrace                                  ^   └ fewer ┐          │      │ 2/3 say the
///                          └───────> SELECTING ──┘                        └─ larger committee <──┘      │ same
///     expireDispute: who doesn't move loses                                    └ nobody larger: undecided   └> decided
///
/// Both agree on the state at `low`, and not on that at `high`. The game is `protocol/bisection.py`'s: whoever ran the
/// segment rightly wins, whatever the other does. A module's segment has as many steps as it was metered units of fuel; a
/// process has no parts, its segment is one step.
///
/// Referees run the last step from the state before it, and from the segment's start on to get there. They say the state
/// it ends in: the provider's claim stands if it is that. Where the step is the first, they check what it begins with as
/// an auditor does: if that is no state of this job, they say a digest that no run gives. Zero says that the provider
/// served nothing to run, in time for it, and is never what it claimed: only the whole panel can convict of it, and there it
/// counts with those who say another state, or a provider would serve one half and starve the other.
contract Disputes {
    using SafeERC20 for IERC20;

    /// @dev `inner` digests what the provider asserted last. `total` is the weight of the present committee, `sealed_`
    /// what of it committed, `heard` what of that revealed; `bond` what the accuser put up. `lenient`: an auditor who spoke may judge, for want of others.
    struct Dispute {
        uint8 stage;
        uint8 level;
        bool lenient;
        uint40 by;
        uint40 runS;
        uint96 bond;
        address provider;
        address accuser;
        uint48 low;
        uint48 high;
        address payer;
        bytes32 start;
        bytes32 claimed;
        bytes32 denied;
        bytes32 inner;
        uint128 total;
        uint128 sealed_;
        uint128 heard;
    }

    struct Voice {
        uint128 weight;
        bool sealedIt;
        bytes32 sealed_;
    }

    struct Parameters {
        uint32 moveS;
        uint32 sealS;
        uint32 revealS;
        uint8 committee;
        uint96 bond;
    }

    // --- events ---

    event DisputeOpened(
        bytes32 indexed id,
        address indexed accuser,
        address indexed provider,
        uint48 steps,
        bytes32 start,
        bytes32 claimed,
        bytes32 denied,
        uint40 assertBy
    );
    event TraceAsserted(bytes32 indexed id, bytes32[] inner, uint40 selectBy);
    event RangeSelected(
        bytes32 indexed id,
        uint48 low,
        uint48 high,
        bytes32 start,
        bytes32 claimed,
        bytes32 denied,
        uint40 assertBy
    );
    event RefereesDrawn(bytes32 indexed id, uint8 level, address[] referees, uint128 total, uint40 sealBy);
    event RefereeCommitted(bytes32 indexed id, uint8 level, address indexed referee, bytes32 sealed_);
    event RefereesSealed(bytes32 indexed id, uint8 level, uint40 revealBy);
    event RefereeRevealed(bytes32 indexed id, uint8 level, address indexed referee, bytes32 result);
    event DisputeEnded(bytes32 indexed id, address winner, uint8 reason);

    // --- errors ---

    /// @dev The dispute is in another stage than this can be done in.
    error WrongStage(bytes32 id, uint256 stage);
    error NotYourMove(address caller);
    error NotReferee(address caller);
    /// @dev The first accuser has half of the time to start for itself.
    error FirstAccuserFirst(uint256 until);
    error TooLate(uint256 by);
    error NotExpired(uint256 by);
    /// @dev The rules of bisection don't allow it.
    error WrongMove(bytes32 id);
    /// @dev These are not the states that the provider asserted.
    error NotAsserted(bytes32 id);
    error AlreadySealed(address referee);
    error NotSealed(bytes32 id);
    error ParameterOutOfRange(bytes32 name, uint256 value);

    // --- constants ---

    uint8 private constant _ASSERTING = 1;
    uint8 private constant _SELECTING = 2;
    uint8 private constant _SEALING = 3;
    uint8 private constant _REVEALING = 4;
    uint8 private constant _ENDED = 5;

    /// @dev How it ended: a closed list, the same numbers in protocol/leases.py.
    uint8 private constant _REFEREES = 1;
    uint8 private constant _TIMEOUT = 2;
    uint8 private constant _UNDECIDED = 3;
    uint8 private constant _MOOT = 4;

    uint8 public constant ARITY = 16;
    uint48 public constant MAX_STEPS = 1 << 40;
    /// @notice The last committee: the whole panel, by stake. The one before is three times the first.
    uint8 public constant PANEL_LEVEL = 2;
    uint96 public constant MAX_BOND = 1_000 * 10 ** 9;
    uint32 public constant MAX_CLOCK_S = 7 days;
    uint8 public constant MAX_COMMITTEE = 15;

    // --- storage ---

    IERC20 public immutable token;
    IRegistry public immutable registry;
    IPanel public immutable panel;
    Leases public immutable leases;
    Audits public immutable audits;
    uint32 public immutable moveS;
    uint32 public immutable sealS;
    uint32 public immutable revealS;
    uint8 public immutable committee;
    /// @notice The least that an accuser puts up; more against a provider with much at stake.
    uint96 public immutable bond;

    mapping(bytes32 id => Dispute) private _disputes;
    mapping(bytes32 id => mapping(uint8 level => mapping(address referee => Voice))) private _voices;
    mapping(bytes32 id => mapping(uint8 level => mapping(bytes32 result => uint128 weight))) public said;

    // --- constructor ---

    constructor(
        IERC20 token_,
        IRegistry registry_,
        IPanel panel_,
        Leases leases_,
        Audits audits_,
        Parameters memory given
    ) {
        _requireIn("moveS", given.moveS, 1, MAX_CLOCK_S);
        _requireIn("sealS", given.sealS, 1, MAX_CLOCK_S);
        _requireIn("revealS", given.revealS, 1, MAX_CLOCK_S);
        _requireIn("committee", given.committee, 1, MAX_COMMITTEE);
        _requireIn("bond", given.bond, 0, MAX_BOND);
        token = token_;
        registry = registry_;
        panel = panel_;
        leases = leases_;
        audits = audits_;
        moveS = given.moveS;
        sealS = given.sealS;
        revealS = given.revealS;
        committee = given.committee;
        bond = given.bond;
    }

    // --- public: the two parties ---

    /// @notice Go on with an accusation. Called by the auditor that revealed another result, or its hot keys, while the
    /// audit is contested; the caller approved the bond, which the provider gets if it turns out right.
    /// @dev Abuse: accusing falsely to keep a provider from its pay; it costs this bond and the audit's. Starting in order
    /// to lose, so that an honest accuser can't; the first accuser has half of the time for itself, and a provider's
    /// friend that was drawn first would rather have agreed.
    function startDispute(bytes32 id) external {
        Dispute storage dispute = _in(id, 0);
        address accuser = registry.ownerOf(msg.sender);
        // slither-disable-next-line reentrancy-no-eth
        IAccusations.Accusation memory accusation = audits.beginDispute(id, accuser);
        _requireTurn(id, accuser);
        ILeases.Lease memory lease = leases.leaseOf(id);
        uint48 steps = 1;
        if (lease.class == 1 && accusation.units != 0 && accusation.units <= MAX_STEPS) {
            steps = uint48(accusation.units);
        }
        dispute.provider = accusation.provider;
        dispute.accuser = accuser;
        dispute.payer = msg.sender;
        dispute.high = steps;
        dispute.start = accusation.start;
        dispute.claimed = accusation.claimed;
        dispute.denied = accusation.result;
        // As long again as the provider had for a segment on the average, and twice that, for whoever has to run it; and at
        // least as long as it was audited, in which the accuser ran it: a provider that commits at once gains no time.
        uint256 run = (2 * uint256(lease.committedAt - lease.acceptedAt)) / lease.segments;
        uint256 audited = block.timestamp - lease.committedAt;
        dispute.runS = uint40(audited > run ? audited : run);
        dispute.stage = _ASSERTING;
        dispute.by = _clock(uint256(moveS) + dispute.runS);
        emit DisputeOpened(
            id,
            accuser,
            accusation.provider,
            steps,
            accusation.start,
            accusation.claimed,
            accusation.result,
            dispute.by
        );
        uint96 mine = audits.bondAgainst(accusation.provider, bond);
        dispute.bond = mine;
        if (mine != 0) token.safeTransferFrom(msg.sender, address(this), mine);
        if (steps == 1) _draw(id, dispute, 0);
    }

    /// @notice The provider's states at the inner points of the range, which cut it into up to 16 parts. Called by the
    /// provider or its hot keys.
    /// @dev Abuse: other states than it went through; somewhere they part from the truth, in one step at last.
    function assertTrace(bytes32 id, bytes32[] calldata inner) external {
        Dispute storage dispute = _moving(id, _ASSERTING);
        require(registry.ownerOf(msg.sender) == dispute.provider, NotYourMove(msg.sender));
        require(inner.length + 1 == _parts(dispute.low, dispute.high), WrongMove(id));
        dispute.inner = keccak256(abi.encodePacked(inner));
        dispute.stage = _SELECTING;
        dispute.by = _clock(uint256(moveS) + dispute.runS);
        emit TraceAsserted(id, inner, dispute.by);
    }

    /// @notice The first part at whose end the accuser has another state: `denied`. Called by the accuser or its hot keys,
    /// which repeats what the provider asserted.
    /// @dev Abuse: selecting where it agrees, or telling two stories; what it denied at the range's end it can't take back.
    function selectRange(bytes32 id, uint8 part, bytes32 denied, bytes32[] calldata inner) external {
        Dispute storage dispute = _moving(id, _SELECTING);
        require(registry.ownerOf(msg.sender) == dispute.accuser, NotYourMove(msg.sender));
        require(keccak256(abi.encodePacked(inner)) == dispute.inner, NotAsserted(id));
        _narrow(id, dispute, part, denied, inner);
        dispute.stage = _ASSERTING;
        dispute.by = _clock(uint256(moveS) + dispute.runS);
        emit RangeSelected(
            id, dispute.low, dispute.high, dispute.start, dispute.claimed, denied, dispute.by
        );
        if (dispute.high - dispute.low == 1) _draw(id, dispute, 0);
    }

    // --- public: referees ---

    /// @notice Commit to the state in which the last step ends, unseen by all: keccak(result ‖ referee ‖ id ‖ salt).
    /// Called by a drawn referee or its hot keys; by anyone with a seat once the whole panel judges.
    /// @dev Abuse: copying another's commitment; it holds the referee. Stake taken later than the work weighs nothing.
    function commitReferee(bytes32 id, bytes32 sealed_) external {
        Dispute storage dispute = _moving(id, _SEALING);
        address referee = registry.ownerOf(msg.sender);
        uint8 level = dispute.level;
        Voice storage voice = _voices[id][level][referee];
        require(!voice.sealedIt, AlreadySealed(referee));
        uint128 weight = voice.weight;
        if (level == PANEL_LEVEL) {
            // slither-disable-next-line reentrancy-no-eth
            (uint256 own,) = panel.shares(referee, _committedAt(id), _excluded(id, dispute.lenient));
            weight = uint128(own);
            voice.weight = weight;
        }
        require(weight != 0, NotReferee(msg.sender));
        voice.sealedIt = true;
        voice.sealed_ = sealed_;
        dispute.sealed_ += weight;
        emit RefereeCommitted(id, level, referee, sealed_);
        if (dispute.sealed_ == dispute.total) _reveal(id, dispute);
    }

    /// @notice Reveal what was committed to. Called by the referee. Two thirds of the committee that say the same decide; of
    /// the first one, which is small, it takes six sevenths to convict.
    /// @dev Abuse: not revealing, or something else; a larger committee judges then. A referee that says what it was paid
    /// for needs two thirds of its kind, drawn by stake as it stood before the work was committed. Serving some referees and not
    /// others, or claiming zero and serving nobody: who says zero says no word for the provider.
    function revealReferee(bytes32 id, bytes32 result, bytes32 salt) external {
        Dispute storage dispute = _moving(id, _REVEALING);
        address referee = registry.ownerOf(msg.sender);
        uint8 level = dispute.level;
        Voice storage voice = _voices[id][level][referee];
        require(voice.sealed_ != 0, NotReferee(msg.sender));
        require(keccak256(abi.encodePacked(result, referee, id, salt)) == voice.sealed_, NotSealed(id));
        voice.sealed_ = 0;
        dispute.heard += voice.weight;
        uint128 weight = said[id][level][result] + voice.weight;
        said[id][level][result] = weight;
        emit RefereeRevealed(id, level, referee, result);
        bool guilty = result == 0 || result != dispute.claimed;
        bytes32 denied = dispute.denied;
        if (guilty && level == PANEL_LEVEL) {
            // Liars can say zero as well as anything else: to convict the honest they need as many as before.
            bytes32 beside = result == 0 ? denied : bytes32(0);
            if (beside != result) weight += said[id][level][beside];
        }
        bool decided = guilty && level == 0
            ? uint256(weight) * 7 >= uint256(dispute.total) * 6
            : uint256(weight) * 3 >= uint256(dispute.total) * 2;
        if (decided && (result != 0 || level == PANEL_LEVEL)) {
            bool confirmed = uint256(said[id][level][denied]) * 3 > dispute.total;
            _end(id, dispute, guilty, confirmed, _REFEREES);
        } else if (dispute.heard == dispute.sealed_) {
            _draw(id, dispute, level + 1);
        }
    }

    // --- public: anyone ---

    /// @notice Do what a clock has decided, or end a dispute whose lease was closed meanwhile. Anyone may call.
    /// @dev Abuse: calling early; every clock has a second from which on, and the time before belongs to its owner.
    function expireDispute(bytes32 id) external {
        Dispute storage dispute = _disputes[id];
        uint8 stage = dispute.stage;
        require(stage >= _ASSERTING && stage <= _REVEALING, WrongStage(id, stage));
        if (_isClosed(id)) return _end(id, dispute, false, false, _MOOT);
        require(block.timestamp > dispute.by, NotExpired(dispute.by));
        if (stage == _ASSERTING || stage == _SELECTING) {
            return _end(id, dispute, stage == _ASSERTING, true, _TIMEOUT);
        }
        bool enough = uint256(dispute.sealed_) * 3 >= uint256(dispute.total) * 2;
        if (stage == _SEALING && enough) return _reveal(id, dispute);
        _draw(id, dispute, dispute.level + 1);
    }

    // --- views ---

    function disputeOf(bytes32 id) external view returns (Dispute memory) {
        return _disputes[id];
    }

    function voiceOf(bytes32 id, uint8 level, address referee) external view returns (Voice memory) {
        return _voices[id][level][referee];
    }

    // --- internal ---

    function _narrow(bytes32 id, Dispute storage dispute, uint256 part, bytes32 denied, bytes32[] calldata inner)
        internal
    {
        (uint48 low, uint48 high) = (dispute.low, dispute.high);
        uint256 parts = _parts(low, high);
        require(part < parts, WrongMove(id));
        bool last = part + 1 == parts;
        bytes32 claimed = last ? dispute.claimed : inner[part];
        require(denied != claimed && (!last || denied == dispute.denied), WrongMove(id));
        if (part != 0) dispute.start = inner[part - 1];
        (dispute.claimed, dispute.denied) = (claimed, denied);
        uint256 length = high - low;
        dispute.low = uint48(low + (length * part) / parts);
        dispute.high = uint48(low + (length * (part + 1)) / parts);
    }

    /// @dev A committee: seats drawn by stake, of which one referee may have several; at last the whole panel.
    function _draw(bytes32 id, Dispute storage dispute, uint8 level) internal {
        if (level > PANEL_LEVEL) return _end(id, dispute, false, false, _UNDECIDED);
        uint40 time = _committedAt(id);
        bool lenient = dispute.lenient;
        address[] memory excluded = _excluded(id, lenient);
        (, uint256 total) = panel.shares(address(0), time, excluded);
        if (total == 0 && !lenient) {
            lenient = true;
            excluded = _excluded(id, true);
            (, total) = panel.shares(address(0), time, excluded);
            dispute.lenient = true;
        }
        if (total == 0) return _end(id, dispute, false, false, _UNDECIDED);
        address[] memory referees = new address[](0);
        if (level < PANEL_LEVEL) {
            total = level == 0 ? committee : 3 * uint256(committee);
            referees = _pickAll(id, level, total, time, excluded);
        }
        dispute.stage = _SEALING;
        dispute.level = level;
        (dispute.total, dispute.sealed_, dispute.heard) = (uint128(total), 0, 0);
        dispute.by = _clock(uint256(sealS) + dispute.runS);
        emit RefereesDrawn(id, level, referees, uint128(total), dispute.by);
    }

    function _pickAll(bytes32 id, uint8 level, uint256 seats, uint40 time, address[] memory excluded)
        internal
        returns (address[] memory referees)
    {
        referees = new address[](seats);
        bytes32 seed = audits.auditOf(id).seed;
        for (uint256 seat = 0; seat < seats; ++seat) {
            uint256 lot = uint256(keccak256(abi.encodePacked(seed, uint8(3), level, uint8(seat))));
            address referee = panel.pick(lot, time, excluded);
            referees[seat] = referee;
            // slither-disable-next-line reentrancy-no-eth
            _voices[id][level][referee].weight += 1;
        }
    }

    function _reveal(bytes32 id, Dispute storage dispute) internal {
        dispute.stage = _REVEALING;
        dispute.by = _clock(revealS);
        emit RefereesSealed(id, dispute.level, dispute.by);
    }

    /// @dev The only way out: the bond goes to the provider if it was right, else back. `confirmed`: more than a third said what
    /// the accuser had said, or the provider said nothing.
    function _end(bytes32 id, Dispute storage dispute, bool guilty, bool confirmed, uint8 reason) internal {
        dispute.stage = _ENDED;
        (address provider, address accuser, address payer) = (dispute.provider, dispute.accuser, dispute.payer);
        bool closed = reason == _MOOT || _isClosed(id);
        if (closed) reason = _MOOT;
        emit DisputeEnded(id, closed ? address(0) : guilty ? accuser : provider, reason);
        bool lost = !guilty && (reason == _REFEREES || reason == _TIMEOUT);
        uint96 mine = dispute.bond;
        if (mine != 0) token.safeTransfer(lost ? provider : payer, mine);
        if (!closed) audits.endDispute(id, guilty, guilty ? confirmed : lost);
    }

    function _requireTurn(bytes32 id, address accuser) internal view {
        if (audits.opinionsOf(id)[0].auditor == accuser) return;
        (,,,,,,, uint32 disputeS,,) = audits.parameters();
        uint256 until = audits.auditOf(id).by - disputeS / 2;
        require(block.timestamp > until, FirstAccuserFirst(until));
    }

    /// @dev The parties never judge; an auditor who spoke doesn't while there are others.
    function _excluded(bytes32 id, bool lenient) internal view returns (address[] memory excluded) {
        excluded = new address[](4);
        address accuser = _disputes[id].accuser;
        excluded[0] = _disputes[id].provider;
        excluded[1] = leases.leaseOf(id).requester;
        excluded[2] = accuser;
        if (lenient) return excluded;
        Audits.Opinion[2] memory opinions = audits.opinionsOf(id);
        Audits.Opinion memory other = opinions[opinions[0].auditor == accuser ? 1 : 0];
        if (other.revealed) excluded[3] = other.auditor;
    }

    function _committedAt(bytes32 id) internal view returns (uint40) {
        return leases.leaseOf(id).committedAt;
    }

    function _isClosed(bytes32 id) internal view returns (bool) {
        return leases.leaseOf(id).state == 4;
    }

    function _parts(uint48 low, uint48 high) internal pure returns (uint256) {
        return high - low < ARITY ? high - low : ARITY;
    }

    function _in(bytes32 id, uint8 stage) internal view returns (Dispute storage dispute) {
        dispute = _disputes[id];
        require(dispute.stage == stage, WrongStage(id, dispute.stage));
    }

    function _moving(bytes32 id, uint8 stage) internal view returns (Dispute storage dispute) {
        dispute = _in(id, stage);
        require(block.timestamp <= dispute.by, TooLate(dispute.by));
    }

    function _clock(uint256 seconds_) internal view returns (uint40) {
        return uint40(block.timestamp + seconds_);
    }

    function _requireIn(bytes32 name, uint256 value, uint256 least, uint256 most) internal pure {
        require(value >= least && value <= most, ParameterOutOfRange(name, value));
    }
}
