// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ChainBeacon} from "../src/ChainBeacon.sol";
import {Channels} from "../src/Channels.sol";
import {Court} from "../src/Court.sol";
import {Delegations} from "../src/Delegations.sol";
import {Panel} from "../src/Panel.sol";
import {Registry} from "../src/Registry.sol";
import {Token} from "../src/Token.sol";
import {IChannels, IDelegations, ILeases, IPanel, IRates, IRegistry, PROVIDER, VALIDATOR} from "../src/Interfaces.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";

interface Vm {
    function warp(uint256) external;
    function prank(address) external;
    function prevrandao(bytes32) external;
    function addr(uint256) external pure returns (address);
    function sign(uint256, bytes32) external pure returns (uint8, bytes32, bytes32);
    function computeCreateAddress(address, uint256) external pure returns (address);
    function getNonce(address) external view returns (uint64);
    function assume(bool) external pure;
}

Vm constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
uint32 constant WINDOW_S = 60;
uint32 constant EPOCH_S = 15;

/// @dev No work is worth cheating for: the rates are the governor's, and those of newcomers.
contract NoGain is IRates {
    function leastRate(uint256, uint256) external pure returns (uint256) {
        return 0;
    }
}

/// @dev Two providers with three channels each, one validator; every action that money can take, in any order.
contract Handler {
    Token public token;
    Registry public registry;
    Channels public channels;
    Court public court;

    uint256[2] public providers = [uint256(0xA11), 0xB0B];
    uint256 public validator = 0xFA1;
    uint256 public payer = 0xCAFE;
    uint64[2] public committed;
    uint256 public now_ = 1_700_000_000;
    /// Ghosts: all that was claimed by a provider, by time, and all that it was paid.
    uint256[2] public paid;
    uint256[2] public convictedAt;
    uint256[2][] private _claims0;
    uint256[2][] private _claims1;
    mapping(bytes32 => uint128) public ceiling;
    uint256 public claimsMade;
    uint256 public settlementsMade;
    uint256 public convictionsMade;

    constructor() {
        VM.warp(now_);
        ChainBeacon beacon = new ChainBeacon(EPOCH_S);
        NoGain rates = new NoGain();
        uint64 nonce = VM.getNonce(address(this));
        address court_ = VM.computeCreateAddress(address(this), nonce + 3);
        token = new Token(address(this), 1e18);
        address panel_ = VM.computeCreateAddress(address(this), nonce + 4);
        IDelegations delegations_ = IDelegations(VM.computeCreateAddress(address(this), nonce + 5));
        registry = new Registry(
            ERC20Burnable(address(token)), court_, ILeases(address(0)), IPanel(panel_), delegations_, 121
        );
        channels = new Channels(IRegistry(address(registry)), court_, WINDOW_S);
        court = new Court(
            IERC20(address(token)),
            IRegistry(address(registry)),
            IChannels(address(channels)),
            beacon,
            address(1),
            address(1),
            rates,
            EPOCH_S,
            WINDOW_S,
            Court.Parameters(500_000, 5_000, 10, 1_000),
            address(this)
        );
        new Panel(IRegistry(address(registry)));
        new Delegations(ERC20Burnable(address(token)), IRegistry(address(registry)));
        for (uint256 i = 0; i < 2; ++i) _join(VM.addr(providers[i]), PROVIDER);
        _join(VM.addr(validator), VALIDATOR);
        token.transfer(VM.addr(payer), 1e15);
        VM.prank(VM.addr(payer));
        token.approve(address(channels), type(uint256).max);
    }

    function _join(address who, uint8 roles) internal {
        token.transfer(who, 1e12);
        VM.prank(who);
        registry.register(roles, 0);
        VM.prank(who);
        token.approve(address(registry), type(uint256).max);
        VM.prank(who);
        registry.bond(1e9);
    }

    function config(uint256 provider, uint256 salt) public view returns (Channels.ChannelConfig memory) {
        address receiver = VM.addr(providers[provider % 2]);
        address from = VM.addr(payer);
        return Channels.ChannelConfig(from, from, receiver, receiver, address(token), 900, bytes32(salt % 3));
    }

    // --- actions ---

    function pass(uint256 seconds_) external {
        now_ += 1 + seconds_ % 70;
        VM.warp(now_);
        VM.prevrandao(keccak256(abi.encode(now_)));
    }

    function deposit(uint256 provider, uint256 salt, uint128 amount) external {
        VM.warp(now_);
        VM.prank(VM.addr(payer));
        channels.deposit(config(provider, salt), 1 + amount % 1e6, address(0), "");
    }

    function commit(uint256 provider, uint128 total) external {
        VM.warp(now_);
        provider %= 2;
        uint64 epoch = uint64(now_ / EPOCH_S) - 1;
        VM.prank(VM.addr(providers[provider]));
        court.commitEpoch(epoch, bytes32(uint256(1)), 1, total % 1e6);
        committed[provider] = epoch;
    }

    function claim(uint256 provider, uint256 salt, uint128 total, uint128 spare, bool twice) external {
        VM.warp(now_);
        provider %= 2;
        Channels.ChannelConfig memory terms = config(provider, salt);
        bytes32 id_ = _id(terms);
        (uint128 balance, uint128 claimed) = channels.channels(id_);
        total = claimed + total % (balance - claimed + 2);
        _claim(provider, terms, id_, total, total + spare % 100, twice);
        if (total > claimed) {
            (provider == 0 ? _claims0 : _claims1).push([now_, uint256(total - claimed)]);
            ++claimsMade;
        }
    }

    function _claim(
        uint256 provider,
        Channels.ChannelConfig memory terms,
        bytes32 id_,
        uint128 total,
        uint128 most,
        bool twice
    ) internal {
        Channels.VoucherClaim[] memory rows = new Channels.VoucherClaim[](twice ? 2 : 1);
        rows[0] = Channels.VoucherClaim(Channels.Voucher(terms, most), _voucher(id_, most), total);
        if (twice) rows[1] = rows[0];
        VM.prank(VM.addr(providers[provider]));
        channels.claim(rows);
        if (most > ceiling[id_]) ceiling[id_] = most;
    }

    function _voucher(bytes32 id_, uint128 most) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(payer, channels.getVoucherDigest(id_, most));
        return abi.encodePacked(r, s, v);
    }

    function settle(uint256 provider) external {
        VM.warp(now_);
        provider %= 2;
        address who = VM.addr(providers[provider]);
        uint256 before = token.balanceOf(who);
        channels.settle(who, address(token));
        uint256 gained = token.balanceOf(who) - before;
        paid[provider] += gained;
        if (gained != 0) ++settlementsMade;
    }

    function withdraw(uint256 provider, uint256 salt, uint128 amount, bool finish) external {
        VM.warp(now_);
        Channels.ChannelConfig memory terms = config(provider, salt);
        VM.prank(VM.addr(payer));
        if (finish) channels.finalizeWithdraw(terms);
        else channels.initiateWithdraw(terms, 1 + amount % 1e6);
    }

    function refund(uint256 provider, uint256 salt, uint128 amount) external {
        VM.warp(now_);
        VM.prank(VM.addr(providers[provider % 2]));
        channels.refund(config(provider, salt), 1 + amount % 1e4);
    }

    function convict(uint256 provider, uint256 dice) external {
        VM.warp(now_);
        VM.assume(dice % 8 == 0);
        provider %= 2;
        Court.Verdict memory verdict = Court.Verdict(
            VM.addr(providers[provider]), committed[provider], type(uint32).max, bytes32(0), 2, bytes32(0)
        );
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(validator, court.verdictDigest(verdict));
        court.vote(verdict, new bytes32[](0), abi.encodePacked(r, s, v));
        convictedAt[provider] = now_;
        ++convictionsMade;
    }

    function reclaim(uint256 provider, uint256 salt) external {
        VM.warp(now_);
        channels.reclaim(config(provider, salt));
    }

    // --- ghosts ---

    function _id(Channels.ChannelConfig memory terms) internal view returns (bytes32) {
        return Views(address(channels)).getChannelId(terms);
    }

    function id(uint256 provider, uint256 salt) external view returns (bytes32) {
        return _id(config(provider, salt));
    }

    /// @notice What `provider` claimed more than one window before `time`.
    function ripe(uint256 provider, uint256 time) external view returns (uint256 sum) {
        uint256[2][] storage claims = provider == 0 ? _claims0 : _claims1;
        for (uint256 i = 0; i < claims.length; ++i) {
            if (claims[i][0] + WINDOW_S < time) sum += claims[i][1];
        }
    }
}

/// @dev Channels takes configs as calldata; a memory struct is encoded by an external call.
interface Views {
    function getChannelId(Channels.ChannelConfig memory config) external view returns (bytes32);
}

contract MoneyTest {
    Handler public handler;

    function setUp() public {
        handler = new Handler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// Every token is with someone: what Channels holds is what is free, held or matured, and nothing more.
    function invariant_conservation() public {
        VM.warp(handler.now_());
        Channels channels = handler.channels();
        Token token = handler.token();
        uint256 expected = 0;
        for (uint256 p = 0; p < 2; ++p) {
            address who = VM.addr(handler.providers(p));
            uint256 claimed = 0;
            for (uint256 salt = 0; salt < 3; ++salt) {
                (uint128 balance, uint128 total) = channels.channels(handler.id(p, salt));
                require(total <= balance || balance == 0, "claimed beyond the balance");
                expected += balance - total;
                claimed += total;
            }
            (uint128 received, uint128 settled) = channels.receivers(who, address(token));
            require(received == claimed, "receiver's and channels' claims differ");
            expected += received - settled;
            require(
                received - settled == channels.held(who, address(token)) + channels.matured(who, address(token)),
                "neither held nor matured"
            );
        }
        require(token.balanceOf(address(channels)) == expected, "money not conserved");
    }

    /// No channel's claims exceed the highest voucher that its payer signed, and no provider's its commitments.
    function invariant_no_double_claim() public view {
        Channels channels = handler.channels();
        for (uint256 p = 0; p < 2; ++p) {
            for (uint256 salt = 0; salt < 3; ++salt) {
                bytes32 id = handler.id(p, salt);
                (, uint128 total) = channels.channels(id);
                require(total <= handler.ceiling(id), "claimed beyond the voucher");
            }
            address who = VM.addr(handler.providers(p));
            require(channels.claimedTotal(who) <= handler.court().committedTotal(who), "claimed beyond commitments");
        }
    }

    /// Nothing was paid that had been claimed less than a window ago, and nothing held at a conviction is ever paid.
    function invariant_no_pay_before_the_window_ends() public view {
        for (uint256 p = 0; p < 2; ++p) {
            require(handler.paid(p) <= handler.ripe(p, handler.now_()), "paid too early");
            uint256 end = handler.convictedAt(p);
            if (end != 0) require(handler.paid(p) <= handler.ripe(p, end), "forfeited money was paid");
        }
    }
}
