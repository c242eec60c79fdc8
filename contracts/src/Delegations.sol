// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IDelegations, IRegistry, PROVIDER, VALIDATOR} from "./Interfaces.sol";

/// @title Other people's stake behind a validator: it votes with it, is lost with it, and shares what it earns.
///
/// @notice A slash takes all, so an amount here is that amount of tokens until all of them are gone; there are no shares
/// whose price moves. Stake votes from the moment it is delegated, and earns later:
///
///     delayS    |   period j    |      j + 1       |  j + 2 ...
///            delegateStake: votes, can be slashed  |  earns                  undelegateStake ── delayS ──> withdrawStake
///                                                                            earns and votes no more, can be slashed
///
/// So whoever sees a reward coming and puts tokens behind its validator has to have been at risk for longer than delayS,
/// which is longer than a commitment's window, before any of it is his. The validator's own stake is treated alike.
///
/// A reward is shared in one step however many delegators there are: `perUnit` is what one unit of stake has earned since
/// the beginning, in 10^-18, and each position remembers where it stood. What rounding leaves stays in `unclaimed`.
contract Delegations is IDelegations {
    using SafeERC20 for ERC20Burnable;

    /// @dev `entering` was delegated in `period`, `entered` in the one before; `active` earns. `low` is the least that
    /// the validator itself had at stake in `period`, `lowBefore` in the one before. `carry` is below what was active.
    struct Pool {
        uint128 active;
        uint128 entering;
        uint128 entered;
        uint128 unbonding;
        uint128 own;
        uint128 low;
        uint128 lowBefore;
        uint40 period;
        uint40 commissionFrom;
        uint16 commission;
        uint16 nextCommission;
        bool lost;
        uint256 perUnit;
        uint128 unclaimed;
        uint128 carry;
    }

    /// @dev The same of one delegator; `earned` counts up to where `perUnit` stood then.
    struct Position {
        uint128 active;
        uint128 entering;
        uint128 entered;
        uint128 earned;
        uint256 perUnit;
        uint40 period;
    }

    struct Request {
        uint128 amount;
        uint40 readyAt;
    }

    // --- events ---

    /// @dev `delegated` is what the validator has from all of them now.
    event StakeDelegated(
        address indexed validator, address indexed delegator, uint128 amount, uint128 delegated
    );
    event StakeUndelegated(
        address indexed validator, address indexed delegator, uint128 amount, uint128 delegated, uint40 readyAt
    );
    event StakeWithdrawn(address indexed validator, address indexed delegator, uint128 amount);
    event DelegatedSlashed(address indexed validator, uint128 amount);
    event RewardShared(address indexed validator, uint128 amount, uint128 shared);
    event RewardClaimed(address indexed validator, address indexed delegator, uint128 amount);
    event CommissionAnnounced(address indexed validator, uint16 bps, uint40 from);

    // --- errors ---

    error ZeroAmount();
    /// @dev Nothing can be put behind an owner that doesn't validate.
    error NotValidator(address owner);
    /// @dev A provider's stake answers for its work and stays while a lease is open; validate from another owner.
    error ProvidesToo(address owner);
    error ValidatorBarred(address validator);
    /// @dev Only so much more counts beside what the validator has at stake itself.
    error NoRoom(uint256 room);
    error InsufficientStake(uint256 wanted, uint256 stake);
    /// @dev The validator was slashed, and what was behind it with it.
    error StakeLost(address validator);
    /// @dev Withdraw what is ready first; the next is at `readyAt`.
    error TooManyPending(uint256 readyAt);
    /// @dev Nothing has finished; the next is at `readyAt`, 0 if there is none.
    error NothingReady(uint256 readyAt);
    error NothingEarned(address validator);
    error CommissionTooHigh(uint256 bps);
    error OnlyRegistry(address caller);

    // --- constants ---

    /// @notice A validator can't keep more than this of what its delegators' stake earns, in ten-thousandths.
    /// Who has three times its own behind it needs 45 % for an audit's fee to leave it what the audit costs: 7/12 of the fee.
    uint16 public constant MAX_COMMISSION_BPS = 5_000;
    /// @notice Undelegations of one delegator from one validator that wait at a time.
    uint256 public constant MAX_PENDING = 8;
    uint256 private constant _UNIT = 10 ** 18;

    // --- storage ---

    ERC20Burnable public immutable token;
    IRegistry public immutable registry;
    /// @notice The Registry's unbonding delay; also the period in which stake begins to earn, and a commission's notice.
    uint32 public immutable delayS;

    mapping(address validator => Pool) private _pools;
    mapping(address validator => mapping(address delegator => Position)) private _positions;
    mapping(address validator => mapping(address delegator => Request[])) private _pending;
    /// @dev Where `perUnit` stood when stake began to earn with a period.
    mapping(address validator => mapping(uint40 period => uint256)) private _perUnitAt;

    // --- constructor ---

    constructor(ERC20Burnable token_, IRegistry registry_) {
        token = token_;
        registry = registry_;
        delayS = registry_.unbondDelayS();
    }

    // --- public: delegators ---

    /// @notice Put tokens behind a validator. Called by anyone, who approved this contract.
    /// @dev Abuse: filling a validator's room so that others find none; that stake is at risk and counts as theirs would.
    /// Lending a small validator weight for one vote, or to push another off its seat: the tokens stay for `delayS`, can't
    /// go to a second validator meanwhile, and draws look at the past.
    function delegateStake(address validator, uint128 amount) external {
        require(amount != 0, ZeroAmount());
        (uint128 own, uint8 roles, bool barred,,,) = registry.participants(validator);
        require(roles & VALIDATOR != 0, NotValidator(validator));
        require(roles & PROVIDER == 0, ProvidesToo(validator));
        require(!barred, ValidatorBarred(validator));
        uint128 delegated = delegatedTo(validator);
        uint256 most = uint256(own) * registry.DELEGATED_PER_OWN();
        uint256 room = most > delegated ? most - delegated : 0;
        require(amount <= room, NoRoom(room));

        Pool storage pool = _roll(validator);
        Position memory position = positionOf(validator, msg.sender);
        position.entering += amount;
        pool.entering += amount;
        _positions[validator][msg.sender] = position;
        emit StakeDelegated(validator, msg.sender, amount, delegated + amount);
        token.safeTransferFrom(msg.sender, address(this), amount);
        registry.setDelegated(validator, delegated + amount);
    }

    /// @notice Start taking tokens back; those that don't earn yet go first. Called by the delegator. They stop counting
    /// at once and stay at risk until they are withdrawn. Each undelegation has its own delay.
    /// @dev Abuse: leaving ahead of a verdict; the delay is the stake's own. Many small ones to lock others or oneself: a
    /// delegator has a line of its own, of MAX_PENDING at most.
    function undelegateStake(address validator, uint128 amount) external {
        require(amount != 0, ZeroAmount());
        Pool storage pool = _roll(validator);
        require(!pool.lost, StakeLost(validator));
        Position memory position = positionOf(validator, msg.sender);
        uint256 stake = uint256(position.active) + position.entered + position.entering;
        require(amount <= stake, InsufficientStake(amount, stake));
        Request[] storage line = _pending[validator][msg.sender];
        if (line.length >= MAX_PENDING) revert TooManyPending(line[0].readyAt);

        uint128 fresh = amount < position.entering ? amount : position.entering;
        uint128 rest = amount - fresh;
        uint128 young = rest < position.entered ? rest : position.entered;
        rest -= young;
        position.entering -= fresh;
        position.entered -= young;
        position.active -= rest;
        pool.entering -= fresh;
        pool.entered -= young;
        pool.active -= rest;
        pool.unbonding += amount;
        _positions[validator][msg.sender] = position;
        uint40 readyAt = uint40(block.timestamp + delayS);
        _pending[validator][msg.sender].push(Request(amount, readyAt));
        uint128 delegated = delegatedTo(validator);
        emit StakeUndelegated(validator, msg.sender, amount, delegated, readyAt);
        registry.setDelegated(validator, delegated);
    }

    /// @notice Pay out all undelegations whose delay is over. Called by the delegator.
    function withdrawStake(address validator) external {
        Pool storage pool = _pools[validator];
        require(!pool.lost, StakeLost(validator));
        Request[] storage line = _pending[validator][msg.sender];
        uint256 many = line.length;
        uint256 ready = 0;
        uint128 amount = 0;
        while (ready < many && line[ready].readyAt <= block.timestamp) amount += line[ready++].amount;
        require(ready != 0, NothingReady(many == 0 ? 0 : line[0].readyAt));
        for (uint256 i = ready; i < many; ++i) line[i - ready] = line[i];
        for (uint256 i = 0; i < ready; ++i) line.pop();
        pool.unbonding -= amount;
        emit StakeWithdrawn(validator, msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @notice Pay out what the caller's stake behind `validator` has earned; a slash doesn't take that.
    function claimReward(address validator) external {
        Pool storage pool = _roll(validator);
        Position memory position = positionOf(validator, msg.sender);
        uint128 amount = position.earned;
        require(amount != 0, NothingEarned(validator));
        position.earned = 0;
        _positions[validator][msg.sender] = position;
        pool.unclaimed -= amount;
        emit RewardClaimed(validator, msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    // --- public: validators ---

    /// @notice Say what share of the delegators' part the validator keeps, in ten-thousandths, from `delayS` on. Called
    /// by the validator's owner key; who never did keeps nothing.
    /// @dev Abuse: raising it overnight; a delegator who sees it announced can leave before. Announcing again starts the
    /// notice anew for what is announced then.
    function announceCommission(uint16 bps) external {
        (, uint8 roles,,,,) = registry.participants(msg.sender);
        require(roles & VALIDATOR != 0, NotValidator(msg.sender));
        require(bps <= MAX_COMMISSION_BPS, CommissionTooHigh(bps));
        Pool storage pool = _pools[msg.sender];
        pool.commission = commissionOf(msg.sender);
        pool.nextCommission = bps;
        pool.commissionFrom = uint40(block.timestamp + delayS);
        emit CommissionAnnounced(msg.sender, bps, pool.commissionFrom);
    }

    // --- public: anyone ---

    /// @inheritdoc IDelegations
    /// @dev Called by Leases and the Registry; by anyone else who wants to give. By stake, the validator's own included,
    /// as it stood throughout the last whole period and since: neither tokens delegated nor stake bonded at sight of a
    /// reward move a share. Abuse: dust, to spoil what rounding leaves; `carry` keeps it for the next.
    function payReward(address validator, uint128 amount) external {
        uint128 shared = 0;
        if (delegatedTo(validator) != 0) {
            Pool storage pool = _roll(validator);
            uint256 active = pool.active;
            if (active != 0) {
                uint256 own = pool.low < pool.lowBefore ? pool.low : pool.lowBefore;
                uint256 part = Math.mulDiv(amount, active, own + active);
                shared = uint128(part - (part * commissionOf(validator)) / 10_000);
                uint256 units = uint256(shared) * _UNIT + pool.carry;
                pool.perUnit += units / active;
                pool.carry = uint128(units % active);
                pool.unclaimed += shared;
                emit RewardShared(validator, amount, shared);
            }
        }
        if (shared != 0) token.safeTransferFrom(msg.sender, address(this), shared);
        if (amount != shared) token.safeTransferFrom(msg.sender, validator, amount - shared);
    }

    // --- public: Registry ---

    /// @inheritdoc IDelegations
    /// @dev Abuse: none for others than the Registry, which answers for the reason. Nobody is paid of it: a validator that
    /// reported itself would be paid for losing what isn't its own.
    function slashDelegated(address validator) external returns (uint128 amount) {
        require(msg.sender == address(registry), OnlyRegistry(msg.sender));
        Pool storage pool = _roll(validator);
        amount = delegatedTo(validator) + pool.unbonding;
        pool.lost = true;
        (pool.active, pool.entering, pool.entered, pool.unbonding) = (0, 0, 0, 0);
        if (amount == 0) return 0;
        emit DelegatedSlashed(validator, amount);
        token.burn(amount);
    }

    /// @inheritdoc IDelegations
    function noteOwn(address validator, uint128 stake) external {
        require(msg.sender == address(registry), OnlyRegistry(msg.sender));
        Pool storage pool = _roll(validator);
        pool.own = stake;
        if (stake < pool.low) pool.low = stake;
    }

    // --- views ---

    /// @notice What is behind `validator`, whether it counts or not; what is being taken back isn't.
    function delegatedTo(address validator) public view returns (uint128) {
        Pool storage pool = _pools[validator];
        return pool.active + pool.entered + pool.entering;
    }

    /// @notice The commission that a reward would be shared by now.
    function commissionOf(address validator) public view returns (uint16) {
        Pool storage pool = _pools[validator];
        return block.timestamp >= pool.commissionFrom ? pool.nextCommission : pool.commission;
    }

    /// @notice What a delegator has behind `validator` now, and what it could claim.
    function positionOf(address validator, address delegator) public view returns (Position memory position) {
        Pool storage pool = _pools[validator];
        position = _positions[validator][delegator];
        uint40 current = _period(pool);
        uint256 perUnit = pool.perUnit;
        uint256 sum = position.active * (perUnit - position.perUnit);
        for (uint40 next = position.period + 1; next <= current && next <= position.period + 2; ++next) {
            // Where nothing was shared since, nobody noted where it stood: where it stands.
            uint256 since = next > pool.period ? perUnit : _perUnitAt[validator][next];
            sum += position.entered * (perUnit - since);
            position.active += position.entered;
            (position.entered, position.entering) = (position.entering, 0);
        }
        position.earned += uint128(sum / _UNIT);
        position.perUnit = perUnit;
        position.period = current;
        if (pool.lost) (position.active, position.entering, position.entered) = (0, 0, 0);
    }

    /// @notice Undelegations that were not withdrawn yet, the oldest first; worthless once the validator was slashed.
    function pendingOf(address validator, address delegator) external view returns (Request[] memory) {
        return _pending[validator][delegator];
    }

    function poolOf(address validator) external view returns (Pool memory) {
        return _pools[validator];
    }

    // --- internal ---

    /// @dev A slashed validator's clock stands still: what was entering then never earns.
    function _period(Pool storage pool) internal view returns (uint40) {
        return pool.lost ? pool.period : uint40(block.timestamp / delayS);
    }

    /// @dev Bring a pool to the present period; no more than two passed for whoever waits to earn.
    function _roll(address validator) internal returns (Pool storage pool) {
        pool = _pools[validator];
        uint40 current = _period(pool);
        uint40 last = pool.period;
        if (current == last) return pool;
        for (uint40 next = last + 1; next <= current && next <= last + 2; ++next) {
            if (pool.entered != 0) {
                _perUnitAt[validator][next] = pool.perUnit;
                pool.active += pool.entered;
            }
            (pool.entered, pool.entering) = (pool.entering, 0);
            (pool.lowBefore, pool.low) = (pool.low, pool.own);
        }
        pool.period = current;
    }
}
