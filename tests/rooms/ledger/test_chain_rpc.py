"""What wallets and libraries ask of a chain, asked of both chains through web3.py and raw requests."""

import asyncio
import json
import urllib.request
from typing import Any

import pytest
from aiohttp import ClientSession
from eth_account import Account
from web3 import AsyncHTTPProvider, AsyncWeb3, Web3
from web3.exceptions import ContractCustomError, ContractLogicError, ContractPanicError, Web3RPCError

from clusterai.protocol.signing import Key
from tests.rooms.ledger.conftest import CHAIN_ID, RICH, TOY, Process

FREE = {"maxFeePerGas": 0, "maxPriorityFeePerGas": 0, "chainId": CHAIN_ID}


def ask(url: str, method: str, *params: object) -> dict[str, Any]:
    return post(url, {"jsonrpc": "2.0", "id": 7, "method": method, "params": params})


def post(url: str, body: object) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def signed(web3: Any, key: Key, **fields: Any) -> bytes:
    fields = {"gas": 3_000_000, "value": 0, **FREE, **fields}
    if "nonce" not in fields:
        fields["nonce"] = web3.eth.get_transaction_count(Web3.to_checksum_address(key.address))
    return bytes(Account.sign_transaction(fields, key.secret()).raw_transaction)


def sent(web3: Any, key: Key, **fields: Any) -> Any:
    return web3.eth.wait_for_transaction_receipt(
        web3.eth.send_raw_transaction(signed(web3, key, **fields)), timeout=120, poll_latency=0.01
    )


@pytest.fixture(scope="module")
def toy(web3: Any) -> Any:
    make = web3.eth.contract(abi=TOY["abi"], bytecode=TOY["bytecode"])
    receipt = sent(web3, RICH[0], data=make.constructor(10**24).data_in_transaction)
    return web3.eth.contract(address=receipt["contractAddress"], abi=TOY["abi"])


def doing(web3: Any, key: Key, call: Any, **fields: Any) -> Any:
    return sent(web3, key, to=call.address, data=call._encode_transaction_data(), **fields)


def test_the_chain_says_who_it_is(web3: Any):
    """Chain id and network version are the configured ones, nothing is syncing."""
    assert web3.eth.chain_id == CHAIN_ID
    assert web3.net.version == str(CHAIN_ID)
    assert web3.eth.syncing is False
    assert web3.client_version


def test_a_transfer_moves_ether(web3: Any):
    """A signed transfer is mined at once; balances, nonce and receipt tell of it."""
    to = Web3.to_checksum_address(Key(b"\x07" * 32).address)
    before = web3.eth.get_balance(to)
    receipt = sent(web3, RICH[0], to=to, value=10**15)
    assert receipt["status"] == 1
    assert receipt["gasUsed"] == 21_000
    assert receipt["from"] == Web3.to_checksum_address(RICH[0].address)
    assert web3.eth.get_balance(to) == before + 10**15
    transaction = web3.eth.get_transaction(receipt["transactionHash"])
    assert (transaction["value"], transaction["to"]) == (10**15, to)
    assert web3.eth.get_block(receipt["blockNumber"])["hash"] == receipt["blockHash"]


ENTRY = "0x" + "11" * 20
TYPES: dict[str, dict[str, Any]] = {
    "legacy": {"gasPrice": 0, "chainId": CHAIN_ID},
    "2930": {
        "type": 1,
        "gasPrice": 0,
        "chainId": CHAIN_ID,
        "accessList": [{"address": ENTRY, "storageKeys": ["0x" + "00" * 32]}],
    },
    "1559": {"type": 2, **FREE, "accessList": [{"address": ENTRY, "storageKeys": []}]},
}


@pytest.mark.parametrize("fields", TYPES.values(), ids=TYPES.keys())
def test_each_type_of_transaction_is_taken(web3: Any, fields: dict[str, Any]):
    """Types 0, 1 and 2 are mined, and an access list is paid for in gas."""
    nonce = web3.eth.get_transaction_count(Web3.to_checksum_address(RICH[0].address))
    fields = {"to": b"\x01" * 19 + b"\x77", "value": 1, "gas": 100_000, "nonce": nonce, **fields}
    raw = Account.sign_transaction(fields, RICH[0].secret()).raw_transaction
    receipt = web3.eth.wait_for_transaction_receipt(web3.eth.send_raw_transaction(raw))
    assert receipt["status"] == 1
    keys = sum(len(entry["storageKeys"]) for entry in fields.get("accessList", ()))
    assert receipt["gasUsed"] == 21_000 + 2_400 * len(fields.get("accessList", ())) + 1_900 * keys
    assert web3.eth.get_transaction(receipt["transactionHash"])["type"] == fields.get("type", 0)


def test_a_contract_keeps_what_it_is_told(web3: Any, toy: Any):
    """Deploy, call, read storage and code: a token works."""
    assert len(web3.eth.get_code(toy.address)) > 1000
    who = Web3.to_checksum_address(RICH[0].address)
    assert toy.functions.balanceOf(who).call() > 0
    assert doing(web3, RICH[0], toy.functions.transfer("0x" + "22" * 20, 5))["status"] == 1
    assert toy.functions.balanceOf(Web3.to_checksum_address("0x" + "22" * 20)).call() >= 5
    assert int.from_bytes(web3.eth.get_storage_at(toy.address, 1)) == 10**24


def test_a_custom_error_reaches_the_caller(toy: Any):
    """eth_call of a call that reverts answers with code 3 and the revert's data."""
    with pytest.raises(ContractCustomError):
        toy.functions.transfer("0x" + "22" * 20, 1).call({"from": "0x" + "99" * 20})
    with pytest.raises(ContractLogicError, match="not today"):
        toy.functions.fails("not today").call()
    with pytest.raises(ContractPanicError):
        toy.functions.panics().call()


def test_revert_data_stands_where_geth_puts_it(chain: Process, toy: Any):
    """code 3, message `execution reverted…`, data the encoded error: for eth_call and eth_estimateGas."""
    data = toy.functions.fails("no").build_transaction({"gas": 1, **FREE, "nonce": 0})["data"]
    for method in ("eth_call", "eth_estimateGas"):
        error = ask(chain.url, method, {"to": toy.address, "data": data}, "latest")["error"]
        assert error["code"] == 3
        assert error["message"].startswith("execution reverted")
        assert error["data"].startswith("0x08c379a0")


def test_a_failed_transaction_is_mined_and_changes_nothing(web3: Any, toy: Any):
    """A transaction that reverts has status 0, counts the nonce, and leaves balances as they were."""
    call = toy.functions.transfer("0x" + "22" * 20, 10**30)
    before = toy.functions.balanceOf(Web3.to_checksum_address(RICH[0].address)).call()
    assert doing(web3, RICH[0], call)["status"] == 0
    assert toy.functions.balanceOf(Web3.to_checksum_address(RICH[0].address)).call() == before


def test_running_out_of_gas_takes_all_of_it(web3: Any, toy: Any):
    """An endless loop ends at its gas limit with status 0."""
    receipt = doing(web3, RICH[0], toy.functions.burns(), gas=200_000)
    assert (receipt["status"], receipt["gasUsed"]) == (0, 200_000)


def test_an_estimate_suffices(web3: Any, toy: Any):
    """A transaction with the estimated gas succeeds, also where a refund hides what it needs meanwhile."""
    for call in (toy.functions.many(10), toy.functions.clear(10), toy.functions.make()):
        gas = call.estimate_gas({"from": Web3.to_checksum_address(RICH[0].address)})
        assert doing(web3, RICH[0], call, gas=gas)["status"] == 1


def test_transient_storage_ends_with_its_transaction(web3: Any, toy: Any):
    """TSTORE of one transaction is not seen by the next."""
    assert doing(web3, RICH[0], toy.functions.transient_(9))["status"] == 1
    assert toy.functions.transient_(1).call() == 0


def test_a_contract_that_ends_itself_in_its_first_transaction_is_gone(web3: Any, toy: Any):
    """EIP-6780: created and destroyed in one transaction, it leaves neither code nor storage."""
    address = toy.functions.makeAndKill().call()
    assert doing(web3, RICH[0], toy.functions.makeAndKill())["status"] == 1
    assert web3.eth.get_code(address) == b""


def test_nonces_are_kept_in_order(web3: Any):
    """A used nonce is refused, and the pending count is what to use next."""
    raw = signed(web3, RICH[1], to="0x" + "33" * 20, value=1)
    web3.eth.wait_for_transaction_receipt(web3.eth.send_raw_transaction(raw))
    with pytest.raises((Web3RPCError, ValueError)):
        web3.eth.send_raw_transaction(raw)
    who = Web3.to_checksum_address(RICH[1].address)
    used = web3.eth.get_transaction_count(who)
    assert web3.eth.get_transaction_count(who, "pending") == used
    with pytest.raises((Web3RPCError, ValueError), match="nonce too low"):
        web3.eth.send_raw_transaction(signed(web3, RICH[1], to="0x" + "33" * 20, value=2, nonce=used - 1))


def test_another_chains_transaction_is_refused(web3: Any):
    """A transaction signed for chain 1 can't be replayed here."""
    with pytest.raises((Web3RPCError, ValueError)):
        web3.eth.send_raw_transaction(signed(web3, RICH[1], to="0x" + "33" * 20, value=1, chainId=1))


def test_more_than_one_has_is_refused(web3: Any):
    """A transfer above the balance is not mined."""
    poor = Key(b"\x55" * 32)
    with pytest.raises((Web3RPCError, ValueError), match=r"(?i)insufficient funds"):
        web3.eth.send_raw_transaction(signed(web3, poor, to="0x" + "33" * 20, value=1))


def test_too_little_gas_for_the_data_is_refused(web3: Any):
    """Below the intrinsic cost a transaction can't begin."""
    with pytest.raises((Web3RPCError, ValueError), match=r"(?i)intrinsic gas too low"):
        web3.eth.send_raw_transaction(signed(web3, RICH[1], to="0x" + "33" * 20, gas=20_999))


def test_logs_are_found_by_address_topic_and_range(web3: Any, toy: Any):
    """Exact topics, alternatives, any; ranges; and a block's hash."""
    key = b"k" * 32
    receipt = doing(web3, RICH[0], toy.functions.note(key, 7, b"\x01\x02", "text"))
    block = receipt["blockNumber"]
    doing(web3, RICH[0], toy.functions.note(b"l" * 32, 8, b"", ""))
    found = toy.events.Noted().get_logs(from_block=block, argument_filters={"key": key})
    assert [(log["args"]["number"], log["args"]["data"], log["args"]["text"]) for log in found] == [
        (7, b"\x01\x02", "text")
    ]
    assert found[0]["transactionHash"] == receipt["transactionHash"]
    topic = web3.keccak(text="Noted(bytes32,address,uint256,bytes,string)")

    def count(**query: Any) -> int:
        return len(web3.eth.get_logs({"address": toy.address, **query}))

    assert count(fromBlock=block, topics=[topic]) == 2
    assert count(fromBlock=block, topics=[None, [key, b"l" * 32]]) == 2
    assert count(fromBlock=block, topics=[None, key]) == 1
    assert count(fromBlock=block, toBlock=block) == 1
    assert count(blockHash=receipt["blockHash"]) == 1
    assert count(fromBlock=block, topics=[b"x" * 32]) == 0
    assert count(fromBlock=0, toBlock="latest", topics=[[topic, b"x" * 32], None, None]) >= 2


def test_filters_tell_what_is_new(web3: Any, toy: Any):
    """A log filter and a block filter give each thing once."""
    logs = web3.eth.filter({"address": toy.address})
    blocks = web3.eth.filter("latest")
    receipt = doing(web3, RICH[0], toy.functions.note(b"f" * 32, 1, b"", ""))
    assert [log["transactionHash"] for log in logs.get_new_entries()] == [receipt["transactionHash"]]
    assert list(logs.get_new_entries()) == []
    assert receipt["blockHash"] in blocks.get_new_entries()


def test_blocks_form_a_chain(web3: Any, toy: Any):
    """Parent hashes link, time doesn't run backwards, the beacon differs from block to block."""
    doing(web3, RICH[0], toy.functions.remember())
    first = web3.eth.get_block("latest")
    seen = toy.functions.lastRandao().call()
    doing(web3, RICH[0], toy.functions.remember())
    second = web3.eth.get_block("latest", full_transactions=True)
    assert second["parentHash"] == first["hash"]
    assert second["timestamp"] >= first["timestamp"]
    assert toy.functions.lastRandao().call() == int.from_bytes(second["mixHash"]) != seen
    assert second["transactions"][0]["nonce"] >= 0
    assert web3.eth.get_block(second["hash"])["number"] == second["number"]


def test_fee_questions_have_answers(web3: Any):
    """Wallets that ask for fees learn that the base fee is zero."""
    assert web3.eth.gas_price >= 0
    assert web3.eth.max_priority_fee >= 0
    history = web3.eth.fee_history(2, "latest", [50])
    assert set(history["baseFeePerGas"]) == {0}


def test_a_batch_is_answered_in_order(chain: Process):
    """An array of requests gives an array of answers with the same ids."""
    batch: list[Any] = [{"jsonrpc": "2.0", "id": n, "method": "eth_chainId", "params": []} for n in range(5)]
    answers = post(chain.url, batch)
    assert [answer["id"] for answer in answers] == list(range(5))
    assert {answer["result"] for answer in answers} == {hex(CHAIN_ID)}


def test_unknown_methods_are_named(chain: Process):
    """-32601 for a method that doesn't exist."""
    assert ask(chain.url, "eth_nonsense")["error"]["code"] == -32601


def test_async_web3_works_on_one_session(chain: Process, toy: Any):
    """AsyncWeb3 reads, sends and waits."""

    async def run() -> int:
        web3: Any = AsyncWeb3(AsyncHTTPProvider(chain.url))
        contract = web3.eth.contract(address=toy.address, abi=TOY["abi"])
        who = Web3.to_checksum_address(RICH[2].address)
        nonce = await web3.eth.get_transaction_count(who)
        fields = {"to": toy.address, "gas": 200_000, "nonce": nonce, "value": 0, **FREE}
        data = contract.encode_abi("mint", [who, 77])
        raw = Account.sign_transaction({**fields, "data": data}, RICH[2].secret()).raw_transaction
        receipt = await web3.eth.wait_for_transaction_receipt(await web3.eth.send_raw_transaction(raw))
        assert receipt["status"] == 1
        balance: int = await contract.functions.balanceOf(who).call()
        await web3.provider.disconnect()
        return balance

    assert asyncio.run(run()) >= 77


def test_many_senders_at_once(chain: Process, web3: Any):
    """Transactions that arrive together, and in any order of nonces, are all mined."""
    keys = [Key(bytes([9, n]) * 16) for n in range(5)]
    start = {k.address: web3.eth.get_transaction_count(Web3.to_checksum_address(k.address)) for k in keys}
    raws = [
        signed(web3, key, to="0x" + "44" * 20, gas=30_000, nonce=start[key.address] + n)
        for n in (2, 0, 1, 3)
        for key in keys
    ]

    async def send(session: ClientSession, raw: bytes) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": ["0x" + raw.hex()]}
        async with session.post(chain.url, json=body) as response:
            return await response.json()

    async def run() -> list[Any]:
        async with ClientSession() as session:
            return await asyncio.gather(*(send(session, raw) for raw in raws))

    answers = asyncio.run(run())
    assert all("result" in answer for answer in answers), answers
    for answer in answers:
        receipt = web3.eth.wait_for_transaction_receipt(answer["result"], timeout=120, poll_latency=0.01)
        assert receipt["status"] == 1


def test_gas_is_counted_as_elsewhere(web3: Any, toy: Any):
    """Cold and warm storage, refunds, logs, creations: the gas used equals what revm's own client reports."""
    fresh = Key(b"\x21" * 32)
    who = Web3.to_checksum_address(fresh.address)
    f = toy.functions
    calls = [
        f.mint(who, 100),
        f.transfer("0x" + "66" * 20, 40),
        f.transfer("0x" + "66" * 20, 60),
        f.note(b"g" * 32, 3, b"abc" * 50, "text"),
        f.make(),
        f.makeAndKill(),
        f.transient_(3),
        f.fails("no"),
        f.transfer(who, 1),
    ]
    used = [doing(web3, fresh, call)["gasUsed"] for call in calls]
    assert used == [51_212, 51_326, 29_426, 30_657, 95_081, 100_494, 21_725, 22_275, 24_253]
