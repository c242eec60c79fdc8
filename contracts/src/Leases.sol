// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {
    IAudits,
    IConvictions,
    IDelegations,
    IDeliveries,
    ILeases,
    IRegistry,
    PROVIDER
} from "./Interfaces.sol";
import {Merkle} from "./Merkle.sol";

/// @title Work paid from escrow: agreed, accepted, committed, audited, closed.
///
/// @notice The requester's money lies here from the opening on. It goes to the provider when the commitment's window is
/// over and its audit, if it is drawn, found nothing; in every other case back to who put it in. A conviction,
/// wherever and for whatever, forfeits every lease of the provider that is not closed by then.
///
///     open ──accept──> accepted ──commit──> committed ──window, audit──> closed: paid
///       │                 │                     └──────── convicted ───> closed: refunded
///       └─ cancel, give up, startBy or deadline over ───────────────────> closed: refunded (cancelled late: shared)
///
/// A newcomer's stake is small against what it is paid, so a tenth of its pay vests until it has VESTED_STAKE times the
/// price at stake; it is burnt if the newcomer is convicted before.
contract Leases is ILeases, EIP712 {
    using SafeERC20 for ERC20Burnable;

    struct Terms {
        address requester;
        address provider;
        bytes32 spec;
        bytes32 resources;
        bytes32 input;
        bytes32 expected;
        uint8 class;
        uint32 segments;
        uint64 units;
        uint128 compensation;
        uint128 auditFee;
        uint40 startBy;
        uint40 deadline;
        bytes32 nonce;
    }

    /// @dev `price` is the highest compensation of which a tenth vests.
    struct Vested {
        uint128 amount;
        uint128 price;
    }

    // --- events ---

    event LeaseOpened(bytes32 indexed id, address indexed requester, address indexed provider, Terms terms);
    event LeaseAccepted(bytes32 indexed id);
    event LeaseCommitted(
        bytes32 indexed id,
        bytes32 root,
        uint32 segments,
        bytes32 output,
        uint64 units,
        uint128 amount,
        uint32 round,
        bytes32 last
    );
    event LeaseClosed(bytes32 indexed id, uint8 reason, uint128 paid, uint128 refunded);
    event PayVested(address indexed provider, bytes32 indexed id, uint128 amount);
    event VestedReleased(address indexed provider, uint128 amount, bool burned);

    // --- errors ---

    error NotRequester(address caller);
    error NotProvider(address caller);
    error OnlyAudits(address caller);
    error ZeroAddress();
    error TermsOutOfRange(bytes32 name, uint256 value);
    error AlreadyOpened(bytes32 id);
    /// @dev The lease is in another state than this can be done in; see ILeases.Lease.
    error WrongState(bytes32 id, uint256 state);
    error AfterDeadline(uint256 deadline);
    error TooEarly(uint256 until);
    error AuditPending(bytes32 id);
    /// @dev The provider committed `earlier` before, and it isn't closed yet.
    error NotInTurn(bytes32 earlier);
    error DeliveryPending(bytes32 id);
    error ProviderBarred(address provider);
    error ExceedsCompensation(uint256 amount, uint256 compensation);
    error SegmentsOutOfRange(uint256 segments, uint256 most);
    error UnitsOutOfRange(uint256 units, uint256 most);
    /// @dev The proof doesn't show `last` and `units` at the end of `root`.
    error NotInCommitment(bytes32 root);
    error NothingVested(address provider);
    error InsufficientStake(uint256 wanted, uint256 stake);

    // --- constants ---

    bytes32 public constant TERMS_TYPEHASH = keccak256(
        "Terms(address requester,address provider,bytes32 spec,bytes32 resources,bytes32 input,bytes32 expected,uint8 class,uint32 segments,uint64 units,uint128 compensation,uint128 auditFee,uint40 startBy,uint40 deadline,bytes32 nonce)"
    );

    uint8 private constant _OPEN = 1;
    uint8 private constant _ACCEPTED = 2;
    uint8 private constant _COMMITTED = 3;
    uint8 private constant _CLOSED = 4;

    /// @dev Reasons: a closed list, the same numbers in protocol/leases.py.
    uint8 private constant _COMPLETED = 1;
    uint8 private constant _CANCELLED_BEFORE_START = 2;
    uint8 private constant _CANCELLED = 3;
    uint8 private constant _NOT_ACCEPTED = 4;
    uint8 private constant _DEADLINE_MISSED = 5;
    uint8 private constant _GAVE_UP = 6;
    uint8 private constant _OUTPUT_DIFFERS = 7;
    uint8 private constant _FRAUD = 8;
    uint8 private constant _PROVIDER_CONVICTED = 10;

    uint32 public constant MAX_SEGMENTS = 1 << 20;
    /// @notice What a commitment may cost however few its units, in ten-thousandths: a machine was set aside. The rest goes
    /// by the units, so that claiming more than was done never gains more than that rest.
    uint16 public constant BASE_BPS = 3_000;
    /// @notice What a cancellation costs at once, in ten-thousandths; the rest falls due evenly until the deadline.
    uint16 public constant CANCEL_BPS = 1_000;
    /// @notice Share of a newcomer's pay that vests.
    uint16 public constant VESTED_BPS = 1_000;
    /// @notice A provider is no newcomer with this many prices at stake.
    uint16 public constant VESTED_STAKE = 50;

    // --- storage ---

    ERC20Burnable public immutable token;
    IRegistry public immutable registry;
    IConvictions public immutable court;
    IAudits public immutable audits;
    IDeliveries public immutable deliveries;
    IDelegations public immutable delegations;
    /// @inheritdoc ILeases
    /// @dev The Court's window.
    uint32 public immutable windowS;

    mapping(bytes32 id => Lease) private _leases;
    /// @notice How many committed leases of a provider are not closed.
    mapping(address provider => uint256) public committed;
    mapping(address provider => Vested) public vested;
    /// @dev A provider's verifiable leases in the order of their commitments, and how many of them are closed for sure.
    mapping(address provider => bytes32[]) private _line;
    mapping(address provider => uint256) private _served;

    // --- constructor ---

    constructor(
        ERC20Burnable token_,
        IRegistry registry_,
        IConvictions court_,
        IAudits audits_,
        IDeliveries deliveries_,
        uint32 windowS_
    ) EIP712("ClusterAI Leases", "1") {
        require(address(court_) != address(0) && address(audits_) != address(0), ZeroAddress());
        require(address(deliveries_) != address(0), ZeroAddress());
        token = token_;
        registry = registry_;
        court = court_;
        audits = audits_;
        deliveries = deliveries_;
        delegations = registry_.delegations();
        windowS = windowS_;
        token_.forceApprove(address(delegations), type(uint256).max);
    }

    // --- public: requesters ---

    /// @notice Put up the money for `terms`. Called by the requester or one of its hot keys, which approved this
    /// contract; what is left in the end goes back to the caller's address.
    /// @dev Abuse: opening in somebody else's name, or masses of leases to keep a provider busy. The name is checked; a
    /// lease binds nobody before the provider accepted it, and the money lies still until then or `startBy`.
    function openLease(Terms calldata terms) external returns (bytes32 id) {
        require(_isParty(terms.requester), NotRequester(msg.sender));
        require(terms.class <= 2, TermsOutOfRange("class", terms.class));
        require(
            terms.segments != 0 && terms.segments <= MAX_SEGMENTS, TermsOutOfRange("segments", terms.segments)
        );
        require(terms.units != 0, TermsOutOfRange("units", 0));
        require(terms.compensation != 0, TermsOutOfRange("compensation", 0));
        require(terms.startBy >= block.timestamp, TermsOutOfRange("startBy", terms.startBy));
        require(terms.deadline > terms.startBy, TermsOutOfRange("deadline", terms.deadline));
        id = leaseId(terms);
        Lease storage lease = _leases[id];
        require(lease.state == 0, AlreadyOpened(id));
        lease.requester = terms.requester;
        lease.startBy = terms.startBy;
        lease.state = _OPEN;
        lease.class = terms.class;
        lease.segments = terms.segments;
        lease.provider = terms.provider;
        lease.deadline = terms.deadline;
        lease.payer = msg.sender;
        lease.compensation = terms.compensation;
        lease.auditFee = terms.auditFee;
        lease.units = terms.units;
        lease.cap = uint64(Math.ceilDiv(terms.units, terms.segments));
        lease.spec = terms.spec;
        if (terms.expected != 0) lease.expected = terms.expected;
        emit LeaseOpened(id, terms.requester, terms.provider, terms);
        token.safeTransferFrom(msg.sender, address(this), uint256(terms.compensation) + terms.auditFee);
    }

    /// @notice End a lease that isn't committed yet. Called by the requester or its hot keys. Free before it was
    /// accepted; then the provider gets CANCEL_BPS and, of the rest, the share of its time that passed; without
    /// `evenAccepted` it is refused instead. So who is told "I won't", and cancels, pays nothing to one who accepts meanwhile.
    /// @dev Abuse: having providers set machines aside for nothing; it costs. A provider that does nothing and waits to be
    /// cancelled gets nothing from a requester who waits for the deadline instead.
    function cancelLease(bytes32 id, bool evenAccepted) external {
        Lease storage lease = _leases[id];
        require(_isParty(lease.requester), NotRequester(msg.sender));
        require(!_barred(lease.provider), ProviderBarred(lease.provider));
        if (lease.state == _OPEN) return _close(id, _CANCELLED_BEFORE_START, 0);
        require(evenAccepted && lease.state == _ACCEPTED, WrongState(id, lease.state));
        require(block.timestamp <= lease.deadline, AfterDeadline(lease.deadline));
        uint256 base = (uint256(lease.compensation) * CANCEL_BPS) / 10_000;
        uint256 elapsed = block.timestamp - lease.acceptedAt;
        uint256 due = base + ((lease.compensation - base) * elapsed) / (lease.deadline - lease.acceptedAt);
        _close(id, _CANCELLED, uint128(due));
    }

    // --- public: providers ---

    /// @notice Take a lease on. Called by the provider or its hot keys, until `startBy`.
    /// @dev Abuse: accepting to keep the work from others; the money is back at the deadline, and the requester chose this
    /// provider.
    function acceptLease(bytes32 id) external {
        Lease storage lease = _provided(id);
        require(lease.state == _OPEN, WrongState(id, lease.state));
        require(block.timestamp <= lease.startBy, AfterDeadline(lease.startBy));
        lease.state = _ACCEPTED;
        lease.acceptedAt = uint40(block.timestamp);
        emit LeaseAccepted(id);
    }

    /// @notice Commit to the work: the root of its states, before anyone knows whether and where it will be audited. The
    /// proof shows all units, by which the work is paid, and `last`, the keccak of the last state: whoever is drawn for the last
    /// segment must not find there what it has to come to. Called by the provider or its hot keys, until the deadline. An output that differs from the expected one closes.
    /// @dev Abuse: one segment that holds everything, or a million empty ones to hide the work among; `segments` is at
    /// most what was agreed, and so are the units, of the whole and of each segment. Units that nobody did are found as a
    /// wrong state is. Stake bonded for this moment only: it must stay while the lease is open (holdsStake).
    function commitLease(
        bytes32 id,
        bytes32 root,
        uint32 segments,
        bytes32 output,
        uint64 units,
        uint128 amount,
        bytes32 last,
        bytes32[] calldata proof
    ) external {
        Lease storage lease = _provided(id);
        require(lease.state == _ACCEPTED, WrongState(id, lease.state));
        require(block.timestamp <= lease.deadline, AfterDeadline(lease.deadline));
        _requireEarned(lease, segments, units, amount);
        bytes32 value = keccak256(abi.encodePacked(segments, last, units));
        require(Merkle.holds(root, uint256(segments) + 1, value, segments, proof), NotInCommitment(root));
        if (lease.expected != 0 && output != lease.expected) {
            emit LeaseCommitted(id, root, segments, output, units, amount, 0, last);
            return _close(id, _OUTPUT_DIFFERS, 0);
        }
        lease.state = _COMMITTED;
        lease.committedAt = uint40(block.timestamp);
        lease.root = root;
        lease.segments = segments;
        lease.units = units;
        lease.amount = amount;
        ++committed[lease.provider];
        if (lease.class != 0) _line[lease.provider].push(id);
        uint32 round = audits.enter(id, lease.provider, lease.compensation, lease.class);
        emit LeaseCommitted(id, root, segments, output, units, amount, round, last);
    }

    /// @notice Give a lease back that isn't committed. Called by the provider or its hot keys. Nothing is paid.
    /// @dev Abuse: giving up once the audit is drawn; after the commitment it is too late for it.
    function giveUpLease(bytes32 id) external {
        Lease storage lease = _provided(id);
        require(lease.state == _OPEN || lease.state == _ACCEPTED, WrongState(id, lease.state));
        _close(id, _GAVE_UP, 0);
    }

    // --- public: anyone ---

    /// @notice Close what time, an audit or a conviction has decided. Anyone may call; money goes where it belongs.
    /// @dev Abuse: closing before a verdict comes; nothing is paid within the window, with an audit open, before its turn, or
    /// to a convict. A provider that is convicted before anyone closed loses what it could have had: close in time.
    function closeLease(bytes32 id) external {
        Lease storage lease = _leases[id];
        uint8 state = lease.state;
        require(state != 0 && state != _CLOSED, WrongState(id, state));
        address provider = lease.provider;
        if (_barred(provider)) return _close(id, _PROVIDER_CONVICTED, 0);
        if (state == _OPEN) {
            require(block.timestamp > lease.startBy, TooEarly(lease.startBy));
            return _close(id, _NOT_ACCEPTED, 0);
        }
        if (state == _ACCEPTED) {
            require(block.timestamp > lease.deadline, TooEarly(lease.deadline));
            return _close(id, _DEADLINE_MISSED, 0);
        }
        uint256 end = uint256(lease.committedAt) + windowS;
        require(block.timestamp > end, TooEarly(end));
        require(audits.payable_(id), AuditPending(id));
        require(!deliveries.isDemanded(id), DeliveryPending(id));
        if (lease.class != 0) _takeTurn(id, provider);
        _close(id, _COMPLETED, lease.amount);
    }

    /// @notice Pay a provider what vested once it has VESTED_STAKE prices at stake; burn it once it is convicted.
    /// @dev Abuse: bonding for a moment; the stake must have been VESTED_STAKE times the price, and stays at risk for the
    /// unbonding delay.
    function releaseVested(address provider) external {
        Vested memory kept = vested[provider];
        require(kept.amount != 0, NothingVested(provider));
        delete vested[provider];
        (uint128 stake,, bool barred,,,) = registry.participants(provider);
        emit VestedReleased(provider, kept.amount, barred);
        if (barred) return token.burn(kept.amount);
        uint256 wanted = uint256(kept.price) * VESTED_STAKE;
        require(stake >= wanted, InsufficientStake(wanted, stake));
        token.safeTransfer(provider, kept.amount);
    }

    // --- public: Audits, Deliveries ---

    /// @inheritdoc ILeases
    /// @dev Abuse: none for others than Audits and Deliveries, which answer for the proof.
    function convict(bytes32 id, address finder, uint8 reason) external {
        if (msg.sender != address(deliveries)) require(msg.sender == address(audits), OnlyAudits(msg.sender));
        address provider = _inCommitment(id);
        _close(id, reason, 0);
        court.convictByLease(provider, finder, reason == _FRAUD ? 2 : 3, id);
    }

    /// @inheritdoc ILeases
    /// @dev Abuse: a provider that calls its fraud a trap; the requester's secret stood in the terms before. `lazy`, if it isn't
    /// zero, revealed what no work gives, and loses its stake, of which nobody gets a share.
    function closeTrap(bytes32 id, address lazy) external {
        require(msg.sender == address(audits), OnlyAudits(msg.sender));
        _inCommitment(id);
        _close(id, _CANCELLED, 0);
        if (lazy != address(0)) court.convictByLease(lazy, address(0), 2, id);
    }

    // --- views ---

    function leaseOf(bytes32 id) external view returns (Lease memory) {
        return _leases[id];
    }

    function holdsStake(address owner) external view returns (bool) {
        return committed[owner] != 0;
    }

    function leaseId(Terms calldata terms) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(TERMS_TYPEHASH, terms)));
    }

    // --- internal ---

    /// @dev What is claimed lies within what was agreed. Nothing done is nothing to audit: only unverified work may be that.
    function _requireEarned(Lease storage lease, uint256 segments, uint256 units, uint256 amount) internal view {
        require(segments != 0 && segments <= lease.segments, SegmentsOutOfRange(segments, lease.segments));
        uint256 all = lease.units;
        uint256 most = Math.min(all, segments * lease.cap);
        require(units <= most && (units != 0 || lease.class == 0), UnitsOutOfRange(units, most));
        uint256 parts = BASE_BPS * all + (10_000 - BASE_BPS) * units;
        uint256 earned = Math.ceilDiv(lease.compensation * parts, 10_000 * all);
        require(amount <= earned, ExceedsCompensation(amount, earned));
    }

    /// @dev Paid in the order of commitments: else a cheat that commits to many leases at once has those paid that were not
    /// drawn, while the audits of the others take their time.
    function _takeTurn(bytes32 id, address provider) internal {
        bytes32[] storage line = _line[provider];
        uint256 turn = _served[provider];
        while (line[turn] != id) {
            require(_leases[line[turn]].state == _CLOSED, NotInTurn(line[turn]));
            ++turn;
        }
        _served[provider] = turn + 1;
    }

    /// @dev The only way out, for the lease and its money: each of it is paid, kept as vesting, or refunded, once.
    function _close(bytes32 id, uint8 reason, uint128 paid) internal {
        Lease memory lease = _leases[id];
        _leases[id].state = _CLOSED;
        if (lease.state == _COMMITTED) --committed[lease.provider];
        uint128 kept = reason == _COMPLETED ? _vesting(id, lease, paid) : 0;
        address first = address(0);
        address second = address(0);
        if (lease.state == _COMMITTED) (first, second) = audits.finish(id, reason == _COMPLETED);
        if (reason == _OUTPUT_DIFFERS || reason == _DEADLINE_MISSED) audits.missed(lease.provider);
        uint128 fee = first == address(0) ? 0 : lease.auditFee;
        uint128 refunded = lease.compensation + lease.auditFee - paid - fee;
        emit LeaseClosed(id, reason, paid, refunded);
        if (fee != 0) {
            uint128 half = second == address(0) ? 0 : fee / 2;
            delegations.payReward(first, fee - half);
            if (half != 0) delegations.payReward(second, half);
        }
        if (paid != kept) token.safeTransfer(lease.provider, paid - kept);
        if (refunded != 0) token.safeTransfer(lease.payer, refunded);
    }

    function _vesting(bytes32 id, Lease memory lease, uint128 paid) internal returns (uint128 kept) {
        (uint128 stake,,,,,) = registry.participants(lease.provider);
        if (stake >= uint256(lease.compensation) * VESTED_STAKE) return 0;
        kept = uint128((uint256(paid) * VESTED_BPS) / 10_000);
        if (kept == 0) return 0;
        Vested storage sum = vested[lease.provider];
        sum.amount += kept;
        if (lease.compensation > sum.price) sum.price = lease.compensation;
        emit PayVested(lease.provider, id, kept);
    }

    function _provided(bytes32 id) internal view returns (Lease storage lease) {
        lease = _leases[id];
        address provider = registry.ownerOf(msg.sender);
        require(provider != address(0) && provider == lease.provider, NotProvider(msg.sender));
        (, uint8 roles, bool barred,,,) = registry.participants(provider);
        require(roles & PROVIDER != 0, NotProvider(msg.sender));
        require(!barred, ProviderBarred(provider));
    }

    /// @dev The provider of a lease that is committed and not closed.
    function _inCommitment(bytes32 id) internal view returns (address) {
        Lease storage lease = _leases[id];
        require(lease.state == _COMMITTED, WrongState(id, lease.state));
        return lease.provider;
    }

    function _isParty(address owner) internal view returns (bool) {
        return msg.sender == owner || (owner != address(0) && registry.ownerOf(msg.sender) == owner);
    }

    function _barred(address owner) internal view returns (bool barred) {
        (,, barred,,,) = registry.participants(owner);
    }
}
