"""The JSON-RPC methods that read: each takes the parameters and gives what goes under `result`."""

from collections.abc import Callable, Sequence
from typing import Any

from clusterai.ledger.adapters.embedded import params as p
from clusterai.ledger.adapters.embedded.blocks import Block
from clusterai.ledger.adapters.embedded.chain import Chain
from clusterai.ledger.adapters.embedded.evm import BLOCK_GAS_LIMIT, Message, Outcome
from clusterai.ledger.adapters.embedded.filters import Filters
from clusterai.ledger.adapters.embedded.journal import LogQuery
from clusterai.ledger.adapters.embedded.params import InvalidParams, Tag
from clusterai.ledger.adapters.embedded.transactions import AccessEntry
from clusterai.ledger.adapters.embedded.views import (
    block_view,
    log_view,
    pending_view,
    receipt_view,
    transaction_view,
)
from clusterai.protocol.ids import ZERO_ADDRESS, hex0x
from clusterai.protocol.keccak import keccak

CLIENT_VERSION = "clusterai-embedded/0.1.0/revm"
_CALL_FIELDS = frozenset(
    [
        "from",
        "to",
        "data",
        "input",
        "value",
        "gas",
        "gasPrice",
        "maxFeePerGas",
        "maxPriorityFeePerGas",
        "nonce",
        "chainId",
        "type",
        "accessList",
    ]
)

Method = Callable[[Sequence[object]], Any]


class Unavailable(ValueError):
    """The state of block {number} is not kept: ask for `latest`."""


class Reverted(Exception):
    """The call failed; `outcome` holds what it returned."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.halt)
        self.outcome = outcome


class Methods:
    def __init__(self, chain: Chain, clock: Callable[[], float]) -> None:
        self._chain = chain
        self._filters = Filters(chain, clock)

    def table(self) -> dict[str, Method]:
        chain, filters = self._chain, self._filters
        return {
            "eth_chainId": lambda _: hex(chain.chain_id),
            "net_version": lambda _: str(chain.chain_id),
            "net_listening": lambda _: True,
            "net_peerCount": lambda _: "0x0",
            "web3_clientVersion": lambda _: CLIENT_VERSION,
            "web3_sha3": lambda params: hex0x(keccak(p.data(p.nth(params, 0), "data"))),
            "eth_blockNumber": lambda _: hex(chain.head.header.number),
            "eth_syncing": lambda _: False,
            "eth_mining": lambda _: True,
            "eth_accounts": lambda _: [],
            "eth_gasPrice": lambda _: "0x0",
            "eth_maxPriorityFeePerGas": lambda _: "0x0",
            "eth_blobBaseFee": lambda _: "0x0",
            "eth_feeHistory": self._fee_history,
            "eth_getBalance": lambda params: hex(chain.balance(self._account(params))),
            "eth_getTransactionCount": lambda params: hex(chain.nonce(self._account(params))),
            "eth_getCode": lambda params: hex0x(chain.code(self._account(params))),
            "eth_getStorageAt": self._storage,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getBlockTransactionCountByNumber": self._count_by_number,
            "eth_getBlockTransactionCountByHash": self._count_by_hash,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionByBlockNumberAndIndex": self._transaction_at,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getLogs": self._logs,
            "eth_newFilter": lambda params: filters.add_logs(self._log_query(params)),
            "eth_newBlockFilter": lambda _: filters.add_blocks(),
            "eth_getFilterChanges": lambda params: filters.changes(p.quantity(p.nth(params, 0), "filter id")),
            "eth_getFilterLogs": lambda params: filters.all_logs(p.quantity(p.nth(params, 0), "filter id")),
            "eth_uninstallFilter": lambda params: filters.remove(p.quantity(p.nth(params, 0), "filter id")),
        }

    def _account(self, params: Sequence[object]) -> Any:
        self._latest(p.tag(p.nth(params, 1)))
        return p.address(p.nth(params, 0), "address")

    def _latest(self, tag: Tag) -> None:
        if tag.number is not None and tag.number != self._chain.head.header.number:
            raise Unavailable(f"the state of block {tag.number} is not kept: ask for `latest`")

    def _storage(self, params: Sequence[object]) -> str:
        self._latest(p.tag(p.nth(params, 2)))
        key = p.storage_key(p.nth(params, 1))
        return hex0x(self._chain.storage(p.address(p.nth(params, 0), "address"), key).to_bytes(32))

    def _fee_history(self, params: Sequence[object]) -> dict[str, Any]:
        count = min(p.quantity(p.nth(params, 0), "block count"), 1024)
        newest = self._number(p.tag(p.nth(params, 1)))
        percentiles = p.items(p.nth(params, 2) or [], "reward percentiles", 100)
        oldest = max(0, newest - count + 1)
        blocks = [block for n in range(oldest, newest + 1) if (block := self._chain.block(n))]
        view: dict[str, Any] = {
            "oldestBlock": hex(oldest),
            "baseFeePerGas": ["0x0"] * (len(blocks) + 1),
            "gasUsedRatio": [block.header.gas_used / BLOCK_GAS_LIMIT for block in blocks],
        }
        if percentiles:
            view["reward"] = [["0x0"] * len(percentiles) for _ in blocks]
        return view

    def _number(self, tag: Tag) -> int:
        head = self._chain.head.header.number
        return head if tag.number is None else min(tag.number, head)

    def _message(self, params: Sequence[object]) -> tuple[Message, bool]:
        fields = p.members(p.nth(params, 0), "transaction")
        if unknown := fields.keys() - _CALL_FIELDS:
            raise InvalidParams(f"transaction: unknown field {min(unknown)[:40]!r}")
        if p.nth(params, 2):
            raise InvalidParams("state overrides are not supported here: send the transaction instead")
        tag = p.tag(p.nth(params, 1))
        self._latest(tag)
        told = [p.data(fields[name], name) for name in ("input", "data") if fields.get(name) is not None]
        if len(set(told)) > 1:
            raise InvalidParams('both "data" and "input" are set and not equal: give "input" only')
        gas = fields.get("gas")
        to, sender = fields.get("to"), fields.get("from")
        message = Message(
            sender=ZERO_ADDRESS if sender is None else p.address(sender, "from"),
            to=None if to is None else p.address(to, "to"),
            data=told[0] if told else b"",
            value=p.quantity(fields.get("value") or "0x0", "value"),
            gas=BLOCK_GAS_LIMIT if gas is None else min(BLOCK_GAS_LIMIT, p.quantity(gas, "gas")),
            access=tuple(
                _access(entry) for entry in p.items(fields.get("accessList") or [], "accessList", 1000)
            ),
        )
        return message, tag.pending

    def _call(self, params: Sequence[object]) -> str:
        message, pending = self._message(params)
        outcome = self._chain.call(message, pending=pending)
        if not outcome.success:
            raise Reverted(outcome)
        return hex0x(outcome.output)

    def _estimate(self, params: Sequence[object]) -> str:
        message, _ = self._message(params)
        gas, outcome = self._chain.estimate(message)
        if not outcome.success:
            raise Reverted(outcome)
        return hex(gas)

    def _block_by_number(self, params: Sequence[object]) -> Any:
        tag, full = p.tag(p.nth(params, 0)), p.flag(p.nth(params, 1) or False, "full transactions")
        if tag.pending:
            return pending_view(self._chain.next_header(), self._chain.head.hash)
        block = self._at(tag)
        return block and block_view(block, full=full)

    def _at(self, tag: Tag) -> Block | None:
        return self._chain.head if tag.number is None else self._chain.block(tag.number)

    def _block_by_hash(self, params: Sequence[object]) -> Any:
        full = p.flag(p.nth(params, 1) or False, "full transactions")
        block = self._chain.block_by_hash(p.data(p.nth(params, 0), "block hash", 32))
        return block and block_view(block, full=full)

    def _block_receipts(self, params: Sequence[object]) -> Any:
        which = p.nth(params, 0)
        if isinstance(which, str) and len(which) == 66:
            block = self._chain.block_by_hash(p.data(which, "block hash", 32))
        else:
            block = self._at(p.tag(which))
        return block and [receipt_view(block, one) for one in block.included]

    def _count_by_number(self, params: Sequence[object]) -> Any:
        block = self._at(p.tag(p.nth(params, 0)))
        return block and hex(len(block.included))

    def _count_by_hash(self, params: Sequence[object]) -> Any:
        block = self._chain.block_by_hash(p.data(p.nth(params, 0), "block hash", 32))
        return block and hex(len(block.included))

    def _transaction(self, params: Sequence[object]) -> Any:
        found = self._chain.included(p.data(p.nth(params, 0), "transaction hash", 32))
        return found and transaction_view(*found)

    def _transaction_at(self, params: Sequence[object]) -> Any:
        block, index = self._at(p.tag(p.nth(params, 0))), p.quantity(p.nth(params, 1), "index")
        if block is None or index >= len(block.included):
            return None
        return transaction_view(block, block.included[index])

    def _receipt(self, params: Sequence[object]) -> Any:
        found = self._chain.included(p.data(p.nth(params, 0), "transaction hash", 32))
        return found and receipt_view(*found)

    def _logs(self, params: Sequence[object]) -> list[Any]:
        query = self._log_query(params)
        return [] if query is None else [log_view(row) for row in self._chain.logs(query)]

    def _log_query(self, params: Sequence[object]) -> LogQuery | None:
        """None: of a block that isn't there, or one that nothing can match."""
        fields = p.members(p.nth(params, 0) or {}, "filter")
        addresses = p.choice(fields.get("address"), "address", 20)
        topics = tuple(p.choice(one, "topic", 32) for one in p.items(fields.get("topics") or [], "topics", 4))
        if (block_hash := fields.get("blockHash")) is not None:
            if "fromBlock" in fields or "toBlock" in fields:
                raise InvalidParams("give either blockHash or fromBlock and toBlock")
            block = self._chain.block_by_hash(p.data(block_hash, "blockHash", 32))
            if block is None:
                raise Unavailable("unknown block")
            return LogQuery(block.header.number, block.header.number, addresses, topics)
        first, last = p.tag(fields.get("fromBlock")), p.tag(fields.get("toBlock"))
        start = self._chain.head.header.number if first.number is None else first.number
        end = min(2**62, last.number if last.number is not None else 2**62)
        if start > end:
            raise InvalidParams("invalid block range: fromBlock is after toBlock")
        return LogQuery(start, end, addresses, topics) if start <= self._chain.head.header.number else None


def _access(entry: object) -> AccessEntry:
    fields = p.members(entry, "accessList")
    keys = p.items(fields.get("storageKeys"), "storageKeys", 1000)
    return AccessEntry(
        p.address(fields.get("address"), "address"),
        tuple(int.from_bytes(p.data(key, "storageKeys", 32)) for key in keys),
    )
