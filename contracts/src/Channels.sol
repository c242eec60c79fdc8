// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {ICourt, IDepositCollector, IRegistry, PROVIDER} from "./Interfaces.sol";

/// @title Payment channels: deposit once, sign cumulative vouchers, claim, wait out the audit window, be paid.
///
/// @notice Speaks x402's `batch-settlement` scheme (its ABI, EIP-712 domain and cumulative semantics), and adds the
/// audit window. What is claimed in window k is **held**, for its receiver and for its channel, and matures when
/// window k + 2 begins: after more than one window and at most two.
///
///     claimed in:   |  window k  | window k+1 | window k+2 ...
///     bucket:          current      previous     matured (`settle` pays it)
///     barred here:     forfeited    forfeited    the receiver's
///
/// A receiver whose owner is a provider can claim no more in all than it has committed to the Court, so every claimed
/// amount is covered by a commitment made before the claim, and the Court's deadline (commitment + windowS) always
/// falls before the claim matures.
///
/// @dev No immutables: a local network's genesis places the runtime code at x402's fixed address and writes slots 0
/// and 1 (`registry`, `court`, `windowS`); elsewhere the constructor does. Tokens that take a fee or rebase are
/// refused by `deposit`'s balance check.
contract Channels is Multicall, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @dev The immutable terms of a channel; their EIP-712 digest is its id.
    struct ChannelConfig {
        address payer;
        address payerAuthorizer;
        address receiver;
        address receiverAuthorizer;
        address token;
        uint40 withdrawDelay;
        bytes32 salt;
    }

    /// @dev `balance` is all that was deposited and not taken back, claimed money included.
    struct Channel {
        uint128 balance;
        uint128 totalClaimed;
    }

    struct Withdrawal {
        uint128 amount;
        uint40 initiatedAt;
    }

    struct Receiver {
        uint128 totalClaimed;
        uint128 totalSettled;
    }

    /// @dev Claims of window `window` and of the one before it; older ones have matured. One storage slot.
    struct Hold {
        uint104 current;
        uint104 previous;
        uint48 window;
    }

    struct Voucher {
        ChannelConfig channel;
        uint128 maxClaimableAmount;
    }

    /// @dev `totalClaimed` is cumulative: repeating an old row changes nothing.
    struct VoucherClaim {
        Voucher voucher;
        bytes signature;
        uint128 totalClaimed;
    }

    /// @dev The receiver of neighbouring rows of a batch; its sums are written once.
    struct Payee {
        address receiver;
        address token;
        address owner;
        bool provider;
        uint48 window;
        uint128 added;
    }

    // --- events ---

    event ChannelCreated(bytes32 indexed channelId, ChannelConfig config);
    event Deposited(
        bytes32 indexed channelId, address indexed payer, address indexed receiver, uint128 amount, uint128 balance
    );
    event Claimed(
        bytes32 indexed channelId, address indexed receiver, uint128 amount, uint128 totalClaimed, uint48 window
    );
    event Settled(address indexed receiver, address indexed token, address indexed sender, uint128 amount);
    event Barred(address indexed receiver);
    event Reclaimed(bytes32 indexed channelId, uint128 amount, uint128 totalClaimed);
    event WithdrawInitiated(bytes32 indexed channelId, uint128 amount, uint40 readyAt);
    event WithdrawFinalized(bytes32 indexed channelId, uint128 amount);
    event Refunded(bytes32 indexed channelId, uint128 amount);

    // --- errors ---

    /// @dev A config must name payer, receiver, receiverAuthorizer and token.
    error IncompleteConfig();
    error WithdrawDelayOutOfRange(uint256 delay, uint256 least, uint256 most);
    error ZeroAmount();
    /// @dev The collector delivered another amount than it said.
    error WrongDeposit(uint256 expected, uint256 received);
    error BatchSizeOutOfRange(uint256 size, uint256 most);
    error InvalidSignature(bytes32 channelId);
    /// @dev The caller is neither the receiver, nor its authorizer, nor one of its hot keys.
    error NotReceiver(address caller);
    error NotPayer(address caller);
    /// @dev All rows of `claimWithSignature` share the first row's receiverAuthorizer.
    error MixedAuthorizers(address expected, address found);
    error ExceedsVoucher(bytes32 channelId, uint256 claimed, uint256 ceiling);
    error ExceedsBalance(bytes32 channelId, uint256 wanted, uint256 available);
    /// @dev A provider claims only what it committed: commit the epoch first.
    error ExceedsCommitted(address provider, uint256 claimed, uint256 committed);
    /// @dev The receiver's owner was convicted of fraud.
    error ReceiverBarred(address owner);
    error NotBarred(address owner);
    error NothingHeld(bytes32 channelId);
    error WithdrawalPending(bytes32 channelId);
    error NoWithdrawal(bytes32 channelId);
    error WithdrawalNotReady(uint256 readyAt);
    error WrongRefundNonce(uint256 given, uint256 expected);
    error OnlyCourt(address caller);
    error InvalidParameters();

    // --- constants ---

    uint40 public constant MIN_WITHDRAW_DELAY = 15 minutes;
    uint40 public constant MAX_WITHDRAW_DELAY = 30 days;
    /// @notice Rows a batch; a hundred cost about two million gas.
    uint256 public constant MAX_BATCH = 500;

    bytes32 public constant CHANNEL_CONFIG_TYPEHASH = keccak256(
        "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
    );
    bytes32 public constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)");
    bytes32 public constant REFUND_TYPEHASH = keccak256("Refund(bytes32 channelId,uint256 nonce,uint128 amount)");
    bytes32 public constant CLAIM_ENTRY_TYPEHASH =
        keccak256("ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)");
    bytes32 public constant CLAIM_BATCH_TYPEHASH = keccak256(
        "ClaimBatch(ClaimEntry[] claims)ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
    );

    bytes32 private constant _DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant _DOMAIN_NAME = keccak256("x402 Batch Settlement");
    bytes32 private constant _DOMAIN_VERSION = keccak256("1");

    // --- storage ---

    /// @notice Slot 0.
    IRegistry public registry;
    /// @notice Slot 1, together with `windowS`.
    address public court;
    /// @notice Length of an audit window in seconds; fixed, because the buckets are counted in it.
    uint32 public windowS;

    mapping(bytes32 channelId => Channel) public channels;
    mapping(bytes32 channelId => Withdrawal) public pendingWithdrawals;
    mapping(bytes32 channelId => uint256) public refundNonce;
    mapping(address receiver => mapping(address token => Receiver)) public receivers;
    /// @notice What a channel has held, as of its last claim.
    mapping(bytes32 channelId => Hold) public channelHolds;
    /// @notice Sum of the channels' holds of a receiver and token, as of the last claim.
    mapping(address receiver => mapping(address token => Hold)) public receiverHolds;
    /// @notice All that a provider ever claimed, through any receiver address and in any token.
    mapping(address owner => uint128) public claimedTotal;
    /// @notice Window in which an owner was barred, plus one; zero if it wasn't. Its buckets stop there.
    mapping(address owner => uint48) public barredAt;

    // --- constructor ---

    constructor(IRegistry registry_, address court_, uint32 windowS_) {
        require(address(registry_) != address(0) && court_ != address(0) && windowS_ != 0, InvalidParameters());
        registry = registry_;
        court = court_;
        windowS = windowS_;
    }

    // --- public: deposits ---

    /// @notice Put `amount` into a channel, by a collector or, if `collector` is zero, from the caller's allowance.
    /// Anyone may call; the money belongs to the channel's payer from then on.
    /// @dev Abuse: a collector that delivers less, or calls back: the balance is compared before and after, and no
    /// function can be entered meanwhile. A channel whose receiver is barred takes no more money.
    // slither-disable-next-line reentrancy-balance
    function deposit(ChannelConfig calldata config, uint128 amount, address collector, bytes calldata collectorData)
        external
        nonReentrant
    {
        require(
            config.payer != address(0) && config.receiver != address(0) && config.receiverAuthorizer != address(0)
                && config.token != address(0),
            IncompleteConfig()
        );
        require(
            config.withdrawDelay >= MIN_WITHDRAW_DELAY && config.withdrawDelay <= MAX_WITHDRAW_DELAY,
            WithdrawDelayOutOfRange(config.withdrawDelay, MIN_WITHDRAW_DELAY, MAX_WITHDRAW_DELAY)
        );
        require(amount != 0, ZeroAmount());
        (address owner,) = _ownerOf(config.receiver);
        require(barredAt[owner] == 0, ReceiverBarred(owner));

        bytes32 channelId = getChannelId(config);
        Channel storage channel = channels[channelId];
        if (channel.balance == 0) emit ChannelCreated(channelId, config);
        channel.balance += amount;
        emit Deposited(channelId, config.payer, config.receiver, amount, channel.balance);

        IERC20 token = IERC20(config.token);
        uint256 before = token.balanceOf(address(this));
        if (collector == address(0)) token.safeTransferFrom(msg.sender, address(this), amount);
        else IDepositCollector(collector).collect(config.payer, config.token, amount, channelId, collectorData);
        uint256 received = token.balanceOf(address(this)) - before;
        require(received == amount, WrongDeposit(amount, received));
    }

    // --- public: claims ---

    /// @notice Raise the claimed totals of channels by their payers' vouchers. Called, for each row, by the receiver,
    /// its authorizer or a hot key of it.
    /// @dev Abuse: claiming twice (totals are cumulative), beyond the voucher, the balance or the commitments
    /// (refused), after conviction (refused), and being paid before the audit (held).
    function claim(VoucherClaim[] calldata voucherClaims) external nonReentrant {
        _requireBatch(voucherClaims.length);
        address owner = registry.ownerOf(msg.sender);
        for (uint256 i = 0; i < voucherClaims.length; ++i) {
            require(_isReceiverSide(owner, voucherClaims[i].voucher.channel), NotReceiver(msg.sender));
        }
        _claimAll(voucherClaims);
    }

    /// @notice `claim` by the signature of the rows' common receiverAuthorizer. Anyone may relay.
    /// @dev Abuse: replaying an old batch changes nothing, since totals only rise.
    function claimWithSignature(VoucherClaim[] calldata voucherClaims, bytes calldata authorizerSignature)
        external
        nonReentrant
    {
        _requireBatch(voucherClaims.length);
        address authorizer = voucherClaims[0].voucher.channel.receiverAuthorizer;
        for (uint256 i = 1; i < voucherClaims.length; ++i) {
            address found = voucherClaims[i].voucher.channel.receiverAuthorizer;
            require(found == authorizer, MixedAuthorizers(authorizer, found));
        }
        require(
            SignatureChecker.isValidSignatureNowCalldata(
                authorizer, getClaimBatchDigest(voucherClaims), authorizerSignature
            ),
            InvalidSignature(bytes32(0))
        );
        _claimAll(voucherClaims);
    }

    /// @notice Pay a receiver what matured. Anyone may call; the money can only go to the receiver.
    /// @dev Pays nothing, without an error, while nothing has matured, as x402's own contract does.
    function settle(address receiver, address token) external nonReentrant {
        uint128 amount = matured(receiver, token);
        if (amount == 0) return;
        receivers[receiver][token].totalSettled += amount;
        emit Settled(receiver, token, msg.sender, amount);
        IERC20(token).safeTransfer(receiver, amount);
    }

    // --- public: conviction ---

    /// @notice Refuse all claims of `owner` from now on and forfeit what it has held. Called by the Court only.
    /// @dev What had matured before stays the receiver's: its window ended without a verdict.
    function bar(address owner) external {
        require(msg.sender == court, OnlyCourt(msg.sender));
        if (barredAt[owner] != 0) return;
        barredAt[owner] = _window() + 1;
        emit Barred(owner);
    }

    /// @notice Move what a channel of a barred receiver has held back to the channel's balance. Anyone may call.
    /// @dev Abuse: none for the caller, the money goes to the payer's channel. Buckets stopped when the receiver was
    /// barred, so nothing matures while nobody calls.
    function reclaim(ChannelConfig calldata config) external nonReentrant {
        (address owner,) = _ownerOf(config.receiver);
        uint48 barred = barredAt[owner];
        require(barred != 0, NotBarred(owner));
        uint48 window = barred - 1;
        bytes32 channelId = getChannelId(config);
        Hold memory own = _rolled(channelHolds[channelId], window);
        uint128 amount = uint128(own.current) + own.previous;
        require(amount != 0, NothingHeld(channelId));

        Hold memory total = _rolled(receiverHolds[config.receiver][config.token], window);
        total.current -= own.current;
        total.previous -= own.previous;
        receiverHolds[config.receiver][config.token] = total;
        channelHolds[channelId] = Hold(0, 0, window);
        receivers[config.receiver][config.token].totalClaimed -= amount;
        Channel storage channel = channels[channelId];
        channel.totalClaimed -= amount;
        emit Reclaimed(channelId, amount, channel.totalClaimed);
    }

    // --- public: the payer takes back ---

    /// @notice Announce a withdrawal of unclaimed money. Called by the payer or its authorizer.
    /// @dev Abuse: withdrawing what vouchers already promise. The receiver has `withdrawDelay` to claim, and what
    /// it claims is taken off the withdrawal.
    function initiateWithdraw(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        require(msg.sender == config.payer || msg.sender == config.payerAuthorizer, NotPayer(msg.sender));
        require(amount != 0, ZeroAmount());
        bytes32 channelId = getChannelId(config);
        Withdrawal storage pending = pendingWithdrawals[channelId];
        require(pending.initiatedAt == 0, WithdrawalPending(channelId));
        uint128 available = _available(channelId);
        require(amount <= available, ExceedsBalance(channelId, amount, available));
        pending.amount = amount;
        pending.initiatedAt = uint40(block.timestamp);
        emit WithdrawInitiated(channelId, amount, uint40(block.timestamp) + config.withdrawDelay);
    }

    /// @notice Pay the announced withdrawal, or what claims left of it, to the payer. Called by the payer or its
    /// authorizer once the delay is over; at once if the receiver was barred, since it can't claim any more.
    function finalizeWithdraw(ChannelConfig calldata config) external nonReentrant {
        require(msg.sender == config.payer || msg.sender == config.payerAuthorizer, NotPayer(msg.sender));
        bytes32 channelId = getChannelId(config);
        Withdrawal memory pending = pendingWithdrawals[channelId];
        require(pending.initiatedAt != 0, NoWithdrawal(channelId));
        uint256 readyAt = uint256(pending.initiatedAt) + config.withdrawDelay;
        if (block.timestamp < readyAt) {
            (address owner,) = _ownerOf(config.receiver);
            require(barredAt[owner] != 0, WithdrawalNotReady(readyAt));
        }
        uint128 available = _available(channelId);
        uint128 amount = pending.amount < available ? pending.amount : available;
        delete pendingWithdrawals[channelId];
        channels[channelId].balance -= amount;
        emit WithdrawFinalized(channelId, amount);
        if (amount != 0) IERC20(config.token).safeTransfer(config.payer, amount);
    }

    /// @notice Give unclaimed money back to the payer at once. Called by the receiver's side.
    /// @dev Harms only the caller: it gives up what it has not claimed. `amount` is capped by what is unclaimed.
    function refund(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        require(_isReceiverSide(registry.ownerOf(msg.sender), config), NotReceiver(msg.sender));
        _refund(config, getChannelId(config), amount);
    }

    /// @notice `refund` by the signature of the receiverAuthorizer. Anyone may relay.
    /// @dev Abuse: replay; the nonce is used up by every refund, also by one that found nothing to give back.
    function refundWithSignature(
        ChannelConfig calldata config,
        uint128 amount,
        uint256 nonce,
        bytes calldata receiverAuthorizerSignature
    ) external nonReentrant {
        bytes32 channelId = getChannelId(config);
        uint256 expected = refundNonce[channelId];
        require(nonce == expected, WrongRefundNonce(nonce, expected));
        bytes32 digest = getRefundDigest(channelId, nonce, amount);
        require(
            SignatureChecker.isValidSignatureNowCalldata(
                config.receiverAuthorizer, digest, receiverAuthorizerSignature
            ),
            InvalidSignature(channelId)
        );
        _refund(config, channelId, amount);
    }

    // --- views ---

    /// @notice What `settle` would pay now.
    function matured(address receiver, address token) public view returns (uint128) {
        Receiver memory sums = receivers[receiver][token];
        return sums.totalClaimed - sums.totalSettled - held(receiver, token);
    }

    /// @notice What is still held for a receiver and token: forfeited if the receiver is barred.
    function held(address receiver, address token) public view returns (uint128) {
        (address owner,) = _ownerOf(receiver);
        uint48 barred = barredAt[owner];
        Hold memory hold = _rolled(receiverHolds[receiver][token], barred == 0 ? _window() : barred - 1);
        return uint128(hold.current) + hold.previous;
    }

    // solhint-disable-next-line func-name-mixedcase
    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        return keccak256(abi.encode(_DOMAIN_TYPEHASH, _DOMAIN_NAME, _DOMAIN_VERSION, block.chainid, address(this)));
    }

    function getChannelId(ChannelConfig calldata config) public view returns (bytes32) {
        return _typed(keccak256(abi.encode(CHANNEL_CONFIG_TYPEHASH, config)));
    }

    function getVoucherDigest(bytes32 channelId, uint128 maxClaimableAmount) public view returns (bytes32) {
        return _typed(keccak256(abi.encode(VOUCHER_TYPEHASH, channelId, maxClaimableAmount)));
    }

    function getRefundDigest(bytes32 channelId, uint256 nonce, uint128 amount) public view returns (bytes32) {
        return _typed(keccak256(abi.encode(REFUND_TYPEHASH, channelId, nonce, amount)));
    }

    function getClaimBatchDigest(VoucherClaim[] calldata voucherClaims) public view returns (bytes32) {
        bytes32[] memory entries = new bytes32[](voucherClaims.length);
        for (uint256 i = 0; i < voucherClaims.length; ++i) {
            VoucherClaim calldata row = voucherClaims[i];
            entries[i] = keccak256(
                abi.encode(
                    CLAIM_ENTRY_TYPEHASH,
                    getChannelId(row.voucher.channel),
                    row.voucher.maxClaimableAmount,
                    row.totalClaimed
                )
            );
        }
        return _typed(keccak256(abi.encode(CLAIM_BATCH_TYPEHASH, keccak256(abi.encodePacked(entries)))));
    }

    // --- internal: claims ---

    function _claimAll(VoucherClaim[] calldata rows) internal {
        Payee memory payee = Payee(address(0), address(0), address(0), false, 0, 0);
        for (uint256 i = 0; i < rows.length; ++i) {
            ChannelConfig calldata config = rows[i].voucher.channel;
            if (config.receiver != payee.receiver || config.token != payee.token) {
                _credit(payee);
                payee = _payee(config);
            }
            payee.added += _claimRow(rows[i], payee.window);
        }
        _credit(payee);
    }

    /// @dev Raise one channel's claimed total and hold; returns by how much.
    function _claimRow(VoucherClaim calldata row, uint48 window) internal returns (uint128 amount) {
        ChannelConfig calldata config = row.voucher.channel;
        bytes32 channelId = getChannelId(config);
        Channel memory channel = channels[channelId];
        if (row.totalClaimed <= channel.totalClaimed) return 0;
        uint128 ceiling = row.voucher.maxClaimableAmount;
        require(row.totalClaimed <= ceiling, ExceedsVoucher(channelId, row.totalClaimed, ceiling));
        require(row.totalClaimed <= channel.balance, ExceedsBalance(channelId, row.totalClaimed, channel.balance));
        require(_isPayersVoucher(config, getVoucherDigest(channelId, ceiling), row.signature), InvalidSignature(channelId));

        amount = row.totalClaimed - channel.totalClaimed;
        channels[channelId].totalClaimed = row.totalClaimed;
        channelHolds[channelId] = _added(channelHolds[channelId], window, amount);
        emit Claimed(channelId, config.receiver, amount, row.totalClaimed, window);
    }

    /// @dev Write what the rows of one receiver and token added.
    function _credit(Payee memory payee) internal {
        if (payee.added == 0) return;
        if (payee.provider) {
            uint128 claimed = claimedTotal[payee.owner] + payee.added;
            uint128 committed = ICourt(court).committedTotal(payee.owner);
            require(claimed <= committed, ExceedsCommitted(payee.owner, claimed, committed));
            claimedTotal[payee.owner] = claimed;
        }
        receivers[payee.receiver][payee.token].totalClaimed += payee.added;
        Hold storage total = receiverHolds[payee.receiver][payee.token];
        receiverHolds[payee.receiver][payee.token] = _added(total, payee.window, payee.added);
    }

    function _payee(ChannelConfig calldata config) internal view returns (Payee memory) {
        (address owner, bool provider) = _ownerOf(config.receiver);
        require(barredAt[owner] == 0, ReceiverBarred(owner));
        return Payee(config.receiver, config.token, owner, provider, _window(), 0);
    }

    /// @dev x402: a plain key signs if `payerAuthorizer` names one, else the payer itself, ERC-1271 included.
    function _isPayersVoucher(ChannelConfig calldata config, bytes32 digest, bytes calldata signature)
        internal
        view
        returns (bool)
    {
        if (config.payerAuthorizer == address(0)) {
            return SignatureChecker.isValidSignatureNowCalldata(config.payer, digest, signature);
        }
        (address signer, ECDSA.RecoverError failure,) = ECDSA.tryRecoverCalldata(digest, signature);
        return failure == ECDSA.RecoverError.NoError && signer == config.payerAuthorizer;
    }

    /// @dev Whether the caller, or the owner that it is a hot key of, is the receiver or its authorizer.
    function _isReceiverSide(address callersOwner, ChannelConfig calldata config) internal view returns (bool) {
        return msg.sender == config.receiver || msg.sender == config.receiverAuthorizer
            || callersOwner == config.receiver;
    }

    function _requireBatch(uint256 size) internal pure {
        require(size != 0 && size <= MAX_BATCH, BatchSizeOutOfRange(size, MAX_BATCH));
    }

    // --- internal: money ---

    function _refund(ChannelConfig calldata config, bytes32 channelId, uint128 amount) internal {
        require(amount != 0, ZeroAmount());
        ++refundNonce[channelId];
        uint128 available = _available(channelId);
        if (amount > available) amount = available;
        if (amount == 0) return;
        channels[channelId].balance -= amount;
        Withdrawal storage pending = pendingWithdrawals[channelId];
        if (amount >= pending.amount) delete pendingWithdrawals[channelId];
        else pending.amount -= amount;
        emit Refunded(channelId, amount);
        IERC20(config.token).safeTransfer(config.payer, amount);
    }

    function _available(bytes32 channelId) internal view returns (uint128) {
        Channel memory channel = channels[channelId];
        return channel.balance - channel.totalClaimed;
    }

    // --- internal: time ---

    function _window() internal view returns (uint48) {
        return uint48(block.timestamp / windowS);
    }

    /// @dev `hold` as it stands in `window`: one window on, current becomes previous; two on, all has matured.
    function _rolled(Hold memory hold, uint48 window) internal pure returns (Hold memory) {
        if (hold.window == window) return hold;
        return Hold(0, hold.window + 1 == window ? hold.current : 0, window);
    }

    function _added(Hold memory hold, uint48 window, uint128 amount) internal pure returns (Hold memory rolled) {
        rolled = _rolled(hold, window);
        rolled.current += SafeCast.toUint104(amount);
    }

    // --- internal: who ---

    /// @dev The participant behind a receiver address, by the binding that outlives revocation (revoking a hot key
    /// must not free the money it holds); an address that nobody registered stands for itself.
    function _ownerOf(address receiver) internal view returns (address owner, bool provider) {
        uint8 roles;
        (owner, roles) = registry.standing(receiver);
        if (owner == address(0)) owner = receiver;
        provider = roles & PROVIDER != 0;
    }

    function _typed(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", DOMAIN_SEPARATOR(), structHash));
    }
}
