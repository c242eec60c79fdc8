// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {
    IBeacon,
    IChannels,
    IConvictions,
    ICourt,
    IRates,
    IRegistry,
    PROVIDER,
    VALIDATOR
} from "./Interfaces.sol";
import {Merkle} from "./Merkle.sol";

/// @title Commitments, the draw, challenges and verdicts.
///
/// @notice A provider commits each ended epoch's receipts by Merkle root. A beacon that nobody could
/// know by then decides which receipts are audited, so neither side can pick them. Validators sign verdicts; at two
/// thirds of their stake a provider is convicted: stake slashed, what it has held forfeited.
///
///     epoch e        e+1             e+2                       committedAt + windowS
///     receipts  |  commitEpoch  |  beacon: draw  | audits, challenges, votes  |  too late
///                   `------------------- windowS ----------------------------'
///
/// What backs a claim was committed before it, and a claim matures more than windowS after it was made (Channels), so
/// a verdict within the deadline always finds the epoch's money still held.
///
/// A challenge must leave `answerS` for the answer to begin, as long again for it to be complete, and as long for votes:
///
///     challenge ── answerS ──> deadline ── answerS ──> finish ── answerS or more ──> committedAt + windowS
///         no part came: withheld ^      parts missing: withheld ^          votes
contract Court is ICourt, IConvictions, EIP712, Ownable {
    using SafeERC20 for IERC20;

    /// @dev Two slots. `round` is the number of the beacon that draws; `ratePpm` is fixed with the commitment, so
    /// that a later change of the parameter doesn't redraw.
    struct Commitment {
        bytes32 root;
        uint128 total;
        uint32 count;
        uint40 committedAt;
        uint32 round;
        uint24 ratePpm;
    }

    /// @dev One slot. `committedUntil` is the newest committed epoch, plus one; `validInARow` counts the receipts that were
    /// drawn and found valid. Nothing resets it: the first that isn't valid ends all commitments.
    struct History {
        uint64 committedUntil;
        uint64 validInARow;
    }

    /// @dev `total` is the most that all validators together had at any of the statement's votes: stake that voted and
    /// left still counts in what two thirds are taken of, or two fifths could become two thirds by leaving.
    struct Tally {
        uint128 weight;
        uint128 total;
        address finder;
    }

    /// @dev Two slots. `parts` is bound by the first part of the answer, 0 before it; `received` has a bit for each that
    /// came. The first must come by `deadline`, all by `finish`.
    struct Challenge {
        address payer;
        uint40 deadline;
        uint40 finish;
        uint8 parts;
        bool answered;
        uint128 bond;
        uint64 received;
    }

    struct Verdict {
        address provider;
        uint64 epoch;
        uint32 index;
        bytes32 leaf;
        uint8 outcome;
        bytes32 evidence;
    }

    struct Clearance {
        address provider;
        uint64 epoch;
        bytes32 root;
        uint32 audited;
        bytes32 evidence;
    }

    struct Parameters {
        uint24 auditRatePpm;
        uint16 bountyBps;
        uint32 answerS;
        uint128 challengeBond;
    }

    // --- events ---

    event EpochCommitted(
        address indexed provider,
        uint64 indexed epoch,
        bytes32 root,
        uint32 count,
        uint128 total,
        uint32 round,
        uint24 ratePpm
    );
    event Voted(
        address indexed validator,
        address indexed provider,
        uint64 indexed epoch,
        uint32 index,
        uint8 outcome,
        bytes32 evidence
    );
    event Convicted(
        address indexed provider, uint64 indexed epoch, uint32 index, uint8 outcome, bytes32 evidence, uint128 slashed
    );
    event EpochCleared(
        address indexed provider, uint64 indexed epoch, bytes32 root, uint32 audited, bytes32 evidence
    );
    event Challenged(
        address indexed validator,
        address indexed provider,
        uint64 indexed epoch,
        uint32 index,
        uint40 deadline,
        uint40 finish
    );
    event AnswerPart(
        address indexed provider, uint64 indexed epoch, uint32 index, uint8 part, uint8 parts, bytes sealed_
    );
    event ChallengeAnswered(address indexed provider, uint64 indexed epoch, uint32 index);
    event Equivocated(address indexed validator, address indexed provider, uint64 indexed epoch, uint32 index);
    event ParametersSet(uint24 auditRatePpm, uint16 bountyBps, uint32 answerS, uint128 challengeBond);

    // --- errors ---

    error NotProvider(address caller);
    error NotValidator(address key);
    /// @dev Only an epoch that has ended can be committed.
    error EpochNotOver(uint256 epoch, uint256 current);
    /// @dev Epochs are committed once, in rising order; `first` is the least that can be committed next.
    error EpochBefore(uint256 epoch, uint256 first);
    error EmptyEpoch();
    error TooManyReceipts(uint256 count, uint256 most);
    error NotCommitted(address provider, uint256 epoch);
    error AfterWindow(uint256 deadline);
    error AlreadyConvicted(address provider);
    error UnknownOutcome(uint8 outcome);
    error AlreadyVoted(address validator);
    /// @dev The proof doesn't place `leaf` at `index` of the committed root.
    error NotInCommitment(uint256 index);
    error NotDrawn(uint256 index);
    error WrongRoot(bytes32 given, bytes32 committed);
    error AlreadyCleared(address provider, uint256 epoch);
    error NotChallenged(uint256 index);
    error AlreadyChallenged(uint256 deadline);
    error AlreadyAnswered(uint256 index);
    error AnswerTooLate(uint256 deadline);
    error AnswerPending(uint256 deadline);
    error AnswerTooLong(uint256 size, uint256 most);
    /// @dev A part beyond the count, a count beyond MAX_PARTS, or another count than the first part's.
    error WrongParts(uint256 part, uint256 parts, uint256 bound);
    error AlreadyReceived(uint256 part);
    /// @dev Two statements of one validator on one receipt that differ in outcome or leaf; these don't.
    error NotContradictory();
    error AlreadySlashed(address validator);
    error OnlyLeases(address caller);
    error ParameterOutOfRange(bytes32 name, uint256 value);

    // --- constants ---

    uint8 public constant FRAUD = 2;
    uint8 public constant WITHHELD = 3;
    /// @notice The index that stands for an epoch's list itself: wrong root, wrong total, a receipt twice.
    uint32 public constant EPOCH_LIST = type(uint32).max;
    /// @notice Most bytes of one part of an answer, and most parts: an epoch's list of MAX_RECEIPTS fits.
    uint256 public constant MAX_SEALED_BYTES = 24_576;
    uint8 public constant MAX_PARTS = 64;
    /// @notice Most receipts of one commitment: a list that could not be shown on chain could not be demanded.
    uint32 public constant MAX_RECEIPTS = 8_192;
    uint128 public constant MAX_CHALLENGE_BOND = 1_000 * 10 ** 9;
    uint16 public constant MAX_BOUNTY_BPS = 5_000;
    /// @notice As many drawn receipts as this are wanted of a newcomer's epoch, of a provider with a history fewer.
    uint256 public constant VETERAN_AT = 10;
    uint24 private constant _MILLION = 1_000_000;

    bytes32 public constant VERDICT_TYPEHASH = keccak256(
        "Verdict(address provider,uint64 epoch,uint32 index,bytes32 leaf,uint8 outcome,bytes32 evidence)"
    );
    bytes32 public constant CLEARANCE_TYPEHASH =
        keccak256("Clearance(address provider,uint64 epoch,bytes32 root,uint32 audited,bytes32 evidence)");

    // --- storage ---

    IERC20 public immutable token;
    IRegistry public immutable registry;
    IChannels public immutable channels;
    IBeacon public immutable beacon;
    /// @notice May convict for what a lease's audit or dispute found.
    address public immutable leases;
    /// @notice May convict a provider for what its own signatures and anchors show.
    address public immutable vaults;
    /// @notice Says what audit rate deters.
    IRates public immutable rates;
    /// @notice Seconds of an epoch: epoch = timestamp / epochS. Fixed: another length would renumber all epochs.
    uint32 public immutable epochS;
    /// @notice Seconds after a commitment in which it can be judged. Fixed, and equal to Channels'.
    uint32 public immutable windowS;

    /// @notice The least share of the receipts that is drawn, in millionths; see `rateOf`.
    uint24 public auditRatePpm;
    /// @notice Share of a slashed stake that the first voter gets, in ten-thousandths; the rest is burned.
    uint16 public bountyBps;
    /// @notice Seconds a provider has for beginning to answer a challenge, and again for the rest of the answer.
    uint32 public answerS;
    /// @notice What a challenge costs; the provider's if it answers, else the challenger's again.
    uint128 public challengeBond;

    mapping(address provider => History) public histories;
    mapping(address provider => uint128) public committedTotal;
    mapping(address provider => mapping(uint64 epoch => Commitment)) public commitments;
    mapping(address provider => bool) public convicted;
    mapping(bytes32 statement => Tally) public tallies;
    mapping(bytes32 ballot => bool) private _voted;
    mapping(bytes32 ballot => Challenge) public challenges;
    mapping(address provider => mapping(uint64 epoch => bool)) public cleared;
    mapping(address validator => bool) public equivocated;

    // --- constructor ---

    constructor(
        IERC20 token_,
        IRegistry registry_,
        IChannels channels_,
        IBeacon beacon_,
        address leases_,
        address vaults_,
        IRates rates_,
        uint32 epochS_,
        uint32 windowS_,
        Parameters memory parameters,
        address governor
    ) EIP712("ClusterAI Court", "1") Ownable(governor) {
        require(epochS_ != 0, ParameterOutOfRange("epochS", epochS_));
        // Commit, beacon and verdict each need an epoch; the fourth is slack.
        require(windowS_ >= 4 * uint256(epochS_), ParameterOutOfRange("windowS", windowS_));
        require(channels_.windowS() == windowS_, ParameterOutOfRange("channels.windowS", channels_.windowS()));
        require(channels_.court() == address(this), ParameterOutOfRange("channels.court", 0));
        require(leases_ != address(0), ParameterOutOfRange("leases", 0));
        require(vaults_ != address(0), ParameterOutOfRange("vaults", 0));
        require(address(rates_) != address(0), ParameterOutOfRange("rates", 0));
        // Stake taken out after a crime must still be there when the verdict comes.
        require(
            registry_.unbondDelayS() > windowS_, ParameterOutOfRange("unbondDelayS", registry_.unbondDelayS())
        );
        token = token_;
        registry = registry_;
        channels = channels_;
        beacon = beacon_;
        leases = leases_;
        vaults = vaults_;
        rates = rates_;
        epochS = epochS_;
        windowS = windowS_;
        _setParameters(parameters);
    }

    // --- public: governance ---

    /// @notice Change the parameters. Called by the governor.
    /// @dev Abuse: a captured governor could stop audits (rate 0), forbid challenges (bond) or outrun them (answerS);
    /// the bounds forbid all three, and a commitment keeps the rate it was made with.
    function setParameters(Parameters calldata parameters) external onlyOwner {
        _setParameters(parameters);
    }

    // --- public: providers ---

    /// @notice Commit the receipts of an ended epoch. Called by a provider's hot key, once an epoch, in rising order.
    /// @dev Abuse: a wrong `total` would raise what can be claimed; the list itself can be judged (EPOCH_LIST).
    /// Committing late or never only delays the provider's own pay.
    function commitEpoch(uint64 epoch, bytes32 root, uint32 count, uint128 total) external {
        address provider = registry.ownerOf(msg.sender);
        (, uint8 roles) = registry.standing(msg.sender);
        require(provider != address(0) && roles & PROVIDER != 0, NotProvider(msg.sender));
        require(!convicted[provider], AlreadyConvicted(provider));
        uint64 current = currentEpoch();
        require(epoch < current, EpochNotOver(epoch, current));
        uint64 until = histories[provider].committedUntil;
        require(epoch >= until, EpochBefore(epoch, until));
        require(count != 0, EmptyEpoch());
        require(count <= MAX_RECEIPTS, TooManyReceipts(count, MAX_RECEIPTS));

        uint24 ratePpm = rateOf(provider, count, total);
        histories[provider].committedUntil = epoch + 1;
        committedTotal[provider] += total;
        // slither-disable-next-line reentrancy-no-eth,reentrancy-benign
        uint32 round = beacon.next();
        commitments[provider][epoch] = Commitment({
            root: root,
            total: total,
            count: count,
            committedAt: uint40(block.timestamp),
            round: round,
            ratePpm: ratePpm
        });
        emit EpochCommitted(provider, epoch, root, count, total, round, ratePpm);
    }

    /// @notice Give one part of the sealed opening that answers a challenge, in any order. Called by a hot key of the
    /// challenged provider; the first part by `deadline`, and with it comes time until `finish` for the others.
    /// @dev Abuse: answering with garbage; it is on chain for all validators to judge. Stalling with a part now and then
    /// gains the time until `finish`, which a challenge left over from the start; what isn't complete by then is
    /// withheld. Who gave all parts gets the challenger's bond, once.
    function answerChallenge(
        address provider,
        uint64 epoch,
        uint32 index,
        uint8 part,
        uint8 parts,
        bytes calldata sealed_
    ) external {
        require(registry.ownerOf(msg.sender) == provider, NotProvider(msg.sender));
        require(sealed_.length <= MAX_SEALED_BYTES, AnswerTooLong(sealed_.length, MAX_SEALED_BYTES));
        Challenge storage challenged = challenges[_ballot(address(0), provider, epoch, index)];
        uint256 end = _closesAt(challenged);
        require(end != 0, NotChallenged(index));
        require(!challenged.answered, AlreadyAnswered(index));
        require(block.timestamp <= end, AnswerTooLate(end));
        uint8 bound = challenged.parts;
        if (bound == 0) {
            require(parts <= MAX_PARTS, WrongParts(part, parts, MAX_PARTS));
            challenged.parts = parts;
        } else {
            require(parts == bound, WrongParts(part, parts, bound));
        }
        require(part < parts, WrongParts(part, parts, bound));
        uint64 received = challenged.received;
        require(received & (uint64(1) << part) == 0, AlreadyReceived(part));
        received |= uint64(1) << part;
        challenged.received = received;
        emit AnswerPart(provider, epoch, index, part, parts, sealed_);
        if (received != type(uint64).max >> (MAX_PARTS - parts)) return;
        challenged.answered = true;
        uint128 bond = challenged.bond;
        challenged.bond = 0;
        emit ChallengeAnswered(provider, epoch, index);
        if (bond != 0) token.safeTransfer(provider, bond);
    }

    // --- public: anyone ---

    /// @notice Count a validator's signed verdict, with the proof of its leaf for fraud of a receipt. Anyone relays.
    /// @dev Abuse: accusing falsely needs two thirds of the stake; judging what was not drawn, not committed, not
    /// challenged or answered is refused; a second vote is refused; late votes are refused, so that paid money
    /// stays paid. A provider that is a validator too counts neither for nor against itself.
    function vote(Verdict calldata verdict, bytes32[] calldata proof, bytes calldata signature) external {
        Commitment memory commitment = _judgeable(verdict.provider, verdict.epoch);
        if (verdict.outcome == FRAUD) {
            if (verdict.index != EPOCH_LIST) _requireDrawnLeaf(commitment, verdict, proof);
        } else {
            require(verdict.outcome == WITHHELD, UnknownOutcome(verdict.outcome));
            _requireUnanswered(verdict);
        }
        bytes32 digest = verdictDigest(verdict);
        (address validator, uint128 stake) = _voter(verdict.provider, digest, signature);
        _castOnce(_ballot(validator, verdict.provider, verdict.epoch, verdict.index), validator);
        _announce(verdict, validator);
        (bool reached, address finder) = _count(digest, verdict.provider, validator, stake);
        if (reached) {
            _convict(
                verdict.provider, verdict.epoch, verdict.index, verdict.outcome, verdict.evidence, finder
            );
        }
    }

    /// @notice Count a validator's signed clearance of an epoch. Anyone relays.
    /// @dev Abuse: clearing fraud frees nothing; only time does, and a verdict still counts after it.
    function clear(Clearance calldata clearance, bytes calldata signature) external {
        Commitment memory commitment = _judgeable(clearance.provider, clearance.epoch);
        require(clearance.root == commitment.root, WrongRoot(clearance.root, commitment.root));
        beacon.beacons(commitment.round);
        require(
            !cleared[clearance.provider][clearance.epoch], AlreadyCleared(clearance.provider, clearance.epoch)
        );
        bytes32 digest = clearanceDigest(clearance);
        (address validator, uint128 stake) = _voter(clearance.provider, digest, signature);
        _castOnce(keccak256(abi.encode(validator, clearance.provider, clearance.epoch)), validator);
        (bool reached,) = _count(digest, clearance.provider, validator, stake);
        if (!reached) return;
        cleared[clearance.provider][clearance.epoch] = true;
        histories[clearance.provider].validInARow += clearance.audited;
        emit EpochCleared(
            clearance.provider, clearance.epoch, clearance.root, clearance.audited, clearance.evidence
        );
    }

    /// @notice Demand on chain what a provider withheld. Called by a validator's hot key, which approved the bond.
    /// @dev Abuse: harassing a provider; only what was drawn (or the list) can be demanded, and each answered
    /// challenge pays the provider. After an answer another may ask again: answers are sealed to one validator.
    function challenge(address provider, uint64 epoch, uint32 index) external {
        address validator = registry.ownerOf(msg.sender);
        require(registry.validatorStake(validator) != 0, NotValidator(msg.sender));
        Commitment memory commitment = _judgeable(provider, epoch);
        if (index != EPOCH_LIST) _requireDrawn(commitment, provider, epoch, index);
        Challenge storage challenged = challenges[_ballot(address(0), provider, epoch, index)];
        require(challenged.deadline == 0 || challenged.answered, AlreadyChallenged(challenged.deadline));
        uint256 last = uint256(commitment.committedAt) + windowS - 3 * uint256(answerS);
        require(block.timestamp <= last, AfterWindow(last));
        uint128 bond = challengeBond;
        _open(challenged, bond);
        emit Challenged(validator, provider, epoch, index, challenged.deadline, challenged.finish);
        if (bond != 0) token.safeTransferFrom(msg.sender, address(this), bond);
    }

    /// @notice Give the bond of a challenge that nobody answered back to who paid it. Anyone may call.
    function recoverBond(address provider, uint64 epoch, uint32 index) external {
        Challenge storage challenged = challenges[_ballot(address(0), provider, epoch, index)];
        uint128 bond = challenged.bond;
        require(bond != 0, NotChallenged(index));
        uint256 end = _closesAt(challenged);
        require(block.timestamp > end, AnswerPending(end));
        challenged.bond = 0;
        token.safeTransfer(challenged.payer, bond);
    }

    /// @notice Slash a validator that signed two contradictory verdicts on one receipt. Anyone may call and gets the
    /// bounty; a revoked hot key still binds its owner.
    /// @dev Abuse: two audits of one receipt with other evidence are no contradiction; outcome or leaf must differ.
    function equivocation(
        Verdict calldata first,
        bytes calldata firstSignature,
        Verdict calldata second,
        bytes calldata secondSignature
    ) external {
        require(
            first.provider == second.provider && first.epoch == second.epoch && first.index == second.index
                && (first.outcome != second.outcome || first.leaf != second.leaf),
            NotContradictory()
        );
        address key = _signer(verdictDigest(first), firstSignature);
        (address validator, uint8 roles) = registry.standing(key);
        require(roles & VALIDATOR != 0, NotValidator(key));
        key = _signer(verdictDigest(second), secondSignature);
        (address other,) = registry.standing(key);
        require(other == validator, NotValidator(key));
        require(!equivocated[validator], AlreadySlashed(validator));
        equivocated[validator] = true;
        emit Equivocated(validator, first.provider, first.epoch, first.index);
        registry.slash(validator, msg.sender, bountyBps);
    }

    // --- public: Leases ---

    /// @notice Convict a provider for a lease, an auditor that fell into a trap, or a vault that its own words show wrong. Called by Leases
    /// and Vaults only, which answer for the evidence.
    /// @dev Abuse: none for others. The event names no epoch but the present one, and the lease or the dataset as evidence.
    function convictByLease(address provider, address finder, uint8 outcome, bytes32 id) external {
        require(msg.sender == leases || msg.sender == vaults, OnlyLeases(msg.sender));
        if (convicted[provider]) return;
        _convict(provider, currentEpoch(), EPOCH_LIST, outcome, id, finder);
    }

    // --- views ---

    function currentEpoch() public view returns (uint64) {
        return uint64(block.timestamp / epochS);
    }

    /// @notice The share of an epoch's receipts that is drawn, in millionths: the governor's least, what deters by the
    /// provider's stake, and for newcomers VETERAN_AT of the epoch's receipts; whichever is most.
    /// @dev p* of the total deters for every part of it, however the value is spread over receipts, and for many open
    /// epochs together (docs/explanation/proof-of-compute.md). Half of the stake counts: a cheat's own validator may
    /// be the first to accuse it, for MAX_BOUNTY_BPS. So does none that is being taken out, which may be gone by the verdict.
    function rateOf(address provider, uint32 count, uint128 total) public view returns (uint24) {
        (uint128 stake,,,,,) = registry.participants(provider);
        uint256 newcomer = (VETERAN_AT * _MILLION) / (uint256(histories[provider].validInARow) + count);
        uint256 least = total == 0 ? 0 : rates.leastRate(stake / 2, total);
        return uint24(Math.min(_MILLION, Math.max(auditRatePpm, Math.max(newcomer, least))));
    }

    /// @notice The beacon that draws from a commitment; reverts until it is recorded.
    function beaconOf(address provider, uint64 epoch) public view returns (bytes32) {
        Commitment memory commitment = commitments[provider][epoch];
        require(commitment.committedAt != 0, NotCommitted(provider, epoch));
        return beacon.beacons(commitment.round);
    }

    /// @notice Whether a receipt is to be audited: keccak(beacon ‖ provider ‖ epoch ‖ root ‖ index) below the rate's
    /// share of 2^256. Anyone can recompute it from events.
    function drawn(address provider, uint64 epoch, uint32 index) external view returns (bool) {
        return _isDrawn(commitments[provider][epoch], beaconOf(provider, epoch), provider, epoch, index);
    }

    function verdictDigest(Verdict calldata verdict) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(VERDICT_TYPEHASH, verdict)));
    }

    function clearanceDigest(Clearance calldata clearance) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(CLEARANCE_TYPEHASH, clearance)));
    }

    /// @notice Key of `challenges` for a receipt.
    function challengeKey(address provider, uint64 epoch, uint32 index) external pure returns (bytes32) {
        return _ballot(address(0), provider, epoch, index);
    }

    // --- internal: judgement ---

    function _announce(Verdict calldata verdict, address validator) internal {
        emit Voted(
            validator, verdict.provider, verdict.epoch, verdict.index, verdict.outcome, verdict.evidence
        );
    }

    function _convict(
        address provider,
        uint64 epoch,
        uint32 index,
        uint8 outcome,
        bytes32 evidence,
        address finder
    ) internal {
        convicted[provider] = true;
        uint128 slashed = registry.slash(provider, finder, bountyBps);
        channels.bar(provider);
        emit Convicted(provider, epoch, index, outcome, evidence, slashed);
    }

    /// @dev Add a vote's weight; two thirds of all validators' stake, the judged one's left out, decide.
    function _count(bytes32 digest, address judged, address validator, uint128 stake)
        internal
        returns (bool reached, address finder)
    {
        Tally storage tally = tallies[digest];
        if (tally.finder == address(0)) tally.finder = validator;
        tally.weight += stake;
        uint128 total = registry.totalValidatorStake() - registry.validatorStake(judged);
        if (total > tally.total) tally.total = total;
        return (uint256(tally.weight) * 3 >= uint256(tally.total) * 2, tally.finder);
    }

    function _castOnce(bytes32 ballot, address validator) internal {
        require(!_voted[ballot], AlreadyVoted(validator));
        _voted[ballot] = true;
    }

    function _voter(address judged, bytes32 digest, bytes calldata signature)
        internal
        view
        returns (address validator, uint128 stake)
    {
        address key = _signer(digest, signature);
        validator = registry.ownerOf(key);
        stake = registry.validatorStake(validator);
        require(stake != 0 && validator != judged, NotValidator(key));
    }

    /// @dev Who signed; zero, which is nobody, for a malformed or malleable signature.
    function _signer(bytes32 digest, bytes calldata signature) internal pure returns (address key) {
        (key,,) = ECDSA.tryRecoverCalldata(digest, signature);
    }

    function _judgeable(address provider, uint64 epoch) internal view returns (Commitment memory commitment) {
        commitment = commitments[provider][epoch];
        require(commitment.committedAt != 0, NotCommitted(provider, epoch));
        uint256 deadline = uint256(commitment.committedAt) + windowS;
        require(block.timestamp <= deadline, AfterWindow(deadline));
        require(!convicted[provider], AlreadyConvicted(provider));
    }

    function _requireDrawnLeaf(Commitment memory commitment, Verdict calldata verdict, bytes32[] calldata proof)
        internal
        view
    {
        require(
            Merkle.holds(commitment.root, commitment.count, verdict.leaf, verdict.index, proof),
            NotInCommitment(verdict.index)
        );
        _requireDrawn(commitment, verdict.provider, verdict.epoch, verdict.index);
    }

    function _requireDrawn(Commitment memory commitment, address provider, uint64 epoch, uint32 index) internal view {
        require(index < commitment.count, NotInCommitment(index));
        bytes32 word = beacon.beacons(commitment.round);
        require(_isDrawn(commitment, word, provider, epoch, index), NotDrawn(index));
    }

    function _requireUnanswered(Verdict calldata verdict) internal view {
        Challenge storage challenged = challenges[
            _ballot(address(0), verdict.provider, verdict.epoch, verdict.index)
        ];
        uint256 end = _closesAt(challenged);
        require(end != 0, NotChallenged(verdict.index));
        require(!challenged.answered, AlreadyAnswered(verdict.index));
        require(block.timestamp > end, AnswerPending(end));
    }

    /// @dev Begin a demand; what was answered to one before doesn't count for it.
    function _open(Challenge storage challenged, uint128 bond) internal {
        challenged.payer = msg.sender;
        challenged.deadline = uint40(block.timestamp + answerS);
        challenged.finish = uint40(block.timestamp + 2 * uint256(answerS));
        challenged.parts = 0;
        challenged.answered = false;
        challenged.bond = bond;
        challenged.received = 0;
    }

    /// @dev The last second in which a part counts; 0 where nothing was demanded.
    function _closesAt(Challenge storage challenged) internal view returns (uint256) {
        return challenged.parts == 0 ? challenged.deadline : challenged.finish;
    }

    /// @dev h < rate * 2^256 / 10^6, exactly: the high word of h * 10^6 is below the rate.
    function _isDrawn(Commitment memory commitment, bytes32 word, address provider, uint64 epoch, uint32 index)
        internal
        pure
        returns (bool)
    {
        uint256 lot = uint256(keccak256(abi.encodePacked(word, provider, epoch, commitment.root, index)));
        (uint256 share,) = Math.mul512(lot, _MILLION);
        return share < commitment.ratePpm;
    }

    function _ballot(address validator, address provider, uint64 epoch, uint32 index)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(validator, provider, epoch, index));
    }

    // --- internal: parameters ---

    function _setParameters(Parameters memory given) internal {
        require(
            given.auditRatePpm != 0 && given.auditRatePpm <= _MILLION,
            ParameterOutOfRange("auditRatePpm", given.auditRatePpm)
        );
        require(given.bountyBps <= MAX_BOUNTY_BPS, ParameterOutOfRange("bountyBps", given.bountyBps));
        require(
            given.answerS != 0 && given.answerS <= windowS / 6, ParameterOutOfRange("answerS", given.answerS)
        );
        require(
            given.challengeBond <= MAX_CHALLENGE_BOND, ParameterOutOfRange("challengeBond", given.challengeBond)
        );
        auditRatePpm = given.auditRatePpm;
        bountyBps = given.bountyBps;
        answerS = given.answerS;
        challengeBond = given.challengeBond;
        emit ParametersSet(given.auditRatePpm, given.bountyBps, given.answerS, given.challengeBond);
    }
}
