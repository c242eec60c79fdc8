"""Hostile bytes at the embedded chain's door: always an answer in JSON-RPC, never a crash, nothing changed."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterai.ledger.adapters.embedded.chain import Chain
from clusterai.ledger.adapters.embedded.methods import Methods
from clusterai.ledger.adapters.embedded.pool import Pool
from clusterai.ledger.adapters.embedded.rpc import MAX_BATCH, Rpc
from clusterai.ledger.adapters.embedded.transactions import BadTransaction, decode_transaction
from clusterai.ledger.core.rlp import BadRlp, decode_rlp, encode_rlp
from clusterai.protocol.signing import Key
from tests.rooms.ledger.conftest import CHAIN_ID
from tests.rooms.ledger.test_embedded_journal import GENESIS, SEED, TOY_AT, Clock

CODES = {-32700, -32600, -32601, -32602, -32005, -32000, 3}


class Door:
    """The chain with its RPC, called without a socket."""

    def __init__(self, path: Path) -> None:
        clock = Clock()
        self.chain = Chain(path, CHAIN_ID, GENESIS, SEED, clock)
        self.failures: list[BaseException] = []
        self.pool = Pool(self.chain, self.failures.append)
        self.rpc = Rpc(self.chain, self.pool.submit, clock)
        self.names = [*Methods(self.chain, clock).table(), "eth_sendRawTransaction"]

    def ask(self, body: bytes) -> Any:
        answer = asyncio.run(self.rpc.answer(body))
        return json.loads(answer) if answer else None


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = Door(tmp_path_factory.mktemp("fuzz") / "chain.sqlite")
    yield door
    assert door.failures == []
    door.chain.close()


def check(answer: Any) -> None:
    for one in answer if isinstance(answer, list) else [answer]:  # pyright: ignore[reportUnknownVariableType]
        assert one["jsonrpc"] == "2.0"
        assert ("result" in one) != ("error" in one)
        if "error" in one:
            assert one["error"]["code"] in CODES
            assert one["error"]["message"]


TOY_HEX = "0x" + TOY_AT.hex()
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["latest", "pending", "earliest", "safe", "0x", "0x0", "0x00", "0x1", TOY_HEX, "0x" + "f" * 64]
    )
    | st.binary(max_size=40).map(lambda raw: "0x" + raw.hex())
)
FIELDS = st.sampled_from(
    [
        "from",
        "to",
        "data",
        "input",
        "value",
        "gas",
        "nonce",
        "accessList",
        "address",
        "topics",
        "fromBlock",
        "toBlock",
        "blockHash",
        "storageKeys",
        "blockNumber",
    ]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)
common = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400
)


@common
@given(body=st.binary(max_size=200))
def test_any_bytes_get_an_answer(door: Door, body: bytes):
    """What isn't JSON-RPC is told so."""
    check(door.ask(body))


@common
@given(body=VALUES | st.lists(VALUES, max_size=3))
def test_any_json_gets_an_answer(door: Door, body: Any):
    """Wrong shapes, and batches of them, are told so."""
    check(door.ask(json.dumps(body).encode()))


@common
@given(data=st.data())
def test_any_parameters_get_an_answer(door: Door, data: st.DataObject):
    """Every method survives every list of parameters, and reading never changes the chain."""
    before = door.chain.head
    name = data.draw(st.sampled_from(door.names))
    request = {
        "jsonrpc": "2.0",
        "id": data.draw(LEAVES),
        "method": name,
        "params": data.draw(st.lists(VALUES, max_size=4)),
    }
    check(door.ask(json.dumps(request).encode()))
    assert door.chain.head == before


@common
@given(code=st.binary(max_size=60), data=st.binary(max_size=40), value=st.integers(0, 2**70))
def test_any_code_can_be_tried(door: Door, code: bytes, data: bytes, value: int):
    """Random programs, called or estimated, end within the gas limit and leave nothing behind."""
    before = door.chain.head
    for method, to in (("eth_call", None), ("eth_estimateGas", None), ("eth_call", TOY_HEX)):
        fields = {
            "data": "0x" + (code if to is None else data).hex(),
            "value": hex(value),
            "to": to,
            "gas": "0x30000",
        }
        check(
            door.ask(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": [fields]}).encode())
        )
    assert door.chain.head == before
    assert door.chain.replay(GENESIS) == 1


VALID = bytes(
    Account.sign_transaction(
        {"to": TOY_AT, "nonce": 7, "data": b"\x01" * 70, "gas": 99_999, "value": 1, "type": 2, "chainId": CHAIN_ID}
        | {"maxFeePerGas": 5, "maxPriorityFeePerGas": 3, "accessList": [{"address": TOY_HEX, "storageKeys": ["0x" + "11" * 32]}]},
        b"\x09" * 32,
    ).raw_transaction
)  # fmt: skip


@common
@given(at=st.integers(0, len(VALID) - 1), byte=st.integers(0, 255), drop=st.integers(0, 3))
def test_no_second_spelling_of_a_transaction(at: int, byte: int, drop: int):
    """A changed byte gives another sender or a refusal, never the same sender's transaction."""
    changed = VALID[:at] + bytes((byte,)) + VALID[at + 1 + drop :]
    assert changed == VALID or sender_of(changed) != sender_of(VALID)


def sender_of(raw: bytes) -> bytes | None:
    try:
        return decode_transaction(raw, CHAIN_ID).sender
    except BadTransaction:
        return None


def test_a_mirrored_signature_is_refused():
    """High s: the same signature in another form would give a transaction a second hash."""
    transaction = decode_transaction(VALID, CHAIN_ID)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    fields = decode_rlp(VALID[1:])
    assert isinstance(fields, list)
    fields[9] = b"" if transaction.v else b"\x01"
    fields[11] = (order - transaction.s).to_bytes(32)
    with pytest.raises(BadTransaction, match="invalid transaction v, r, s"):
        decode_transaction(b"\x02" + encode_rlp(fields), CHAIN_ID)


@common
@given(item=st.recursive(st.binary(max_size=70), lambda inner: st.lists(inner, max_size=5), max_leaves=20))
def test_rlp_round_trips(item: Any):
    """What is encoded decodes to itself, unless it is nested deeper than any transaction."""
    if depth(item) <= 4:
        assert decode_rlp(encode_rlp(item)) == item
    else:
        with pytest.raises(BadRlp, match="deep"):
            decode_rlp(encode_rlp(item))


def depth(item: Any) -> int:
    return 0 if isinstance(item, bytes) else 1 + max(map(depth, item), default=-1)


@common
@given(data=st.binary(max_size=100))
def test_rlp_has_one_spelling(data: bytes):
    """Bytes that decode are what encoding gives back."""
    try:
        item = decode_rlp(data)
    except BadRlp:
        return
    assert encode_rlp(item) == data


def test_unprotected_and_unknown_types_are_named():
    """Transactions without a chain id, blob and later types say why they are refused."""
    with pytest.raises(BadTransaction, match="type not supported: 3"):
        decode_transaction(b"\x03\xc0", CHAIN_ID)
    raw = Account.sign_transaction(
        {"to": TOY_AT, "nonce": 0, "gas": 21_000, "gasPrice": 0, "value": 0}, b"\x09" * 32
    )
    with pytest.raises(BadTransaction, match="EIP-155"):
        decode_transaction(bytes(raw.raw_transaction), CHAIN_ID)


@pytest.mark.parametrize(
    "odd", ["1e400", "-0.0", "1" * 30, "1.5", "true", "[]", '"' + "x" * 5000 + '"', "null"]
)
def test_odd_ids_are_echoed_or_refused(door: Door, odd: str):
    """Whatever the id is, there is an answer."""
    check(door.ask(b'{"jsonrpc":"2.0","method":"eth_chainId","params":[],"id":%s}' % odd.encode()))


def test_a_batch_has_a_limit(door: Door):
    """More than a thousand requests in one body are refused as one."""
    request: Any = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    assert door.ask(json.dumps([request] * (MAX_BATCH + 1)).encode())["error"]["code"] == -32005
    assert len(door.ask(json.dumps([request] * MAX_BATCH).encode())) == MAX_BATCH
    assert door.ask(b"[]")["error"]["code"] == -32600


def test_notifications_are_not_answered(door: Door):
    """A request without an id gets no answer."""
    assert door.ask(b'{"jsonrpc":"2.0","method":"eth_chainId"}') is None


def test_a_gap_in_nonces_is_refused_after_a_second(door: Door):
    """A transaction whose predecessor never comes is named as such, and not acknowledged."""
    key = Key(b"\x66" * 32)
    fields = {"to": TOY_AT, "nonce": 3, "gas": 90_000, "value": 0, "chainId": CHAIN_ID}
    raw = Account.sign_transaction(
        {**fields, "maxFeePerGas": 0, "maxPriorityFeePerGas": 0}, key.secret()
    ).raw_transaction
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "eth_sendRawTransaction",
        "params": ["0x" + bytes(raw).hex()],
    }
    answer = door.ask(json.dumps(request).encode())
    assert answer["error"]["message"].startswith("nonce too high: next nonce 0, tx nonce 3")


@common
@given(
    output=st.binary(max_size=200), selector=st.sampled_from([b"\x08\xc3\x79\xa0", b"\x4e\x48\x7b\x71", b""])
)
def test_any_revert_data_is_passed_on(door: Door, output: bytes, selector: bytes):
    """What a contract returns under the selectors of Error and Panic need not be text: it comes back as it is."""
    returned = selector + output
    # PUSH1 size, PUSH1 offset, PUSH0, CODECOPY, PUSH1 size, PUSH0, REVERT
    program = bytes((0x60, len(returned), 0x60, 10, 0x5F, 0x39, 0x60, len(returned), 0x5F, 0xFD)) + returned
    fields = {"data": "0x" + program.hex()}
    answer = door.ask(
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [fields]}).encode()
    )
    assert answer["error"]["code"] == 3
    assert answer["error"]["data"] == "0x" + returned.hex()
