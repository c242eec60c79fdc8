"""Blocks, transactions, receipts and logs as the JSON objects that Ethereum clients expect."""

from typing import Any

from clusterai.ledger.adapters.embedded.blocks import EMPTY_UNCLES, NO_BLOOM, Block, Included
from clusterai.ledger.adapters.embedded.evm import BLOCK_GAS_LIMIT, BlockContext
from clusterai.ledger.adapters.embedded.journal import LogRow
from clusterai.protocol.ids import Digest, hex0x

_TYPE = {0: "0x0", 1: "0x1", 2: "0x2"}
_ZERO32 = "0x" + "00" * 32
_ZERO20 = "0x" + "00" * 20


def block_view(block: Block, *, full: bool) -> dict[str, Any]:
    h = block.header
    transactions = [
        transaction_view(block, one) if full else hex0x(one.transaction.hash) for one in block.included
    ]
    size = len(h.rlp()) + sum(len(one.transaction.raw) for one in block.included)
    return {
        "number": hex(h.number),
        "hash": hex0x(block.hash),
        "parentHash": hex0x(h.parent),
        "sha3Uncles": hex0x(EMPTY_UNCLES),
        "miner": _ZERO20,
        "stateRoot": hex0x(h.state.to_bytes(32)),
        "transactionsRoot": hex0x(h.transactions),
        "receiptsRoot": hex0x(h.receipts),
        "logsBloom": hex0x(h.bloom),
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "gasLimit": hex(BLOCK_GAS_LIMIT),
        "gasUsed": hex(h.gas_used),
        "timestamp": hex(h.timestamp_s),
        "extraData": "0x",
        "mixHash": hex0x(h.prevrandao),
        "nonce": "0x0000000000000000",
        "baseFeePerGas": "0x0",
        "size": hex(size),
        "uncles": [],
        "transactions": transactions,
    }


def pending_view(context: BlockContext, parent: Digest) -> dict[str, Any]:
    """The block that would come next; it has no hash and its beacon is not told."""
    return {
        "number": hex(context.number),
        "hash": None,
        "parentHash": hex0x(parent),
        "sha3Uncles": hex0x(EMPTY_UNCLES),
        "miner": _ZERO20,
        "stateRoot": _ZERO32,
        "transactionsRoot": _ZERO32,
        "receiptsRoot": _ZERO32,
        "logsBloom": hex0x(NO_BLOOM),
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "gasLimit": hex(BLOCK_GAS_LIMIT),
        "gasUsed": "0x0",
        "timestamp": hex(context.timestamp_s),
        "extraData": "0x",
        "mixHash": _ZERO32,
        "nonce": None,
        "baseFeePerGas": "0x0",
        "size": "0x0",
        "uncles": [],
        "transactions": [],
    }


def transaction_view(block: Block, included: Included) -> dict[str, Any]:
    t = included.transaction
    view: dict[str, Any] = {
        "hash": hex0x(t.hash),
        "type": _TYPE[t.kind],
        "nonce": hex(t.nonce),
        "blockHash": hex0x(block.hash),
        "blockNumber": hex(block.header.number),
        "blockTimestamp": hex(block.header.timestamp_s),
        "transactionIndex": hex(included.index),
        "from": hex0x(t.sender),
        "to": t.to and hex0x(t.to),
        "value": hex(t.value),
        "gas": hex(t.gas),
        "gasPrice": hex(t.gas_price if t.kind < 2 else 0),
        "input": hex0x(t.data),
        "chainId": hex(t.chain_id),
        "v": hex(t.v),
        "r": hex(t.r),
        "s": hex(t.s),
    }
    if t.kind:
        view["yParity"] = hex(t.v)
        view["accessList"] = [
            {
                "address": hex0x(entry.address),
                "storageKeys": [hex0x(slot.to_bytes(32)) for slot in entry.slots],
            }
            for entry in t.access
        ]
    if t.kind == 2:
        view["maxFeePerGas"] = hex(t.gas_price)
        view["maxPriorityFeePerGas"] = hex(t.priority)
    return view


def receipt_view(block: Block, included: Included) -> dict[str, Any]:
    """`revertReason` holds what a failed transaction returned; Besu has the same field."""
    t, outcome = included.transaction, included.outcome
    view: dict[str, Any] = {
        "transactionHash": hex0x(t.hash),
        "transactionIndex": hex(included.index),
        "blockHash": hex0x(block.hash),
        "blockNumber": hex(block.header.number),
        "from": hex0x(t.sender),
        "to": t.to and hex0x(t.to),
        "type": _TYPE[t.kind],
        "status": "0x1" if outcome.success else "0x0",
        "gasUsed": hex(outcome.gas_used),
        "cumulativeGasUsed": hex(included.gas_before + outcome.gas_used),
        "effectiveGasPrice": "0x0",
        "contractAddress": outcome.created and hex0x(outcome.created),
        "logsBloom": hex0x(block.header.bloom if outcome.logs else NO_BLOOM),
        "logs": [log_view(row) for row in log_rows(block, included)],
    }
    if not outcome.success:
        view["revertReason"] = hex0x(outcome.output)
    return view


def log_rows(block: Block, included: Included) -> list[LogRow]:
    return [
        LogRow(
            block.header.number,
            block.hash,
            block.header.timestamp_s,
            index,
            included.transaction.hash,
            included.index,
            log,
        )
        for index, log in enumerate(included.outcome.logs, included.first_log)
    ]


def log_view(row: LogRow) -> dict[str, Any]:
    return {
        "address": hex0x(row.log.address),
        "topics": [hex0x(topic) for topic in row.log.topics],
        "data": hex0x(row.log.data),
        "blockNumber": hex(row.block),
        "blockHash": hex0x(row.block_hash),
        "blockTimestamp": hex(row.timestamp_s),
        "transactionHash": hex0x(row.transaction),
        "transactionIndex": hex(row.transaction_index),
        "logIndex": hex(row.index),
        "removed": False,
    }
