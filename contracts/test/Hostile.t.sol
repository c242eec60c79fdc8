// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Channels} from "../src/Channels.sol";
import {IDepositCollector, IRegistry} from "../src/Interfaces.sol";
import {VM} from "./Money.t.sol";

/// @dev A registry that knows nobody: plain x402 receivers.
contract NobodyRegistered {
    function ownerOf(address) external pure returns (address) {
        return address(0);
    }

    function standing(address) external pure returns (address, uint8) {
        return (address(0), 0);
    }
}

contract Coin is ERC20("Coin", "COIN") {
    constructor() {
        _mint(msg.sender, 1e18);
    }
}

/// @dev Keeps one per cent of every transfer.
contract FeeCoin is Coin {
    function _update(address from, address to, uint256 value) internal override {
        if (from == address(0)) return super._update(from, to, value);
        super._update(from, to, value - value / 100);
        super._update(from, address(0xFEE), value / 100);
    }
}

/// @dev Says that it paid, and pays `paid`; on the way it calls back.
contract BadCollector is IDepositCollector {
    bytes public callback;
    uint256 public paid;

    constructor(uint256 paid_, bytes memory callback_) {
        paid = paid_;
        callback = callback_;
    }

    function collect(address, address token, uint256, bytes32, bytes calldata) external {
        IERC20(token).transfer(msg.sender, paid);
        if (callback.length == 0) return;
        (bool success, bytes memory returned) = msg.sender.call(callback);
        if (success) return;
        assembly ("memory-safe") {
            revert(add(returned, 32), mload(returned))
        }
    }
}

/// @dev A wallet that is a contract and signs with its owner's key. Source: ERC-1271.
contract Wallet {
    address public owner;

    constructor(address owner_) {
        owner = owner_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (bytes32 r, bytes32 s) = abi.decode(signature[:64], (bytes32, bytes32));
        return ecrecover(digest, uint8(signature[64]), r, s) == owner ? this.isValidSignature.selector : bytes4(0);
    }
}

/// Tokens, collectors and wallets of strangers can't take what belongs to others.
contract HostileTest {
    Channels public channels;
    Coin public coin;
    address public receiver = address(0xBEEF);

    function setUp() public {
        VM.warp(1_700_000_000);
        channels = new Channels(IRegistry(address(new NobodyRegistered())), address(this), 60);
        coin = new Coin();
        coin.approve(address(channels), type(uint256).max);
    }

    function config(address payer, address token, address authorizer)
        internal
        view
        returns (Channels.ChannelConfig memory)
    {
        return Channels.ChannelConfig(payer, authorizer, receiver, receiver, token, 900, 0);
    }

    function test_fee_on_transfer_is_refused() public {
        FeeCoin fee = new FeeCoin();
        fee.approve(address(channels), type(uint256).max);
        Channels.ChannelConfig memory terms = config(address(this), address(fee), address(this));
        try channels.deposit(terms, 1_000, address(0), "") {
            revert("accepted");
        } catch (bytes memory reason) {
            _expect(reason, Channels.WrongDeposit.selector);
        }
    }

    function test_collector_that_pays_less_is_refused() public {
        BadCollector collector = new BadCollector(999, "");
        coin.transfer(address(collector), 999);
        try channels.deposit(config(address(this), address(coin), address(this)), 1_000, address(collector), "") {
            revert("accepted");
        } catch (bytes memory reason) {
            _expect(reason, Channels.WrongDeposit.selector);
        }
    }

    /// A collector that deposits the same money into a second channel meanwhile would be credited twice.
    function test_collector_cannot_enter_again() public {
        Channels.ChannelConfig memory terms = config(address(this), address(coin), address(this));
        bytes[] memory callbacks = new bytes[](4);
        callbacks[0] = abi.encodeCall(Channels.deposit, (terms, 1_000, address(0), ""));
        callbacks[1] = abi.encodeCall(Channels.settle, (receiver, address(coin)));
        callbacks[2] = abi.encodeCall(Channels.refund, (terms, 1));
        callbacks[3] = abi.encodeCall(Channels.finalizeWithdraw, (terms));
        for (uint256 i = 0; i < callbacks.length; ++i) {
            BadCollector collector = new BadCollector(1_000, callbacks[i]);
            coin.transfer(address(collector), 1_000);
            try channels.deposit(terms, 1_000, address(collector), "") {
                revert("entered");
            } catch (bytes memory reason) {
                _expect(reason, ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
            }
        }
    }

    /// The same hidden in a multicall is no way around.
    function test_collector_cannot_enter_by_multicall() public {
        Channels.ChannelConfig memory terms = config(address(this), address(coin), address(this));
        bytes[] memory inner = new bytes[](1);
        inner[0] = abi.encodeCall(Channels.deposit, (terms, 1_000, address(0), ""));
        bytes memory callback = abi.encodeWithSignature("multicall(bytes[])", inner);
        BadCollector collector = new BadCollector(1_000, callback);
        coin.transfer(address(collector), 1_000);
        try channels.deposit(terms, 1_000, address(collector), "") {
            revert("entered");
        } catch (bytes memory reason) {
            _expect(reason, ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        }
    }

    function test_contract_wallet_pays_by_erc1271() public {
        uint256 key = 0xCAFE;
        Wallet wallet = new Wallet(VM.addr(key));
        Channels.ChannelConfig memory terms = config(address(wallet), address(coin), address(0));
        channels.deposit(terms, 1_000, address(0), "");
        Channels.VoucherClaim[] memory rows = new Channels.VoucherClaim[](1);
        rows[0] = Channels.VoucherClaim(Channels.Voucher(terms, 400), _sign(terms, 400, key + 1), 400);
        VM.prank(receiver);
        try channels.claim(rows) {
            revert("accepted another's signature");
        } catch (bytes memory reason) {
            _expect(reason, Channels.InvalidSignature.selector);
        }
        rows[0].signature = _sign(terms, 400, key);
        VM.prank(receiver);
        channels.claim(rows);
        VM.warp(1_700_000_000 + 120);
        channels.settle(receiver, address(coin));
        require(coin.balanceOf(receiver) == 400, "not paid");
    }

    /// Every claim fits its bucket or is refused whole; sums can't wrap.
    function testFuzz_held_and_matured_add_up(uint104 first, uint104 second, uint16 wait) public {
        uint256 key = 0xCAFE;
        Coin big = coin;
        Channels.ChannelConfig memory terms = config(VM.addr(key), address(big), VM.addr(key));
        uint128 one = 1 + uint128(first) % 1e17;
        uint128 two = one + 1 + uint128(second) % 1e17;
        channels.deposit(terms, two, address(0), "");
        _claim(terms, one, key);
        VM.warp(1_700_000_000 + uint256(wait) % 200);
        _claim(terms, two, key);
        uint128 held = channels.held(receiver, address(big));
        require(held + channels.matured(receiver, address(big)) == two, "lost or made money");
        require(held >= two - one, "matured at once");
    }

    function _claim(Channels.ChannelConfig memory terms, uint128 total, uint256 key) internal {
        Channels.VoucherClaim[] memory rows = new Channels.VoucherClaim[](1);
        rows[0] = Channels.VoucherClaim(Channels.Voucher(terms, total), _sign(terms, total, key), total);
        VM.prank(receiver);
        channels.claim(rows);
    }

    function _sign(Channels.ChannelConfig memory terms, uint128 most, uint256 key)
        internal
        view
        returns (bytes memory)
    {
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(key, channels.getVoucherDigest(channels.getChannelId(terms), most));
        return abi.encodePacked(r, s, v);
    }

    function _expect(bytes memory reason, bytes4 selector) internal pure {
        require(bytes4(reason) == selector, string(abi.encodePacked("another error: ", reason)));
    }
}
