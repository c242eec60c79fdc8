// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IBeacon, IPanel, IRegistry} from "./Interfaces.sol";

/// @title A pot that is shared out by what each participant's data was worth.
///
/// @notice Whoever has a study made puts up a pot before it begins, and names its participants, who brought each of them, and who evaluates.
/// Participants join by committing to their rows; a beacon that nobody knew then breaks ties. The evaluator's scores can be
/// made again by anyone (audit/core/contribution); whoever comes to others contests them, and the panel decides.
///
///     openPot ──> OPEN ──joinPot──┐
///                  │ <────────────┘
///                  ├──scorePot──> SCORED ──────────windowS────────────> closePot: shares, the rest goes back
///                  │                    └ contestPot ─┐                       ^
///                  └ scoreBy over ── contestPot ──> CONTESTED ── 2/3 of the panel's stake ──> DECIDED
///                        └ windowS ──> closePot: refunded   └ windowS: what was scored stands ─┘
///
/// Shares are in proportion to scores, in whole numbers, the largest remainders get what rounding left; a score of zero gets nothing, and
/// neither does a participant that was slashed, or that never joined. Nobody is paid at once: everyone, the payer too, takes what it is owed.
///
/// A referral moves a part of a share from who was brought to who brought it, and makes no money: to bring oneself under another name earns nothing.
///
/// A contract of its own: Leases pays one provider for work that can be run again to the bit, Vaults is as large as a contract may be.
contract Rewards {
    using SafeERC20 for IERC20;

    /// @dev `full` is the sum of scores at which all of `amount` is earned; below it the rest goes back. Zero: all is always earned.
    /// `referrers[i]` brought `participants[i]`, and gets `referralBps` ten-thousandths of its share; zero: nobody did, it has all of it.
    struct Pot {
        address payer;
        address evaluator;
        bytes32 study;
        uint128 amount;
        uint64 full;
        uint40 joinBy;
        uint40 scoreBy;
        uint16 referralBps;
        bytes32 nonce;
        address[] participants;
        address[] referrers;
    }

    /// @dev `digest` of the scores that stand; `by` when the clock of the stage runs out; `since`: auditors weigh what they did before it.
    /// `bond` is the contester's, `scoreBond` the evaluator's; `round` of the beacon that breaks ties, `joined` so many.
    struct Stand {
        bytes32 digest;
        address contester;
        uint8 stage;
        uint40 by;
        uint40 since;
        uint128 bond;
        uint128 scoreBond;
        uint32 round;
        uint8 joined;
        bool replaced;
    }

    // --- events ---

    event PotOpened(bytes32 indexed id, address indexed payer, address indexed evaluator, Pot pot);
    /// @dev `rows` digests what it gives; `place` counts from 1, in which rows that two have are the earlier one's.
    event PotJoined(
        bytes32 indexed id, address indexed participant, bytes32 rows, uint32 round, uint8 place
    );
    event PotScored(bytes32 indexed id, bytes32 digest, bytes32 evidence, uint40 contestBy, uint64[] scores);
    event PotContested(bytes32 indexed id, address indexed contester, uint40 voteBy);
    event PotVoted(
        bytes32 indexed id, address indexed member, bytes32 digest, uint256 weight, uint256 total
    );
    event PotDecided(bytes32 indexed id, bytes32 digest);
    event ShareEarned(bytes32 indexed id, address indexed participant, uint128 amount);
    event ReferralEarned(
        bytes32 indexed id, address indexed referrer, address indexed participant, uint128 amount
    );
    event PotClosed(bytes32 indexed id, uint128 earned, uint128 refunded);
    event OwedTaken(address indexed who, uint256 amount);

    // --- errors ---

    error NotPayer(address caller);
    error NotEvaluator(address caller);
    /// @dev Participants contest, and members of the panel that aren't parties.
    error NotEntitled(address caller);
    error OutOfRange(bytes32 name, uint256 value);
    error WrongStage(bytes32 id, uint256 stage);
    error TooLate(uint256 by);
    error TooEarly(uint256 until);
    error AlreadyVoted(address member);
    error AlreadyJoined(address participant);
    /// @dev These aren't the scores that stand.
    error OtherScores(bytes32 given, bytes32 standing);
    error NothingOwed(address who);

    // --- constants ---

    bytes32 public constant POT_TYPEHASH = keccak256(
        "Pot(address payer,address evaluator,bytes32 study,uint128 amount,uint64 full,uint40 joinBy,uint40 scoreBy,uint16 referralBps,bytes32 nonce,address[] participants,address[] referrers)"
    );
    bytes32 public constant SCORES_TYPEHASH = keccak256("Scores(bytes32 pot,bytes32 evidence,uint64[] scores)");

    uint8 private constant _OPEN = 1;
    uint8 private constant _SCORED = 2;
    uint8 private constant _CONTESTED = 3;
    uint8 private constant _DECIDED = 4;
    uint8 private constant _CLOSED = 5;

    uint256 public constant MAX_PARTICIPANTS = 64;
    uint32 public constant MAX_STUDY_S = 365 days;
    /// @notice What contesting costs, in ten-thousandths of the pot; it comes back unless the panel says that the scores were right. Scoring
    /// costs as much, and comes back unless the panel says that they were wrong: then the contester has it.
    uint16 public constant BOND_BPS = 500;
    uint16 public constant MAX_REFERRAL_BPS = 2000;
    /// @notice The panel may have decided for scores that nobody shows: after so long the pot goes back.
    uint32 public constant GRACE_S = 30 days;

    // --- storage ---

    IERC20 public immutable token;
    IRegistry public immutable registry;
    IPanel public immutable panel;
    IBeacon public immutable beacon;
    /// @notice Seconds to contest scores, and again to vote. The Court's window.
    uint32 public immutable windowS;

    mapping(bytes32 id => Stand) private _pots;
    /// @notice What a participant committed to; zero if it didn't join.
    mapping(bytes32 id => mapping(address participant => bytes32)) public rowsOf;
    mapping(bytes32 id => mapping(bytes32 digest => uint256)) public weightOf;
    mapping(bytes32 id => mapping(address member => bool)) public voted;
    /// @notice What `takeOwed` pays.
    mapping(address who => uint256) public owed;

    // --- constructor ---

    constructor(IERC20 token_, IRegistry registry_, IPanel panel_, IBeacon beacon_, uint32 windowS_) {
        token = token_;
        registry = registry_;
        panel = panel_;
        beacon = beacon_;
        windowS = windowS_;
    }

    // --- public: the payer ---

    /// @notice Put up a pot. Called by its payer, who approved this contract. Participants are owners, in rising order, and none of
    /// them evaluates, by no key of its own.
    /// @dev Abuse: naming participants that know nothing of it; who doesn't join earns nothing. Leaving some out, or naming the payer's friend as
    /// who brought them all: whoever is to give data looks here first. An evaluator that is that friend; its scores can be made again, and contested.
    function openPot(Pot calldata pot) external returns (bytes32 id) {
        require(msg.sender == pot.payer, NotPayer(msg.sender));
        require(pot.amount != 0, OutOfRange("amount", 0));
        require(pot.evaluator != address(0), OutOfRange("evaluator", 0));
        require(
            pot.scoreBy >= block.timestamp && pot.scoreBy <= block.timestamp + MAX_STUDY_S,
            OutOfRange("scoreBy", pot.scoreBy)
        );
        require(pot.joinBy <= pot.scoreBy, OutOfRange("joinBy", pot.joinBy));
        require(pot.referralBps <= MAX_REFERRAL_BPS, OutOfRange("referralBps", pot.referralBps));
        uint256 many = pot.participants.length;
        require(many != 0 && many <= MAX_PARTICIPANTS, OutOfRange("participants", many));
        require(pot.referrers.length == many, OutOfRange("referrers", pot.referrers.length));
        address scorer = registry.ownerOf(pot.evaluator);
        address last = address(0);
        for (uint256 i = 0; i < many; ++i) {
            address one = pot.participants[i];
            require(
                one > last && one != pot.evaluator && one != scorer, OutOfRange("participant", i)
            );
            require(pot.referrers[i] != one, OutOfRange("referrer", i));
            last = one;
        }
        id = potId(pot);
        Stand storage stand = _pots[id];
        require(stand.stage == 0, WrongStage(id, stand.stage));
        stand.stage = _OPEN;
        stand.by = pot.scoreBy;
        emit PotOpened(id, pot.payer, pot.evaluator, pot);
        token.safeTransferFrom(msg.sender, address(this), pot.amount);
    }

    // --- public: participants ---

    /// @notice Take part, under the pot's terms, with the rows that `rows` digests. Called by a participant or its hot keys, once, until
    /// `joinBy`, before the scores.
    /// @dev Abuse: committing to rows that it never gives, or to another's: the first earns nothing, and neither do rows that an earlier one has.
    function joinPot(Pot calldata pot, bytes32 rows) external {
        (bytes32 id, Stand storage stand) = _at(pot, _OPEN);
        require(block.timestamp <= pot.joinBy, TooLate(pot.joinBy));
        require(rows != 0, OutOfRange("rows", 0));
        address who = _takesPart(pot, msg.sender) ? msg.sender : registry.ownerOf(msg.sender);
        require(_takesPart(pot, who), NotEntitled(msg.sender));
        require(rowsOf[id][who] == 0, AlreadyJoined(who));
        rowsOf[id][who] = rows;
        uint8 place = stand.joined + 1;
        stand.joined = place;
        uint32 round = beacon.next();
        stand.round = round;
        emit PotJoined(id, who, rows, round, place);
    }

    // --- public: the evaluator ---

    /// @notice Say what each participant's data was worth, in their order. Called by the evaluator, who approved the bond, once, when all have
    /// joined or `joinBy` is over, until `scoreBy`. `evidence` digests what anyone needs to come to the same.
    /// @dev Abuse: false scores; they are public for `windowS`, and two thirds of the panel replace them, which costs the bond. Scores for who
    /// didn't join earn nothing. Silence: see `contestPot`.
    function scorePot(Pot calldata pot, bytes32 evidence, uint64[] calldata scores) external {
        (bytes32 id, Stand storage stand) = _at(pot, _OPEN);
        require(msg.sender == pot.evaluator, NotEvaluator(msg.sender));
        require(block.timestamp <= stand.by, TooLate(stand.by));
        require(
            block.timestamp > pot.joinBy || stand.joined == pot.participants.length, TooEarly(pot.joinBy)
        );
        require(scores.length == pot.participants.length, OutOfRange("scores", scores.length));
        bytes32 digest = scoresHash(id, evidence, scores);
        stand.digest = digest;
        stand.stage = _SCORED;
        stand.by = uint40(block.timestamp + windowS);
        stand.since = uint40(block.timestamp);
        uint128 bond = _bondOf(pot);
        stand.scoreBond = bond;
        emit PotScored(id, digest, evidence, stand.by, scores);
        if (bond != 0) token.safeTransferFrom(msg.sender, address(this), bond);
    }

    // --- public: whoever comes to other scores, and the panel ---

    /// @notice Have the panel look at the scores, or score where the evaluator kept silent. Called by a participant or its hot keys, or by
    /// who had a seat on the panel and is no party; approved the bond; within `windowS` after the scores, or after `scoreBy` passed.
    /// @dev Abuse: contesting what is right, to delay; it costs the bond if two thirds of the panel confirm the scores, and a window once.
    function contestPot(Pot calldata pot) external {
        bytes32 id = potId(pot);
        Stand storage stand = _pots[id];
        uint40 until = stand.by;
        if (stand.stage == _OPEN) {
            require(block.timestamp > until, TooEarly(until));
            stand.since = until;
            until += windowS;
        } else {
            require(stand.stage == _SCORED, WrongStage(id, stand.stage));
        }
        require(block.timestamp <= until, TooLate(until));
        address who = registry.ownerOf(msg.sender);
        if (!_takesPart(pot, msg.sender) && !_takesPart(pot, who)) {
            (uint256 own,) = panel.shares(who, stand.since, _parties(pot));
            require(own != 0, NotEntitled(msg.sender));
        }
        uint128 bond = _bondOf(pot);
        stand.stage = _CONTESTED;
        stand.by = uint40(block.timestamp + windowS);
        stand.contester = msg.sender;
        stand.bond = bond;
        emit PotContested(id, msg.sender, stand.by);
        if (bond != 0) token.safeTransferFrom(msg.sender, address(this), bond);
    }

    /// @notice Say which scores are right, by their digest: of those that stand, of others, or zero, by which the pot goes back. Called by
    /// everyone who had a seat before the scores and is no party, once. Two thirds of the panel's stake decide.
    /// @dev Abuse: a third of the stake that votes for nothing keeps the scores as they were. Voting for scores that nobody
    /// shows; then the pot goes back after GRACE_S.
    function votePot(Pot calldata pot, bytes32 digest) external {
        (bytes32 id, Stand storage stand) = _at(pot, _CONTESTED);
        require(block.timestamp <= stand.by, TooLate(stand.by));
        address member = registry.ownerOf(msg.sender);
        require(!voted[id][member], AlreadyVoted(member));
        (uint256 own, uint256 total) = panel.shares(member, stand.since, _parties(pot));
        require(own != 0, NotEntitled(msg.sender));
        voted[id][member] = true;
        uint256 weight = weightOf[id][digest] + own;
        weightOf[id][digest] = weight;
        emit PotVoted(id, member, digest, weight, total);
        if (weight * 3 < total * 2) return;
        bool confirmed = digest == stand.digest;
        stand.stage = _DECIDED;
        stand.replaced = !confirmed;
        stand.digest = digest;
        owed[confirmed ? pot.payer : stand.contester] += stand.bond;
        owed[confirmed ? pot.evaluator : stand.contester] += stand.scoreBond;
        emit PotDecided(id, digest);
    }

    // --- public: anyone ---

    /// @notice Share the pot out by the scores that stand, or give it back where there are none (`scores` empty then). Anyone may call.
    /// @dev Abuse: closing before somebody could contest; the stages' clocks have a last second. Barring a participant's share by having it
    /// slashed; that needs its own crime. Many participants to make it dear: MAX_PARTICIPANTS bounds the loops.
    function closePot(Pot calldata pot, bytes32 evidence, uint64[] calldata scores) external {
        bytes32 id = potId(pot);
        Stand storage stand = _pots[id];
        uint8 stage = stand.stage;
        require(stage != 0 && stage != _CLOSED, WrongStage(id, stage));
        bytes32 digest = stand.digest;
        if (stage != _DECIDED) {
            uint256 end = stage == _OPEN ? uint256(stand.by) + windowS : stand.by;
            require(block.timestamp > end, TooEarly(end));
            if (stage == _CONTESTED) owed[stand.contester] += stand.bond;
            owed[pot.evaluator] += stand.scoreBond;
        } else if (stand.replaced && block.timestamp > uint256(stand.by) + GRACE_S) {
            digest = 0;
        }
        stand.stage = _CLOSED;
        uint128 earned = 0;
        if (digest != 0) {
            bytes32 given = scoresHash(id, evidence, scores);
            require(given == digest, OtherScores(given, digest));
            require(scores.length == pot.participants.length, OutOfRange("scores", scores.length));
            earned = _share(id, pot, scores);
        }
        uint128 refunded = pot.amount - earned;
        if (refunded != 0) owed[pot.payer] += refunded;
        emit PotClosed(id, earned, refunded);
    }

    /// @notice Pay `who` what it is owed. Anyone may call.
    /// @dev Abuse: none; the money goes where it belongs.
    function takeOwed(address who) external {
        uint256 amount = owed[who];
        require(amount != 0, NothingOwed(who));
        owed[who] = 0;
        emit OwedTaken(who, amount);
        token.safeTransfer(who, amount);
    }

    // --- views ---

    function standOf(bytes32 id) external view returns (Stand memory) {
        return _pots[id];
    }

    function potId(Pot calldata pot) public pure returns (bytes32) {
        // In two halves: the stack holds no more.
        return keccak256(
            bytes.concat(
                abi.encode(POT_TYPEHASH, pot.payer, pot.evaluator, pot.study, pot.amount, pot.full),
                abi.encode(
                    pot.joinBy,
                    pot.scoreBy,
                    pot.referralBps,
                    pot.nonce,
                    keccak256(abi.encodePacked(pot.participants)),
                    keccak256(abi.encodePacked(pot.referrers))
                )
            )
        );
    }

    function scoresHash(bytes32 id, bytes32 evidence, uint64[] calldata scores) public pure returns (bytes32) {
        return keccak256(abi.encode(SCORES_TYPEHASH, id, evidence, keccak256(abi.encodePacked(scores))));
    }

    // --- internal ---

    /// @dev Quotients first, then one unit each to the largest remainders, of equal ones to the first. There are never more units left than
    /// remainders above zero, so a score of zero gets none.
    function _share(bytes32 id, Pot calldata pot, uint64[] calldata scores) internal returns (uint128 earned) {
        uint256 many = scores.length;
        uint256 total = 0;
        for (uint256 i = 0; i < many; ++i) total += scores[i];
        if (total == 0) return 0;
        uint256 whole = total < pot.full ? pot.full : total;
        uint256[] memory shares = new uint256[](many);
        uint256[] memory remainders = new uint256[](many);
        uint256 left = (pot.amount * total) / whole;
        for (uint256 i = 0; i < many; ++i) {
            uint256 product = uint256(pot.amount) * scores[i];
            (shares[i], remainders[i]) = (product / whole, product % whole);
            left -= shares[i];
        }
        for (; left != 0; --left) {
            uint256 best = 0;
            for (uint256 i = 1; i < many; ++i) {
                if (remainders[i] > remainders[best]) best = i;
            }
            remainders[best] = 0;
            ++shares[best];
        }
        for (uint256 i = 0; i < many; ++i) {
            address one = pot.participants[i];
            if (shares[i] == 0 || rowsOf[id][one] == 0 || _barred(one)) continue;
            uint128 share = uint128(shares[i]);
            earned += share;
            share -= _refer(id, pot, i, share);
            owed[one] += share;
            emit ShareEarned(id, one, share);
        }
    }

    /// @dev What goes to who brought participant `i`, out of its share.
    function _refer(bytes32 id, Pot calldata pot, uint256 i, uint128 share) internal returns (uint128 fee) {
        address referrer = pot.referrers[i];
        if (referrer == address(0) || _barred(referrer)) return 0;
        fee = uint128((uint256(share) * pot.referralBps) / 10_000);
        if (fee == 0) return 0;
        owed[referrer] += fee;
        emit ReferralEarned(id, referrer, pot.participants[i], fee);
    }

    function _barred(address who) internal view returns (bool barred) {
        (,, barred,,,) = registry.participants(who);
    }

    function _bondOf(Pot calldata pot) internal pure returns (uint128) {
        return uint128((uint256(pot.amount) * BOND_BPS) / 10_000);
    }

    function _at(Pot calldata pot, uint8 stage) internal view returns (bytes32 id, Stand storage stand) {
        id = potId(pot);
        stand = _pots[id];
        require(stand.stage == stage, WrongStage(id, stand.stage));
    }

    function _takesPart(Pot calldata pot, address who) internal pure returns (bool) {
        for (uint256 i = 0; i < pot.participants.length; ++i) {
            if (pot.participants[i] == who) return true;
        }
        return false;
    }

    /// @dev Whose stake doesn't count: participants, and the owners that payer and evaluator act for.
    function _parties(Pot calldata pot) internal view returns (address[] memory parties) {
        uint256 many = pot.participants.length;
        parties = new address[](many + 2);
        for (uint256 i = 0; i < many; ++i) parties[i] = pot.participants[i];
        (parties[many],) = registry.standing(pot.payer);
        (parties[many + 1],) = registry.standing(pot.evaluator);
    }
}
