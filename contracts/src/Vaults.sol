// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC2981} from "@openzeppelin/contracts/interfaces/IERC2981.sol";
import {ERC1155} from "@openzeppelin/contracts/token/ERC1155/ERC1155.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {IConvictions, IRegistry, PROVIDER} from "./Interfaces.sol";
import {Merkle} from "./Merkle.sol";

/// @title Who may do what with whose data, what was done as the vault itself says, and what convicts a vault that says it twice.
///
/// @notice A licence is a token: its id is the digest of the grant, there is one of each, and it is bound to the requester's
/// key unless it is a copy that was granted as transferable. The use of it is paid elsewhere, by orders; only copies are sold here.
///
///     buyCopy ──> OPEN ──deliverCopy──> DELIVERED ──windowS──> closed: paid
///                  │ deliverBy over, or the vault gives up    │ revoked, or the vault convicted
///                  └──────────> closed: refunded <────────────┘
///
/// Uses are leaves of a log whose roots the vault anchors. Each use carries running sums and is signed for its requester, so that
/// two of them, or one and an anchor, show any vault wrong that spends too much, leaves a use out or writes its log anew.
contract Vaults is ERC1155, IERC2981 {
    using SafeERC20 for IERC20;

    /// @dev What an owner says of its data. `budget` is ε in millionths that all grants together may spend, ever; `price` that of a copy,
    /// zero: not for sale.
    struct Terms {
        bytes32 card;
        bytes32 snapshot;
        bytes32 policy;
        bytes32 noiseCommit;
        uint64 serial;
        uint64 budget;
        uint128 price;
        uint16 royaltyBps;
    }

    struct Listing {
        address owner;
        bool frozen;
        Terms terms;
    }

    struct Grant {
        bytes32 dataset;
        bytes32 request;
        address requester;
        uint8 operation;
        bytes32 code;
        uint64 epsilonMicro;
        uint32 uses;
        uint40 expiresAt;
        uint32 keyEpoch;
    }

    /// @dev Three slots. `reason` is zero until it is revoked; `holder` is zero once the token is burnt; `renounced` if it was the holder that
    /// ended it.
    struct Licence {
        bytes32 dataset;
        address holder;
        uint40 expiresAt;
        uint8 operation;
        uint8 reason;
        bool transferable;
        bool renounced;
        uint64 epsilonMicro;
        uint40 grantedAt;
        uint40 revokedAt;
    }

    struct Use {
        bytes32 dataset;
        uint32 index;
        bytes32 grant;
        address requester;
        bytes32 order;
        uint64 epsilonMicro;
        uint64 grantSpentMicro;
        uint64 totalSpentMicro;
        bytes32 result;
        uint40 usedAt;
    }

    /// @dev Two slots. `asOf`: every use signed for a time before it is in the log.
    struct Anchor {
        bytes32 root;
        uint32 count;
        uint64 spentMicro;
        uint40 asOf;
    }

    /// @dev A use, and where it stands: under which anchor of its dataset.
    struct Shown {
        Use use;
        uint32 anchor;
        bytes32[] proof;
    }

    /// @dev Any value under an anchor.
    struct Piece {
        uint32 anchor;
        bytes32 value;
        bytes32[] proof;
    }

    /// @dev Four slots; request and requester are in the sale's id.
    struct Sale {
        bytes32 dataset;
        bytes32 grant;
        address payer;
        uint40 deliverBy;
        uint40 deliveredAt;
        uint8 state;
        uint128 price;
    }

    // --- events ---

    event DatasetListed(bytes32 indexed dataset, address indexed owner, bytes32 name, Terms terms);
    event AccessGranted(bytes32 indexed id, bytes32 indexed dataset, address indexed requester, Grant terms, bool transferable);
    event GrantEnded(bytes32 indexed id, bytes32 indexed dataset, uint8 reason);
    event LicenceMoved(bytes32 indexed id, address indexed source, address indexed to);
    event LogAnchored(
        bytes32 indexed dataset, uint32 number, bytes32 root, uint32 count, uint64 spentMicro, uint40 asOf
    );
    event BreachProven(
        bytes32 indexed dataset, address indexed owner, uint8 kind, bytes32 evidence, address indexed finder
    );
    event CopyBought(
        bytes32 indexed sale,
        bytes32 indexed dataset,
        address indexed requester,
        bytes32 request,
        address payer,
        uint128 price,
        uint40 deliverBy
    );
    event CopyDelivered(bytes32 indexed sale, bytes32 indexed grant);
    event SaleClosed(bytes32 indexed sale, uint128 paid, uint128 refunded);

    // --- errors ---

    error NotProvider(address caller);
    error NotOwner(address caller, address owner);
    error ProviderBarred(address owner);
    error UnknownDataset(bytes32 dataset);
    /// @dev A breach was proven: nothing is granted, sold or anchored any more.
    error DatasetFrozen(bytes32 dataset);
    /// @dev The noise key and the budget are what they were at first, or either could be chosen to suit an answer.
    error TermsFixed(bytes32 dataset);
    /// @dev Of an anchor: a log grows, never loses a use, forgets ε or goes back in time, and says how it stands now.
    error OutOfRange(bytes32 name, uint256 value);
    error AlreadyGranted(bytes32 id);
    /// @dev It was never given, or has ended.
    error GrantOver(bytes32 id);
    /// @dev This licence is bound to its requester's key.
    error Soulbound(uint256 id);
    error UnknownAnchor(bytes32 dataset, uint256 anchor);
    /// @dev The proof doesn't place the value at `index` under the anchor.
    error NotInLog(uint256 index);
    /// @dev No key of the dataset's owner signed this.
    error NotSigned(bytes32 use);
    /// @dev What was shown convicts nobody.
    error NoBreach();
    error NotForSale(bytes32 dataset);
    error WrongState(bytes32 sale, uint256 state);
    error TooEarly(uint256 until);
    error TooLate(uint256 by);

    // --- constants ---

    bytes32 public constant GRANT_TYPEHASH = keccak256(
        "Grant(bytes32 dataset,bytes32 request,address requester,uint8 operation,bytes32 code,uint64 epsilonMicro,uint32 uses,uint40 expiresAt,uint32 keyEpoch)"
    );
    bytes32 public constant USE_TYPEHASH = keccak256(
        "Use(bytes32 dataset,uint32 index,bytes32 grant,address requester,bytes32 order,uint64 epsilonMicro,uint64 grantSpentMicro,uint64 totalSpentMicro,bytes32 result,uint40 usedAt)"
    );
    bytes32 private constant _DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    uint8 private constant _OPERATIONS = 6;
    uint8 private constant _COPY = 5;
    uint8 private constant _REASONS = 6;
    uint8 private constant _ASKED = 1;

    /// @dev Breaches and sales' states: closed lists, the same numbers in protocol/vaults.py and the twin.
    uint8 private constant _OVERSPENT = 1;
    uint8 private constant _MISCOUNTED = 2;
    uint8 private constant _EQUIVOCATED = 3;
    uint8 private constant _OMITTED = 4;
    uint8 private constant _REWRITTEN = 5;

    uint8 private constant _OPEN = 1;
    uint8 private constant _DELIVERED = 2;
    uint8 private constant _CLOSED = 3;

    uint8 private constant _FRAUD = 2;

    /// @notice Most ε of a budget, in millionths: sums of two fit what they are kept in.
    uint64 public constant MAX_EPSILON = type(uint64).max >> 1;
    uint16 public constant MAX_ROYALTY_BPS = 1_000;
    /// @notice An anchor says how the log stood no longer ago than this.
    uint32 public constant MAX_LAG_S = 1 days;
    uint32 public constant MAX_DELIVERY_S = 30 days;

    // --- storage ---

    IERC20 public immutable token;
    IRegistry public immutable registry;
    IConvictions public immutable court;
    /// @notice Seconds after its delivery in which a copy isn't paid yet. The Court's window.
    uint32 public immutable windowS;

    mapping(bytes32 dataset => Listing) private _listings;
    mapping(bytes32 id => Licence) private _licences;
    mapping(bytes32 dataset => Anchor[]) private _anchors;
    mapping(bytes32 sale => Sale) private _sales;

    // --- constructor ---

    constructor(IERC20 token_, IRegistry registry_, IConvictions court_, uint32 windowS_) ERC1155("") {
        require(address(court_) != address(0), NotProvider(address(0)));
        token = token_;
        registry = registry_;
        court = court_;
        windowS = windowS_;
    }

    // --- public: the vault ---

    /// @notice List a dataset, or say what it is now. Called by a provider or its hot keys. Its id follows from the owner and the
    /// name's digest, so nobody lists another's.
    /// @dev Abuse: another noise key, to draw noise until it suits; more budget, when it is spent. Both stay what they were.
    function listDataset(bytes32 name, Terms calldata terms) external returns (bytes32 dataset) {
        address owner = registry.ownerOf(msg.sender);
        (, uint8 roles) = registry.standing(msg.sender);
        require(owner != address(0) && roles & PROVIDER != 0, NotProvider(msg.sender));
        _requireStanding(owner);
        require(terms.budget <= MAX_EPSILON, OutOfRange("budget", terms.budget));
        require(terms.royaltyBps <= MAX_ROYALTY_BPS, OutOfRange("royaltyBps", terms.royaltyBps));
        dataset = keccak256(abi.encodePacked("clusterai dataset", owner, name));
        Listing storage listing = _listings[dataset];
        if (listing.owner != address(0)) {
            Terms storage before = listing.terms;
            require(!listing.frozen, DatasetFrozen(dataset));
            require(terms.noiseCommit == before.noiseCommit && terms.budget == before.budget, TermsFixed(dataset));
            require(terms.serial > before.serial, OutOfRange("serial", terms.serial));
        }
        listing.owner = owner;
        listing.terms = terms;
        emit DatasetListed(dataset, owner, name, terms);
    }

    /// @notice Give a licence. Called by the dataset's owner or its hot keys. The token's id is the grant's digest.
    /// @dev Abuse: granting in another's name or beyond the budget; promising the same budget to many is allowed, spending it
    /// twice convicts. A requester that is a contract may refuse the token; then there is no grant.
    function grantAccess(Grant calldata terms, bool transferable) external returns (bytes32 id) {
        id = _license(terms, transferable);
        _mint(terms.requester, uint256(id), 1, "");
    }

    /// @notice End a grant, and burn its token: before its time for a reason out of the closed list, by the dataset's owner or its hot
    /// keys, or by the holder, who asked for it; once it has expired for reason zero, by anyone.
    /// @dev Abuse: taking the price of a copy and revoking it; within `windowS` that refunds it. Later it doesn't take the data back. A
    /// buyer that renounces what it has copied gets no refund.
    function endGrant(bytes32 id, uint8 reason) external {
        Licence storage licence = _licences[id];
        bytes32 dataset = licence.dataset;
        address holder = licence.holder;
        require(holder != address(0), GrantOver(id));
        if (reason == 0) {
            require(block.timestamp > licence.expiresAt, TooEarly(licence.expiresAt));
        } else {
            require(reason <= _REASONS, OutOfRange("reason", reason));
            bool renounced = msg.sender == holder && reason == _ASKED;
            if (!renounced) _requireOwner(_listings[dataset].owner);
            licence.reason = reason;
            licence.renounced = renounced;
            licence.revokedAt = uint40(block.timestamp);
        }
        emit GrantEnded(id, dataset, reason);
        _burn(holder, uint256(id), 1);
    }

    /// @notice Anchor the log: `count` uses under `root`, which spent `spentMicro`; every use signed for a time before `asOf` is among
    /// them. Called by the dataset's owner or its hot keys. All anchors stay.
    /// @dev Abuse: anchoring another past, or leaving uses out; whoever has such a use proves it. Never anchoring harms nobody
    /// by itself, and is seen: there is no anchor.
    function anchorLog(bytes32 dataset, bytes32 root, uint32 count, uint64 spentMicro, uint40 asOf) external {
        Listing storage listing = _mine(dataset);
        Anchor[] storage anchors = _anchors[dataset];
        uint256 number = anchors.length;
        require(count != 0, OutOfRange("count", 0));
        require(
            spentMicro <= listing.terms.budget, OutOfRange("budget", spentMicro)
        );
        require(asOf <= block.timestamp, OutOfRange("asOf", asOf));
        require(uint256(asOf) + MAX_LAG_S >= block.timestamp, OutOfRange("lag", asOf));
        if (number != 0) {
            Anchor memory last = anchors[number - 1];
            require(count >= last.count, OutOfRange("count", count));
            require(spentMicro >= last.spentMicro, OutOfRange("spent", spentMicro));
            require(asOf >= last.asOf, OutOfRange("asOf", asOf));
            if (count == last.count) require(root == last.root, OutOfRange("root", count));
        }
        _anchors[dataset].push(Anchor(root, count, spentMicro, asOf));
        emit LogAnchored(dataset, uint32(number), root, count, spentMicro, asOf);
    }

    /// @notice Give the copy that `payer` paid for: a licence to copy, for the request and the requester that the sale names. Called by the
    /// dataset's owner or its hot keys, until `deliverBy`. The key to the data goes to the requester sealed, outside the chain.
    /// @dev Abuse: granting and sending nothing, or garbage; no contract sees what was sent. The grant names the request, the card the
    /// data's digest, so a buyer can show everyone that it got nothing that fits; the price is its risk (docs/spec/12-vaults.md).
    function deliverCopy(address payer, Grant calldata terms, bool transferable) external returns (bytes32 id) {
        bytes32 sale = _saleId(terms.dataset, terms.request, terms.requester, payer);
        Sale storage sold = _sales[sale];
        require(sold.state == _OPEN, WrongState(sale, sold.state));
        require(block.timestamp <= sold.deliverBy, TooLate(sold.deliverBy));
        require(terms.operation == _COPY, OutOfRange("operation", terms.operation));
        uint256 end = block.timestamp + windowS;
        require(terms.expiresAt > end, OutOfRange("expiresAt", terms.expiresAt));
        id = _license(terms, transferable);
        sold.state = _DELIVERED;
        sold.grant = id;
        sold.deliveredAt = uint40(block.timestamp);
        emit CopyDelivered(sale, id);
        _mint(terms.requester, uint256(id), 1, "");
    }

    // --- public: buyers ---

    /// @notice Pay for a copy, at `most` at the most. Called by whoever pays and approved this contract; the money lies here until it
    /// was delivered and the window is over, or goes back.
    /// @dev Abuse: raising the price just before; `most` bounds it. Naming another's request keeps nobody from buying: payer and
    /// requester are part of the sale's id.
    function buyCopy(bytes32 dataset, bytes32 request, address requester, uint128 most, uint40 deliverBy)
        external
        returns (bytes32 sale)
    {
        Listing storage listing = _open(dataset);
        uint128 price = listing.terms.price;
        require(price != 0, NotForSale(dataset));
        require(price <= most, OutOfRange("price", price));
        require(requester != address(0), OutOfRange("requester", 0));
        require(deliverBy >= block.timestamp, TooLate(deliverBy));
        require(deliverBy <= block.timestamp + MAX_DELIVERY_S, OutOfRange("deliverBy", deliverBy));
        sale = _saleId(dataset, request, requester, msg.sender);
        Sale storage sold = _sales[sale];
        require(sold.state == 0, WrongState(sale, sold.state));
        sold.dataset = dataset;
        sold.payer = msg.sender;
        sold.deliverBy = deliverBy;
        sold.state = _OPEN;
        sold.price = price;
        emit CopyBought(sale, dataset, requester, request, msg.sender, price, deliverBy);
        token.safeTransferFrom(msg.sender, address(this), price);
    }

    // --- public: anyone ---

    /// @notice Close a sale that time, a revocation or a conviction has decided. Anyone may call; the vault at any time before it
    /// delivered, which refunds.
    /// @dev Abuse: closing before the buyer could complain; it isn't paid within the window, nor to a convict, nor for a copy that was
    /// revoked within it.
    function closeSale(bytes32 sale) external {
        Sale storage sold = _sales[sale];
        uint8 state = sold.state;
        require(state == _OPEN || state == _DELIVERED, WrongState(sale, state));
        Listing storage listing = _listings[sold.dataset];
        address owner = listing.owner;
        if (!listing.frozen && !_barred(owner)) {
            if (state == _DELIVERED) {
                uint256 end = uint256(sold.deliveredAt) + windowS;
                Licence storage licence = _licences[sold.grant];
                if (licence.reason == 0 || licence.renounced || licence.revokedAt > end) {
                    require(block.timestamp > end, TooEarly(end));
                    return _close(sale, sold, owner, true);
                }
            } else if (registry.ownerOf(msg.sender) != owner) {
                require(block.timestamp > sold.deliverBy, TooEarly(sold.deliverBy));
            }
        }
        _close(sale, sold, sold.payer, false);
    }

    /// @notice Show an anchored use that can't be right: more spent than the grant or the budget allows (a grant that was never given
    /// allows nothing), or sums that contradict each other or the anchor. Anyone may call, and gets the Court's bounty.
    /// @dev Abuse of all five: accusing without proof; nothing but the owner's own signatures and anchors convicts, and what
    /// convicts nobody reverts. Copying an accusation from the mempool takes the finder's bounty; the vault is convicted all the same.
    function proveSpending(Shown calldata shown) external {
        (bytes32 hash, uint64 anchored) = _inLog(shown);
        Use calldata use = shown.use;
        Licence storage licence = _licences[use.grant];
        uint64 allowed = licence.dataset == use.dataset ? licence.epsilonMicro : 0;
        bool overspent = use.grantSpentMicro > allowed
            || use.totalSpentMicro > _listings[use.dataset].terms.budget;
        bool miscounted = use.epsilonMicro > use.grantSpentMicro || use.grantSpentMicro > use.totalSpentMicro
            || use.totalSpentMicro > anchored;
        require(overspent || miscounted, NoBreach());
        _convict(use.dataset, overspent ? _OVERSPENT : _MISCOUNTED, hash);
    }

    /// @notice Show two anchored uses of a dataset whose sums don't rise by what the later one spent. Anyone may call.
    function proveSums(Shown calldata first, Shown calldata second) external {
        (bytes32 hash,) = _inLog(second);
        _inLog(first);
        Use calldata a = first.use;
        Use calldata b = second.use;
        require(a.dataset == b.dataset && a.index < b.index, NoBreach());
        uint256 spent = b.epsilonMicro;
        bool grantWrong = a.grant == b.grant && b.grantSpentMicro < a.grantSpentMicro + spent;
        require(grantWrong || b.totalSpentMicro < a.totalSpentMicro + spent, NoBreach());
        _convict(b.dataset, _MISCOUNTED, hash);
    }

    /// @notice Show two uses that were signed for one index. Anyone may call.
    function proveEquivocation(
        Use calldata first,
        bytes calldata firstSignature,
        Use calldata second,
        bytes calldata secondSignature
    ) external {
        bytes32 hash = _signed(first, firstSignature);
        require(
            _signed(second, secondSignature) != hash && first.dataset == second.dataset
                && first.index == second.index,
            NoBreach()
        );
        _convict(first.dataset, _EQUIVOCATED, hash);
    }

    /// @notice Show a signed use that an anchored log doesn't have: another value stands at its index, or the log ends before it though
    /// it claims all uses up to a later time. Anyone may call.
    function proveOmission(Use calldata use, bytes calldata signature, Piece calldata piece) external {
        bytes32 hash = _signed(use, signature);
        Anchor memory anchor = _anchorAt(use.dataset, piece.anchor);
        if (use.index < anchor.count) {
            _requireAt(anchor, use.index, piece.value, piece.proof);
            require(piece.value != hash, NoBreach());
        } else {
            require(use.usedAt < anchor.asOf, NoBreach());
        }
        _convict(use.dataset, _OMITTED, hash);
    }

    /// @notice Show that two anchors of a dataset have different values at one index. Anyone may call.
    function proveRewriting(bytes32 dataset, uint32 index, Piece calldata first, Piece calldata second) external {
        _requireAt(_anchorAt(dataset, first.anchor), index, first.value, first.proof);
        _requireAt(_anchorAt(dataset, second.anchor), index, second.value, second.proof);
        require(first.value != second.value, NoBreach());
        _convict(dataset, _REWRITTEN, second.value);
    }

    // --- views ---

    /// @notice Whether `who` may use the licence now, as far as the chain knows.
    function isLive(bytes32 id, address who) external view returns (bool) {
        Licence storage licence = _licences[id];
        Listing storage listing = _listings[licence.dataset];
        return who != address(0) && licence.holder == who && block.timestamp <= licence.expiresAt && !listing.frozen
            && !_barred(listing.owner);
    }

    function listingOf(bytes32 dataset) external view returns (Listing memory) {
        return _listings[dataset];
    }

    function licenceOf(bytes32 id) external view returns (Licence memory) {
        return _licences[id];
    }

    function saleOf(bytes32 sale) external view returns (Sale memory) {
        return _sales[sale];
    }

    function anchorsOf(bytes32 dataset) external view returns (uint256) {
        return _anchors[dataset].length;
    }

    function anchorOf(bytes32 dataset, uint32 number) external view returns (Anchor memory) {
        return _anchorAt(dataset, number);
    }

    /// @inheritdoc IERC2981
    function royaltyInfo(uint256 id, uint256 price) external view returns (address, uint256) {
        Listing storage listing = _listings[_licences[bytes32(id)].dataset];
        return (listing.owner, (price * listing.terms.royaltyBps) / 10_000);
    }

    function supportsInterface(bytes4 id) public view override(ERC1155, IERC165) returns (bool) {
        return id == type(IERC2981).interfaceId || super.supportsInterface(id);
    }

    // --- internal ---

    /// @dev All of a grant but the token, which comes last: its receiver may be a contract that calls back.
    function _license(Grant calldata terms, bool transferable) internal returns (bytes32 id) {
        Listing storage listing = _mine(terms.dataset);
        uint8 operation = terms.operation;
        require(operation != 0 && operation <= _OPERATIONS, OutOfRange("operation", operation));
        require(terms.uses != 0, OutOfRange("uses", 0));
        require(
            terms.epsilonMicro <= listing.terms.budget, OutOfRange("epsilonMicro", terms.epsilonMicro)
        );
        require(terms.expiresAt >= block.timestamp, OutOfRange("expiresAt", terms.expiresAt));
        require(terms.requester != address(0), OutOfRange("requester", 0));
        require(!transferable || operation == _COPY, OutOfRange("transferable", operation));
        id = _grantId(terms);
        Licence storage licence = _licences[id];
        require(licence.dataset == 0, AlreadyGranted(id));
        licence.dataset = terms.dataset;
        licence.expiresAt = terms.expiresAt;
        licence.operation = operation;
        licence.transferable = transferable;
        licence.epsilonMicro = terms.epsilonMicro;
        licence.grantedAt = uint40(block.timestamp);
        emit AccessGranted(id, terms.dataset, terms.requester, terms, transferable);
    }

    /// @dev The holder follows the token. Nothing is moved by a transfer of zero, which anyone may make.
    function _update(address from, address to, uint256[] memory ids, uint256[] memory values) internal override {
        super._update(from, to, ids, values);
        for (uint256 i = 0; i < ids.length; ++i) {
            if (values[i] == 0) continue;
            bytes32 id = bytes32(ids[i]);
            Licence storage licence = _licences[id];
            licence.holder = to;
            if (from == address(0) || to == address(0)) continue;
            require(licence.transferable, Soulbound(ids[i]));
            emit LicenceMoved(id, from, to);
        }
    }

    function _close(bytes32 sale, Sale storage sold, address to, bool paid) internal {
        uint128 price = sold.price;
        sold.state = _CLOSED;
        emit SaleClosed(sale, paid ? price : 0, paid ? 0 : price);
        token.safeTransfer(to, price);
    }

    function _convict(bytes32 dataset, uint8 kind, bytes32 evidence) internal {
        Listing storage listing = _listings[dataset];
        require(!listing.frozen, DatasetFrozen(dataset));
        listing.frozen = true;
        emit BreachProven(dataset, listing.owner, kind, evidence, msg.sender);
        court.convictByLease(listing.owner, msg.sender, _FRAUD, dataset);
    }

    function _inLog(Shown calldata shown) internal view returns (bytes32 hash, uint64 spentMicro) {
        hash = _useHash(shown.use);
        Anchor memory anchor = _anchorAt(shown.use.dataset, shown.anchor);
        _requireAt(anchor, shown.use.index, hash, shown.proof);
        spentMicro = anchor.spentMicro;
    }

    function _requireAt(Anchor memory anchor, uint32 index, bytes32 value, bytes32[] calldata proof) internal pure {
        require(Merkle.holds(anchor.root, anchor.count, value, index, proof), NotInLog(index));
    }

    function _anchorAt(bytes32 dataset, uint32 number) internal view returns (Anchor memory) {
        require(number < _anchors[dataset].length, UnknownAnchor(dataset, number));
        return _anchors[dataset][number];
    }

    /// @dev A key that the owner ever had signed it; a revoked one's word stays its owner's.
    function _signed(Use calldata use, bytes calldata signature) internal view returns (bytes32 hash) {
        hash = _useHash(use);
        bytes32 separator = keccak256(
            abi.encode(_DOMAIN_TYPEHASH, keccak256("ClusterAI"), keccak256("1"), block.chainid, address(registry))
        );
        (address key,,) = ECDSA.tryRecoverCalldata(MessageHashUtils.toTypedDataHash(separator, hash), signature);
        address owner = address(0);
        if (key != address(0)) (owner,) = registry.standing(key);
        require(owner != address(0) && owner == _listings[use.dataset].owner, NotSigned(hash));
    }

    function _grantId(Grant calldata terms) internal pure returns (bytes32) {
        return keccak256(abi.encode(GRANT_TYPEHASH, terms));
    }

    function _useHash(Use calldata use) internal pure returns (bytes32) {
        return keccak256(abi.encode(USE_TYPEHASH, use));
    }

    function _saleId(bytes32 dataset, bytes32 request, address requester, address payer)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(dataset, request, requester, payer));
    }

    /// @dev A dataset that the caller may act for.
    function _mine(bytes32 dataset) internal view returns (Listing storage listing) {
        listing = _open(dataset);
        _requireOwner(listing.owner);
    }

    /// @dev A dataset with which something may begin.
    function _open(bytes32 dataset) internal view returns (Listing storage listing) {
        listing = _listings[dataset];
        require(listing.owner != address(0), UnknownDataset(dataset));
        require(!listing.frozen, DatasetFrozen(dataset));
        _requireStanding(listing.owner);
    }

    function _requireOwner(address owner) internal view {
        require(registry.ownerOf(msg.sender) == owner, NotOwner(msg.sender, owner));
    }

    function _requireStanding(address owner) internal view {
        require(!_barred(owner), ProviderBarred(owner));
    }

    function _barred(address owner) internal view returns (bool barred) {
        (,, barred,,,) = registry.participants(owner);
    }
}
