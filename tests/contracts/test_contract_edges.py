"""What only the bytecode has: signatures that others relay, who may call what, and the two ways of deployment."""

from typing import Any

import msgspec
import pytest
from eth_abi import abi
from eth_hash.auto import keccak

from clusterai.ledger.adapters.embedded.evm import BlockContext as EvmBlock
from clusterai.ledger.adapters.embedded.evm import Evm, Message
from clusterai.ledger.artifacts import load
from clusterai.ledger.core import calls
from clusterai.ledger.core.deploy import created_address, foreign_plan
from clusterai.ledger.core.events import Claimed, Deposited, ParametersSet, Refunded, Transferred
from clusterai.ledger.core.rules import LOCAL
from clusterai.ledger.core.twin import Refused
from clusterai.ledger.core.twin.state import Revert, Transaction
from clusterai.ledger.core.twin.token import (
    PERMIT,
    RECEIVE_WITH_AUTHORIZATION,
    TRANSFER_WITH_AUTHORIZATION,
)
from clusterai.protocol.eip712 import struct_hash, typed_digest
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.signing import Key
from tests.contracts.bytecode import CHAIN_ID, GAS
from tests.contracts.cast import (
    AT,
    CHANNEL_POOL,
    CHANNELS_DOMAIN,
    DEPLOYER,
    HOTS,
    OWNERS,
    PAYER,
    PLAN,
    RULES,
    STRANGER,
    Pair,
    channel,
    claim_row,
)

TO_GATE = CHANNEL_POOL[4]
GATE_HOT = HOTS["gate"]
LATER_S = 2**40


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.populate()
    return pair


def send(pair: Pair, contract: str, function: str, sender: Key, *arguments: Any) -> Any:
    outcome = pair.bytecode.transact(contract, function, sender.address, pair.block(), *arguments)
    return outcome.reason if isinstance(outcome, Refused) else outcome


def vrs(signature: bytes) -> tuple[int, bytes, bytes]:
    return signature[64], signature[:32], signature[32:64]


# --- token ---


@pytest.mark.parametrize("form", ["vrs", "bytes"])
@pytest.mark.parametrize("kind", [TRANSFER_WITH_AUTHORIZATION, RECEIVE_WITH_AUTHORIZATION])
def test_authorization_moves_money_once(pair: Pair, form: str, kind: bytes) -> None:
    """ERC-3009 in both signature forms: right ones pass once, wrong ones never; the twin agrees."""
    function = (
        "transferWithAuthorization" if kind == TRANSFER_WITH_AUTHORIZATION else "receiveWithAuthorization"
    )

    def both(sender: Key, value: int, after_s: int, before_s: int, nonce: Digest, signer: Key) -> str:
        terms = (PAYER.address, STRANGER.address, value, after_s, before_s, nonce)
        signature = signer.sign(typed_digest(pair.twin.token.domain.separator(), struct_hash(kind, *terms)))
        tail = vrs(signature) if form == "vrs" else (signature,)
        outcome = send(pair, "Token", function, sender, *terms, *tail)
        transaction = Transaction(sender.address, pair.block())
        try:
            pair.twin.token.authorized(transaction, kind, *terms, signature)
            expected: object = tuple(transaction.events)
        except Revert as revert:
            expected = revert.reason
        assert outcome == expected
        if isinstance(outcome, str):
            return outcome
        assert outcome == (Transferred(PAYER.address, STRANGER.address, value),)
        return "ok"

    nonce, now = Digest(b"\7" * 32), pair.now_s
    assert both(STRANGER, 5, now, now + 1, nonce, PAYER) == "ERC3009InvalidAuthorizationTime"
    assert both(STRANGER, 5, 0, now, nonce, PAYER) == "ERC3009InvalidAuthorizationTime"
    assert both(STRANGER, 5, 0, now + 1, nonce, STRANGER) == "ERC3009InvalidSignature"
    if kind == RECEIVE_WITH_AUTHORIZATION:
        assert both(DEPLOYER, 5, 0, now + 1, nonce, PAYER) == "ERC20InvalidReceiver"
    assert both(STRANGER, 5, 0, now + 1, nonce, PAYER) == "ok"
    assert both(STRANGER, 5, 0, now + 1, nonce, PAYER) == "ERC3009UsedAuthorization"
    assert both(STRANGER, 6, 0, now + 1, Digest(b"\x08" * 32), PAYER) == "ok"


def test_cancelled_authorization_is_used_up(pair: Pair) -> None:
    """Who signed an authorization can withdraw it, and nobody else can."""
    nonce = Digest(b"\7" * 32)
    kind = keccak(b"CancelAuthorization(address authorizer,bytes32 nonce)")
    digest = typed_digest(pair.twin.token.domain.separator(), struct_hash(kind, PAYER.address, nonce))
    forged = send(pair, "Token", "cancelAuthorization", STRANGER, PAYER.address, nonce, STRANGER.sign(digest))
    assert forged == "ERC3009InvalidSignature"
    assert (
        send(pair, "Token", "cancelAuthorization", STRANGER, PAYER.address, nonce, PAYER.sign(digest)) == ()
    )
    assert pair.bytecode.read("Token", "authorizationState", PAYER.address, nonce)


def test_permit_is_used_once(pair: Pair) -> None:
    """ERC-2612: the signature sets the allowance once; the twin agrees."""
    spender, deadline = AT.credit, pair.now_s
    digest = typed_digest(
        pair.twin.token.domain.separator(),
        struct_hash(PERMIT, PAYER.address, spender, 7, 0, deadline),
    )
    signature = PAYER.sign(digest)
    arguments = (PAYER.address, spender, 7, deadline)
    assert send(pair, "Token", "permit", STRANGER, *arguments, *vrs(signature)) == ()
    pair.twin.token.permit(Transaction(STRANGER.address, pair.block()), *arguments, signature)
    assert pair.bytecode.read("Token", "allowance", PAYER.address, spender) == 7
    assert pair.twin.token.allowance(PAYER.address, spender) == 7
    assert send(pair, "Token", "permit", STRANGER, *arguments, *vrs(signature)) == "ERC2612InvalidSigner"


def test_votes_are_counted_by_time(pair: Pair) -> None:
    """The clock is the timestamp, and who delegates to itself has its balance as votes."""
    pair.bytecode.enter(pair.block())
    assert pair.bytecode.read("Token", "CLOCK_MODE") == "mode=timestamp"
    assert pair.bytecode.read("Token", "clock") == pair.now_s
    assert send(pair, "Token", "delegate", PAYER, PAYER.address) == ()
    assert pair.bytecode.read("Token", "getVotes", PAYER.address) == pair.twin.token.balance(PAYER.address)
    assert (pair.bytecode.read("Token", "decimals"), pair.bytecode.read("Token", "version")) == (9, "1")


# --- who may call what ---


def test_only_the_court_slashes_and_bars(pair: Pair) -> None:
    """Nobody else reaches another's stake or claims, the governor included."""
    for key in (STRANGER, DEPLOYER, OWNERS["val"]):
        assert send(pair, "Registry", "slash", key, PAYER.address, key.address, 1) == "OnlyCourt"
        assert send(pair, "Channels", "bar", key, OWNERS["ann"].address) == "OnlyCourt"


@pytest.mark.parametrize(
    "parameters",
    [(0, 1, 1, 0), (1_000_001, 1, 1, 0), (1, 5_001, 1, 0), (1, 1, 16, 0), (1, 1, 0, 0), (1, 1, 1, 10**13)],
)
def test_parameters_stay_in_bounds(pair: Pair, parameters: tuple[int, int, int, int]) -> None:
    """A captured governor can't stop audits, overpay finders, outrun challenges or price them out."""
    assert send(pair, "Court", "setParameters", DEPLOYER, parameters) == "ParameterOutOfRange"


def test_only_the_governor_sets_parameters(pair: Pair) -> None:
    """And what it sets holds for commitments made afterwards."""
    good = (1_000_000, 0, 10, 0)
    assert send(pair, "Court", "setParameters", STRANGER, good) == "OwnableUnauthorizedAccount"
    assert send(pair, "Court", "setParameters", DEPLOYER, good) == (ParametersSet(*good),)
    assert pair.bytecode.read("Court", "auditRatePpm") == 1_000_000


# --- relayed claims and refunds ---


def batch_digest(rows: tuple[calls.VoucherClaim, ...]) -> Digest:
    entry = keccak(b"ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)")
    kind = keccak(
        b"ClaimBatch(ClaimEntry[] claims)"
        b"ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
    )
    hashes = [
        struct_hash(entry, row.config.channel_id(CHANNELS_DOMAIN), row.max_claimable, row.total_claimed)
        for row in rows
    ]
    return typed_digest(CHANNELS_DOMAIN.separator(), struct_hash(kind, keccak(b"".join(hashes))))


def plain(rows: tuple[calls.VoucherClaim, ...]) -> list[Any]:
    return [((abi_config(row.config), row.max_claimable), row.signature, row.total_claimed) for row in rows]


def abi_config(config: Any) -> tuple[Any, ...]:
    return tuple(getattr(config, field) for field in config.__struct_fields__)


def test_anyone_relays_a_signed_batch_and_replays_nothing(pair: Pair) -> None:
    """The authorizer's signature is enough; another's is not; repeating the batch changes nothing."""
    rows = (claim_row(TO_GATE, 400),)
    signature = GATE_HOT.sign(batch_digest(rows))
    forged = STRANGER.sign(batch_digest(rows))
    assert send(pair, "Channels", "claimWithSignature", STRANGER, plain(rows), forged) == "InvalidSignature"
    [event] = send(pair, "Channels", "claimWithSignature", STRANGER, plain(rows), signature)
    assert isinstance(event, Claimed)
    assert send(pair, "Channels", "claimWithSignature", STRANGER, plain(rows), signature) == ()


def test_batch_of_two_authorizers_is_refused(pair: Pair) -> None:
    """One signature speaks for the rows of one authorizer."""
    rows = (claim_row(TO_GATE, 400), claim_row(CHANNEL_POOL[5], 1))
    signature = GATE_HOT.sign(batch_digest(rows))
    assert (
        send(pair, "Channels", "claimWithSignature", STRANGER, plain(rows), signature) == "MixedAuthorizers"
    )


def test_signed_refund_is_used_once(pair: Pair) -> None:
    """The nonce is used up, so a relayed refund can't be repeated."""
    channel_id = TO_GATE.channel_id(CHANNELS_DOMAIN)
    kind = keccak(b"Refund(bytes32 channelId,uint256 nonce,uint128 amount)")
    digest = typed_digest(CHANNELS_DOMAIN.separator(), struct_hash(kind, channel_id, 0, 100))
    arguments = (TO_GATE, 100, 0, GATE_HOT.sign(digest))
    [refunded, _] = send(pair, "Channels", "refundWithSignature", STRANGER, *arguments)
    assert refunded == Refunded(channel_id, 100)
    assert send(pair, "Channels", "refundWithSignature", STRANGER, *arguments) == "WrongRefundNonce"
    wrong = (TO_GATE, 100, 1, GATE_HOT.sign(digest))
    assert send(pair, "Channels", "refundWithSignature", STRANGER, *wrong) == "InvalidSignature"


# --- deposits by signature ---


def collector_data(pair: Pair, channel_id: Digest, amount: int, salt: int = 9) -> bytes:
    nonce = Digest(keccak(channel_id + salt.to_bytes(32)))
    terms = (PAYER.address, AT.collector, amount, 0, LATER_S, nonce)
    digest = typed_digest(pair.twin.token.domain.separator(), struct_hash(RECEIVE_WITH_AUTHORIZATION, *terms))
    return abi.encode(["uint256", "uint256", "uint256", "bytes"], [0, LATER_S, salt, PAYER.sign(digest)])


def test_signed_deposit_reaches_its_own_channel_only(pair: Pair) -> None:
    """Anyone submits it, once; the same signature funds no other channel and no other amount."""
    data = collector_data(pair, TO_GATE.channel_id(CHANNELS_DOMAIN), 500)
    other = channel(PAYER, STRANGER.address, salt=77)

    def deposit(config: Any, amount: int) -> Any:
        return send(pair, "Channels", "deposit", STRANGER, config, amount, AT.collector, data)

    assert deposit(other, 500) == "ERC3009InvalidSignature"
    assert deposit(TO_GATE, 501) == "ERC3009InvalidSignature"
    assert isinstance(deposit(TO_GATE, 500)[0], Deposited)
    assert deposit(TO_GATE, 500) == "ERC3009UsedAuthorization"


def test_collector_serves_channels_only(pair: Pair) -> None:
    """A stranger that saw the signature can't collect with it."""
    channel_id = TO_GATE.channel_id(CHANNELS_DOMAIN)
    data = collector_data(pair, channel_id, 500)
    arguments = (PAYER.address, AT.token, 500, channel_id, data)
    outcome = send(pair, "ERC3009DepositCollector", "collect", STRANGER, *arguments)
    assert outcome == "OnlyChannels"


# --- deployment ---


def test_multicall_reads_many(pair: Pair) -> None:
    """Both well-known forms answer; a failing call is reported, or reverts all where that is asked."""
    good = (AT.token, keccak(b"totalSupply()")[:4])
    bad = (AT.token, b"\0\0\0\0")
    [(first, supply), (second, _)] = pair.bytecode.read("Multicall3", "tryAggregate", False, [good, bad])
    assert (first, second, int.from_bytes(supply)) == (True, False, pair.twin.token.supply())
    three = [(good[0], False, good[1]), (bad[0], True, bad[1])]
    assert [ok for ok, _ in pair.bytecode.read("Multicall3", "aggregate3", three)] == [True, False]
    assert send(pair, "Multicall3", "tryAggregate", STRANGER, True, [good, bad]) == "CallFailed"


def test_placed_contracts_equal_created_ones() -> None:
    """On a chain that isn't ours everything is created, at the predicted addresses and with the same storage."""
    plan = foreign_plan(load, DEPLOYER.address, RULES)
    evm = Evm(CHAIN_ID)
    evm.enter(EvmBlock(1, 1, bytes(32)))
    for creation in plan.creations:
        outcome, _ = evm.execute(Message(plan.deployer, None, creation.data, 0, GAS))
        assert outcome.success, (creation.name, outcome)
        assert outcome.created == creation.address
    at = plan.addresses
    placed = {one.name: one for one in PLAN.placements}
    assert evm.code(at.channels) == placed["Channels"].code
    assert evm.code(at.collector) == placed["ERC3009DepositCollector"].code
    mine = dict(placed["Channels"].storage)
    assert mine[0] == int.from_bytes(AT.registry)
    assert evm.storage(at.channels, 0) == int.from_bytes(at.registry)
    assert evm.storage(at.channels, 1) == mine[1] - int.from_bytes(AT.court) + int.from_bytes(at.court)
    assert evm.storage(at.collector, 0) == int.from_bytes(at.channels)


def test_court_refuses_rules_that_do_not_fit() -> None:
    """Epochs too long for the window, or stake that could leave before the verdict: no Court is created."""
    for wrong in ({"epoch_s": 16}, {"unbond_delay_s": 60}, {"answer_s": 11}, {"bounty_bps": 5_001}):
        rules = msgspec.structs.replace(LOCAL, **wrong)
        plan = foreign_plan(load, DEPLOYER.address, rules)
        evm = Evm(CHAIN_ID)
        evm.enter(EvmBlock(1, 1, bytes(32)))
        created = [evm.execute(Message(plan.deployer, None, one.data, 0, GAS))[0] for one in plan.creations]
        refused = [one.name for one, made in zip(plan.creations, created, strict=True) if not made.success]
        assert refused == ["Court"], wrong


def test_created_address_is_ethereums() -> None:
    """Nonces of one byte and more encode as RLP does."""
    deployer = Address(bytes.fromhex("6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0"))
    known = {
        0: "cd234a471b72ba2f1ccf0a70fcaba648a5eecd8d",
        1: "343c43a37d37dff08ae8c4a11544c718abb4fcf8",
        2: "f778b86fa74e846c4f0a1fbd1335fe81c00a0c91",
    }
    assert {nonce: created_address(deployer, nonce).hex() for nonce in known} == known
    assert len({created_address(deployer, nonce) for nonce in (0x7F, 0x80, 0xFF, 0x100, 0x10000)}) == 5


def test_credit_by_permit_survives_a_front_runner(pair: Pair) -> None:
    """Somebody spends the permit first: the allowance is there all the same, and the money arrives."""
    pair.bytecode.transact("Token", "approve", PAYER.address, pair.block(), AT.credit, 0)
    deadline, gate = pair.now_s + 60, OWNERS["gate"].address
    digest = typed_digest(
        pair.twin.token.domain.separator(),
        struct_hash(PERMIT, PAYER.address, AT.credit, 70, 0, deadline),
    )
    signature = vrs(PAYER.sign(digest))
    before = pair.bytecode.read("Token", "balanceOf", gate)
    assert send(pair, "Token", "permit", STRANGER, PAYER.address, AT.credit, 70, deadline, *signature) == ()
    send(pair, "Credit", "fundWithPermit", PAYER, gate, ZERO_DIGEST, 70, deadline, *signature)
    assert pair.bytecode.read("Token", "balanceOf", gate) == before + 70
