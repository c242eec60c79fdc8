// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IDelegations, ILeases, IPanel, IRegistry, PROVIDER, GATEWAY, VALIDATOR} from "./Interfaces.sol";

/// @title Who takes part, in which role, with what at stake, and which key acts for whom.
///
/// @notice A participant is an **owner** key that registers and holds stake. Its machines act with **hot** keys that
/// it delegates and revokes. A key is bound to one owner for ever, even after revocation: what it signed stays
/// attributable, so a guilty participant can't shed its past by revoking a key. Because a binding has consequences
/// (money paid to a bound address is forfeited with its owner's), no address is bound without its own signature.
///
///     stake --unbond--> unbonding --(unbondDelayS, no lease's audit open)--> withdraw
///       \_________________\_________ both can be slashed _______________/
contract Registry is IRegistry, EIP712 {
    using SafeERC20 for ERC20Burnable;

    struct Participant {
        uint128 stake;
        uint8 roles;
        bool barred;
        uint40 readyAt;
        uint128 unbonding;
        bytes32 card;
    }

    struct Binding {
        address owner;
        bool active;
    }

    // --- events ---

    event Registered(address indexed owner, uint8 roles, bytes32 card);
    event CardUpdated(address indexed owner, bytes32 card);
    event Delegated(address indexed owner, address indexed hot);
    event Revoked(address indexed owner, address indexed hot);
    event Bonded(address indexed owner, uint128 amount, uint128 stake);
    event Unbonding(address indexed owner, uint128 amount, uint40 readyAt);
    event Withdrawn(address indexed owner, uint128 amount);
    event Slashed(address indexed owner, uint128 amount, uint128 bounty, uint128 burned, address indexed finder);

    // --- errors ---

    /// @dev Roles are a non-empty set of PROVIDER 1, GATEWAY 2, VALIDATOR 4.
    error UnknownRoles(uint8 roles);
    /// @dev The key already belongs to `owner`; use another key.
    error AlreadyBound(address key, address owner);
    /// @dev The caller never registered; call `register` with the owner key.
    error NotRegistered(address caller);
    /// @dev `consent` is not the hot key's signature over Delegation(owner, hot); sign with the hot key.
    error NoConsent(address hot);
    /// @dev The key is not a delegated key of the caller.
    error NotYourKey(address key);
    /// @dev The owner was slashed; take part again from another owner key.
    error OwnerBarred(address owner);
    error InsufficientStake(uint256 wanted, uint256 stake);
    error ZeroAmount();
    error StillUnbonding(uint256 readyAt);
    /// @dev A committed lease of the owner can still be audited; close it first.
    error LeaseOpen(address owner);
    error OnlyCourt(address caller);
    error OnlyDelegations(address caller);
    error BountyTooLarge(uint256 bountyBps);

    // --- constants ---

    /// @notice More than half would let a cheat report itself and come out ahead of being caught by another.
    uint16 public constant MAX_BOUNTY_BPS = 5_000;
    /// @notice What others put behind a validator counts up to so many times its own stake: of what it votes with, it
    /// loses a quarter itself at least.
    uint128 public constant DELEGATED_PER_OWN = 3;

    bytes32 public constant DELEGATION_TYPEHASH = keccak256("Delegation(address owner,address hot)");

    // --- storage ---

    ERC20Burnable public immutable token;
    address public immutable court;
    ILeases public immutable leases;
    IPanel public immutable panel;
    IDelegations public immutable delegations;
    /// @notice Longer than the time in which a verdict can still be reached on work done before `unbond`.
    uint32 public immutable unbondDelayS;

    mapping(address owner => Participant) public participants;
    mapping(address key => Binding) private _bindings;
    /// @notice What others have behind an owner, whether it counts or not; kept by Delegations.
    mapping(address owner => uint128) public delegated;
    uint128 public totalValidatorStake;

    // --- constructor ---

    constructor(
        ERC20Burnable token_,
        address court_,
        ILeases leases_,
        IPanel panel_,
        IDelegations delegations_,
        uint32 unbondDelayS_
    ) EIP712("ClusterAI", "1") {
        require(address(token_) != address(0) && court_ != address(0), NotRegistered(address(0)));
        token = token_;
        court = court_;
        leases = leases_;
        panel = panel_;
        delegations = delegations_;
        unbondDelayS = unbondDelayS_;
        token_.forceApprove(address(delegations_), type(uint256).max);
    }

    // --- public ---

    /// @notice Take part. Called by the owner key itself, once.
    /// @dev Abuse: registering in masses; it costs the registrant only, and counts for nothing without stake.
    function register(uint8 roles, bytes32 card) external {
        require(roles != 0 && roles <= (PROVIDER | GATEWAY | VALIDATOR), UnknownRoles(roles));
        Binding storage binding = _bindings[msg.sender];
        require(binding.owner == address(0), AlreadyBound(msg.sender, binding.owner));
        binding.owner = msg.sender;
        binding.active = true;
        Participant storage participant = participants[msg.sender];
        participant.roles = roles;
        participant.card = card;
        emit Registered(msg.sender, roles, card);
    }

    /// @notice Publish the digest of a new card. Called by the owner or one of its hot keys.
    /// @dev Abuse: a stolen hot key can publish a wrong card until it is revoked; it can't reach the stake.
    function updateCard(bytes32 card) external {
        address owner = ownerOf(msg.sender);
        require(owner != address(0), NotRegistered(msg.sender));
        participants[owner].card = card;
        emit CardUpdated(owner, card);
    }

    /// @notice Let `hot` act for the caller. Called by the owner key, with the hot key's signed consent.
    /// @dev Abuse: binding a stranger's address, so that it can't register, or so that what it is paid as a merchant
    /// counts as a convict's; without its signature that is refused. A consent can't be used by another owner.
    function delegate(address hot, bytes calldata consent) external {
        require(participants[msg.sender].roles != 0, NotRegistered(msg.sender));
        Binding storage binding = _bindings[hot];
        bool free = binding.owner == address(0) || (binding.owner == msg.sender && !binding.active);
        require(free, AlreadyBound(hot, binding.owner));
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(DELEGATION_TYPEHASH, msg.sender, hot)));
        (address signer, ECDSA.RecoverError failure,) = ECDSA.tryRecoverCalldata(digest, consent);
        require(failure == ECDSA.RecoverError.NoError && signer == hot, NoConsent(hot));
        binding.owner = msg.sender;
        binding.active = true;
        emit Delegated(msg.sender, hot);
    }

    /// @notice End what `hot` may do for the caller. Called by the owner key; the binding itself stays.
    function revoke(address hot) external {
        Binding storage binding = _bindings[hot];
        require(binding.owner == msg.sender && binding.active && hot != msg.sender, NotYourKey(hot));
        binding.active = false;
        emit Revoked(msg.sender, hot);
    }

    /// @notice Add to the stake. Called by the owner key, which approved this contract.
    /// @dev Abuse: borrowing stake for one vote; it is locked for `unbondDelayS` and can be slashed meanwhile.
    function bond(uint256 amount) external {
        Participant storage participant = _active(msg.sender);
        require(amount != 0, ZeroAmount());
        uint128 added = uint128(amount);
        require(added == amount, InsufficientStake(amount, type(uint128).max));
        _setStake(msg.sender, participant.stake + added);
        emit Bonded(msg.sender, added, participant.stake);
        token.safeTransferFrom(msg.sender, address(this), amount);
        _weigh(msg.sender, participant.roles);
    }

    /// @notice Start taking stake out. Called by the owner key. It stops counting in votes at once, stays at risk
    /// until it is withdrawn, and a further `unbond` starts the delay anew for all of it.
    function unbond(uint256 amount) external {
        Participant storage participant = _active(msg.sender);
        require(amount != 0, ZeroAmount());
        require(amount <= participant.stake, InsufficientStake(amount, participant.stake));
        uint128 removed = uint128(amount);
        uint40 readyAt = uint40(block.timestamp + unbondDelayS);
        _setStake(msg.sender, participant.stake - removed);
        participant.unbonding += removed;
        participant.readyAt = readyAt;
        emit Unbonding(msg.sender, removed, readyAt);
        _weigh(msg.sender, participant.roles);
    }

    /// @notice Pay out what finished unbonding. Called by the owner key.
    /// @dev Abuse: taking the stake out while an audit drags on; it stays until every committed lease is closed, which
    /// the provider can see to.
    function withdraw() external {
        Participant storage participant = participants[msg.sender];
        uint128 amount = participant.unbonding;
        require(amount != 0, ZeroAmount());
        require(block.timestamp >= participant.readyAt, StillUnbonding(participant.readyAt));
        require(!leases.holdsStake(msg.sender), LeaseOpen(msg.sender));
        participant.unbonding = 0;
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @notice Take all that `owner` has at stake, pay `bountyBps` of it to the finder's owner, burn the rest and
    /// bar the owner for good. All that others put behind it is burned. Called by the Court only, which answers for the
    /// evidence.
    /// @dev Abuse: reporting oneself through a friend to save half: it still loses the other half, which is why
    /// the bounty is capped, and why it counts the own stake only. Paid at once rather than pulled: the token has no hooks
    /// and can't refuse.
    function slash(address owner, address finder, uint16 bountyBps) external returns (uint128 amount) {
        require(msg.sender == court, OnlyCourt(msg.sender));
        require(bountyBps <= MAX_BOUNTY_BPS, BountyTooLarge(bountyBps));
        Participant storage participant = participants[owner];
        amount = participant.stake + participant.unbonding;
        _setStake(owner, 0);
        delegated[owner] = 0;
        participant.unbonding = 0;
        participant.barred = true;

        uint128 bounty = finder == address(0) ? 0 : uint128((uint256(amount) * bountyBps) / 10_000);
        address payee = _bindings[finder].owner;
        if (payee == address(0)) payee = finder;
        emit Slashed(owner, amount, bounty, amount - bounty, payee);
        if (amount != bounty) token.burn(amount - bounty);
        if (participant.roles & VALIDATOR != 0) delegations.slashDelegated(owner);
        if (bounty != 0) delegations.payReward(payee, bounty);
        _weigh(owner, participant.roles);
    }

    /// @inheritdoc IRegistry
    /// @dev Abuse: none for others than Delegations, which holds the tokens.
    function setDelegated(address owner, uint128 amount) external {
        require(msg.sender == address(delegations), OnlyDelegations(msg.sender));
        uint128 votes = validatorStake(owner);
        delegated[owner] = amount;
        totalValidatorStake = totalValidatorStake - votes + validatorStake(owner);
        panel.weigh(owner);
    }

    // --- views ---

    function ownerOf(address key) public view returns (address) {
        Binding storage binding = _bindings[key];
        return binding.active ? binding.owner : address(0);
    }

    function standing(address key) external view returns (address owner, uint8 roles) {
        owner = _bindings[key].owner;
        roles = participants[owner].roles;
    }

    function validatorStake(address owner) public view returns (uint128) {
        Participant storage participant = participants[owner];
        if (participant.roles & VALIDATOR == 0) return 0;
        uint128 own = participant.stake;
        uint128 others = delegated[owner];
        uint128 most = DELEGATED_PER_OWN * own;
        return own + (others < most ? others : most);
    }

    // --- internal ---

    /// @dev The only place where an owner's stake changes, and with it the sum of all votes.
    function _setStake(address owner, uint128 stake) internal {
        uint128 votes = validatorStake(owner);
        participants[owner].stake = stake;
        totalValidatorStake = totalValidatorStake - votes + validatorStake(owner);
    }

    /// @dev A seat on the panel weighs what can be lost by it, from the next second on.
    function _weigh(address owner, uint8 roles) internal {
        if (roles & VALIDATOR == 0) return;
        delegations.noteOwn(owner, participants[owner].stake);
        panel.weigh(owner);
    }

    function _active(address owner) internal view returns (Participant storage participant) {
        participant = participants[owner];
        require(participant.roles != 0, NotRegistered(owner));
        require(!participant.barred, OwnerBarred(owner));
    }
}
