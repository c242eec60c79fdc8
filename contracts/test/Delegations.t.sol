// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Delegations} from "../src/Delegations.sol";
import {Panel} from "../src/Panel.sol";
import {Registry} from "../src/Registry.sol";
import {Token} from "../src/Token.sol";
import {IDelegations, ILeases, IPanel, IRegistry, VALIDATOR} from "../src/Interfaces.sol";
import {VM} from "./Money.t.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";

uint32 constant DELAY_S = 121;

/// @dev Two validators, three delegators, and the handler as Court: all that can happen to delegated stake, in any order.
contract StakeHandler {
    Token public token;
    Registry public registry;
    Panel public panel;
    Delegations public delegations;

    address[2] public validators = [address(0xFA1), address(0xFA2)];
    address[3] public delegators = [address(0xD01), address(0xD02), address(0xD03)];
    uint256 public now_ = 1_700_000_000;
    /// Ghosts: what came in for delegators, and what went out to them.
    mapping(address validator => uint256) public shared;
    mapping(address validator => uint256) public claimed;
    uint256 public rewards;
    uint256 public slashes;

    constructor() {
        VM.warp(now_);
        uint64 nonce = VM.getNonce(address(this));
        token = new Token(address(this), 1e18);
        registry = new Registry(
            ERC20Burnable(address(token)),
            address(this),
            ILeases(address(this)),
            IPanel(VM.computeCreateAddress(address(this), nonce + 2)),
            IDelegations(VM.computeCreateAddress(address(this), nonce + 3)),
            DELAY_S
        );
        panel = new Panel(IRegistry(address(registry)));
        delegations = new Delegations(ERC20Burnable(address(token)), IRegistry(address(registry)));
        token.approve(address(delegations), type(uint256).max);
        for (uint256 i = 0; i < 2; ++i) {
            _equip(validators[i], address(registry));
            VM.prank(validators[i]);
            registry.register(VALIDATOR, 0);
            VM.prank(validators[i]);
            registry.bond(1e6);
            VM.prank(validators[i]);
            panel.enlist();
        }
        for (uint256 i = 0; i < 3; ++i) _equip(delegators[i], address(delegations));
    }

    function _equip(address who, address spender) internal {
        token.transfer(who, 1e12);
        VM.prank(who);
        token.approve(spender, type(uint256).max);
    }

    function holdsStake(address) external pure returns (bool) {
        return false;
    }

    // --- actions ---

    function pass(uint256 seconds_) external {
        now_ += 1 + seconds_ % (2 * DELAY_S);
        VM.warp(now_);
    }

    function delegate(uint256 who, uint256 validator, uint128 amount) external {
        VM.warp(now_);
        VM.prank(delegators[who % 3]);
        delegations.delegateStake(validators[validator % 2], 1 + amount % 2e6);
    }

    function undelegate(uint256 who, uint256 validator, uint256 quarters) external {
        VM.warp(now_);
        address of_ = validators[validator % 2];
        Delegations.Position memory position = delegations.positionOf(of_, delegators[who % 3]);
        uint256 stake = uint256(position.active) + position.entering + position.entered;
        VM.prank(delegators[who % 3]);
        delegations.undelegateStake(of_, uint128((stake * (1 + quarters % 4)) / 4));
    }

    function withdraw(uint256 who, uint256 validator) external {
        VM.warp(now_);
        VM.prank(delegators[who % 3]);
        delegations.withdrawStake(validators[validator % 2]);
    }

    function claim(uint256 who, uint256 validator) external {
        VM.warp(now_);
        address delegator = delegators[who % 3];
        uint256 before = token.balanceOf(delegator);
        VM.prank(delegator);
        delegations.claimReward(validators[validator % 2]);
        claimed[validators[validator % 2]] += token.balanceOf(delegator) - before;
    }

    function reward(uint256 validator, uint128 amount) external {
        VM.warp(now_);
        address of_ = validators[validator % 2];
        uint256 before = token.balanceOf(address(delegations));
        delegations.payReward(of_, amount % 1e7);
        uint256 got = token.balanceOf(address(delegations)) - before;
        shared[of_] += got;
        if (got != 0) ++rewards;
    }

    function commission(uint256 validator, uint16 bps) external {
        VM.warp(now_);
        VM.prank(validators[validator % 2]);
        delegations.announceCommission(bps % 3_001);
    }

    function own(uint256 validator, uint128 amount, bool out) external {
        VM.warp(now_);
        VM.prank(validators[validator % 2]);
        if (out) registry.unbond(1 + amount % 1e6);
        else registry.bond(1 + amount % 1e6);
    }

    function slash(uint256 validator, uint256 dice) external {
        VM.warp(now_);
        VM.assume(dice % 16 == 0);
        registry.slash(validators[validator % 2], delegators[0], 5_000);
        ++slashes;
    }
}

contract DelegationsTest {
    StakeHandler public handler;

    function setUp() public {
        handler = new StakeHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// Every token in the contract is somebody's: at stake, on its way out, or earned.
    function invariant_delegations_conserve_money() public {
        VM.warp(handler.now_());
        Delegations delegations = handler.delegations();
        uint256 held = 0;
        for (uint256 v = 0; v < 2; ++v) {
            address validator = handler.validators(v);
            Delegations.Pool memory pool = delegations.poolOf(validator);
            uint256 stake = 0;
            uint256 earned = 0;
            uint256 leaving = 0;
            for (uint256 d = 0; d < 3; ++d) {
                address delegator = handler.delegators(d);
                Delegations.Position memory position = delegations.positionOf(validator, delegator);
                stake += uint256(position.active) + position.entering + position.entered;
                earned += position.earned;
                Delegations.Request[] memory line = delegations.pendingOf(validator, delegator);
                require(line.length <= delegations.MAX_PENDING(), "too many pending");
                for (uint256 i = 0; i < line.length; ++i) leaving += line[i].amount;
            }
            require(stake == delegations.delegatedTo(validator), "positions are not the pool");
            require(pool.lost || leaving == pool.unbonding, "undelegations are not the pool's");
            require(earned <= pool.unclaimed, "more owed than there is");
            require(handler.shared(validator) == handler.claimed(validator) + pool.unclaimed, "a reward is missing");
            held += stake + pool.unbonding + pool.unclaimed;
        }
        require(handler.token().balanceOf(address(delegations)) == held, "money not conserved");
    }

    /// What votes, what is summed and what a seat weighs is the same, and a quarter of it at least is the owner's.
    function invariant_weights_equal_the_registry() public {
        VM.warp(handler.now_());
        Registry registry = handler.registry();
        uint256 total = 0;
        for (uint256 v = 0; v < 2; ++v) {
            address validator = handler.validators(v);
            uint256 votes = registry.validatorStake(validator);
            (uint128 own,, bool barred,,,) = registry.participants(validator);
            uint256 behind = handler.delegations().delegatedTo(validator);
            require(registry.delegated(validator) == behind, "the Registry counts another sum");
            require(votes <= 4 * uint256(own) && votes <= own + behind, "counts what can't be lost");
            require(!barred || votes == 0, "a convict votes");
            (address owner, uint64 weight) = handler.panel().seatAt(uint8(v));
            require(owner == validator && weight == votes, "the seat weighs something else");
            total += votes;
        }
        require(registry.totalValidatorStake() == total, "votes don't add up");
    }
}

/// @dev One history in numbers.
contract DelegationsUnitTest {
    function test_a_reward_is_shared_and_a_slash_takes_the_rest() external {
        StakeHandler handler = new StakeHandler();
        Delegations delegations = handler.delegations();
        address validator = handler.validators(0);
        VM.prank(handler.delegators(0));
        delegations.delegateStake(validator, 3e6);
        require(handler.registry().validatorStake(validator) == 4e6, "counts at once");
        for (uint256 i = 0; i < 3; ++i) handler.pass(2 * DELAY_S - 1);
        uint256 before = handler.token().balanceOf(validator);
        handler.reward(0, 4_000);
        require(handler.token().balanceOf(validator) == before + 1_000, "its quarter");
        require(delegations.positionOf(validator, handler.delegators(0)).earned == 3_000, "their three");
        handler.slash(0, 0);
        require(handler.token().balanceOf(address(delegations)) == 3_000, "the stake is burned, the earnings stay");
        handler.claim(0, 0);
        require(handler.token().balanceOf(address(delegations)) == 0, "all is gone");
    }

    function testFuzz_nothing_is_earned_by_stake_that_just_came(uint128 late, uint16 wait) external {
        StakeHandler handler = new StakeHandler();
        Delegations delegations = handler.delegations();
        address validator = handler.validators(0);
        handler.delegate(0, 0, 1e6 - 1);
        for (uint256 i = 0; i < 3; ++i) handler.pass(2 * DELAY_S - 1);
        handler.delegate(1, 0, late % 1e6);
        handler.pass(wait % DELAY_S);
        handler.reward(0, 1_000);
        require(delegations.positionOf(validator, handler.delegators(0)).earned >= 499, "half of it, as before");
        require(delegations.positionOf(validator, handler.delegators(1)).earned == 0, "nothing");
    }
}
