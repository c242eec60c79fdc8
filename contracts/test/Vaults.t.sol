// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Court} from "../src/Court.sol";
import {Channels} from "../src/Channels.sol";
import {ChainBeacon} from "../src/ChainBeacon.sol";
import {Delegations} from "../src/Delegations.sol";
import {Panel} from "../src/Panel.sol";
import {Registry} from "../src/Registry.sol";
import {Token} from "../src/Token.sol";
import {Vaults} from "../src/Vaults.sol";
import {IChannels, IConvictions, IDelegations, ILeases, IPanel, IRegistry, PROVIDER} from "../src/Interfaces.sol";
import {EPOCH_S, NoGain, VM, WINDOW_S} from "./Money.t.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";

/// @dev Two vaults, of which the second may lie, three buyers; all that can be granted, logged, sold and proven, in any order.
contract VaultHandler {
    Token public token;
    Registry public registry;
    Court public court;
    Vaults public vaults;

    uint256[2] public keys = [uint256(0xA11), 0xB0B];
    address[3] public buyers = [address(0xC01), address(0xC02), address(0xC03)];
    bytes32[2] public datasets;
    uint256 public now_ = 1_700_000_000;

    bytes32[] public sales;
    bytes32[] public grants;
    Vaults.Grant[] internal _granted;
    mapping(bytes32 sale => Vaults.Grant) internal _wanted;
    mapping(bytes32 sale => address) internal _payers;
    /// The log of each vault, whole, with what its anchors say.
    Vaults.Use[][2] internal _logs;
    uint256[2] public spent;
    mapping(bytes32 grant => uint64) public spentOf;
    uint256[2] public lies;
    /// Ghosts: all that came in for copies, and went out.
    uint256 public paidIn;
    uint256 public paidOut;
    uint256 public early;
    uint256 public convictions;

    constructor() {
        VM.warp(now_);
        ChainBeacon beacon = new ChainBeacon(EPOCH_S);
        NoGain rates = new NoGain();
        uint64 nonce = VM.getNonce(address(this));
        address registry_ = VM.computeCreateAddress(address(this), nonce + 1);
        address court_ = VM.computeCreateAddress(address(this), nonce + 3);
        token = new Token(address(this), 1e18);
        registry = new Registry(
            ERC20Burnable(address(token)),
            court_,
            ILeases(address(this)),
            IPanel(VM.computeCreateAddress(address(this), nonce + 4)),
            IDelegations(VM.computeCreateAddress(address(this), nonce + 5)),
            121
        );
        Channels channels = new Channels(IRegistry(registry_), court_, WINDOW_S);
        court = new Court(
            IERC20(address(token)),
            IRegistry(registry_),
            IChannels(address(channels)),
            beacon,
            address(1),
            VM.computeCreateAddress(address(this), nonce + 6),
            rates,
            EPOCH_S,
            WINDOW_S,
            Court.Parameters(500_000, 5_000, 10, 1_000),
            address(this)
        );
        new Panel(IRegistry(registry_));
        new Delegations(ERC20Burnable(address(token)), IRegistry(registry_));
        vaults = new Vaults(IERC20(address(token)), IRegistry(registry_), IConvictions(court_), WINDOW_S);
        for (uint256 i = 0; i < 2; ++i) {
            _equip(owner(i), registry_);
            VM.prank(owner(i));
            registry.register(PROVIDER, 0);
            VM.prank(owner(i));
            registry.bond(1e6);
            VM.prank(owner(i));
            datasets[i] = vaults.listDataset("data", Vaults.Terms(0, 0, 0, "noise", 1, 1e6, 700, 100));
        }
        for (uint256 i = 0; i < 3; ++i) _equip(buyers[i], address(vaults));
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
        now_ += 1 + seconds_ % (2 * WINDOW_S);
        VM.warp(now_);
    }

    function grant(uint256 vault, uint256 buyer, uint64 epsilon) external {
        VM.warp(now_);
        Vaults.Grant memory terms = Vaults.Grant(
            datasets[vault % 2], bytes32(now_), buyers[buyer % 3], 1, 0, epsilon % 5e5, 3, uint40(now_ + 500), 0
        );
        VM.prank(owner(vault % 2));
        bytes32 id = vaults.grantAccess(terms, false);
        grants.push(id);
        _granted.push(terms);
    }

    function end(uint256 which, uint8 reason, uint256 who) external {
        VM.warp(now_);
        bytes32 id = grants[which % grants.length];
        VM.prank(who % 2 == 0 ? owner(which % 2) : buyers[who % 3]);
        vaults.endGrant(id, reason % 7);
    }

    /// Both write uses; the second vault says less than it spent whenever `lie` says so.
    function use(uint256 which, uint64 epsilon, uint256 lie) external {
        VM.warp(now_);
        which = which % grants.length;
        bytes32 id = grants[which];
        Vaults.Grant memory terms = _granted[which];
        uint256 vault = terms.dataset == datasets[0] ? 0 : 1;
        uint64 left = terms.epsilonMicro - spentOf[id];
        uint64 room = uint64(1e6 - spent[vault]);
        if (left > room) left = room;
        VM.assume(left != 0);
        epsilon = 1 + epsilon % left;
        bool lies_ = vault == 1 && lie % 4 == 0;
        if (!lies_) {
            spentOf[id] += epsilon;
            spent[vault] += epsilon;
        }
        Vaults.Use[] storage log = _logs[vault];
        log.push(
            Vaults.Use(
                terms.dataset,
                uint32(log.length),
                id,
                terms.requester,
                0,
                epsilon,
                lies_ && spentOf[id] < epsilon ? 0 : spentOf[id],
                uint64(spent[vault]),
                0,
                uint40(now_)
            )
        );
        if (lies_) ++lies[vault];
    }

    function anchor(uint256 vault) external {
        VM.warp(now_);
        vault = vault % 2;
        bytes32 root = _rootOf(_leaves(vault));
        VM.prank(owner(vault));
        vaults.anchorLog(
            datasets[vault],
            root,
            uint32(_logs[vault].length),
            uint64(spent[vault]),
            uint40(now_)
        );
    }

    /// Anyone accuses anyone, with true leaves of the newest anchor.
    function accuse(uint256 vault, uint256 one, uint256 other) external {
        VM.warp(now_);
        vault = vault % 2;
        uint32 number = uint32(vaults.anchorsOf(datasets[vault]) - 1);
        uint256 count = vaults.anchorOf(datasets[vault], number).count;
        if (one % 2 == 0) {
            vaults.proveSpending(_shown(vault, one % count, number, count));
        } else {
            vaults.proveSums(_shown(vault, one % count, number, count), _shown(vault, other % count, number, count));
        }
        ++convictions;
    }

    function buy(uint256 vault, uint256 buyer, uint40 wait) external {
        VM.warp(now_);
        address payer = buyers[buyer % 3];
        bytes32 request = bytes32(now_);
        VM.prank(payer);
        bytes32 sale = vaults.buyCopy(datasets[vault % 2], request, payer, 700, uint40(now_ + wait % 200));
        sales.push(sale);
        _payers[sale] = payer;
        _wanted[sale] =
            Vaults.Grant(datasets[vault % 2], request, payer, 5, 0, 0, 1, type(uint40).max, 0);
        paidIn += 700;
    }

    function deliver(uint256 which) external {
        VM.warp(now_);
        bytes32 sale = sales[which % sales.length];
        Vaults.Grant memory terms = _wanted[sale];
        VM.prank(owner(terms.dataset == datasets[0] ? 0 : 1));
        bytes32 id = vaults.deliverCopy(_payers[sale], terms, false);
        grants.push(id);
        _granted.push(terms);
    }

    function close(uint256 which, uint256 who) external {
        VM.warp(now_);
        bytes32 sale = sales[which % sales.length];
        Vaults.Sale memory sold = vaults.saleOf(sale);
        uint256 vault = sold.dataset == datasets[0] ? 0 : 1;
        uint256 before = token.balanceOf(owner(vault));
        VM.prank(who % 4 == 0 ? owner(vault) : buyers[who % 3]);
        vaults.closeSale(sale);
        paidOut += 700;
        bool paid = token.balanceOf(owner(vault)) != before;
        if (paid && (sold.state != 2 || now_ <= sold.deliveredAt + WINDOW_S || frozen(vault))) ++early;
    }

    // --- views ---

    function owner(uint256 vault) public view returns (address) {
        return VM.addr(keys[vault]);
    }

    function frozen(uint256 vault) public view returns (bool) {
        return vaults.listingOf(datasets[vault]).frozen;
    }

    function salesMade() external view returns (uint256) {
        return sales.length;
    }

    function grantsMade() external view returns (uint256) {
        return grants.length;
    }

    function granted(uint256 which) external view returns (bytes32, Vaults.Grant memory) {
        return (grants[which], _granted[which]);
    }

    function _shown(uint256 vault, uint256 index, uint32 number, uint256 count)
        internal
        view
        returns (Vaults.Shown memory)
    {
        bytes32[] memory leaves = _leaves(vault);
        assembly ("memory-safe") {
            mstore(leaves, count)
        }
        return Vaults.Shown(_logs[vault][index], number, _proofOf(leaves, index));
    }

    function _leaves(uint256 vault) internal view returns (bytes32[] memory leaves) {
        Vaults.Use[] storage log = _logs[vault];
        leaves = new bytes32[](log.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            leaves[i] = keccak256(
                abi.encodePacked(uint8(0), keccak256(abi.encode(vaults.USE_TYPEHASH(), log[i])))
            );
        }
    }

    function _rootOf(bytes32[] memory nodes) internal pure returns (bytes32) {
        while (nodes.length > 1) nodes = _above(nodes);
        return nodes[0];
    }

    function _proofOf(bytes32[] memory nodes, uint256 index) internal pure returns (bytes32[] memory proof) {
        bytes32[] memory all = new bytes32[](32);
        uint256 many = 0;
        while (nodes.length > 1) {
            if ((index ^ 1) < nodes.length) all[many++] = nodes[index ^ 1];
            index >>= 1;
            nodes = _above(nodes);
        }
        proof = new bytes32[](many);
        for (uint256 i = 0; i < many; ++i) proof[i] = all[i];
    }

    function _above(bytes32[] memory nodes) internal pure returns (bytes32[] memory above) {
        above = new bytes32[]((nodes.length + 1) / 2);
        for (uint256 i = 0; i < above.length; ++i) {
            above[i] = 2 * i + 1 == nodes.length
                ? nodes[2 * i]
                : keccak256(abi.encodePacked(uint8(1), nodes[2 * i], nodes[2 * i + 1]));
        }
    }
}

contract VaultsTest {
    VaultHandler public handler;

    function setUp() public {
        handler = new VaultHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// Vaults holds the prices of sales that aren't closed, and nothing more; what came in went out once.
    function invariant_copies_conserve_money() public view {
        uint256 held = 0;
        for (uint256 i = 0; i < handler.salesMade(); ++i) {
            Vaults.Sale memory sale = handler.vaults().saleOf(handler.sales(i));
            if (sale.state == 1 || sale.state == 2) held += sale.price;
        }
        require(handler.token().balanceOf(address(handler.vaults())) == held, "money not conserved");
        require(handler.paidIn() == handler.paidOut() + held, "a price is missing");
        require(handler.early() == 0, "paid too early, or to a convict");
    }

    /// There is one token of a licence at most, and its holder is who the contract says.
    function invariant_licences_have_one_holder() public view {
        Vaults vaults = handler.vaults();
        for (uint256 i = 0; i < handler.grantsMade(); ++i) {
            (bytes32 id, Vaults.Grant memory terms) = handler.granted(i);
            Vaults.Licence memory licence = vaults.licenceOf(id);
            uint256 sum = 0;
            for (uint256 b = 0; b < 3; ++b) {
                uint256 balance = vaults.balanceOf(handler.buyers(b), uint256(id));
                require(balance == (licence.holder == handler.buyers(b) ? 1 : 0), "another holds it");
                sum += balance;
            }
            require(sum == (licence.holder == address(0) ? 0 : 1), "more than one");
            require(licence.holder == address(0) || licence.holder == terms.requester, "it moved");
            require(licence.reason == 0 || licence.holder == address(0), "revoked and held");
        }
    }

    /// No honest vault is convicted, whatever anybody shows; who is convicted has no stake left.
    function invariant_honest_vaults_keep_their_stake() public view {
        for (uint256 v = 0; v < 2; ++v) {
            (uint128 stake,, bool barred,,,) = handler.registry().participants(handler.owner(v));
            require(handler.frozen(v) == barred, "frozen without a verdict");
            require(barred ? stake == 0 : stake == 1e6, "stake");
            require(!barred || handler.lies(v) != 0, "an honest vault was convicted");
        }
    }

    /// Anchors never shrink.
    function invariant_logs_only_grow() public view {
        Vaults vaults = handler.vaults();
        for (uint256 v = 0; v < 2; ++v) {
            bytes32 dataset = handler.datasets(v);
            uint256 many = vaults.anchorsOf(dataset);
            for (uint32 i = 1; i < many; ++i) {
                Vaults.Anchor memory a = vaults.anchorOf(dataset, i - 1);
                Vaults.Anchor memory b = vaults.anchorOf(dataset, i);
                require(a.count <= b.count && a.spentMicro <= b.spentMicro && a.asOf <= b.asOf, "a log shrank");
            }
        }
    }
}

/// @dev A requester that is a contract and calls back when it gets its licence.
contract Grabber {
    Vaults public vaults;
    bytes public callback;
    bool public worked;

    constructor(Vaults vaults_) {
        vaults = vaults_;
    }

    function plan(bytes calldata callback_) external {
        callback = callback_;
    }

    function onERC1155Received(address, address, uint256, uint256, bytes calldata) external returns (bytes4) {
        (worked,) = address(vaults).call(callback);
        return this.onERC1155Received.selector;
    }
}

/// @dev Single histories.
contract VaultsUnitTest {
    function test_the_handler_reaches_a_conviction() external {
        VaultHandler handler = new VaultHandler();
        handler.grant(1, 0, 400_000);
        handler.use(0, 99, 1);
        handler.use(0, 99, 0);
        handler.use(0, 99, 1);
        handler.anchor(1);
        handler.accuse(1, 3, 1);
        require(handler.frozen(1), "the liar is convicted");
        require(handler.registry().ownerOf(handler.owner(1)) == handler.owner(1), "and bound for ever");
    }

    function test_a_requester_that_calls_back_gets_nothing_more() external {
        VaultHandler handler = new VaultHandler();
        Vaults vaults = handler.vaults();
        Grabber grabber = new Grabber(vaults);
        Vaults.Grant memory terms =
            Vaults.Grant(handler.datasets(0), "r", address(grabber), 5, 0, 0, 1, type(uint40).max, 0);
        address buyer = handler.buyers(0);
        uint40 by = uint40(handler.now_());
        VM.prank(buyer);
        bytes32 sale = vaults.buyCopy(terms.dataset, "r", address(grabber), 700, by);
        grabber.plan(abi.encodeCall(Vaults.closeSale, (sale)));
        address owner = handler.owner(0);
        VM.prank(owner);
        vaults.deliverCopy(buyer, terms, false);
        require(!grabber.worked(), "closed in its own delivery");
        require(vaults.saleOf(sale).state == 2, "delivered");
    }

    function test_a_contract_that_takes_no_tokens_gets_no_grant() external {
        VaultHandler handler = new VaultHandler();
        Vaults.Grant memory terms =
            Vaults.Grant(handler.datasets(0), "r", address(handler), 1, 0, 0, 1, type(uint40).max, 0);
        address vaults = address(handler.vaults());
        VM.prank(handler.owner(0));
        (bool done,) = vaults.call(abi.encodeCall(Vaults.grantAccess, (terms, false)));
        require(!done, "refused");
    }
}
